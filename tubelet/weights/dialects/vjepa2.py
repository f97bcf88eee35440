"""Weights of Hugging Face's V-JEPA 2: the encoder, with attentive pooling and a classifier where there are."""

from tubelet.nn.config import ModelConfig
from tubelet.weights.dialects.dialect import Allowed, Video
from tubelet.weights.dialects.rename import ForeignState, Link
from tubelet.weights.dialects.settings import Given, Json, Settings, video_settings
from tubelet.weights.dialects.vit import ENCODER, Names, VitDialect, block, first_stage

POOLER_QKV = tuple(f"self_attn.{part}_proj" for part in "qkv")
POOLER = Names("layer_norm1", POOLER_QKV, "self_attn.out_proj", "layer_norm2")


class Vjepa2(VitDialect):
    name, family, root = "hf-vjepa2", "vjepa2", "vjepa2."
    licence = "MIT"
    fingerprint = tuple(f"{root}encoder.embeddings.patch_embeddings.proj.weight" for root in ("vjepa2.", ""))
    kernel, layers, norm = "encoder.embeddings.patch_embeddings.proj", "encoder.layer.{}.", "encoder.layernorm"
    block = Names(qkv=tuple(f"attention.{part}" for part in ("query", "key", "value")), proj="attention.proj")

    def config(self, theirs: ForeignState, given: Given) -> ModelConfig:
        pool = "attentive" if theirs.root("pooler.") else "mean"
        depth = theirs.count("pooler.self_attention_layers.{}.")
        return super().config(theirs, given).with_stage(0, pool=pool, pool_depth=depth)

    def allowed(self, config: ModelConfig) -> Allowed:
        own: Allowed = {"position": ("rotary-tiled",), "norm": ("tokens",), "prefix": (0,)}
        pool = ("attentive",) if config.num_classes else ("attentive", "mean")
        return super().allowed(config) | own | {"pool": pool}

    def root_in(self, link: Link, config: ModelConfig) -> str:
        """Written without its pooling, the encoder stands alone."""
        return super().root_in(link, config) if link.reading or first_stage(config).pool == "attentive" else ""

    def map_positions(self, link: Link, config: ModelConfig, root: str) -> None:
        """Rotary positions are computed."""

    def map_norms(self, link: Link, config: ModelConfig, root: str) -> None:
        super().map_norms(link, config, root)
        link.leave(f"{root}predictor.", "the predictor is for pretraining")
        if first_stage(config).pool == "attentive":
            map_pooler(link, first_stage(config).pool_depth)

    def read_settings(self, config: Json, preprocessor: Json) -> Settings:
        return video_settings("vjepa2", config, preprocessor, frames="frames_per_clip", size="crop_size")

    def video(self, frames: int) -> Video:
        return Video(1, 4, 256, "a guess: V-JEPA 2 was pretrained so, its classifiers differ")


def map_pooler(link: Link, depth: int) -> None:
    ours, cross = f"{ENCODER}.pool", "pooler.cross_attention_layer"
    for i in range(depth):
        block(link, POOLER, f"pooler.self_attention_layers.{i}.", f"{ours}.blocks.{i}")
    link.same("pooler.query_tokens", f"{ours}.query")
    link.linear(f"{cross}.layer_norm1", f"{ours}.norm")
    link.packed([f"{cross}.cross_attn.{name}_proj" for name in "qkv"], f"{ours}.qkv")
    link.linear(f"{cross}.layer_norm2", f"{ours}.mlp_norm")
    link.linear(f"{cross}.mlp.fc1", f"{ours}.mlp.fc1")
    link.linear(f"{cross}.mlp.fc2", f"{ours}.mlp.fc2")


HF_VJEPA2 = Vjepa2()
