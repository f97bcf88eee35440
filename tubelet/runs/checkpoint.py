"""A checkpoint on the disk: a folder that appears whole or not at all, and shows when it is not as it was written."""

import hashlib
import json
import os
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tubelet.system.errors import EnvironmentTrouble
from tubelet.system.files import flush_folder, write_whole
from tubelet.weights.store import read_tensors, write_tensors

Tensors = dict[str, torch.Tensor]
TENSORS, MANIFEST = "state.safetensors", "manifest.json"
PARTS = "part-*.safetensors"  # of tensors that are spread over processes, what each of these holds


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training that goes on: the steps done, the tensors, and the rest."""

    step: int
    tensors: Tensors
    state: dict[str, Any]


def parse_step(folder: Path) -> int | None:
    """The step that a folder's name tells; None where it is not a checkpoint's. One that gives way to another of the
    same step is called step-N.old meanwhile."""
    found = re.fullmatch(r"step-(\d+)(\.old)?", folder.name)
    return int(found[1]) if found else None


def write_part(folder: Path, rank: int, rows: Tensors) -> None:
    """Writes the rows (N_rank, ...) that the process `rank` holds of spread tensors, beside where `write` then takes
    those of all. Raises OSError or SafetensorError."""
    parts = parts_folder(folder)
    parts.mkdir(parents=True, exist_ok=True)
    write_tensors(parts / part_name(rank), rows, {})


def parts_folder(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.parts.tmp")


def part_name(rank: int) -> str:
    return PARTS.replace("*", f"{rank:05d}")


def take_parts(folder: Path, temporary: Path, count: int) -> None:
    """Moves the parts of `count` processes to where a checkpoint is being written."""
    for rank in range(count):
        file = parts_folder(folder) / part_name(rank)
        if not file.is_file():
            raise EnvironmentTrouble(
                f"{file}: process {rank} wrote it, and it is not there: choose an --out on a disk of all machines"
            )
        os.replace(file, temporary / file.name)


def write(folder: Path, tensors: Tensors, state: dict[str, Any], *, parts: int = 0) -> None:
    """Writes a checkpoint. Whenever this is cut short, what was there before is still there.

    parts: the number of processes that each wrote a part for it.

    Raises OSError, SafetensorError or EnvironmentTrouble; nothing new is there then but, at worst, what
    `remove_leftovers` removes.
    """
    temporary, old = folder.with_name(f".{folder.name}.tmp"), folder.with_name(f"{folder.name}.old")
    try:
        if temporary.exists():
            shutil.rmtree(temporary)
        temporary.mkdir(parents=True)
        write_tensors(temporary / TENSORS, tensors, {**state, "step": parse_step(folder)})
        take_parts(folder, temporary, parts)
        write_whole(temporary / MANIFEST, manifest(temporary))  # last, and with it all names in the folder
        if folder.exists():
            if old.exists():
                shutil.rmtree(old)
            os.replace(folder, old)
        os.replace(temporary, folder)
        flush_folder(folder.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def remove(folder: Path) -> None:
    """Renames a checkpoint, then deletes it, so that no reader sees a part. What the disk refuses is tried again."""
    aside = folder if folder.name.startswith(".") else folder.with_name(f".{folder.name}.gone.tmp")
    with suppress(OSError):
        os.replace(folder, aside)
        shutil.rmtree(aside)


def read(folder: Path) -> Checkpoint:
    """Raises OSError, ValueError or SafetensorError where it is not as it was written."""
    stated, found = (folder / MANIFEST).read_text(), manifest(folder)
    if stated != found:
        raise ValueError(difference(stated, found))
    tensors, state = read_tensors(folder / TENSORS)
    step, steps = state.get("step"), state.get("steps")
    if type(step) is not int or step != parse_step(folder):
        raise ValueError(f"it says step {step!r}")
    if type(steps) is not int or steps < max(1, step):
        raise ValueError(f"it says step {step} of {steps!r}")
    parts = [read_tensors(file)[0] for file in sorted(folder.glob(PARTS))]
    rows = {name: torch.cat([part[name] for part in parts]) for name in (parts[0] if parts else ())}
    return Checkpoint(step, tensors | rows, state)


def manifest(folder: Path) -> str:
    """Size and sha256 of every file of a checkpoint, as JSON."""
    files = {}
    for file in sorted(folder.iterdir()):
        if file.name != MANIFEST:
            with open(file, "rb") as handle:
                digest = hashlib.file_digest(handle, "sha256").hexdigest()
                files[file.name] = {"bytes": os.fstat(handle.fileno()).st_size, "sha256": digest}
    return json.dumps({"files": files}, indent=1)


def difference(stated: str, found: str) -> str:
    """The files that are not as their manifest states, in words."""
    now, words = json.loads(found)["files"], []
    with suppress(ValueError, TypeError, KeyError, AttributeError):  # of a manifest that is damaged itself
        then = json.loads(stated)["files"]
        words = [f"{name} is missing" for name in then if name not in now]
        words += [f"{name} does not belong to it" for name in now if name not in then]
        words += [f"{name} is not as it was written" for name in then if name in now and then[name] != now[name]]
    return ", ".join(words) or f"{MANIFEST} is not as it was written"


def check_finite(step: int, tensors: Tensors) -> None:
    """Raises ValueError where weights or optimizer are broken: they are not to replace a checkpoint that is good."""
    broken = [name for name, value in tensors.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise ValueError(
            f"step {step}: {', '.join(broken[:3])} {'and others ' * (len(broken) > 3)}hold values that are not finite; "
            f"the checkpoints before it are kept: use a lower --lr, or --dtype float32, with another --out"
        )


def check_fits(tensors: Tensors, model: nn.Module, *, average: bool, best: bool = False, what: str) -> None:
    """Raises ValueError unless these are the weights, moments, averages and best weights of a model's parameters."""
    wanted = {f"model.{name}": (value.shape, value.dtype) for name, value in model.state_dict().items()}
    for name, value in model.named_parameters():
        wanted[f"optimizer.{name}.step"] = (torch.Size(), torch.float32)
        parts = [f"optimizer.{name}.exp_avg", f"optimizer.{name}.exp_avg_sq", *[f"average.{name}"] * average]
        wanted |= dict.fromkeys(parts, (value.shape, value.dtype))
    names = dict(model.named_parameters()) if average else model.state_dict()
    wanted |= {f"best.{name}": (value.shape, value.dtype) for name, value in names.items() if best}
    found = {name: (value.shape, value.dtype) for name, value in tensors.items()}
    problems = [f"  missing: {name}" for name in sorted(set(wanted) - set(found))]
    problems += [f"  unknown: {name}" for name in sorted(set(found) - set(wanted))]
    for name in sorted(set(wanted) & set(found)):
        if wanted[name] != found[name]:
            (shape, dtype), (own_shape, own_dtype) = found[name], wanted[name]
            problems.append(f"  {name} is {tuple(shape)} {dtype}, the model has {tuple(own_shape)} {own_dtype}")
    if problems:
        shown = "\n".join([*problems[:20], *[f"  and {len(problems) - 20} more"] * (len(problems) > 20)])
        raise ValueError(f"{what}: does not fit the model of this run: train again with another --out\n{shown}")
