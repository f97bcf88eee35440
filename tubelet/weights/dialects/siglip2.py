"""Weights of the vision tower of SigLIP and SigLIP 2: Hugging Face's, of one size or NaFlex, and timm's."""

from dataclasses import replace
from math import isqrt

from torch import Tensor

from tubelet.nn.config import ModelConfig
from tubelet.nn.grid import Grid
from tubelet.weights.dialects.dialect import Allowed, Kind, Video
from tubelet.weights.dialects.rename import ForeignState, Link, split_rows
from tubelet.weights.dialects.settings import Given, Json, Settings, layer_settings, numbers, section
from tubelet.weights.dialects.vit import (
    TABLE,
    Names,
    PoolNames,
    VitDialect,
    first_stage,
    position_grid,
    query_pool,
)

# Published models: width, depth and patch -> heads, and the sides in px, each with the GELU that timm gives it: the
# exact one, or JAX's, with which all of them learned
PUBLISHED = {
    (768, 12, 16): (12, dict.fromkeys((224, 256, 384, 512), "erf")),
    (768, 12, 32): (12, {256: "tanh"}),
    (1024, 24, 16): (16, {256: "erf", 384: "erf", 512: "tanh"}),
    (1152, 27, 14): (16, dict.fromkeys((224, 378, 448, 896), "erf")),
    (1152, 27, 16): (16, dict.fromkeys((256, 384, 512), "tanh")),
    (1536, 40, 16): (16, dict.fromkeys((256, 384), "tanh")),
}


class Siglip2(VitDialect):
    """Base of both dialects. `pool` begins the names of pooling, `pooling` are those of its layers; `resampling`: of
    position tables, as in `Stage`."""

    family = "siglip2"
    kind: Kind = "image"
    flat, mean, std = True, (0.5,), (0.5,)
    licence = "Apache-2.0"
    note = "the original squashes pictures to the size of the model, here the middle of them is cut out"
    pool: str
    pooling: PoolNames
    resampling: tuple[str, ...]

    def config(self, theirs: ForeignState, given: Given) -> ModelConfig:
        found, root = super().config(theirs, given), theirs.root(self.root)
        hidden = theirs.shape(f"{root}{self.pool}{self.pooling.fc1}.bias", 1)[0]
        own = None if hidden == 4 * first_stage(found).dim else hidden
        return found.with_stage(0, pool_mlp_dim=own, resampling=self.resampling[0])

    def allowed(self, config: ModelConfig) -> Allowed:
        stage = first_stage(config)
        own: Allowed = {"tables": (("hw",),), "over": ("hw",), "keep_aspect": (False,), "resampling": self.resampling}
        own |= {"pool": ("map",), "norm": ("tokens",), "prefix": (0,), "gelu": ("tanh",)}
        own |= {"pool_heads": (None, stage.heads), "pool_dim": (None, stage.dim)}
        # the MLP of pooling is as wide as those of the blocks
        own |= {"pool_mlp_dim": (stage.mlp_dim, None) if stage.mlp_dim == 4 * stage.dim else (stage.mlp_dim,)}
        return super().allowed(config) | own

    def video(self, frames: int) -> Video | None:
        return None if frames == 1 else Video(10, frames, 224, "a guess, for it learned from pictures: ten seconds")

    def map_norms(self, link: Link, config: ModelConfig, root: str) -> None:
        super().map_norms(link, config, root)
        query_pool(link, self.pooling, root + self.pool)


