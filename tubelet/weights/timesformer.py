"""Weights of the original TimeSformer (PyTorch names): divided and joint attention.

Its extra linear layer after temporal attention is linear after linear, so it is folded into the projection exactly.
"""

from dataclasses import replace

from torch import Tensor

from tubelet.nn.grid import grid_of
from tubelet.weights import timm
from tubelet.weights.source import Converted, Source, Told, config_of, linear, split_positions


def convert(source: Source, told: Told) -> Converted:
    divided = "blocks.0.temporal_attn.qkv.weight" in source
    family, steps = ("timesformer", "t,hw") if divided else ("vidtrans", "thw")
    told.agree(family=family, attend=steps, frames=None, stride=None)
    kernel = source.take("patch_embed.proj.weight")
    patch = (1, kernel.shape[2], kernel.shape[3])
    grid = grid_of(told.clip, patch, patch)
    state: dict[str, Tensor] = {}
    linear(state, "embed.proj", kernel[:, :, None], source.take("patch_embed.proj.bias"))
    rows, state["encoders.0.position.tables.0"] = split_positions(source.take("pos_embed"), grid.along("hw"), prefix=1)
    _, state["encoders.0.position.tables.1"] = split_positions(source.take("time_embed"), grid.along("t"), prefix=0)
    state["encoders.0.prefix"] = source.take("cls_token") + rows
    for i in range(source.count("blocks.{}.")):
        theirs, ours = f"blocks.{i}", f"encoders.0.blocks.{i}"
        if divided:
            timm.norm(source, state, f"{theirs}.temporal_norm1", f"{ours}.attn_norms.0")
            timm.attention(source, state, f"{theirs}.temporal_attn", f"{ours}.attns.0")
            fold(source, state, f"{theirs}.temporal_fc", f"{ours}.attns.0.proj")
        timm.block(source, state, theirs, ours, step=1 if divided else 0)
    timm.norm(source, state, "norm", "encoders.0.norm")
    linear(state, "head", source.take("head.weight"), source.take("head.bias"))
    return replace(config_of(family, state, told), mean=(0.45,), std=(0.225,)), state


def fold(source: Source, state: dict[str, Tensor], after: str, ours: str) -> None:
    """Replaces the layer `ours` by itself followed by `after`."""
    weight, bias = source.take(f"{after}.weight"), source.take(f"{after}.bias")
    linear(state, ours, weight @ state[f"{ours}.weight"], weight @ state[f"{ours}.bias"] + bias)
