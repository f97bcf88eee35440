"""Weights of Hugging Face's ViViT, VideoMAE and AST, under the parameter names of transformers 4 and of 5."""

from dataclasses import replace

import torch
from torch import Tensor

from tubelet.nn.config import ModelConfig
from tubelet.weights.dialects.dialect import Allowed, Video
from tubelet.weights.dialects.rename import ForeignState, Link
from tubelet.weights.dialects.scenic import VIVIT
from tubelet.weights.dialects.settings import Given, Json, Settings, sound_settings, video_settings
from tubelet.weights.dialects.vit import ENCODER, TABLE, Names, VitDialect, first_stage, position_grid

# what transformers 4 has in memory, and every version writes
ON_DISK = Names(
    "layernorm_before",
    tuple(f"attention.attention.{part}" for part in ("query", "key", "value")),
    "attention.output.dense",
    "layernorm_after",
    "intermediate.dense",
    "output.dense",
)
# what transformers 5 has in memory
QKV_IN_MEMORY = tuple(f"attention.{part}_proj" for part in "qkv")
IN_MEMORY = Names("layernorm_before", QKV_IN_MEMORY, "attention.o_proj", "layernorm_after")
# VideoMAE: a key bias changes no attention, so there is none; on disk, and in the memory of transformers 5
QUERY_VALUE = ("attention.attention.q_bias", "attention.attention.v_bias")
QUERY_VALUE_IN_MEMORY = ("attention.attention.query.bias", "attention.attention.value.bias")

AUDIOSET_MEAN, AUDIOSET_STD = (-4.2677393,), (2 * 4.5689974,)  # AST divides by twice the deviation


class HuggingFace(VitDialect):
    """Base of the dialects of Hugging Face's models."""

    kernel = "embeddings.patch_embeddings.projection"
    tokens: tuple[str, ...] = ("embeddings.cls_token",)
    positions = "embeddings.position_embeddings"
    layers, block, norm = "encoder.layer.{}.", ON_DISK, "layernorm"

    def wording(self, names: ForeignState | Link) -> tuple[str, Names]:
        in_memory = any(name.startswith(f"{names.root(self.root)}layers.") for name in names.names)
        return ("layers.{}.", IN_MEMORY) if in_memory else (self.layers, self.block)


class Vivit(HuggingFace):
    name, family, root = "hf-vivit", "vivit1", "vivit."
    fingerprint = ("vivit.embeddings.cls_token", "embeddings.cls_token")
    mean, std = (0.5,), (0.5,)
    licence = "MIT"
    note = "pixels in [-1, 1], as ViViT was trained; transformers' processor would normalise them twice"

    def config(self, theirs: ForeignState, given: Given) -> ModelConfig:
        return super().config(theirs, given).with_stage(0, gelu="tanh")

    def allowed(self, config: ModelConfig) -> Allowed:
        own: Allowed = {"pool": ("cls",), "norm": ("tokens",), "prefix": (1,), "gelu": ("tanh",), "tables": (("thw",),)}
        return super().allowed(config) | own

    def map_norms(self, link: Link, config: ModelConfig, root: str) -> None:
        super().map_norms(link, config, root)
        link.leave(f"{root}pooler.", "the classifier does not use it")

    def read_settings(self, config: Json, preprocessor: Json) -> Settings:
        """Settings but for mean and std: its processor normalises twice, and published weights were not trained so."""
        return replace(video_settings("vivit", config, preprocessor), mean=None, std=None)

    def video(self, frames: int) -> Video:
        return VIVIT


