"""The run directory: the files of a training, and those it needs to go on after it was stopped.

config.json         all settings, the classes, the data; written first
split.csv           which file is used for what
init.txt            with --init: what was taken of the weights
features.json       with --freeze: where the features are
metrics.jsonl       a record a line along the training
bad_files.jsonl     the files that could not be read
checkpoints/        until the end: step-N/ with state.safetensors and manifest.json, and pace.jsonl
model.safetensors   the weights
predictions.csv     the answer to every held-out file
encoder/            of a training that finds segments: that of its encoder, a run of its own
encoder-windows.csv the windows that the encoder learned from
encoder-weak/       and encoder-weak-windows.csv: the same of an encoder that says when labels without times hold
results.json        how good they are
report.html
README.md           the model card; written last
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from tubelet.runs import checkpoint
from tubelet.runs.checkpoint import Checkpoint, Tensors, parse_step
from tubelet.runs.lock import LOCK
from tubelet.system import errors
from tubelet.system.console import size
from tubelet.system.errors import EnvironmentTrouble
from tubelet.system.files import write_whole
from tubelet.system.text import dumps

CONFIG, SPLIT, INIT, FEATURES = "config.json", "split.csv", "init.txt", "features.json"
METRICS, BAD_FILES, CHECKPOINTS, PACE = "metrics.jsonl", "bad_files.jsonl", "checkpoints", "pace.jsonl"
MODEL, PREDICTIONS, RESULTS = "model.safetensors", "predictions.csv", "results.json"
WINDOWS, ENCODER = "windows.csv", "encoder"
WEAK = ("encoder-weak-1", "encoder-weak-2")  # each begins where the one before ended
REPORT, CARD = "report.html", "README.md"

KEPT = 2  # checkpoints
MISSES = 3  # checkpoints in a row that may fail to be written


class Run:
    """A run directory. A checkpoint that was cut short or damaged is seen by size and sha256 of its files, which its
    manifest has, and the one before it used.

    needs: what its config.json holds at least.
    """

    needs = frozenset({"train", "model", "clip_spec", "data"})

    def __init__(self, path: Path):
        self.path = path
        self.damaged: set[str] = set()  # names of checkpoints that are not as they were written
        self.misses = 0  # checkpoints in a row that could not be written
        self.unwritten = ""  # lines of metrics.jsonl that a full disk did not take yet

    @property
    def config_file(self) -> Path:
        return self.path / CONFIG

    @property
    def pace_file(self) -> Path:
        return self.path / CHECKPOINTS / PACE

    @property
    def finished(self) -> bool:
        return (self.path / CARD).is_file()

    @cached_property
    def mark(self) -> str:
        """The mark in every checkpoint of this run, made of config.json: one that was copied in has another."""
        if not self.config_file.is_file():
            return ""
        return hashlib.sha256(json.dumps(self.config, sort_keys=True).encode()).hexdigest()[:16]

    def begin(self, config: dict[str, Any]) -> None:
        """Writes config.json, with which a run begins."""
        text = dumps(config, indent=2)
        self.write_text(CONFIG, text)
        self.config = json.loads(text)

    @cached_property
    def config(self) -> dict[str, Any]:
        """All settings that the run was begun with, read once. Raises ValueError where they are missing or damaged."""
        try:
            values = json.loads(self.config_file.read_text())
        except FileNotFoundError as error:
            raise ValueError(
                f"{self.path}: no run (it has no config.json): give a folder made by tubelet train"
            ) from error
        except ValueError as error:
            raise ValueError(f"{self.config_file}: damaged ({error}): train again with another --out") from error
        if not (isinstance(values, dict) and self.needs <= values.keys()):
            raise ValueError(f"{self.config_file}: damaged (it lacks settings): train again with another --out")
        return values

    def write_json(self, name: str, values: Any) -> None:
        self.write_text(name, dumps(values, indent=2))

    def write_text(self, name: str, text: str) -> None:
        """Writes a file that appears whole or not at all."""
        write_whole(self.path / name, text)

    def log(self, record: dict[str, Any]) -> None:
        """Appends a line to metrics.jsonl. What a full disk does not take is kept for the next time."""
        self.unwritten += dumps(record) + "\n"
        with suppress(OSError):  # save_checkpoint tells of it
            self.write_metrics()

    def write_metrics(self) -> None:
        """Brings all lines of metrics.jsonl to the disk; none of them, where that fails."""
        with open(self.path / METRICS, "ab", buffering=0) as handle:
            before = os.fstat(handle.fileno()).st_size
            try:
                if handle.write(self.unwritten.encode()) < len(self.unwritten):
                    raise OSError(errors.FULL[0], "No space left on device")
                os.fsync(handle.fileno())
            except OSError:
                with suppress(OSError):
                    handle.truncate(before)
                raise
        self.unwritten = ""

    def metrics(self) -> list[dict[str, Any]]:
        """The records of metrics.jsonl, in the order in which they were written."""
        return [json.loads(line) for line in (self.path / METRICS).read_text().splitlines()]

    def forget_metrics_after(self, step: int) -> int:
        """Drops the records of steps that are going to be done again, and a line that was cut short. Returns how many
        other lines were damaged; they are dropped too."""
        file, kept, damaged = self.path / METRICS, [], 0
        for line in file.read_text(errors="replace").splitlines(keepends=True) if file.is_file() else []:
            try:
                kept += [line] if json.loads(line)["step"] <= step and line.endswith("\n") else []
            except (json.JSONDecodeError, TypeError, KeyError):
                damaged += line.endswith("\n")
        self.write_text(METRICS, "".join(kept))
        return damaged

    def checkpoint_folder(self, step: int) -> Path:
        return self.path / CHECKPOINTS / f"step-{step:08d}"

    def save_checkpoint(self, step: int, tensors: Tensors, state: dict[str, Any], *, parts: int = 0) -> None:
        """Writes a checkpoint, with the parts of so many processes, then removes all but the newest two whole ones.

        Raises OSError, SafetensorError or EnvironmentTrouble.
        """
        self.write_metrics()  # a run that goes on has every line up to its checkpoint
        folder = self.checkpoint_folder(step)
        checkpoint.write(folder, tensors, {**state, "run": self.mark}, parts=parts)
        self.damaged.discard(folder.name)
        before = [p for p in self.checkpoints() if p != folder and p.suffix != ".old" and p.name not in self.damaged]
        for old in self.checkpoints():  # the new one is on the disk before an old one is gone
            if old not in (folder, *before[: KEPT - 1]):
                checkpoint.remove(old)
        self.remove_leftovers()

    def try_part(self, step: int, rank: int, rows: Tensors) -> EnvironmentTrouble | None:
        """Writes what a process holds of spread tensors, for `try_checkpoint` of the first one; or what kept it.

        Raises ValueError: tensors that are not finite.
        """
        checkpoint.check_finite(step, rows)
        try:
            checkpoint.write_part(self.checkpoint_folder(step), rank, rows)
        except (OSError, SafetensorError) as error:
            trouble = errors.environment_error(error)
            if trouble is None:
                raise
            return trouble
        return None

    def try_checkpoint(
        self,
        step: int,
        tensors: Tensors,
        state: dict[str, Any],
        *,
        last: bool,
        parts: Sequence[EnvironmentTrouble | None] = (),
    ) -> str:
        """Writes a checkpoint; what kept it from being written, in words, or "".

        last: there is no later one, so that it must be written. parts: what `try_part` of each process gave.

        Raises:
            ValueError: tensors that are not finite.
            EnvironmentTrouble: it could not be written, nor the ones before it, or it is the last.
        """
        checkpoint.check_finite(step, tensors)
        try:
            if missing := next(filter(None, parts), None):
                raise missing
            self.save_checkpoint(step, tensors, state, parts=len(parts))
            self.misses = 0
            return ""
        except (OSError, SafetensorError, EnvironmentTrouble) as error:
            trouble = errors.environment_error(error)
            if trouble is None:
                raise
        self.misses += 1
        needed, free = sum(value.nbytes for value in tensors.values()), errors.free_bytes(self.path)
        there = "" if free is None else f", {size(free)} are free there"
        kept = "none"
        with suppress(OSError):
            kept = next(
                (f"that of step {parse_step(p)}" for p in self.checkpoints() if p.name not in self.damaged), kept
            )
        words = (
            f"{self.path}: the checkpoint of step {step} cannot be written ({trouble}; "
            f"{size(needed)} are needed{there}); {kept} before it is kept"
        )
        if last or self.misses == MISSES:
            raise EnvironmentTrouble(f"{words}. When that is mended, the same command goes on")
        return f"{words}; training goes on, and tries again"

    def check_room(self, checkpoint_bytes: int) -> None:
        """Raises EnvironmentTrouble where the disk has no room for the checkpoints of a training."""
        there = min(KEPT, sum(1 for _ in self.checkpoints()))
        needed = (KEPT + 1.1 - there) * checkpoint_bytes  # one more than are kept is there while it is written
        free = errors.free_bytes(self.path)
        if free is not None and free < needed:
            raise EnvironmentTrouble(
                f"{self.path}: {size(free)} are free there, {size(needed)} are needed for checkpoints of "
                f"{size(checkpoint_bytes)} each: make room, or choose another --out"
            )

    def checkpoints(self) -> Iterator[Path]:
        """Checkpoint folders, the newest first. Raises OSError where they cannot be listed: there may be some."""
        folder = self.path / CHECKPOINTS
        try:
            names = os.listdir(folder)
        except FileNotFoundError:
            if folder.is_symlink():  # to a disk that is not there now
                raise
            names = []
        found = [(step, p.suffix == "", p) for p in map(folder.joinpath, names) if (step := parse_step(p)) is not None]
        return (p for _, _, p in sorted(found, reverse=True))

    def newest_checkpoint(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest whole checkpoint, if there is one, and what was wrong with newer ones.

        Raises:
            PermissionError: one may not be read; it may be whole.
            ValueError: it is of another run.
        """
        notes, mark = list[str](), self.mark
        for folder in self.checkpoints():
            try:
                found = checkpoint.read(folder)
            except PermissionError:
                raise
            except (OSError, ValueError, SafetensorError) as error:
                self.damaged.add(folder.name)
                notes.append(f"{folder} is damaged ({error}): going on from the one before it")
                continue
            if found.state.get("run") != mark:
                raise ValueError(
                    f"{folder} is of another run than {self.config_file}, or that file was changed: move it away, or "
                    "restore that file"
                )
            return found, notes
        if notes:
            notes.append("no checkpoint is whole: starting again")
        return None, notes

    def remove_leftovers(self) -> None:
        """Removes files of processes that were killed while they wrote."""
        for folder in (self.path / CHECKPOINTS).glob(".step-*.tmp"):
            checkpoint.remove(folder)
        remove_leftovers(self.path)

    def remove_checkpoints(self) -> None:
        shutil.rmtree(self.path / CHECKPOINTS, ignore_errors=True)


def holds_others(folder: Path) -> bool:
    """Whether there is something else than what a process of ours leaves in a new folder when it is killed at once."""
    names = [file.name for file in folder.iterdir()] if folder.is_dir() else []
    return folder.is_file() or not all(name == LOCK or is_leftover(name) for name in names)


def list_changes(then: dict[str, Any], now: dict[str, Any]) -> str:
    """The settings of now that were others when something was begun, in words; "" where none was."""
    return ", ".join(f"{key}: {then.get(key)} -> {now[key]}" for key in now if now[key] != then.get(key))


def remove_leftovers(folder: Path) -> None:
    """Removes files of processes that were killed while they wrote."""
    for file in folder.glob(".*"):
        if is_leftover(file.name):
            with suppress(OSError):
                file.unlink()


def is_leftover(name: str) -> bool:
    """Whether a file of a run is what a process writes before it has its name: .NAME.PID.tmp, or safetensors' own."""
    return bool(re.fullmatch(r"\..+\.\d+\.tmp|\.tmp\w{6}", name))
