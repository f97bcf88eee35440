"""Weights of AudioMAE: timm's ViT on spectrograms whose rows are time steps; our rows are mel bins."""

from dataclasses import replace

import torch
from torch import Tensor

from tubelet.nn.config import ModelConfig
from tubelet.weights.dialects import timm
from tubelet.weights.dialects.rename import Link, Theirs, Told
from tubelet.weights.dialects.vit import TABLE, require

KERNEL = "embed.proj.weight"


def config(theirs: Theirs, told: Told) -> ModelConfig:
    if theirs.root(timm.BACKBONE):
        raise ValueError("AudioMAE has no ResNet before its patches, and these weights have: take dialect='timm'")
    stride = None if told.stride is None else swapped(told.stride)
    return turned(timm.config(theirs, replace(told, clip=swapped(told.clip), stride=stride)))


def says(config: ModelConfig) -> None:
    timm.says(config)
    require(config, "audiomae")  # no ResNet


def tie(link: Link, config: ModelConfig) -> None:
    """As timm does, with height and width of kernel and table exchanged on our side."""
    if link.reading:
        timm.tie(link, turned(config))
        link.result |= {name: flipped(link.result[name]) for name in (KERNEL, TABLE)}
    else:
        link.source |= {name: flipped(link.source[name]) for name in (KERNEL, TABLE)}
        timm.tie(link, turned(config))


def turned(config: ModelConfig) -> ModelConfig:
    config = config.with_embed(patch=swapped(config.embed.patch), stride=swapped(config.embed.stride))
    return replace(config, clip=swapped(config.clip))


def swapped(size: tuple[int, int, int]) -> tuple[int, int, int]:
    return size[0], size[2], size[1]


def flipped(tensor: Tensor) -> Tensor:
    """A kernel (D, C, t, h, w) or a table (t, h, w, D) with h and w exchanged."""
    axes = (3, 4) if tensor.ndim == 5 else (1, 2)
    return torch.transpose(tensor, *axes).contiguous()
