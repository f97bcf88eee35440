"""Weights of DeepMind's VideoPrism, from flax: the encoder, or with its pooling LvT's video tower.

Layers that repeat are scanned: one tensor holds those of all layers, along its first axis. Gains of norms are stored
less one, and pooling scales each channel of its query, which is folded into the layer before. LvT divides what it pools
by its length; our models do not.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tubelet.nn.config import ModelConfig, Stage
from tubelet.nn.create import family_config
from tubelet.nn.grid import Size3
from tubelet.weights.dialects.dialect import Allowed, Dialect, Video, require
from tubelet.weights.dialects.rename import ForeignState, Link, Ways, split_rows
from tubelet.weights.dialects.settings import Given, Settings
from tubelet.weights.dialects.vit import first_stage, position_grid

CAP = 50.0
PUBLISHED = {(768, 12): (12, 16), (1024, 24): (16, 8)}  # width and layers in space: heads, frames
SIDE_PX = 288  # of the published models
LOG2_E = 1.442695041  # as the programs have it: a scale of 0 changes nothing
NO_TEXT = "the text tower"
STACK = "transformers_stack/x_layers"
QKV = ("query", "key", "value")

Tie = Callable[..., None]  # `Link.tie`, or `scanned` of a link


class Sizes(NamedTuple):
    """The sizes that weights tell."""

    width: int
    depths: tuple[int, int]  # layers in space, and in time
    mlp_dim: int
    patch: Size3
    channels: int = 3
    heads: int | None = None  # where the weights tell it
    classes: int = 0
    pooling: tuple[int, int] | None = None  # layers before it, and the width of its attention


class VideoPrism(Dialect):
    """Base of the dialects of VideoPrism; each has names of its own, and so `sizes`, `pooled` and `map_tensors`."""

    note = "VideoPrism squashed its frames to squares; here the shorter side is resized, and the middle cut out"
    licence = "CC-BY-4.0"

    def sizes(self, theirs: ForeignState) -> Sizes:
        raise NotImplementedError

    def pooled(self, config: ModelConfig) -> Allowed:
        """The values of settings that the program has words for in a third stage, which pools."""
        raise NotImplementedError

    def config(self, theirs: ForeignState, given: Given) -> ModelConfig:
        given.agree(family="videoprism", attend="thw", frames=None, stride=None, window=None)
        sizes = self.sizes(theirs)
        if sizes.heads not in (None, given.heads):
            raise ValueError(f"got heads={given.heads!r}, but the weights have {sizes.heads}: give heads={sizes.heads}")
        found = family_config(
            "videoprism",
            (sizes.width, sizes.depths[0], given.heads),
            patch=sizes.patch,
            clip=given.clip,
            num_classes=sizes.classes,
            channels=sizes.channels,
        )
        found = replace(found, mean=(0.0,), std=(1.0,)).with_stages(mlp_dim=sizes.mlp_dim)
        found = found.with_stage(1, depth=sizes.depths[1])
        return add_pooling(found, *sizes.pooling) if sizes.pooling else found

    def published(self, theirs: ForeignState) -> Settings:
        sizes = self.sizes(theirs)
        heads, frames = PUBLISHED.get((sizes.width, sizes.depths[0]), (None, None))
        return Settings(heads=sizes.heads or heads, clip=(frames, SIDE_PX, SIDE_PX) if frames else None)

    def video(self, frames: int) -> Video:
        return Video(10, frames, 224, "for files of 10 s: VideoPrism saw frames from all of a file")

    def allowed(self, config: ModelConfig) -> Allowed:
        own: Allowed = {"family": ("videoprism",), "stages": (2, 3), "patch": ((1, *config.embed.patch[1:]),)}
        own |= {"cap": (CAP,), "resampling": ("bilinear",), "keep_aspect": (False,), "prefix": (0,)}
        return own | {"norm": ("tokens",), "over": ("hw",), "tables": (("hw",),), "pool": ("none",)}

    def check_supported(self, config: ModelConfig) -> None:
        super().check_supported(config)
        first, pools = first_stage(config), len(config.stages) == 3
        same = self.allowed(config) | {"stages": (1,), "heads": (first.heads,), "mlp_dim": (first.mlp_dim,)}
        time: Allowed = {"over": ("t",), "tables": (("t",),), "pool": ("none",)}
        time |= {} if pools else {"pool": ("mean",), "num_classes": (0,)}
        last: Allowed = {"over": ("thw",), "tables": ((),), "pool": ("query",), "norm": ("none",)}
        last |= {"pool_heads": (None, first.heads)}
        for stage, own in zip(config.stages[1:], (time, last | self.pooled(config)), strict=False):
            require(replace(config, stages=(stage,)), self.name, same | own)


def add_pooling(config: ModelConfig, depth: int, width: int) -> ModelConfig:
    """A third stage: `depth` blocks over all tokens, then a query whose attention is so wide."""
    space, time = block_stages(config)
    last = replace(time, over="thw", tables=(), depth=depth, pool="query", pool_dim=width, norm="none")
    return replace(config, stages=(space, replace(time, pool="none"), last))


def block_stages(config: ModelConfig) -> list[Stage]:
    """In space, along time, and the one that pools if there is one."""
    return [stage for stage in config.stages if stage.kind == "blocks"]


def map_norm(tie: Tie, theirs: str, ours: str, *, gain: str) -> None:
    """A norm whose gain, `gain` after its name, is stored less one."""
    tie([theirs + gain], [f"{ours}.weight"], lambda x: [x + 1], lambda x: [x - 1], "taken, and one added")
    tie([f"{theirs}{gain[0]}bias"], [f"{ours}.bias"], lambda x: [x], lambda x: [x])


def fold_scale(*x: Tensor, heads: int) -> list[Tensor]:
    """Weights (P, D), then biases (P,) of query, key and value, then scales (P / heads,) of the query's channels ->
    weight and bias of a packed layer."""
    *weights, q_bias, k_bias, v_bias, scale = x
    factor = (F.softplus(scale.double()) * LOG2_E).float().repeat(heads)
    weights[0] = weights[0] * factor[:, None]
    return [torch.cat(weights), torch.cat([q_bias * factor, k_bias, v_bias])]


def unfold_scale(weight: Tensor, bias: Tensor, *, heads: int) -> list[Tensor]:
    """The inverse of `fold_scale`, with scales that change nothing."""
    return [*weight.chunk(3), *bias.chunk(3), weight.new_zeros(len(weight) // (3 * heads))]


FOLDED = "taken, scales of the query's channels folded in"


class Flax(VideoPrism):
    name = "videoprism"
    fingerprint = tuple(f"{root}spatial_encoder/{STACK}/layer_norm/scale" for root in ("", "vision_encoder/"))

    def sizes(self, theirs: ForeignState) -> Sizes:
        root = theirs.root("vision_encoder/")
        kernel = theirs.shape(f"{root}patch_projection/linear/kernel", 2)
        side = math.isqrt(kernel[0] // 3)
        if kernel[0] != 3 * side**2:
            raise ValueError(f"the patch projection has shape {kernel}, expected (3 p p, D) for patches of p px")
        depths = [count_scanned(theirs, f"{root}{encoder}_encoder/") for encoder in ("spatial", "temporal")]
        pooling = None
        if theirs.root(POOLER):
            before = count_scanned(theirs, "auxiliary_encoder/") if theirs.root("auxiliary_encoder/") else 0
            pooling = before, math.prod(theirs.shape(f"{POOLER}pooling_attention/query/b", 2))
        return Sizes(
            width=kernel[1],
            depths=(depths[0], depths[1]),
            mlp_dim=theirs.shape(f"{root}spatial_encoder/{STACK}/ff_layer/ffn_layer1/linear/bias", 2)[1],
            patch=(1, side, side),
            heads=theirs.shape(f"{root}spatial_encoder/{STACK}/self_attention/query/b", 3)[1],
            pooling=pooling,
        )

    def allowed(self, config: ModelConfig) -> Allowed:
        _, h, w = config.embed.patch
        return super().allowed(config) | {"channels": (3,), "num_classes": (0,), "patch": ((1, min(h, w), min(h, w)),)}

    def pooled(self, config: ModelConfig) -> Allowed:
        return {"pool_dim": (4 * first_stage(config).dim,)}

    def map_tensors(self, link: Link, config: ModelConfig) -> None:
        stages, heads, grid = block_stages(config), first_stage(config).heads, position_grid(config)
        root = link.root("vision_encoder/") if link.reading or len(stages) == 3 else ""
        side = config.embed.patch[1]
        link.tie(
            [f"{root}patch_projection/linear/kernel"],
            ["embed.proj.weight"],
            lambda x: [x.unflatten(0, (side, side, 3)).permute(3, 2, 0, 1)[:, :, None]],
            lambda x: [x[:, :, 0].permute(2, 3, 1, 0).flatten(0, 2)],
        )
        link.same(f"{root}patch_projection/linear/bias", "embed.proj.bias")
        for number, (encoder, axes) in enumerate((("spatial", "hw"), ("temporal", "t"))):
            theirs, ours = f"{root}{encoder}", f"encoders.{number}"
            rows = partial(split_rows, grid=grid.along(axes), prefix=0)
            table = [f"{theirs}_pos_emb/emb_var"], [f"{ours}.position.tables.0"]
            link.tie(*table, lambda x, rows=rows: rows(x[None])[1:], lambda x: [x.flatten(0, 2)])
            map_layers(link, f"{theirs}_encoder/", ours, stages[number].depth, heads)
            map_norm(link.tie, f"{theirs}_ln", f"{ours}.norm", gain="/scale")
        for stage in stages[2:]:
            map_layers(link, "auxiliary_encoder/", "encoders.2", stage.depth, heads)
            map_pooler(link, heads)
        link.leave("text_encoder/", NO_TEXT)


POOLER = "contrastive_vision_pooler/"


def count_scanned(theirs: ForeignState, encoder: str) -> int:
    return theirs.shape(f"{encoder}{STACK}/layer_norm/scale", 2)[0]


def map_layers(link: Link, encoder: str, ours: str, depth: int, heads: int) -> None:
    if not depth:
        return
    theirs, block, tie = encoder + STACK, f"{ours}.blocks.{{}}", scanned(link, depth)
    attention, mlp = f"{theirs}/self_attention", f"{theirs}/ff_layer"
    map_norm(tie, f"{theirs}/layer_norm", f"{block}.attn_norms.0", gain="/scale")
    tie(
        [f"{attention}/{part}/w" for part in QKV],
        [f"{block}.attns.0.qkv.weight"],
        lambda *x: [torch.cat([rows_of(y) for y in x])],
        lambda x: [rows_apart(y, heads) for y in x.chunk(3)],
    )
    tie(
        [f"{attention}/{part}/b" for part in QKV],
        [f"{block}.attns.0.qkv.bias"],
        lambda *x: [torch.cat([y.flatten() for y in x])],
        lambda x: [y.unflatten(0, (heads, -1)) for y in x.chunk(3)],
    )
    map_post(tie, f"{attention}/post", f"{block}.attns.0.proj", heads)
    map_norm(tie, f"{mlp}/layer_norm", f"{block}.mlp_norm", gain="/scale")
    for i in (1, 2):
        dense, layer = f"{mlp}/ffn_layer{i}/linear", f"{block}.mlp.fc{i}"
        tie([f"{dense}/kernel"], [f"{layer}.weight"], lambda x: [x.t()], lambda x: [x.t()])
        tie([f"{dense}/bias"], [f"{layer}.bias"], lambda x: [x], lambda x: [x])


def scanned(link: Link, depth: int) -> Tie:
    """`link.tie` for the layers of a stack: theirs have these along their first axis, ours their number for {}."""

    def tie(theirs: Sequence[str], ours: Sequence[str], forth: Ways, back: Ways, how: str = "taken") -> None:
        def apart(*stacks: Tensor) -> list[Tensor]:
            layers = zip(*(stack.split([1] * depth) for stack in stacks), strict=True)
            return [tensor for layer in layers for tensor in forth(*(part[0] for part in layer))]

        def together(*layers: Tensor) -> list[Tensor]:
            return [torch.stack(parts) for parts in zip(*(back(layer) for layer in layers), strict=True)]

        link.tie(theirs, [name.format(i) for i in range(depth) for name in ours], apart, together, how)

    return tie


def rows_of(kernel: Tensor) -> Tensor:
    """(D, heads, d) -> (heads * d, D)."""
    return kernel.flatten(1).t()


def rows_apart(weight: Tensor, heads: int) -> Tensor:
    return weight.t().unflatten(1, (heads, -1))


def map_post(tie: Tie, theirs: str, ours: str, heads: int) -> None:
    """The layer after attention: (D, heads, d) is (D, heads * d), not turned."""
    tie([f"{theirs}/w"], [f"{ours}.weight"], lambda x: [x.flatten(1)], lambda x: [x.unflatten(1, (heads, -1))])
    tie([f"{theirs}/b"], [f"{ours}.bias"], lambda x: [x], lambda x: [x])


def map_pooler(link: Link, heads: int) -> None:
    attention, ours = f"{POOLER}pooling_attention", "encoders.2.pool"

    def forth(*x: Tensor) -> list[Tensor]:
        return fold_scale(*map(rows_of, x[:3]), *(y.flatten() for y in x[3:6]), x[6], heads=heads)

    def back(weight: Tensor, bias: Tensor) -> list[Tensor]:
        *parts, scale = unfold_scale(weight, bias, heads=heads)
        return [*(rows_apart(y, heads) for y in parts[:3]), *(y.unflatten(0, (heads, -1)) for y in parts[3:]), scale]

    names = [f"{attention}/{part}/{kind}" for kind in "wb" for part in QKV]
    names.append(f"{attention}/per_dim_scale/per_dim_scale")
    link.tie([f"{POOLER}pooling_attention_query"], [f"{ours}.query"], lambda x: [x[None]], lambda x: [x[0]])
    link.tie(names, [f"{ours}.qkv.weight", f"{ours}.qkv.bias"], forth, back, FOLDED)
    map_post(link.tie, f"{attention}/post", f"{ours}.proj", heads)
    map_norm(link.tie, f"{attention}_layer_norm", f"{ours}.norm", gain="/scale")


VIDEOPRISM = Flax()
