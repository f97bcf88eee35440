"""The other libraries' half of sizes.py, which runs it with their interpreter: prints versions and rows as JSON.

Each system is used at its best: with the option that its library has for other sizes, if there is one, and made for a
square clip where it must be. One with several ways to another size has a row for each.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from importlib.metadata import version

import torch
from sizes import SQUARE, WIDE, Forward, Size, System, row
from torch import Tensor, nn

try:
    import torchvision  # noqa: F401
except RuntimeError:  # made for another build of torch; timm and transformers do with these two names
    for operator in ("nms", "qnms"):
        torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import timm
import transformers as tf
from vit_pytorch.vivit import ViViT

TINY = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96, "num_labels": 5}
TUBELET, FRAME_PATCH = (2, 8, 8), (1, 8, 8)
STILL = (1, *WIDE[1:])


def rebuilt(build: Callable[[Size], nn.Module], forward: Forward) -> Forward:
    """What `from_pretrained(..., image_size=...)` does: a model for the other size is given the weights."""

    def way(model: nn.Module, clip: Tensor) -> Tensor:
        fresh = build(tuple(clip.shape[2:])).eval()
        fresh.load_state_dict(model.state_dict())
        return forward(fresh, clip)

    return way


# transformers


def video(model: nn.Module, clip: Tensor) -> Tensor:
    return model(clip.transpose(1, 2)).logits


def interpolated(native: Size, model: nn.Module, clip: Tensor) -> Tensor:
    return model(clip.transpose(1, 2), interpolate_pos_encoding=tuple(clip.shape[2:]) != native).logits


def vivit(size: Size) -> nn.Module:
    config = tf.VivitConfig(num_frames=size[0], image_size=list(size[1:]), tubelet_size=list(TUBELET), **TINY)
    return tf.VivitForVideoClassification(config)


def videoprism(size: Size) -> nn.Module:
    tiny = {**TINY, "num_spatial_layers": 2, "num_temporal_layers": 2}
    sizes = {"num_frames": size[0], "image_size": list(size[1:]), "tubelet_size": list(FRAME_PATCH)}
    return tf.VideoPrismForVideoClassification(tf.VideoPrismVisionConfig(**sizes, **tiny))


def videomae(size: Size) -> nn.Module:
    config = tf.VideoMAEConfig(num_frames=size[0], image_size=list(size[1:]), patch_size=8, tubelet_size=2, **TINY)
    return tf.VideoMAEForVideoClassification(config)


def timesformer(size: Size) -> nn.Module:
    config = tf.TimesformerConfig(num_frames=size[0], image_size=list(size[1:]), patch_size=8, **TINY)
    model = tf.TimesformerForVideoClassification(config)
    model.config.image_size = size[2]  # its blocks read the width here, and cannot use a list
    return model


def told(model: nn.Module, clip: Tensor) -> Tensor:
    model = deepcopy(model)
    model.config.num_frames, model.config.image_size = clip.shape[2], clip.shape[4]
    return video(model, clip)


def vjepa2(size: Size) -> nn.Module:
    crop = size[1] if size[1] == size[2] else list(size[1:])
    small = {"mlp_ratio": 2.0, "num_pooler_layers": 1, "pred_hidden_size": 48, "pred_num_attention_heads": 4}
    config = tf.VJEPA2Config(frames_per_clip=size[0], crop_size=crop, patch_size=8, tubelet_size=2, **small, **TINY)
    return tf.VJEPA2ForVideoClassification(config)


def place_vjepa2(model: nn.Module, size: Size) -> None:
    """Its positions are no table, but numbers of frame, row and column, here counted by hand."""
    t, h, w = (torch.arange(n // p) for n, p in zip(size, TUBELET))
    numbers = torch.cartesian_prod(t, h, w).unbind(1)
    for layer in model.vjepa2.encoder.layer:
        layer.attention.get_position_ids = lambda x, masks=None: numbers


def ast(size: Size) -> nn.Module:
    strides = {"frequency_stride": 5, "time_stride": 5}
    config = tf.ASTConfig(num_mel_bins=size[1], max_length=size[2], patch_size=8, **strides, **TINY)
    return tf.ASTForAudioClassification(config)


def sound(model: nn.Module, clip: Tensor) -> Tensor:
    return model(clip[:, 0, 0].transpose(1, 2)).logits


def transformers_systems() -> list[System]:
    videoprism_tables = {
        "vision_model.spatial_embeddings.position_embeddings": (0, "hw"),
        "vision_model.temporal_embeddings.position_embeddings": (0, "t"),
    }
    timesformer_tables = {
        "timesformer.embeddings.position_embeddings": (1, "hw"),
        "timesformer.embeddings.time_embeddings": (0, "t"),
    }
    systems = [
        System(
            name="transformers Vivit, interpolate_pos_encoding",
            build=vivit,
            forward=video,
            ways=(partial(interpolated, WIDE),),
            native=WIDE,
            patch=TUBELET,
            tables={"vivit.embeddings.position_embeddings": (1, "thw")},
        )
    ]
    for native in (WIDE, SQUARE):
        systems.append(
            System(
                name="transformers VideoPrism, interpolate_pos_encoding",
                build=videoprism,
                forward=video,
                ways=(partial(interpolated, native),),
                native=native,
                patch=FRAME_PATCH,
                tables=videoprism_tables,
            )
        )
    for name, way in {"": video, ", made for the size": rebuilt(videomae, video)}.items():
        systems.append(
            System(
                name=f"transformers VideoMAE{name}",
                build=videomae,
                forward=video,
                ways=(way,),
                native=WIDE,
                patch=TUBELET,
                tables={"videomae.embeddings.position_embeddings": (0, "thw")},
            )
        )
    for name, way in {"": video, ", size written into its config": told}.items():
        systems.append(
            System(
                name=f"transformers TimeSformer{name}",
                build=timesformer,
                forward=video,
                ways=(way,),
                native=SQUARE,
                patch=FRAME_PATCH,
                tables=timesformer_tables,
            )
        )
    for name, way in {"": video, ", made for the size": rebuilt(vjepa2, video)}.items():
        systems.append(
            System(
                name=f"transformers V-JEPA2{name}",
                build=lambda size: vjepa2((size[0], size[2], size[2])),  # then placed by hand
                forward=video,
                ways=(way,),
                native=SQUARE,
                patch=TUBELET,
                place=place_vjepa2,
            )
        )
    systems.append(
        System(
            name="transformers AST",
            build=ast,
            forward=sound,
            ways=(sound,),
            native=STILL,
            patch=FRAME_PATCH,
            stride=(1, 5, 5),
            tables={"audio_spectrogram_transformer.embeddings.position_embeddings": (2, "hw")},
            channels=1,
        )
    )
    return systems


# timm, for images


def timm_vit(size: Size, **options: object) -> nn.Module:
    small = {"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 4, "num_classes": 5}
    return timm.create_model("vit_tiny_patch16_224", img_size=tuple(size[1:]), **small, **options)


def image(model: nn.Module, clip: Tensor) -> Tensor:
    return model(clip[:, :, 0])


def resized(model: nn.Module, clip: Tensor) -> Tensor:
    model = deepcopy(model)
    model.set_input_size(img_size=tuple(clip.shape[3:]))
    return image(model, clip)


def loaded(model: nn.Module, clip: Tensor, *, described: bool) -> Tensor:
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/model.pt"
        torch.save(model.state_dict(), file)
        origin = {"file": file, "input_size": (3, *STILL[1:]), "num_classes": 5}
        options = {"pretrained": True, "pretrained_cfg_overlay": origin} if described else {"checkpoint_path": file}
        return image(timm_vit(clip.shape[2:], **options).eval(), clip)


def timm_systems() -> list[System]:
    dynamic = partial(timm_vit, dynamic_img_size=True, dynamic_img_pad=True)
    ways = {
        "dynamic_img_size, dynamic_img_pad": (dynamic, image),
        "set_input_size": (timm_vit, resized),
        "checkpoint_path, made for the size": (timm_vit, partial(loaded, described=False)),
        "the same, pretrained_cfg says the old size": (timm_vit, partial(loaded, described=True)),
    }
    return [
        System(
            name=f"timm ViT, {name}",
            build=build,
            forward=image,
            ways=(way,),
            native=STILL,
            patch=FRAME_PATCH,
            tables={"pos_embed": (1, "hw")},
        )
        for name, (build, way) in ways.items()
    ]


# vit-pytorch


def vit_pytorch(variant: str, size: Size) -> nn.Module:
    sizes = {"image_size": tuple(size[1:]), "image_patch_size": 8, "frames": size[0], "frame_patch_size": 2}
    depths = {"spatial_depth": 2, "temporal_depth": 2}
    return ViViT(variant=variant, num_classes=5, dim=48, heads=3, dim_head=16, mlp_dim=96, **sizes, **depths)


def vit_pytorch_systems() -> list[System]:
    return [
        System(
            name=f"vit-pytorch ViViT, {variant.replace('_', ' ')}",
            build=partial(vit_pytorch, variant),
            forward=nn.Module.__call__,
            ways=(nn.Module.__call__,),
            native=WIDE,
            patch=TUBELET,
            tables={"pos_embedding": (0, "thw")},
        )
        for variant in ("factorized_encoder", "factorized_self_attention")
    ]


def main() -> None:
    torch.set_num_threads(1)
    tf.logging.set_verbosity_error()
    systems = [*transformers_systems(), *timm_systems(), *vit_pytorch_systems()]
    versions = {name: version(name) for name in ("torch", "transformers", "timm", "vit-pytorch")}
    json.dump({"versions": versions, "rows": [row(system) for system in systems]}, sys.stdout)


if __name__ == "__main__":
    main()
