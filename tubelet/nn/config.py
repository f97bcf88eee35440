"""A model as a line of data: all that it is made from, and what a checkpoint stores. How it is trained is no part."""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from tubelet.nn.grid import Size3


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """A tokeniser. Sizes are (frames, px, px)."""

    kind: str = "tubelet"  # a name in `tubelet.nn.build.EMBEDS`
    patch: Size3  # what a token sees
    stride: Size3  # from one token to the next
    frames: int | None = None  # uniform frame sampling: frames of a clip that are embedded; None: all
    pad: str | None = None  # "mean" fills clips that whole tubelets do not, with the mean colour; None: an error
    layers: tuple[int, ...] = ()  # of a ResNet: blocks of each stage
    widths: tuple[int, ...] = ()  # of a ResNet: channels of the stem and of each stage


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One encoder of transformer blocks."""

    kind: Literal["blocks"] = "blocks"
    dim: int  # channels of a token
    depth: int  # blocks
    heads: int  # of each attention
    mlp_dim: int  # hidden channels of each MLP
    takes: int | None = None  # channels of the tokens that it is given, where they are not `dim`
    gives: int | None = None  # channels that a last linear layer makes of what it pools
    unit: bool = False  # what it gives is brought to length 1
    head_dim: int | None = None  # channels of a head, where they are not `dim` / `heads`
    attend: str = "thw"  # steps of a block, each by the axes that it spans: "thw", "hw,t", "t|hw" (see `Block`)
    over: str = "thw"  # axes that one sequence spans; the others join the batch
    tables: tuple[str, ...] = ()  # position tables, each by the axes along which it varies
    position: str = "learned"  # or "fixed" tables; or made for each grid: "sincos", or a name in `position.ROTARIES`
    keep_aspect: bool = False  # tables are resampled by the same factor along height and width
    resampling: str = "bicubic"  # of tables, a name in `position.RESAMPLINGS`
    prefix: int = 1  # tokens before those of the grid: class token, registers
    pool: str = "cls"  # how a sequence becomes one token, a name in `pool.KINDS`; "none": it does not
    pool_depth: int = 3  # blocks of attentive pooling before its query
    pool_heads: int | None = None  # of the attention of pooling, where they are not `heads`
    pool_dim: int | None = None  # channels of that attention, where they are not `dim`
    pool_mlp_dim: int | None = None  # hidden channels of the MLP of pooling, where they are not 4 `dim`
    norm_kind: str = "layer"  # of all norms, or "rms"
    norm: str = "tokens"  # the last norm: of all tokens, of the "pooled" one, "both" or "none"
    norm_first: bool = False  # a norm before the first block too
    levels: tuple[int, ...] = ()  # blocks whose tokens are an answer too, each but the last with a norm of its own
    eps: float = 1e-6  # of the norms
    pool_eps: float = 1e-6  # of a norm after pooling
    qkv_bias: bool = True  # of queries, keys and values
    bias: bool = True  # of the other linear layers of its blocks
    qk_norm: bool = False  # a norm of queries and of keys, in each head
    conv: bool = False  # two convolutions along the sequence, before the first block
    cap: float = 0.0  # what scores of attention come near but never reach: cap * tanh(score / cap); 0: they may
    mlp: str = "plain"  # or "gated"
    gelu: str = "erf"  # exact, or "tanh", the approximation of JAX

    @property
    def size(self) -> tuple[int, int, int]:
        return self.dim, self.depth, self.heads

    @property
    def in_dim(self) -> int:
        """Channels of the tokens that it is given."""
        return self.takes or self.dim


LATER = {
    field.name: field.default
    for field in fields(Stage)
    if field.name
    in (
        *("takes", "gives", "unit", "head_dim", "resampling", "pool_heads", "pool_dim", "pool_mlp_dim", "norm_kind"),
        *("norm_first", "levels", "qkv_bias", "bias", "qk_norm", "conv", "cap", "mlp"),
    )
}


@dataclass(frozen=True, kw_only=True)
class WindowStage:
    """One encoder of Swin blocks, in levels of falling resolution; each halves h and w and doubles the channels."""

    kind: Literal["windows"] = "windows"
    dim: int  # channels of a token in the first level
    depths: tuple[int, ...]  # blocks of each level
    heads: tuple[int, ...]  # of each attention, for each level
    mlp_dim: int  # hidden channels of each MLP in the first level
    window: Size3  # in tokens, at the grid of the model's `clip`
    level_norms: bool = False  # a norm after every level, not after the last alone
    eps: float = 1e-5  # of the norms

    @property
    def size(self) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
        return self.dim, self.depths, self.heads

    @property
    def in_dim(self) -> int:
        """Channels of the tokens that it is given."""
        return self.dim


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The settings that a model is made from."""

    family: str  # what the model is called; decides nothing about it
    embed: EmbedConfig
    stages: tuple[Stage | WindowStage, ...]  # the encoders, in the order in which they run
    clip: Size3  # frames, height and width in px that position tables and windows are made for
    channels: int = 3  # of a clip
    num_classes: int  # 0: no head, the model gives its features
    mean: tuple[float, ...] = (0.5,)  # of pixels in [0, 1], for uint8 clips; one for all channels, or one for each
    std: tuple[float, ...] = (0.5,)

    def with_embed(self, **changes: Any) -> "ModelConfig":
        """A copy with other fields of its tokeniser: `config.with_embed(frames=8)`."""
        return replace(self, embed=replace(self.embed, **changes))

    def with_stage(self, number: int, **changes: Any) -> "ModelConfig":
        """A copy with other fields of one of its stages: `config.with_stage(0, prefix=5, keep_aspect=True)`."""
        stages = list(self.stages)
        stages[number] = replace(stages[number], **changes)
        return replace(self, stages=tuple(stages))

    def with_stages(self, **changes: Any) -> "ModelConfig":
        """A copy with other fields of all its stages: `config.with_stages(gelu="tanh")`."""
        return replace(self, stages=tuple(replace(stage, **changes) for stage in self.stages))

    def to_json(self) -> dict[str, Any]:
        """The JSON that a checkpoint stores; `tubelet.weights.settings.read_config` reads it."""
        return asdict(self)

    def encoder_settings(self) -> dict[str, Any]:
        """The settings that the output of the first encoder depends on, beside its weights, as JSON."""
        first = self.stages[0]
        seen = {name: value for name, value in self.to_json().items() if name in ("embed", "channels", "mean", "std")}
        # the ratio of window to grid is that at `clip`; tables carry their grid in their shape
        bound = first.kind == "windows" or first.position == "rotary-scaled"
        return {**seen, "stage": settings_of(first), "clip": self.clip if bound else None}


def settings_of(stage: Stage | WindowStage) -> dict[str, Any]:
    """As JSON, without what came after 0.1.0 and is as it was then: features that were kept stay good."""
    return {name: value for name, value in asdict(stage).items() if LATER.get(name, ...) != value}


def find_differences(found: Any, wanted: Any, name: str = "") -> list[str]:
    """The differences of two settings, as JSON: ["depth 3, not 2"]."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        return [line for key in found for line in find_differences(found[key], wanted.get(key), key)]
    if name == "stages" and len(found) == len(wanted):
        return [line for pair in zip(found, wanted, strict=True) for line in find_differences(*pair)]
    if name == "stages":
        found, wanted = len(found), len(wanted)
    return [] if found == wanted else [f"{name} {found}, not {wanted}"]
