"""Every family as a line: the sizes it comes in, and a function from size and grid to stages."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tubelet.nn.config import Stage, WindowStage
from tubelet.nn.grid import Grid
from tubelet.nn.pool import count_prefix

Size = tuple[Any, ...]  # width, depth, heads, and, where a size of a family differs in more, that as fields of Stage

# Ti to L: arXiv 2106.04560, table 2; P and N (pico, nano) are ours, for laptops and small data.
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
# Width, depth, heads, and what else is not as in a ViT of that width, from the published weights.
VJEPA21_SIZES: dict[str, Size] = {
    **SIZES,
    "g": (1408, 40, 22, {"mlp_dim": 6144}),
    "G": (1664, 48, 26, {"mlp_dim": 8192}),
}
DINOV3_SIZES: dict[str, Size] = {
    **SIZES,
    "S+": (384, 12, 6, {"mlp": "gated"}),
    "H+": (1280, 32, 20, {"mlp": "gated"}),
    "7B": (4096, 40, 32, {"mlp": "gated", "mlp_dim": 8192, "qkv_bias": False}),
}
PE_SIZES: dict[str, Size] = {**SIZES, "G": (1536, 50, 16, {"mlp_dim": 8960, "prefix": 0})}
SIGLIP2_SIZES: dict[str, Size] = {
    **SIZES,
    "So": (1152, 27, 16, {"mlp_dim": 4304, "pool_mlp_dim": 4304}),
    "g": (1536, 40, 16),
}
PE: dict[str, Any] = {"tables": ("hw",), "prefix": 1, "norm_first": True, "pool": "map", "pool_heads": 8, "eps": 1e-5}
EMBEDDING = 1024  # channels of the embeddings of Perception Encoder's B and L
EVEN_SIZES = {name: size for name, size in SIZES.items() if size[2] % 2 == 0}  # heads can be shared out in two


class Family(NamedTuple):
    """A kind of model.

    stages: its encoders, for a size and the grid of whole patches in the clip that the model is made for
    sizes: by name
    image: clips are of one tubelet in time
    still: clips are of one frame unless more are asked for
    side: of a clip, in px, unless another is asked for
    eighths: of a patch, from one patch to the next in space
    embed: its tokeniser
    """

    stages: Callable[[Any, Grid], tuple[Stage | WindowStage, ...]]
    sizes: Mapping[str, Size] = SIZES
    image: bool = False
    still: bool = False
    side: int = 224
    eighths: int = 8
    embed: str = "tubelet"


def blocks(size: Size, **settings: Any) -> Stage:
    """A stage of a size; it has the prefix tokens that its pooling needs."""
    dim, depth, heads, *own = size
    if not isinstance(heads, int):
        raise ValueError(f"got heads={heads!r}, expected one number")
    numbers = {"dim": dim, "depth": depth, "heads": heads, "mlp_dim": 4 * dim}
    return Stage(**numbers | {"prefix": count_prefix(settings.get("pool", "cls"))} | settings | dict(*own))


def find_levels(depth: int) -> tuple[int, ...]:
    """The blocks whose tokens V-JEPA 2.1 gives out: the last of each quarter, but for the third of the largest."""
    return (11, 23, 37, 47) if depth == 48 else tuple(depth * (i + 1) // 4 - 1 for i in range(4))


def in_space(size: Size, **settings: Any) -> Stage:
    """A stage that sees each frame by itself, as an image."""
    return blocks(size, over="hw", **settings)


def over_frames(size: Size) -> Stage:
    """A stage over the embeddings of frames, of blocks as language models have them; size L is as published."""
    dim = size[0] * 7 // 4
    numbers = {"head_dim": 128, "mlp_dim": -(-8 * dim // 192) * 64, "takes": EMBEDDING}
    kind = {"norm_kind": "rms", "mlp": "gated", "qkv_bias": False, "bias": False, "qk_norm": True, "conv": True}
    return blocks((dim, 6, max(1, dim // 128)), over="t", position="rotary-slow", eps=1e-5, **numbers, **kind)


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
    # V-JEPA 2.1, arXiv 2603.14482
    "vjepa21": Family(
        lambda s, _: (blocks(s, position="rotary-span", pool="mean", levels=find_levels(s[1])),),
        sizes=VJEPA21_SIZES,
        embed="video-image",
    ),
    # VideoPrism, arXiv 2402.13217: in space, then along the time of each place
    "videoprism": Family(
        lambda s, _: (
            in_space(s, tables=("hw",), pool="none", cap=50.0, resampling="bilinear"),
            blocks(s, tables=("t",), over="t", depth=4, pool="mean", cap=50.0, resampling="bilinear"),
        ),
        side=288,
    ),
    # Perception Encoder, arXiv 2504.13181: images; of a video the mean over its frames
    "pe": Family(
        lambda s, _: (in_space(s, position="rotary-one", resampling="bilinear-sharp", **PE),),
        sizes=PE_SIZES,
        still=True,
    ),
    # the video encoder of PE-AV, as in transformers: an embedding of each frame as timm's PE gives it, then along time
    "pevideo": Family(
        lambda s, _: (in_space(s, position="rotary-scaled", gives=EMBEDDING, unit=True, **PE), over_frames(s))
    ),
    # DINOv3, arXiv 2508.10104: likewise
    "dinov3": Family(
        lambda s, _: (in_space(s, position="rotary-centred", prefix=5, eps=1e-5),), sizes=DINOV3_SIZES, still=True
    ),
    # SigLIP 2, arXiv 2502.14786: likewise
    "siglip2": Family(
        lambda s, _: (in_space(s, tables=("hw",), resampling="bicubic-sharp", pool="map", gelu="tanh"),),
        sizes=SIGLIP2_SIZES,
        still=True,
    ),
    # Swin v2, arXiv 2111.09883, in the form of timm's swinv2_cr; in space-time windows on video
    "swin2": Family(lambda s, grid: (windows(s, grid),), sizes=SWIN_SIZES),
    # Meta-Transformer, arXiv 2307.10802: one encoder for tokens of every kind, so positions are made for each grid
    "meta": Family(lambda s, _: (blocks(s, position="sincos", pool="mean", norm="none", eps=1e-5, pool_eps=1e-5),)),
}
IMAGE_FAMILIES = tuple(name for name, family in FAMILIES.items() if family.image)
