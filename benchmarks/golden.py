"""Makes the golden files in tests/golden that come from timm and transformers and are named in GOLDEN below.

Needs timm and transformers, which tubelet itself does not: run `python benchmarks/golden.py tests/golden` with an
interpreter that has them. The same versions on the same kind of machine give the same files.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

try:
    import torchvision  # noqa: F401
except RuntimeError:  # made for another build of torch; timm and transformers do with these two names
    for operator in ("nms", "qnms"):
        torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import timm
import transformers as tf
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer

# No two sizes are equal, so that a mixed-up axis cannot pass.
IMAGE = {"img_size": (24, 32), "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4, "mlp_ratio": 1.5}
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "num_labels": 7}
VIDEO = {**SIZES, "num_frames": 4, "image_size": [12, 16]}
STILL, CLIP, SOUND = (2, 3, 24, 32), (2, 4, 3, 12, 16), (2, 40, 24)


def vit(**settings: Any) -> nn.Module:
    return VisionTransformer(**{**IMAGE, "num_classes": 7, **settings})


def deit() -> nn.Module:
    return VisionTransformerDistilled(**IMAGE, num_classes=7)


def vivit(kind: type[nn.Module]) -> nn.Module:
    return kind(tf.VivitConfig(tubelet_size=[2, 4, 4], **VIDEO))


def videomae(kind: type[nn.Module], **settings: Any) -> nn.Module:
    decoder = {"decoder_hidden_size": 24, "decoder_num_attention_heads": 2, "decoder_num_hidden_layers": 1}
    sizes = {**VIDEO, **decoder, "decoder_intermediate_size": 40, "patch_size": 4, "tubelet_size": 2}
    return kind(tf.VideoMAEConfig(**sizes, **settings))


def timesformer() -> nn.Module:
    return tf.TimesformerModel(tf.TimesformerConfig(**{**VIDEO, "image_size": 16}, patch_size=4))


def ast(kind: type[nn.Module]) -> nn.Module:
    strides = {"patch_size": 8, "frequency_stride": 4, "time_stride": 6}
    return kind(tf.ASTConfig(**SIZES, **strides, num_mel_bins=SOUND[2], max_length=SOUND[1]))


def vjepa2() -> nn.Module:
    sizes = {"hidden_size": 36, "num_hidden_layers": 1, "num_attention_heads": 3, "mlp_ratio": 2, "num_labels": 7}
    clip = {"crop_size": 16, "patch_size": 4, "frames_per_clip": 4, "tubelet_size": 2, "num_pooler_layers": 2}
    predictor = {"hidden_size": 12, "num_attention_heads": 1, "num_hidden_layers": 1, "num_mask_tokens": 2}
    config = {**sizes, **clip, **{f"pred_{name}": value for name, value in predictor.items()}, "pred_mlp_ratio": 2}
    return tf.VJEPA2ForVideoClassification(tf.VJEPA2Config(**config))


def saved(model: nn.Module) -> dict[str, Tensor]:
    """Names as save_pretrained writes them."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return load_file(Path(folder) / "model.safetensors")


def in_memory(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def logits(model: nn.Module, x: Tensor) -> Tensor:
    return model(x).logits


def last(model: nn.Module, x: Tensor) -> Tensor:
    return model(x).last_hidden_state


def token(model: nn.Module, x: Tensor) -> Tensor:
    return last(model, x)[:, 0]


def encoder(model: nn.Module, x: Tensor) -> Tensor:
    return last(model.videomae, x)


Names, Run = Callable[[nn.Module], dict[str, Tensor]], Callable[[nn.Module, Tensor], Tensor]
Golden = tuple[Callable[[], nn.Module], tuple[int, ...], Names, Run]

# name -> the model, the shape of its input, the names of its tensors, how it is run
GOLDEN: dict[str, Golden] = {
    name: (build, STILL, in_memory, nn.Module.__call__)
    for name, build in {
        "timm_deit_distilled": deit,
        "timm_vit_no_embed_class": partial(vit, no_embed_class=True),
        "timm_vit_registers": partial(vit, no_embed_class=True, reg_tokens=4, init_values=1e-5),
        "timm_vit_registers_rows": partial(vit, reg_tokens=2),
        "timm_vit_registers_gap": partial(
            vit, no_embed_class=True, reg_tokens=4, class_token=False, global_pool="avg", init_values=1e-5
        ),
        "timm_dinov2_features": partial(vit, num_classes=0, init_values=1e-5),
        "timm_vit_siglip_gap": partial(
            vit, class_token=False, global_pool="avg", fc_norm=False, num_classes=0, act_layer="gelu_tanh"
        ),
        "timm_vit_siglip_head": partial(vit, class_token=False, global_pool="map"),
    }.items()
} | {
    "timm_vit_avg_fc_norm": (
        partial(vit, in_chans=1, global_pool="avg"),
        (2, 1, 24, 32),
        in_memory,
        nn.Module.__call__,
    ),
    "hf_vivit_saved": (partial(vivit, tf.VivitForVideoClassification), CLIP, saved, logits),
    "hf_vivit_base": (partial(vivit, tf.VivitModel), CLIP, saved, last),
    "hf_videomae_saved": (partial(videomae, tf.VideoMAEForVideoClassification), CLIP, saved, logits),
    "hf_videomae_base": (partial(videomae, tf.VideoMAEModel, use_mean_pooling=False), CLIP, saved, last),
    "hf_videomae_base_in_memory": (partial(videomae, tf.VideoMAEModel), CLIP, in_memory, last),
    "hf_videomae_pretraining": (partial(videomae, tf.VideoMAEForPreTraining), CLIP, saved, encoder),
    "hf_timesformer_base": (timesformer, (2, 4, 3, 16, 16), saved, token),
    "hf_ast_saved": (partial(ast, tf.ASTForAudioClassification), SOUND, saved, logits),
    "hf_ast_base": (partial(ast, tf.ASTModel), SOUND, in_memory, last),
    "hf_vjepa2_pooled": (vjepa2, (2, 4, 3, 16, 16), saved, logits),
}
LAYOUTS = {STILL: "B,C,H,W", (2, 1, 24, 32): "B,C,H,W", SOUND: "B,time,mel"}


@torch.no_grad()
def write(name: str, folder: Path) -> Path:
    build, shape, names, run = GOLDEN[name]
    torch.manual_seed(sorted(GOLDEN).index(name))
    model = build().eval()
    for parameter in model.parameters():  # also those that start at zero or one
        parameter.add_(0.2 * torch.randn(parameter.shape))
    x = torch.randn(shape)
    tensors = {f"weights.{key}": value for key, value in names(model).items()}
    meta = {"layout": LAYOUTS.get(shape, "B,T,C,H,W"), "made_by": type(model).__name__}
    versions = {"timm": timm.__version__} if name.startswith("timm") else {"transformers": tf.__version__}
    header = json.dumps(meta | versions | {"torch": torch.__version__})
    file = folder / f"{name}.safetensors"
    save_file(tensors | {"input": x, "logits": run(model, x).contiguous()}, file, {"meta": header})
    return file


if __name__ == "__main__":
    tf.logging.set_verbosity_error()
    tf.logging.disable_progress_bar()
    torch.set_num_threads(1)
    for name in sys.argv[2:] or GOLDEN:
        file = write(name, Path(sys.argv[1]))
        print(f"{file} {file.stat().st_size / 1000:.0f} kB")
