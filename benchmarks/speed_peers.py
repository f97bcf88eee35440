"""The other libraries' half of speed.py: each model beside ours, with the same weights where they can be the same."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

import torch
from torch import Tensor, nn

try:
    import torchvision  # noqa: F401
except RuntimeError:  # made for another build of torch; transformers does with these two names
    for operator in ("nms", "qnms"):
        torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import transformers as tf
from vit_pytorch.vivit import ViViT

import tubelet
from tubelet.weights import from_reference

VERSIONS = {name: version(name) for name in ("transformers", "vit-pytorch")}
SIZES = tubelet.nn.SIZES  # width, layers, heads
SIDE, CLASSES = 224, 400


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two models of one kind, both in eval mode; `same`: with the same weights, so that their answers must agree."""

    name: str
    frames: int
    peer: nn.Module
    ours: tubelet.SpaceTimeTransformer
    run_peer: Callable[[nn.Module, Tensor], Tensor]  # clips (B, C, T, H, W) -> logits
    same: bool


def hugging_face(name: str, dialect: str, config: type, model: type, frames: int, **settings: object) -> Callable:
    def build(size: str, *, frames: int = frames) -> Pair:
        dim, depth, heads = SIZES[size]
        numbers = {"hidden_size": dim, "num_hidden_layers": depth, "num_attention_heads": heads}
        numbers |= {"intermediate_size": 4 * dim, "num_labels": CLASSES, "image_size": SIDE, "num_frames": frames}
        peer = model(config(**numbers, **settings)).eval()
        with torch.no_grad():
            for (
                parameter
            ) in peer.parameters():  # positions and class tokens start at zero: equal, however they are read
                parameter.add_(0.02 * torch.randn(parameter.shape))
        ours = from_reference(peer.state_dict(), dialect, heads=heads, clip=(frames, SIDE, SIDE))
        return Pair(name=name, frames=frames, peer=peer, ours=ours, run_peer=frames_first, same=True)

    return build


def frames_first(model: nn.Module, clip: Tensor) -> Tensor:
    return model(clip.transpose(1, 2)).logits


def vit_pytorch(name: str, variant: str, family: str) -> Callable:
    def build(size: str, *, frames: int = 16) -> Pair:
        dim, depth, heads = SIZES[size]
        whole = variant == "factorized_encoder"
        peer = ViViT(
            image_size=SIDE,
            image_patch_size=16,
            frames=frames,
            frame_patch_size=2,
            num_classes=CLASSES,
            dim=dim,
            spatial_depth=depth,
            temporal_depth=4 if whole else depth,
            heads=heads,
            mlp_dim=4 * dim,
            pool="cls" if whole else "mean",
            variant=variant,
        )
        ours = tubelet.create_model(f"{family}-{size}/16x2", clip=(frames, SIDE, SIDE), num_classes=CLASSES)
        return Pair(
            name=name, frames=frames, peer=peer.eval(), ours=ours.eval(), run_peer=nn.Module.__call__, same=False
        )

    return build


PAIRS: dict[str, Callable[..., Pair]] = {
    "vivit": hugging_face(
        "HF ViViT", "hf-vivit", tf.VivitConfig, tf.VivitForVideoClassification, 16, tubelet_size=[2, 16, 16]
    ),
    "timesformer": hugging_face(
        "HF TimeSformer", "hf-timesformer", tf.TimesformerConfig, tf.TimesformerForVideoClassification, 8
    ),
    "videomae": hugging_face("HF VideoMAE", "hf-videomae", tf.VideoMAEConfig, tf.VideoMAEForVideoClassification, 16),
    "encoder": vit_pytorch("vit-pytorch factorised encoder", "factorized_encoder", "vivit2"),
    "attention": vit_pytorch("vit-pytorch factorised self-attention", "factorized_self_attention", "vivit3"),
}
