"""Every model as a line of data, and the one place that puts a model together."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from tubelet.nn.embed import check_clip, make_embed, normalise
from tubelet.nn.encoder import BlockConfig, Encoder, Stage
from tubelet.nn.grid import Grid, grid_of, triple
from tubelet.nn.init import init_weights

# Width, depth, heads. Ti to L: arXiv 2106.04560, table 2; P and N (pico, nano) are ours, for laptops and small data.
SIZES = {
    "P": (96, 4, 3),
    "N": (128, 4, 4),
    "Ti": (192, 12, 3),
    "S": (384, 12, 6),
    "B": (768, 12, 12),
    "L": (1024, 24, 16),
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
}


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """All that a model is made from; stored in its checkpoint. Sizes are (frames, px, px)."""

    family: str
    dim: int
    depth: int
    heads: int
    mlp_dim: int
    patch: tuple[int, int, int]
    stride: tuple[int, int, int] | None = None
    clip: tuple[int, int, int]  # the (T, H, W) its position tables are made for
    num_classes: int
    channels: int = 3
    embed: str = "tubelet"
    frames: int | None = None  # uniform frame sampling
    temporal_depth: int = 4
    attend: str | None = None  # instead of the family's
    pool: str | None = None  # instead of the family's
    eps: float = 1e-6
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
        """Raises ValueError for a key that is unknown or missing."""
        known = {field.name for field in fields(cls)}
        if wrong := sorted(set(values) ^ known):
            raise ValueError(
                f"model settings that are unknown or missing: {', '.join(wrong)}: made by another version?"
            )
        settings: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        return cls(**settings)


class SpaceTimeTransformer(nn.Module):
    """Embeds a clip, runs its encoders in turn, classifies: (B, C, T, H, W) -> (B, classes).

    Clips are float, already normalised, or uint8, normalised here with the model's own mean and std. Any (T, H, W)
    that whole tubelets fill will do: position tables are resampled from the size they were made for.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: ModelConfig):
        super().__init__()
        c = self.config = config
        if c.num_classes < 1:
            raise ValueError(f"got num_classes={c.num_classes}, expected at least 1 (model.features needs no class)")
        still = c.clip[0] == 1
        self.embed = make_embed(c.embed, c.channels, c.dim, c.patch, stride=c.stride, frames=c.frames, still=still)
        self.input_size: tuple[int, int, int] = c.clip
        block = BlockConfig(dim=c.dim, heads=c.heads, mlp_dim=c.mlp_dim, eps=c.eps, gelu=c.gelu, dropout=c.dropout)
        self.encoders = nn.ModuleList(
            Encoder(
                block,
                stage,
                self.grid(c.clip),
                drop_paths=rising(c.drop_path, c.temporal_depth if stage.temporal else c.depth),
                checkpointing=c.checkpointing,
            )
            for stage in stages_of(c)
        )
        self.head = nn.Linear(c.dim, c.num_classes)
        self.register_buffer("mean", per_channel(c.mean, c.channels, "mean"), persistent=False)
        self.register_buffer("std", per_channel(c.std, c.channels, "std"), persistent=False)
        init_weights(self, self.head)

    def grid(self, clip: Sequence[int]) -> Grid:
        """The token grid of a clip of (T, H, W)."""
        t, h, w = triple(clip, "clip")
        return grid_of((min(t, self.config.frames or t), h, w), self.embed.patch, self.embed.stride)

    def set_input_size(self, clip: Sequence[int]) -> None:
        """Declares the (T, H, W) that the model will be given. Lossless: no parameter changes, positions are resampled
        from their source grid at every size, so an optimizer goes on as it is."""
        self.grid(clip)
        self.input_size = triple(clip, "clip")

    def normalised(self, clip: Tensor) -> Tensor:
        """uint8 -> float, normalised with the model's mean and std; a float clip comes back as it is."""
        check_clip(clip, self.config.channels)
        if clip.dtype == torch.uint8:
            return normalise(clip, self.mean, self.std)
        if not clip.is_floating_point():
            raise ValueError(f"got a clip of {clip.dtype}, expected float (normalised) or uint8 (0 to 255): convert it")
        return clip

    def tokens(self, clip: Tensor) -> tuple[Tensor, Grid]:
        """Space-time tokens of the first encoder, (B, P + N, D), Grid; prefix tokens first, then t-, h-, w-major."""
        x, grid = self.embed(self.normalised(clip))
        first: Encoder = self.encoders[0]  # type: ignore[assignment]  # ModuleList forgets its type
        return first.tokens(x, grid), grid

    def features(self, clip: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, D): what the head classifies."""
        x, grid = self.embed(self.normalised(clip))
        for encoder in self.encoders:
            x, grid = encoder(x, grid)
        return x.mean(1)

    def forward(self, clip: Tensor) -> Tensor:
        return self.head(self.features(clip))


def per_channel(values: Sequence[float], channels: int, what: str) -> Tensor:
    """Raises ValueError unless there is one value for all channels, or one for each; std must be positive."""
    if len(values) not in (1, channels) or (what == "std" and min(values) <= 0):
        raise ValueError(
            f"got {what}={tuple(values)} for {channels} channels, expected one number or one for each"
            + (", all above 0" if what == "std" else "")
        )
    return torch.tensor([float(value) for value in values])


def rising(rate: float, depth: int) -> list[float]:
    """Stochastic depth rates, from 0 at the first block to `rate` at the last (arXiv 2103.15691, eq. 10)."""
    return [rate * i / max(depth - 1, 1) for i in range(depth)]


def stages_of(config: ModelConfig) -> list[Stage]:
    """The stages of the family, with the overrides of the configuration; a temporal depth of 0 averages frames."""
    if config.family not in FAMILIES:
        raise ValueError(f"unknown family {config.family!r}: expected one of {', '.join(FAMILIES)}")
    stages = [stage for stage in FAMILIES[config.family] if not (stage.temporal and config.temporal_depth == 0)]
    if config.attend is not None:
        stages[0] = replace(stages[0], attend=config.attend)
    return [replace(stage, pool=config.pool or stage.pool) for stage in stages]


def list_models() -> list[str]:
    """All family-size names; add /patch or /patchxtubelet to make one: "vivit2-B" -> "vivit2-B/16x2".

    A family that shares its heads out comes only in sizes whose heads can be shared.
    """
    return [
        f"{family}-{size}"
        for family, stages in FAMILIES.items()
        for size, (_, _, heads) in SIZES.items()
        if all(heads % len(stage.attend.split("|")) == 0 for stage in stages)
    ]


def create_model(
    name: str,
    *,
    clip: Sequence[int] | None = None,
    num_classes: int = 400,
    channels: int = 3,
    embed: str = "tubelet",
    stride: Sequence[int] | None = None,
    frames: int | None = None,
    temporal_depth: int = 4,
    attend: str | None = None,
    pool: str | None = None,
    drop_path: float = 0.0,
    dropout: float = 0.0,
    checkpointing: bool = False,
    mean: Sequence[float] = (0.5,),
    std: Sequence[float] = (0.5,),
) -> SpaceTimeTransformer:
    """A model by name, `family-size/patch[xtubelet]`, with fresh weights.

    >>> model = create_model("vivit2-B/16x2", clip=(32, 224, 224), num_classes=400)

    Args:
        name: family and size as in `list_models()`, patch side in px, tubelet length in frames (1 if left out).
        clip: the (T, H, W) that the position tables are made for; (16, 224, 224) or, for vit, (1, 224, 224).
        embed: tokeniser: "tubelet", "space-time", "depthwise" or "conv".
        stride: (frames, px, px) between tubelets, if not their size.
        frames: uniform frame sampling: that many frames of the clip are embedded.
        temporal_depth: blocks of vivit2's temporal encoder; 0 averages the frames instead.
        attend, pool: instead of the family's, e.g. attend="t,hw", pool="mean".
        drop_path: stochastic depth of the last block; dropout: in attention and MLP; checkpointing: recompute
            activations in the backward pass.
        mean, std: for uint8 clips, per channel, of pixels in [0, 1].

    Raises:
        ValueError: unknown name (with the nearest ones), or sizes that do not fit together.
    """
    match = re.fullmatch(r"([a-z0-9]+)-([A-Za-z]+)/(\d+)(?:x(\d+))?", name)
    known = list_models()
    if not match or match[1] not in FAMILIES or match[2] not in SIZES:
        near = difflib.get_close_matches(name.split("/")[0], known, n=3, cutoff=0.4)
        patch = name.split("/")[1] if "/" in name else "16x2"
        raise ValueError(
            f"unknown model {name!r}: expected family-size/patch[xtubelet], such as "
            + ", ".join(f"{candidate}/{patch}" for candidate in near or ["vivit2-B"])
        )
    side, length = int(match[3]), int(match[4] or 1)
    if side < 1 or length < 1:
        raise ValueError(f"model {name!r} has a patch of size 0: give at least 1")
    dim, depth, heads = SIZES[match[2]]
    if clip is None:
        clip = (1 if match[1] == "vit" else 16, 224, 224)
    clip = triple(clip, "clip")
    if match[1] == "vit" and (frames or clip[0]) > length:
        raise ValueError(
            f"{name!r} sees one frame, got clip={tuple(clip)}: use clip=(1, H, W), or a vivit model for video"
        )
    config = ModelConfig(
        family=match[1],
        dim=dim,
        depth=depth,
        heads=heads,
        mlp_dim=4 * dim,
        patch=(length, side, side),
        stride=None if stride is None else triple(stride, "stride"),
        clip=triple(clip, "clip"),
        num_classes=num_classes,
        channels=channels,
        embed=embed,
        frames=frames,
        temporal_depth=temporal_depth,
        attend=attend,
        pool=pool,
        drop_path=drop_path,
        dropout=dropout,
        checkpointing=checkpointing,
        mean=tuple(mean),
        std=tuple(std),
    )
    return SpaceTimeTransformer(config)
