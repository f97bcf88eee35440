"""Encoders: what a transformer does to the tokens of a grid."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from tubelet.nn.block import Block
from tubelet.nn.config import Stage
from tubelet.nn.grid import AXES, Grid
from tubelet.nn.pool import make_pool
from tubelet.nn.position import make_position

NORMS = ("tokens", "pooled", "both", "none")


class AnyEncoder(Protocol):
    """The methods of all encoders."""

    out_dim: int  # channels that it gives
    prefix_size: int  # tokens before those of the grid
    over: str  # axes that one sequence spans
    blocks: Sequence[nn.Module]  # its own, in the order of the forward pass
    layers: Sequence[nn.Module]  # its blocks and those of its pooling

    def tokens(self, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        """All tokens, (B, N, D) -> (B, P + N', D'), and their grid."""

    def __call__(self, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        """A token for each sequence, (B, N, D) -> (B, sequences, out_dim), and their grid."""


class Encoder(nn.Module):
    """Positions, prefix tokens, blocks, norm and pooling over the axes that a stage spans.

    (B, N, D), Grid(t, h, w) -> over "thw": (B, 1, D), Grid(1, 1, 1); over "hw": (B, t, D), Grid(t, 1, 1).
    `grid` is the one that position tables are made for.
    """

    def __init__(self, stage: Stage, grid: Grid):
        super().__init__()
        if stage.norm not in NORMS:
            raise ValueError(f"unknown norm {stage.norm!r}: expected one of {', '.join(NORMS)}")
        if stage.over not in AXES or (stage.over == "t" and grid.h * grid.w > 1):
            raise ValueError(f"got over={stage.over!r} on a grid {tuple(grid)}: expected thw, hw, or t after over hw")
        self.over, self.prefix_size = stage.over, stage.prefix
        self.position = make_position(stage, grid)
        self.prefix = nn.Parameter(torch.zeros(1, stage.prefix, stage.dim)) if stage.prefix else None
        self.dropout = nn.Dropout(0.0)
        self.blocks = nn.ModuleList(Block(stage) for _ in range(stage.depth))
        in_tokens = stage.norm in ("tokens", "both")
        self.norm = nn.LayerNorm(stage.dim, eps=stage.eps) if in_tokens else nn.Identity()
        self.pool = make_pool(stage)
        self.out_dim = self.pool.out_dim

    @property
    def layers(self) -> tuple[nn.Module, ...]:
        return (*self.blocks, *self.pool.layers)

    def encode(self, x: Tensor, grid: Grid) -> Tensor:
        """All tokens of one sequence after the last norm: (B, N, D) -> (B, P + N, D)."""
        turns = self.position.turns(x, grid)
        x = self.position(x, grid)
        if self.prefix is not None:
            x = torch.cat([self.prefix.expand(x.shape[0], -1, -1), x], 1)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, grid, turns)
        return self.norm(x)

    def tokens(self, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        """All tokens of the grid: (B, N, D) -> (B, P + N, D), Grid; a prefix of several sequences is their mean."""
        sequences, one = grid.across(self.over), grid.along(self.over)
        if sequences.size == 1:
            return self.encode(x, grid), grid
        rows = self.encode(x.reshape(-1, one.size, x.shape[2]), one).unflatten(0, (x.shape[0], -1))
        prefix, rest = rows[:, :, : self.prefix_size], rows[:, :, self.prefix_size :]
        return torch.cat([prefix.mean(1), rest.flatten(1, 2)], 1), grid

    def forward(self, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        sequences, one = grid.across(self.over), grid.along(self.over)
        pooled = self.pool(self.encode(x.reshape(x.shape[0] * sequences.size, one.size, x.shape[2]), one))
        return pooled.reshape(x.shape[0], sequences.size, -1), sequences


def make_features(encoders: Sequence[AnyEncoder], x: Tensor, grid: Grid) -> Tensor:
    """Tokens (B, N, D) on a grid -> what all encoders in turn make of them, (B, D'): the mean over the steps in time,
    where no encoder puts them together."""
    for encoder in encoders:
        x, grid = encoder(x, grid)
    return x.mean(1)


def step_tokens(encoders: Sequence[AnyEncoder], x: Tensor, grid: Grid) -> Tensor:
    """Tokens (B, N, D) on a grid -> those of each step in time after all encoders, without prefix: (B, t, h, w, D')."""
    for encoder in encoders[:-1]:
        x, grid = encoder(x, grid)
    prefix = 0
    for encoder in encoders[-1:]:
        x, grid = encoder.tokens(x, grid)
        prefix = encoder.prefix_size
    return x[:, prefix:].unflatten(1, tuple(grid))
