"""Position tables. A table is a grid too, (t0, h0, w0, D): its shape is the size it was made for."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tubelet.nn.grid import Grid


def sincos(grid: Grid, dim: int, *, temperature: float = 10_000.0) -> Tensor:
    """Sine-cosine table (t, h, w, D) of a grid; the channels are shared out equally among its axes longer than one.

    Each axis uses sines, then cosines, of geometrically falling frequencies; channels left over stay zero.
    Source: arXiv 1706.03762, section 3.5, for each axis.
    """
    table = torch.zeros(*grid, dim)
    axes = [axis for axis in range(3) if grid[axis] > 1]
    for slot, axis in enumerate(axes):
        pairs = dim // (2 * len(axes))
        frequency = temperature ** -(torch.arange(pairs) / pairs)
        angle = torch.arange(grid[axis])[:, None] * frequency
        wave = torch.cat([angle.sin(), angle.cos()], 1)
        shape = [1, 1, 1, 2 * pairs]
        shape[axis] = grid[axis]
        table[..., slot * 2 * pairs : (slot + 1) * 2 * pairs] = wave.view(shape)
    return table


def resample(table: Tensor, grid: Grid) -> Tensor:
    """Table (t0, h0, w0, D) -> (t, h, w, D): bicubic with antialias in space, linear in time, in float32.

    An axis of size 1 is shared along that axis and stays 1. At its own grid a table comes back as it is.
    """
    t0, h0, w0, _ = table.shape
    dtype = table.dtype
    if h0 * w0 > 1 and (h0, w0) != (grid.h, grid.w):
        maps = table.float().permute(0, 3, 1, 2)
        table = F.interpolate(maps, (grid.h, grid.w), mode="bicubic", antialias=True).permute(0, 2, 3, 1).to(dtype)
    if t0 > 1 and t0 != grid.t:
        lines = table.float().permute(1, 2, 3, 0).flatten(0, 1)
        lines = F.interpolate(lines, grid.t, mode="linear").unflatten(0, table.shape[1:3])
        table = lines.permute(3, 0, 1, 2).to(dtype)
    return table


class LearnedPosition(nn.Module):
    """Adds learned tables to the tokens, (B, N, D) -> (B, N, D), each resampled to the grid at hand.

    One table (t, h, w) is a joint position; (1, h, w) with (t, 1, 1) is space + time. They start at sine-cosine
    values: near positions are alike from the first step, which small data would else have to learn.
    """

    def __init__(self, dim: int, tables: Sequence[Grid]):
        super().__init__()
        self.tables = nn.ParameterList(nn.Parameter(sincos(Grid(*grid), dim)) for grid in tables)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        for table in self.tables:
            x = x + resample(table, grid).expand(*grid, -1).reshape(1, grid.size, -1)
        return x
