"""Starts a video model from an image ViT (timm's names), so that its first answers are those of the image model.

Source: arXiv 2103.15691, section 3.4. Unlike there, a new attention along time keeps the image's query, key and value
and only its projection starts at zero: with all at zero only that projection's bias would ever get a gradient.
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor

from tubelet.nn.model import SpaceTimeTransformer
from tubelet.nn.pool import POOLS
from tubelet.weights.dialects.rename import ForeignState, Link
from tubelet.weights.dialects.timm import NAMES
from tubelet.weights.dialects.vit import ENCODER, block, first_stage
from tubelet.weights.init.image_tokens import fill_positions
from tubelet.weights.init.image_weights import ImageWeights, read, said_grid
from tubelet.weights.init.resize_patch import resize_kernel
from tubelet.weights.store import load_strict

Kernel = Literal["center", "mean", "rank-pooling"]
Temporal = Literal["copy-attention-zero-projection", "copy", "zero", "fresh"]
Parity = Literal["scenic"]

# what there is for attention along time, the default first
TEMPORAL: dict[str | None, tuple[Temporal, ...]] = {
    None: ("copy-attention-zero-projection", "copy", "fresh"),
    "scenic": ("copy", "zero", "fresh"),
}
# what a plain image ViT has weights for, or needs none
PLAIN = {
    "position": ("learned", "fixed", "sincos", "rotary", "rotary-tiled"),
    "pool": (*POOLS, "attentive"),
    "norm_first": (False,),
    "qkv_bias": (True,),
    "cap": (0.0,),
    "mlp": ("plain",),
}
SCENIC = ("vivit1", "vivit2", "vivit3", "vivit4")


def init_from_image(
    model: SpaceTimeTransformer,
    weights: ImageWeights,
    *,
    kernel: Kernel = "center",
    temporal: Temporal | None = None,
    image_grid: Sequence[int] | None = None,
    resize_patch: bool = False,
    parity: Parity | None = None,
) -> list[str]:
    """Fills the first encoder of `model` from an image ViT and returns what was done, a line for each piece.

    Args:
        weights: a .safetensors file or its folder, a hub name ("vit_small_patch16_224.augreg_in21k" or
            "hf-hub:owner/name"), or a state dict, in timm's names.
        kernel: "center": a tubelet looks at its central frame; "mean": at the mean of its frames; "rank-pooling": at
            how they change (approximate rank pooling, arXiv 1612.00738), so that it is blind to a still clip.
        temporal: attention along time: "copy-attention-zero-projection" of the image's (default), so that it adds
            nothing at first; "copy" of all of it; or left "fresh". With parity "copy" (default), "zero" or "fresh".
        image_grid: (h, w) of the image model in patches, where it is not square, or where neither the number of its
            position rows nor the config.json beside the weights tells.
        resize_patch: the image model's patch may have another size, its kernel is resized (`resize_kernel`).
        parity: "scenic" repeats what google-research/scenic does, faults included; see docs/models.md.

    Raises:
        ValueError: weights that cannot be had or do not fit; the model is then unchanged.
    """
    check_start(model, kernel, temporal, parity)
    link = Link(read(weights).tensors, reading=True)
    report = fill_tokeniser(model, link, kernel, resize_patch=resize_patch)
    report += fill_positions(model, link, image_grid, partial(said_grid, weights), as_scenic=parity == "scenic")
    report += fill_blocks(model, link, temporal or TEMPORAL[parity][0], keep_norm=parity == "scenic")
    report += fill_norm(model, link)
    load_strict(model, {**model.state_dict(), **link.finish("video")}, what="image weights")
    return report


def check_start(model: SpaceTimeTransformer, kernel: Kernel, temporal: Temporal | None, parity: Parity | None) -> None:
    if parity not in TEMPORAL:
        raise ValueError(f"unknown parity {parity!r}: expected 'scenic', or None")
    times = TEMPORAL[parity]
    for what, value, known in (("kernel", kernel, get_args(Kernel)), ("temporal", temporal or times[0], times)):
        if value not in known:
            by = f" with parity={parity!r}" if what == "temporal" and parity else ""
            raise ValueError(f"unknown {what} {value!r}{by}: expected one of {', '.join(known)}")
    if model.config.stages[0].kind == "windows":
        raise ValueError("an image ViT has no windows, so no Swin model starts from one: choose another family")
    first = first_stage(model.config)
    if strange := [name for name, plain in PLAIN.items() if getattr(first, name) not in plain]:
        found = ", ".join(f"{name}={getattr(first, name)!r}" for name in strange)
        raise ValueError(
            f"a {model.config.family} model is not made like a plain image ViT ({found}): start it from weights of its "
            f"own kind, by `tubelet convert`"
        )
    if parity == "scenic" and model.config.family not in SCENIC:
        raise ValueError(f"scenic has no {model.config.family!r}, only {', '.join(SCENIC)}: leave parity out")


def fill_tokeniser(model: SpaceTimeTransformer, link: Link, kernel: Kernel, *, resize_patch: bool) -> list[str]:
    c, dim = model.config.embed, first_stage(model.config).dim
    if c.kind not in ("tubelet", "space-time"):
        raise ValueError(f"an image kernel does not fit embed={c.kind!r}: use embed='tubelet' or 'space-time'")
    image, bias = link.take("patch_embed.proj.weight"), link.take("patch_embed.proj.bias")
    if image.shape[0] != dim:
        raise ValueError(f"the image model has width {image.shape[0]}, the video model {dim}: choose the same size")
    t, h, w = c.patch
    share, where = share_kernel(kernel, t)
    colours, resized, channels = "", "", model.config.channels
    if image.shape[1] == 3 and channels == 1:
        image, colours = image.sum(1, keepdim=True), ", colours summed to brightness"
    if image.shape[1] != channels:
        raise ValueError(f"the image model has {image.shape[1]} channels, the video model {channels}: expected as many")
    if (sides := tuple(image.shape[2:])) != (h, w):
        if not resize_patch:
            raise ValueError(
                f"the image model has patches of {sides} px, the video model {(h, w)}: choose the patch of the image "
                f"model, such as vivit2-B/16x2, or resize its kernel with resize_patch=True"
            )
        image, resized = resize_kernel(image, (h, w)), f", resized from {sides[0]} x {sides[1]} to {h} x {w} px"
    if c.kind == "space-time":
        put(link, "embed.space", image[:, :, None], bias)
        put(link, "embed.time", inflate(torch.eye(dim)[:, :, None, None], share), torch.zeros(dim))
    else:
        name = "embed.embed.proj" if c.frames else "embed.proj"
        put(link, name, inflate(image, share), bias)
    return [f"tokeniser: taken, {where}{resized}{colours}"]


def share_kernel(kernel: Kernel, frames: int) -> tuple[Tensor, str]:
    """The share of the image kernel that each of `frames` frames gets, (t,), and its description.

    Source of rank pooling: arXiv 1612.00738, section 3.2.
    """
    if kernel == "center":
        return torch.eye(frames)[frames // 2], f"at frame {frames // 2} of {frames}"
    if kernel == "mean":
        return torch.full((frames,), 1 / frames), f"spread over {frames} frames"
    if frames == 1:
        raise ValueError("rank pooling weighs frames against each other, got tubelets of one: choose another kernel")
    number = torch.arange(1, frames + 1)
    tails = (1 / number).flip(0).cumsum(0).flip(0)  # 1/i + ... + 1/t
    return (2 * (frames - number + 1) - (frames + 1) * tails) / frames, f"weighing {frames} frames by rank pooling"


def inflate(image: Tensor, share: Tensor) -> Tensor:
    """(D, C, h, w), (t,) -> (D, C, t, h, w)."""
    return image[:, :, None] * share.to(image).view(-1, 1, 1)


def put(link: Link, ours: str, weight: Tensor, bias: Tensor) -> None:
    link.result |= {f"{ours}.weight": weight, f"{ours}.bias": bias}


def fill_blocks(model: SpaceTimeTransformer, link: Link, temporal: Temporal, *, keep_norm: bool) -> list[str]:
    depth, steps = ForeignState(link.source).count("blocks.{}."), first_stage(model.config).attend.split(",")
    if depth != (own := first_stage(model.config).depth):
        raise ValueError(f"the image model has {depth} blocks, the video model {own}: expected as many")
    spaces = [i for i, axes in enumerate(steps) if axes != "t"]
    if len(spaces) != 1:
        raise ValueError(f"attend={','.join(steps)!r} has {len(spaces)} steps in space, expected 1 for the image's")
    layers = ("attns.{}.qkv", "attns.{}.proj") if keep_norm else ("attn_norms.{}", "attns.{}.qkv", "attns.{}.proj")
    for i in range(depth):
        ours = f"{ENCODER}.blocks.{i}"
        block(link, NAMES, f"blocks.{i}.", ours, step=spaces[0])
        for step, axes in enumerate(steps):
            if axes == "t" and temporal != "fresh":
                copy_step(link.result, ours, spaces[0], step, layers, temporal)
    report = [f"{depth} blocks: taken"]
    if "t" in steps:
        how = {
            "copy-attention-zero-projection": "copied from space, their projection set to zero",
            "copy": "copied from space",
            "zero": "set to zero",
            "fresh": "left fresh",
        }
        what, norm = ("", "; its norm left fresh") if keep_norm else (" and its norm", "")
        report.append(f"attention along t{what} in {depth} blocks: {how[temporal]}{norm}")
    return report


def copy_step(
    state: dict[str, Tensor], block: str, space: int, time: int, layers: Sequence[str], temporal: Temporal
) -> None:
    for layer in layers:
        zero = temporal == "zero" or (temporal == "copy-attention-zero-projection" and layer == "attns.{}.proj")
        for part in ("weight", "bias"):
            value = state[f"{block}.{layer.format(space)}.{part}"]
            state[f"{block}.{layer.format(time)}.{part}"] = torch.zeros_like(value) if zero else value


def fill_norm(model: SpaceTimeTransformer, link: Link) -> list[str]:
    """The last norm; what the image model has no counterpart for; the image classifier."""
    stage = first_stage(model.config)
    attentive = stage.pool == "attentive"
    places = {f"{ENCODER}.norm": ("tokens", "both"), f"{ENCODER}.pool.norm": () if attentive else ("pooled", "both")}
    ours = [name for name, norms in places.items() if stage.norm in norms]
    theirs = "norm" if link.has("norm.weight") else "fc_norm"
    if not ours:
        link.leave(f"{theirs}.", "the model has no last norm")
        report = ["last norm: left, the model has none"]
    else:
        link.linear(theirs, ours[0])
        where = "before" if theirs == "norm" else "after mean"
        same = (theirs == "norm") == (ours[0] == f"{ENCODER}.norm")
        report = ["last norm: taken" + ("" if same else f" (in the image model it comes {where} pooling)")]
    report += ["norm after pooling: left fresh"] * (len(ours) - 1)
    report += ["attentive pooling: left fresh"] * attentive
    report += ["temporal encoder: left fresh"] * (len(model.encoders) - 1)
    report += ["head: left fresh"]
    head = [name for name in link.source if name.startswith(("head.", "head_dist."))]
    link.leave("head", "the image model's classes")
    return report + ([f"{', '.join(head)}: left, the image model's classes"] if head else [])
