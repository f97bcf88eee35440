"""Weights of TimeSformer, in the original's names and in Hugging Face's: divided, joint and space-only attention.

The linear layer after attention along time is linear after linear: it is folded into the projection before it.
"""

from dataclasses import dataclass, replace
from functools import partial

import torch

from tubelet.nn.config import ModelConfig
from tubelet.weights.dialects import timm
from tubelet.weights.dialects.dialect import Dialect, Video
from tubelet.weights.dialects.rename import ForeignState, Link
from tubelet.weights.dialects.settings import Given, video_settings
from tubelet.weights.dialects.vit import ENCODER, PREFIX, TABLE, Names, block, blocks_of, grid_for, require, vit_config

MEAN, STD = (0.45,), (0.225,)  # of the original; Hugging Face's class says ImageNet's


@dataclass(frozen=True)
class Wording:
    """What a dialect calls TimeSformer's parts."""

    dialect: str
    root: str
    kernel: str
    token: str
    positions: str
    times: str
    layers: str
    space: Names
    time: Names
    after_time: str
    norm: str
    head: str


ORIGINAL = Wording(
    dialect="timesformer",
    root="",
    kernel="patch_embed.proj",
    token="cls_token",
    positions="pos_embed",
    times="time_embed",
    layers="blocks.{}.",
    space=timm.NAMES,
    time=Names("temporal_norm1", ("temporal_attn.qkv",), "temporal_attn.proj", "", "", ""),
    after_time="temporal_fc",
    norm="norm",
    head="head",
)
HUGGING_FACE = Wording(
    dialect="hf-timesformer",
    root="timesformer.",
    kernel="embeddings.patch_embeddings.projection",
    token="embeddings.cls_token",
    positions="embeddings.position_embeddings",
    times="embeddings.time_embeddings",
    layers="encoder.layer.{}.",
    space=Names(
        "layernorm_before",
        ("attention.attention.qkv",),
        "attention.output.dense",
        "layernorm_after",
        "intermediate.dense",
        "output.dense",
    ),
    time=Names(
        "temporal_layernorm", ("temporal_attention.attention.qkv",), "temporal_attention.output.dense", "", "", ""
    ),
    after_time="temporal_dense",
    norm="layernorm",
    head="classifier",
)


def config(wording: Wording, theirs: ForeignState, given: Given) -> ModelConfig:
    w, root = wording, theirs.root(wording.root)
    divided = bool(theirs.root(f"{root}{w.layers.format(0)}{w.time.norm1}."))
    timeless = f"{root}{w.times}" not in theirs
    if timeless and w is ORIGINAL:
        raise ValueError(
            f"the weights have no tensor {w.times!r}: they are cut, or those of the original's space-only attention, "
            f"which averages frames before its last norm, our models after"
        )
    family, steps = ("vivit2", "thw") if timeless else ("timesformer", "t,hw") if divided else ("vidtrans", "thw")
    given.agree(family=family, attend=steps, frames=None, stride=None, window=None)
    found = vit_config(
        theirs,
        given,
        family,
        kernel=f"{root}{w.kernel}.weight",
        flat=True,
        layers=root + w.layers,
        hidden=f"{root}{w.layers.format(0)}{w.space.fc1}.bias",
        head=w.head,
    )
    return replace(found, stages=found.stages[:1], mean=MEAN, std=STD)


def check_supported(wording: Wording, config: ModelConfig) -> None:
    known = {"timesformer": ("hw", "t"), "vidtrans": ("hw", "t"), "vivit2": ("hw",)}
    require(
        config,
        wording.dialect,
        family=("timesformer", "vidtrans") if wording is ORIGINAL else tuple(known),
        attend=("t,hw",) if config.family == "timesformer" else ("thw",),
        pool=("cls",),
        norm=("tokens",),
        tables=(known.get(config.family, ()),),
        prefix=(1,),
        patch=((1, *config.embed.patch[1:]),),
    )


def map_tensors(wording: Wording, link: Link, config: ModelConfig) -> None:
    w, grid, divided = wording, grid_for(config), config.family == "timesformer"
    root = link.root(w.root)
    link.kernel(root + w.kernel, "embed.proj", flat=True)
    link.positions([(root + w.token, 1)], root + w.positions, PREFIX, TABLE, grid.along("hw"))
    if config.family != "vivit2":
        link.position(root + w.times, f"{ENCODER}.position.tables.1", grid.along("t"))
    for i in blocks_of(config):
        theirs, ours = root + w.layers.format(i), f"{ENCODER}.blocks.{i}"
        if divided:
            time(link, w, theirs, ours)
        block(link, w.space, theirs, ours, step=int(divided))
    link.linear(root + w.norm, f"{ENCODER}.norm")
    if config.num_classes:
        link.linear(w.head, "head")


def time(link: Link, w: Wording, theirs: str, ours: str) -> None:
    """Attention along time; the linear layer after it is folded in, and written as one that does nothing."""
    link.linear(f"{theirs}{w.time.norm1}", f"{ours}.attn_norms.0")
    link.packed([f"{theirs}{name}" for name in w.time.qkv], f"{ours}.attns.0.qkv")
    link.tie(
        [f"{theirs}{layer}.{part}" for layer in (w.time.proj, w.after_time) for part in ("weight", "bias")],
        [f"{ours}.attns.0.proj.weight", f"{ours}.attns.0.proj.bias"],
        lambda weight, bias, after, shift: [after @ weight, after @ bias + shift],
        lambda weight, bias: [weight, bias, torch.eye(len(bias)), torch.zeros_like(bias)],
        "taken, the linear layer after it folded in",
    )


def video(frames: int) -> Video:
    """The models called base, HR and L take 8, 16 and 96 frames."""
    step = 4 if frames == 96 else max(1, 256 // frames)
    return Video(step, 30, 256, "as TimeSformer on Kinetics, if its files have 30 frames a second")


TIMESFORMER = Dialect(
    name=ORIGINAL.dialect,
    fingerprint=("time_embed",),
    config=partial(config, ORIGINAL),
    check_supported=partial(check_supported, ORIGINAL),
    mapping=partial(map_tensors, ORIGINAL),
    video=video,
)
HF_TIMESFORMER = Dialect(
    name=HUGGING_FACE.dialect,
    fingerprint=("timesformer.embeddings.cls_token", "encoder.layer.0.attention.attention.qkv.weight"),
    config=partial(config, HUGGING_FACE),
    check_supported=partial(check_supported, HUGGING_FACE),
    mapping=partial(map_tensors, HUGGING_FACE),
    read_settings=partial(video_settings, "timesformer"),
    video=video,
)
