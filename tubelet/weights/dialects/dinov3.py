"""Weights of DINOv3: Hugging Face's, as saved and as in memory, and timm's."""

from dataclasses import replace

import torch

from tubelet.nn.config import ModelConfig
from tubelet.nn.families import DINOV3_SIZES
from tubelet.weights.dialects.dialect import Allowed, Kind, Video
from tubelet.weights.dialects.rename import ForeignState, Link, Rows, order_heads
from tubelet.weights.dialects.settings import Given, Json, Settings, check_published, image_settings, number
from tubelet.weights.dialects.vit import PREFIX, Names, VitDialect, block, find_heads, first_stage

UNPUBLISHED = ("P", "N")  # sizes of ours


class Dinov3(VitDialect):
    """Base of both dialects. Query and value have biases or not, MLPs a gate or not.

    tokens: the class token and the registers.
    gate, value: the two layers whose product is the hidden layer of a gated MLP.
    no_registers: there is a tensor of registers even where there are none of them.
    px: side of the pictures of published models.
    """

    family = "dinov3"
    kind: Kind = "image"
    flat, norm = True, "norm"
    licence = "DINOv3 License"
    note = (
        "the answer is the class token (timm's own default is the mean of the patches); the original squashes pictures "
        "to the size of the model, here they keep their aspect, and the middle is cut out"
    )
    gate: str
    value: str
    no_registers: bool
    px: int

    def config(self, theirs: ForeignState, given: Given) -> ModelConfig:
        found, (_, names) = super().config(theirs, given), self.wording(theirs)
        stage = first_stage(found)
        if stage.dim % stage.heads or stage.dim // stage.heads % 4:
            raise ValueError(
                f"positions turn a quarter of a head's channels at a time, got heads={stage.heads} for a width of "
                f"{stage.dim}: give the number of heads"
            )
        return found.with_stage(
            0,
            prefix=sum(theirs.shape(name, 3)[1] for name in self.tokens if name in theirs),
            mlp="gated" if names.gate else "plain",
            qkv_bias=any(names.biases or ()),
        )

    def allowed(self, config: ModelConfig) -> Allowed:
        stage = first_stage(config)
        own: Allowed = {"position": ("rotary-centred",), "tables": ((),), "over": ("hw",), "eps": (1e-5,)}
        own |= {"pool": ("cls",), "norm": ("tokens",), "qkv_bias": (True, False)}
        own |= {"mlp": ("plain", "gated"), "gelu": ("erf",) if stage.mlp == "plain" else (stage.gelu,)}
        return super().allowed(config) | own | {"num_classes": (0,)}

    def published(self, theirs: ForeignState) -> Settings:
        width = theirs.shape(f"{self.kernel}.bias", 1)[0]
        known = {name: size for name, size in DINOV3_SIZES.items() if name not in UNPUBLISHED}
        heads = find_heads(known, width, theirs.count(self.wording(theirs)[0]))
        return Settings(heads=heads, clip=(1, self.px, self.px) if heads else None)

    def wording(self, names: ForeignState | Link) -> tuple[str, Names]:
        """The names of the layers that there are: in the weights that are read, or in the model that is written."""
        layers, words = super().wording(names)
        if isinstance(names, Link) and not names.reading:
            gated = any(name.endswith(".mlp.gate.weight") for name in names.source)
            packed = [bias for name, bias in names.source.items() if name.endswith(".attns.0.qkv.bias")]
            there = [bool(packed), any(bool(bias.chunk(3)[1].any()) for bias in packed), bool(packed)]
            if there[1] and not (words.biases or ())[1]:
                raise ValueError(
                    f"the model has biases of keys, and the dialect {self.name!r} has no words for them: choose another"
                )
        else:
            gated = any(name.endswith(f"{self.gate}.weight") for name in names.names)
            there = [any(name.endswith(bias) for name in names.names) for bias in words.biases or ()]
        biases = tuple(name if found else "" for name, found in zip(words.biases or (), there, strict=True))
        fc1 = self.value if gated else words.fc1
        return layers, replace(words, biases=biases, fc1=fc1, gate=self.gate if gated else "")

    def video(self, frames: int) -> Video | None:
        return None if frames == 1 else Video(10, frames, 224, "a guess, for it learned from pictures: ten seconds")

    def map_positions(self, link: Link, config: ModelConfig, root: str) -> None:
        """Rotary positions are computed; here are the tokens before those of the patches."""
        registers = first_stage(config).prefix - 1
        tokens = list(zip(self.tokens, (1, registers), strict=True))
        link.joined(tokens if registers or self.no_registers else tokens[:1], PREFIX)

    def map_block(self, link: Link, config: ModelConfig, names: Names, theirs: str, ours: str) -> None:
        stage = first_stage(config)
        block(link, names, theirs, ours, rows=neighbours_from_halves(stage.dim, stage.heads), scaled=True)


def neighbours_from_halves(dim: int, heads: int) -> Rows:
    """Theirs turn a channel of a head together with the one half a head further on, ours with its neighbour."""
    half = dim // heads // 2
    return order_heads(heads, [channel for i in range(half) for channel in (i, half + i)])


class HfDinov3(Dinov3):
    name, gated = "hf-dinov3", True
    fingerprint = ("model.layer.0.layer_scale1.lambda1", "layer.0.layer_scale1.lambda1")  # in memory, and as saved
    kernel, layers, px = "embeddings.patch_embeddings", "layer.{}.", 224
    tokens, no_registers = ("embeddings.cls_token", "embeddings.register_tokens"), True
    block = Names(
        qkv=tuple(f"attention.{part}_proj" for part in "qkv"),
        proj="attention.o_proj",
        fc1="mlp.up_proj",
        fc2="mlp.down_proj",
        scales=("layer_scale1.lambda1", "layer_scale2.lambda1"),
        biases=tuple(f"attention.{part}_proj.bias" for part in "qkv"),
    )
    gate, value = "mlp.gate_proj", "mlp.up_proj"

    def wording(self, names: ForeignState | Link) -> tuple[str, Names]:
        layers, words = super().wording(names)
        in_memory = any(name.startswith(f"model.{self.layers.format(0)}") for name in names.names)
        return f"model.{layers}" if in_memory else layers, words

    def map_positions(self, link: Link, config: ModelConfig, root: str) -> None:
        super().map_positions(link, config, root)
        link.leave("embeddings.mask_token", "for pretraining")
        if not link.reading:
            link.result["embeddings.mask_token"] = torch.zeros(1, 1, first_stage(config).dim)

    def read_settings(self, config: Json, preprocessor: Json) -> Settings:
        """Raises ValueError for a rotation or a gate that no published model has."""
        said = image_settings("dinov3_vit", config, preprocessor)
        check_published("rope_theta", number(config, "rope_theta"), 100.0)
        if config.get("use_gated_mlp") is not True:
            return said
        check_published("hidden_act", config.get("hidden_act"), "silu")
        return replace(said, gelu=None)


class TimmDinov3(Dinov3):
    name = "timm"
    fingerprint = ("blocks.0.gamma_1", "blocks.0.gamma_2")
    kernel, layers, px = "patch_embed.proj", "blocks.{}.", 256
    tokens, no_registers = ("cls_token", "reg_token"), False
    block = Names(scales=("gamma_1", "gamma_2"), biases=("attn.q_bias", "", "attn.v_bias"))
    gate, value = "mlp.fc1_g", "mlp.fc1_x"


HF_DINOV3, TIMM_DINOV3 = HfDinov3(), TimmDinov3()
