"""Weights of Perception Encoder's vision tower (PE-Core, PE-Lang, PE-Spatial), in Meta's names and in timm's."""

from dataclasses import replace
from math import isqrt

import torch
from torch import Tensor

from tubelet.nn.config import ModelConfig
from tubelet.weights.dialects.dialect import Allowed, Kind, Video
from tubelet.weights.dialects.rename import ForeignState, Link, Rows, order_heads, split_rows
from tubelet.weights.dialects.settings import Given, Settings
from tubelet.weights.dialects.vit import (
    ENCODER,
    PREFIX,
    TABLE,
    Names,
    PoolNames,
    VitDialect,
    block,
    first_stage,
    position_grid,
    query_pool,
)

POOL_HEADS = 8  # of all published models, whatever their width
# Published models: width, depth and patch -> heads, and the sides in px.
PUBLISHED = {
    (192, 12, 16): (3, (384, 512)),
    (384, 12, 16): (6, (384, 512)),
    (768, 12, 16): (12, (224, 512)),
    (1024, 23, 14): (16, (448,)),
    (1024, 24, 14): (16, (336, 448)),
    (1536, 47, 14): (16, (448,)),
    (1536, 50, 14): (16, (448,)),
}


class PerceptionEncoder(VitDialect):
    """Base of both dialects, which differ in names and in what they do with positions at another size.

    first_norm: the norm before the blocks; pool: begins the names of pooling, `pooling` are those of its layers.
    position, resampling: of models, as in `Stage`.
    outer: axes of 1 before a row of the position table.
    """

    family = "pe"
    flat, mean, std = True, (0.5,), (0.5,)
    kind: Kind = "image"
    licence = "Apache-2.0"
    note = "the original squashes pictures to its size; here they keep their aspect, and the middle is cut out"
    gives = "an embedding, shared with the text tower"
    first_norm: str
    pool: str
    our_pool = f"{ENCODER}.pool"
    pooling: PoolNames
    position: str
    resampling: str
    outer: int

    def config(self, theirs: ForeignState, given: Given) -> ModelConfig:
        both = given.heads if isinstance(given.heads, tuple) else (given.heads, POOL_HEADS)
        if len(both) != 2:
            raise ValueError(f"got heads={both}, expected those of the blocks, and of pooling where these are not 8")
        heads, pool_heads = both
        found = super().config(theirs, replace(given, heads=heads))
        root, dim = theirs.root(self.root), first_stage(found).dim
        pooled, normed = (bool(theirs.root(f"{root}{part}.")) for part in (self.pool, self.norm))
        if pooled != normed:
            raise ValueError(
                f"the weights have a {self.norm if normed else self.pool} and no {self.pool if normed else self.norm}: "
                f"CLIP has such, which tubelet does not read, and no Perception Encoder"
            )
        if dim // heads % 4:
            raise ValueError(
                f"positions turn pairs of channels, in each half of a head, got heads={heads} for a width of {dim}: "
                f"give the number of heads"
            )
        hidden = theirs.shape(f"{root}{self.pool}.{self.pooling.fc1}.bias", 1)[0] if pooled else 4 * dim
        return found.with_stage(
            0,
            position=self.position,
            resampling=self.resampling,
            prefix=int(root + self.tokens[0] in theirs),
            pool="map" if pooled else "mean",
            pool_heads=pool_heads,
            pool_mlp_dim=None if hidden == 4 * dim else hidden,
            norm="tokens" if pooled else "none",
        )

    def allowed(self, config: ModelConfig) -> Allowed:
        stage, pool = first_stage(config), first_stage(config).pool
        own: Allowed = {"position": (self.position,), "resampling": (self.resampling,), "tables": (("hw",),)}
        own |= {"pool": ("map", "mean"), "norm": ("tokens",) if pool == "map" else ("none",), "prefix": (0, 1)}
        own |= {"norm_first": (True,), "over": ("hw",), "eps": (1e-5,), "keep_aspect": (False,)}
        own |= {"pool_heads": (stage.pool_heads,), "pool_mlp_dim": (stage.pool_mlp_dim,)}
        return super().allowed(config) | own

    def published(self, theirs: ForeignState) -> Settings:
        root = theirs.root(self.root)
        dim, _, _, patch = theirs.shape(f"{root}{self.kernel}.weight", 4)
        cells = theirs.shape(root + self.positions)[-2] - int(root + self.tokens[0] in theirs)
        heads, sides = PUBLISHED.get((dim, theirs.count(root + self.layers), patch), (None, ()))
        side = patch * isqrt(cells)
        return Settings(heads=heads, clip=(1, side, side)) if side in sides else Settings()

    def video(self, frames: int) -> Video | None:
        """Embeddings of frames are averaged; the paper takes 8, spread over clips that are mostly of ten seconds."""
        return None if frames == 1 else Video(10, frames, 224, "the frames of ten seconds, as the paper spreads 8")

    def map_kernel(self, link: Link, config: ModelConfig, root: str) -> None:
        weight = f"{root}{self.kernel}.weight", "embed.proj.weight"
        link.tie(weight[:1], weight[1:], lambda x: [x[:, :, None]], lambda x: [x[:, :, 0]])

    def map_positions(self, link: Link, config: ModelConfig, root: str) -> None:
        """Theirs have no bias of patches: one of ours goes into the table, which is added to the same tokens."""
        grid, prefix, outer = position_grid(config).along("hw"), first_stage(config).prefix, (1,) * self.outer

        def forth(*x: Tensor) -> list[Tensor]:
            flat = x[-1].reshape(1, *x[-1].shape[-2:])
            rows, cells = split_rows(flat, grid, prefix=prefix)
            return [torch.zeros(cells.shape[-1]), *(token.reshape(1, 1, -1) + rows for token in x[:-1]), cells]

        def back(bias: Tensor, *x: Tensor) -> list[Tensor]:
            flat = torch.cat([*(torch.zeros_like(token[0]) for token in x[:-1]), (x[-1] + bias).flatten(0, 2)])
            return [*(token.reshape(*outer, *outer, -1) for token in x[:-1]), flat.reshape(*outer, *flat.shape)]

        theirs = [*[root + self.tokens[0]][:prefix], root + self.positions]
        ours = ["embed.proj.bias", *[PREFIX][:prefix], TABLE]
        link.tie(theirs, ours, forth, back, "taken, rows of prefix tokens folded into them; no bias of patches")

    def map_block(self, link: Link, config: ModelConfig, names: Names, theirs: str, ours: str) -> None:
        stage = first_stage(config)
        # written as published: of those without pooling, the ones without class token and PE-Lang L have LayerScale
        scaled = not link.reading and stage.pool != "map" and (stage.prefix == 0 or stage.depth == 23)
        block(link, names, theirs, ours, rows=row_before_column(stage.dim, stage.heads), scaled=scaled)

    def map_norms(self, link: Link, config: ModelConfig, root: str) -> None:
        link.linear(root + self.first_norm, f"{ENCODER}.norm_first")
        if first_stage(config).pool == "map":
            super().map_norms(link, config, root)
            query_pool(link, self.pooling, f"{root}{self.pool}.", self.our_pool)


