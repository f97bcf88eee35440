"""The golden files as cases: how each is read, and what of our model its answer is.

tests/golden/README.md says which program made each file.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from tubelet.nn import Grid, SpaceTimeTransformer
from tubelet.weights import from_reference, read_reference
from tubelet.weights.dialects.reference import Conversion, Source, find_dialect
from tubelet.weights.dialects.settings import Given

FOLDER = Path(__file__).parent / "golden"
# not of other programs, or without an answer: for test_upgrade.py, test_image_init.py, test_kernel.py
OTHERS = ("tubelet_", "settings_", "scenic_init_", "timm_resampled_kernel", "activitynet_segments")
TOLERANCE = 1e-5

Model = SpaceTimeTransformer


def logits(model: Model, clip: Tensor) -> Tensor:
    return model(clip)


def tokens(model: Model, clip: Tensor) -> Tensor:
    return model.tokens(clip)[0]


def each_frame(model: Model, clip: Tensor) -> Tensor:
    """A row for each frame, where ours is their mean."""
    return model(clip.transpose(1, 2).flatten(0, 1)[:, :, None])


def stack(model: Model, x: Tensor) -> Tensor:
    """The blocks alone, on tokens."""
    for block in model.encoders[0].blocks:
        x = block(x, Grid(1, 1, x.shape[1]))
    return x


# from the layout of a file's input to ours, (B, C, T, H, W)
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "bthwc": lambda x: x.permute(0, 4, 1, 2, 3),
    "btchw": lambda x: x.transpose(1, 2),
    "bchw": lambda x: x[:, :, None],
    "time,mel": lambda x: x.transpose(1, 2)[:, None, None],
    "ours": lambda x: x,
}


@dataclass(frozen=True)
class Case:
    """A golden file: its dialect, what `from_reference` is told, how its input lies, and what its answer is."""

    dialect: str
    family: str
    clip: tuple[int, int, int]
    layout: str
    answer: Callable[[Model, Tensor], Tensor] = logits
    heads: int | tuple[int, ...] = 4
    told: Mapping[str, Any] = field(default_factory=dict)

    def read(self, state: Mapping[str, Tensor]) -> Model:
        return from_reference(state, self.dialect, **self.settings())

    def taken(self, state: Mapping[str, Tensor]) -> Conversion:
        """The model with the account of its tensors."""
        given = Given(**self.settings())
        return read_reference(Source(state=state, dialect=find_dialect(self.dialect), given=given))

    def settings(self) -> dict[str, Any]:
        return {"heads": self.heads, "clip": self.clip, **self.told}

    @torch.no_grad()
    def answered(self, model: Model, given: Tensor) -> Tensor:
        """The model's answer to the file's input, at the size of that input."""
        clip = LAYOUTS[self.layout](given)
        if self.answer is logits:
            model.set_input_size(clip.shape[2:])
        return self.answer(model, clip)


def scenic(kind: str, **told: Any) -> Case:
    return Case("scenic", kind, (8, 32, 48), "bthwc", told=told)


def timm(*size: int, answer: Callable[[Model, Tensor], Tensor] = logits) -> Case:
    return Case("timm", "vit", (1, *size), "bchw", answer)


def hf(name: str, family: str, *clip: int, answer: Callable[[Model, Tensor], Tensor] = logits, heads: int = 4) -> Case:
    return Case(f"hf-{name}", family, clip, "btchw", answer, heads)


def ast(mel: int, time: int, stride: tuple[int, int, int], answer: Callable[[Model, Tensor], Tensor] = logits) -> Case:
    return Case("hf-ast", "ast", (1, mel, time), "time,mel", answer, told={"stride": stride})


CASES = {
    "scenic_model1_token": scenic("vivit1"),
    "scenic_model1_gap": scenic("vivit1", family="vivit1"),
    "scenic_model1_uniform_frames": scenic("vivit1", frames=3),
    "scenic_model2_token": scenic("vivit2"),
    "scenic_model2_gap": scenic("vivit2"),
    "scenic_model3_space_time": scenic("vivit3"),
    "scenic_model3_time_space": scenic("vivit3", attend="t,hw"),
    "scenic_model4": scenic("vivit4", family="vivit4"),
    "timesformer_original_divided": Case("timesformer", "timesformer", (4, 32, 32), "ours"),
    "timm_vit": timm(48, 32),
    "timm_vit_gap_nocls": timm(32, 48),
    "timm_vit_spectrogram": timm(64, 16),
    "timm_vit_rect_dynamic": timm(64, 16),
    "timm_vit_rect_equal_tokens": timm(64, 16),
    "timm_hybrid_stem": timm(64, 96),
    "timm_hybrid_stages": timm(64, 96),
    "timm_swinv2_cr": Case("timm", "swin2", (1, 64, 96), "bchw", heads=(2, 4), told={"window": (1, 4, 6)}),
    "timm_deit_distilled": timm(24, 32),
    "timm_vit_no_embed_class": timm(24, 32),
    "timm_vit_registers": timm(24, 32),
    "timm_vit_registers_rows": timm(24, 32),
    "timm_vit_registers_gap": timm(24, 32),
    "timm_vit_avg_fc_norm": timm(24, 32),
    "timm_dinov2_features": timm(24, 32, answer=Model.features),
    "hf_vivit": hf("vivit", "vivit1", 8, 32, 32),
    "hf_vivit_saved": hf("vivit", "vivit1", 4, 12, 16),
    "hf_vivit_base": hf("vivit", "vivit1", 4, 12, 16, answer=tokens),
    "hf_videomae": hf("videomae", "videomae", 8, 32, 32),
    "hf_videomae_saved": hf("videomae", "videomae", 4, 12, 16),
    "hf_videomae_base": hf("videomae", "videomae", 4, 12, 16, answer=tokens),
    "hf_videomae_base_in_memory": hf("videomae", "videomae", 4, 12, 16, answer=tokens),
    "hf_videomae_pretraining": hf("videomae", "videomae", 4, 12, 16, answer=tokens),
    "hf_timesformer_divided_space_time": hf("timesformer", "timesformer", 4, 32, 32),
    "hf_timesformer_joint_space_time": hf("timesformer", "vidtrans", 4, 32, 32),
    "hf_timesformer_space_only": hf("timesformer", "vivit2", 4, 32, 32, answer=each_frame),
    "hf_timesformer_base": hf("timesformer", "timesformer", 4, 16, 16, answer=Model.features),
    "hf_vjepa2_encoder": hf("vjepa2", "vjepa2", 8, 32, 32, answer=tokens),
    "hf_vjepa2_pooled": hf("vjepa2", "vjepa2", 4, 16, 16, heads=3),
    "hf_ast": ast(32, 100, (1, 5, 6)),
    "hf_ast_saved": ast(24, 40, (1, 4, 6)),
    "hf_ast_base": ast(24, 40, (1, 4, 6), tokens),
    "metatransformer_encoder": Case("metatransformer", "meta", (1, 64, 64), "ours", stack),
}


def golden(name: str) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Weights in the reference's names, its input as the file has it, and its answer; copies, to be changed freely."""
    state, given, answer = loaded(name)
    return {key: value.clone() for key, value in state.items()}, given, answer


@cache
def loaded(name: str) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    npz = FOLDER / f"{name}.npz"
    if npz.exists():
        with np.load(npz) as file:
            tensors = {key: torch.from_numpy(file[key]) for key in file.files if not key.endswith("_off")}
    else:
        tensors = load_file(npz.with_suffix(".safetensors"))
    given = next(tensors.pop(key) for key in ("input_bthwc", "input", "x") if key in tensors)
    answer = next(tensors.pop(key) for key in ("logits", "y") if key in tensors)
    return {key.removeprefix("param/").removeprefix("weights."): value for key, value in tensors.items()}, given, answer


def names_on_disk() -> list[str]:
    """Of all golden files of models with an answer."""
    return sorted(file.stem for file in FOLDER.iterdir() if file.suffix != ".md" and not file.stem.startswith(OTHERS))
