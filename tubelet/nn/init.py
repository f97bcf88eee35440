"""Fresh weights. Width-aware everywhere: with a fixed standard deviation small models stay at chance."""

import torch
from torch import nn


@torch.no_grad()
def init_weights(model: nn.Module, head: nn.Module) -> None:
    """Xavier-uniform for linear layers and kernels (query, key and value each by itself), zero biases.

    Position tables and norms keep their own start. Class tokens start as small noise, the head at a tenth of Xavier:
    near-equal class probabilities, yet a gradient for the backbone from the first step.
    Source: the code of arXiv 2103.15691 and arXiv 2010.11929, for Xavier.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv1d | nn.Conv3d):
            bound = (6 / (module.weight[0].numel() + module.weight.shape[0])) ** 0.5
            nn.init.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in model.modules():
        if isinstance(packed := getattr(module, "qkv", None), nn.Linear):
            for part in packed.weight.chunk(3):
                nn.init.xavier_uniform_(part)
    for name, parameter in model.named_parameters():
        if name.endswith(("prefix", "query")):
            nn.init.trunc_normal_(parameter, std=0.02)
    if isinstance(head, nn.Linear):
        head.weight.mul_(0.1)
