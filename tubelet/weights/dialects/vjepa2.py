"""Weights of Hugging Face's V-JEPA 2: the encoder, with attentive pooling and a classifier where there are."""

from dataclasses import replace

from tubelet.nn.config import ModelConfig
from tubelet.weights.dialects.rename import Link, Theirs, Told
from tubelet.weights.dialects.timm import IMAGENET_MEAN, IMAGENET_STD
from tubelet.weights.dialects.vit import ENCODER, Names, block, blocks_of, first_stage, require, vit_config

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


def config(theirs: Theirs, told: Told) -> ModelConfig:
    told.agree(family="vjepa2", attend="thw", frames=None, stride=None, window=None)
    root = theirs.root("vjepa2.")
    found = vit_config(
        theirs,
        told,
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


def says(config: ModelConfig) -> None:
    require(
        config,
        "hf-vjepa2",
        family=("vjepa2",),
        position=("rotary-tiled",),
        pool=("attentive",) if config.num_classes else ("attentive", "mean"),
        norm=("tokens",),
        prefix=(0,),
    )


def tie(link: Link, config: ModelConfig) -> None:
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
