"""Weights of Meta-Transformer's encoder: a bare stack of timm's blocks, without tokeniser, positions or last norm."""

import math

from tubelet.nn.config import ModelConfig
from tubelet.nn.create import family_config
from tubelet.weights.dialects.dialect import Allowed, Dialect
from tubelet.weights.dialects.rename import ForeignState, Link
from tubelet.weights.dialects.settings import Given
from tubelet.weights.dialects.timm import NAMES
from tubelet.weights.dialects.vit import ENCODER, block, first_stage


class MetaTransformer(Dialect):
    licence = "Apache-2.0"
    name, fingerprint, fresh = "metatransformer", ("0.attn.qkv.weight",), ("embed.",)

    def config(self, theirs: ForeignState, given: Given) -> ModelConfig:
        """The tokeniser is a fresh one, of 16 px (or what else fills the clip) and two frames where the clip has
        them."""
        given.agree(family="meta", attend="thw", frames=None, window=None)
        frames, height, width = given.clip
        side = math.gcd(height, width, 16)
        found = family_config(
            "meta",
            (theirs.shape("0.norm1.bias", 1)[0], theirs.count("{}."), given.heads),
            patch=(math.gcd(frames, 2), side, side),
            stride=given.stride,
            clip=given.clip,
            num_classes=0,
            channels=3,
        )
        return found.with_stage(0, mlp_dim=theirs.shape("0.mlp.fc1.bias", 1)[0])

    def allowed(self, config: ModelConfig) -> Allowed:
        own: Allowed = {"family": ("meta",), "position": ("sincos",), "pool": ("mean",), "prefix": (0,)}
        embed: Allowed = {name: (getattr(config.embed, name),) for name in ("stride", "frames")}
        return own | embed | {"embed": (config.embed.kind,), "norm": ("none",), "eps": (1e-5,)}

    def map_tensors(self, link: Link, config: ModelConfig) -> None:
        for i in range(first_stage(config).depth):
            block(link, NAMES, f"{i}.", f"{ENCODER}.blocks.{i}")
        link.omit("embed.", "the released layout has no tokeniser")
        link.omit("head.", "the released layout has no head")


METATRANSFORMER = MetaTransformer()
