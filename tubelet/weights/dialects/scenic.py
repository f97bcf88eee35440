"""Weights of google-research/scenic's ViViT (flax parameter trees, names joined by "/"): Models 1 to 4.

Models 1 and 4 have the same tensors; flax kernels are (in, out), attention kernels (in, heads, d); GELU is the tanh
form. The position row of a class token is added to the token itself, which loses nothing.
"""

from dataclasses import replace

import torch
from torch import Tensor

from tubelet.nn.config import ModelConfig
from tubelet.nn.create import family_config
from tubelet.nn.grid import Grid
from tubelet.nn.pool import count_prefix
from tubelet.weights.dialects.dialect import Allowed, Dialect, Video, require
from tubelet.weights.dialects.rename import ForeignState, Link
from tubelet.weights.dialects.settings import Given
from tubelet.weights.dialects.vit import first_stage, position_grid

VIVIT = Video(2, 25, 256, "as ViViT on Kinetics")
# attention and tables of the first encoder, and pooling
KINDS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "vivit1": (("thw",), ("thw",), ("cls", "mean")),
    "vivit2": (("thw",), ("hw",), ("cls", "mean")),
    "vivit3": (("hw,t", "t,hw"), ("thw",), ("mean",)),
    "vivit4": (("t|hw",), ("thw",), ("mean",)),
}


class Scenic(Dialect):
    name, fingerprint, licence = "scenic", ("embedding/kernel",), "Apache-2.0"

    def config(self, theirs: ForeignState, given: Given) -> ModelConfig:
        kernel = theirs.shape("embedding/kernel")  # ([t,] p, p, C, D)
        if len(kernel) not in (4, 5):
            raise ValueError(f"the tensor 'embedding/kernel' has shape {kernel}, expected ([t,] p, p, C, D)")
        factorised = bool(theirs.root("SpatialTransformer/"))
        root = "SpatialTransformer" if factorised else "Transformer"
        divided = bool(theirs.root("Transformer/encoderblock_0/LayerNorm_mlp/"))
        family = detect_family(theirs, given.family, factorised=factorised, divided=divided)
        steps = (given.attend or "hw,t") if divided else "t|hw" if family == "vivit4" else "thw"
        if divided and steps not in ("hw,t", "t,hw"):
            raise ValueError(
                f"got attend={steps!r}, but Model 3 attends in space and along time: give 'hw,t' or 't,hw'"
            )
        given.agree(family=family, attend=steps, stride=None, window=None)
        check_heads(theirs, given, f"{root}/encoderblock_0/MultiHeadDotProductAttention_{'space' if divided else 0}")
        patch = (1, *kernel[:2]) if len(kernel) == 4 else kernel[:3]
        with_token = any(name in theirs for name in ("cls", "cls_SpatialTransformer"))
        mlp = "MlpBlock" if divided else "MlpBlock_0"
        found = family_config(
            family,
            (kernel[-1], theirs.count(root + "/encoderblock_{}/"), given.heads),
            patch=(patch[0], patch[1], patch[2]),
            clip=given.clip,
            num_classes=theirs.shape("output_projection/bias", 1)[0] if theirs.root("output_projection/") else 0,
            channels=kernel[-2],
        )
        hidden = theirs.shape(f"{root}/encoderblock_0/{mlp}/Dense_0/bias", 1)[0]
        pool = "cls" if with_token else "mean"
        found = found.with_stages(pool=pool, prefix=count_prefix(pool), mlp_dim=hidden, gelu="tanh")
        found = found.with_embed(frames=given.frames).with_stage(0, attend=steps)
        depth = theirs.count("TemporalTransformer/encoderblock_{}/")
        return found.with_stage(1, depth=depth) if len(found.stages) > 1 else found

    def allowed(self, config: ModelConfig) -> Allowed:
        attend, tables, pool = KINDS.get(config.family, ((), (), ()))
        own: Allowed = {"family": tuple(KINDS), "frames": (config.embed.frames,), "norm": ("tokens",)}
        own |= {"attend": attend, "tables": (tables,), "pool": pool, "gelu": ("tanh",)}
        prefix = (count_prefix(first_stage(config).pool),) if config.family in KINDS else ()
        return own | {"prefix": prefix, "stages": (2 if config.family == "vivit2" else 1,)}

    def check_supported(self, config: ModelConfig) -> None:
        super().check_supported(config)
        for stage in config.stages[1:]:
            time: Allowed = {"attend": ("thw",), "tables": (("t",),), "over": ("t",), "stages": (1,)}
            own = self.allowed(config) | time | {"pool": (first_stage(config).pool,)}
            require(replace(config, stages=(stage,)), self.name, own)

    def map_tensors(self, link: Link, config: ModelConfig) -> None:
        embed = "embed.embed.proj" if config.embed.frames else "embed.proj"
        map_kernel(
            link, "embedding/kernel", f"{embed}.weight", flat=config.embed.patch[0] == 1 and bool(config.embed.frames)
        )
        link.same("embedding/bias", f"{embed}.bias")
        grid = position_grid(config)
        if config.family == "vivit2":
            map_encoder(link, config, "SpatialTransformer", 0, grid.along("hw"), "cls_SpatialTransformer")
            map_encoder(link, config, "TemporalTransformer", 1, grid.along("t"), "cls_TemporalTransformer")
        else:
            map_encoder(link, config, "Transformer", 0, grid, "cls")
        if config.num_classes:
            map_dense(link, "output_projection", "head")

    def video(self, frames: int) -> Video:
        return VIVIT


