"""Weights of timm's Swin transformer v2 CR."""

from dataclasses import replace

from tubelet.nn.config import ModelConfig
from tubelet.nn.create import family_config
from tubelet.weights.dialects.dialect import Allowed, Dialect
from tubelet.weights.dialects.rename import ForeignState, Link
from tubelet.weights.dialects.settings import Given
from tubelet.weights.dialects.vit import ENCODER, IMAGENET_MEAN, IMAGENET_STD


class TimmSwin(Dialect):
    name, kind = "timm", "image"
    fingerprint = ("stages.0.blocks.0.norm1.weight", "stages.0.blocks.0.norm1.bias")

    def config(self, theirs: ForeignState, given: Given) -> ModelConfig:
        given.agree(family="swin2", attend="windows", frames=None, stride=None)
        if isinstance(given.heads, int) or given.window is None:
            raise ValueError(
                f"Swin has a number of heads for each stage and windows, got heads={given.heads}, "
                f"window={given.window}: give heads=(2, 4, ...) and window=(1, h, w) in tokens"
            )
        dim, channels, h, w = theirs.shape("patch_embed.proj.weight", 4)
        stages = theirs.count("stages.{}.")
        depth = tuple(theirs.count(f"stages.{i}.blocks." + "{}.") for i in range(stages))
        found = family_config(
            "swin2",
            (dim, depth, given.heads),
            patch=(1, h, w),
            clip=given.clip,
            num_classes=theirs.classes("head.fc"),
            channels=channels,
        )
        found = found.with_stage(
            0,
            mlp_dim=theirs.shape("stages.0.blocks.0.mlp.fc1.bias", 1)[0],
            window=given.window,
            level_norms=f"stages.0.blocks.{depth[0] - 1}.norm3.bias" in theirs and stages > 1,
        )
        return replace(found, mean=IMAGENET_MEAN, std=IMAGENET_STD) if channels == 3 else found

    def allowed(self, config: ModelConfig) -> Allowed:
        still: Allowed = {"patch": ((1, *config.embed.patch[1:]),), "clip": ((1, *config.clip[1:]),)}
        return still | {"family": ("swin2",), "eps": (1e-5,)}

    def map_tensors(self, link: Link, config: ModelConfig) -> None:
        link.kernel("patch_embed.proj", "embed.proj", flat=True)
        link.linear("patch_embed.norm", f"{ENCODER}.embed_norm")
        swin = config.stages[0]
        assert swin.kind == "windows"  # `check_supported` refuses the others
        for stage, depth in enumerate(swin.depths):
            theirs, ours = f"stages.{stage}", f"{ENCODER}.stages.{stage}"
            if stage:
                link.linear(f"{theirs}.downsample.norm", f"{ours}.merge.norm")
                link.same(f"{theirs}.downsample.reduction.weight", f"{ours}.merge.reduction.weight")
            for i in range(depth):
                map_block(link, f"{theirs}.blocks.{i}", f"{ours}.blocks.{i}")
            if swin.level_norms or stage == len(swin.depths) - 1:
                link.linear(f"{theirs}.blocks.{depth - 1}.norm3", f"{ours}.norm")
        if config.num_classes:
            link.linear("head.fc", "head")


def map_block(link: Link, theirs: str, ours: str) -> None:
    link.linear(f"{theirs}.attn.qkv", f"{ours}.attn.qkv")
    link.linear(f"{theirs}.attn.proj", f"{ours}.attn.proj")
    link.same(f"{theirs}.attn.logit_scale", f"{ours}.attn.logit_scale")
    for layer in ("fc1", "fc2"):
        link.linear(f"{theirs}.attn.meta_mlp.{layer}", f"{ours}.attn.meta.{layer}")
        link.linear(f"{theirs}.mlp.{layer}", f"{ours}.mlp.{layer}")
    link.linear(f"{theirs}.norm1", f"{ours}.attn_norm")
    link.linear(f"{theirs}.norm2", f"{ours}.mlp_norm")


SWIN = TimmSwin()
