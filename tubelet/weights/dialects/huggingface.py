"""Weights of Hugging Face's ViViT, VideoMAE and AST, under the parameter names of transformers 4 and of 5."""

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from tubelet.nn.config import ModelConfig
from tubelet.weights.dialects.dialect import Dialect, Video
from tubelet.weights.dialects.rename import ForeignState, Link
from tubelet.weights.dialects.scenic import VIVIT
from tubelet.weights.dialects.settings import Given, Json, Settings, sound_settings, video_settings
from tubelet.weights.dialects.vit import (
    ENCODER,
    IMAGENET_MEAN,
    IMAGENET_STD,
    PREFIX,
    TABLE,
    Names,
    block,
    blocks_of,
    first_stage,
    grid_for,
    require,
    vit_config,
)

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
# VideoMAE: a key bias changes no attention, so there is none; on disk, and in the memory of transformers 5
QUERY_VALUE = ("attention.attention.q_bias", "attention.attention.v_bias")
QUERY_VALUE_IN_MEMORY = ("attention.attention.query.bias", "attention.attention.value.bias")

AUDIOSET_MEAN, AUDIOSET_STD = (-4.2677393,), (2 * 4.5689974,)  # AST divides by twice the deviation


def wording(names: ForeignState | Link, root: str) -> tuple[str, Names]:
    """How the names of the layers begin, and what their parts are called."""
    if any(name.startswith(f"{root}layers.") for name in names.names):
        return f"{root}layers.{{}}.", IN_MEMORY
    return f"{root}encoder.layer.{{}}.", ON_DISK


def config_of(theirs: ForeignState, given: Given, family: str, root: str, *, flat: bool, head: str) -> ModelConfig:
    layers, names = wording(theirs, root)
    return vit_config(
        theirs,
        given,
        family,
        kernel=f"{root}embeddings.patch_embeddings.projection.weight",
        flat=flat,
        layers=layers,
        hidden=f"{layers.format(0)}{names.fc1}.bias",
        head=head,
    )


def vivit_config(theirs: ForeignState, given: Given) -> ModelConfig:
    given.agree(family="vivit1", attend="thw", frames=None, stride=None, window=None)
    found = config_of(theirs, given, "vivit1", theirs.root("vivit."), flat=False, head="classifier")
    return found.with_stage(0, gelu="tanh")  # its processor scales to [-1, 1]


def check_vivit(config: ModelConfig) -> None:
    require(
        config,
        "hf-vivit",
        family=("vivit1",),
        pool=("cls",),
        norm=("tokens",),
        prefix=(1,),
        gelu=("tanh",),
        tables=(("thw",),),
    )


def map_vivit(link: Link, config: ModelConfig) -> None:
    root = link.root("vivit.")
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


def videomae_config(theirs: ForeignState, given: Given) -> ModelConfig:
    given.agree(family="videomae", attend="thw", frames=None, stride=None, window=None)
    root = theirs.root("videomae.")
    found = config_of(theirs, given, "videomae", root, flat=False, head="classifier")
    by_mean = bool(theirs.root("fc_norm."))
    if found.num_classes and not by_mean:
        raise ValueError(
            "the weights classify VideoMAE's first patch token (use_mean_pooling=False), which our models do not: "
            "leave the classifier out to take the encoder"
        )
    norm = "pooled" if by_mean else "tokens" if theirs.root(f"{root}layernorm.") else "none"
    found = found.with_stage(0, norm=norm, eps=1e-12, pool_eps=1e-5)
    return replace(found, mean=IMAGENET_MEAN, std=IMAGENET_STD) if found.channels == 3 else found


def check_videomae(config: ModelConfig) -> None:
    require(
        config,
        "hf-videomae",
        family=("videomae",),
        pool=("mean",),
        norm=("pooled",) if config.num_classes else ("pooled", "tokens", "none"),
        prefix=(0,),
        position=("fixed",),
        tables=(("thw",),),
        eps=(1e-12,),
        pool_eps=(1e-5,),
    )


