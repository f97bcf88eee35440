"""Starts a video model from an image ViT (timm's names), so that its first answers are those of the image model.

Source: arXiv 2103.15691, section 3.4. Unlike there, a new attention along time keeps the image's query, key and value
and only its projection starts at zero: with all four at zero none of them would ever get a gradient.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tubelet.nn.config import stages_of
from tubelet.nn.embed import SpaceThenTimeEmbed, TubeletEmbed, UniformFrames
from tubelet.nn.grid import Grid
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.nn.position import resample
from tubelet.nn.windows import SwinEncoder
from tubelet.weights.layers import PREFIX, block
from tubelet.weights.link import Link, Theirs, split_rows
from tubelet.weights.store import FILE, load_strict
from tubelet.weights.timm import NAMES, TOKENS

ImageWeights = str | os.PathLike[str] | Mapping[str, Tensor]
Kernel = Literal["center", "mean"]
Temporal = Literal["copy-attention-zero-projection", "copy", "fresh"]

PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".tar")


def init_from_image(
    model: SpaceTimeTransformer,
    weights: ImageWeights,
    *,
    kernel: Kernel = "center",
    temporal: Temporal = "copy-attention-zero-projection",
    image_grid: Sequence[int] | None = None,
) -> list[str]:
    """Fills the first encoder of `model` from an image ViT and returns what was done, a line for each piece.

    Args:
        weights: a .safetensors file or its folder, a hub name ("vit_small_patch16_224.augreg_in21k"), or a state dict,
            in timm's names.
        kernel: "center": a tubelet looks at its central frame; "mean": at the mean of its frames.
        temporal: attention along time: "copy-attention-zero-projection" of the image's, so that it adds nothing at
            first; "copy" of all of it; or left "fresh".
        image_grid: (h, w) of the image model in patches, where it is not square.

    Raises:
        ValueError: weights that cannot be had or do not fit; the model is then unchanged.
    """
    for what, value, known in (("kernel", kernel, get_args(Kernel)), ("temporal", temporal, get_args(Temporal))):
        if value not in known:
            raise ValueError(f"unknown {what} {value!r}: expected one of {', '.join(known)}")
    if isinstance(model.encoders[0], SwinEncoder):
        raise ValueError("an image ViT has no windows, so no Swin model starts from one: choose another family")
    link = Link(read(weights).tensors, reading=True)
    report = embed(model, link, kernel)
    report += positions(model, link, image_grid)
    report += blocks(model, link, temporal)
    report += norm_and_rest(model, link)
    load_strict(model, {**model.state_dict(), **link.finish("video")}, what="image weights")
    return report


def embed(model: SpaceTimeTransformer, link: Link, kernel: Kernel) -> list[str]:
    tokeniser, channels = model.embed, model.config.channels
    if not isinstance(tokeniser, TubeletEmbed | UniformFrames | SpaceThenTimeEmbed):
        raise ValueError(
            f"an image kernel does not fit {type(tokeniser).__name__}: use embed='tubelet' or 'space-time', or frames="
        )
    image, bias = link.take("patch_embed.proj.weight"), link.take("patch_embed.proj.bias")
    (t, h, w), dim = tokeniser.patch, model.config.dim
    if (image.shape[0], *image.shape[2:]) != (dim, h, w):
        raise ValueError(
            f"the image model has width {image.shape[0]} and patches of {tuple(image.shape[2:])} px, the video model "
            f"{dim} and {(h, w)}: choose the size and patch of the image model, such as vivit2-B/16x2"
        )
    summed = image.shape[1] == 3 and channels == 1
    if image.shape[1] != channels and not summed:
        raise ValueError(f"the image model has {image.shape[1]} channels, the video model {channels}: expected as many")
    image = image.sum(1, keepdim=True) if summed else image
    if isinstance(tokeniser, SpaceThenTimeEmbed):
        put(link, "embed.space", image[:, :, None], bias)
        put(link, "embed.time", inflate(torch.eye(dim)[:, :, None, None], t, kernel), torch.zeros(dim))
    else:
        name = "embed.embed.proj" if isinstance(tokeniser, UniformFrames) else "embed.proj"
        put(link, name, inflate(image, t, kernel), bias)
    where = f"at frame {t // 2} of {t}" if kernel == "center" else f"spread over {t} frames"
    return [f"tokeniser: taken, {where}" + (", colours summed to brightness" if summed else "")]


def put(link: Link, ours: str, weight: Tensor, bias: Tensor) -> None:
    link.result |= {f"{ours}.weight": weight, f"{ours}.bias": bias}


def inflate(image: Tensor, frames: int, kernel: Kernel) -> Tensor:
    """(D, C, h, w) -> (D, C, t, h, w) that gives on a still clip what the image kernel gives on its frame."""
    share = torch.zeros(frames)
    if kernel == "center":
        share[frames // 2] = 1
    else:
        share[:] = 1 / frames
    return image[:, :, None] * share.view(-1, 1, 1)


def positions(model: SpaceTimeTransformer, link: Link, image_grid: Sequence[int] | None) -> list[str]:
    flat = link.take("pos_embed")
    tokens = [(name, link.take(name)) for name in TOKENS if link.has(name)]
    count = sum(token.shape[1] for _, token in tokens)
    grid, rows = source_grid(flat.shape[1], count, image_grid)
    row, image = split_rows(flat, grid, prefix=rows)
    report, own = [], model.state_dict()
    for i, axes in enumerate(stages_of(model.config)[0].tables):
        name = f"encoders.0.position.tables.{i}"
        wanted = Grid(*own[name].shape[:3])
        if axes == "t":
            link.result[name] = torch.zeros(own[name].shape)
            report.append("positions along t: set to zero")
            continue
        link.result[name] = along(resample(image, model.grid(model.config.clip).along("hw")), axes).expand(*wanted, -1)
        how = "taken" if (grid.h, grid.w) == (wanted.h, wanted.w) else f"resampled from {grid.h} x {grid.w}"
        shared = f", the same at each of {wanted.t} time steps" if wanted.t > 1 else ""
        report.append(f"positions along {axes}: {how} to {wanted.h} x {wanted.w}{shared}")
    if not report:
        report = ["positions: left, the model makes its own for each size"]
    return report + prefix_tokens(model, link, tokens, row if rows else None)


def along(table: Tensor, axes: str) -> Tensor:
    """The share of a table (1, h, w, D) that varies along `axes`: of "h" and "w", the nearest sum of two tables."""
    if axes == "h":
        return table.mean(2, keepdim=True)
    if axes == "w":
        return table.mean(1, keepdim=True) - table.mean((1, 2), keepdim=True)
    return table


def prefix_tokens(
    model: SpaceTimeTransformer, link: Link, tokens: Sequence[tuple[str, Tensor]], rows: Tensor | None
) -> list[str]:
    prefix = model.state_dict().get(PREFIX)
    names = {"cls_token": "class token", "dist_token": "distillation token", "reg_token": "registers"}
    if prefix is None:
        return [f"{names[name]}: left, the model has no prefix" for name, _ in tokens]
    if not tokens:
        return ["class token: left fresh, the image model has none"]
    theirs = torch.cat([token for _, token in tokens], 1)
    theirs = theirs if rows is None else theirs + rows
    if prefix.shape[1] not in (1, theirs.shape[1]):
        raise ValueError(
            f"the image model has {theirs.shape[1]} prefix tokens, the video model {prefix.shape[1]}: make it with "
            f"prefix={theirs.shape[1]}, or with 1 for the class token alone"
        )
    link.result[PREFIX] = theirs[:, : prefix.shape[1]]
    taken = tokens if prefix.shape[1] == theirs.shape[1] else tokens[:1]
    folded = "" if rows is None else ", its position folded in"
    report = [f"{names[name]}: taken{folded}" for name, _ in taken]
    return report + [f"{names[name]}: left, the model has no place for it" for name, _ in tokens[len(taken) :]]


def source_grid(count: int, prefix: int, image_grid: Sequence[int] | None) -> tuple[Grid, int]:
    """Grid of a flat position table of `count` rows, and how many of them, all or none, belong to `prefix` tokens."""
    for rows in dict.fromkeys((prefix, 0)):
        side = round(max(count - rows, 0) ** 0.5)
        h, w = (side, side) if image_grid is None else image_grid
        if count > rows and h * w == count - rows:
            return Grid(1, h, w), rows
    of_token = " with the class token" if prefix else ""
    square = "no square grid" if image_grid is None else f"not those of image_grid={tuple(image_grid)}"
    raise ValueError(
        f"the image model has {count} position rows{of_token}, {square}: "
        f"give image_grid=(h, w), its height and width in patches"
    )


def blocks(model: SpaceTimeTransformer, link: Link, temporal: Temporal) -> list[str]:
    depth, steps = Theirs(link.source).count("blocks.{}."), stages_of(model.config)[0].attend.split(",")
    if depth != model.config.depth:
        raise ValueError(f"the image model has {depth} blocks, the video model {model.config.depth}: expected as many")
    spaces = [i for i, axes in enumerate(steps) if axes != "t"]
    if len(spaces) != 1:
        raise ValueError(f"attend={','.join(steps)!r} has {len(spaces)} steps in space, expected 1 for the image's")
    for i in range(depth):
        ours = f"encoders.0.blocks.{i}"
        block(link, NAMES, f"blocks.{i}.", ours, step=spaces[0])
        for step, axes in enumerate(steps):
            if axes == "t" and temporal != "fresh":
                copy_step(link.result, ours, spaces[0], step, zero_projection=temporal != "copy")
    report = [f"{depth} blocks: taken"]
    if "t" in steps:
        how = {
            "copy-attention-zero-projection": "copied from space, their projection set to zero",
            "copy": "copied from space",
            "fresh": "left fresh",
        }
        report.append(f"attention along t and its norm in {depth} blocks: {how[temporal]}")
    return report


def copy_step(state: dict[str, Tensor], block: str, space: int, time: int, *, zero_projection: bool) -> None:
    for layer in ("attn_norms.{}", "attns.{}.qkv", "attns.{}.proj"):
        zero = zero_projection and layer == "attns.{}.proj"
        for part in ("weight", "bias"):
            value = state[f"{block}.{layer.format(space)}.{part}"]
            state[f"{block}.{layer.format(time)}.{part}"] = torch.zeros_like(value) if zero else value


def norm_and_rest(model: SpaceTimeTransformer, link: Link) -> list[str]:
    """The last norm; what the image model has no counterpart for; the image classifier."""
    theirs = "norm" if link.has("norm.weight") else "fc_norm"
    ours = next((n for n in ("encoders.0.norm", "encoders.0.pool.norm") if f"{n}.weight" in model.state_dict()), None)
    if ours is None:
        link.leave(f"{theirs}.", "the model has no last norm")
        report = ["last norm: left, the model has none"]
    else:
        link.linear(theirs, ours)
        after = " (in the image model it comes after mean pooling)" if theirs == "fc_norm" else ""
        report = [f"last norm: taken{after}"]
    if len(model.encoders) > 1:
        report.append("temporal encoder: left fresh")
    report.append("head: left fresh")
    head = [name for name in link.source if name.startswith(("head.", "head_dist."))]
    link.leave("head", "the image model's classes")
    return report + ([f"{', '.join(head)}: left, the image model's classes"] if head else [])


def read(weights: ImageWeights) -> Theirs:
    if isinstance(weights, Mapping):
        source, where = Theirs(weights), "the weights"
    else:
        file = local(weights) or download(str(weights), FILE)
        try:
            source, where = Theirs(load_file(file)), str(file)
        except SafetensorError as error:
            raise ValueError(f"{file}: not a readable safetensors file ({error}): download it again") from error
    if "patch_embed.proj.weight" not in source:
        raise ValueError(
            f"{where}: no 'patch_embed.proj.weight' (the names begin with {', '.join(sorted(source.tensors)[:3])}): "
            f"expected an image ViT in timm's names"
        )
    return source


def local(weights: str | os.PathLike[str]) -> Path | None:
    """The .safetensors file of that path, or in that folder; None for what can only be a name on the hub."""
    path = Path(weights) / FILE if Path(weights).is_dir() else Path(weights)
    if path.suffix in PICKLED or (path.is_file() and path.suffix != ".safetensors"):
        raise ValueError(
            f"{path}: expected a .safetensors file, tubelet opens no pickled weights: load it where you trust it and "
            f"write it with safetensors.torch.save_file, or give the state dict"
        )
    if path.is_file():
        return path
    if path.suffix == ".safetensors" or not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", str(weights)):
        raise ValueError(f"{path}: no such file: expected a .safetensors file, a folder with {FILE}, or a hub name")
    return None


def download(name: str, file: str) -> Path:
    from huggingface_hub import hf_hub_download  # only a download needs it

    repository = name if "/" in name else f"timm/{name}"
    try:
        return Path(hf_hub_download(repository, file))
    except Exception as error:  # each version of the hub client raises the errors of another HTTP library
        raise ValueError(
            f"{name!r} is no file here, and {file} of {repository!r} could not be had from the hub "
            f"({type(error).__name__}: {str(error).strip()}): give a .safetensors file instead"
        ) from error


def image_config(weights: ImageWeights) -> dict[str, Any]:
    """What the config.json beside image weights says of their input: "mean", "std", "input_size"; {} without one.

    Raises:
        ValueError: as `init_from_image` for weights that cannot be had.
    """
    if isinstance(weights, Mapping):
        return {}
    file = local(weights)
    beside = file.with_name("config.json") if file else download(str(weights), "config.json")
    if not beside.is_file():
        return {}
    try:
        config = json.loads(beside.read_text()).get("pretrained_cfg", {})
    except json.JSONDecodeError as error:
        raise ValueError(f"{beside}: not readable as JSON ({error}): download it again, or remove it") from error
    return {key: config[key] for key in ("mean", "std", "input_size") if key in config}


def image_shape(weights: ImageWeights) -> tuple[int, int, int]:
    """Width, depth and patch side in px of an image ViT."""
    source = read(weights)
    kernel = source.shape("patch_embed.proj.weight")
    return kernel[0], source.count("blocks.{}."), kernel[2]
