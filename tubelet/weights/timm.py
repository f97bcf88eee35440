"""Weights of timm's ViT, also DeiT and DINOv2: class token or mean pooling.

LayerScale is linear after linear: it is folded into the layer before it, exactly.
"""

from dataclasses import replace

from torch import Tensor

from tubelet.nn.grid import grid_of
from tubelet.weights.source import Converted, Source, Told, config_of, linear, split_positions

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def convert(source: Source, told: Told) -> Converted:
    told.agree(family="vit", attend="thw", frames=None)
    kernel = source.take("patch_embed.proj.weight")
    patch = (1, kernel.shape[2], kernel.shape[3])
    step = told.stride or patch
    grid = grid_of(told.clip, patch, step)
    state: dict[str, Tensor] = {}
    linear(state, "embed.proj", kernel[:, :, None], source.take("patch_embed.proj.bias"))
    positions = source.take("pos_embed")
    with_token = "cls_token" in source
    # timm's no_embed_class: the table has no row for the class token
    with_row = with_token and positions.shape[1] == grid.size + 1
    rows, state["encoders.0.position.tables.0"] = split_positions(positions, grid, prefix=1 if with_row else 0)
    if with_token:
        state["encoders.0.prefix"] = source.take("cls_token") + (rows if with_row else 0)
    for i in range(source.count("blocks.{}.")):
        block(source, state, f"blocks.{i}", f"encoders.0.blocks.{i}", step=0)
    norm(source, state, "norm", "encoders.0.norm")
    linear(state, "head", source.take("head.weight"), source.take("head.bias"))
    colour = kernel.shape[1] == 3
    config = replace(
        config_of("vit", state, told),
        pool="cls" if with_token else "mean",
        mean=IMAGENET_MEAN if colour else (0.5,),
        std=IMAGENET_STD if colour else (0.5,),
    )
    return config, state


def block(source: Source, state: dict[str, Tensor], theirs: str, ours: str, *, step: int) -> None:
    """Moves a ViT block into ours; its attention becomes attention step `step`."""
    norm(source, state, f"{theirs}.norm1", f"{ours}.attn_norms.{step}")
    attention(source, state, f"{theirs}.attn", f"{ours}.attns.{step}")
    scale(source, state, f"{theirs}.ls1.gamma", f"{ours}.attns.{step}.proj")
    norm(source, state, f"{theirs}.norm2", f"{ours}.mlp_norm")
    for layer in ("fc1", "fc2"):
        copy(source, state, f"{theirs}.mlp.{layer}", f"{ours}.mlp.{layer}")
    scale(source, state, f"{theirs}.ls2.gamma", f"{ours}.mlp.fc2")


def attention(source: Source, state: dict[str, Tensor], theirs: str, ours: str) -> None:
    copy(source, state, f"{theirs}.qkv", f"{ours}.qkv")
    copy(source, state, f"{theirs}.proj", f"{ours}.proj")


def norm(source: Source, state: dict[str, Tensor], theirs: str, ours: str) -> None:
    copy(source, state, theirs, ours)


def copy(source: Source, state: dict[str, Tensor], theirs: str, ours: str) -> None:
    linear(state, ours, source.take(f"{theirs}.weight"), source.take(f"{theirs}.bias"))


def scale(source: Source, state: dict[str, Tensor], gamma: str, ours: str) -> None:
    """Folds a LayerScale, where there is one, into the layer before it."""
    if gamma in source:
        factor = source.take(gamma)
        linear(state, ours, factor[:, None] * state[f"{ours}.weight"], factor * state[f"{ours}.bias"])
