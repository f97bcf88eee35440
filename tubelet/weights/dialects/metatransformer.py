"""Weights of Meta-Transformer's encoder: a bare stack of timm's blocks, without tokeniser, positions or last norm."""

import math

from tubelet.nn.config import ModelConfig
from tubelet.nn.create import family_config
from tubelet.weights.dialects.rename import Link, Theirs, Told
from tubelet.weights.dialects.timm import NAMES
from tubelet.weights.dialects.vit import ENCODER, block, blocks_of, require


def config(theirs: Theirs, told: Told) -> ModelConfig:
    """The tokeniser is a fresh one, of 16 px (or what else fills the clip) and two frames where the clip has them."""
    told.agree(family="meta", attend="thw", frames=None, window=None)
    frames, height, width = told.clip
    side = math.gcd(height, width, 16)
    patch = (math.gcd(frames, 2), side, side)
    found = family_config(
        "meta",
        (theirs.shape("0.norm1.bias", 1)[0], theirs.count("{}."), told.heads),
        patch=patch,
        stride=told.stride,
        clip=told.clip,
        num_classes=0,
        channels=3,
    )
    return found.with_stage(0, mlp_dim=theirs.shape("0.mlp.fc1.bias", 1)[0])


def says(config: ModelConfig) -> None:
    require(
        config,
        "metatransformer",
        family=("meta",),
        embed=(config.embed.kind,),
        stride=(config.embed.stride,),
        frames=(config.embed.frames,),
        position=("sincos",),
        pool=("mean",),
        prefix=(0,),
        norm=("none",),
        eps=(1e-5,),
    )


def tie(link: Link, config: ModelConfig) -> None:
    for i in blocks_of(config):
        block(link, NAMES, f"{i}.", f"{ENCODER}.blocks.{i}")
    if not link.reading:
        link.omit("embed.", "the released layout has no tokeniser")
        link.omit("head.", "the released layout has no head")
