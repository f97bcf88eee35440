"""Weights of Hugging Face's pe_video, the video encoder of PE-AV: timm's Perception Encoder for frames, then time."""

from collections.abc import Collection
from dataclasses import replace

import torch

from tubelet.nn.config import ModelConfig
from tubelet.nn.families import over_frames
from tubelet.weights.dialects.dialect import Allowed, Dialect, Video, require
from tubelet.weights.dialects.pe import TimmPe, bare_head
from tubelet.weights.dialects.rename import ForeignState, Link
from tubelet.weights.dialects.settings import Given, Json, Settings, check_published, numbers, section, timm_settings
from tubelet.weights.dialects.vit import ENCODER, first_stage

# What its names begin with in PeVideoEncoder itself, in PeVideoModel, and twice in PeAudioVideoModel.
ROOTS = ("", "video_encoder.", "video_model.video_encoder.", "audio_video_encoder.embedder.video_encoder.")
TOWER = "embedder.vision_model.timm_model."
FRAMES = 16  # that published models are asked for
TIME = "encoders.1"
SIZES = ("dim", "depth", "heads", "head_dim", "mlp_dim", "takes")  # of the blocks along time: any
LAYER = {  # of a block along time, whose layers have weights alone
    "input_layernorm": "attn_norms.0",
    "self_attn.q_norm": "attns.0.q_norm",
    "self_attn.k_norm": "attns.0.k_norm",
    "self_attn.o_proj": "attns.0.proj",
    "post_attention_layernorm": "mlp_norm",
    "mlp.gate_proj": "mlp.gate",
    "mlp.up_proj": "mlp.fc1",
    "mlp.down_proj": "mlp.fc2",
}


class Tower(TimmPe):
    """The encoder of frames, in a video encoder whose names begin with `outer`."""

    our_pool = f"{ENCODER}.pool.pool"

    def __init__(self, outer: str):
        self.root, self.head = outer + TOWER, f"{outer}{TOWER}head"


