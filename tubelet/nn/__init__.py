"""The model: space-time transformers on a token grid with named axes. Pure torch; knows no file and no path."""

from tubelet.nn.attention import Attention, attend
from tubelet.nn.embed import (
    ConvStemEmbed,
    DepthwiseSeparableEmbed,
    SpaceThenTimeEmbed,
    TubeletEmbed,
    UniformFrames,
    uniform_frames,
)
from tubelet.nn.encoder import Block, BlockConfig, DropPath, Encoder, Mlp, Stage
from tubelet.nn.grid import Grid, grid_of
from tubelet.nn.model import FAMILIES, SIZES, ModelConfig, SpaceTimeTransformer, create_model, list_models
from tubelet.nn.position import LearnedPosition, resample, sincos

__all__ = [
    "FAMILIES",
    "SIZES",
    "Attention",
    "Block",
    "BlockConfig",
    "ConvStemEmbed",
    "DepthwiseSeparableEmbed",
    "DropPath",
    "Encoder",
    "Grid",
    "LearnedPosition",
    "Mlp",
    "ModelConfig",
    "SpaceThenTimeEmbed",
    "SpaceTimeTransformer",
    "Stage",
    "TubeletEmbed",
    "UniformFrames",
    "attend",
    "create_model",
    "grid_of",
    "list_models",
    "resample",
    "sincos",
    "uniform_frames",
]
