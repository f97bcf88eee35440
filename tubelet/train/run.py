"""The run directory: what a training leaves on disk, and what it needs to go on after it was stopped."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from tubelet.weights.store import read_tensors, write_tensors

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """What a training goes on from: the steps done, the tensors, and the rest of its state."""

    step: int
    tensors: Tensors
    state: dict[str, Any]


class Run:
    """A run directory.

    config.json (all settings), split.csv, metrics.jsonl, model.safetensors, predictions.csv, results.json, report.html
    and README.md, the last to be written; checkpoints/step-N/ until then: state.safetensors, and manifest.json with its
    sha256, so that a checkpoint that was cut short or damaged is seen and the one before it used.
    """

    def __init__(self, path: Path):
        self.path = path

    @property
    def config_file(self) -> Path:
        return self.path / "config.json"

    @property
    def finished(self) -> bool:
        return (self.path / "README.md").is_file()

    def config(self) -> dict[str, Any]:
        """Raises ValueError where it is missing or damaged."""
        try:
            values = json.loads(self.config_file.read_text())
        except FileNotFoundError as error:
            raise ValueError(
                f"{self.path}: no run (it has no config.json): give a folder made by tubelet train"
            ) from error
        except ValueError as error:
            raise ValueError(f"{self.config_file}: damaged ({error}): train again with another --out") from error
        if not (isinstance(values, dict) and {"train", "model", "clip_spec", "data"} <= values.keys()):
            raise ValueError(f"{self.config_file}: damaged (it lacks settings): train again with another --out")
        return values

    def write_json(self, name: str, values: Any) -> None:
        self.write_text(name, json.dumps(values, indent=2))

    def write_text(self, name: str, text: str) -> None:
        """Writes a file that appears whole or not at all."""
        temporary = self.path / f".{name}.{os.getpid()}.tmp"
        with open(temporary, "w") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, self.path / name)

    def log(self, record: dict[str, Any]) -> None:
        """Appends a line to metrics.jsonl."""
        with open(self.path / "metrics.jsonl", "a") as handle:
            handle.write(json.dumps(record) + "\n")

    def forget_metrics_after(self, step: int) -> None:
        """Drops the records of steps that are going to be done again, and a line that was cut short."""
        file, kept = self.path / "metrics.jsonl", []
        for line in file.read_text().splitlines() if file.is_file() else []:
            try:
                kept += [line + "\n"] if json.loads(line)["step"] <= step else []
            except (json.JSONDecodeError, TypeError, KeyError):
                break
        self.write_text("metrics.jsonl", "".join(kept))

    def save_checkpoint(self, step: int, tensors: Tensors, state: dict[str, Any]) -> None:
        """Writes a checkpoint, then removes all but the newest two. It appears whole or not at all."""
        folder = self.path / "checkpoints" / f"step-{step:08d}"
        for cut_short in folder.parent.glob(".step-*.tmp"):
            shutil.rmtree(cut_short)
        temporary = folder.with_name(f".{folder.name}.tmp")
        temporary.mkdir(parents=True)
        write_tensors(temporary / "state.safetensors", tensors, {"step": step, **state})
        with open(temporary / "manifest.json", "w") as handle:
            json.dump({"sha256": sha256(temporary / "state.safetensors")}, handle)
            handle.flush()
            os.fsync(handle.fileno())
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
        flush_folder(folder.parent)  # the new one is on the disk before an old one is gone
        for old in list(self.checkpoints())[2:]:
            shutil.rmtree(old)

    def checkpoints(self) -> Iterator[Path]:
        """Checkpoint folders, the newest first."""
        found = (p for p in (self.path / "checkpoints").glob("step-*") if re.fullmatch(r"step-\d+", p.name))
        return iter(sorted(found, key=lambda p: int(p.name[5:]), reverse=True))

    def newest_checkpoint(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest whole checkpoint, if there is one, and what was wrong with newer ones."""
        notes: list[str] = []
        for folder in self.checkpoints():
            try:
                manifest, file = json.loads((folder / "manifest.json").read_text()), folder / "state.safetensors"
                if sha256(file) != manifest["sha256"]:
                    raise ValueError("its checksum is wrong")
                tensors, state = read_tensors(file)
                return Checkpoint(state["step"], tensors, state), notes
            except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
                notes.append(f"{folder} is damaged ({error}): going on from the one before it")
        if notes:
            notes.append("no checkpoint is whole: starting again")
        return None, notes

    def remove_checkpoints(self) -> None:
        shutil.rmtree(self.path / "checkpoints", ignore_errors=True)


def sha256(file: Path) -> str:
    with open(file, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def flush_folder(folder: Path) -> None:
    """Brings the names in a folder to the disk, where the system can."""
    if os.name == "posix":
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
