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
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from tubelet.nn import Grid, SpaceTimeTransformer
from tubelet.weights import from_reference, read_reference
from tubelet.weights.dialects.reference import Conversion, Source, find_dialect
from tubelet.weights.dialects.settings import Given

FOLDER = Path(__file__).parent / "golden"
# not of other programs, or without an answer: for test_upgrade.py, test_image_init.py, test_kernel.py
OTHERS = (
    "vjepa21_checkpoint",
    "tubelet_",
    "settings_",
    "scenic_init_",
    "timm_resampled_kernel",
    "activitynet_segments",
)
TOLERANCE = 1e-5

WEIGHTS = ("param/", "params/", "weights.")  # begin the names of weights in files that have other entries too

Model = SpaceTimeTransformer
Answer = Callable[[Model, Tensor], Tensor]


def logits(model: Model, clip: Tensor) -> Tensor:
    return model(clip)


def tokens(model: Model, clip: Tensor) -> Tensor:
    return model.tokens(clip)[0]


def each_frame(model: Model, clip: Tensor) -> Tensor:
    """A row for each frame, where ours is their mean."""
    return model(clip.transpose(1, 2).flatten(0, 1)[:, :, None])


def along_time(model: Model, clip: Tensor) -> Tensor:
    """A row for each frame, of the last encoder and the head."""
    return model.head(model.forward_features(clip)[:, 1:])


def of_frames(model: Model, clip: Tensor) -> Tensor:
    """The embedding of each frame, before it is brought to length 1."""
    encoder = model.encoders[0]
    return encoder.pool.proj(encoder.pool.pool(encoder.encode_each(*model.embed_clip(clip)))).view(len(clip), -1, 10)


def stack(model: Model, x: Tensor) -> Tensor:
    """The blocks alone, on tokens."""
    for block in model.encoders[0].blocks:
        x = block(x, Grid(1, 1, x.shape[1]))
    return x


def levels(model: Model, clip: Tensor) -> Tensor:
    """The levels of V-JEPA 2.1, side by side."""
    return torch.cat([level.flatten(1, 3) for level in model.level_features(clip)], -1)


def masked(model: Model, clip: Tensor) -> Tensor:
    """The tokens that a mask keeps, each at its place in the whole grid, as V-JEPA is pre-trained."""
    kept, encoder = entries("vjepa21_encoder")["mask"][0], model.encoders[0]
    x, grid = model.embed_clip(clip)
    turns = encoder.position.turns(x, grid)
    turns = turns._replace(cos=turns.cos[kept], sin=turns.sin[kept])
    x = x[:, kept]
    for block in encoder.blocks:
        x = block(x, Grid(1, 1, len(kept)), turns)
    return encoder.norm(x)


def in_length(model: Model, clip: Tensor) -> Tensor:
    """LvT's answer, what ours pools in units of its length: their two programs differ in the tiny number beside it."""
    return F.normalize(model(clip), dim=1)


def in_row(answer: Answer) -> Answer:
    """An answer for the clip as a row of one token, as Hugging Face's VideoPrism gives it."""
    return lambda model, clip: answer(model, clip)[:, None]


def pictures(patches: Tensor) -> list[tuple[Tensor, int, int]]:
    """NaFlex's padded patches, (B, N, side * side * C), as a picture (C, 1, H, W) each, with its grid in patches."""
    shapes = entries("hf_siglip2_naflex")["spatial_shapes"].tolist()
    laid = (rows[: h * w].view(h, w, 8, 8, -1) for rows, (h, w) in zip(patches, shapes, strict=True))
    clips = (x.permute(4, 0, 2, 1, 3).flatten(1, 2).flatten(2, 3)[:, None] for x in laid)
    return [(clip, *shape) for clip, shape in zip(clips, shapes, strict=True)]


def each_picture(model: Model, patches: Tensor) -> Tensor:
    return model([clip for clip, _, _ in pictures(patches)])


def tokens_of_each(model: Model, patches: Tensor) -> Tensor:
    """Tokens of each picture; rows that are padding, as the file has them."""
    found = entries("hf_siglip2_naflex")["tokens"].clone()
    for i, (clip, h, w) in enumerate(pictures(patches)):
        found[i, : h * w] = tokens(model, clip[None])[0]
    return found


