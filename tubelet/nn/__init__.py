"""The model: space-time transformers on a token grid with named axes. Pure torch; knows no file and no path."""

from tubelet.nn.attention import Attention, attend
from tubelet.nn.block import Block, DropPath, Mlp
from tubelet.nn.config import EmbedConfig, ModelConfig, Stage, WindowStage
from tubelet.nn.create import create_model, list_models, model_config
from tubelet.nn.embed import (
    ConvStemEmbed,
    DepthwiseSeparableEmbed,
    SpaceThenTimeEmbed,
    Tokeniser,
    TubeletEmbed,
    UniformFrames,
    uniform_frames,
)
from tubelet.nn.encoder import Encoder
from tubelet.nn.families import FAMILIES, IMAGE_FAMILIES, SIZES, SWIN_SIZES
from tubelet.nn.grid import Grid, token_grid
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.nn.parameter_groups import parameter_groups
from tubelet.nn.pool import AttentivePool, Pool
from tubelet.nn.position import LearnedPosition, RotaryPosition, SinCosPosition, resample, rotary, sincos
from tubelet.nn.regularise import regularise
from tubelet.nn.resnet import RESNETS, ResNetEmbed
from tubelet.nn.shared_encoder import SharedEncoder
from tubelet.nn.split import classify_steps, encode_steps
from tubelet.nn.streamer import Streamer
from tubelet.nn.swin import SwinBlock, SwinEncoder

# fmt: off
__all__ = [
    "FAMILIES",
    "IMAGE_FAMILIES",
    "RESNETS",
    "SIZES",
    "SWIN_SIZES",
    "Attention",
    "AttentivePool",
    "Block",
    "ConvStemEmbed",
    "DepthwiseSeparableEmbed",
    "DropPath",
    "EmbedConfig",
    "Encoder",
    "Grid",
    "LearnedPosition",
    "Mlp",
    "ModelConfig",
    "Pool",
    "ResNetEmbed",
    "RotaryPosition",
    "SharedEncoder",
    "SinCosPosition",
    "SpaceThenTimeEmbed",
    "SpaceTimeTransformer",
    "Stage",
    "Streamer",
    "SwinBlock",
    "SwinEncoder",
    "Tokeniser",
    "TubeletEmbed",
    "UniformFrames",
    "WindowStage",
    "attend",
    "classify_steps",
    "create_model",
    "encode_steps",
    "list_models",
    "model_config",
    "parameter_groups",
    "regularise",
    "resample",
    "rotary",
    "sincos",
    "token_grid",
    "uniform_frames",
]
