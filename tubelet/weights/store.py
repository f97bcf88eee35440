"""Our own checkpoint: one safetensors file whose header holds, as JSON, all that the weights mean."""

import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tubelet.nn.config import ModelConfig
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.system.files import write_aside
from tubelet.weights.formats.json_file import parse
from tubelet.weights.formats.safetensors_file import Header, check_header, load_checked
from tubelet.weights.settings import read_config

FILE = "model.safetensors"
WEIGHTS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)  # what becomes float32: numbers of a fraction
MOST_SHOWN = 40
PRETRAINING = "pretraining"  # in `about`: how weights came to know motion
BESIDE = "beside."  # begins the names of tensors that are no weights of the model


def save(
    model: SpaceTimeTransformer,
    path: str | os.PathLike[str],
    *,
    about: dict[str, Any] | None = None,
    beside: Mapping[str, torch.Tensor] | None = None,
) -> Path:
    """Writes a model to `path`, a .safetensors file, or a folder that gets `model.safetensors`; returns the file.

    `about` is any JSON (class names, ClipSpec) that should travel with the weights; `read_about` gives it back.
    `beside` are tensors that should, such as those of another head; `ModelFile.beside` gives them back. The file
    appears whole or not at all.

    Raises:
        ValueError: the model is no longer the one that its config describes, so that `load` could not make it again.
    """
    file = Path(path)
    if file.suffix != ".safetensors":
        file = file / FILE
    with torch.device("meta"):  # takes no memory
        expected = SpaceTimeTransformer(model.config).state_dict()
    what = f"{file}: not written, for it could not be loaded (a model of other classes is made with num_classes=...)"
    refuse(misfits(expected, model.state_dict()), what)
    file.parent.mkdir(parents=True, exist_ok=True)
    header = {"model": model.config.to_json(), "input_size": list(model.input_size), "about": about or {}}
    tensors = model.state_dict() | {f"{BESIDE}{name}": tensor for name, tensor in (beside or {}).items()}
    write_tensors(file, {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, header)
    return file


def write_tensors(file: Path, tensors: dict[str, torch.Tensor], header: dict[str, Any]) -> None:
    """Writes tensors and a JSON header: whole or not at all."""
    with write_aside(file) as temporary:
        save_file(tensors, temporary, metadata={"tubelet": json.dumps(header)})
        check_header(temporary)  # what is written here can be read here
        os.umask(umask := os.umask(0))  # the only way to ask for it
        temporary.chmod(0o666 & ~umask)  # safetensors leaves files that only their owner can read


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and JSON header of a file written by `write_tensors`.

    Raises:
        ValueError: the file is missing, is no safetensors file, or was not written by tubelet.
    """
    file = find_file(path)
    header = parse_header(check_header(file), file)
    return load_checked(file), header


def parse_header(found: Header, file: Path) -> dict[str, Any]:
    """The JSON object that `write_tensors` was given. Raises ValueError as `read_tensors`."""
    if "tubelet" not in found.metadata:
        raise ValueError(
            f"{file}: not written by tubelet (no 'tubelet' header): take weights of Hugging Face or timm over with "
            f"`tubelet convert {shlex.quote(str(file))} NEW-FOLDER`, or begin a training with them: --init"
        )
    try:
        header = parse(found.metadata["tubelet"].encode())
    except ValueError as error:
        raise ValueError(f"{file}: its 'tubelet' header is damaged ({error}): copy or train it again") from error
    if not isinstance(header, dict):
        raise ValueError(f"{file}: its 'tubelet' header is no JSON object: copy or train it again")
    return header


def find_file(path: str | os.PathLike[str]) -> Path:
    file = Path(path)
    if file.is_dir():
        file = file / FILE
    if not file.is_file():
        raise ValueError(f"{file}: no such file: expected a .safetensors file or a folder with {FILE}, such as a run")
    return file


@dataclass(frozen=True)
class ModelFile:
    """A model in a file, as its header says; no tensor is read.

    header: "model", "input_size" and "about"
    listed: the tensors that the file holds, on the meta device
    """

    file: Path
    header: dict[str, Any]
    listed: dict[str, torch.Tensor]

    @property
    def about(self) -> dict[str, Any]:
        """What `save` was given as `about`."""
        return self.header["about"]

    def config(self) -> ModelConfig:
        """Raises ValueError where no model can be made of its settings."""
        try:
            return read_config(self.header["model"])
        except ValueError as error:
            raise self.unusable(error) from error

    def load(self) -> SpaceTimeTransformer:
        """The model, in eval mode, in float32. Raises ValueError as the function `load`."""
        config = self.config()
        try:
            with torch.device("meta"):  # takes no memory, whatever size the header claims
                model = SpaceTimeTransformer(config)
                model.set_input_size(read_config({**self.header["model"], "clip": self.header["input_size"]}).clip)
        except (ValueError, RuntimeError, TypeError, ArithmeticError, LookupError) as error:
            raise self.unusable(error) from error
        own = model.state_dict()
        refuse(misfits(own, {n: t for n, t in self.listed.items() if not n.startswith(BESIDE)}), str(self.file))
        tensors = self.tensors()
        refuse(misfits(own, tensors) or not_finite(own, tensors), str(self.file))
        # copied, for the file may change; not into the model, which has no memory yet
        model.load_state_dict({n: t.to(own[n].dtype, copy=True) for n, t in tensors.items()}, assign=True)
        model.set_statistics(config.mean, config.std)
        return model.eval()

    def tensors(self) -> dict[str, torch.Tensor]:
        """The weights of the model."""
        return {name: tensor for name, tensor in load_checked(self.file).items() if not name.startswith(BESIDE)}

    def beside(self, prefix: str = "") -> dict[str, torch.Tensor]:
        """The tensors beside the weights whose names begin with `prefix`, by what follows it."""
        begin = BESIDE + prefix
        if not any(name.startswith(begin) for name in self.listed):  # most files: they are not read for nothing
            return {}
        tensors = load_checked(self.file)
        return {name.removeprefix(begin): tensor for name, tensor in tensors.items() if name.startswith(begin)}

    def unusable(self, error: Exception) -> ValueError:
        return ValueError(f"{self.file}: no model can be made of its settings ({error}): copy or train it again")


def open_model(path: str | os.PathLike[str]) -> ModelFile:
    """The model in a file or folder, its header checked. Raises ValueError where there is none."""
    file = find_file(path)
    found = check_header(file)
    header = parse_header(found, file)
    if "model" not in header:
        raise ValueError(f"{file}: holds no model (the state of a training run does not): give {FILE} or the run")
    kinds = {"model": dict, "input_size": list, "about": dict}
    if wrong := [key for key, kind in kinds.items() if not isinstance(header.get(key), kind)]:
        raise ValueError(f"{file}: its 'tubelet' header lacks {', '.join(wrong)}: copy or train it again")
    return ModelFile(file, header, found.tensors)


def load(path: str | os.PathLike[str]) -> SpaceTimeTransformer:
    """The model in a file or folder, in eval mode, in float32; every tensor must fit (strict).

    Tensors may be of any floating type: float16 and bfloat16 are held without loss, float64 is rounded. Integers, which
    mean something else than their values, are refused.

    Raises:
        ValueError: no readable tubelet checkpoint, or its tensors are not those of its model.
    """
    return open_model(path).load()


def read_about(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `save` was given as `about`."""
    return open_model(path).about


def load_strict(model: SpaceTimeTransformer, tensors: dict[str, torch.Tensor], *, what: str) -> None:
    """Loads every tensor, or says in one error all that does not fit. Integers are never cast."""
    own = model.state_dict()
    refuse(misfits(own, tensors) + not_finite(own, tensors), what)
    model.load_state_dict(tensors)


def not_finite(own: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]) -> list[str]:
    """The tensors given that are not finite in the dtype of a model's own."""
    names = [name for name in own if name in given and not torch.isfinite(given[name].to(own[name].dtype)).all()]
    return [f"not finite: {name}" for name in names]


def misfits(own: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]) -> list[str]:
    """The faults in names, shapes and dtypes of tensors given for those of a model."""
    problems = [f"missing: {name} {tuple(own[name].shape)}" for name in own if name not in given]
    problems += [f"unknown: {name} {tuple(given[name].shape)}" for name in given if name not in own]
    for name in [name for name in own if name in given]:
        if own[name].shape != given[name].shape:
            problems.append(f"shape: {name} is {tuple(given[name].shape)}, the model has {tuple(own[name].shape)}")
        if given[name].dtype not in (
            (own[name].dtype, *WEIGHTS) if own[name].is_floating_point() else (own[name].dtype,)
        ):
            problems.append(f"dtype: {name} is {given[name].dtype}, expected {own[name].dtype}: convert it yourself")
    return problems


def refuse(problems: list[str], what: str) -> None:
    if problems:
        more = [f"and {len(problems) - MOST_SHOWN} more"] if len(problems) > MOST_SHOWN else []
        shown = "".join(f"\n  {problem}" for problem in [*problems[:MOST_SHOWN], *more])
        raise ValueError(f"{what}: the weights do not fit the model:{shown}")