# from the layout of a file's input to ours, (B, C, T, H, W)
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "bthwc": lambda x: x.permute(0, 4, 1, 2, 3),
    "btchw": lambda x: x.transpose(1, 2),
    "bchw": lambda x: x[:, :, None] if x.ndim == 4 else LAYOUTS["btchw"](x),  # a video to a program for images
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
    answer: Answer = logits
    heads: int | tuple[int, ...] = 4
    told: Mapping[str, Any] = field(default_factory=dict)
    more: tuple[tuple[str, str, Answer], ...] = ()  # other inputs of the file, and their answers, by key

    def read(self, state: Mapping[str, Tensor]) -> Model:
        return from_reference(state, self.dialect, **self.settings())

    def taken(self, state: Mapping[str, Tensor]) -> Conversion:
        """The model with the account of its tensors."""
        given = Given(**self.settings())
        return read_reference(Source(state=state, dialect=find_dialect(self.dialect), given=given))

    def settings(self) -> dict[str, Any]:
        return {"heads": self.heads, "clip": self.clip, **self.told}

    @torch.no_grad()
    def answered(self, model: Model, given: Tensor, answer: Answer | None = None) -> Tensor:
        """The model's answer to an input of the file, at the size of that input."""
        clip, answer = LAYOUTS[self.layout](given), answer or self.answer
        if answer is logits:
            model.set_input_size(clip.shape[2:])
        return answer(model, clip)


def scenic(kind: str, **told: Any) -> Case:
    return Case("scenic", kind, (8, 32, 48), "bthwc", told=told)


def timm(*size: int, answer: Callable[[Model, Tensor], Tensor] = logits) -> Case:
    return Case("timm", "vit", (1, *size), "bchw", answer)


def hf(name: str, family: str, *clip: int, answer: Callable[[Model, Tensor], Tensor] = logits, heads: int = 4) -> Case:
    return Case(f"hf-{name}", family, clip, "btchw", answer, heads)


def ast(mel: int, time: int, stride: tuple[int, int, int], answer: Callable[[Model, Tensor], Tensor] = logits) -> Case:
    return Case("hf-ast", "ast", (1, mel, time), "time,mel", answer, told={"stride": stride})


def videoprism(name: str, clip: tuple[int, int, int], answer: Answer, *more: str, also: Answer = tokens) -> Case:
    """`more`: other inputs of the file by the end of their key; its entry "tokens" by its own."""
    keys = [("input", what) if what == "tokens" else (f"input_{what}", f"logits_{what}") for what in more]
    layout = "bthwc" if name == "videoprism" else "btchw"
    return Case(name, "videoprism", clip, layout, answer, more=tuple((*pair, also) for pair in keys))


def pe(dialect: str, *size: int, heads: tuple[int, int], also: tuple[str, ...] = ()) -> Case:
    """Perception Encoder; `heads` of blocks and of pooling, `also` other inputs of the file."""
    more = [(f"input_{what}", f"logits_{what}", logits) for what in also]
    return Case(dialect, "pe", (1, *size), "bchw", heads=heads, more=(("input", "tokens", tokens), *more))


def dinov3(dialect: str, *also: tuple[str, str, Answer]) -> Case:
    return Case(dialect, "dinov3", (1, 24, 40), "bchw", heads=2, more=(("input", "tokens", tokens), *also))


