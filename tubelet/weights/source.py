"""Foreign weights while they are being converted: what is taken is counted, what is left over is an error."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tubelet.nn.grid import Grid
from tubelet.nn.model import ModelConfig


@dataclass(frozen=True, kw_only=True)
class Told:
    """What weights cannot tell of the model they are made for; see `from_reference`."""

    heads: int
    clip: tuple[int, int, int]
    family: str | None = None
    attend: str | None = None
    frames: int | None = None
    stride: tuple[int, int, int] | None = None

    def agree(self, **found: object) -> None:
        """Raises ValueError where something else was told than the weights themselves say."""
        for name, value in found.items():
            told = getattr(self, name)
            if told is not None and told != value:
                raise ValueError(f"got {name}={told!r}, but the weights say {value!r}: leave {name} out")


Converted = tuple[ModelConfig, dict[str, Tensor]]

WRAPPERS = ("optimizer/target/", "opt/target/", "params/", "param/", "module.", "model.")


class Source:
    """Tensors by their original names, without the wrappers that trainers put around them."""

    def __init__(self, state: Mapping[str, Tensor | np.ndarray[Any, Any]]):
        self.tensors = {
            name: torch.as_tensor(np.asarray(value) if not isinstance(value, Tensor) else value).float()
            for name, value in state.items()
        }
        for wrapper in WRAPPERS:
            if self.tensors and all(name.startswith(wrapper) for name in self.tensors):
                self.tensors = {name.removeprefix(wrapper): value for name, value in self.tensors.items()}

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.find(name).shape)

    def find(self, name: str) -> Tensor:
        if name not in self.tensors:
            some = ", ".join(sorted(self.tensors)[:6])
            raise ValueError(f"the weights have no tensor {name!r} (they begin with {some}): is the dialect right?")
        return self.tensors[name]

    def take(self, name: str) -> Tensor:
        value = self.find(name)
        del self.tensors[name]
        return value

    def count(self, pattern: str) -> int:
        """Number of layers: the first i for which no tensor's name begins with `pattern` filled with i."""
        i = 0
        while any(name.startswith(pattern.format(i)) for name in self.tensors):
            i += 1
        return i

    def finish(self, dialect: str) -> None:
        if self.tensors:
            names = "\n".join(f"  {name} {tuple(value.shape)}" for name, value in sorted(self.tensors.items())[:20])
            raise ValueError(
                f"{len(self.tensors)} tensors have no place in our {dialect} model, nothing was loaded:\n{names}"
            )


def split_positions(flat: Tensor, grid: Grid, *, prefix: int) -> tuple[Tensor, Tensor]:
    """(1, P + N, D) -> the P prefix rows (1, P, D) and the table (t, h, w, D)."""
    if flat.shape[1] != prefix + grid.size:
        raise ValueError(
            f"the position table has {flat.shape[1]} rows, expected {prefix} for prefix tokens and {grid.size} for "
            f"the grid {tuple(grid)}: is clip=(T, H, W) the size the weights were made for?"
        )
    return flat[:, :prefix], flat[0, prefix:].reshape(*grid, -1)


def config_of(family: str, state: dict[str, Tensor], told: Told) -> ModelConfig:
    """What our tensors, and what was told, say of their model; the rest is as in a fresh one."""
    kernel = state["embed.embed.proj.weight" if told.frames else "embed.proj.weight"]
    dim, channels, t, h, w = kernel.shape
    return ModelConfig(
        family=family,
        dim=dim,
        depth=depth_of(state, 0),
        heads=told.heads,
        mlp_dim=state["encoders.0.blocks.0.mlp.fc1.bias"].numel(),
        patch=(t, h, w),
        stride=told.stride,
        clip=told.clip,
        num_classes=state["head.bias"].numel(),
        channels=channels,
        frames=told.frames,
        temporal_depth=depth_of(state, 1),
    )


def depth_of(state: dict[str, Tensor], stage: int) -> int:
    return sum(name.startswith(f"encoders.{stage}.blocks.") and name.endswith("mlp_norm.weight") for name in state)


def linear(state: dict[str, Tensor], name: str, weight: Tensor, bias: Tensor) -> None:
    state[f"{name}.weight"], state[f"{name}.bias"] = weight.contiguous(), bias.contiguous()
