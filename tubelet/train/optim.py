"""The optimizer: its groups of weights and their learning rates."""

import math

import torch
from torch import nn

from tubelet.nn.model import SpaceTimeTransformer
from tubelet.nn.split import Rest

NO_DECAY = ("prefix", "tables", "query")


def layer_depths(model: SpaceTimeTransformer | Rest) -> dict[str, int]:
    """Parameter name -> layer, counted from the input: 0 for tokeniser, positions and class tokens of the first
    encoder, then one for each block, the last for the head."""
    layers = {id(layer) for encoder in model.stack for layer in encoder.layers}
    blocks = [name for name, module in model.named_modules() if id(module) in layers]
    depths, reached = {}, 0
    for name, _ in model.named_parameters():  # in the order of the forward pass, but for the head after it
        inside = [i for i, block in enumerate(blocks) if name.startswith(f"{block}.")]
        if name.endswith(".query"):  # of attentive pooling: a module's own parameters come first, but it acts last
            inside = [i for i, block in enumerate(blocks) if block.startswith(name.removesuffix("query"))]
        reached = inside[-1] + 1 if inside else reached
        depths[name] = len(blocks) + 1 if name.startswith("head.") else reached
    return depths


def make_optimizer(model: SpaceTimeTransformer | Rest, *, weight_decay: float, layer_decay: float) -> torch.optim.AdamW:
    """AdamW (fused) whose groups carry `scale`, their share of the learning rate, and the weight decay of matrices.

    Source: arXiv 1711.05101; layer-wise decay: arXiv 2106.08254, section 2.4.
    """
    depths = layer_depths(model)
    top = max(depths.values())
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        decay = 0.0 if parameter.ndim < 2 or any(part in name for part in NO_DECAY) else weight_decay
        scale = layer_decay ** (top - depths[name])
        groups.setdefault((scale, decay), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": p, "scale": scale, "weight_decay": decay, "lr": 0.0} for (scale, decay), p in groups.items()],
        fused=True,
    )


def learning_rate(done: float, then: float, *, peak: float, warmup: float) -> float:
    """The rate of a step that leads from progress `done` to `then`, both in [0, 1]: it rises linearly over the first
    `warmup` share of a training, then falls to zero by half a cosine."""
    if then <= warmup:
        return peak * then / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * max(0.0, (done - warmup) / (1 - warmup))))
