"""Weights of AudioMAE: timm's ViT on spectrograms whose rows are time steps; our rows are mel bins."""

from dataclasses import replace

from torch import Tensor

from tubelet.nn.config import ModelConfig
from tubelet.weights.dialects.dialect import Allowed
from tubelet.weights.dialects.huggingface import AUDIOSET_MEAN, AUDIOSET_STD
from tubelet.weights.dialects.rename import ForeignState, Link
from tubelet.weights.dialects.settings import Given, Json, Settings
from tubelet.weights.dialects.timm import BACKBONE, Vit
from tubelet.weights.dialects.vit import TABLE

KERNEL = "embed.proj.weight"


class AudioMae(Vit):
    licence, commercial = "CC-BY-NC-4.0", False
    name, kind = "audiomae", "sound"  # without a fingerprint: its names are timm's

    def config(self, theirs: ForeignState, given: Given) -> ModelConfig:
        if theirs.root(BACKBONE):
            raise ValueError("AudioMAE has no ResNet before its patches, and these weights have: take dialect='timm'")
        stride = None if given.stride is None else swap_size(given.stride)
        return turn_config(super().config(theirs, replace(given, clip=swap_size(given.clip), stride=stride)))

    def allowed(self, config: ModelConfig) -> Allowed:
        return super().allowed(config) | {"embed": ("tubelet",)}

    def map_tensors(self, link: Link, config: ModelConfig) -> None:
        """Moves every tensor as timm does, with height and width of kernel and table exchanged on our side."""
        if not link.reading:
            link.source |= {name: flip_tensor(link.source[name]) for name in (KERNEL, TABLE)}
        super().map_tensors(link, turn_config(config))
        if link.reading:
            link.result |= {name: flip_tensor(link.result[name]) for name in (KERNEL, TABLE)}

    def read_settings(self, config: Json, preprocessor: Json) -> Settings:
        """Settings in timm's words; the clip turned, and the mean and deviation of AudioSet."""
        settings = super().read_settings(config, preprocessor)
        clip = settings.clip and swap_size(settings.clip)
        return replace(settings, clip=clip, mean=AUDIOSET_MEAN, std=AUDIOSET_STD)


def turn_config(config: ModelConfig) -> ModelConfig:
    config = config.with_embed(patch=swap_size(config.embed.patch), stride=swap_size(config.embed.stride))
    return replace(config, clip=swap_size(config.clip))


def swap_size(size: tuple[int, int, int]) -> tuple[int, int, int]:
    return size[0], size[2], size[1]


def flip_tensor(tensor: Tensor) -> Tensor:
    """A kernel (D, C, t, h, w) or a table (t, h, w, D) with h and w exchanged."""
    return tensor.transpose(*((3, 4) if tensor.ndim == 5 else (1, 2))).contiguous()


AUDIOMAE = AudioMae()
