"""The tokeniser that a configuration asks for."""

from collections.abc import Callable

from tubelet.nn.config import EmbedConfig, ModelConfig
from tubelet.nn.embed import (
    ConvStemEmbed,
    DepthwiseSeparableEmbed,
    SpaceThenTimeEmbed,
    Tokeniser,
    TubeletEmbed,
    UniformFrames,
    VideoOrImageEmbed,
)
from tubelet.nn.resnet import ResNetEmbed
from tubelet.nn.self_similarity import SelfSimilarityEmbed

# From channels, width, the settings, and whether clips are of one frame.
EMBEDS: dict[str, Callable[[int, int, EmbedConfig, bool], Tokeniser]] = {
    "tubelet": lambda channels, dim, c, _: (
        TubeletEmbed(channels, dim, c.patch, c.stride)
        if c.frames is None
        else UniformFrames(channels, dim, c.patch, frames=c.frames)
    ),
    "video-image": lambda channels, dim, c, _: VideoOrImageEmbed(channels, dim, c.patch),
    "space-time": lambda channels, dim, c, _: SpaceThenTimeEmbed(channels, dim, c.patch, c.stride),
    "depthwise": lambda channels, dim, c, _: DepthwiseSeparableEmbed(channels, dim, c.patch, c.stride),
    "conv": lambda channels, dim, c, still: ConvStemEmbed(channels, dim, c.patch, still=still),
    "similarity": lambda channels, dim, c, still: (
        ConvStemEmbed(channels, dim, c.patch, still=True) if still else SelfSimilarityEmbed(channels, dim, c.patch)
    ),
    "resnet": lambda channels, dim, c, _: ResNetEmbed(channels, dim, c.patch, layers=c.layers, widths=c.widths),
}


def make_embed(config: ModelConfig) -> Tokeniser:
    """The tokeniser of a model. Raises ValueError: unknown kind, or a setting that this kind does not have."""
    c = config.embed
    if c.kind not in EMBEDS:
        raise ValueError(f"unknown tokeniser {c.kind!r}: expected one of {', '.join(EMBEDS)}")
    if c.pad not in (None, "mean"):
        raise ValueError(f"unknown pad {c.pad!r}: expected 'mean', or None: a size must be whole tubelets")
    if c.frames is not None and (c.kind != "tubelet" or c.stride != c.patch):
        raise ValueError("uniform frame sampling (frames=...) goes with embed='tubelet' and no stride of its own")
    embed = EMBEDS[c.kind](config.channels, config.stages[0].in_dim, c, config.clip[0] == 1)
    if embed.stride != tuple(c.stride):
        raise ValueError(f"embed={c.kind!r} steps by its patch {c.patch}, got stride={c.stride}: give both alike")
    embed.pad = c.pad == "mean"
    return embed
