"""Weights of Hugging Face's ViViT, VideoMAE and AST, under the parameter names of transformers 4 and of 5."""

from dataclasses import replace

import torch
from torch import Tensor

from tubelet.nn.config import ModelConfig
from tubelet.weights.layers import ENCODER, PREFIX, TABLE, Names, block, blocks_of, grid_for, require, vit_config
from tubelet.weights.link import Link, Theirs, Told
from tubelet.weights.timm import IMAGENET_MEAN, IMAGENET_STD

# what transformers 4 has in memory, and every version writes
ON_DISK = Names(
    "layernorm_before",
    tuple(f"attention.attention.{part}" for part in ("query", "key", "value")),
    "attention.output.dense",
    "layernorm_after",
    "intermediate.dense",
    "output.dense",
)
# what transformers 5 has in memory
IN_MEMORY = Names(
    "layernorm_before",
    tuple(f"attention.{part}_proj" for part in "qkv"),
    "attention.o_proj",
    "layernorm_after",
    "mlp.fc1",
    "mlp.fc2",
)
# VideoMAE: a key bias changes no attention, so there is none
QUERY_VALUE = ("attention.attention.query.bias", "attention.attention.value.bias")
QUERY_VALUE_OLD = ("attention.attention.q_bias", "attention.attention.v_bias")

AUDIOSET_MEAN, AUDIOSET_STD = (-4.2677393,), (2 * 4.5689974,)  # AST divides by twice the deviation


def wording(names: Theirs | Link, root: str) -> tuple[str, Names]:
    """How the names of the layers begin, and what their parts are called."""
    memory = any(name.startswith(f"{root}layers.0.attention.q_proj") for name in tensors_of(names))
    return (f"{root}layers.{{}}.", IN_MEMORY) if memory else (f"{root}encoder.layer.{{}}.", ON_DISK)


def tensors_of(names: Theirs | Link) -> dict[str, Tensor]:
    return names.tensors if isinstance(names, Theirs) else names.source if names.reading else {}


def root_of(names: Theirs | Link, prefix: str) -> str:
    """`prefix`, which a model without head is saved without."""
    found = tensors_of(names)
    return prefix if not found or any(name.startswith(prefix) for name in found) else ""


def config_of(theirs: Theirs, told: Told, family: str, root: str, head: str) -> ModelConfig:
    layers, names = wording(theirs, root)
    return vit_config(
        theirs,
        told,
        family,
        kernel=f"{root}embeddings.patch_embeddings.projection.weight",
        layers=layers,
        hidden=f"{layers.format(0)}{names.fc1}.bias",
        head=head,
    )


def vivit_config(theirs: Theirs, told: Told) -> ModelConfig:
    told.agree(family="vivit1", attend="thw", frames=None, stride=None, window=None)
    found = config_of(theirs, told, "vivit1", root_of(theirs, "vivit."), "classifier")
    return replace(found, pool="cls", gelu="tanh")  # its processor scales to [-1, 1]


def vivit_says(config: ModelConfig) -> None:
    require(
        config,
        "hf-vivit",
        family=("vivit1",),
        attend=("thw",),
        pool=("cls",),
        norm=("tokens",),
        prefix=(None, 1),
        gelu=("tanh",),
        tables=(("thw",),),
    )


def vivit_tie(link: Link, config: ModelConfig) -> None:
    root = root_of(link, "vivit.")
    layers, names = wording(link, root)
    link.kernel(f"{root}embeddings.patch_embeddings.projection", "embed.proj", flat=False)
    token, table = f"{root}embeddings.cls_token", f"{root}embeddings.position_embeddings"
    link.positions([(token, 1)], table, PREFIX, TABLE, grid_for(config))
    for i in blocks_of(config):
        block(link, names, layers.format(i), f"{ENCODER}.blocks.{i}")
    link.linear(f"{root}layernorm", f"{ENCODER}.norm")
    link.leave(f"{root}pooler.", "the classifier does not use it")
    if config.num_classes:
        link.linear("classifier", "head")


def videomae_config(theirs: Theirs, told: Told) -> ModelConfig:
    told.agree(family="videomae", attend="thw", frames=None, stride=None, window=None)
    root = root_of(theirs, "videomae.")
    found = config_of(theirs, told, "videomae", root, "classifier")
    by_mean = "fc_norm.bias" in theirs
    if found.num_classes and not by_mean:
        raise ValueError(
            "the weights classify VideoMAE's first patch token (use_mean_pooling=False), which our models do not: "
            "leave the classifier out to take the encoder"
        )
    norm = "pooled" if by_mean else "tokens" if f"{root}layernorm.bias" in theirs else "none"
    found = replace(found, pool="mean", norm=norm, eps=1e-12, pool_eps=1e-5)
    return replace(found, mean=IMAGENET_MEAN, std=IMAGENET_STD) if found.channels == 3 else found


