"""Weights of TimeSformer, in the original's names and in Hugging Face's: divided, joint and space-only attention.

The linear layer after attention along time is linear after linear: it is folded into the projection before it.
"""

from dataclasses import replace

import torch

from tubelet.nn.config import ModelConfig
from tubelet.weights.dialects import timm
from tubelet.weights.dialects.dialect import Allowed, Video
from tubelet.weights.dialects.huggingface import ON_DISK, HuggingFace
from tubelet.weights.dialects.rename import ForeignState, Link
from tubelet.weights.dialects.settings import Given, Json, Settings, video_settings
from tubelet.weights.dialects.vit import ENCODER, Names, block, position_grid


class HfTimesformer(HuggingFace):
    """TimeSformer in Hugging Face's names.

    families: those of the divided, the joint and the space-only model.
    times: the position table along time, which space-only attention lacks.
    time_norm, time_qkv, time_proj: attention along time, and `after_time`, the linear layer after it.
    """

    name, family, root = "hf-timesformer", "timesformer", "timesformer."
    fingerprint: tuple[str, ...] = (
        "timesformer.embeddings.cls_token",
        "encoder.layer.0.attention.attention.qkv.weight",
    )
    families: tuple[str, ...] = ("timesformer", "vidtrans", "vivit2")
    flat = True
    times = "embeddings.time_embeddings"
    block = replace(ON_DISK, qkv=("attention.attention.qkv",))
    time_norm, time_qkv = "temporal_layernorm", "temporal_attention.attention.qkv"
    time_proj, after_time = "temporal_attention.output.dense", "temporal_dense"
    licence, commercial = "CC-BY-NC-4.0", False
    mean, std = (0.45,), (0.225,)  # of the original; Hugging Face's class says ImageNet's

    def config(self, theirs: ForeignState, given: Given) -> ModelConfig:
        root = theirs.root(self.root)
        divided = bool(theirs.root(f"{root}{self.layers.format(0)}{self.time_norm}."))
        timeless = f"{root}{self.times}" not in theirs
        family, steps = ("vivit2", "thw") if timeless else ("timesformer", "t,hw") if divided else ("vidtrans", "thw")
        given.agree(family=family, attend=steps, frames=None, stride=None, window=None)
        found = self.sized_config(theirs, given, family)
        return replace(found, stages=found.stages[:1])

    def allowed(self, config: ModelConfig) -> Allowed:
        own: Allowed = {"family": self.families, "attend": ("t,hw" if config.family == "timesformer" else "thw",)}
        own |= {"tables": (("hw",) if config.family == "vivit2" else ("hw", "t"),)}
        return super().allowed(config) | own | {"pool": ("cls",), "norm": ("tokens",), "prefix": (1,)}

    def map_positions(self, link: Link, config: ModelConfig, root: str) -> None:
        super().map_positions(link, config, root)
        if config.family != "vivit2":
            link.position(root + self.times, f"{ENCODER}.position.tables.1", position_grid(config).along("t"))

    def map_block(self, link: Link, config: ModelConfig, names: Names, theirs: str, ours: str) -> None:
        divided = config.family == "timesformer"
        if divided:
            self.map_time(link, theirs, ours)
        block(link, names, theirs, ours, step=int(divided))

    def map_time(self, link: Link, theirs: str, ours: str) -> None:
        """Attention along time; the linear layer after it is folded in, and written as one that does nothing."""
        link.linear(f"{theirs}{self.time_norm}", f"{ours}.attn_norms.0")
        link.packed([f"{theirs}{self.time_qkv}"], f"{ours}.attns.0.qkv")
        link.tie(
            [f"{theirs}{layer}.{part}" for layer in (self.time_proj, self.after_time) for part in ("weight", "bias")],
            [f"{ours}.attns.0.proj.weight", f"{ours}.attns.0.proj.bias"],
            lambda weight, bias, after, shift: [after @ weight, after @ bias + shift],
            lambda weight, bias: [weight, bias, torch.eye(len(bias)), torch.zeros_like(bias)],
            "taken, the linear layer after it folded in",
        )

    def read_settings(self, config: Json, preprocessor: Json) -> Settings:
        return video_settings("timesformer", config, preprocessor)

    def video(self, frames: int) -> Video:
        """The models called base, HR and L take 8, 16 and 96 frames."""
        step = 4 if frames == 96 else max(1, 256 // frames)
        return Video(step, 30, 256, "as TimeSformer on Kinetics, if its files have 30 frames a second")


class Timesformer(HfTimesformer):
    """TimeSformer in the original's names."""

    name, root = "timesformer", ""
    fingerprint = ("time_embed",)
    families = ("timesformer", "vidtrans")
    kernel, tokens, positions, times = "patch_embed.proj", ("cls_token",), "pos_embed", "time_embed"
    layers, block, norm, head = "blocks.{}.", timm.NAMES, "norm", "head"
    time_norm, time_qkv = "temporal_norm1", "temporal_attn.qkv"
    time_proj, after_time = "temporal_attn.proj", "temporal_fc"

    def config(self, theirs: ForeignState, given: Given) -> ModelConfig:
        if self.times not in theirs:
            raise ValueError(
                f"the weights have no tensor {self.times!r}: they are cut, or those of the original's space-only "
                f"attention, which averages frames before its last norm, our models after"
            )
        return super().config(theirs, given)

    def read_settings(self, config: Json, preprocessor: Json) -> Settings:
        return Settings()


TIMESFORMER, HF_TIMESFORMER = Timesformer(), HfTimesformer()