def map_videomae(link: Link, config: ModelConfig) -> None:
    root, grid = link.root("videomae."), grid_for(config)
    layers, names = wording(link, root)
    link.kernel(f"{root}embeddings.patch_embeddings.projection", "embed.proj", flat=False)
    fixed_table(link, counted(grid.size, first_stage(config).dim).view(*grid, -1))
    in_memory = any(name.endswith(QUERY_VALUE_IN_MEMORY) for name in link.names)
    biases = QUERY_VALUE_IN_MEMORY if in_memory else QUERY_VALUE
    for i in blocks_of(config):
        without_key_bias(link, names, layers.format(i), f"{ENCODER}.blocks.{i}", biases)
    norm = first_stage(config).norm
    if norm == "tokens":
        link.linear(f"{root}layernorm", f"{ENCODER}.norm")
    if norm == "pooled":
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
        raise ValueError(
            "VideoMAE's positions are sines and cosines of a token's number, and this model has others (one made by "
            "name has those of each axis): only models that were read from VideoMAE can be written for it"
        )


def counted(rows: int, dim: int) -> Tensor:
    """Sines and cosines by turns over the rows counted through, (N, D). Source: arXiv 1706.03762, section 3.5."""
    rate = 10_000 ** -(torch.arange(dim, dtype=torch.float64) // 2 * 2 / dim)
    angle = torch.arange(rows)[:, None] * rate
    return torch.where(torch.arange(dim) % 2 == 0, angle.sin(), angle.cos()).float()


def ast_config(theirs: ForeignState, given: Given) -> ModelConfig:
    given.agree(family="ast", attend="thw", frames=None, window=None)
    root = theirs.root("audio_spectrogram_transformer.")
    found = config_of(theirs, given, "ast", root, flat=True, head="classifier.dense")
    if found.channels != 1:
        raise ValueError(f"AST's spectrograms have one channel, these weights {found.channels}: is the dialect right?")
    norm = "both" if theirs.root("classifier.layernorm.") else "tokens"
    return replace(found.with_stage(0, norm=norm), mean=AUDIOSET_MEAN, std=AUDIOSET_STD)


def check_ast(config: ModelConfig) -> None:
    require(
        config,
        "hf-ast",
        family=("ast",),
        patch=((1, *config.embed.patch[1:]),),
        stride=(config.embed.stride,),
        channels=(1,),
        pool=("cls+dist",),
        norm=("both",) if config.num_classes else ("both", "tokens"),
        prefix=(2,),
        tables=(("hw",),),
        eps=(1e-12,),
        pool_eps=(1e-12,),
    )


def map_ast(link: Link, config: ModelConfig) -> None:
    root = link.root("audio_spectrogram_transformer.")
    layers, names = wording(link, root)
    link.kernel(f"{root}embeddings.patch_embeddings.projection", "embed.proj", flat=True)
    tokens = [(f"{root}embeddings.{name}", 1) for name in ("cls_token", "distillation_token")]
    link.positions(tokens, f"{root}embeddings.position_embeddings", PREFIX, TABLE, grid_for(config))
    for i in blocks_of(config):
        block(link, names, layers.format(i), f"{ENCODER}.blocks.{i}")
    link.linear(f"{root}layernorm", f"{ENCODER}.norm")
    if first_stage(config).norm == "both":
        link.linear("classifier.layernorm", f"{ENCODER}.pool.norm")
    if config.num_classes:
        link.linear("classifier.dense", "head")


def vivit_settings(config: Json, preprocessor: Json) -> Settings:
    """But for mean and std: its processor normalises twice, and published weights were not trained so."""
    return replace(video_settings("vivit", config, preprocessor), mean=None, std=None)


HF_VIVIT = Dialect(
    name="hf-vivit",
    fingerprint=("vivit.embeddings.cls_token", "embeddings.cls_token"),
    config=vivit_config,
    check_supported=check_vivit,
    mapping=map_vivit,
    read_settings=vivit_settings,
    video=lambda frames: VIVIT,
    note="pixels in [-1, 1], as ViViT was trained; transformers' processor would normalise them twice",
)
HF_VIDEOMAE = Dialect(
    name="hf-videomae",
    fingerprint=tuple(f"{root}embeddings.patch_embeddings.projection.weight" for root in ("videomae.", "")),
    config=videomae_config,
    check_supported=check_videomae,
    mapping=map_videomae,
    read_settings=partial(video_settings, "videomae"),
    video=lambda frames: Video(4, 30, 224, "as VideoMAE on Kinetics, if its files have 30 frames a second"),
)
HF_AST = Dialect(
    name="hf-ast",
    fingerprint=("audio_spectrogram_transformer.embeddings.cls_token", "embeddings.distillation_token"),
    config=ast_config,
    check_supported=check_ast,
    mapping=map_ast,
    read_settings=partial(sound_settings, "audio-spectrogram-transformer"),
    kind="sound",
)