class PeVideo(Dialect):
    name = "hf-pe-video"
    fingerprint = tuple(f"{root}{TOWER}pos_embed" for root in ROOTS)
    licence, gives = "Apache-2.0", "an embedding, not yet shared with the text tower"
    note = f"{TimmPe.note}; clips are taken at the length that they have, so there is no padding mask"

    def config(self, theirs: ForeignState, given: Given) -> ModelConfig:
        given.agree(family="pevideo", attend="thw", frames=None, stride=None, window=None)
        outer = find_root(theirs.names)
        tower = Tower(outer).config(theirs, replace(given, family=None))
        frames, width = first_stage(tower), theirs.shape(f"{outer}embedder.proj.weight", 2)[1]
        if frames.pool != "map" or tower.num_classes != width:
            raise ValueError(
                f"the encoder of frames gives {tower.num_classes} numbers, and {width} are taken of each frame: "
                f"expected a Perception Encoder with pooling and a head of as many"
            )
        layer = f"{outer}layers.0."
        head_dim = theirs.shape(f"{layer}self_attn.q_norm.weight", 1)[0]
        time = replace(
            over_frames(frames.size),
            dim=theirs.shape(f"{outer}norm.weight", 1)[0],
            depth=theirs.count(f"{outer}layers.{{}}."),
            heads=theirs.shape(f"{layer}self_attn.q_proj.weight", 2)[0] // head_dim,
            head_dim=head_dim,
            mlp_dim=theirs.shape(f"{layer}mlp.gate_proj.weight", 2)[0],
            takes=width,
        )
        classes = theirs.shape(f"{outer}output.weight", 2)[0]
        stages = replace(frames, gives=width, unit=True), time
        return replace(tower, family="pevideo", stages=stages, num_classes=classes)

    def allowed(self, config: ModelConfig) -> Allowed:
        first = first_stage(config)
        own: Allowed = {"family": ("pevideo",), "stages": (2,), "pool": ("map",), "gives": (first.gives,)}
        return Tower("").allowed(config) | own | {"unit": (True,), "num_classes": (config.num_classes or "1 or more",)}

    def check_supported(self, config: ModelConfig) -> None:
        super().check_supported(config)
        time = replace(config, stages=config.stages[1:])
        made, own = vars(over_frames(first_stage(config).size)), vars(config.stages[1])
        allowed: Allowed = {name: (own[name] if name in SIZES else value,) for name, value in made.items()}
        require(time, self.name, allowed | {"family": ("pevideo",)})

    def map_tensors(self, link: Link, config: ModelConfig) -> None:
        outer, tower = find_root(link.names), replace(config, num_classes=0)
        Tower(outer).map_tensors(link, tower)
        link.linear(f"{outer}{TOWER}head", f"{ENCODER}.pool.proj")
        link.tie(
            [f"{outer}embedder.proj.weight", f"{outer}embedder.data_proj.weight", f"{outer}embedder.data_proj.bias"],
            [f"{TIME}.take.weight", f"{TIME}.take.bias"],
            lambda first, second, bias: [second @ first, bias],
            lambda weight, bias: [weight, torch.eye(len(weight)), bias],
            "taken, one linear layer of two",
        )
        link.same(f"{outer}patch_embedder.class_embedding", f"{TIME}.prefix")
        for i in range(2):
            theirs = f"{outer}patch_embedder.resnet_block.block{i + 1}"
            link.linear(f"{theirs}.groupnorm", f"{TIME}.mix.norms.{i}")
            link.linear(f"{theirs}.project", f"{TIME}.mix.convs.{i}")
        for i in range(first_stage(replace(config, stages=config.stages[1:])).depth):
            map_layer(link, f"{outer}layers.{i}.", f"{TIME}.blocks.{i}.")
        link.same(f"{outer}norm.weight", f"{TIME}.norm.weight")
        bare_head(link, f"{outer}output.weight", self.name)
        if link.reading:
            for name in [name for name in link.source if not name.startswith(outer)]:
                link.leave(name, "of other parts than the video encoder")

    def read_settings(self, config: Json, preprocessor: Json) -> Settings:
        encoder = config
        for part in ("audio_video_config", "video_config"):
            encoder = section(encoder, part) or encoder
        check_published("hidden_act", encoder.get("hidden_act"), "silu")
        check_published("rms_norm_eps", encoder.get("rms_norm_eps"), 1e-5)
        check_published("rope_theta", section(encoder, "rope_parameters").get("rope_theta"), 20000)
        said = timm_settings(section(encoder, "vision_config"))
        clip = said.clip and (FRAMES, *said.clip[1:])
        mean, std = (numbers(preprocessor, f"image_{what}") for what in ("mean", "std"))
        return replace(said, clip=clip, mean=mean, std=std, classes=None, crop_share=None)

    def published(self, theirs: ForeignState) -> Settings:
        said = Tower(find_root(theirs.names)).published(theirs)
        return replace(said, clip=said.clip and (FRAMES, *said.clip[1:]))

    def video(self, frames: int) -> Video:
        return Video(10, frames, 224, "the frames of ten seconds: the original spreads them over a whole file")


def find_root(names: Collection[str]) -> str:
    """What the names of a video encoder begin with, among those of other parts."""
    return next((root for root in ROOTS if any(name.startswith(root + TOWER) for name in names)), "")


def map_layer(link: Link, theirs: str, ours: str) -> None:
    qkv = [f"{theirs}self_attn.{part}_proj.weight" for part in "qkv"]
    link.tie(qkv, [f"{ours}attns.0.qkv.weight"], lambda *x: [torch.cat(x)], lambda x: x.chunk(3))
    for name, own in LAYER.items():
        link.same(f"{theirs}{name}.weight", f"{ours}{own}.weight")


HF_PE_VIDEO = PeVideo()
