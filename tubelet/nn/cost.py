"""What a model costs: parameters, products and memory, counted, not measured."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from tubelet.nn import AttentivePool, Encoder, Grid, SpaceTimeTransformer, SwinEncoder, create_model
from tubelet.nn.config import stages_of


@dataclass(frozen=True, kw_only=True)
class Part:
    """The tokeniser, one encoder or the head: what it is, its parameters, its share of the work."""

    name: str
    what: str
    parameters: int
    gmacs: float


@dataclass(frozen=True, kw_only=True)
class Info:
    """The cost of a model for one clip: gmacs (10^9 multiply-adds) of its forward pass, bytes of float32 activations
    that one clip keeps for the backward pass. Attention counts in gmacs, not in bytes: fused kernels keep no matrix;
    but for Swin, whose windows learn a bias of their matrix."""

    name: str
    clip: tuple[int, int, int]
    num_classes: int
    parameters: int
    gmacs: float
    tokens: Grid
    prefix: int
    activation_bytes: int
    parts: tuple[Part, ...]


def describe(
    model: str | SpaceTimeTransformer,
    *,
    clip: Sequence[int] | None = None,
    num_classes: int | None = None,
    name: str | None = None,
) -> Info:
    """Counts a model for one clip of (T, H, W) frames and px.

    Args:
        model: a name as for `create_model`, or a model (its weights are not touched).
        clip: the model's own size if left out; num_classes: for a name, 400 if left out, 0 for a model without head.

    Raises:
        ValueError: unknown name, a clip that whole tubelets do not fill, or num_classes for a model that has its own.
    """
    if not isinstance(model, str) and num_classes not in (None, model.config.num_classes):
        raise ValueError(
            f"the model has {model.config.num_classes} classes, got num_classes={num_classes}: leave it out"
        )
    with torch.device("meta"):
        if isinstance(model, str):
            name, shadow = (
                name or model,
                create_model(model, clip=clip, num_classes=400 if num_classes is None else num_classes),
            )
        else:
            name, shadow = name or model.config.family, SpaceTimeTransformer(model.config)
            shadow.set_input_size(clip or model.input_size)
        pixels = torch.empty(1, shadow.config.channels, *shadow.input_size)
    work = count_gmacs(shadow, pixels)
    grid = shadow.grid(shadow.input_size)
    return Info(
        name=name,
        clip=shadow.input_size,
        num_classes=shadow.config.num_classes,
        parameters=count_parameters(shadow),
        gmacs=work("SpaceTimeTransformer"),
        tokens=grid,
        prefix=prefix_of(shadow.encoders[0]),
        activation_bytes=count_activation_bytes(shadow, pixels),
        parts=tuple(parts_of(shadow, grid, work)),
    )


def count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def prefix_of(encoder: nn.Module) -> int:
    """Tokens before those of the grid: class token, distillation token, registers."""
    return 0 if not isinstance(encoder, Encoder) or encoder.prefix is None else encoder.prefix.shape[1]


def parts_of(model: SpaceTimeTransformer, grid: Grid, work: Callable[[str], float]) -> list[Part]:
    patch = " x ".join(map(str, model.embed.patch))
    found: list[tuple[str, str, nn.Module]] = [("embed", f"{type(model.embed).__name__} {patch}", model.embed)]
    for i, (stage, encoder) in enumerate(zip(stages_of(model.config), model.encoders, strict=True)):
        seen = windowed if isinstance(encoder, SwinEncoder) else sequences
        found.append((f"encoders.{i}", seen(encoder, stage.attend, grid), encoder))
        grid = grid.along("t") if stage.over == "hw" else Grid(1, 1, 1)
    if model.config.num_classes:
        found.append(("head", f"{model.config.num_classes} classes", model.head))
    return [
        Part(name=name, what=what, parameters=count_parameters(module), gmacs=work(f"SpaceTimeTransformer.{name}"))
        for name, what, module in found
    ]


def sequences(encoder: Any, attend: str, grid: Grid) -> str:
    """How many blocks see how many sequences of how many tokens."""
    sequence = grid.along(encoder.over)
    length = sequence.size + prefix_of(encoder)
    what = f"{len(encoder.blocks)} x {spanned(attend, sequence)}, {grid.size // sequence.size} x {length} tokens"
    if isinstance(encoder.pool, AttentivePool):
        what += f", then {len(encoder.pool.blocks)} blocks and a query"
    return what


def spanned(attend: str, sequence: Grid) -> str:
    """The attention steps, without the axes along which there is one token."""
    return "".join(letter for letter in attend if letter not in "thw" or getattr(sequence, letter) > 1)


def windowed(encoder: Any, attend: str, grid: Grid) -> str:
    """The blocks of each stage, and the windows of the first."""
    depths = " + ".join(str(len(stage.blocks)) for stage in encoder.stages)
    t, h, w = (min(size, n) for size, n in zip(encoder.window_at(grid), grid, strict=True))
    return f"{depths} x {attend} of {t} x {h} x {w}, 1 x {grid.size} tokens"


def count_gmacs(model: SpaceTimeTransformer, pixels: Tensor) -> Callable[[str], float]:
    """10^9 multiply-adds of one forward pass, by the name of a module."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(pixels)
    flops = counter.get_flop_counts()
    return lambda name: sum(flops[name].values()) / 2e9 if name in flops else 0.0


class FusedAttention(TorchFunctionMode):
    """On the meta device, attention would be counted step by step; every real device runs it as one kernel, unless a
    bias is learned with it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention and len(args) == 3:
            return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*args)[0]
        return func(*args, **(kwargs or {}))


def count_activation_bytes(model: SpaceTimeTransformer, pixels: Tensor) -> int:
    """Bytes that autograd keeps from the forward to the backward pass, parameters left out, shared storage once."""
    owned = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in owned:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), FusedAttention():
        model.train()(pixels)
    return sum(storage.nbytes() for storage in kept.values())
