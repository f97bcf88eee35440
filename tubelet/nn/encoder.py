"""Encoders: what a transformer does to the tokens of a grid."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from tubelet.nn.block import Block, make_norm
from tubelet.nn.config import Stage
from tubelet.nn.convolution import ConvMix
from tubelet.nn.grid import AXES, Grid
from tubelet.nn.pool import make_pool
from tubelet.nn.position import make_position

NORMS = ("tokens", "pooled", "both", "none")


class AnyEncoder(Protocol):
    """The methods of all encoders."""

    out_dim: int  # channels that it gives
    prefix_size: int  # tokens before those of the grid
    over: str  # axes that one sequence spans
    pools: bool  # whether it makes one token of each sequence
    blocks: Sequence[nn.Module]  # its own, in the order of the forward pass
    layers: Sequence[nn.Module]  # its blocks and those of its pooling

    def tokens(self, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        """All tokens, (B, N, D) -> (B, P + N', D'), and their grid."""

    def __call__(self, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        """A token for each sequence, (B, N, D) -> (B, sequences, out_dim), and their grid; all, if it does not pool."""


def grid_after(encoder: AnyEncoder, grid: Grid) -> Grid:
    """The grid of what an encoder makes of tokens on a grid, but for Swin's own."""
    return grid.across(encoder.over) if encoder.pools else grid


class Encoder(nn.Module):
    """Positions, prefix tokens, blocks, norm and pooling over the axes that a stage spans.

    (B, N, D), Grid(t, h, w) -> over "thw": (B, 1, D), Grid(1, 1, 1); over "hw": (B, t, D), Grid(t, 1, 1); over "t":
    (B, h * w, D), Grid(1, h, w); with pool "none": (B, N, D) on the same grid, without prefix. `grid` is the one that
    position tables are made for.
    """

    def __init__(self, stage: Stage, grid: Grid):
        super().__init__()
        if stage.norm not in NORMS:
            raise ValueError(f"unknown norm {stage.norm!r}: expected one of {', '.join(NORMS)}")
        if stage.over not in AXES:
            raise ValueError(f"got over={stage.over!r}, expected one of {', '.join(AXES)}")
        if stage.levels and (sorted({*stage.levels}) != [*stage.levels] or stage.levels[-1] != stage.depth - 1):
            raise ValueError(f"got levels={stage.levels}, expected rising numbers of blocks up to {stage.depth - 1}")
        self.over, self.prefix_size, self.pools = stage.over, stage.prefix, stage.pool != "none"
        self.position = make_position(stage, grid)
        self.prefix = nn.Parameter(torch.zeros(1, stage.prefix, stage.dim)) if stage.prefix else None
        if stage.conv and stage.over != "t":
            raise ValueError(f"got conv with over={stage.over!r}: only tokens along time, 't', lie in one line")
        self.take = nn.Linear(stage.takes, stage.dim) if stage.takes else nn.Identity()
        self.norm_first = make_norm(stage) if stage.norm_first else nn.Identity()
        self.mix = ConvMix(stage.dim, eps=stage.eps) if stage.conv else nn.Identity()
        self.dropout = nn.Dropout(0.0)
        self.blocks = nn.ModuleList(Block(stage) for _ in range(stage.depth))
        self.level_norms = nn.ModuleList(make_norm(stage) for _ in stage.levels[:-1])
        self.levels = stage.levels
        self.level_norms.requires_grad_(False)  # read out, and no part of what is trained
        in_tokens = stage.norm in ("tokens", "both")
        self.norm = make_norm(stage) if in_tokens else nn.Identity()
        self.pool = make_pool(stage)
        self.out_dim = self.pool.out_dim

    @property
    def layers(self) -> tuple[nn.Module, ...]:
        return (*self.blocks, *self.pool.layers)

    def encode(self, x: Tensor, grid: Grid) -> Tensor:
        """All tokens of one sequence after the last norm: (B, N, D) -> (B, P + N, D)."""
        turns = self.position.turns(x, grid)
        x = self.position(self.take(x), grid)
        if self.prefix is not None:
            x = torch.cat([self.prefix.expand(x.shape[0], -1, -1), x], 1)
        x = self.mix(self.dropout(self.norm_first(x)))
        for block in self.blocks:
            x = block(x, grid, turns)
        return self.norm(x)

    def tokens(self, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        """All tokens of the grid: (B, N, D) -> (B, P + N, D), Grid; a prefix of several sequences is their mean."""
        sequences = grid.across(self.over)
        if sequences.size == 1:
            return self.encode(x, grid), grid
        rows = self.encode_each(x, grid).unflatten(0, (x.shape[0], -1))
        prefix, rest = rows[:, :, : self.prefix_size], rows[:, :, self.prefix_size :]
        rest = rest.transpose(1, 2) if self.over == "t" else rest
        return torch.cat([prefix.mean(1), rest.flatten(1, 2)], 1), grid

    def encode_each(self, x: Tensor, grid: Grid) -> Tensor:
        """All tokens of each sequence: (B, N, D) -> (B * sequences, P + n, D)."""
        if self.over == "t":  # the places of a frame lie side by side
            x = x.unflatten(1, (grid.t, -1)).transpose(1, 2)
        one = grid.along(self.over)
        return self.encode(x.reshape(x.shape[0] * grid.across(self.over).size, one.size, x.shape[-1]), one)

    def forward(self, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        if not self.pools:
            return self.tokens(x, grid)[0][:, self.prefix_size :], grid
        sequences = grid.across(self.over)
        return self.pool(self.encode_each(x, grid)).reshape(x.shape[0], sequences.size, -1), sequences


def run_encoders(encoders: Sequence[AnyEncoder], x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
    """Tokens (B, N, D) on a grid -> what the encoders in turn make of them, and its grid."""
    for encoder in encoders:
        x, grid = encoder(x, grid)
    return x, grid


def make_features(encoders: Sequence[AnyEncoder], x: Tensor, grid: Grid) -> Tensor:
    """Tokens (B, N, D) on a grid -> what all encoders in turn make of them, (B, D'): the mean over the steps in time,
    where no encoder puts them together."""
    return run_encoders(encoders, x, grid)[0].mean(1)


def step_tokens(encoders: Sequence[AnyEncoder], x: Tensor, grid: Grid) -> Tensor:
    """Tokens (B, N, D) on a grid -> those of each step in time after all encoders, without prefix: (B, t, h, w, D')."""
    x, grid = run_encoders(encoders[:-1], x, grid)
    prefix = 0
    for encoder in encoders[-1:]:
        x, grid = encoder.tokens(x, grid)
        prefix = encoder.prefix_size
    return x[:, prefix:].unflatten(1, tuple(grid))
