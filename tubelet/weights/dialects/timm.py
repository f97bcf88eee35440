"""Weights of timm's ViT: also DeiT, DINOv2 and registers, and the hybrids on a ResNet."""

from dataclasses import replace

import torch

from tubelet.nn.config import ModelConfig
from tubelet.nn.pool import prefix_for
from tubelet.weights.dialects.rename import Link, Theirs, Told
from tubelet.weights.dialects.vit import (
    ENCODER,
    PREFIX,
    TABLE,
    Names,
    block,
    blocks_of,
    first_stage,
    grid_for,
    require,
    vit_config,
)

NAMES = Names("norm1", ("attn.qkv",), "attn.proj", "norm2", "mlp.fc1", "mlp.fc2", ("ls1.gamma", "ls2.gamma"))
TOKENS = ("cls_token", "dist_token", "reg_token")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BACKBONE = "patch_embed.backbone."


def config(theirs: Theirs, told: Told) -> ModelConfig:
    told.agree(family="vit", attend="thw", frames=None, window=None)
    found = vit_config(
        theirs,
        told,
        "vit",
        kernel="patch_embed.proj.weight",
        flat=True,
        layers="blocks.{}.",
        hidden="blocks.0.mlp.fc1.bias",
        head="head",
    )
    found = hybrid(theirs, found) if theirs.root(BACKBONE) else found
    after_pooling = bool(theirs.root("fc_norm."))
    # without heads a distilled DeiT gives the mean of both tokens
    by_token = "cls" if "dist_token" not in theirs else "cls,dist" if found.num_classes else "cls+dist"
    found = found.with_stage(
        0,
        pool=by_token if "cls_token" in theirs and not after_pooling else "mean",
        prefix=sum(theirs.shape(name, 3)[1] for name in TOKENS if name in theirs),
        norm="pooled" if after_pooling else "tokens",
    )
    return replace(found, mean=IMAGENET_MEAN, std=IMAGENET_STD) if found.channels == 3 else found


def hybrid(theirs: Theirs, found: ModelConfig) -> ModelConfig:
    """With the ResNet before the patch embedding; `found` counts its patch in cells of the ResNet's map."""
    stages = theirs.count(BACKBONE + "stages.{}.")
    step = 4 * 2 ** max(stages - 1, 0)
    stem, channels = theirs.shape(f"{BACKBONE}{'stem.' if stages else ''}conv.weight", 4)[:2]
    last = [theirs.shape(f"{BACKBONE}stages.{i}.blocks.0.conv3.weight", 4)[0] for i in range(stages)]
    patch = (1, step * found.embed.patch[1], step * found.embed.patch[2])
    layers = tuple(theirs.count(f"{BACKBONE}stages.{i}.blocks." + "{}.") for i in range(stages))
    stride = patch if found.embed.stride == found.embed.patch else found.embed.stride
    found = found.with_embed(kind="resnet", patch=patch, stride=stride, layers=layers, widths=(stem, *last))
    return replace(found, channels=channels)


def says(config: ModelConfig) -> None:
    stage = first_stage(config)
    require(
        config,
        "timm",
        family=("vit",),
        embed=("tubelet", "resnet"),
        patch=((1, *config.embed.patch[1:]),),
        pool=("cls", "cls,dist" if config.num_classes else "cls+dist", "mean"),
        norm=("tokens", "pooled") if stage.pool == "mean" else ("tokens",),
        pool_eps=(1e-6,) if stage.norm == "pooled" else (stage.pool_eps,),
        tables=(("hw",),),
    )


def tie(link: Link, config: ModelConfig) -> None:
    if config.embed.kind == "resnet":
        resnet(link, config.embed.layers)
    link.kernel("patch_embed.proj", "embed.proj", flat=True)
    positions(link, config)
    for i in blocks_of(config):
        block(link, NAMES, f"blocks.{i}.", f"{ENCODER}.blocks.{i}")
    stage = first_stage(config)
    if stage.norm == "pooled":
        link.linear("fc_norm", f"{ENCODER}.pool.norm")
    else:
        link.linear("norm", f"{ENCODER}.norm")
    if config.num_classes and stage.pool == "cls,dist":
        two_heads(link)
    elif config.num_classes:
        link.linear("head", "head")


def positions(link: Link, config: ModelConfig) -> None:
    """timm has position rows for all prefix tokens or, as for all its models with registers, for none."""
    grid, tokens = grid_for(config), tokens_of(link, config)
    if link.has("pos_embed"):
        with_rows = link.source["pos_embed"].shape[1:2] != (grid.size,)
    else:
        with_rows = "reg_token" not in dict(tokens)
    if tokens and with_rows:
        return link.positions(tokens, "pos_embed", PREFIX, TABLE, grid)
    link.position("pos_embed", TABLE, grid)
    return link.joined(tokens, PREFIX) if tokens else None


def tokens_of(link: Link, config: ModelConfig) -> list[tuple[str, int]]:
    """Names and numbers of the prefix tokens. Written, those that pooling does not use are registers, but for a single
    one, which is a class token, as in AudioMAE."""
    needed, count = prefix_for(first_stage(config).pool), first_stage(config).prefix
    if link.reading:
        first = [name for name in TOKENS[:2] if link.has(name)]
    else:
        first = list(TOKENS[: 1 if (needed, count) == (0, 1) else needed])
    registers = count - len(first)
    return [(name, 1) for name in first] + ([(TOKENS[2], registers)] if registers else [])


def two_heads(link: Link) -> None:
    """DeiT averages the answers of a head on each token; ours is one head on both tokens side by side."""
    theirs = [f"{head}.{part}" for part in ("weight", "bias") for head in ("head", "head_dist")]
    link.tie(
        theirs,
        ["head.weight", "head.bias"],
        lambda a, b, bias_a, bias_b: [torch.cat([a, b], 1) / 2, (bias_a + bias_b) / 2],
        lambda weight, bias: [*(2 * weight).chunk(2, 1), bias, bias],
        "taken, the mean of both heads",
    )


def resnet(link: Link, layers: tuple[int, ...]) -> None:
    for name in ("conv.weight", "norm.weight", "norm.bias"):
        link.same(f"{BACKBONE}{'stem.' if layers else ''}{name}", f"embed.backbone.stem.{name}")
    for stage, depth in enumerate(layers):
        for i in range(depth):
            names = [f"{kind}{j}" for j in (1, 2, 3) for kind in ("conv", "norm")]
            for name in names + (["downsample.conv", "downsample.norm"] if i == 0 else []):
                layer = f"stages.{stage}.blocks.{i}.{name}"
                for part in ("weight",) if "conv" in name else ("weight", "bias"):
                    link.same(f"{BACKBONE}{layer}.{part}", f"embed.backbone.{layer}.{part}")
