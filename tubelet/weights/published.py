"""Weights that others have published, as far as our dialects read them: what they are, and how to come by them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from tubelet.weights.terms import Terms

HUB = "hf-hub:"  # before the name of a repository, as timm writes it


@dataclass(frozen=True, kw_only=True)
class Published:
    """A line of the list.

    name: of the repository on Hugging Face's hub, owner/name; or the address of a file. model: by our name. clip: of
    frames, height and width in px. kind: what it looks at. data: what it learned from. made_for: what it answers.
    """

    name: str
    dialect: str
    model: str
    clip: tuple[int, int, int]
    kind: Literal["video", "image", "sound"]
    data: str
    made_for: str
    licence: str
    commercial: bool = True
    gated: bool = False

    @property
    def family(self) -> str:
        return self.model.split("-")[0]

    @property
    def on_hub(self) -> bool:
        return not self.name.startswith("https://")

    @property
    def terms(self) -> Terms:
        return Terms(weights=self.name, licence=self.licence, commercial=self.commercial, gated=self.gated)


def lines(names: Iterable[tuple[str, str, tuple[int, int, int]]], **same: object) -> list[Published]:
    """Lines that differ in name, model and clip."""
    return [Published(name=name, model=model, clip=clip, **same) for name, model, clip in names]  # type: ignore[arg-type]


def picture(px: int) -> tuple[int, int, int]:
    return 1, px, px


DINO = {"licence": "DINOv3 License", "kind": "image", "data": "LVD-1689M", "made_for": "features"}
PUBLISHED = [
    # ---- videos
    *lines(
        [
            ("https://dl.fbaipublicfiles.com/vjepa2/vjepa2_1_vitb_dist_vitG_384.pt", "vjepa21-B/16x2", (16, 384, 384)),
            ("https://dl.fbaipublicfiles.com/vjepa2/vjepa2_1_vitl_dist_vitG_384.pt", "vjepa21-L/16x2", (16, 384, 384)),
            ("https://dl.fbaipublicfiles.com/vjepa2/vjepa2_1_vitg_384.pt", "vjepa21-g/16x2", (16, 384, 384)),
            ("https://dl.fbaipublicfiles.com/vjepa2/vjepa2_1_vitG_384.pt", "vjepa21-G/16x2", (16, 384, 384)),
        ],
        dialect="vjepa21",
        kind="video",
        data="video and images, without labels",
        made_for="features",
        licence="MIT",
    ),
    *lines(
        [("facebook/vjepa2-vitl-fpc64-256", "vjepa2-L/16x2", (64, 256, 256))],
        dialect="hf-vjepa2",
        kind="video",
        data="video and images, without labels",
        made_for="features",
        licence="MIT",
    ),
    *lines(
        [
            ("google/videoprism-base-f16r288", "videoprism-B/18", (16, 288, 288)),
            ("google/videoprism-large-f8r288", "videoprism-L/18", (8, 288, 288)),
        ],
        dialect="videoprism",
        kind="video",
        data="video with and without text",
        made_for="features",
        licence="CC-BY-4.0",
    ),
    *lines(
        [
            ("MCG-NJU/videomae-small-finetuned-kinetics", "videomae-S/16x2", (16, 224, 224)),
            ("MCG-NJU/videomae-base-finetuned-kinetics", "videomae-B/16x2", (16, 224, 224)),
        ],
        dialect="hf-videomae",
        kind="video",
        data="Kinetics-400",
        made_for="400 actions",
        licence="CC-BY-NC-4.0",
        commercial=False,
    ),
    *lines(
        [("google/vivit-b-16x2-kinetics400", "vivit1-B/16x2", (32, 224, 224))],
        dialect="hf-vivit",
        kind="video",
        data="Kinetics-400",
        made_for="400 actions",
        licence="MIT",
    ),
    *lines(
        [("facebook/timesformer-base-finetuned-k400", "timesformer-B/16", (8, 224, 224))],
        dialect="hf-timesformer",
        kind="video",
        data="Kinetics-400",
        made_for="400 actions",
        licence="CC-BY-NC-4.0",
        commercial=False,
    ),
    # ---- pictures
    *lines(
        [
            ("timm/vit_tiny_patch16_224.augreg_in21k", "vit-Ti/16", picture(224)),
            ("timm/vit_small_patch16_224.augreg_in21k", "vit-S/16", picture(224)),
            ("timm/vit_base_patch16_224.augreg_in21k", "vit-B/16", picture(224)),
        ],
        dialect="timm",
        kind="image",
        data="ImageNet-21k",
        made_for="21,843 classes",
        licence="Apache-2.0",
    ),
    *lines(
        [
            ("timm/vit_small_patch14_dinov2.lvd142m", "vit-S/14", picture(518)),
            ("timm/vit_base_patch14_dinov2.lvd142m", "vit-B/14", picture(518)),
        ],
        dialect="timm",
        kind="image",
        data="LVD-142M, without labels",
        made_for="features",
        licence="Apache-2.0",
    ),
    *lines(
        [
            ("timm/vit_pe_core_tiny_patch16_384.fb", "pe-Ti/16", picture(384)),
            ("timm/vit_pe_core_small_patch16_384.fb", "pe-S/16", picture(384)),
            ("timm/vit_pe_core_base_patch16_224.fb", "pe-B/16", picture(224)),
            ("timm/vit_pe_core_large_patch14_336.fb", "pe-L/14", picture(336)),
            ("timm/vit_pe_core_gigantic_patch14_448.fb", "pe-G/14", picture(448)),
        ],
        dialect="timm",
        kind="image",
        data="images and videos with text",
        made_for="embedding, shared with text",
        licence="Apache-2.0",
    ),
    *lines(
        [
            ("timm/vit_small_patch16_dinov3.lvd1689m", "dinov3-S/16", picture(256)),
            ("timm/vit_small_plus_patch16_dinov3.lvd1689m", "dinov3-S+/16", picture(256)),
            ("timm/vit_base_patch16_dinov3.lvd1689m", "dinov3-B/16", picture(256)),
            ("timm/vit_large_patch16_dinov3.lvd1689m", "dinov3-L/16", picture(256)),
            ("timm/vit_huge_plus_patch16_dinov3.lvd1689m", "dinov3-H+/16", picture(256)),
        ],
        dialect="timm",
        **DINO,
    ),
    *lines(
        [
            ("facebook/dinov3-vits16-pretrain-lvd1689m", "dinov3-S/16", picture(224)),
            ("facebook/dinov3-vits16plus-pretrain-lvd1689m", "dinov3-S+/16", picture(224)),
            ("facebook/dinov3-vitb16-pretrain-lvd1689m", "dinov3-B/16", picture(224)),
            ("facebook/dinov3-vitl16-pretrain-lvd1689m", "dinov3-L/16", picture(224)),
            ("facebook/dinov3-vith16plus-pretrain-lvd1689m", "dinov3-H+/16", picture(224)),
            ("facebook/dinov3-vit7b16-pretrain-lvd1689m", "dinov3-7B/16", picture(224)),
        ],
        dialect="hf-dinov3",
        **DINO,
        gated=True,
    ),
    *lines(
        [
            ("google/siglip2-base-patch16-224", "siglip2-B/16", picture(224)),
            ("google/siglip2-large-patch16-256", "siglip2-L/16", picture(256)),
            ("google/siglip2-so400m-patch16-384", "siglip2-So/16", picture(384)),
            ("google/siglip2-giant-opt-patch16-384", "siglip2-g/16", picture(384)),
        ],
        dialect="hf-siglip2",
        kind="image",
        data="WebLI, pictures with text",
        made_for="embedding, shared with text",
        licence="Apache-2.0",
    ),
    # ---- sounds
    *lines(
        [("MIT/ast-finetuned-audioset-10-10-0.4593", "ast-B/16", (1, 128, 1024))],
        dialect="hf-ast",
        kind="sound",
        data="AudioSet",
        made_for="527 classes, several at once",
        licence="BSD-3-Clause",
    ),
]


# What serves most people first, by what it looks at: small, free to use, made to give features.
BEST = {
    "video": "timm/vit_small_patch14_dinov2.lvd142m",
    "image": "timm/vit_small_patch14_dinov2.lvd142m",
    "sound": "MIT/ast-finetuned-audioset-10-10-0.4593",
}


def find_published(name: str) -> Published | None:
    """The line of a repository, with or without "hf-hub:", or of an address; None where it is not listed."""
    bare = name.removeprefix(HUB)
    return next((line for line in PUBLISHED if bare in (line.name, line.name.removeprefix("timm/"))), None)
