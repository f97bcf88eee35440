"""Weights of google-research/scenic's ViViT (flax parameter trees, names joined by "/"): Models 1 to 4.

Models 1 and 4 have the same tensors; flax kernels are (in, out), attention kernels (in, heads, d); GELU is the tanh
form. The position row of a class token is added to the token itself, which loses nothing.
"""

from dataclasses import replace

import torch
from torch import Tensor

from tubelet.nn.grid import Grid, grid_of
from tubelet.weights.source import Converted, Source, Told, config_of, linear, split_positions


def convert(source: Source, told: Told) -> Converted:
    kernel = source.take("embedding/kernel")
    factorised = "cls_SpatialTransformer" in source or "SpatialTransformer/encoder_norm/scale" in source
    root = "SpatialTransformer" if factorised else "Transformer"
    divided = "Transformer/encoderblock_0/LayerNorm_mlp/scale" in source
    family = detect_family(source, told.family, factorised=factorised, divided=divided)
    kernel = kernel[None] if kernel.ndim == 4 else kernel  # (t, p, p, C, D)
    patch = (kernel.shape[0], kernel.shape[1], kernel.shape[2])
    frames, step = told.frames, told.stride or patch
    grid = grid_of((min(told.clip[0], frames or told.clip[0]), *told.clip[1:]), patch, step)
    steps = (told.attend or "hw,t") if divided else "t|hw" if family == "vivit4" else "thw"
    if divided and steps not in ("hw,t", "t,hw"):
        raise ValueError(f"got attend={steps!r}, but Model 3 attends in space and along time: give 'hw,t' or 't,hw'")
    told.agree(family=family, attend=steps)
    with_token = any(name in source for name in ("cls", "cls_SpatialTransformer"))

    state: dict[str, Tensor] = {}
    linear(
        state,
        "embed.embed.proj" if frames else "embed.proj",
        kernel.permute(4, 3, 0, 1, 2),
        source.take("embedding/bias"),
    )
    token = "cls_SpatialTransformer" if factorised else "cls"
    encoder(source, state, root, 0, grid.along("hw") if factorised else grid, token if with_token else None, steps)
    if factorised and "TemporalTransformer/encoder_norm/scale" in source:
        encoder(
            source,
            state,
            "TemporalTransformer",
            1,
            grid.along("t"),
            "cls_TemporalTransformer" if with_token else None,
            "thw",
        )
    linear(state, "head", source.take("output_projection/kernel").T, source.take("output_projection/bias"))
    config = replace(
        config_of(family, state, told),
        attend=steps if divided else None,
        pool="cls" if with_token else "mean",
        gelu="tanh",
    )
    return config, state


def detect_family(source: Source, family: str | None, *, factorised: bool, divided: bool) -> str:
    if factorised or divided:
        found = "vivit2" if factorised else "vivit3"
    elif "cls" in source:
        found = "vivit1"  # Model 4 has no class token
    elif family in ("vivit1", "vivit4"):
        found = family
    else:
        raise ValueError("scenic's Models 1 and 4 have the same weights: say which with family='vivit1' or 'vivit4'")
    return found


def encoder(
    source: Source, state: dict[str, Tensor], root: str, stage: int, grid: Grid, token: str | None, steps: str
) -> None:
    """Moves one encoder of `source` into `state`."""
    ours = f"encoders.{stage}"
    rows, state[f"{ours}.position.tables.0"] = split_positions(
        source.take(f"{root}/posembed_input/pos_embedding"), grid, prefix=0 if token is None else 1
    )
    if token is not None:
        state[f"{ours}.prefix"] = source.take(token) + rows
    for i in range(source.count(root + "/encoderblock_{}/")):
        block(source, state, f"{root}/encoderblock_{i}", f"{ours}.blocks.{i}", steps)
    norm(source, state, f"{root}/encoder_norm", f"{ours}.norm")


def block(source: Source, state: dict[str, Tensor], theirs: str, ours: str, steps: str) -> None:
    names = {"hw": "space", "t": "time"}
    suffixes = [names[axes] for axes in steps.split(",")] if "," in steps else ["0"]
    for i, suffix in enumerate(suffixes):
        norm(source, state, f"{theirs}/LayerNorm_{suffix}", f"{ours}.attn_norms.{i}")
        attention = f"{theirs}/MultiHeadDotProductAttention_{suffix}"
        parts = [
            (source.take(f"{attention}/{part}/kernel"), source.take(f"{attention}/{part}/bias"))
            for part in ("query", "key", "value")
        ]
        weight = torch.cat([kernel.flatten(1).T for kernel, _ in parts])
        linear(state, f"{ours}.attns.{i}.qkv", weight, torch.cat([bias.flatten() for _, bias in parts]))
        out = source.take(f"{attention}/out/kernel").flatten(0, 1).T
        linear(state, f"{ours}.attns.{i}.proj", out, source.take(f"{attention}/out/bias"))
    last, mlp = ("LayerNorm_mlp", "MlpBlock") if "," in steps else ("LayerNorm_1", "MlpBlock_0")
    norm(source, state, f"{theirs}/{last}", f"{ours}.mlp_norm")
    for i in (0, 1):
        dense = f"{theirs}/{mlp}/Dense_{i}"
        linear(state, f"{ours}.mlp.fc{i + 1}", source.take(f"{dense}/kernel").T, source.take(f"{dense}/bias"))


def norm(source: Source, state: dict[str, Tensor], theirs: str, ours: str) -> None:
    linear(state, ours, source.take(f"{theirs}/scale"), source.take(f"{theirs}/bias"))
