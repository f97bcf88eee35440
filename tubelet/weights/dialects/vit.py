"""What most dialects share: the ViT block under different names, and a model's numbers read off its tensors."""

from dataclasses import asdict, dataclass

import torch

from tubelet.nn.build import make_embed
from tubelet.nn.config import ModelConfig, Stage
from tubelet.nn.create import family_config
from tubelet.nn.grid import Grid
from tubelet.weights.dialects.rename import ForeignState, Link
from tubelet.weights.dialects.settings import Given

ENCODER = "encoders.0"
TABLE = f"{ENCODER}.position.tables.0"
PREFIX = f"{ENCODER}.prefix"

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Names:
    """What a dialect calls the layers of a block: `qkv` is one packed layer, or three; `scales` are LayerScales."""

    norm1: str
    qkv: tuple[str, ...]
    proj: str
    norm2: str
    fc1: str
    fc2: str
    scales: tuple[str, ...] = ()


def block(link: Link, names: Names, theirs: str, ours: str, *, step: int = 0) -> None:
    """A ViT block; its attention is attention step `step` of ours.

    A LayerScale is folded into the linear layer before it; weights have them all or none.
    """
    scaled = any(name.endswith(names.scales) for name in link.names)
    gammas = [f"{theirs}{gamma}" for gamma in names.scales] if scaled else ["", ""]
    link.linear(f"{theirs}{names.norm1}", f"{ours}.attn_norms.{step}")
    link.packed([f"{theirs}{name}" for name in names.qkv], f"{ours}.attns.{step}.qkv")
    last_linear(link, f"{theirs}{names.proj}", gammas[0], f"{ours}.attns.{step}.proj")
    link.linear(f"{theirs}{names.norm2}", f"{ours}.mlp_norm")
    link.linear(f"{theirs}{names.fc1}", f"{ours}.mlp.fc1")
    last_linear(link, f"{theirs}{names.fc2}", gammas[1], f"{ours}.mlp.fc2")


def last_linear(link: Link, theirs: str, gamma: str, ours: str) -> None:
    """A linear layer, and the LayerScale after it if there is one: linear after linear."""
    if not gamma:
        return link.linear(theirs, ours)
    return link.tie(
        [f"{theirs}.weight", f"{theirs}.bias", gamma],
        [f"{ours}.weight", f"{ours}.bias"],
        lambda weight, bias, factor: [factor[:, None] * weight, factor * bias],
        lambda weight, bias: [weight, bias, torch.ones_like(bias)],
        "taken, LayerScale folded in",
    )


def vit_config(
    theirs: ForeignState, given: Given, family: str, *, kernel: str, flat: bool, layers: str, hidden: str, head: str
) -> ModelConfig:
    """The numbers of a model of ViT blocks: width, channels and patch from the tokeniser's kernel, (D, C, t, h, w), or
    (D, C, h, w) where it is `flat`."""
    shape = theirs.shape(kernel, 4 if flat else 5)
    patch = (1, *shape[2:]) if flat else shape[2:]
    config = family_config(
        family,
        (shape[0], theirs.count(layers), given.heads),
        patch=(patch[0], patch[1], patch[2]),
        stride=given.stride or (patch[0], patch[1], patch[2]),
        clip=given.clip,
        num_classes=theirs.classes(head),
        channels=shape[1],
    )
    return config.with_stages(mlp_dim=theirs.shape(hidden, 1)[0])


def grid_for(config: ModelConfig) -> Grid:
    """The grid that the position tables are made for."""
    with torch.device("meta"):
        return make_embed(config).grid(config.clip)


def first_stage(config: ModelConfig) -> Stage:
    """The first encoder, of a model that is not of windows."""
    first = config.stages[0]
    assert first.kind == "blocks"  # each dialect's `says` refuses the others
    return first


def blocks_of(config: ModelConfig) -> range:
    return range(first_stage(config).depth)


def require(config: ModelConfig, dialect: str, **allowed: tuple[object, ...]) -> None:
    """Raises ValueError where the model has settings that a dialect cannot say; those not named must be ViT's."""
    vit: dict[str, tuple[object, ...]] = {
        "embed": ("tubelet",),
        "stride": (config.embed.patch,),
        "frames": (None,),
        "position": ("learned",),
        "attend": ("thw",),
        "gelu": ("erf",),
        "eps": (1e-6,),
        "stages": (1,),
    }
    found = asdict(config) | asdict(config.embed) | asdict(config.stages[0])
    found |= {"embed": config.embed.kind, "stages": len(config.stages)}
    wrong = [
        f"{name}={found[name]!r} (it knows {', '.join(map(repr, values))})"
        for name, values in (vit | allowed).items()
        if name in found and found[name] not in values
    ]
    if wrong:
        raise ValueError(f"the dialect {dialect!r} cannot say a model with {'; '.join(wrong)}: choose another")