class VideoMae(HuggingFace):
    name, family, root = "hf-videomae", "videomae", "videomae."
    licence, commercial = "CC-BY-NC-4.0", False
    fingerprint = tuple(f"{root}embeddings.patch_embeddings.projection.weight" for root in ("videomae.", ""))

    def config(self, theirs: ForeignState, given: Given) -> ModelConfig:
        found = super().config(theirs, given)
        by_mean = bool(theirs.root("fc_norm."))
        if found.num_classes and not by_mean:
            raise ValueError(
                "the weights classify VideoMAE's first patch token (use_mean_pooling=False), which our models do not: "
                "leave the classifier out to take the encoder"
            )
        with_norm = theirs.root(f"{theirs.root(self.root)}{self.norm}.")
        norm = "pooled" if by_mean else "tokens" if with_norm else "none"
        return found.with_stage(0, norm=norm, eps=1e-12, pool_eps=1e-5)

    def allowed(self, config: ModelConfig) -> Allowed:
        own: Allowed = {"norm": ("pooled",) if config.num_classes else ("pooled", "tokens", "none")}
        own |= {"pool": ("mean",), "prefix": (0,), "position": ("fixed",), "tables": (("thw",),)}
        return super().allowed(config) | own | {"eps": (1e-12,), "pool_eps": (1e-5,)}

    def map_positions(self, link: Link, config: ModelConfig, root: str) -> None:
        """Positions are computed by them, not stored: put in while reading, checked while writing."""
        grid = position_grid(config)
        table = sincos_by_number(grid.size, first_stage(config).dim).view(*grid, -1)
        if link.reading:
            link.result[TABLE] = table
        elif not torch.allclose(link.source.pop(TABLE), table, atol=1e-6):
            raise ValueError(
                "VideoMAE's positions are sines and cosines of a token's number, and this model has others (one made "
                "by name has those of each axis): only models that were read from VideoMAE can be written for it"
            )

    def map_block(self, link: Link, config: ModelConfig, names: Names, theirs: str, ours: str) -> None:
        in_memory = any(name.endswith(QUERY_VALUE_IN_MEMORY) for name in link.names)
        weights = [f"{theirs}{part}.weight" for part in names.qkv]
        link.linear(f"{theirs}{names.norm1}", f"{ours}.attn_norms.0")
        link.tie(weights, [f"{ours}.attns.0.qkv.weight"], lambda *x: [torch.cat(x)], lambda x: x.chunk(3))
        link.tie(
            [f"{theirs}{bias}" for bias in (QUERY_VALUE_IN_MEMORY if in_memory else QUERY_VALUE)],
            [f"{ours}.attns.0.qkv.bias"],
            lambda q, v: [torch.cat([q, torch.zeros_like(q), v])],
            lambda x: x.chunk(3)[::2],
            "taken, the key without bias",
        )
        link.linear(f"{theirs}{names.proj}", f"{ours}.attns.0.proj")
        link.linear(f"{theirs}{names.norm2}", f"{ours}.mlp_norm")
        link.linear(f"{theirs}{names.fc1}", f"{ours}.mlp.fc1")
        link.linear(f"{theirs}{names.fc2}", f"{ours}.mlp.fc2")

    def map_norms(self, link: Link, config: ModelConfig, root: str) -> None:
        norm = first_stage(config).norm
        if norm == "tokens":
            super().map_norms(link, config, root)
        if norm == "pooled":
            link.linear("fc_norm", f"{ENCODER}.pool.norm")
        for beginning in ("decoder.", "encoder_to_decoder.", "mask_token", "position_embeddings"):
            link.leave(beginning, "the decoder is for pretraining")

    def read_settings(self, config: Json, preprocessor: Json) -> Settings:
        return video_settings("videomae", config, preprocessor)

    def video(self, frames: int) -> Video:
        return Video(4, 30, 224, "as VideoMAE on Kinetics, if its files have 30 frames a second")


def sincos_by_number(rows: int, dim: int) -> Tensor:
    """Sines and cosines by turns over the rows counted through, (N, D). Source: arXiv 1706.03762, section 3.5."""
    rate = 10_000 ** -(torch.arange(dim, dtype=torch.float64) // 2 * 2 / dim)
    angle = torch.arange(rows)[:, None] * rate
    return torch.where(torch.arange(dim) % 2 == 0, angle.sin(), angle.cos()).float()


class Ast(HuggingFace):
    name, family, root, kind = "hf-ast", "ast", "audio_spectrogram_transformer.", "sound"
    fingerprint = ("audio_spectrogram_transformer.embeddings.cls_token", "embeddings.distillation_token")
    flat, overlapping = True, True
    tokens = ("embeddings.cls_token", "embeddings.distillation_token")
    head = "classifier.dense"
    licence = "BSD-3-Clause"
    mean, std = AUDIOSET_MEAN, AUDIOSET_STD

    def config(self, theirs: ForeignState, given: Given) -> ModelConfig:
        found = super().config(theirs, given)
        if found.channels != 1:
            raise ValueError(
                f"AST's spectrograms have one channel, these weights {found.channels}: is the dialect right?"
            )
        norm = "both" if theirs.root("classifier.layernorm.") else "tokens"
        return found.with_stage(0, norm=norm)

    def allowed(self, config: ModelConfig) -> Allowed:
        own: Allowed = {"norm": ("both",) if config.num_classes else ("both", "tokens"), "channels": (1,)}
        own |= {"stride": (config.embed.stride,), "pool": ("cls+dist",), "prefix": (2,), "tables": (("hw",),)}
        return super().allowed(config) | own | {"eps": (1e-12,), "pool_eps": (1e-12,)}

    def map_norms(self, link: Link, config: ModelConfig, root: str) -> None:
        super().map_norms(link, config, root)
        if first_stage(config).norm == "both":
            link.linear("classifier.layernorm", f"{ENCODER}.pool.norm")

    def read_settings(self, config: Json, preprocessor: Json) -> Settings:
        return sound_settings("audio-spectrogram-transformer", config, preprocessor)


HF_VIVIT, HF_VIDEOMAE, HF_AST = Vivit(), VideoMae(), Ast()