def row_before_column(dim: int, heads: int) -> Rows:
    """Theirs turn the first half of a head by the column, ours by the row."""
    half = dim // heads // 2
    return order_heads(heads, [*range(half, 2 * half), *range(half)])


def bare_head(link: Link, theirs: str, dialect: str, *, turned: bool = False) -> None:
    """A head without bias; `turned`: (D, out). Raises ValueError where ours has a bias that is not zero."""

    def back(weight: Tensor, bias: Tensor) -> list[Tensor]:
        if bias.any():
            raise ValueError(f"the head of the model has a bias, and {dialect!r} has none: choose another dialect")
        return [weight.T if turned else weight]

    def forth(weight: Tensor) -> list[Tensor]:
        weight = weight.T if turned else weight
        return [weight, torch.zeros(len(weight))]

    link.tie([theirs], ["head.weight", "head.bias"], forth, back)


class PeCore(PerceptionEncoder):
    name, root = "pe-core", "visual."
    fingerprint = tuple(f"{root}transformer.resblocks.0.attn.in_proj_weight" for root in ("visual.", ""))
    kernel, tokens, positions = "conv1", ("class_embedding",), "positional_embedding"
    layers, first_norm, norm, head = "transformer.resblocks.{}.", "ln_pre", "ln_post", "visual.proj"
    block = Names(
        "ln_1", ("attn.in_proj",), "attn.out_proj", "ln_2", "mlp.c_fc", "mlp.c_proj", ("ls_1.gamma", "ls_2.gamma")
    )
    pool, pooling = (
        "attn_pool",
        PoolNames("probe", ("attn.in_proj",), "attn.out_proj", "layernorm", "mlp.c_fc", "mlp.c_proj"),
    )
    position, resampling, outer = "rotary-one", "bilinear-sharp", 0

    def config(self, theirs: ForeignState, given: Given) -> ModelConfig:
        found, head = super().config(theirs, given), f"{theirs.root(self.root)}proj"
        return replace(found, num_classes=theirs.shape(head, 2)[1] if head in theirs else 0)

    def map_norms(self, link: Link, config: ModelConfig, root: str) -> None:
        super().map_norms(link, config, root)
        if root:
            for beginning in (
                "transformer.",
                "token_embedding.",
                "positional_embedding",
                "ln_final.",
                "text_projection",
            ):
                link.leave(beginning, "the text tower")
            link.leave("logit_scale", "for similarities of pictures and texts")

    def map_head(self, link: Link, config: ModelConfig) -> None:
        bare_head(link, f"{self.root_in(link, config)}proj", self.name, turned=True)


class TimmPe(PerceptionEncoder):
    name = "timm"
    fingerprint = ("norm_pre.weight", "norm_pre.bias")
    kernel, tokens, positions = "patch_embed.proj", ("cls_token",), "pos_embed"
    layers, first_norm, norm, head = "blocks.{}.", "norm_pre", "norm", "head"
    block, pool, pooling = Names(scales=("gamma_1", "gamma_2")), "attn_pool", PoolNames()
    position, resampling, outer = "rotary-scaled", "bicubic", 1


PE_CORE, TIMM_PE = PeCore(), TimmPe()
