"""The settings that tubelet 0.1.0 wrote into model files: a family's name and what differed from it.

The lines of the families are those of 0.1.0, whatever has become of them since.
"""

from dataclasses import dataclass, replace
from typing import Any

from tubelet.nn.config import EmbedConfig, ModelConfig, Stage, WindowStage

Size3 = tuple[int, int, int]

FAMILIES: dict[str, tuple[dict[str, Any], ...]] = {
    "vit": ({"tables": ("hw",)},),
    "vivit1": ({"tables": ("thw",)},),
    "vivit2": ({"tables": ("hw",), "over": "hw"}, {"tables": ("t",), "over": "t"}),
    "vivit3": ({"tables": ("thw",), "attend": "hw,t", "pool": "mean"},),
    "vivit4": ({"tables": ("thw",), "attend": "t|hw", "pool": "mean"},),
    "timesformer": ({"tables": ("hw", "t"), "attend": "t,hw"},),
    "vidtrans": ({"tables": ("hw", "t")},),
    "videomae": ({"tables": ("thw",), "position": "fixed", "pool": "mean", "norm": "pooled"},),
    "vjepa2": ({"position": "rotary-tiled", "pool": "attentive"},),
    "ast": ({"tables": ("hw",), "pool": "cls+dist", "norm": "both"},),
    "swin2": (),
    "meta": ({"position": "sincos", "pool": "mean", "norm": "none"},),
}
TABLES = {"joint": ("thw",), "space+time": ("hw", "t"), "t+h+w": ("t", "h", "w")}
PREFIXES = {"cls": 1, "cls+dist": 2, "cls,dist": 2}


@dataclass(frozen=True, kw_only=True)
class Settings010:
    """What 0.1.0 stored; None is the family's own."""

    family: str
    dim: int
    depth: int | tuple[int, ...]
    heads: int | tuple[int, ...]
    mlp_dim: int
    patch: Size3
    stride: Size3 | None = None
    clip: Size3
    num_classes: int
    channels: int = 3
    embed: str = "tubelet"
    frames: int | None = None
    layers: tuple[int, ...] = ()
    widths: tuple[int, ...] = ()
    pad: str | None = None
    temporal_depth: int = 4
    attend: str | None = None
    window: Size3 | None = None
    position: str | None = None
    keep_aspect: bool = False
    prefix: int | None = None
    pool: str | None = None
    pool_depth: int = 3
    norm: str | None = None
    eps: float = 1e-6
    pool_eps: float = 1e-6
    gelu: str = "erf"
    drop_path: float = 0.0
    dropout: float = 0.0
    checkpointing: bool = False
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)


def upgrade(old: Settings010) -> ModelConfig:
    """The configuration of the same model. How the model was regularised in training is left out.

    Raises:
        ValueError: an unknown family, or settings that it does not have.
    """
    if old.family not in FAMILIES:
        raise ValueError(f"unknown family {old.family!r}: expected one of {', '.join(FAMILIES)}")
    stages = [windows(old)] if old.family == "swin2" else [blocks(old, i) for i in range(len(FAMILIES[old.family]))]
    return ModelConfig(
        family=old.family,
        embed=EmbedConfig(
            kind=old.embed,
            patch=old.patch,
            stride=old.stride or old.patch,
            frames=old.frames,
            pad=old.pad,
            layers=old.layers,
            widths=old.widths,
        ),
        stages=tuple(stages[:1] if old.temporal_depth == 0 else stages),  # without the second, frames are averaged
        clip=old.clip,
        channels=old.channels,
        num_classes=old.num_classes,
        mean=old.mean,
        std=old.std,
    )


def windows(old: Settings010) -> WindowStage:
    others = old.attend, old.position, old.prefix, old.pool
    if others not in ((None,) * 4, (None, None, None, "mean")) or old.keep_aspect or old.norm not in (None, "stages"):
        raise ValueError(f"windows with attend, position, prefix or pool of their own: {others}")
    if isinstance(old.depth, int) or isinstance(old.heads, int) or old.window is None:
        raise ValueError(f"windows without depths, heads and window for each level: {old.depth}, {old.heads}")
    return WindowStage(
        dim=old.dim,
        depths=old.depth,
        heads=old.heads,
        mlp_dim=old.mlp_dim,
        window=old.window,
        level_norms=old.norm == "stages",
        eps=old.eps,
    )


def blocks(old: Settings010, number: int) -> Stage:
    if not isinstance(old.depth, int) or not isinstance(old.heads, int) or old.window is not None:
        raise ValueError(f"{old.family} has one depth, one number of heads and no window, got {old.depth}, {old.heads}")
    stage = Stage(
        dim=old.dim,
        depth=old.temporal_depth if number else old.depth,
        heads=old.heads,
        mlp_dim=old.mlp_dim,
        keep_aspect=old.keep_aspect,
        pool_depth=old.pool_depth,
        eps=old.eps,
        pool_eps=old.pool_eps,
        gelu=old.gelu,
        **FAMILIES[old.family][number],
    )
    stage = replace(stage, pool=old.pool or stage.pool, norm=old.norm or stage.norm)
    stage = replace(stage, prefix=PREFIXES.get(stage.pool, 0) if old.prefix is None else old.prefix)
    if old.attend is not None and number == 0:
        stage = replace(stage, attend=old.attend)
    if old.position is None:
        return stage
    if old.position not in TABLES:
        return replace(stage, position=old.position, tables=stage.tables if old.position == "fixed" else ())
    shares = ("".join(axis for axis in axes if axis in stage.over) for axes in TABLES[old.position])
    return replace(stage, position="learned", tables=tuple(dict.fromkeys(share for share in shares if share)))
