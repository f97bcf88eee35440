"""Weights of Meta-Transformer's encoder: a bare stack of timm's blocks, without tokeniser, positions or last norm."""

import math

from tubelet.nn.config import ModelConfig
from tubelet.nn.create import family_config
from tubelet.weights.dialects.dialect import Dialect
from tubelet.weights.dialects.rename import ForeignState, Link
from tubelet.weights.dialects.settings import Given
from tubelet.weights.dialects.timm import NAMES
from tubelet.weights.dialects.vit import ENCODER, block, blocks_of, require


def config(theirs: ForeignState, given: Given) -> ModelConfig:
    """The tokeniser is a fresh one, of 16 px (or what else fills the clip) and two frames where the clip has them."""
    given.agree(family="meta", attend="thw", frames=None, window=None)
    frames, height, width = given.clip
    side = math.gcd(height, width, 16)
    patch = (math.gcd(frames, 2), side, side)
    found = family_config(
        "meta",
        (theirs.shape("0.norm1.bias", 1)[0], theirs.count("{}."), given.heads),
        patch=patch,
        stride=given.stride,
        clip=given.clip,
        num_classes=0,
        channels=3,
    )
    return found.with_stage(0, mlp_dim=theirs.shape("0.mlp.fc1.bias", 1)[0])


def check_supported(config: ModelConfig) -> None:
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


def map_tensors(link: Link, config: ModelConfig) -> None:
    for i in blocks_of(config):
        block(link, NAMES, f"{i}.", f"{ENCODER}.blocks.{i}")
    if not link.reading:
        link.omit("embed.", "the released layout has no tokeniser")
        link.omit("head.", "the released layout has no head")


METATRANSFORMER = Dialect(
    name="metatransformer",
    fingerprint=("0.attn.qkv.weight",),
    config=config,
    check_supported=check_supported,
    mapping=map_tensors,
    fresh=("embed.",),
)
