"""Weights of Hugging Face's V-JEPA 2: the encoder, with attentive pooling and a classifier where there are."""

from dataclasses import replace
from functools import partial

from tubelet.nn.config import ModelConfig
from tubelet.weights.dialects.dialect import Dialect, Video
from tubelet.weights.dialects.rename import ForeignState, Link
from tubelet.weights.dialects.settings import Given, video_settings
from tubelet.weights.dialects.vit import (
    ENCODER,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Names,
    block,
    blocks_of,
    first_stage,
    require,
    vit_config,
)

NAMES = Names(
    "norm1",
    tuple(f"attention.{part}" for part in ("query", "key", "value")),
    "attention.proj",
    "norm2",
    "mlp.fc1",
    "mlp.fc2",
)
POOLER = Names(
    "layer_norm1",
    tuple(f"self_attn.{part}_proj" for part in "qkv"),
    "self_attn.out_proj",
    "layer_norm2",
    "mlp.fc1",
    "mlp.fc2",
)


def config(theirs: ForeignState, given: Given) -> ModelConfig:
    given.agree(family="vjepa2", attend="thw", frames=None, stride=None, window=None)
    root = theirs.root("vjepa2.")
    found = vit_config(
        theirs,
        given,
        "vjepa2",
        kernel=f"{root}encoder.embeddings.patch_embeddings.proj.weight",
        flat=False,
        layers=root + "encoder.layer.{}.",
        hidden=f"{root}encoder.layer.0.mlp.fc1.bias",
        head="classifier",
    )
    pool = "attentive" if theirs.root("pooler.") else "mean"
    found = found.with_stage(0, pool=pool, pool_depth=theirs.count("pooler.self_attention_layers.{}."))
    return replace(found, mean=IMAGENET_MEAN, std=IMAGENET_STD) if found.channels == 3 else found


def check_supported(config: ModelConfig) -> None:
    require(
        config,
        "hf-vjepa2",
        family=("vjepa2",),
        position=("rotary-tiled",),
        pool=("attentive",) if config.num_classes else ("attentive", "mean"),
        norm=("tokens",),
        prefix=(0,),
    )


def map_tensors(link: Link, config: ModelConfig) -> None:
    pooled = first_stage(config).pool == "attentive"
    root = link.root("vjepa2.") if link.reading or pooled else ""
    link.kernel(f"{root}encoder.embeddings.patch_embeddings.proj", "embed.proj", flat=False)
    for i in blocks_of(config):
        block(link, NAMES, f"{root}encoder.layer.{i}.", f"{ENCODER}.blocks.{i}")
    link.linear(f"{root}encoder.layernorm", f"{ENCODER}.norm")
    link.leave(f"{root}predictor.", "the predictor is for pretraining")
    if pooled:
        pooler(link, first_stage(config).pool_depth)
    if config.num_classes:
        link.linear("classifier", "head")


def pooler(link: Link, depth: int) -> None:
    ours, cross = f"{ENCODER}.pool", "pooler.cross_attention_layer"
    for i in range(depth):
        block(link, POOLER, f"pooler.self_attention_layers.{i}.", f"{ours}.blocks.{i}")
    link.same("pooler.query_tokens", f"{ours}.query")
    link.linear(f"{cross}.layer_norm1", f"{ours}.norm")
    link.packed([f"{cross}.cross_attn.{name}_proj" for name in "qkv"], f"{ours}.qkv")
    link.linear(f"{cross}.layer_norm2", f"{ours}.mlp_norm")
    link.linear(f"{cross}.mlp.fc1", f"{ours}.mlp.fc1")
    link.linear(f"{cross}.mlp.fc2", f"{ours}.mlp.fc2")


HF_VJEPA2 = Dialect(
    name="hf-vjepa2",
    fingerprint=tuple(f"{root}encoder.embeddings.patch_embeddings.proj.weight" for root in ("vjepa2.", "")),
    config=config,
    check_supported=check_supported,
    mapping=map_tensors,
    read_settings=partial(video_settings, "vjepa2", frames="frames_per_clip", size="crop_size"),
    video=lambda frames: Video(1, 4, 256, "a guess: V-JEPA 2 was pretrained so, its classifiers differ"),
)
