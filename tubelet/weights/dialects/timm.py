"""Weights of timm's ViT: also DeiT, DINOv2 and registers, and the hybrids on a ResNet."""

from collections.abc import Mapping
from dataclasses import replace
from math import isqrt

import torch

from tubelet.nn.config import ModelConfig
from tubelet.nn.families import SIZES
from tubelet.nn.pool import count_prefix
from tubelet.weights.dialects.dialect import Allowed, Dialect, Kind
from tubelet.weights.dialects.dinov3 import TIMM_DINOV3
from tubelet.weights.dialects.pe import TIMM_PE
from tubelet.weights.dialects.rename import ForeignState, Link
from tubelet.weights.dialects.settings import Given, Json, Settings, timm_settings
from tubelet.weights.dialects.siglip2 import TIMM_SIGLIP2, find_published
from tubelet.weights.dialects.timm_swin import SWIN
from tubelet.weights.dialects.vit import (
    ENCODER,
    PREFIX,
    TABLE,
    Names,
    VitDialect,
    find_heads,
    first_stage,
    position_grid,
)

NAMES = Names(scales=("ls1.gamma", "ls2.gamma"))
TOKENS = ("cls_token", "dist_token", "reg_token")
BACKBONE = "patch_embed.backbone."
TIMMS = {name: SIZES[name] for name in ("Ti", "S", "B", "L")}  # sizes that timm has, and with these heads


class Vit(VitDialect):
    """A plain ViT, or the hybrid on a ResNet."""

    name, family = "timm", "vit"
    kind: Kind = "image"
    kernel, flat, positions, layers, norm, head = "patch_embed.proj", True, "pos_embed", "blocks.{}.", "norm", "head"
    block, overlapping = NAMES, True

    def config(self, theirs: ForeignState, given: Given) -> ModelConfig:
        found = super().config(theirs, given)
        found = self.with_statistics(hybrid(theirs, found)) if theirs.root(BACKBONE) else found
        after_pooling = bool(theirs.root("fc_norm."))
        # without heads a distilled DeiT gives the mean of both tokens
        by_token = "cls" if "dist_token" not in theirs else "cls,dist" if found.num_classes else "cls+dist"
        return found.with_stage(
            0,
            pool=by_token if "cls_token" in theirs and not after_pooling else "mean",
            prefix=sum(theirs.shape(name, 3)[1] for name in TOKENS if name in theirs),
            norm="pooled" if after_pooling else "tokens",
            gelu=given.gelu or (find_published(theirs).gelu if "cls_token" not in theirs else None) or "erf",
        )

    def published(self, theirs: ForeignState) -> Settings:
        """Heads by width and depth, of a ViT with a class token; the size where its table is square."""
        if "cls_token" not in theirs or theirs.root(BACKBONE):
            return Settings()
        (dim, _, _, patch), rows = theirs.shape(f"{self.kernel}.weight", 4), theirs.shape(self.positions, 3)[1]
        heads = find_heads(TIMMS, dim, theirs.count(self.layers))
        side = isqrt(rows - 1) if not any(name in theirs for name in TOKENS[1:]) else 0
        square = side > 0 and side**2 == rows - 1
        return Settings(heads=heads, clip=(1, side * patch, side * patch) if square else None)

    def allowed(self, config: ModelConfig) -> Allowed:
        stage = first_stage(config)
        own: Allowed = {
            "embed": ("tubelet", "resnet"),
            "pool": ("cls", "cls,dist" if config.num_classes else "cls+dist", "mean"),
            "norm": ("tokens", "pooled") if stage.pool == "mean" else ("tokens",),
            "pool_eps": (1e-6,) if stage.norm == "pooled" else (stage.pool_eps,),
            "tables": (("hw",),),
            # SigLIPs without their pooling
            "gelu": ("erf", "tanh") if (stage.pool, stage.prefix, stage.norm) == ("mean", 0, "tokens") else ("erf",),
        }
        return super().allowed(config) | own

    def map_tensors(self, link: Link, config: ModelConfig) -> None:
        if config.embed.kind == "resnet":
            map_resnet(link, config.embed.layers)
        super().map_tensors(link, config)

    def map_positions(self, link: Link, config: ModelConfig, root: str) -> None:
        """timm has position rows for all prefix tokens or, as for all its models with registers, for none."""
        grid, tokens = position_grid(config), prefix_tokens(link, config)
        if link.has("pos_embed"):
            with_rows = link.source["pos_embed"].shape[1:2] != (grid.size,)
        else:
            with_rows = "reg_token" not in dict(tokens)
        if tokens and with_rows:
            return link.positions(tokens, "pos_embed", PREFIX, TABLE, grid)
        link.position("pos_embed", TABLE, grid)
        return link.joined(tokens, PREFIX) if tokens else None

    def map_norms(self, link: Link, config: ModelConfig, root: str) -> None:
        if first_stage(config).norm == "pooled":
            link.linear("fc_norm", f"{ENCODER}.pool.norm")
        else:
            super().map_norms(link, config, root)

    def map_head(self, link: Link, config: ModelConfig) -> None:
        if first_stage(config).pool == "cls,dist":
            map_two_heads(link)
        else:
            super().map_head(link, config)

    def read_settings(self, config: Json, preprocessor: Json) -> Settings:
        return timm_settings(config)


