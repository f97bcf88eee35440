"""Weights of AudioMAE: timm's ViT on spectrograms whose rows are time steps; our rows are mel bins."""

from dataclasses import replace

import torch
from torch import Tensor

from tubelet.nn.config import ModelConfig
from tubelet.weights.dialects import timm
from tubelet.weights.dialects.dialect import Dialect
from tubelet.weights.dialects.huggingface import AUDIOSET_MEAN, AUDIOSET_STD
from tubelet.weights.dialects.rename import ForeignState, Link
from tubelet.weights.dialects.settings import Given, Json, Settings
from tubelet.weights.dialects.vit import TABLE, require

KERNEL = "embed.proj.weight"


def config(theirs: ForeignState, given: Given) -> ModelConfig:
    if theirs.root(timm.BACKBONE):
        raise ValueError("AudioMAE has no ResNet before its patches, and these weights have: take dialect='timm'")
    stride = None if given.stride is None else swapped(given.stride)
    return turned(timm.config(theirs, replace(given, clip=swapped(given.clip), stride=stride)))


def check_supported(config: ModelConfig) -> None:
    timm.check_supported(config)
    require(config, "audiomae")  # no ResNet


def map_tensors(link: Link, config: ModelConfig) -> None:
    """As timm does, with height and width of kernel and table exchanged on our side."""
    if link.reading:
        timm.map_tensors(link, turned(config))
        link.result |= {name: flipped(link.result[name]) for name in (KERNEL, TABLE)}
    else:
        link.source |= {name: flipped(link.source[name]) for name in (KERNEL, TABLE)}
        timm.map_tensors(link, turned(config))


def turned(config: ModelConfig) -> ModelConfig:
    config = config.with_embed(patch=swapped(config.embed.patch), stride=swapped(config.embed.stride))
    return replace(config, clip=swapped(config.clip))


def swapped(size: tuple[int, int, int]) -> tuple[int, int, int]:
    return size[0], size[2], size[1]


def flipped(tensor: Tensor) -> Tensor:
    """A kernel (D, C, t, h, w) or a table (t, h, w, D) with h and w exchanged."""
    axes = (3, 4) if tensor.ndim == 5 else (1, 2)
    return torch.transpose(tensor, *axes).contiguous()


def read_settings(config: Json, preprocessor: Json) -> Settings:
    """In timm's words; the clip turned, and the mean and deviation of AudioSet."""
    settings = timm.read_settings(config, preprocessor)
    clip = settings.clip and swapped(settings.clip)
    return replace(settings, clip=clip, mean=AUDIOSET_MEAN, std=AUDIOSET_STD)


AUDIOMAE = Dialect(
    name="audiomae",
    fingerprint=(),  # timm's names
    config=config,
    check_supported=check_supported,
    mapping=map_tensors,
    read_settings=read_settings,
    kind="sound",
)
