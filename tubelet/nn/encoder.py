"""Encoders: what a transformer does to the tokens of a grid."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tubelet.nn.block import Block, BlockConfig
from tubelet.nn.grid import Grid
from tubelet.nn.pool import PREFIXES, AttentivePool, Pool
from tubelet.nn.position import KINDS, LearnedPosition, RotaryPosition, SinCosPosition

NORMS = ("tokens", "pooled", "both", "none")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One encoder of a model, as data.

    tables: position tables, each by the axes it varies along ("thw", "hw", "t", ...); position: what becomes of them:
    "learned", or "fixed" at their start; without tables "sincos", "rotary" or "rotary-tiled", made for each grid anew;
    keep_aspect: how tables are resampled; attend: the steps of a block, or "windows"; over: the axes one sequence
    spans, the others join the batch; prefix: tokens before those of the grid, by default as many as pooling needs;
    pool: see `Pool`, or "attentive"; norm: the last one, of all "tokens", of the "pooled" one, "both" or "none";
    temporal: this encoder works on frame tokens and has its own depth.
    """

    tables: tuple[str, ...] = ()
    position: str = "learned"
    keep_aspect: bool = False
    attend: str = "thw"
    over: str = "thw"
    prefix: int | None = None
    pool: str = "cls"
    norm: str = "tokens"
    temporal: bool = False


class Encoder(nn.Module):
    """Positions, prefix tokens, blocks, norm and pooling over the axes that a stage spans.

    (B, N, D), Grid(t, h, w) -> over "thw": (B, 1, D), Grid(1, 1, 1); over "hw": (B, t, D), Grid(t, 1, 1).
    """

    def __init__(
        self,
        config: BlockConfig,
        stage: Stage,
        grid: Grid,
        *,
        drop_paths: list[float],
        checkpointing: bool,
        pool_depth: int = 0,
        pool_eps: float = 1e-6,
    ):
        super().__init__()
        if stage.norm not in NORMS:
            raise ValueError(f"unknown norm {stage.norm!r}: expected one of {', '.join(NORMS)}")
        self.over, self.checkpointing = stage.over, checkpointing
        self.position = make_position(config, stage, grid)
        prefix = PREFIXES.get(stage.pool, 0) if stage.prefix is None else stage.prefix
        self.prefix = nn.Parameter(torch.zeros(1, prefix, config.dim)) if prefix else None
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, stage.attend, drop_path=rate) for rate in drop_paths)
        self.norm = nn.LayerNorm(config.dim, eps=config.eps) if stage.norm in ("tokens", "both") else nn.Identity()
        self.pool: AttentivePool | Pool
        if stage.pool == "attentive":
            self.pool = AttentivePool(config, depth=pool_depth, checkpointing=checkpointing)
        else:
            self.pool = Pool(config, stage.pool, prefix=prefix, norm=stage.norm in ("pooled", "both"), eps=pool_eps)
        self.out_dim = self.pool.out_dim

    def encode(self, x: Tensor, grid: Grid) -> Tensor:
        """All tokens of one sequence after the last norm: (B, N, D) -> (B, P + N, D)."""
        turns = self.position.turns(x, grid) if isinstance(self.position, RotaryPosition) else None
        x = self.position(x, grid)
        if self.prefix is not None:
            x = torch.cat([self.prefix.expand(x.shape[0], -1, -1), x], 1)
        x = self.dropout(x)
        for block in self.blocks:
            if self.checkpointing and self.training:
                x = checkpoint(block, x, grid, turns, use_reentrant=False)
            else:
                x = block(x, grid, turns)
        return self.norm(x)

    def tokens(self, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        """All tokens of the grid: (B, N, D) -> (B, P + N, D), Grid; a prefix of several sequences is their mean."""
        if self.over == "thw":
            return self.encode(x, grid), grid
        b, prefix = x.shape[0], 0 if self.prefix is None else self.prefix.shape[1]
        frames = self.encode(x.reshape(b * grid.t, -1, x.shape[2]), grid.along("hw")).unflatten(0, (b, grid.t))
        return torch.cat([frames[:, :, :prefix].mean(1), frames[:, :, prefix:].flatten(1, 2)], 1), grid

    def forward(self, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        if self.over == "thw":
            return self.pool(self.encode(x, grid)), Grid(1, 1, 1)
        b = x.shape[0]
        frames = self.encode(x.reshape(b * grid.t, -1, x.shape[2]), grid.along("hw"))
        return self.pool(frames).reshape(b, grid.t, -1), grid.along("t")


def make_position(config: BlockConfig, stage: Stage, grid: Grid) -> LearnedPosition | SinCosPosition | RotaryPosition:
    """The positions of a stage; `grid` is the one that tables are made for."""
    if stage.position not in KINDS:
        raise ValueError(f"unknown position {stage.position!r}: expected one of {', '.join(KINDS)}")
    axes = "t" if stage.temporal else stage.over
    if stage.position == "sincos":
        return SinCosPosition(config.dim, axes)
    if stage.position.startswith("rotary"):
        head_dim = config.dim // config.heads
        if head_dim % 2 or head_dim < 2 * len(axes):
            raise ValueError(
                f"rotary positions turn pairs of channels along {axes!r}, got {head_dim} channels in a head: "
                f"choose an even number of at least {2 * len(axes)}"
            )
        return RotaryPosition(head_dim, axes, tiled=stage.position == "rotary-tiled")
    tables = [grid.along(axes) for axes in stage.tables]
    return LearnedPosition(config.dim, tables, trained=stage.position == "learned", keep_aspect=stage.keep_aspect)