RESIZED = ("input_resized", "logits_resized", logits)

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
    "vjepa21_encoder": Case(
        *("vjepa21", "vjepa21", (4, 48, 64), "ours", tokens, 3),
        more=(
            ("input_image", "logits_image", tokens),
            ("input_resized", "logits_resized", tokens),
            ("input", "levels", levels),
            ("input_image", "levels_image", levels),
            ("input", "logits_masked", masked),
        ),
    ),
    "videoprism_flax": videoprism("videoprism", (5, 24, 24), tokens, "resized", "smaller"),
    "videoprism_flax_lvt": videoprism("videoprism", (5, 24, 24), in_length),
    "hf_videoprism": videoprism("hf-videoprism", (5, 24, 24), tokens, "resized", "smaller"),
    "hf_videoprism_classifier": videoprism("hf-videoprism", (5, 18, 30), in_row(logits)),
    "hf_videoprism_lvt": videoprism("hf-videoprism", (5, 24, 24), in_row(in_length), "tokens"),
    "hf_ast": ast(32, 100, (1, 5, 6)),
    "hf_ast_saved": ast(24, 40, (1, 4, 6)),
    "hf_ast_base": ast(24, 40, (1, 4, 6), tokens),
    "timm_pe_core": pe("timm", 24, 36, heads=(2, 4), also=("resized",)),
    "timm_pe_core_gigantic": pe("timm", 42, 28, heads=(2, 4)),
    "timm_pe_spatial": Case("timm", "pe", (1, 24, 36), "bchw", tokens, heads=2),
    "hf_pe_video": Case(
        *("hf-pe-video", "pevideo", (5, 24, 36), "btchw"),
        heads=(2, 4),
        more=(("input", "tokens", along_time), ("input", "frames", of_frames)),
    ),
    "pe_core_original": pe("pe-core", 24, 24, heads=(2, 4), also=("resized", "video")),
    "hf_dinov3": dinov3("hf-dinov3", RESIZED),
    "hf_dinov3_gated": dinov3("hf-dinov3"),
    "timm_dinov3": dinov3("timm", RESIZED),
    "timm_dinov3_gated": dinov3("timm"),
    "hf_siglip2": Case(*("hf-siglip2", "siglip2", (1, 32, 32), "bchw"), more=(("input", "tokens", tokens), RESIZED)),
    "hf_siglip2_naflex": Case(
        *("hf-siglip2", "siglip2", (1, 32, 32), "ours", each_picture), more=(("input", "tokens", tokens_of_each),)
    ),
    "timm_siglip2": Case(
        *("timm", "siglip2", (1, 24, 40), "bchw"), told={"gelu": "tanh"}, more=(("input", "tokens", tokens),)
    ),
    "timm_vit_siglip_gap": Case("timm", "vit", (1, 24, 32), "bchw", Model.features, told={"gelu": "tanh"}),
    "timm_vit_siglip_head": Case("timm", "siglip2", (1, 24, 32), "bchw", told={"gelu": "erf"}),
    "metatransformer_encoder": Case("metatransformer", "meta", (1, 64, 64), "ours", stack),
}


def golden(name: str) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Weights in the reference's names, its input as the file has it, and its answer; copies, to be changed freely."""
    state, given, answer = loaded(name)
    return {key: value.clone() for key, value in state.items()}, given, answer


def examples(name: str) -> list[tuple[Answer, Tensor, Tensor]]:
    """All that a file has an answer to: what of ours the answer is, the input as the file has it, the answer."""
    case, tensors = CASES[name], entries(name)
    others = [(answer, tensors[given], tensors[expected]) for given, expected, answer in case.more]
    return [(case.answer, *golden(name)[1:]), *others]


@cache
def loaded(name: str) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    tensors = dict(entries(name))
    given = next(tensors.pop(key) for key in ("input_bthwc", "input", "x") if key in tensors)
    answer = next(tensors.pop(key) for key in ("logits", "y") if key in tensors)
    weights = [key for key in tensors if key.startswith(WEIGHTS)] or list(tensors)
    begins = next((begin for begin in WEIGHTS if weights[0].startswith(begin)), "")
    return {key.removeprefix(begins): tensors[key] for key in weights}, given, answer


@cache
def entries(name: str) -> dict[str, Tensor]:
    """All that is in a golden file, by key."""
    npz = FOLDER / f"{name}.npz"
    if not npz.exists():
        return load_file(npz.with_suffix(".safetensors"))
    with np.load(npz) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files if not key.endswith("_off")}


def names_on_disk() -> list[str]:
    """Of all golden files of models with an answer."""
    return sorted(file.stem for file in FOLDER.iterdir() if file.suffix != ".md" and not file.stem.startswith(OTHERS))
