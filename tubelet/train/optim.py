"""The optimizer, and the learning rate of its steps."""

import math

import torch
from torch import Tensor

from tubelet.nn.model import SpaceTimeTransformer
from tubelet.nn.parameter_groups import parameter_groups
from tubelet.nn.split import Rest


def make_optimizer(model: SpaceTimeTransformer | Rest, *, weight_decay: float, layer_decay: float) -> torch.optim.AdamW:
    """AdamW (fused) of `parameter_groups`, whose rates a step sets. Source: arXiv 1711.05101."""
    groups = parameter_groups(model, lr=0.0, weight_decay=weight_decay, layer_decay=layer_decay)
    return torch.optim.AdamW(groups, fused=True)


def step_if_finite(optimizer: torch.optim.AdamW, norm: Tensor, halted: Tensor) -> Tensor:
    """One step of a fused optimizer, left out where the norm of the gradient is not finite, or once was: `halted`, 0 or
    1, says that; returned anew. Nothing is asked of the device."""
    halted = torch.maximum(halted, (~norm.isfinite()).float())
    optimizer.found_inf = halted  # type: ignore[attr-defined]  # as `torch.amp.GradScaler` has a step left out
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return halted


def learning_rate(done: float, then: float, *, peak: float, warmup: float) -> float:
    """The rate of a step that leads from progress `done` to `then`, both in [0, 1]: it rises linearly over the first
    `warmup` share of a training, then falls to zero by half a cosine."""
    if then <= warmup:
        return peak * then / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * max(0.0, (done - warmup) / (1 - warmup))))