def videomae_says(config: ModelConfig) -> None:
    require(
        config,
        "hf-videomae",
        family=("videomae",),
        attend=("thw",),
        pool=("mean",),
        norm=("pooled", "tokens"),
        prefix=(None, 0),
        position=("fixed",),
        tables=(("thw",),),
    )


def videomae_tie(link: Link, config: ModelConfig) -> None:
    root, grid = root_of(link, "videomae."), grid_for(config)
    layers, names = wording(link, root)
    link.kernel(f"{root}embeddings.patch_embeddings.projection", "embed.proj", flat=False)
    fixed_table(link, counted(grid.size, config.dim).view(*grid, -1))
    old = link.has(f"{layers.format(0)}{QUERY_VALUE_OLD[0]}")
    biases = QUERY_VALUE_OLD if old else QUERY_VALUE
    for i in blocks_of(config):
        without_key_bias(link, names, layers.format(i), f"{ENCODER}.blocks.{i}", biases)
    if config.norm == "tokens":
        link.linear(f"{root}layernorm", f"{ENCODER}.norm")
    if config.norm == "pooled":
        link.linear("fc_norm", f"{ENCODER}.pool.norm")
    for beginning in ("decoder.", "encoder_to_decoder.", "mask_token", "position_embeddings"):
        link.leave(beginning, "the decoder is for pretraining")
    if config.num_classes:
        link.linear("classifier", "head")


def without_key_bias(link: Link, names: Names, theirs: str, ours: str, biases: tuple[str, str]) -> None:
    link.linear(f"{theirs}{names.norm1}", f"{ours}.attn_norms.0")
    weights = [f"{theirs}{part}.weight" for part in names.qkv]
    link.tie(weights, [f"{ours}.attns.0.qkv.weight"], lambda *x: [torch.cat(x)], lambda x: x.chunk(3))
    link.tie(
        [f"{theirs}{bias}" for bias in biases],
        [f"{ours}.attns.0.qkv.bias"],
        lambda q, v: [torch.cat([q, torch.zeros_like(q), v])],
        lambda x: x.chunk(3)[::2],
        "taken, the key without bias",
    )
    link.linear(f"{theirs}{names.proj}", f"{ours}.attns.0.proj")
    link.linear(f"{theirs}{names.norm2}", f"{ours}.mlp_norm")
    link.linear(f"{theirs}{names.fc1}", f"{ours}.mlp.fc1")
    link.linear(f"{theirs}{names.fc2}", f"{ours}.mlp.fc2")


def fixed_table(link: Link, table: Tensor) -> None:
    """Their positions are computed, not stored: put in while reading, checked while writing."""
    if link.reading:
        link.result[TABLE] = table
    elif not torch.allclose(link.source.pop(TABLE), table, atol=1e-6):
        raise ValueError("VideoMAE has fixed sine-cosine positions, and this model has others: choose another dialect")


def counted(rows: int, dim: int) -> Tensor:
    """Sines and cosines by turns over the rows counted through, (N, D). Source: arXiv 1706.03762, section 3.5."""
    rate = 10_000 ** -(torch.arange(dim, dtype=torch.float64) // 2 * 2 / dim)
    angle = torch.arange(rows)[:, None] * rate
    return torch.where(torch.arange(dim) % 2 == 0, angle.sin(), angle.cos()).float()


def ast_config(theirs: Theirs, told: Told) -> ModelConfig:
    told.agree(family="ast", attend="thw", frames=None, window=None)
    found = config_of(theirs, told, "ast", root_of(theirs, "audio_spectrogram_transformer."), "classifier.dense")
    norm = "both" if "classifier.layernorm.bias" in theirs else "tokens"
    found = replace(found, pool="cls+dist", norm=norm, eps=1e-12, pool_eps=1e-12)
    return replace(found, mean=AUDIOSET_MEAN, std=AUDIOSET_STD)


def ast_says(config: ModelConfig) -> None:
    require(
        config,
        "hf-ast",
        family=("ast",),
        attend=("thw",),
        pool=("cls+dist",),
        norm=("both", "tokens"),
        prefix=(None, 2),
        tables=(("hw",),),
    )


def ast_tie(link: Link, config: ModelConfig) -> None:
    root = root_of(link, "audio_spectrogram_transformer.")
    layers, names = wording(link, root)
    link.kernel(f"{root}embeddings.patch_embeddings.projection", "embed.proj", flat=True)
    tokens = [(f"{root}embeddings.{name}", 1) for name in ("cls_token", "distillation_token")]
    link.positions(tokens, f"{root}embeddings.position_embeddings", PREFIX, TABLE, grid_for(config))
    for i in blocks_of(config):
        block(link, names, layers.format(i), f"{ENCODER}.blocks.{i}")
    link.linear(f"{root}layernorm", f"{ENCODER}.norm")
    if config.norm == "both":
        link.linear("classifier.layernorm", f"{ENCODER}.pool.norm")
    if config.num_classes:
        link.linear("classifier.dense", "head")
