"""Models by name."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from tubelet.nn.build import EMBEDS
from tubelet.nn.config import EmbedConfig, ModelConfig, Stage, WindowStage
from tubelet.nn.families import FAMILIES, Size
from tubelet.nn.grid import Grid, Size3, triple
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.nn.pool import count_prefix
from tubelet.nn.position import KINDS
from tubelet.nn.resnet import RESNETS

# Learned tables by the axes they vary along; a stage takes its share of them.
TABLES = {"joint": ("thw",), "space+time": ("hw", "t"), "t+h+w": ("t", "h", "w")}
# Tokenisers by name, each as fields of EmbedConfig; a ResNet goes by the name of its layers.
TOKENISERS: dict[str, dict[str, Any]] = {
    **{kind: {"kind": kind} for kind in EMBEDS if kind != "resnet"},
    **{name: {"kind": "resnet", "layers": layers, "widths": widths} for name, (layers, widths) in RESNETS.items()},
}


def list_models(pattern: str = "*") -> list[str]:
    """All family-size names, or those that a pattern such as "vivit*" fits; add /patch or /patchxtubelet to make one:
    "vivit2-B" -> "vivit2-B/16x2"."""
    names = [f"{name}-{size}" for name, family in FAMILIES.items() for size in family.sizes]
    return [name for name in names if fnmatchcase(name, pattern)]


def create_model(
    name: str,
    *,
    clip: Sequence[int] | None = None,
    num_classes: int = 400,
    channels: int = 3,
    embed: str | None = None,
    attend: str | None = None,
    position: str | None = None,
    pool: str | None = None,
    mean: Sequence[float] = (0.5,),
    std: Sequence[float] = (0.5,),
) -> SpaceTimeTransformer:
    """A model by name, `family-size/patch[xtubelet]`, with fresh weights.

    >>> model = create_model("vivit2-B/16x2", clip=(32, 224, 224), num_classes=400)

    The settings are those of `model_config`; all others are changed in the data:

    >>> config = model_config("vivit1-B/16", clip=(32, 224, 224)).with_embed(frames=8).with_stage(0, prefix=5)
    >>> model = SpaceTimeTransformer(config)

    Raises:
        ValueError: unknown name (with the nearest ones), or sizes that do not fit together.
    """
    given = {"clip": clip, "num_classes": num_classes, "channels": channels, "mean": mean, "std": std}
    instead = {"embed": embed, "attend": attend, "position": position, "pool": pool}
    return SpaceTimeTransformer(model_config(name, **given, **instead))  # type: ignore[arg-type]  # as above


def model_config(
    name: str,
    *,
    clip: Sequence[int] | None = None,
    num_classes: int = 400,
    channels: int = 3,
    embed: str | None = None,
    attend: str | None = None,
    position: str | None = None,
    pool: str | None = None,
    mean: Sequence[float] = (0.5,),
    std: Sequence[float] = (0.5,),
) -> ModelConfig:
    """The line of a model by name; no model is made.

    Args:
        name: family and size as in `list_models()`, patch side in px, tubelet length in frames (1 if left out).
        clip: the (T, H, W) that position tables are made for; (16, 224, 224) or, for images, (1, 224, 224); of
            VideoPrism (16, 288, 288).
        num_classes: 0 for a model without head, which gives its features.
        channels: of a clip.
        embed: tokeniser, the family's if left out: one of `tubelet.nn.create.TOKENISERS`.
        attend, pool: instead of the family's, e.g. attend="t,hw", pool="mean".
        position: instead of the family's: learned tables "joint", "space+time" or "t+h+w"; "fixed"; or made for each
            size anew: "sincos", "rotary".
        mean, std: for uint8 clips, per channel, of pixels in [0, 1].

    Raises:
        ValueError: unknown name (with the nearest ones), tokeniser or position, or a clip or settings that the family
            lacks.
    """
    family, numbers, patch = parse(name)
    line = FAMILIES[family]
    made_for = triple((1 if line.image or line.still else 16, line.side, line.side) if clip is None else clip, "clip")
    if line.image and made_for[0] > patch[0]:
        raise ValueError(f"{name!r} sees one frame, got clip={made_for}: use clip=(1, H, W), or a model for video")
    config = family_config(family, numbers, patch=patch, clip=made_for, num_classes=num_classes, channels=channels)
    embed = embed or line.embed
    if embed not in TOKENISERS:
        raise ValueError(f"unknown tokeniser {embed!r}: expected one of {', '.join(TOKENISERS)}")
    stages = [override(stage, position, pool) for stage in config.stages]
    config = replace(config.with_embed(**TOKENISERS[embed]), stages=tuple(stages), mean=tuple(mean), std=tuple(std))
    return config if attend is None else config.with_stage(0, attend=attend)


def family_config(
    family: str,
    numbers: Size,
    *,
    patch: Size3,
    stride: Size3 | None = None,
    clip: Size3,
    num_classes: int,
    channels: int,
) -> ModelConfig:
    """The line of a family for any numbers (width, depth, heads); no name need stand for them."""
    line = FAMILIES[family]
    grid = Grid(*(max(1, size // p) for size, p in zip(clip, patch, strict=True)))
    if stride is None:
        stride = (patch[0], max(1, patch[1] * line.eighths // 8), max(1, patch[2] * line.eighths // 8))
    embed, stages = EmbedConfig(kind=line.embed, patch=patch, stride=stride), line.stages(numbers, grid)
    return ModelConfig(family=family, embed=embed, stages=stages, clip=clip, num_classes=num_classes, channels=channels)


def override(stage: Stage | WindowStage, position: str | None, pool: str | None) -> Stage | WindowStage:
    """A stage with the position and the pooling that are asked for in place of its own."""
    changes: dict[str, Any] = {}
    if stage.kind == "windows":
        if position is not None or pool not in (None, "mean"):
            raise ValueError(
                f"windows make their own positions and are pooled by their mean, got position={position!r}, "
                f"pool={pool!r}: leave these out"
            )
        return stage
    if pool is not None:
        changes |= {"pool": pool, "prefix": count_prefix(pool)}
    if position in TABLES:
        shares = ("".join(axis for axis in axes if axis in stage.over) for axes in TABLES[position])
        changes |= {"position": "learned", "tables": tuple(dict.fromkeys(share for share in shares if share))}
    elif position in KINDS[1:]:
        changes |= {"position": position, "tables": stage.tables if position == "fixed" else ()}
    elif position is not None:
        raise ValueError(f"unknown position {position!r}: expected one of {', '.join((*TABLES, *KINDS[1:]))}")
    return replace(stage, **changes)


def parse(name: str) -> tuple[str, Size, Size3]:
    """Family, its numbers and the patch (frames, px, px) that a name says."""
    match = re.fullmatch(r"([a-z0-9]+)-([A-Za-z0-9]+\+?)/(\d+)(?:x(\d+))?", name)
    if not match or match[1] not in FAMILIES or match[2] not in FAMILIES[match[1]].sizes:
        near = difflib.get_close_matches(name.split("/")[0], list_models(), n=3, cutoff=0.4)
        patch = name.split("/")[1] if "/" in name else "16x2"
        raise ValueError(
            f"unknown model {name!r}: expected family-size/patch[xtubelet], such as "
            + ", ".join(f"{candidate}/{patch}" for candidate in near or ["vivit2-B"])
        )
    side, length = int(match[3]), int(match[4] or 1)
    if side < 1 or length < 1:
        raise ValueError(f"model {name!r} has a patch of size 0: give at least 1")
    return match[1], FAMILIES[match[1]].sizes[match[2]], (length, side, side)


def format_name(config: ModelConfig) -> str:
    """The inverse of `parse`: family-size/patch where there is such a name, else the numbers."""
    t, h, w = config.embed.patch
    patch = (f"{h}x{w}" if h != w else f"{h}") + (f"x{t}" if t > 1 else "")
    first = config.stages[0]
    dim, depth, heads = first.size
    known = FAMILIES[config.family].sizes if config.family in FAMILIES else {}
    special = {key for values in known.values() for own in values[3:] for key in own} - {"qkv_bias"}  # or zeros
    for size, values in known.items():
        made = FAMILIES[config.family].stages(values, Grid(1, 1, 1))[0]
        if made.size == first.size and all(getattr(made, key) == getattr(first, key) for key in special):
            return f"{config.family}-{size}/{patch}"
    return f"{config.family}/{patch} of width {dim}, {depth} layers, {heads} heads"
