"""Models small enough to test laws on, on one core. No two sizes are equal, so that a mixed-up axis cannot pass."""

from dataclasses import fields, replace
from typing import Any

import torch

from tubelet.nn import (
    FAMILIES,
    IMAGE_FAMILIES,
    EmbedConfig,
    ModelConfig,
    SpaceTimeTransformer,
    model_config,
    regularise,
)
from tubelet.nn.build import EMBEDS
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
SWIN: dict[str, Any] = {"depths": (2, 1), "heads": (2, 4), "window": (2, 1, 2)}
MODEL = ("num_classes", "channels", "attend", "position", "pool", "mean", "std")  # of `model_config`
REGULARISATION = ("drop_path", "dropout", "checkpointing")
# every tokeniser, as settings of `tiny`; a ResNet's are its stem's
TOKENISERS: dict[str, dict[str, Any]] = {kind: {"embed": kind} for kind in EMBEDS}
TOKENISERS["resnet"] |= {"widths": (32,)}
OF_EMBED = [field.name for field in fields(EmbedConfig)]


def configure(family: str, **settings: Any) -> ModelConfig:
    """The line of a tiny model. Settings are those of `model_config`, and fields of a tokeniser and of all stages, but
    that `depth` is the first one's and `temporal_depth` the second one's: 0 leaves it out; `embed` is its kind."""
    own = SETTINGS | (IMAGE if family in IMAGE_FAMILIES else {}) | (SWIN if family == "swin2" else {}) | settings
    own |= {"patch": tuple(own["patch"]), "stride": tuple(own.get("stride") or own["patch"])}
    own |= {"eps": own.get("eps", 1e-6)} | ({"kind": own.pop("embed")} if "embed" in own else {})
    t, h, _ = own["patch"]
    config = model_config(f"{family}-B/{h}x{t}", **{name: own.pop(name) for name in MODEL if name in own})
    config = replace(config, clip=own.pop("clip")).with_embed(
        **{name: own.pop(name) for name in OF_EMBED if name in own}
    )
    depth, temporal_depth = own.pop("depth"), own.pop("temporal_depth")
    if family == "swin2":  # whose pooling has no blocks
        return config.with_stages(**{name: value for name, value in own.items() if name != "pool_depth"})
    own |= {"pool_eps": own.get("pool_eps", 1e-6)}
    config = config.with_stages(**own).with_stage(0, depth=depth)
    first = config.stages[0]
    assert first.kind == "blocks"
    if first.levels and "levels" not in settings:
        config = config.with_stage(0, levels=(0, depth - 1) if depth > 1 else (0,))
    if first.pool_heads and "pool_heads" not in settings:
        config = config.with_stage(0, pool_heads=first.heads)
    if first.gives:
        config = config.with_stage(0, gives=20).with_stage(1, takes=20, head_dim=8)
    if temporal_depth == 0:
        return replace(config, stages=config.stages[:1])
    return config if len(config.stages) == 1 else config.with_stage(1, depth=temporal_depth)


def tiny(family: str, **settings: Any) -> SpaceTimeTransformer:
    """A model in eval mode whose parameters are all random, also those that start at zero or one."""
    rates = {name: settings.pop(name) for name in REGULARISATION if name in settings}
    config = configure(family, **settings)
    torch.manual_seed(0)
    model = SpaceTimeTransformer(config)
    regularise(model, **rates)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return model.eval()


def blocks_of(model: SpaceTimeTransformer) -> dict[str, torch.nn.Module]:
    """All blocks, by name, in the order of the forward pass: also those of Swin's levels and of attentive pooling."""
    layers = [layer for encoder in model.stack for layer in encoder.layers]
    names = {module: name for name, module in model.named_modules()}
    return {names[layer]: layer for layer in layers}


def without_bias_dropout(model: SpaceTimeTransformer) -> SpaceTimeTransformer:
    """Swin's position bias has a dropout of its own in training, whatever is asked for; here it is off."""
    for module in model.modules():
        if isinstance(module, PositionMlp):
            module.rate = 0.0
    return model


def clip_for(model: SpaceTimeTransformer, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, model.config.channels, *model.input_size)
