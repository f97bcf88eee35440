"""Weights of Meta's V-JEPA 2.1: the encoder, in the names of its own program."""

from tubelet.nn.config import ModelConfig
from tubelet.nn.families import VJEPA21_SIZES, find_levels
from tubelet.weights.dialects.dialect import Allowed, Video
from tubelet.weights.dialects.rename import ForeignState, Link
from tubelet.weights.dialects.settings import Given, Settings
from tubelet.weights.dialects.vit import ENCODER, Names, VitDialect, find_heads, first_stage

KERNELS = {"video": ("patch_embed.proj", "video_mod_embed"), "image": ("patch_embed_img.proj", "img_mod_embed")}
CLIP = (16, 384, 384)  # of the published probes


class Vjepa21(VitDialect):
    name, family, root = "vjepa21", "vjepa21", "backbone."
    fingerprint = ("backbone.video_mod_embed", "video_mod_embed")
    kernel, layers, block = "patch_embed.proj", "blocks.{}.", Names()
    licence = "MIT"

    def config(self, theirs: ForeignState, given: Given) -> ModelConfig:
        found = super().config(theirs, given)
        if found.embed.patch[1:] != (16, 16):
            raise ValueError(
                f"V-JEPA 2.1's positions are counted in patches of 16 px, these weights have {found.embed.patch[1:]}: "
                "there are no such weights that were published"
            )
        return found.with_stage(0, levels=find_levels(first_stage(found).depth))

    def allowed(self, config: ModelConfig) -> Allowed:
        stage = first_stage(config)
        own: Allowed = {"embed": ("video-image",), "position": ("rotary-span",), "norm": ("tokens",), "prefix": (0,)}
        own |= {"pool": ("mean",), "levels": (find_levels(stage.depth),), "num_classes": (0,)}
        return super().allowed(config) | own

    def published(self, theirs: ForeignState) -> Settings:
        root = theirs.root(self.root)
        width = theirs.shape(f"{root}{self.kernel}.bias", 1)[0]
        heads = find_heads(VJEPA21_SIZES, width, theirs.count(root + self.layers))
        return Settings(heads=heads, clip=CLIP if heads else None)

    def root_in(self, link: Link, config: ModelConfig) -> str:
        return super().root_in(link, config) if link.reading else ""

    def map_kernel(self, link: Link, config: ModelConfig, root: str) -> None:
        """Those of videos and of images, each with what is added to all its tokens."""
        for part, (kernel, added) in KERNELS.items():
            link.same(f"{root}{kernel}.weight", f"embed.{part}.proj.weight")
            link.tie(
                [f"{root}{kernel}.bias", root + added],
                [f"embed.{part}.proj.bias"],
                lambda bias, more: [bias + more[0, 0]],
                lambda bias: [bias, bias.new_zeros(1, 1, len(bias))],
                "taken, what is added to all tokens folded in",
            )

    def map_positions(self, link: Link, config: ModelConfig, root: str) -> None:
        """Rotary positions are computed."""

    def map_norms(self, link: Link, config: ModelConfig, root: str) -> None:
        *before, last = range(len(first_stage(config).levels))
        for i in before:
            link.linear(f"{root}norms_block.{i}", f"{ENCODER}.level_norms.{i}")
        link.linear(f"{root}norms_block.{last}", f"{ENCODER}.norm")

    def video(self, frames: int) -> Video:
        return Video(1, 4, 256, "as V-JEPA 2.1 was trained")


VJEPA21 = Vjepa21()
