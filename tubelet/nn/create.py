"""Models by name."""

import difflib
import re
from collections.abc import Sequence

from tubelet.nn.config import FAMILIES, IMAGE_FAMILIES, SIZES, SWIN_SIZES, ModelConfig
from tubelet.nn.grid import Size3, triple
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.nn.resnet import RESNETS

Sizes = tuple[int, int | tuple[int, ...], int | tuple[int, ...]]  # width, depth, heads

# Of layer norms, where a family's published models differ from ViT's: all, and the one after pooling.
EPS = {"meta": (1e-5, 1e-5), "swin2": (1e-5, 1e-5), "ast": (1e-12, 1e-12)}


def sizes_of(family: str) -> dict[str, Sizes]:
    return dict(SWIN_SIZES if family == "swin2" else SIZES)


def list_models() -> list[str]:
    """All family-size names; add /patch or /patchxtubelet to make one: "vivit2-B" -> "vivit2-B/16x2".

    A family that shares its heads out comes only in sizes whose heads can be shared.
    """
    return [
        f"{family}-{size}"
        for family, stages in FAMILIES.items()
        for size, (_, _, heads) in sizes_of(family).items()
        if isinstance(heads, tuple) or all(heads % len(stage.attend.split("|")) == 0 for stage in stages)
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
    pad: str | None = None,
    temporal_depth: int = 4,
    attend: str | None = None,
    window: Sequence[int] | None = None,
    position: str | None = None,
    keep_aspect: bool = False,
    prefix: int | None = None,
    pool: str | None = None,
    gelu: str = "erf",
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
        clip: the (T, H, W) that position tables are made for; (16, 224, 224) or, for images, (1, 224, 224).
        num_classes: 0 for a model without head, which gives its features.
        embed: tokeniser: "tubelet", "space-time", "depthwise", "conv", or a ResNet (see `tubelet.nn.RESNETS`).
        stride: (frames, px, px) between tubelets, if not their size (ast: 5/8 of the patch).
        frames: uniform frame sampling: that many frames of the clip are embedded.
        pad: "mean" fills sizes that tubelets do not, with the mean colour; left out, they are an error.
        temporal_depth: blocks of vivit2's temporal encoder; 0 averages the frames instead.
        attend, pool: instead of the family's, e.g. attend="t,hw", pool="mean".
        window: swin2: (t, h, w) in tokens; by default an eighth of the grid in space, up to 8 steps in time.
        position: instead of the family's: learned tables "joint", "space+time" or "t+h+w"; "fixed"; or made for each
            size anew: "sincos", "rotary".
        keep_aspect: tables are resampled by the same factor along height and width.
        prefix: tokens before those of the grid, such as a class token and four registers: 5.
        gelu: "erf" (exact), or "tanh", as ViViT's own weights have it.
        drop_path: stochastic depth of the last block; dropout: in attention and MLP; checkpointing: recompute
            activations in the backward pass.
        mean, std: for uint8 clips, per channel, of pixels in [0, 1].

    Raises:
        ValueError: unknown name (with the nearest ones), or sizes that do not fit together.
    """
    family, (dim, depth, heads), patch = parse(name)
    image = family in IMAGE_FAMILIES
    size = triple((1 if image else 16, 224, 224) if clip is None else clip, "clip")
    if image and (frames or size[0]) > patch[0]:
        raise ValueError(f"{name!r} sees one frame, got clip={size}: use clip=(1, H, W), or a vivit model for video")
    if stride is None and family == "ast":
        stride = (patch[0], max(1, patch[1] * 5 // 8), max(1, patch[2] * 5 // 8))
    layers, widths = RESNETS.get(embed, ((), ()))
    if window is None and family == "swin2":
        window = window_of(size, patch)
    eps, pool_eps = EPS.get(family, (1e-6, 1e-6))
    config = ModelConfig(
        family=family,
        dim=dim,
        depth=depth,
        heads=heads,
        mlp_dim=4 * dim,
        patch=patch,
        stride=None if stride is None else triple(stride, "stride"),
        clip=size,
        num_classes=num_classes,
        channels=channels,
        embed="resnet" if embed in RESNETS else embed,
        frames=frames,
        layers=layers,
        widths=widths,
        pad=pad,
        temporal_depth=temporal_depth,
        attend=attend,
        window=None if window is None else triple(window, "window"),
        position=position,
        keep_aspect=keep_aspect,
        prefix=prefix,
        pool=pool,
        gelu=gelu,
        eps=eps,
        pool_eps=pool_eps,
        drop_path=drop_path,
        dropout=dropout,
        checkpointing=checkpointing,
        mean=tuple(mean),
        std=tuple(std),
    )
    return SpaceTimeTransformer(config)


def parse(name: str) -> tuple[str, Sizes, Size3]:
    """Family, its numbers and the patch (frames, px, px) that a name says."""
    match = re.fullmatch(r"([a-z0-9]+)-([A-Za-z]+)/(\d+)(?:x(\d+))?", name)
    if not match or match[1] not in FAMILIES or match[2] not in sizes_of(match[1]):
        near = difflib.get_close_matches(name.split("/")[0], list_models(), n=3, cutoff=0.4)
        patch = name.split("/")[1] if "/" in name else "16x2"
        raise ValueError(
            f"unknown model {name!r}: expected family-size/patch[xtubelet], such as "
            + ", ".join(f"{candidate}/{patch}" for candidate in near or ["vivit2-B"])
        )
    side, length = int(match[3]), int(match[4] or 1)
    if side < 1 or length < 1:
        raise ValueError(f"model {name!r} has a patch of size 0: give at least 1")
    return match[1], sizes_of(match[1])[match[2]], (length, side, side)


def name_of(config: ModelConfig) -> str:
    """The inverse of `parse`: family-size/patch where there is such a name, else the numbers."""
    t, h, w = config.patch
    patch = f"{h}x{w}" if h != w else f"{h}"
    length = f"x{t}" if t > 1 else ""
    for size, numbers in sizes_of(config.family).items():
        if numbers == (config.dim, config.depth, config.heads):
            return f"{config.family}-{size}/{patch}{length}"
    return f"{config.family}/{patch}{length} of width {config.dim}, {config.depth} layers, {config.heads} heads"


def window_of(clip: Size3, patch: Size3) -> Size3:
    """Swin's windows in tokens: up to 8 time steps (arXiv 2106.13230), an eighth of height and width (timm)."""
    t, h, w = (max(1, size // p) for size, p in zip(clip, patch, strict=True))
    return min(t, 8), max(1, h // 8), max(1, w // 8)
