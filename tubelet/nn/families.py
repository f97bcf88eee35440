"""Every family as a line: the sizes it comes in, and a function from size and grid to stages."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tubelet.nn.config import Stage, WindowStage
from tubelet.nn.grid import Grid
from tubelet.nn.pool import count_prefix

# Width, depth, heads. Ti to L: arXiv 2106.04560, table 2; P and N (pico, nano) are ours, for laptops and small data.
SIZES = {
    "P": (96, 4, 3),
    "N": (128, 4, 4),
    "Ti": (192, 12, 3),
    "S": (384, 12, 6),
    "B": (768, 12, 12),
    "L": (1024, 24, 16),
}
# The same for each level of a Swin transformer: arXiv 2111.09883, section 3.4; P is ours.
SWIN_SIZES = {
    "P": (48, (1, 1, 2, 1), (2, 4, 8, 16)),
    "Ti": (96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "S": (96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "B": (128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "L": (192, (2, 2, 18, 2), (6, 12, 24, 48)),
}
EVEN_SIZES = {name: size for name, size in SIZES.items() if size[2] % 2 == 0}  # heads can be shared out in two


class Family(NamedTuple):
    """A kind of model.

    stages: its encoders, for a size and the grid of whole patches in the clip that the model is made for
    sizes: (width, depth, heads) by name
    image: clips are of one tubelet in time
    eighths: of a patch, from one patch to the next in space
    """

    stages: Callable[[Any, Grid], tuple[Stage | WindowStage, ...]]
    sizes: Mapping[str, tuple[int, Any, Any]] = SIZES
    image: bool = False
    eighths: int = 8


def blocks(size: tuple[int, int, int], **settings: Any) -> Stage:
    """A stage of a size; it has the prefix tokens that its pooling needs."""
    dim, depth, heads = size
    if not isinstance(heads, int):
        raise ValueError(f"got heads={heads!r}, expected one number")
    numbers = {"dim": dim, "depth": depth, "heads": heads, "mlp_dim": 4 * dim}
    return Stage(**numbers | {"prefix": count_prefix(settings.get("pool", "cls"))} | settings)


def windows(size: tuple[int, tuple[int, ...], tuple[int, ...]], grid: Grid) -> WindowStage:
    """Windows of up to 8 time steps (arXiv 2106.13230), an eighth of height and width (timm)."""
    dim, depths, heads = size
    window = min(grid.t, 8), max(1, grid.h // 8), max(1, grid.w // 8)
    return WindowStage(dim=dim, depths=depths, heads=heads, mlp_dim=4 * dim, window=window)


FAMILIES = {
    # ViT, arXiv 2010.11929: images and spectrograms
    "vit": Family(lambda s, _: (blocks(s, tables=("hw",)),), image=True),
    # ViViT, arXiv 2103.15691: joint; factorised encoder; factorised self-attention; factorised dot-product
    "vivit1": Family(lambda s, _: (blocks(s, tables=("thw",)),)),
    "vivit2": Family(lambda s, _: (blocks(s, tables=("hw",), over="hw"), blocks(s, tables=("t",), over="t", depth=4))),
    "vivit3": Family(lambda s, _: (blocks(s, tables=("thw",), attend="hw,t", pool="mean"),)),
    "vivit4": Family(lambda s, _: (blocks(s, tables=("thw",), attend="t|hw", pool="mean"),), sizes=EVEN_SIZES),
    # TimeSformer, arXiv 2102.05095: divided attention
    "timesformer": Family(lambda s, _: (blocks(s, tables=("hw", "t"), attend="t,hw"),)),
    # joint attention, space + time positions; also TimeSformer's joint variant
    "vidtrans": Family(lambda s, _: (blocks(s, tables=("hw", "t")),)),
    # VideoMAE, arXiv 2203.12602
    "videomae": Family(lambda s, _: (blocks(s, tables=("thw",), position="fixed", pool="mean", norm="pooled"),)),
    # V-JEPA 2, arXiv 2506.09985
    "vjepa2": Family(lambda s, _: (blocks(s, position="rotary-tiled", pool="attentive"),)),
    # AST, arXiv 2104.01778: spectrograms in overlapping patches
    "ast": Family(
        lambda s, _: (blocks(s, tables=("hw",), pool="cls+dist", norm="both", eps=1e-12, pool_eps=1e-12),),
        image=True,
        eighths=5,
    ),
    # Swin v2, arXiv 2111.09883, in the form of timm's swinv2_cr; in space-time windows on video
    "swin2": Family(lambda s, grid: (windows(s, grid),), sizes=SWIN_SIZES),
    # Meta-Transformer, arXiv 2307.10802: one encoder for tokens of every kind, so positions are made for each grid
    "meta": Family(lambda s, _: (blocks(s, position="sincos", pool="mean", norm="none", eps=1e-5, pool_eps=1e-5),)),
}
IMAGE_FAMILIES = tuple(name for name, family in FAMILIES.items() if family.image)
