"""Weights of timm's ViT: also DeiT, DINOv2 and registers, and the hybrids on a ResNet."""

import re
from dataclasses import replace

import torch

from tubelet.nn.config import ModelConfig
from tubelet.nn.pool import prefix_for
from tubelet.system.text import is_count
from tubelet.weights.dialects import timm_swin
from tubelet.weights.dialects.dialect import Dialect
from tubelet.weights.dialects.rename import ForeignState, Link
from tubelet.weights.dialects.settings import (
    Given,
    Json,
    Settings,
    count,
    join,
    labels,
    number,
    numbers,
    pair,
    section,
)
from tubelet.weights.dialects.vit import (
    ENCODER,
    IMAGENET_MEAN,
    IMAGENET_STD,
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
BACKBONE = "patch_embed.backbone."

# Heads of timm's plain and hybrid ViTs, and of the first of four stages of its swinv2_cr, by the size in their names.
VIT_HEADS = {"tiny": 3, "small": 6, "base": 12, "large": 16, "huge": 16, "giant": 16, "gigantic": 16}
HEADS_OF_SOME = {r"vit_base_patch16_gap_": 16, r"vit_base_patch\d+_plus_": 14, r"vit_giant_.*(dinov2|tipsv2|radio)": 24}
SWIN_HEADS = {"tiny": 3, "small": 3, "base": 4, "large": 6, "giant": 16}
SWIN_WINDOW_RATIO = 8  # the grid is so many windows high and wide
OTHER_GELU = r"so400m|giantopt|quickgelu|patch32_siglip|large_patch16_siglip.*_512"


def config(theirs: ForeignState, given: Given) -> ModelConfig:
    given.agree(family="vit", attend="thw", frames=None, window=None)
    found = vit_config(
        theirs,
        given,
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


def hybrid(theirs: ForeignState, found: ModelConfig) -> ModelConfig:
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


def check_supported(config: ModelConfig) -> None:
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


def map_tensors(link: Link, config: ModelConfig) -> None:
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


# ---- config.json


def read_settings(config: Json, preprocessor: Json) -> Settings:
    """What timm's config.json says; timm writes no other. Raises ValueError for a model that ours are not."""
    args, settings = section(config, "model_args"), section(config, "pretrained_cfg") or config
    architecture = str(config.get("architecture") or settings.get("architecture"))
    if re.search(OTHER_GELU, architecture):
        raise ValueError(f"config.json: {architecture} has another GELU than timm's other ViTs, which tubelet lacks")
    size = settings.get("input_size")
    side = pair({"input_size": size[1:]} if isinstance(size, list) else {}, "input_size")
    clip = join(1, *(pair(args, "img_size") if "img_size" in args else side))
    per_window = SWIN_WINDOW_RATIO * (count(args, "patch_size") or 4)
    with_windows = clip is not None and architecture.startswith("swinv2_cr")
    return Settings(
        heads=heads_of_timm(architecture, args),
        clip=clip,
        window=(1, clip[1] // per_window, clip[2] // per_window) if clip and with_windows else None,
        classes=labels(config.get("label_names") or settings.get("label_names")),
        mean=numbers(settings, "mean"),
        std=numbers(settings, "std"),
        crop_share=number(settings, "crop_pct"),
    )


def heads_of_timm(architecture: str, args: Json) -> int | tuple[int, ...] | None:
    """By the arguments of a model, else by the name of its architecture."""
    if isinstance(heads := args.get("num_heads"), list) and all(map(is_count, heads)):
        return tuple(heads)
    if heads is not None:
        return count(args, "num_heads")
    if found := re.match(r"swinv2_cr_([a-z]+)", architecture):
        first = SWIN_HEADS.get(found[1])
        return first and tuple(first * 2**stage for stage in range(4))
    if exception := next((found for name, found in HEADS_OF_SOME.items() if re.match(name, architecture)), None):
        return exception
    found = re.match(r"(?:vit|deit3?)_([a-z]+)_(?:distilled_)?(?:patch\d+|r\d*)_", architecture)
    return VIT_HEADS.get(found[1]) if found else None


# ---- ViT or Swin


def any_config(theirs: ForeignState, given: Given) -> ModelConfig:
    return (timm_swin.config if theirs.root("stages.") else config)(theirs, given)


def check_any(config: ModelConfig) -> None:
    (timm_swin.check_supported if config.family == "swin2" else check_supported)(config)


def map_any(link: Link, config: ModelConfig) -> None:
    (timm_swin.map_tensors if config.family == "swin2" else map_tensors)(link, config)


TIMM = Dialect(
    name="timm",
    fingerprint=("patch_embed.proj.weight",),
    config=any_config,
    check_supported=check_any,
    mapping=map_any,
    read_settings=read_settings,
    kind="image",
)
