"""Positions on the token grid. A table is a grid too, (t0, h0, w0, D): its shape is the size it was made for."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tubelet.nn.attention import Turns
from tubelet.nn.cache import Cache
from tubelet.nn.config import Stage
from tubelet.nn.grid import Grid

KINDS = ("learned", "fixed", "sincos", "rotary", "rotary-tiled")
KEPT_SIZES = 8  # resampled tables that a model remembers


def sincos(grid: Grid, dim: int, *, axes: str | None = None, temperature: float = 10_000.0) -> Tensor:
    """Sine-cosine table (t, h, w, D) of a grid; its channels are shared out equally among `axes`, or, left out, among
    the axes longer than one.

    Each axis uses sines, then cosines, of geometrically falling frequencies; channels left over stay zero.
    Source: arXiv 1706.03762, section 3.5, for each axis.
    """
    axes = "".join(axis for axis in "thw" if (getattr(grid, axis) > 1 if axes is None else axis in axes))
    return lay_out(grid, dim, axes, lambda angle: torch.cat([angle.sin(), angle.cos()], 1), temperature)


def rotary(grid: Grid, dim: int, *, axes: str = "thw", tiled: bool = False, temperature: float = 10_000.0) -> Turns:
    """Cosines and sines (N, dim) that turn the channels of queries and keys, in pairs, by the position of their token.

    The channels are shared out equally among `axes`, in pairs; those left over are not turned. `tiled` lays the angles
    out as V-JEPA 2 does, whose two channels of a pair turn by different angles.
    Source: arXiv 2104.09864, eq. 34, for each axis; arXiv 2506.09985, section 2.1.
    """
    pairs = (lambda angle: angle.repeat(1, 2)) if tiled else (lambda angle: angle.repeat_interleave(2, 1))
    angles = lay_out(grid, dim, axes, pairs, temperature)
    return angles.flatten(0, 2).cos(), angles.flatten(0, 2).sin()


def lay_out(grid: Grid, dim: int, axes: str, wave: Callable[[Tensor], Tensor], temperature: float) -> Tensor:
    """Table (t, h, w, D) whose channels are shared out among `axes`: the `wave`, (n, p) -> (n, 2 p), of angles that
    grow along the axis, each slower than the one before; channels left over are zero."""
    table = torch.zeros(*grid, dim)
    if table.is_meta:  # a shape alone; torch takes seconds to get ready for arithmetic on those
        return table
    pairs = dim // (2 * max(1, len(axes)))
    for slot, axis in enumerate(axes):
        angle = torch.arange(getattr(grid, axis))[:, None] * temperature ** -(torch.arange(pairs) / pairs)
        share = slice(slot * 2 * pairs, (slot + 1) * 2 * pairs)
        table[..., share] = wave(angle).view(*grid.along(axis), 2 * pairs)
    return table


def resample(table: Tensor, grid: Grid, *, keep_aspect: bool = False) -> Tensor:
    """Table (t0, h0, w0, D) -> (t, h, w, D): bicubic with antialias in space, linear in time, at least in float32.

    An axis of size 1 is shared along that axis and stays 1. At its own grid a table comes back as it is. `keep_aspect`
    scales height and width alike, just so far that the table covers the grid, and takes the middle.
    Source for keep_aspect: timm's NaFlexViT, which takes the corner.
    """
    dtype, fine = table.dtype, torch.promote_types(table.dtype, torch.float32)
    t0, h0, w0, _ = table.shape
    h, w = (grid.h if h0 > 1 else 1), (grid.w if w0 > 1 else 1)
    if (h0, w0) != (h, w):
        scale = max(now / source for now, source in ((h, h0), (w, w0)) if source > 1)
        size = (math.ceil(h0 * scale - 1e-6), math.ceil(w0 * scale - 1e-6)) if keep_aspect else (h, w)
        size = (size[0] if h0 > 1 else 1, size[1] if w0 > 1 else 1)
        maps = F.interpolate(table.to(fine).permute(0, 3, 1, 2), size, mode="bicubic", antialias=True)
        top, left = (size[0] - h) // 2, (size[1] - w) // 2
        table = maps[:, :, top : top + h, left : left + w].permute(0, 2, 3, 1).to(dtype)
    if t0 > 1 and t0 != grid.t:
        lines = table.to(fine).permute(1, 2, 3, 0).flatten(0, 1)
        lines = F.interpolate(lines, grid.t, mode="linear").unflatten(0, table.shape[1:3])
        table = lines.permute(3, 0, 1, 2).to(dtype)
    return table


class LearnedPosition(nn.Module):
    """Adds tables to the tokens, (B, N, D) -> (B, N, D), each resampled to the grid at hand.

    One table (t, h, w) is a joint position; (1, h, w) with (t, 1, 1) is space + time; (t, 1, 1) with (1, h, 1) and
    (1, 1, w) is one for each axis. They start at sine-cosine values: near positions are alike from the first step,
    which small data would else have to learn. Without `trained` they stay as they are.

    Outside training the tables of the last few sizes are remembered for as long as the parameters hold the same values.
    """

    def __init__(self, dim: int, tables: Sequence[Grid], *, trained: bool = True, keep_aspect: bool = False):
        super().__init__()
        self.keep_aspect = keep_aspect
        self.tables = nn.ParameterList(nn.Parameter(sincos(Grid(*grid), dim), trained) for grid in tables)
        self.seen: list[Tensor] = []  # the tables' values that the remembered ones are made from
        self.remembered: Cache[Tensor] = Cache(KEPT_SIZES)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        return x + self.at(grid) if len(self.tables) else x

    def turns(self, x: Tensor, grid: Grid) -> None:
        return None

    def at(self, grid: Grid) -> Tensor:
        """The sum of the tables at a grid, (1, N, D)."""
        if len(self.tables) == 1 and self.tables[0].shape[:3] == grid:
            return self.tables[0].view(1, grid.size, -1)
        if torch.compiler.is_compiling() or not all(can_cache(table) for table in self.tables):
            return self.sum(grid)
        # The values are compared: fused optimizers and writes through `.data` leave the version counter as it is.
        pairs = zip(self.seen, self.tables, strict=bool(self.seen))
        if not self.seen or not all(old.dtype == new.dtype and torch.equal(old, new) for old, new in pairs):
            self.seen = [table.detach().clone() for table in self.tables]
            self.remembered = Cache(KEPT_SIZES)
        return self.remembered.get(grid, lambda: self.sum(grid).detach())

    def sum(self, grid: Grid) -> Tensor:
        first, *rest = (resample(table, grid, keep_aspect=self.keep_aspect).expand(*grid, -1) for table in self.tables)
        return sum(rest, first).reshape(1, grid.size, -1)


def can_cache(table: Tensor) -> bool:
    """Whether a resampled table may be kept: on the CPU alone, where comparing is quick and resampling slow.

    Not while it learns; not for the stand-ins of functional calls and sharding.
    """
    learning = torch.is_grad_enabled() and table.requires_grad
    return type(table) is nn.Parameter and table.device.type == "cpu" and not learning


class SinCosPosition(nn.Module):
    """Adds a sine-cosine table made for the grid at hand, (B, N, D) -> (B, N, D): nothing is stored or resampled."""

    def __init__(self, dim: int, axes: str):
        super().__init__()
        self.dim, self.axes = dim, axes

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        return x + sincos(grid, self.dim, axes=self.axes).to(x).view(1, grid.size, -1)

    def turns(self, x: Tensor, grid: Grid) -> None:
        return None


class RotaryPosition(nn.Module):
    """Leaves the tokens as they are and gives the turns of queries and keys (`Attention`) for the grid at hand."""

    def __init__(self, head_dim: int, axes: str, *, tiled: bool):
        super().__init__()
        if head_dim % 2 or head_dim < 2 * len(axes):
            raise ValueError(
                f"rotary positions turn pairs of channels along {axes!r}, got {head_dim} channels in a head: "
                f"choose an even number of at least {2 * len(axes)}"
            )
        self.head_dim, self.axes, self.tiled = head_dim, axes, tiled

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        return x

    def turns(self, x: Tensor, grid: Grid) -> Turns:
        cos, sin = rotary(grid, self.head_dim, axes=self.axes, tiled=self.tiled)
        return cos.to(x), sin.to(x)


def make_position(stage: Stage, grid: Grid) -> LearnedPosition | SinCosPosition | RotaryPosition:
    """The positions of a stage; `grid` is the one that tables are made for. Raises ValueError for an unknown kind."""
    if stage.position not in KINDS:
        raise ValueError(f"unknown position {stage.position!r}: expected one of {', '.join(KINDS)}")
    if stage.position == "sincos":
        return SinCosPosition(stage.dim, stage.over)
    if stage.position.startswith("rotary"):
        return RotaryPosition(stage.dim // stage.heads, stage.over, tiled=stage.position == "rotary-tiled")
    tables = [grid.along(axes) for axes in stage.tables]
    return LearnedPosition(stage.dim, tables, trained=stage.position == "learned", keep_aspect=stage.keep_aspect)
