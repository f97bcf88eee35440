"""The tokeniser that a configuration asks for."""

from tubelet.nn.block import BlockConfig
from tubelet.nn.config import ModelConfig
from tubelet.nn.embed import (
    ConvStemEmbed,
    DepthwiseSeparableEmbed,
    SpaceThenTimeEmbed,
    TubeletEmbed,
    UniformFrames,
)
from tubelet.nn.encoder import Encoder, Stage
from tubelet.nn.grid import Grid
from tubelet.nn.resnet import ResNetEmbed
from tubelet.nn.swin import SwinEncoder

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


def make_encoder(config: ModelConfig, stage: Stage, grid: Grid) -> Encoder | SwinEncoder:
    """The encoder of a stage; `grid` is the one its tables or windows are made for.

    Raises:
        ValueError: the settings do not fit together.
    """
    c = config
    if stage.attend == "windows":
        if c.window is None or isinstance(c.depth, int) or isinstance(c.heads, int):
            raise ValueError(f"{c.family} needs window=(t, h, w), and depth and heads for each stage: make it by name")
        if c.position is not None or c.keep_aspect or c.prefix or stage.pool != "mean":
            raise ValueError(
                f"windows make their own positions, have no prefix and are pooled by their mean, got position="
                f"{c.position!r}, keep_aspect={c.keep_aspect}, prefix={c.prefix}, pool={stage.pool!r}: leave these out"
            )
        return SwinEncoder(
            c.dim,
            depths=c.depth,
            heads=c.heads,
            window=c.window,
            grid=grid,
            mlp_ratio=c.mlp_dim / c.dim,
            eps=c.eps,
            drop_paths=rising(c.drop_path, sum(c.depth)),
            dropout=c.dropout,
            stage_norms=c.norm == "stages",
            checkpointing=c.checkpointing,
        )
    if not isinstance(c.depth, int) or not isinstance(c.heads, int) or c.window is not None:
        raise ValueError(f"{c.family} has one depth, one number of heads and no window, got {c.depth}, {c.heads}")
    block = BlockConfig(dim=c.dim, heads=c.heads, mlp_dim=c.mlp_dim, eps=c.eps, gelu=c.gelu, dropout=c.dropout)
    return Encoder(
        block,
        stage,
        grid,
        drop_paths=rising(c.drop_path, c.temporal_depth if stage.temporal else c.depth),
        checkpointing=c.checkpointing,
        pool_depth=c.pool_depth,
        pool_eps=c.pool_eps,
    )


def rising(rate: float, depth: int) -> list[float]:
    """Stochastic depth rates, from 0 at the first block to `rate` at the last (arXiv 2103.15691, eq. 10)."""
    return [rate * i / max(depth - 1, 1) for i in range(depth)]
