"""From a model to a program of torch.export, a .pt2 file."""

import copy
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from tubelet.export.onnx import quiet
from tubelet.nn.attention import Turns
from tubelet.nn.grid import Grid
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.nn.position import LearnedPosition, resample_space, resample_time

CLOSE = 1e-4  # of the largest logit: a program that is off by more at another size is bound to its own
FREE = ("THW", "HW", "T", "")  # axes that may have any size: the first that a model allows


def write_program(model: SpaceTimeTransformer, file: Path, *, clip: Tensor) -> str:
    """Writes the model for any number of clips like `clip`, (B, C, T, H, W) -> logits (B, classes), in float32.

    Returns: the axes, of "THW", along which clips may have any size that whole tubelets fill.
    """
    two = clip[:1].repeat(2, 1, 1, 1, 1)  # a batch of one would be taken for a constant
    asked = list_axes(model, clip)
    with quiet(), torch.no_grad():
        for axes in asked:
            program = trace(model, two, axes)
            if program is not None and all(answers_alike(program, model, two, axes, steps) for steps in (1, -1)):
                break
    assert program is not None
    torch.export.save(program, file)
    return axes


def list_axes(model: SpaceTimeTransformer, clip: Tensor) -> list[str]:
    """Axes to be tried in turn. An axis of size 1 stays so; windows are cut by the size, which takes torch minutes to
    find out."""
    if any(stage.kind == "windows" for stage in model.config.stages):
        return [""]
    long = [axis for axis, size in zip("THW", clip.shape[2:], strict=True) if size > 1]
    return list(dict.fromkeys("".join(axis for axis in axes if axis in long) for axes in FREE))


def trace(model: SpaceTimeTransformer, clip: Tensor, axes: str) -> ExportedProgram | None:
    """The program of a model for clips of any size along some axes; None where the model is bound to one."""
    free = {number: Dim.DYNAMIC for number, axis in enumerate("BCTHW") if axis in f"B{axes}"}
    try:
        program = torch.export.export(resample_always(model) if axes else model, (clip,), dynamic_shapes=(free,))
    except Exception:  # torch has errors of many kinds for this
        if not axes:
            raise
        return None
    program.example_inputs = None  # they would be in the file
    return program


def answers_alike(program: ExportedProgram, model: SpaceTimeTransformer, clip: Tensor, axes: str, steps: int) -> bool:
    """Whether a program answers as its model where clips are so many steps of tubelets longer along some axes; none
    becomes shorter than two tubelets: torch takes one for another case."""
    patch, stride = model.embed.patch, model.embed.stride
    sizes = [
        max(size + steps * step, least + step) if axis in axes else size
        for axis, size, least, step in zip("THW", clip.shape[2:], patch, stride, strict=True)
    ]
    other = clip.repeat(1, 1, 2, 2, 2)[:, :, : sizes[0], : sizes[1], : sizes[2]]
    try:
        found, right = program.module()(other), model(other)
    except Exception:  # the program's own guards; each raises errors of its own
        return False
    return bool((found - right).abs().max() <= CLOSE * right.abs().max())


def resample_always(model: SpaceTimeTransformer) -> SpaceTimeTransformer:
    """A copy of the model whose position tables are resampled by operations alone."""
    free = copy.deepcopy(model)
    for encoder in free.encoders:
        position = encoder.position if hasattr(encoder, "position") else None
        if isinstance(position, LearnedPosition) and not position.resample.keywords["keep_aspect"]:
            encoder.position = ResampledPosition(position)
    return free


class ResampledPosition(nn.Module):
    """`LearnedPosition` in a program for clips of any size, (B, N, D) -> (B, N, D).

    Tables are resampled at their own grid, too, which gives them back as they are: to leave them alone there would be
    a choice by size, and a program has none.
    """

    def __init__(self, position: LearnedPosition):
        super().__init__()
        self.position, self.rule = position, position.resample.keywords["rule"]

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        for table in self.position.tables:
            x = x + resample(table, grid, self.rule).expand(*grid, -1).reshape(1, grid.size, -1)
        return x

    def turns(self, x: Tensor, grid: Grid) -> Turns | None:
        return self.position.turns(x, grid)


def resample(table: Tensor, grid: Grid, rule: str) -> Tensor:
    """`resample` of `tubelet.nn.position`, (t0, h0, w0, D) -> (t, h, w, D), without its choices by size."""
    t0, h0, w0, _ = table.shape
    if max(h0, w0) > 1:
        table = resample_space(table, (grid.h if h0 > 1 else 1, grid.w if w0 > 1 else 1), rule)
    return resample_time(table, grid.t, rule) if t0 > 1 else table
