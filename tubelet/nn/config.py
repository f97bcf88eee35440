"""Every model as a line of data: families, sizes, and the settings that a checkpoint carries."""

import math
from dataclasses import MISSING, asdict, dataclass, fields, replace
from types import UnionType
from typing import Any, get_args

from tubelet.nn.encoder import Stage

# Width, depth, heads. Ti to L: arXiv 2106.04560, table 2; P and N (pico, nano) are ours, for laptops and small data.
SIZES = {
    "P": (96, 4, 3),
    "N": (128, 4, 4),
    "Ti": (192, 12, 3),
    "S": (384, 12, 6),
    "B": (768, 12, 12),
    "L": (1024, 24, 16),
}
# The same for each stage of a Swin transformer: arXiv 2111.09883, section 3.4; P is ours.
SWIN_SIZES = {
    "P": (48, (1, 1, 2, 1), (2, 4, 8, 16)),
    "Ti": (96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "S": (96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "B": (128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "L": (192, (2, 2, 18, 2), (6, 12, 24, 48)),
}

FAMILIES = {
    # ViT, arXiv 2010.11929: images and spectrograms
    "vit": (Stage(tables=("hw",)),),
    # ViViT, arXiv 2103.15691: joint; factorised encoder; factorised self-attention; factorised dot-product
    "vivit1": (Stage(tables=("thw",)),),
    "vivit2": (Stage(tables=("hw",), over="hw"), Stage(tables=("t",), temporal=True)),
    "vivit3": (Stage(tables=("thw",), attend="hw,t", pool="mean"),),
    "vivit4": (Stage(tables=("thw",), attend="t|hw", pool="mean"),),
    # TimeSformer, arXiv 2102.05095: divided attention
    "timesformer": (Stage(tables=("hw", "t"), attend="t,hw"),),
    # joint attention, space + time positions; also TimeSformer's joint variant
    "vidtrans": (Stage(tables=("hw", "t")),),
    # VideoMAE, arXiv 2203.12602
    "videomae": (Stage(tables=("thw",), position="fixed", pool="mean", norm="pooled"),),
    # V-JEPA 2, arXiv 2506.09985
    "vjepa2": (Stage(position="rotary-tiled", pool="attentive"),),
    # AST, arXiv 2104.01778: spectrograms in overlapping patches
    "ast": (Stage(tables=("hw",), pool="cls+dist", norm="both"),),
    # Swin v2, arXiv 2111.09883, in the form of timm's swinv2_cr; in space-time windows on video
    "swin2": (Stage(attend="windows", pool="mean", norm="none"),),
    # Meta-Transformer, arXiv 2307.10802: one encoder for tokens of every kind, so positions are made for each grid
    "meta": (Stage(position="sincos", pool="mean", norm="none"),),
}
IMAGE_FAMILIES = ("vit", "ast")  # clips of one tubelet in time

# Position tables by the axes they vary along; a stage takes its share of them.
TABLES = {"joint": ("thw",), "space+time": ("hw", "t"), "t+h+w": ("t", "h", "w")}
OTHER_POSITIONS = ("fixed", "sincos", "rotary", "rotary-tiled")

# What no model comes near: a file with more is damaged, or made to cost memory and time.
MOST = 2**20
MOST_PARTS = 64  # of a list, letters of a word
MOST_LAYERS = 256
MOST_PIXELS = 2**30  # of a clip


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """All that a model is made from; stored in its checkpoint. Sizes are (frames, px, px).

    What is None is the family's own. Swin has one depth and one number of heads for each stage.
    """

    family: str
    dim: int
    depth: int | tuple[int, ...]
    heads: int | tuple[int, ...]
    mlp_dim: int
    patch: tuple[int, int, int]
    stride: tuple[int, int, int] | None = None
    clip: tuple[int, int, int]  # the (T, H, W) its position tables and windows are made for
    num_classes: int  # 0: no head, the model gives its features
    channels: int = 3
    embed: str = "tubelet"
    frames: int | None = None  # uniform frame sampling
    layers: tuple[int, ...] = ()  # embed="resnet": blocks of each stage
    widths: tuple[int, ...] = ()  # embed="resnet": channels of the stem and of each stage
    pad: str | None = None  # "mean" fills up what whole tubelets do not cover
    temporal_depth: int = 4
    attend: str | None = None
    window: tuple[int, int, int] | None = None  # Swin: in tokens, at the grid of `clip`
    position: str | None = None
    keep_aspect: bool = False
    prefix: int | None = None
    pool: str | None = None
    pool_depth: int = 3  # attentive pooling: blocks before the query
    norm: str | None = None
    eps: float = 1e-6
    pool_eps: float = 1e-6  # of a norm after pooling
    gelu: str = "erf"
    drop_path: float = 0.0
    dropout: float = 0.0
    checkpointing: bool = False
    mean: tuple[float, ...] = (0.5,)  # one for all channels, or one for each; for uint8 clips
    std: tuple[float, ...] = (0.5,)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "ModelConfig":
        """Raises ValueError for a key that is unknown, or missing and without a default, and for a value that is of the
        wrong kind or larger than in any model: it may come from anywhere."""
        if not isinstance(values, dict):
            raise ValueError(f"model settings that are a {type(values).__name__}, expected an object")
        known = {field.name for field in fields(cls)}
        needed = {field.name for field in fields(cls) if field.default is MISSING}
        if wrong := sorted(set(values) - known | needed - set(values)):
            raise ValueError(
                f"model settings that are unknown or missing: {', '.join(wrong)}: made by another version?"
            )
        settings: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        for field in fields(cls):
            if not fits(settings.get(field.name, field.default), field.type) and field.name in settings:
                kind = field.type.__name__ if field.type in (int, float, str, bool) else field.type
                shown = str(values[field.name])[:80]
                raise ValueError(f"model settings with {field.name} = {shown}, expected {kind}, at most {MOST}")
        config = cls(**settings)
        check_sizes(config)
        return config


def fits(value: object, kind: Any) -> bool:
    """Whether a value is of the kind that a field is declared as, and of a size that is met in models."""
    if isinstance(kind, UnionType):
        return any(fits(value, one) for one in get_args(kind))
    if kind is int:
        return type(value) is int and 0 <= value <= MOST
    if kind is float:
        return type(value) in (int, float) and abs(value) <= MOST  # type: ignore[arg-type]  # false for NaN too
    if not get_args(kind):  # str, bool, None
        return type(value) is kind and len(str(value)) <= MOST_PARTS
    parts = get_args(kind)
    if not isinstance(value, tuple) or len(value) > MOST_PARTS:
        return False
    if parts[-1] is Ellipsis:
        parts = parts[:1] * len(value)
    return len(value) == len(parts) and all(map(fits, value, parts))


def check_sizes(config: ModelConfig) -> None:
    """Raises ValueError for sizes that no model has."""
    depth = config.depth if isinstance(config.depth, int) else sum(config.depth)
    layers = max(depth, config.temporal_depth, config.pool_depth, sum(config.layers))
    if layers > MOST_LAYERS or math.prod(config.clip) > MOST_PIXELS:
        raise ValueError(
            f"model settings with {layers} layers and a clip of {config.clip}, expected at most {MOST_LAYERS} layers "
            f"and {MOST_PIXELS} pixels"
        )
    if min(config.dim, config.mlp_dim, config.channels) < 1 or min(config.eps, config.pool_eps) < 0:
        raise ValueError("model settings with a width or channels below 1, or an eps below 0")


def stages_of(config: ModelConfig) -> list[Stage]:
    """The stages of the family, with the overrides of the configuration; a temporal depth of 0 averages frames."""
    if config.family not in FAMILIES:
        raise ValueError(f"unknown family {config.family!r}: expected one of {', '.join(FAMILIES)}")
    stages = [stage for stage in FAMILIES[config.family] if not (stage.temporal and config.temporal_depth == 0)]
    if config.attend is not None:
        stages[0] = replace(stages[0], attend=config.attend)
    return [overridden(stage, config) for stage in stages]


def overridden(stage: Stage, config: ModelConfig) -> Stage:
    stage = replace(
        stage,
        pool=config.pool or stage.pool,
        norm=config.norm or stage.norm,
        prefix=stage.prefix if config.prefix is None else config.prefix,
        keep_aspect=config.keep_aspect,
    )
    wanted = config.position
    if wanted is None:
        return stage
    if wanted in TABLES:
        spanned = "t" if stage.temporal else stage.over
        shares = ("".join(axis for axis in axes if axis in spanned) for axes in TABLES[wanted])
        return replace(stage, position="learned", tables=tuple(dict.fromkeys(share for share in shares if share)))
    if wanted not in OTHER_POSITIONS:
        raise ValueError(f"unknown position {wanted!r}: expected one of {', '.join((*TABLES, *OTHER_POSITIONS))}")
    return replace(stage, position=wanted, tables=stage.tables if wanted == "fixed" else ())
