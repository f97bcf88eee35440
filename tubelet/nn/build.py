"""The tokeniser that a configuration asks for."""

from tubelet.nn.config import ModelConfig
from tubelet.nn.embed import (
    ConvStemEmbed,
    DepthwiseSeparableEmbed,
    SpaceThenTimeEmbed,
    TubeletEmbed,
    UniformFrames,
)
from tubelet.nn.resnet import ResNetEmbed

Embed = TubeletEmbed | UniformFrames | SpaceThenTimeEmbed | DepthwiseSeparableEmbed | ConvStemEmbed | ResNetEmbed

LINEAR: dict[str, type[TubeletEmbed] | type[SpaceThenTimeEmbed] | type[DepthwiseSeparableEmbed]] = {
    "tubelet": TubeletEmbed,
    "space-time": SpaceThenTimeEmbed,
    "depthwise": DepthwiseSeparableEmbed,
}
EMBEDS = (*LINEAR, "conv", "resnet")


def make_embed(config: ModelConfig) -> Embed:
    """The tokeniser called `config.embed`.

    Raises:
        ValueError: unknown kind, or a setting that this kind does not have.
    """
    c = config
    if c.embed not in EMBEDS:
        raise ValueError(f"unknown tokeniser {c.embed!r}: expected one of {', '.join(EMBEDS)}")
    if c.frames is not None:
        if c.embed != "tubelet" or c.stride is not None:
            raise ValueError("uniform frame sampling (frames=...) goes with embed='tubelet' and no stride of its own")
        return UniformFrames(c.channels, c.dim, c.patch, frames=c.frames)
    if c.embed in LINEAR:
        return LINEAR[c.embed](c.channels, c.dim, c.patch, c.stride)
    if c.stride not in (None, c.patch):
        raise ValueError(
            f"the {'convolutional stem' if c.embed == 'conv' else 'ResNet'} steps by its patch {c.patch}, "
            f"got stride={c.stride}: leave it out"
        )
    if c.embed == "conv":
        return ConvStemEmbed(c.channels, c.dim, c.patch, still=c.clip[0] == 1)
    return ResNetEmbed(c.channels, c.dim, c.patch, layers=c.layers, widths=c.widths)
