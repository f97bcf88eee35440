"""The kernels of a model, to be timed alone: what a forward pass would take if all else took no time."""

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map


class Layout(NamedTuple):
    """A tensor without its values."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


class Kernel(NamedTuple):
    """A product, softmax or attention, and what it is given; alike ones are equal."""

    call: Callable[..., Tensor]
    arguments: tuple[Any, ...]
    named: tuple[tuple[str, Any], ...]

    def job(self) -> Callable[[], Tensor]:
        """The kernel alone, on random values laid out as the model's were."""
        arguments, named = tree_map(filled, self.arguments, is_leaf=is_layout), dict(self.named)
        return lambda: self.call(*arguments, **named)


def is_layout(value: object) -> bool:
    return isinstance(value, Layout)


def filled(value: Any) -> Any:
    if not isinstance(value, Layout):
        return value
    last = sum((size - 1) * step for size, step in zip(value.shape, value.stride, strict=True))
    return torch.randn(last + 1, dtype=value.dtype, device=value.device).as_strided(value.shape, value.stride)


class Kernels(TorchFunctionMode):
    """Counts the kernels of the forward passes inside it: matrix products, convolutions, softmaxes, attentions."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[Kernel] = Counter()
        self.calls: set[object] = {F.linear, torch.ops.mkldnn._linear_pointwise, F.conv3d, Tensor.matmul}
        self.calls |= {F.scaled_dot_product_attention, Tensor.softmax}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        if func in self.calls:
            arguments = tree_map(layout, args)
            self.found[Kernel(func, hashable(arguments), tuple(sorted(named.items())))] += 1
        return func(*args, **named)


def layout(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return Layout(tuple(value.shape), value.stride(), value.dtype, value.device)


def hashable(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(tuple(value) if isinstance(value, list) else value for value in arguments)


def count_kernels(forward: Callable[[], object]) -> Counter[Kernel]:
    """The kernels of one forward pass, each with how often it runs."""
    with Kernels() as kernels, torch.inference_mode():
        forward()
    return kernels.found
