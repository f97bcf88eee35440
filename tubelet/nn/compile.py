"""Blocks that torch compiles where they stand: one program for all of a kind, the same weights, the same answers.

A model is its blocks, dozens alike, and little else. To compile one kind of block takes seconds where a whole model
takes minutes; what looks at a model between its blocks (hooks, streams, sharding) finds it as it was.
"""

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from types import FunctionType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from tubelet.nn.model import SpaceTimeTransformer
    from tubelet.nn.split import Rest

LEAST_SECONDS = 300.0  # of a training, which repay a compilation of up to a minute


class Compiler:
    """A backend of `torch.compile` that is asked no more once it failed, which is told once."""

    def __init__(self, backend: str | Callable[..., Any], tell: Callable[[str], object]):
        self.backend, self.tell, self.failed = backend, tell, False

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        found = torch._dynamo.lookup_backend(self.backend) if isinstance(self.backend, str) else self.backend
        with compile_backward_too():
            return found(graph, inputs)

    def give_up(self, error: Exception) -> None:
        if not self.failed:
            self.failed = True
            cause = getattr(error, "inner_exception", error)
            first = str(cause).strip().splitlines() or [""]
            self.tell(f"blocks are not compiled, and run as they are: {type(cause).__name__}: {first[0][:200]}")


def compile_backward_too() -> Any:
    """Inside, the backward pass is compiled with the forward pass, where this torch can: what fails does so there."""
    import torch._functorch.config as config

    name = "force_non_lazy_backward_lowering"
    return config.patch(name, True) if hasattr(config, name) else nullcontext()


class Program:
    """The compiled program of all blocks of a kind. A copy of a block, or one that was pickled, has none."""

    def __init__(self, block: Any, number: int, compiler: Compiler):
        code = block.run.__code__.replace(co_name=f"run_{number}")  # torch counts programs, and learns sizes, by code
        self.plain, self.compiler = block.run, compiler
        self.compiled = torch.compile(
            FunctionType(code, block.run.__globals__), backend=compiler, dynamic=block.dynamic
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()

    def __call__(self, block: nn.Module, *given: Any) -> Tensor:
        if not self.compiler.failed and not is_watched():
            try:
                return self.compiled(block, *given)
            except torch._dynamo.exc.TorchDynamoException as error:
                self.compiler.give_up(error)
        return self.plain(block, *given)


def is_watched() -> bool:
    """Whether something wants to see each function or kernel by itself: an explanation, a counter, another compiler."""
    return bool(
        torch.compiler.is_compiling()
        or torch._C._len_torch_function_stack()
        or torch._C._len_torch_dispatch_stack()
        or torch.jit.is_tracing()
    )


def compile_blocks(
    model: "SpaceTimeTransformer | Rest",
    *,
    backend: str | Callable[..., Any] = "inductor",
    tell: Callable[[str], object] = warnings.warn,
) -> None:
    """Compiles the blocks of a model where they stand, when they first run; sizes that vary become variable.

    What dropout draws is not what it would draw without. After several programs for one kind of block, torch says so
    and runs it as it is for sizes that none is for.

    backend: as of `torch.compile`. tell: called at most once, with a sentence, where the compiler is not there or
    fails: the blocks then run as they are.
    """
    compiler, programs = Compiler(backend, tell), dict[str, Program]()
    names = {module: name for name, module in model.named_modules()}
    for encoder in model.stack:
        for block in encoder.layers:
            kind = names[block].rpartition(".")[0]  # the list that it lies in, with others alike
            if kind not in programs:
                programs[kind] = Program(type(block), len(programs), compiler)
            block.program = programs[kind]  # type: ignore[assignment]  # of blocks


def worth_compiling(device: torch.device, seconds: float) -> bool:
    """Whether a training of so many seconds on a device gains more by compiled blocks than it takes to compile them."""
    return device.type == "cuda" and seconds >= LEAST_SECONDS


def run_block(block: Any, *given: Any) -> Tensor:
    """What a block makes of what it is given: by its program, if it has one; twice, if it keeps no activations."""
    run = block.program or type(block).run
    if block.checkpointing and block.training:
        return checkpoint(run, block, *given, use_reentrant=False)
    return run(block, *given)
