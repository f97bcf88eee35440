"""Positions of an image ViT in a video model: its position table, and the tokens before those of the grid."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tubelet.nn.grid import Grid
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.nn.position import resample
from tubelet.weights.dialects.rename import Link, split_rows
from tubelet.weights.dialects.timm import TOKENS
from tubelet.weights.dialects.vit import ENCODER, PREFIX, first_stage


def fill_positions(
    model: SpaceTimeTransformer,
    link: Link,
    image_grid: Sequence[int] | None,
    say_grid: Callable[[], Sequence[int] | None],
    *,
    as_scenic: bool,
) -> list[str]:
    """Fills the tables and prefix tokens of the first encoder; says what was done, a line for each piece.

    say_grid: (h, w) by what lies beside the weights, if that says it; called where their rows can be read in two ways.
    """
    flat = link.take("pos_embed")
    tokens = [(name, link.take(name)) for name in TOKENS if link.has(name)]
    source, count = source_grid(flat.shape[1], sum(token.shape[1] for _, token in tokens), image_grid, say_grid)
    rows, table = split_rows(flat, source, prefix=count)
    grid, stage = model.grid(model.config.clip).along("hw"), first_stage(model.config)
    how = f"taken, {grid.h} x {grid.w}"
    if grid != source:
        how = f"resampled from {source.h} x {source.w} to {grid.h} x {grid.w}"
        table = (
            corner_on_corner(table, grid)
            if as_scenic
            else resample(table, grid, keep_aspect=stage.keep_aspect, rule=stage.resampling)
        )
    own, report = model.state_dict(), []
    for i, axes in enumerate(stage.tables):
        name = f"{ENCODER}.position.tables.{i}"
        link.result[name] = along(table, axes).expand(own[name].shape)
        steps = own[name].shape[0]
        shared = f", the same at each of {steps} time steps" if axes != "t" and steps > 1 else ""
        share = f", the share of {axes} in the nearest sum" if axes in ("h", "w") else ""
        report.append(f"positions along {axes}: " + ("set to zero" if axes == "t" else how + shared + share))
    if not report:
        report = ["positions: left, the model makes its own for each size"]
    dropped = as_scenic and model.config.family == "vivit2"
    return report + fill_prefix(model, link, tokens, rows if count else None, dropped=dropped)


def along(table: Tensor, axes: str) -> Tensor:
    """The share of a table (1, h, w, D) that varies along `axes`: of "h" and "w", the nearest sum of two tables."""
    if axes == "t":
        return torch.zeros_like(table[:, :1, :1])
    if axes == "h":
        return table.mean(2, keepdim=True)
    if axes == "w":
        return table.mean(1, keepdim=True) - table.mean((1, 2), keepdim=True)
    return table


def corner_on_corner(table: Tensor, grid: Grid) -> Tensor:
    """Resizes positions as scenic does: bilinear, corner on corner."""
    _, h, w, _ = table.shape
    if h != w or grid.h != grid.w:
        raise ValueError(
            f"scenic resizes square tables of positions only, got {h} x {w} to {grid.h} x {grid.w}: leave parity out"
        )
    maps = F.interpolate(table.permute(0, 3, 1, 2), (grid.h, grid.w), mode="bilinear", align_corners=True)
    return maps.permute(0, 2, 3, 1)


def source_grid(
    count: int, prefix: int, image_grid: Sequence[int] | None, say_grid: Callable[[], Sequence[int] | None]
) -> tuple[Grid, int]:
    """Grid of a flat position table of `count` rows, and how many of them, all or none, belong to `prefix` tokens.

    A square grid is found. One without rows for the tokens is only believed where there is no other grid with them.
    """
    side, other = math.isqrt(count), squarest(count - prefix)
    if image_grid is None and prefix and side**2 == count and other:
        image_grid = say_grid()
        if image_grid is None or math.prod(image_grid) not in (count, count - prefix):
            raise ValueError(
                f"the image model has {count} position rows and {prefix} tokens before those of the grid: {side} x "
                f"{side} without rows for these, or {other[0]} x {other[1]} with: give image_grid=(h, w), such as "
                f"image_grid={(side, side)} or image_grid={other}, or put the config.json of the weights beside them"
            )
    for rows in dict.fromkeys((prefix, 0)):
        side = math.isqrt(max(count - rows, 0))
        sides = (side, side) if image_grid is None else tuple(image_grid)
        if count > rows and len(sides) == 2 and math.prod(sides) == count - rows:
            return Grid(1, *sides), rows
    of_token = " with the class token" if prefix else ""
    square = "no square grid" if image_grid is None else f"not those of image_grid={tuple(image_grid)}"
    raise ValueError(
        f"the image model has {count} position rows{of_token}, {square}: "
        f"give image_grid=(h, w), its height and width in patches"
    )


def squarest(cells: int) -> tuple[int, int] | None:
    """(h, w), both at least 2, of a grid of so many cells; None where there is none."""
    return next(((h, cells // h) for h in range(math.isqrt(max(cells, 0)), 1, -1) if cells % h == 0), None)


def fill_prefix(
    model: SpaceTimeTransformer,
    link: Link,
    tokens: Sequence[tuple[str, Tensor]],
    rows: Tensor | None,
    *,
    dropped: bool,
) -> list[str]:
    """Tokens before those of the grid, each with its row of positions; `dropped`: the row alone, as scenic has it."""
    prefix = model.state_dict().get(PREFIX)
    names = {"cls_token": "class token", "dist_token": "distillation token", "reg_token": "registers"}
    if prefix is None:
        return [f"{names[name]}: left, the model has no prefix" for name, _ in tokens]
    if not tokens:
        return ["class token: left fresh, the image model has none"]
    theirs = torch.cat([token for _, token in tokens], 1)
    if prefix.shape[1] not in (1, theirs.shape[1]):
        alone = ", or with 1 for the class token alone" if theirs.shape[1] > 1 else ""
        raise ValueError(
            f"the image model has {theirs.shape[1]} prefix tokens, the video model {prefix.shape[1]}: make it with "
            f"prefix={theirs.shape[1]}{alone}, or choose an image model with {prefix.shape[1]}"
        )
    theirs = torch.zeros_like(theirs) if dropped else theirs
    theirs = theirs if rows is None else theirs + rows
    link.result[PREFIX] = theirs[:, : prefix.shape[1]]
    taken = tokens if prefix.shape[1] == theirs.shape[1] else tokens[:1]
    how = "set to zero as scenic does" if dropped else "taken"
    folded = "" if rows is None else ", its position folded in"
    report = [f"{names[name]}: {how}{folded}" for name, _ in taken]
    return report + [f"{names[name]}: left, the model has no place for it" for name, _ in tokens[len(taken) :]]