class Timm(Dialect):
    """All of timm's models: each family is a piece with a fingerprint of its own, ViT what has none of these."""

    name, fingerprint = "timm", ("patch_embed.proj.weight",)
    kind: Kind = "image"
    pieces: Mapping[str, Dialect] = {  # by our family, in the order in which they are looked for
        "pe": TIMM_PE,
        "dinov3": TIMM_DINOV3,
        "siglip2": TIMM_SIGLIP2,
        "swin2": SWIN,
    }

    def piece(self, family: str) -> Dialect:
        return self.pieces.get(family, VIT)

    def piece_of(self, theirs: ForeignState) -> Dialect:
        marked = (one for one in self.pieces.values() if any(mark in theirs for mark in one.fingerprint))
        return next(marked, VIT)

    def config(self, theirs: ForeignState, given: Given) -> ModelConfig:
        return self.piece_of(theirs).config(theirs, given)

    def published(self, theirs: ForeignState) -> Settings:
        return self.piece_of(theirs).published(theirs)

    def check_supported(self, config: ModelConfig) -> None:
        self.piece(config.family).check_supported(config)

    def map_tensors(self, link: Link, config: ModelConfig) -> None:
        self.piece(config.family).map_tensors(link, config)

    def read_settings(self, config: Json, preprocessor: Json) -> Settings:
        return timm_settings(config)


def hybrid(theirs: ForeignState, found: ModelConfig) -> ModelConfig:
    """A ViT with the ResNet before its patch embedding; `found` counts its patch in cells of the ResNet's map."""
    stages = theirs.count(BACKBONE + "stages.{}.")
    step = 4 * 2 ** max(stages - 1, 0)
    stem, channels = theirs.shape(f"{BACKBONE}{'stem.' if stages else ''}conv.weight", 4)[:2]
    last = [theirs.shape(f"{BACKBONE}stages.{i}.blocks.0.conv3.weight", 4)[0] for i in range(stages)]
    patch = (1, step * found.embed.patch[1], step * found.embed.patch[2])
    layers = tuple(theirs.count(f"{BACKBONE}stages.{i}.blocks." + "{}.") for i in range(stages))
    stride = patch if found.embed.stride == found.embed.patch else found.embed.stride
    found = found.with_embed(kind="resnet", patch=patch, stride=stride, layers=layers, widths=(stem, *last))
    return replace(found, channels=channels)


def prefix_tokens(link: Link, config: ModelConfig) -> list[tuple[str, int]]:
    """Names and numbers of the prefix tokens. Written, those that pooling does not use are registers, but for a single
    one, which is a class token, as in AudioMAE."""
    needed, count = count_prefix(first_stage(config).pool), first_stage(config).prefix
    if link.reading:
        first = [name for name in TOKENS[:2] if link.has(name)]
    else:
        first = list(TOKENS[: 1 if (needed, count) == (0, 1) else needed])
    registers = count - len(first)
    return [(name, 1) for name in first] + ([(TOKENS[2], registers)] if registers else [])


def map_two_heads(link: Link) -> None:
    """DeiT averages the answers of a head on each token; ours is one head on both tokens side by side."""
    theirs = [f"{head}.{part}" for part in ("weight", "bias") for head in ("head", "head_dist")]
    link.tie(
        theirs,
        ["head.weight", "head.bias"],
        lambda a, b, bias_a, bias_b: [torch.cat([a, b], 1) / 2, (bias_a + bias_b) / 2],
        lambda weight, bias: [*(2 * weight).chunk(2, 1), bias, bias],
        "taken, the mean of both heads",
    )


def map_resnet(link: Link, layers: tuple[int, ...]) -> None:
    for name in ("conv.weight", "norm.weight", "norm.bias"):
        link.same(f"{BACKBONE}{'stem.' if layers else ''}{name}", f"embed.backbone.stem.{name}")
    for stage, depth in enumerate(layers):
        for i in range(depth):
            names = [f"{kind}{j}" for j in (1, 2, 3) for kind in ("conv", "norm")]
            for name in names + (["downsample.conv", "downsample.norm"] if i == 0 else []):
                layer = f"stages.{stage}.blocks.{i}.{name}"
                for part in ("weight",) if "conv" in name else ("weight", "bias"):
                    link.same(f"{BACKBONE}{layer}.{part}", f"embed.backbone.{layer}.{part}")


VIT, TIMM = Vit(), Timm()
