"""The run directory: what a training leaves on disk, and what it needs to go on after it was stopped."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from tubelet.weights.store import write_tensors

Tensors = dict[str, torch.Tensor]


class Run:
    """A run directory.

    config.json (all settings), split.csv, metrics.jsonl, model.safetensors, predictions.csv, results.json, report.html,
    README.md; checkpoints/step-N/ while it is being trained: state.safetensors and manifest.json with its sha256,
    written last, so a checkpoint that was cut short is seen and the one before it used.
    """

    def __init__(self, path: Path):
        self.path = path

    @property
    def config_file(self) -> Path:
        return self.path / "config.json"

    @property
    def finished(self) -> bool:
        return (self.path / "results.json").is_file()

    def config(self) -> dict[str, Any]:
        """Raises ValueError where it is missing or damaged."""
        try:
            values = json.loads(self.config_file.read_text())
        except FileNotFoundError as error:
            raise ValueError(
                f"{self.path}: no run (it has no config.json): give a folder made by tubelet train"
            ) from error
        except json.JSONDecodeError as error:
            raise ValueError(f"{self.config_file}: damaged ({error}): train again with another --out") from error
        return values

    def write_json(self, name: str, values: Any) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        temporary = self.path / f".{name}.{os.getpid()}.tmp"
        with open(temporary, "w") as handle:
            json.dump(values, handle, indent=2)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, self.path / name)

    def log(self, record: dict[str, Any]) -> None:
        """Appends a line to metrics.jsonl."""
        with open(self.path / "metrics.jsonl", "a") as handle:
            handle.write(json.dumps(record) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        file = self.path / "metrics.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []

    def forget_metrics_after(self, step: int) -> None:
        """Drops the records of steps that are going to be done again."""
        kept = [json.dumps(record) for record in self.metrics() if record["step"] <= step]
        (self.path / "metrics.jsonl").write_text("".join(line + "\n" for line in kept))

    def save_checkpoint(self, step: int, tensors: Tensors, state: dict[str, Any]) -> None:
        """Writes a checkpoint, then removes all but the newest two. It appears whole or not at all."""
        folder = self.path / "checkpoints" / f"step-{step:08d}"
        temporary = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        write_tensors(temporary / "state.safetensors", tensors, state)
        manifest = {"step": step, "sha256": sha256(temporary / "state.safetensors"), "state": state}
        with open(temporary / "manifest.json", "w") as handle:
            json.dump(manifest, handle)
            handle.flush()
            os.fsync(handle.fileno())
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
        for old in list(self.checkpoints())[2:]:
            shutil.rmtree(old)

    def checkpoints(self) -> Iterator[Path]:
        """Checkpoint folders, the newest first."""
        return iter(sorted((self.path / "checkpoints").glob("step-*"), key=lambda p: int(p.name[5:]), reverse=True))

    def newest_checkpoint(self) -> tuple[int, Tensors, dict[str, Any], list[str]] | None:
        """Step, tensors and state of the newest whole checkpoint, and what was wrong with newer ones."""
        notes: list[str] = []
        for folder in self.checkpoints():
            try:
                manifest = json.loads((folder / "manifest.json").read_text())
                file = folder / "state.safetensors"
                if sha256(file) != manifest["sha256"]:
                    raise ValueError("its checksum is wrong")
                return manifest["step"], load_file(file), manifest["state"], notes
            except (OSError, ValueError, KeyError, SafetensorError) as error:
                notes.append(f"{folder} is damaged ({error}): going on from the one before it")
        return None

    def remove_checkpoints(self) -> None:
        shutil.rmtree(self.path / "checkpoints", ignore_errors=True)


def sha256(file: Path) -> str:
    with open(file, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
