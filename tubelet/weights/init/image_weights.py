"""Weights of an image ViT in timm's names: a file, its folder, a name on the hub, or a state dict."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tubelet.weights.dialects.rename import ForeignState
from tubelet.weights.formats.open import PICKLED, read_json
from tubelet.weights.formats.safetensors_file import load_tensors
from tubelet.weights.hub import download, is_on_hub
from tubelet.weights.published import HUB
from tubelet.weights.store import FILE

ImageWeights = str | os.PathLike[str] | Mapping[str, Tensor]


def read(weights: ImageWeights) -> ForeignState:
    """Raises ValueError for weights that cannot be had, or are not those of a ViT in timm's names."""
    if isinstance(weights, Mapping):
        source, where = ForeignState(weights), "the weights"
    else:
        file = local(weights) or download(str(weights), FILE)
        source, where = ForeignState(load_tensors(file)), str(file)
    if "patch_embed.proj.weight" not in source:
        raise ValueError(
            f"{where}: no 'patch_embed.proj.weight' (the names begin with {', '.join(sorted(source.tensors)[:3])}): "
            f"expected an image ViT in timm's names"
        )
    if source.root("patch_embed.backbone."):
        raise ValueError(f"{where}: a hybrid, whose patches are those of a ResNet's map: expected a plain image ViT")
    return source


def local(weights: str | os.PathLike[str]) -> Path | None:
    """The .safetensors file of that path, or in that folder; None for a name on the hub.

    The network is asked for nothing but "hf-hub:owner/name" and names as timm gives them. What may be a path, is one.
    """
    path = Path(weights) / FILE if Path(weights).is_dir() else Path(weights)
    if path.is_file() and path.suffix == ".safetensors":
        return path
    if path.suffix in PICKLED or path.is_file():
        raise ValueError(
            f"{path}: expected a .safetensors file, tubelet opens no pickled weights: where you trust the origin of "
            f"this file, load it in Python and write it with safetensors.torch.save_file, or give the state dict"
        )
    if path.suffix == ".safetensors" or not is_on_hub(str(weights)):
        raise ValueError(
            f"{path}: no such file: expected a .safetensors file, a folder with {FILE}, one of timm's names such as "
            f"vit_small_patch16_224.augreg_in21k, or {HUB}owner/name"
        )
    return None


def image_config(weights: ImageWeights) -> dict[str, Any]:
    """The input of image weights by the config.json beside them: "mean", "std", "input_size"; {} without one.

    Raises:
        ValueError: as `init_from_image` for weights that cannot be had.
    """
    if isinstance(weights, Mapping):
        return {}
    file = local(weights)
    beside = file.with_name("config.json") if file else download(str(weights), "config.json")
    settings = read_json(beside).get("pretrained_cfg", {})
    if not isinstance(settings, dict):
        raise ValueError(f"{beside}: its 'pretrained_cfg' is no object: download it again, or remove it")
    config = {key: settings[key] for key in ("mean", "std", "input_size") if key in settings}
    for key, values in config.items():
        if not isinstance(values, list) or not all(
            type(value) in (int, float) and 0 <= value < 1e5 for value in values
        ):
            raise ValueError(f"{beside}: {key} = {str(values)[:80]}, expected a list of numbers: download it again")
    return config


def image_shape(weights: ImageWeights) -> tuple[int, int, int]:
    """Width, depth and patch side in px of an image ViT."""
    source = read(weights)
    kernel = source.shape("patch_embed.proj.weight")
    return kernel[0], source.count("blocks.{}."), kernel[2]


def said_grid(weights: ImageWeights) -> tuple[int, int] | None:
    """(h, w) of an image ViT in patches, where the config.json beside its weights says how large its images are."""
    size = image_config(weights).get("input_size", [])
    h, w = read(weights).shape("patch_embed.proj.weight", 4)[2:]
    return (int(size[1] // h), int(size[2] // w)) if len(size) == 3 else None
