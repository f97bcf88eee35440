"""The cost of a model: parameters, products and memory, counted, not measured."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from tubelet.nn.config import Stage, WindowStage
from tubelet.nn.create import create_model
from tubelet.nn.encoder import grid_after
from tubelet.nn.grid import Grid
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.nn.pool import QUERIES
from tubelet.nn.regularise import regularise


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
            shadow = create_model(model, clip=clip, num_classes=400 if num_classes is None else num_classes)
            name = name or model
        else:
            shadow = SpaceTimeTransformer(model.config)
            shadow.set_input_size(clip or model.input_size)
            regularise(shadow, **model.regularisation)
            name = name or model.config.family
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
        prefix=shadow.stack[0].prefix_size,
        activation_bytes=count_activation_bytes(shadow, pixels),
        parts=tuple(list_parts(shadow, grid, work)),
    )


def count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def list_parts(model: SpaceTimeTransformer, grid: Grid, work: Callable[[str], float]) -> list[Part]:
    patch = " x ".join(map(str, model.embed.patch))
    found: list[tuple[str, str, nn.Module]] = [("embed", f"{type(model.embed).__name__} {patch}", model.embed)]
    for i, (stage, encoder) in enumerate(zip(model.config.stages, model.stack, strict=True)):
        what = describe_windows(stage, encoder, grid) if stage.kind == "windows" else describe_sequences(stage, grid)
        found.append((f"encoders.{i}", what, model.encoders[i]))
        grid = grid_after(encoder, grid)
    if model.config.num_classes:
        found.append(("head", f"{model.config.num_classes} classes", model.head))
    return [
        Part(name=name, what=what, parameters=count_parameters(module), gmacs=work(f"SpaceTimeTransformer.{name}"))
        for name, what, module in found
    ]


def describe_sequences(stage: Stage, grid: Grid) -> str:
    """The numbers of blocks, of sequences that they see and of tokens in each, in words."""
    one = grid.along(stage.over)
    single = [axis for axis, size in one._asdict().items() if size == 1]
    steps = "".join(letter for letter in stage.attend if letter not in single)
    blocks = f"{stage.depth} x {steps}, " if stage.depth else ""
    what = f"{blocks}{grid.size // one.size} x {one.size + stage.prefix} tokens"
    if stage.pool == "attentive" and stage.pool_depth:
        what += f", then {stage.pool_depth} blocks"
    return what + (" and a query" if stage.pool in QUERIES else "")


def describe_windows(stage: WindowStage, encoder: Any, grid: Grid) -> str:
    """The blocks of each level, and the windows of the first."""
    t, h, w = (min(size, n) for size, n in zip(encoder.window_at(grid), grid, strict=True))
    return f"{' + '.join(map(str, stage.depths))} x windows of {t} x {h} x {w}, 1 x {grid.size} tokens"


def count_gmacs(model: SpaceTimeTransformer, pixels: Tensor) -> Callable[[str], float]:
    """10^9 multiply-adds of one forward pass, by the name of a module."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(pixels)
    flops = counter.get_flop_counts()
    return lambda name: sum(flops[name].values()) / 2e9 if name in flops else 0.0


class FusedAttention(TorchFunctionMode):
    """Counts attention as one kernel, as every real device runs it unless a bias is learned with it; the meta device
    alone would take it step by step."""

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
