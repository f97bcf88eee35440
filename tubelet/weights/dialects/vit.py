"""The dialects of models of ViT blocks: each is its names for the parts, and where it differs from the others."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from tubelet.nn.build import make_embed
from tubelet.nn.config import ModelConfig, Stage
from tubelet.nn.create import family_config
from tubelet.nn.families import Size
from tubelet.nn.grid import Grid
from tubelet.weights.dialects.dialect import Allowed, Dialect
from tubelet.weights.dialects.rename import AS_THEY_ARE, ForeignState, Link, Rows
from tubelet.weights.dialects.settings import Given

ENCODER = "encoders.0"
TABLE = f"{ENCODER}.position.tables.0"
PREFIX = f"{ENCODER}.prefix"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Names:
    """The names of a block's layers in a dialect, timm's words if left out: `qkv` is one packed layer, or three;
    `scales` are LayerScales; `biases` those of query, key and value, "" for none, where they do not lie beside the
    weights; `gate` lets the hidden channels of a gated MLP through."""

    norm1: str = "norm1"
    qkv: tuple[str, ...] = ("attn.qkv",)
    proj: str = "attn.proj"
    norm2: str = "norm2"
    fc1: str = "mlp.fc1"
    fc2: str = "mlp.fc2"
    scales: tuple[str, ...] = ()
    biases: tuple[str, ...] | None = None
    gate: str = ""


@dataclass(frozen=True)
class PoolNames:
    """The names of the layers of pooling by one query, timm's words if left out; `qkv` as in `Names`, or query, then
    key and value in one."""

    query: str = "latent"
    qkv: tuple[str, ...] = ("q", "kv")
    proj: str = "proj"
    norm: str = "norm"
    fc1: str = "mlp.fc1"
    fc2: str = "mlp.fc2"


class VitDialect(Dialect):
    """A dialect of models of ViT blocks.

    family: of its models.
    root: begins all names but the head's, where weights were saved with a head.
    kernel: the projection of the tokeniser; `flat`: without an axis of time.
    tokens: the prefix tokens, one each.
    positions: the position table, with a row for each prefix token.
    layers: begins the names in block {}.
    block: the layers of a block.
    norm, head: the last norm and the classifier.
    overlapping: patches may be closer than they are large.
    mean, std: of the pixels that its models were trained on, ImageNet's for colours.
    """

    family: str
    root = ""
    kernel: str
    flat = False
    tokens: tuple[str, ...] = ("cls_token",)
    positions: str
    layers: str
    block: Names
    norm: str
    head = "classifier"
    overlapping = False
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def root_in(self, link: Link, config: ModelConfig) -> str:
        return link.root(self.root)

    def wording(self, names: ForeignState | Link) -> tuple[str, Names]:
        """The prefix of the blocks' names, after the root, and the names of their layers."""
        return self.layers, self.block

    def config(self, theirs: ForeignState, given: Given) -> ModelConfig:
        """Width, channels and patch are those of the tokeniser's kernel, (D, C, t, h, w), or (D, C, h, w) if flat."""
        found = {"family": self.family, "attend": "thw", "frames": None, "window": None}
        given.agree(**found if self.overlapping else found | {"stride": None})
        return self.sized_config(theirs, given, self.family)

    def sized_config(self, theirs: ForeignState, given: Given, family: str) -> ModelConfig:
        root, (layers, names) = theirs.root(self.root), self.wording(theirs)
        dim, channels, *sizes = theirs.shape(f"{root}{self.kernel}.weight", 4 if self.flat else 5)
        t, h, w = [1, *sizes] if self.flat else sizes
        config = family_config(
            family,
            (dim, theirs.count(root + layers), given.heads),
            patch=(t, h, w),
            stride=given.stride or (t, h, w),
            clip=given.clip,
            num_classes=theirs.classes(self.head),
            channels=channels,
        )
        config = config.with_stages(mlp_dim=theirs.shape(f"{root}{layers.format(0)}{names.fc1}.bias", 1)[0])
        return self.with_statistics(config)

    def with_statistics(self, config: ModelConfig) -> ModelConfig:
        known = len(self.mean) in (1, config.channels)
        return replace(config, mean=self.mean, std=self.std) if known else config

    def allowed(self, config: ModelConfig) -> Allowed:
        own: Allowed = {"family": (self.family,)}
        return own | {"patch": ((1, *config.embed.patch[1:]),)} if self.flat else own

    def map_tensors(self, link: Link, config: ModelConfig) -> None:
        root, (layers, names) = self.root_in(link, config), self.wording(link)
        self.map_kernel(link, config, root)
        self.map_positions(link, config, root)
        for i in range(first_stage(config).depth):
            self.map_block(link, config, names, root + layers.format(i), f"{ENCODER}.blocks.{i}")
        self.map_norms(link, config, root)
        if config.num_classes:
            self.map_head(link, config)

    def map_kernel(self, link: Link, config: ModelConfig, root: str) -> None:
        link.kernel(root + self.kernel, "embed.proj", flat=self.flat)

    def map_positions(self, link: Link, config: ModelConfig, root: str) -> None:
        grid = position_grid(config).along(first_stage(config).tables[0])
        link.positions([(root + token, 1) for token in self.tokens], root + self.positions, PREFIX, TABLE, grid)

    def map_block(self, link: Link, config: ModelConfig, names: Names, theirs: str, ours: str) -> None:
        block(link, names, theirs, ours)

    def map_norms(self, link: Link, config: ModelConfig, root: str) -> None:
        """The last norms, and what else lies between the blocks and the head."""
        link.linear(root + self.norm, f"{ENCODER}.norm")

    def map_head(self, link: Link, config: ModelConfig) -> None:
        link.linear(self.head, "head")


