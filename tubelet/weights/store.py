"""Our own checkpoint: one safetensors file whose header holds, as JSON, all that the weights mean."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from tubelet.nn.config import ModelConfig
from tubelet.nn.model import SpaceTimeTransformer

FILE = "model.safetensors"


def save(model: SpaceTimeTransformer, path: str | os.PathLike[str], *, about: dict[str, Any] | None = None) -> Path:
    """Writes a model to `path`, a .safetensors file, or a folder that gets `model.safetensors`; returns the file.

    `about` is any JSON (class names, ClipSpec) that should travel with the weights; `read_about` gives it back.
    The file appears whole or not at all.
    """
    file = Path(path)
    if file.suffix != ".safetensors":
        file = file / FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    header = {"model": model.config.to_json(), "input_size": list(model.input_size), "about": about or {}}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    write_tensors(file, tensors, header)
    return file


def write_tensors(file: Path, tensors: dict[str, torch.Tensor], header: dict[str, Any]) -> None:
    """Writes tensors and a JSON header durably: under a temporary name, flushed to disk, then renamed."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        save_file(tensors, temporary, metadata={"tubelet": json.dumps(header)})
        os.umask(umask := os.umask(0))  # the only way to ask for it
        temporary.chmod(0o666 & ~umask)  # safetensors leaves files that only their owner can read
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and JSON header of a file written by `write_tensors`.

    Raises:
        ValueError: the file is missing, is no safetensors file, or was not written by tubelet.
    """
    file = find_file(path)
    header = read_header(file)
    return load_file(file), header


def read_header(file: Path) -> dict[str, Any]:
    try:
        with safe_open(file, "pt") as handle:
            header = json.loads((handle.metadata() or {}).get("tubelet", "null"))
    except SafetensorError as error:
        raise ValueError(f"{file}: not a readable safetensors file ({error}): copy or train it again") from error
    if header is None:
        raise ValueError(f"{file}: not written by tubelet (no 'tubelet' header): give it to tubelet.init_from_image")
    return header


def model_header(path: str | os.PathLike[str]) -> dict[str, Any]:
    file = find_file(path)
    header = read_header(file)
    if "model" not in header:
        raise ValueError(f"{file}: holds no model (the state of a training run does not): give {FILE} or the run")
    return header


def find_file(path: str | os.PathLike[str]) -> Path:
    file = Path(path)
    if file.is_dir():
        file = file / FILE
    if not file.is_file():
        raise ValueError(f"{file}: no such file: expected a .safetensors file or a folder with {FILE}, such as a run")
    return file


def load(path: str | os.PathLike[str]) -> SpaceTimeTransformer:
    """The model in a file or folder, in eval mode; every tensor must fit (strict).

    Raises:
        ValueError: no readable tubelet checkpoint, or its tensors are not those of its model.
    """
    header = model_header(path)
    tensors, _ = read_tensors(path)
    model = SpaceTimeTransformer(ModelConfig.from_json(header["model"]))
    load_strict(model, tensors, what=str(path))
    model.set_input_size(header["input_size"])
    return model.eval()


def read_about(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `save` was given as `about`."""
    return model_header(path)["about"]


def load_strict(model: SpaceTimeTransformer, tensors: dict[str, torch.Tensor], *, what: str) -> None:
    """Loads every tensor, or says in one error all that does not fit."""
    own = model.state_dict()
    problems = [f"  missing: {name} {tuple(own[name].shape)}" for name in own if name not in tensors]
    problems += [f"  unknown: {name} {tuple(tensors[name].shape)}" for name in tensors if name not in own]
    problems += [
        f"  shape: {name} is {tuple(tensors[name].shape)}, the model has {tuple(own[name].shape)}"
        for name in own
        if name in tensors and own[name].shape != tensors[name].shape
    ]
    problems += [f"  not finite: {name}" for name in tensors if not torch.isfinite(tensors[name]).all()]
    if problems:
        raise ValueError(f"{what}: the weights do not fit the model:\n" + "\n".join(problems))
    model.load_state_dict(tensors)
