"""A model as a line of data: all that it is made from, and what a checkpoint stores. How it is trained is no part."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from tubelet.nn.grid import Size3


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """A tokeniser. Sizes are (frames, px, px).

    kind: "tubelet", "space-time", "depthwise", "conv" or "resnet"
    patch: what a token sees
    stride: from one token to the next
    frames: uniform frame sampling: frames that are embedded of a clip; None: all
    pad: "mean" fills clips that whole tubelets do not fill, with the mean colour; None: they are an error
    layers: blocks of each stage of a ResNet
    widths: channels of the stem and of each stage of a ResNet
    """

    kind: str = "tubelet"
    patch: Size3
    stride: Size3
    frames: int | None = None
    pad: str | None = None
    layers: tuple[int, ...] = ()
    widths: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One encoder of transformer blocks.

    dim: channels of a token
    depth: blocks
    heads: of each attention
    mlp_dim: hidden channels of each MLP
    attend: steps of a block, each by the axes that it spans: "thw", "hw,t", "t|hw" (see `Block`)
    over: axes that one sequence spans; the others join the batch
    tables: position tables, each by the axes along which it varies
    position: "learned" or "fixed" tables; or made for each grid: "sincos", "rotary", "rotary-tiled"
    keep_aspect: tables are resampled by the same factor along height and width
    prefix: tokens before those of the grid: class token, registers
    pool: how the tokens of a sequence become one: "cls", "mean", "cls+dist", "cls,dist" (see `Pool`) or "attentive"
    pool_depth: blocks of attentive pooling before its query
    norm: the last norm, of all "tokens", of the "pooled" one, "both" or "none"
    eps: of the norms
    pool_eps: of a norm after pooling
    gelu: "erf" (exact) or "tanh" (the approximation of JAX)
    """

    kind: Literal["blocks"] = "blocks"
    dim: int
    depth: int
    heads: int
    mlp_dim: int
    attend: str = "thw"
    over: str = "thw"
    tables: tuple[str, ...] = ()
    position: str = "learned"
    keep_aspect: bool = False
    prefix: int = 1
    pool: str = "cls"
    pool_depth: int = 3
    norm: str = "tokens"
    eps: float = 1e-6
    pool_eps: float = 1e-6
    gelu: str = "erf"

    @property
    def size(self) -> tuple[int, int, int]:
        return self.dim, self.depth, self.heads


@dataclass(frozen=True, kw_only=True)
class WindowStage:
    """One encoder of Swin blocks, in levels of falling resolution; each halves h and w and doubles the channels.

    dim: channels of a token in the first level
    depths: blocks of each level
    heads: of each attention, for each level
    mlp_dim: hidden channels of each MLP in the first level
    window: (t, h, w) in tokens, at the grid of the model's `clip`
    level_norms: a norm after every level, not after the last alone
    eps: of the norms
    """

    kind: Literal["windows"] = "windows"
    dim: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    mlp_dim: int
    window: Size3
    level_norms: bool = False
    eps: float = 1e-5

    @property
    def size(self) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
        return self.dim, self.depths, self.heads


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """All that a model is made from.

    family: what the model is called; decides nothing about it
    embed: the tokeniser
    stages: the encoders, in the order in which they run
    clip: the (T, H, W) that position tables and windows are made for
    channels: of a clip
    num_classes: 0 for a model without head, which gives its features
    mean, std: of pixels in [0, 1], for uint8 clips; one for all channels, or one for each
    """

    family: str
    embed: EmbedConfig
    stages: tuple[Stage | WindowStage, ...]
    clip: Size3
    channels: int = 3
    num_classes: int
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)

    def with_embed(self, **changes: Any) -> "ModelConfig":
        """The same with other fields of its tokeniser: `config.with_embed(frames=8)`."""
        return replace(self, embed=replace(self.embed, **changes))

    def with_stage(self, number: int, **changes: Any) -> "ModelConfig":
        """The same with other fields of one of its stages: `config.with_stage(0, prefix=5, keep_aspect=True)`."""
        stages = list(self.stages)
        stages[number] = replace(stages[number], **changes)
        return replace(self, stages=tuple(stages))

    def with_stages(self, **changes: Any) -> "ModelConfig":
        """The same with other fields of all its stages: `config.with_stages(gelu="tanh")`."""
        return replace(self, stages=tuple(replace(stage, **changes) for stage in self.stages))

    def to_json(self) -> dict[str, Any]:
        """What a checkpoint stores; `tubelet.weights.settings.read_config` reads it."""
        return asdict(self)

    def encoder_settings(self) -> dict[str, Any]:
        """What the output of the first encoder depends on, beside its weights, as JSON."""
        first = self.stages[0]
        seen = {name: value for name, value in self.to_json().items() if name in ("embed", "channels", "mean", "std")}
        # the ratio of window to grid is that at `clip`; tables carry their grid in their shape
        return {**seen, "stage": asdict(first), "clip": self.clip if first.kind == "windows" else None}


def find_differences(found: Any, wanted: Any, name: str = "") -> list[str]:
    """In what two settings, as JSON, differ: ["depth 3, not 2"]."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        return [line for key in found for line in find_differences(found[key], wanted.get(key), key)]
    if name == "stages" and len(found) == len(wanted):
        return [line for pair in zip(found, wanted, strict=True) for line in find_differences(*pair)]
    if name == "stages":
        found, wanted = len(found), len(wanted)
    return [] if found == wanted else [f"{name} {found}, not {wanted}"]
