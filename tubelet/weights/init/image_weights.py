"""Weights of an image ViT in timm's names: a file, its folder, a name on the hub, or a state dict."""

import errno
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tubelet.weights.dialects.rename import ForeignState
from tubelet.weights.formats.open import PICKLED, read_json
from tubelet.weights.formats.safetensors_file import load_tensors
from tubelet.weights.store import FILE

ImageWeights = str | os.PathLike[str] | Mapping[str, Tensor]

HUB = "hf-hub:"  # before the name of a repository, as timm writes it
OF_TIMM = r"(vit|deit3?|flexivit)_\w+(\.[\w-]+)?"  # names that stand for a repository of timm's by themselves

OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


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
    repository = rf"{HUB}\w[\w.-]*/\w[\w.-]*"
    if path.suffix == ".safetensors" or not re.fullmatch(f"{repository}|{OF_TIMM}", str(weights)):
        raise ValueError(
            f"{path}: no such file: expected a .safetensors file, a folder with {FILE}, one of timm's names such as "
            f"vit_small_patch16_224.augreg_in21k, or {HUB}owner/name"
        )
    return None


def download(name: str, file: str) -> Path:
    """A file of a repository of the hub, in its cache. Raises ValueError where it is not to be had."""
    from huggingface_hub import constants, hf_hub_download  # only a download needs it
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    repository = name.removeprefix(HUB) if name.startswith(HUB) else f"timm/{name}"
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)  # nothing of what it tries again: in the end one message says it
    try:
        return Path(hf_hub_download(repository, file))
    except Exception as error:  # each version of the hub client raises the errors of another HTTP library
        if isinstance(error, OSError) and error.errno in OF_THE_DISK:
            raise
        why = error.__cause__ if isinstance(error, LocalEntryNotFoundError) and error.__cause__ else error
        said = f"{type(why).__name__}: {next(iter(str(why).strip().splitlines()), '')}"
        if isinstance(error, HfHubHTTPError) and not isinstance(error, LocalEntryNotFoundError):
            raise ValueError(
                f"{name!r} is no file here, and the hub does not hand out {file} of {repository!r} ({said}): check the "
                f"name, or give a .safetensors file"
            ) from error
        raise ValueError(
            f"{name!r} is no file here, and the hub could not be reached for {file} of {repository!r} ({said}): give "
            f"a .safetensors file, or bring what another machine downloaded into {constants.HF_HUB_CACHE} and set "
            f"HF_HUB_OFFLINE=1"
        ) from error
    finally:
        logger.setLevel(level)


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
