"""Features on disk: what the encoder of a model makes of one file of clips, under one key, in one format.

A feature file is safetensors: `codes` (rows, ..., D), a row for each clip or step of the media file, and in the header
the key, the `path` of that file, the part of it that was encoded (`start_seconds`, `end_seconds`) and what the writer
adds, such as labels. Vectors of two files may be compared where their keys are equal.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tubelet.nn.config import settings_of
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.weights.store import read_tensors, write_tensors

FORMAT = 3  # raised whenever the same settings give other codes, or a file holds them in another way

KEY_LENGTH = 16  # letters of a key, or of a hash, in a name


def hash_encoder(model: SpaceTimeTransformer, *, encoders: int = 1, **inputs: Any) -> str:
    """The key of features: sha256 of all that they depend on, but for the media file. Another head makes no other
    features, nor does an encoder that comes after.

    encoders: how many of the model made them. inputs: as JSON, how clips reach the first, such as a ClipSpec.
    """
    about = {"format": FORMAT, "encoder": model.config.encoder_settings(), **inputs}
    more = [(f"encoder {number}", model.encoders[number]) for number in range(1, encoders)]
    if more:
        about["stages"] = [settings_of(stage) for stage in model.config.stages[1:encoders]]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for part, module in (("embed", model.embed), ("encoder", model.encoders[0]), *more):
        for name, value in sorted(module.state_dict().items()):
            digest.update(f"{part}.{name} {tuple(value.shape)} {value.dtype}".encode())
            digest.update(value.detach().cpu().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def feature_folder(cache: Path | None, run: Path, key: str) -> Path:
    """The folder of the features of one key, below `cache`, or, left out, beside a run."""
    return (cache or run.parent / "cached-features") / key[:KEY_LENGTH]


def feature_file(folder: Path, identity: Sequence[Any]) -> Path:
    """The file of the features of a clip; its name changes with its identity, which is JSON."""
    return folder / (hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:KEY_LENGTH] + ".safetensors")


def write_features(
    file: Path, codes: Tensor, *, key: str, path: str, seconds: tuple[float | None, float | None], **more: Any
) -> None:
    """Writes codes (rows, ..., D), whole or not at all.

    path, seconds: the media file and the start and end of what was encoded of it, None for its own. more: tensors are
    kept as such, all else as JSON.
    """
    tensors = {name: value for name, value in more.items() if isinstance(value, Tensor)}
    about = {name: value for name, value in more.items() if name not in tensors}
    about |= {"format": FORMAT, "encoder": key, "path": path, "start_seconds": seconds[0], "end_seconds": seconds[1]}
    write_tensors(file, {"codes": codes.contiguous(), **tensors}, {"codes": about})


def read_features(file: Path, *, key: str) -> tuple[Tensor, dict[str, Any]]:
    """Codes (rows, ..., D), float32 or bfloat16, and the header's settings.

    Raises:
        ValueError: no feature file, a damaged one, or features of another key or another version of tubelet.
    """
    tensors, header = read_tensors(file)
    codes, about = tensors.get("codes"), header.get("codes")
    if not isinstance(about, dict) or not isinstance(about.get("encoder"), str):
        raise ValueError(f"{file}: holds no codes: expected a file that `tubelet stream --save` wrote, or a video")
    if about.get("format") != FORMAT:
        raise ValueError(
            f"{file}: codes of another version of tubelet (format {about.get('format')}, expected {FORMAT}): "
            "encode the video again"
        )
    if about["encoder"] != key:
        raise ValueError(
            f"{file}: codes of another model (or of another size or frame spacing): "
            f"made by encoder {about['encoder'][:8]}, this run's is {key[:8]}; encode the video again"
        )
    if codes is None or codes.dtype not in (torch.float32, torch.bfloat16) or codes.ndim < 2 or 0 in codes.shape:
        raise ValueError(f"{file}: its codes are not rows of float32 or bfloat16: encode the video again")
    return codes, about