class HfSiglip2(Siglip2):
    """`SiglipVisionModel` and NaFlex's `Siglip2VisionModel`, by itself or beside a text tower; NaFlex's kernel takes
    patches laid flat, and its tables are resampled by another rule."""

    name, root = "hf-siglip2", "vision_model."
    fingerprint = tuple(f"{root}embeddings.patch_embedding.bias" for root in ("vision_model.", ""))
    kernel, layers, norm = "embeddings.patch_embedding", "encoder.layers.{}.", "post_layernorm"
    positions = "embeddings.position_embedding.weight"
    block = Names("layer_norm1", tuple(f"self_attn.{part}_proj" for part in "qkv"), "self_attn.out_proj", "layer_norm2")
    pool, pooling = "head.", PoolNames("probe", ("attention.in_proj",), "attention.out_proj", "layernorm")
    resampling = ("bicubic-sharp", "bilinear")
    types = ("siglip", "siglip_vision_model", "siglip2", "siglip2_vision_model")  # of models, in config.json

    def config(self, theirs: ForeignState, given: Given) -> ModelConfig:
        kernel = f"{theirs.root(self.root)}{self.kernel}.weight"
        naflex = len(theirs.shape(kernel)) == 2
        if naflex:
            side = find_side(theirs, kernel)
            theirs = ForeignState(theirs.tensors | {kernel: stand_up(theirs.tensors[kernel], side)})
        found = super().config(theirs, given).with_stage(0, gelu="tanh")
        check_square(position_grid(found))
        return found.with_stage(0, resampling="bilinear") if naflex else found

    def allowed(self, config: ModelConfig) -> Allowed:
        """Their patches and tables are square."""
        side, px = config.embed.patch[1], config.clip[1]
        own: Allowed = {"patch": ((1, side, side),), "clip": ((config.clip[0], px, px),), "num_classes": (0,)}
        return super().allowed(config) | own

    def published(self, theirs: ForeignState) -> Settings:
        """Heads by width and depth; the table is square, and so says the size."""
        root = theirs.root(self.root)
        kernel, rows = f"{root}{self.kernel}.weight", theirs.shape(root + self.positions, 2)[0]
        dim, *sizes = theirs.shape(kernel)
        patch, depth = sizes[-1] if sizes[1:] else find_side(theirs, kernel), theirs.count(root + self.layers)
        heads, _ = PUBLISHED.get((dim, depth, patch), (None, {}))
        return Settings(heads=heads, clip=(1, isqrt(rows) * patch, isqrt(rows) * patch))

    def root_in(self, link: Link, config: ModelConfig) -> str:
        return super().root_in(link, config) if link.reading else ""

    def map_kernel(self, link: Link, config: ModelConfig, root: str) -> None:
        if first_stage(config).resampling != "bilinear":
            return super().map_kernel(link, config, root)
        theirs, side = root + self.kernel, config.embed.patch[1]
        link.tie(
            [f"{theirs}.weight"],
            ["embed.proj.weight"],
            lambda x: [stand_up(x, side)[:, :, None]],
            lambda x: [x[:, :, 0].permute(0, 2, 3, 1).flatten(1)],
            "taken, from patches laid flat",
        )
        return link.same(f"{theirs}.bias", "embed.proj.bias")

    def map_positions(self, link: Link, config: ModelConfig, root: str) -> None:
        grid = position_grid(config).along("hw")
        link.tie(
            [root + self.positions],
            [TABLE],
            lambda x: split_rows(x[None], grid, prefix=0)[1:],
            lambda x: [x.flatten(0, 2)],
        )

    def map_norms(self, link: Link, config: ModelConfig, root: str) -> None:
        super().map_norms(link, config, root)
        link.leave("text_model.", "the text tower")
        link.leave("logit_", "for similarities of pictures and texts")

    def read_settings(self, config: Json, preprocessor: Json) -> Settings:
        """Settings but for the size, which the position table says."""
        kind = "siglip" if config.get("model_type") in self.types else config.get("model_type")
        tower = (section(config, "vision_config") or config) | {"model_type": kind}
        mean, std = numbers(preprocessor, "image_mean"), numbers(preprocessor, "image_std")
        return replace(layer_settings("siglip", tower if config else {}), mean=mean, std=std)


def find_side(theirs: ForeignState, kernel: str) -> int:
    """The side of the patches, in px, of a kernel (D, side * side * 3). Raises ValueError for another shape."""
    size = theirs.shape(kernel, 2)[1]
    if 3 * isqrt(size // 3) ** 2 != size or not size:
        raise ValueError(f"the tensor {kernel!r} has shape {theirs.shape(kernel)}, expected (D, side * side * 3)")
    return isqrt(size // 3)


def stand_up(kernel: Tensor, side: int) -> Tensor:
    """A kernel of patches laid flat, row by row, colours last: (D, side * side * C) -> (D, C, side, side)."""
    return kernel.unflatten(1, (side, side, -1)).permute(0, 3, 1, 2)


def check_square(grid: Grid) -> None:
    if grid.h != grid.w:
        raise ValueError(
            f"the position table of Hugging Face's SigLIP is square, got a clip of {grid.h} x {grid.w} patches: give "
            f"the size that the weights are made for; the model then takes others too"
        )


class TimmSiglip2(Siglip2):
    name = "timm"
    fingerprint = ("attn_pool.latent", "attn_pool.q.weight")
    kernel, positions, layers, norm, head = "patch_embed.proj", "pos_embed", "blocks.{}.", "norm", "head"
    block, pool, pooling, resampling = Names(), "attn_pool.", PoolNames(), ("bicubic",)

    def config(self, theirs: ForeignState, given: Given) -> ModelConfig:
        found = super().config(theirs, given)
        stage, patch = first_stage(found), found.embed.patch[1]
        if not (gelu := given.gelu or find_published(theirs).gelu):
            raise ValueError(
                f"timm's SigLIPs have two kinds of GELU, which the tensors do not tell, and none that is published has "
                f"width {stage.dim}, {stage.depth} layers, patches of {patch} px and {theirs.shape(self.positions)[1]} "
                f"positions: give gelu='erf' (the exact one) or 'tanh' (JAX's); --gelu on the command line"
            )
        return found.with_stage(0, gelu=gelu)

    def allowed(self, config: ModelConfig) -> Allowed:
        return super().allowed(config) | {"gelu": ("erf", "tanh")}

    def published(self, theirs: ForeignState) -> Settings:
        return find_published(theirs)

    def map_positions(self, link: Link, config: ModelConfig, root: str) -> None:
        link.position(self.positions, TABLE, position_grid(config).along("hw"))


def find_published(theirs: ForeignState) -> Settings:
    """Heads, clip and GELU of the published SigLIP of exactly these sizes, with pooling or without, in timm's names."""
    (dim, _, _, patch), rows = theirs.shape("patch_embed.proj.weight", 4), theirs.shape("pos_embed", 3)[1]
    heads, sides = PUBLISHED.get((dim, theirs.count("blocks.{}."), patch), (None, {}))
    found = [(side, gelu) for side, gelu in sides.items() if (side // patch) ** 2 == rows]
    return Settings(heads=heads, clip=(1, found[0][0], found[0][0]), gelu=found[0][1]) if found else Settings()


HF_SIGLIP2, TIMM_SIGLIP2 = HfSiglip2(), TimmSiglip2()
