"""Positions on the token grid. A table is a grid too, (t0, h0, w0, D): its shape is the size it was made for."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tubelet.nn.attention import Turns
from tubelet.nn.cache import Cache
from tubelet.nn.config import Stage
from tubelet.nn.grid import Grid

KEPT_SIZES = 8  # resampled tables that a model remembers
# How tables are resampled, by name: torch's mode in space, and whether what shrinks is smoothed first, in time too.
# Our own and timm's; of Hugging Face's SigLIP; of VideoPrism and NaFlex; of Perception Encoder's own program.
RESAMPLINGS = {
    "bicubic": ("bicubic", True),
    "bicubic-sharp": ("bicubic", False),
    "bilinear": ("bilinear", True),
    "bilinear-sharp": ("bilinear", False),
}


class Rotary(NamedTuple):
    """A kind of rotary positions.

    places: of `n` tokens along an axis, (n,), by its name and by how many it has in the grid a model is made for
    temperature: of the frequencies
    tiled: the two channels of a pair turn by different angles
    """

    places: Callable[[str, int, int], Tensor]
    temperature: float = 10_000.0
    tiled: bool = False


def count_up(axis: str, n: int, source: int) -> Tensor:
    return torch.arange(n, dtype=torch.float32)


def count_from_one(axis: str, n: int, source: int) -> Tensor:
    return torch.arange(1, n + 1, dtype=torch.float32)


def scale_to_source(axis: str, n: int, source: int) -> Tensor:
    return torch.arange(1, n + 1, dtype=torch.float32) / n * source


def span_sixteen(axis: str, n: int, source: int) -> Tensor:
    """Height and width are 0 to 15 from end to end; a single row or column is at 0."""
    places = count_up(axis, n, source)
    return places if axis == "t" or n == 1 else places * (15 / (n - 1))


def centre(axis: str, n: int, source: int) -> Tensor:
    """Middles of tokens, the ends of the axis at -2 pi and 2 pi."""
    return 2 * math.pi * ((torch.arange(n, dtype=torch.float32) + 0.5) / n * 2 - 1)


ROTARIES = {
    "rotary": Rotary(count_up),  # arXiv 2104.09864
    "rotary-tiled": Rotary(count_up, tiled=True),  # V-JEPA 2, arXiv 2506.09985
    "rotary-span": Rotary(span_sixteen),  # V-JEPA 2.1, arXiv 2603.14482
    "rotary-one": Rotary(count_from_one),  # Perception Encoder, arXiv 2504.13181: what is not turned is at 0
    "rotary-slow": Rotary(count_from_one, 20_000.0),  # its video encoder: the class token, which is not turned, is at 0
    "rotary-scaled": Rotary(scale_to_source),  # the same in timm
    "rotary-centred": Rotary(centre, 100.0),  # DINOv3, arXiv 2508.10104
}
KINDS = ("learned", "fixed", "sincos", *ROTARIES)
BOUND = ("learned", "fixed", "rotary-scaled")  # to the grid that a model is made for


def sincos(grid: Grid, dim: int, *, axes: str | None = None, temperature: float = 10_000.0) -> Tensor:
    """Sine-cosine table (t, h, w, D) of a grid; its channels are shared out equally among `axes`, or, left out, among
    the axes longer than one.

    Each axis uses sines, then cosines, of geometrically falling frequencies; channels left over stay zero.
    Source: arXiv 1706.03762, section 3.5, for each axis.
    """
    axes = "".join(axis for axis in "thw" if (getattr(grid, axis) > 1 if axes is None else axis in axes))

    def count(axis: str) -> Tensor:
        return torch.arange(getattr(grid, axis))

    return lay_out(grid, dim, axes, count, lambda angle: torch.cat([angle.sin(), angle.cos()], 1), temperature)


def rotary(grid: Grid, dim: int, *, axes: str = "thw", kind: str = "rotary", source: Grid | None = None) -> Turns:
    """Cosines and sines (N, dim) that turn the channels of queries and keys, in pairs, by the position of their token.

    The channels are shared out equally among `axes`, in pairs; those left over are not turned. `kind`: a name in
    `ROTARIES`; `source`: the grid that a model is made for, the same if left out.
    Source: arXiv 2104.09864, eq. 34, for each axis.
    """
    made = ROTARIES[kind]

    def places(axis: str) -> Tensor:
        return made.places(axis, getattr(grid, axis), getattr(source or grid, axis))

    pairs = (lambda angle: angle.repeat(1, 2)) if made.tiled else (lambda angle: angle.repeat_interleave(2, 1))
    angles = lay_out(grid, dim, axes, places, pairs, made.temperature)
    return Turns(angles.flatten(0, 2).cos(), angles.flatten(0, 2).sin(), alike=not made.tiled)


def lay_out(
    grid: Grid,
    dim: int,
    axes: str,
    places: Callable[[str], Tensor],
    wave: Callable[[Tensor], Tensor],
    temperature: float,
) -> Tensor:
    """Table (t, h, w, D) whose channels are shared out among `axes`: the `wave`, (n, p) -> (n, 2 p), of angles that
    grow with the `places` along the axis, each slower than the one before; channels left over are zero."""
    table = torch.zeros(*grid, dim)
    if table.is_meta:  # a shape alone; torch takes seconds to get ready for arithmetic on those
        return table
    pairs = dim // (2 * max(1, len(axes)))
    for slot, axis in enumerate(axes):
        angle = places(axis)[:, None] * temperature ** -(torch.arange(pairs) / pairs)
        share = slice(slot * 2 * pairs, (slot + 1) * 2 * pairs)
        table[..., share] = wave(angle).view(*grid.along(axis), 2 * pairs)
    return table


def resample(table: Tensor, grid: Grid, *, keep_aspect: bool = False, rule: str = "bicubic") -> Tensor:
    """Table (t0, h0, w0, D) -> (t, h, w, D): in space by the `rule` in `RESAMPLINGS`, linear in time, at least in
    float32.

    An axis of size 1 is shared along that axis and stays 1. At its own grid a table comes back as it is. `keep_aspect`
    scales height and width alike, just so far that the table covers the grid, and takes the middle.
    Source for keep_aspect: timm's NaFlexViT, which takes the corner.
    """
    t0, h0, w0, _ = table.shape
    h, w = (grid.h if h0 > 1 else 1), (grid.w if w0 > 1 else 1)
    if (h0, w0) != (h, w):
        scale = max(now / source for now, source in ((h, h0), (w, w0)) if source > 1)
        size = (math.ceil(h0 * scale - 1e-6), math.ceil(w0 * scale - 1e-6)) if keep_aspect else (h, w)
        size = (size[0] if h0 > 1 else 1, size[1] if w0 > 1 else 1)
        top, left = (size[0] - h) // 2, (size[1] - w) // 2
        table = resample_space(table, size, rule)[:, top : top + h, left : left + w]
    return resample_time(table, grid.t, rule) if t0 not in (1, grid.t) else table


def resample_space(table: Tensor, size: tuple[int, int], rule: str) -> Tensor:
    """Table (t, h0, w0, D) -> (t, h, w, D)."""
    mode, smooth = RESAMPLINGS[rule]
    maps = table.to(torch.promote_types(table.dtype, torch.float32)).permute(0, 3, 1, 2)
    return F.interpolate(maps, size, mode=mode, antialias=smooth).permute(0, 2, 3, 1).to(table.dtype)


def resample_time(table: Tensor, steps: int, rule: str) -> Tensor:
    """Table (t0, h, w, D) -> (t, h, w, D)."""
    mode, smooth = RESAMPLINGS[rule]
    lines = table.to(torch.promote_types(table.dtype, torch.float32)).permute(1, 2, 3, 0).flatten(0, 1)
    if rule == "bilinear":  # what smooths takes maps alone, here of (D, t)
        lines = F.interpolate(lines[None], (lines.shape[1], steps), mode=mode, antialias=smooth)[0]
    else:
        lines = F.interpolate(lines, steps, mode="linear")
    return lines.unflatten(0, table.shape[1:3]).permute(3, 0, 1, 2).to(table.dtype)


class LearnedPosition(nn.Module):
    """Adds tables to the tokens, (B, N, D) -> (B, N, D), each resampled to the grid at hand.

    One table (t, h, w) is a joint position; (1, h, w) with (t, 1, 1) is space + time; (t, 1, 1) with (1, h, 1) and
    (1, 1, w) is one for each axis. They start at sine-cosine values: near positions are alike from the first step,
    which small data would else have to learn. Without `trained` they stay as they are. `turning`: queries and keys are
    turned as well.

    Outside training the tables of the last few sizes are remembered for as long as the parameters hold the same values.
    """

    def __init__(
        self,
        dim: int,
        tables: Sequence[Grid],
        *,
        trained: bool = True,
        keep_aspect: bool = False,
        resampling: str = "bicubic",
        turning: "RotaryPosition | None" = None,
    ):
        super().__init__()
        if resampling not in RESAMPLINGS:
            raise ValueError(f"unknown resampling {resampling!r}: expected one of {', '.join(RESAMPLINGS)}")
        self.resample = partial(resample, keep_aspect=keep_aspect, rule=resampling)
        self.turning = turning
        self.tables = nn.ParameterList(nn.Parameter(sincos(Grid(*grid), dim), trained) for grid in tables)
        self.seen: list[Tensor] = []  # the tables' values that the remembered ones are made from
        self.remembered: Cache[Tensor] = Cache(KEPT_SIZES)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        return x + self.at(grid) if len(self.tables) else x

    def turns(self, x: Tensor, grid: Grid) -> Turns | None:
        return self.turning.turns(x, grid) if self.turning else None

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
        first, *rest = (self.resample(table, grid).expand(*grid, -1) for table in self.tables)
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
    """Leaves the tokens as they are and gives the turns of queries and keys (`Attention`) for the grid at hand.

    `kind`: a name in `ROTARIES`; `source`: the grid that the model is made for.
    """

    def __init__(self, head_dim: int, axes: str, *, kind: str = "rotary", source: Grid | None = None):
        super().__init__()
        if head_dim % 2 or head_dim < 2 * len(axes):
            raise ValueError(
                f"rotary positions turn pairs of channels along {axes!r}, got {head_dim} channels in a head: "
                f"choose an even number of at least {2 * len(axes)}"
            )
        self.head_dim, self.axes, self.kind, self.source = head_dim, axes, kind, source

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        return x

    def turns(self, x: Tensor, grid: Grid) -> Turns:
        cos, sin, alike = rotary(grid, self.head_dim, axes=self.axes, kind=self.kind, source=self.source)
        return Turns(cos.to(x), sin.to(x), alike)


def make_position(stage: Stage, grid: Grid) -> LearnedPosition | SinCosPosition | RotaryPosition:
    """The positions of a stage; `grid` is the one that tables are made for. Raises ValueError for an unknown kind."""
    if stage.position not in KINDS:
        raise ValueError(f"unknown position {stage.position!r}: expected one of {', '.join(KINDS)}")
    if stage.position == "sincos":
        return SinCosPosition(stage.dim, stage.over)
    turning = None
    if stage.position in ROTARIES:
        turning = RotaryPosition(
            stage.head_dim or stage.dim // stage.heads, stage.over, kind=stage.position, source=grid
        )
        if not stage.tables:
            return turning
    tables = [grid.along(axes) for axes in stage.tables]
    how: dict[str, Any] = {"keep_aspect": stage.keep_aspect, "resampling": stage.resampling, "turning": turning}
    return LearnedPosition(stage.dim, tables, trained=stage.position != "fixed", **how)
