"""The weights of a model in groups that learn at rates of their own, for any optimizer."""

from typing import Any

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


def parameter_groups(
    model: SpaceTimeTransformer | Rest, *, lr: float, weight_decay: float = 0.05, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """Groups for an optimizer such as torch.optim.AdamW: "params", "lr", "weight_decay", and "lr_scale", the share of
    the rate that a schedule must keep.

    weight_decay: of matrices; biases, norms, positions and class tokens have none. layer_decay: the factor on the rate
    from each layer to the one below it; the head has the whole rate.
    Source of the last: arXiv 2106.08254, section 2.4.
    """
    depths = layer_depths(model)
    top = max(depths.values())
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        decay = 0.0 if parameter.ndim < 2 or any(part in name for part in NO_DECAY) else weight_decay
        groups.setdefault((layer_decay ** (top - depths[name]), decay), []).append(parameter)
    return [
        {"params": params, "lr": lr * scale, "lr_scale": scale, "weight_decay": decay}
        for (scale, decay), params in groups.items()
    ]
