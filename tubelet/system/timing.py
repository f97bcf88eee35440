"""Fair times on a machine that is not ours alone: in turns, medians; and the kernels of a model, timed alone."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

Jobs = Mapping[str, Callable[[], object]]

now = time.perf_counter  # seconds; a benchmark on a machine that others use, too, may take `time.thread_time` instead


def interleaved(
    jobs: Jobs, *, runs: int = 7, seconds: float = 0.0, after: Callable[[str, float], None] = lambda name, took: None
) -> dict[str, list[float]]:
    """Seconds that each of some jobs takes, in turns, so that whatever else the machine does hits all of them alike.

    After a first time to warm up each runs at least `runs` times, then for as long as another turn of all would end
    before `seconds` have passed. `after` is told of each run, the first ones too.
    """
    took: dict[str, list[float]] = {name: [] for name in jobs}
    begun, turn = now(), -1
    while turn < runs or fits(begun, turn + 1, seconds):
        for name, job in jobs.items():
            start = now()
            job()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            passed = now() - start
            if turn >= 0:
                took[name].append(passed)
            after(name, passed)
        turn += 1
    return took


def fits(begun: float, turns: int, seconds: float) -> bool:
    """Whether one more turn, as long as those before it, ends in time."""
    passed = now() - begun
    return passed + passed / turns < seconds


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


def kernels_of(forward: Callable[[], object]) -> Counter[Kernel]:
    """The kernels of one forward pass, each with how often it runs."""
    with Kernels() as kernels, torch.inference_mode():
        forward()
    return kernels.found
