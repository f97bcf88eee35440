"""Weights of Hugging Face's VideoPrism: `VideoPrismVisionModel`, `VideoPrismForVideoClassification`, and of
`VideoPrismClipModel` (LvT) the video tower."""

from functools import partial

from tubelet.nn.config import ModelConfig
from tubelet.weights.dialects.dialect import Allowed
from tubelet.weights.dialects.rename import ForeignState, Link
from tubelet.weights.dialects.settings import Json, Settings, check_published, number, section, video_settings
from tubelet.weights.dialects.videoprism import (
    CAP,
    FOLDED,
    NO_TEXT,
    Sizes,
    VideoPrism,
    block_stages,
    fold_scale,
    map_norm,
    unfold_scale,
)
from tubelet.weights.dialects.vit import first_stage, position_grid

KERNEL = "spatial_embeddings.patch_embeddings.projection"


class HuggingFaceVideoPrism(VideoPrism):
    name = "hf-videoprism"
    fingerprint = tuple(f"{root}{KERNEL}.weight" for root in ("", "vision_model.", "video_model.vision_model."))

    def sizes(self, theirs: ForeignState) -> Sizes:
        top = theirs.root("video_model.")
        root = theirs.root(f"{top}vision_model.")
        width, channels, t, h, w = theirs.shape(f"{root}{KERNEL}.weight", 5)
        before, classes = theirs.count(f"{top}auxiliary_layers.{{}}."), theirs.classes("classifier")
        pools = bool(theirs.root(f"{top}head.") or before or classes)
        return Sizes(
            width=width,
            depths=(theirs.count(f"{root}spatial_layers.{{}}."), theirs.count(f"{root}temporal_layers.{{}}.")),
            mlp_dim=theirs.shape(f"{root}spatial_layers.0.mlp.fc1.bias", 1)[0],
            patch=(t, h, w),
            channels=channels,
            classes=classes,
            pooling=(before, theirs.shape(f"{top}head.q_proj.bias", 1)[0]) if pools else None,
        )

    def pooled(self, config: ModelConfig) -> Allowed:
        own: Allowed = {"pool_dim": (first_stage(config).mlp_dim,)}
        return own | ({"depth": (0,)} if config.num_classes else {})

    def map_tensors(self, link: Link, config: ModelConfig) -> None:
        """Pooling without a classifier is written as the video tower of LvT."""
        stages, grid = block_stages(config), position_grid(config)
        pools = len(stages) == 3
        top = link.root("video_model.") if link.reading or (pools and not config.num_classes) else ""
        root = link.root(f"{top}vision_model.") if link.reading or pools else top
        link.kernel(root + KERNEL, "embed.proj", flat=False)
        for i, (encoder, axes) in enumerate((("spatial", "hw"), ("temporal", "t"))):
            table = f"{root}{encoder}_embeddings.position_embeddings"
            link.position(table, f"encoders.{i}.position.tables.0", grid.along(axes))
            map_layers(link, f"{root}{encoder}_layers", f"encoders.{i}", stages[i].depth)
            map_norm(link.tie, f"{root}layernorm{i + 1}", f"encoders.{i}.norm", gain=".weight")
        for stage in stages[2:]:
            map_layers(link, f"{top}auxiliary_layers", "encoders.2", stage.depth)
            map_pooling(link, top, first_stage(config).heads)
        if config.num_classes:
            link.linear("classifier", "head")
        link.leave("text_model.", NO_TEXT)

    def read_settings(self, config: Json, preprocessor: Json) -> Settings:
        """Settings of the video model, or of that beside a text model. Mean and std count only where the preprocessor
        says that it normalises: those it writes otherwise are another model's."""
        if config.get("model_type") == "videoprism":
            config = section(config, "vision_config")
        check_published("attn_logit_softcapping", number(config, "attn_logit_softcapping"), CAP)
        read = preprocessor if preprocessor.get("do_normalize") is True else {}
        return video_settings("videoprism_vision_model", config, read)


def map_layers(link: Link, theirs: str, ours: str, depth: int) -> None:
    for i in range(depth):
        layer, block = f"{theirs}.{i}", f"{ours}.blocks.{i}"
        map_norm(link.tie, f"{layer}.layernorm_before", f"{block}.attn_norms.0", gain=".weight")
        link.packed([f"{layer}.attention.{part}_proj" for part in "qkv"], f"{block}.attns.0.qkv")
        link.linear(f"{layer}.attention.o_proj", f"{block}.attns.0.proj")
        map_norm(link.tie, f"{layer}.layernorm_after", f"{block}.mlp_norm", gain=".weight")
        link.linear(f"{layer}.mlp.fc1", f"{block}.mlp.fc1")
        link.linear(f"{layer}.mlp.fc2", f"{block}.mlp.fc2")


def map_pooling(link: Link, top: str, heads: int) -> None:
    head, ours = f"{top}head", "encoders.2.pool"
    names = [f"{head}.{part}_proj.{kind}" for kind in ("weight", "bias") for part in "qkv"]
    ways = partial(fold_scale, heads=heads), partial(unfold_scale, heads=heads)
    link.same(f"{head}.pooling_attention_query", f"{ours}.query")
    link.tie([*names, f"{head}.per_dim_scale"], [f"{ours}.qkv.weight", f"{ours}.qkv.bias"], *ways, FOLDED)
    link.linear(f"{head}.o_proj", f"{ours}.proj")
    map_norm(link.tie, f"{head}_layernorm", f"{ours}.norm", gain=".weight")


HF_VIDEOPRISM = HuggingFaceVideoPrism()
