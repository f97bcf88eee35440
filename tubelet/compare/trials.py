"""The trainings of a comparison, each a run of `tubelet train` of its own, and what they answered."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tubelet.compare.candidate import Candidate
from tubelet.data.items import Item, Source
from tubelet.data.table import from_anywhere, write_table
from tubelet.runs.run import PREDICTIONS, Run
from tubelet.system.text import read_path_cell, read_text_cell
from tubelet.train.config import TrainConfig
from tubelet.train.train import train_fn


@dataclass(frozen=True)
class Fold:
    """A table of clips of which those of the split val are held out."""

    number: int
    table: Path
    held_out: tuple[Item, ...]

    @classmethod
    def write(cls, source: Source, number: int, folder: Path) -> "Fold":
        """The fold as a table, in a folder from which its files can be found."""
        items = from_anywhere(source.items, source.root)
        fold = cls(number, folder / f"fold-{number}.csv", tuple(item for item in items if item.split == "val"))
        write_table(fold.table, items)
        return fold


@dataclass(frozen=True)
class Trial:
    """One candidate, on one fold, for so many seconds."""

    candidate: Candidate
    fold: Fold
    folder: Path
    seconds: float
    seed: int
    device: str
    workers: int | None

    @property
    def config(self) -> TrainConfig:
        """As `tubelet train` takes it. Folds have seeds of their own, so that luck is not the same in all."""
        return replace(
            self.candidate.read(self.fold.table),
            out=self.folder,
            minutes=self.seconds / 60,
            seed=self.seed + self.fold.number,
            device=self.device,
            workers=self.workers,
        )

    def train(self) -> None:
        """Trains it, or goes on, unless that is done. Raises what `train_fn` raises."""
        if not Run(self.folder).finished:
            train_fn(self.config, show=False)

    def read_right(self) -> np.ndarray:
        """(held-out clips,) bool: whether each was answered right; one that could not be read was not."""
        with open(self.folder / PREDICTIONS, newline="", encoding="utf-8", errors="surrogateescape") as table:
            rows = list(csv.DictReader(table))
        right = {read_path_cell(row["path"]): answered_right(row) for row in rows}
        return np.array([right.get(item.name, False) for item in self.fold.held_out])

    def read_growth(self) -> float:
        """By how much the share of held-out clips that are right grew from the look half way to the last one."""
        looks = [(one["step"], one["accuracy"]) for one in Run(self.folder).metrics() if one["kind"] == "val"]
        if not looks:
            return 0.0
        last, share = looks[-1]
        before = [score for step, score in looks if step <= last / 2] or [looks[0][1]]
        return share - before[-1]


def answered_right(row: dict[str, str]) -> bool:
    return row["code"] == "ok" and read_text_cell(row["predicted"]) == read_text_cell(row["label"])


def gather_right(trials: Sequence[Trial]) -> np.ndarray:
    """(clips of all folds, in their order,) bool."""
    return np.concatenate([trial.read_right() for trial in trials])
