"""Models small enough to test laws on, on one core. No two sizes are equal, so that a mixed-up axis cannot pass."""

from typing import Any

import torch

from tubelet.nn import FAMILIES, IMAGE_FAMILIES, Block, Encoder, ModelConfig, SpaceTimeTransformer, SwinBlock
from tubelet.nn.swin import PositionMlp

torch.set_num_threads(1)

VIDEO = [family for family in FAMILIES if family not in IMAGE_FAMILIES]
SETTINGS: dict[str, Any] = {
    "dim": 24,
    "depth": 2,
    "heads": 4,
    "mlp_dim": 40,
    "patch": (2, 4, 4),
    "clip": (8, 8, 12),  # a grid of 4 x 2 x 3
    "num_classes": 5,
    "temporal_depth": 1,
}
IMAGE: dict[str, Any] = {"patch": (1, 4, 4), "clip": (1, 8, 12)}
SWIN: dict[str, Any] = {"depth": (2, 1), "heads": (2, 4), "window": (2, 1, 2)}


def tiny(family: str, **settings: Any) -> SpaceTimeTransformer:
    """A model in eval mode whose parameters are all random, also those that start at zero or one."""
    torch.manual_seed(0)
    sizes = SETTINGS | (IMAGE if family in IMAGE_FAMILIES else {}) | (SWIN if family == "swin2" else {}) | settings
    model = SpaceTimeTransformer(ModelConfig(family=family, **sizes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return model.eval()


def blocks_of(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """All blocks, by name, in the order of the forward pass: also those of Swin's stages and of attentive pooling."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Block | SwinBlock)}


def prefix_of(model: SpaceTimeTransformer) -> int:
    first = model.encoders[0]
    return first.prefix.shape[1] if isinstance(first, Encoder) and first.prefix is not None else 0


def without_bias_dropout(model: SpaceTimeTransformer) -> SpaceTimeTransformer:
    """Swin's position bias has a dropout of its own in training, whatever the configuration says; here it is off."""
    for module in model.modules():
        if isinstance(module, PositionMlp):
            module.dropout.p = 0.0
    return model


def clip_for(model: SpaceTimeTransformer, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, model.config.channels, *model.input_size)