def block(
    link: Link,
    names: Names,
    theirs: str,
    ours: str,
    *,
    step: int = 0,
    rows: Rows = AS_THEY_ARE,
    scaled: bool = False,
) -> None:
    """A ViT block; its attention is attention step `step` of ours, its queries and keys have their `rows` in another
    order.

    A LayerScale is folded into the linear layer before it; weights have them all or none. `scaled`: they have.
    """
    scaled = scaled or any(name.endswith(names.scales) for name in link.names)
    gammas = [f"{theirs}{gamma}" for gamma in names.scales] if scaled else ["", ""]
    link.linear(f"{theirs}{names.norm1}", f"{ours}.attn_norms.{step}")
    biases = names.biases and [name and f"{theirs}{name}" for name in names.biases]
    link.packed([f"{theirs}{name}" for name in names.qkv], f"{ours}.attns.{step}.qkv", rows, biases)
    last_linear(link, f"{theirs}{names.proj}", gammas[0], f"{ours}.attns.{step}.proj")
    link.linear(f"{theirs}{names.norm2}", f"{ours}.mlp_norm")
    if names.gate:
        link.linear(f"{theirs}{names.gate}", f"{ours}.mlp.gate")
    link.linear(f"{theirs}{names.fc1}", f"{ours}.mlp.fc1")
    last_linear(link, f"{theirs}{names.fc2}", gammas[1], f"{ours}.mlp.fc2")


def query_pool(link: Link, names: PoolNames, theirs: str, ours: str = f"{ENCODER}.pool") -> None:
    """Pooling by one learned query and an MLP."""
    link.same(f"{theirs}{names.query}", f"{ours}.query")
    link.packed([f"{theirs}{name}" for name in names.qkv], f"{ours}.qkv")
    for layer in ("proj", "norm"):
        link.linear(f"{theirs}{getattr(names, layer)}", f"{ours}.{layer}")
    for layer in ("fc1", "fc2"):
        link.linear(f"{theirs}{getattr(names, layer)}", f"{ours}.mlp.{layer}")


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


def find_heads(sizes: Mapping[str, Size], width: int, depth: int) -> int | None:
    """Heads of the published model of this width and depth; None where there is none."""
    return next((heads for dim, layers, heads, *_ in sizes.values() if (dim, layers) == (width, depth)), None)


def position_grid(config: ModelConfig) -> Grid:
    """The grid that the position tables are made for."""
    with torch.device("meta"):
        return make_embed(config).grid(config.clip)


def first_stage(config: ModelConfig) -> Stage:
    """The first encoder, of a model that is not of windows."""
    first = config.stages[0]
    assert first.kind == "blocks"  # `check_supported` refuses the others
    return first