def detect_family(theirs: ForeignState, family: str | None, *, factorised: bool, divided: bool) -> str:
    if factorised or divided:
        return "vivit2" if factorised else "vivit3"
    if "cls" in theirs:
        return "vivit1"  # Model 4 has no class token
    if family in ("vivit1", "vivit4"):
        return family
    raise ValueError("scenic's Models 1 and 4 have the same weights: say which with family='vivit1' or 'vivit4'")


def check_heads(theirs: ForeignState, given: Given, attention: str) -> None:
    """Raises ValueError where the number of heads is not that of the kernels, (in, heads, d)."""
    heads = theirs.shape(f"{attention}/query/kernel", 3)[1]
    if given.heads != heads:
        raise ValueError(f"got heads={given.heads!r}, but the weights have {heads}: give heads={heads}")


def map_kernel(link: Link, theirs: str, ours: str, *, flat: bool) -> None:
    """([t,] p, p, C, D) -> (D, C, t, p, p); two axes of space alone where frames are sampled uniformly."""
    if link.has(theirs):
        flat = link.source[theirs].ndim == 4

    def back(x: Tensor) -> list[Tensor]:
        x = x.permute(2, 3, 4, 1, 0)
        return [x[0] if flat else x]

    link.tie([theirs], [ours], lambda x: [(x[None] if flat else x).permute(4, 3, 0, 1, 2)], back)


def map_encoder(link: Link, config: ModelConfig, root: str, number: int, grid: Grid, token: str) -> None:
    ours, table, stage = f"encoders.{number}", f"{root}/posembed_input/pos_embedding", config.stages[number]
    assert stage.kind == "blocks"  # `check_supported` refuses the others
    if stage.pool == "mean":
        link.position(table, f"{ours}.position.tables.0", grid)
    else:
        link.positions([(token, 1)], table, f"{ours}.prefix", f"{ours}.position.tables.0", grid)
    for i in range(stage.depth):
        map_block(link, f"{root}/encoderblock_{i}", f"{ours}.blocks.{i}", stage.attend, stage.heads)
    map_norm(link, f"{root}/encoder_norm", f"{ours}.norm")


def map_block(link: Link, theirs: str, ours: str, steps: str, heads: int) -> None:
    names = {"hw": "space", "t": "time"}
    divided = "," in steps
    for i, suffix in enumerate([names[axes] for axes in steps.split(",")] if divided else ["0"]):
        map_norm(link, f"{theirs}/LayerNorm_{suffix}", f"{ours}.attn_norms.{i}")
        map_attention(link, f"{theirs}/MultiHeadDotProductAttention_{suffix}", f"{ours}.attns.{i}", heads)
    last, mlp = ("LayerNorm_mlp", "MlpBlock") if divided else ("LayerNorm_1", "MlpBlock_0")
    map_norm(link, f"{theirs}/{last}", f"{ours}.mlp_norm")
    for i in (0, 1):
        map_dense(link, f"{theirs}/{mlp}/Dense_{i}", f"{ours}.mlp.fc{i + 1}")


def map_attention(link: Link, theirs: str, ours: str, heads: int) -> None:
    """Query, key and value (in, heads, d), output (heads, d, out)."""
    parts = [f"{theirs}/{part}" for part in ("query", "key", "value")]
    link.tie(
        [f"{part}/kernel" for part in parts],
        [f"{ours}.qkv.weight"],
        lambda *x: [torch.cat([y.flatten(1).t() for y in x])],
        lambda x: [y.t().unflatten(1, (heads, -1)) for y in x.chunk(3)],
    )
    link.tie(
        [f"{part}/bias" for part in parts],
        [f"{ours}.qkv.bias"],
        lambda *x: [torch.cat([y.flatten() for y in x])],
        lambda x: [y.unflatten(0, (heads, -1)) for y in x.chunk(3)],
    )
    link.tie(
        [f"{theirs}/out/kernel"],
        [f"{ours}.proj.weight"],
        lambda x: [x.flatten(0, 1).t()],
        lambda x: [x.t().unflatten(0, (heads, -1))],
    )
    link.same(f"{theirs}/out/bias", f"{ours}.proj.bias")


def map_dense(link: Link, theirs: str, ours: str) -> None:
    link.tie([f"{theirs}/kernel"], [f"{ours}.weight"], lambda x: [x.t()], lambda x: [x.t()])
    link.same(f"{theirs}/bias", f"{ours}.bias")


def map_norm(link: Link, theirs: str, ours: str) -> None:
    link.same(f"{theirs}/scale", f"{ours}.weight")
    link.same(f"{theirs}/bias", f"{ours}.bias")


SCENIC = Scenic()
