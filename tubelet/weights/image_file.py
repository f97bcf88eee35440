"""Weights of an image ViT in timm's names: a file, its folder, a name on the hub, or a state dict."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tubelet.weights.link import Theirs
from tubelet.weights.store import FILE

ImageWeights = str | os.PathLike[str] | Mapping[str, Tensor]

PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".tar")


def read(weights: ImageWeights) -> Theirs:
    """Raises ValueError for weights that cannot be had, or are not those of a ViT in timm's names."""
    if isinstance(weights, Mapping):
        source, where = Theirs(weights), "the weights"
    else:
        file = local(weights) or download(str(weights), FILE)
        try:
            source, where = Theirs(load_file(file)), str(file)
        except SafetensorError as error:
            raise ValueError(f"{file}: not a readable safetensors file ({error}): download it again") from error
    if "patch_embed.proj.weight" not in source:
        raise ValueError(
            f"{where}: no 'patch_embed.proj.weight' (the names begin with {', '.join(sorted(source.tensors)[:3])}): "
            f"expected an image ViT in timm's names"
        )
    if source.root("patch_embed.backbone."):
        raise ValueError(f"{where}: a hybrid, whose patches are those of a ResNet's map: expected a plain image ViT")
    return source


def local(weights: str | os.PathLike[str]) -> Path | None:
    """The .safetensors file of that path, or in that folder; None for what can only be a name on the hub."""
    path = Path(weights) / FILE if Path(weights).is_dir() else Path(weights)
    if path.suffix in PICKLED or (path.is_file() and path.suffix != ".safetensors"):
        raise ValueError(
            f"{path}: expected a .safetensors file, tubelet opens no pickled weights: load it where you trust it and "
            f"write it with safetensors.torch.save_file, or give the state dict"
        )
    if path.is_file():
        return path
    if path.suffix == ".safetensors" or not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", str(weights)):
        raise ValueError(f"{path}: no such file: expected a .safetensors file, a folder with {FILE}, or a hub name")
    return None


def download(name: str, file: str) -> Path:
    from huggingface_hub import hf_hub_download  # only a download needs it

    repository = name if "/" in name else f"timm/{name}"
    try:
        return Path(hf_hub_download(repository, file))
    except Exception as error:  # each version of the hub client raises the errors of another HTTP library
        raise ValueError(
            f"{name!r} is no file here, and {file} of {repository!r} could not be had from the hub "
            f"({type(error).__name__}: {str(error).strip()}): give a .safetensors file instead"
        ) from error


def image_config(weights: ImageWeights) -> dict[str, Any]:
    """What the config.json beside image weights says of their input: "mean", "std", "input_size"; {} without one.

    Raises:
        ValueError: as `init_from_image` for weights that cannot be had.
    """
    if isinstance(weights, Mapping):
        return {}
    file = local(weights)
    beside = file.with_name("config.json") if file else download(str(weights), "config.json")
    if not beside.is_file():
        return {}
    try:
        config = json.loads(beside.read_text()).get("pretrained_cfg", {})
    except json.JSONDecodeError as error:
        raise ValueError(f"{beside}: not readable as JSON ({error}): download it again, or remove it") from error
    return {key: config[key] for key in ("mean", "std", "input_size") if key in config}


def image_shape(weights: ImageWeights) -> tuple[int, int, int]:
    """Width, depth and patch side in px of an image ViT."""
    source = read(weights)
    kernel = source.shape("patch_embed.proj.weight")
    return kernel[0], source.count("blocks.{}."), kernel[2]
