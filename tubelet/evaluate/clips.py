"""How good a run is on clips that it was not trained on."""

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from tubelet.data.items import Item, Source, find_items
from tubelet.data.splits import with_groups
from tubelet.data.table import LABELS
from tubelet.evaluate.show import show_results
from tubelet.predict.answer import Answer
from tubelet.predict.predictor import Predictor
from tubelet.predict.show import describe_seen
from tubelet.predict.tables import write_labelled
from tubelet.runs.run import CONFIG, SPLIT, Run
from tubelet.system.console import bar, console, say
from tubelet.system.text import plural, visible
from tubelet.tasks import Results, Task


@dataclass(frozen=True)
class Evaluation:
    """Answers for labelled clips, those of a split unless it is None, and their figures."""

    split: str | None
    views: str
    answers: list[Answer]
    results: Results

    @property
    def read(self) -> list[Answer]:
        return [one for one in self.answers if one.values is not None]

    @property
    def failed(self) -> list[Answer]:
        return [one for one in self.answers if one.values is None]

    def seconds(self) -> tuple[float, float]:
        """The length of all clips, and of the parts of them that were seen."""
        whole, seen = (sum(getattr(one, name) or 0.0 for one in self.read) for name in ("seconds", "seconds_seen"))
        return round(whole, 3), round(seen, 3)

    def to_json(self) -> dict[str, Any]:
        seconds = dict(zip(("seconds", "seconds_seen"), self.seconds()))
        return {"split": self.split, "views": self.views, **self.results.to_json(), **seconds}


def evaluate(
    predictor: Predictor,
    data: str | os.PathLike[str],
    *,
    views: str = "auto",
    split: str | None = None,
    labels: Sequence[str] | None = None,
    csv_file: Path | None = None,
    workers: int = 2,
    show: bool = True,
) -> Evaluation:
    """Figures over labelled files, laid out as for training: over `split`, or, left out, over the test split, else val,
    else all, without the clips that the run was trained on.

    labels: the columns of a table that hold what is right; left out, "label", or the names of numbers.

    Raises:
        ValueError: labels that the model does not know, or no clips to evaluate.
    """
    task = predictor.task
    labels = labels or (LABELS if task.gives_probabilities else task.names)
    source = find_items(Path(data), task=type(task), labels=labels, minimum_classes=1, minimum_clips=1)
    if strangers := sorted(set(source.classes) - set(task.names)):
        raise ValueError(
            f"{data} has classes the model does not know: {', '.join(strangers)}; it knows {', '.join(task.names)}"
        )
    source = replace(source, items=tuple(with_groups(source)[0]))
    split, items = choose_items(predictor.run, source, split)
    if show and (left_out := sum(split in (None, item.split) for item in source.items) - len(items)):
        say("note", f"{plural(left_out, 'clip')} left out: the run was trained on {'it' if left_out == 1 else 'them'}")
    with bar("evaluating", len(items), show=show) as progress:

        def count(_: Answer) -> None:
            progress.advance(f"{progress.done + 1}/{progress.total} files")

        answers = predictor.answer_items(items, root=source.root, views=views, workers=workers, after=count)
    evaluation = measure_answers(answers, task, split=split, views=views)
    if csv_file:
        write_labelled(answers, task, csv_file)
    if show:
        print_evaluation(evaluation)
    return evaluation


def measure_answers(answers: list[Answer], task: Task, *, split: str | None, views: str) -> Evaluation:
    """The figures of answers for labelled clips. Raises ValueError: no file could be read."""
    read, targets, values = stack_read(answers, task)
    groups = [one.item.group or one.item.path for one in read]
    results = task.measure(targets, values, groups=groups, failed=len(answers) - len(read))
    return Evaluation(split, views, answers, results)


def stack_read(answers: list[Answer], task: Task) -> tuple[list[Answer], Tensor, np.ndarray]:
    """The N answers for files that could be read, their targets (N, ...) and values (N, outputs).

    Raises ValueError: no file could be read.
    """
    read = [one for one in answers if one.values is not None]
    if not read:
        raise ValueError(
            f"none of {len(answers)} files could be read:\n  " + "\n  ".join(a.status for a in answers[:5])
        )
    values = np.stack([one.values for one in read if one.values is not None])
    return read, task.targets([one.item.label for one in read]), values


def choose_items(run: Path | None, source: Source, split: str | None) -> tuple[str | None, list[Item]]:
    """The split to evaluate on and its items, but for those that a run was trained on, unless a split is asked for."""
    splits = {item.split for item in source.items}
    chosen = split or next((name for name in ("test", "val") if name in splits), None)
    items = [item for item in source.items if chosen in (None, item.split)]
    if not items:
        has = ", ".join(sorted(splits - {""})) or "no splits"
        raise ValueError(f"{source.root} has no split {chosen!r} but {has}")
    if split is None:
        known = trained_on(run) if run else set()
        items = [item for item in items if locate_clip(source.root, item) not in known]
        if not items:
            raise ValueError(f"{source.root}: the run was trained on every one of these clips: give it others")
    return chosen, items


Clip = tuple[str, float | None, float | None]  # file, start and end in seconds


def locate_clip(root: Path, item: Item) -> Clip:
    return os.path.realpath(root / item.path), item.start_seconds, item.end_seconds


def trained_on(run: Path) -> set[Clip]:
    """The clips that the model of a run was trained on, where they still are; none where that is not known."""
    folder = run if run.is_dir() else run.parent
    if not ((folder / SPLIT).is_file() and (folder / CONFIG).is_file()):
        return set()
    data = Run(folder).config["data"]
    if not (isinstance(data, dict) and isinstance(data.get("root"), str)):
        raise ValueError(f"{folder / 'config.json'}: damaged (it does not say where the data are): restore it")
    root = Path(data["root"])

    def seconds(text: str) -> float | None:
        return float(text) if text else None

    try:
        with open(folder / SPLIT, newline="", encoding="utf-8", errors="surrogateescape") as table:
            rows = [row for row in csv.DictReader(table) if row["split"] == "train"]
        return {locate_clip(root, Item(r["path"], r["label"], seconds(r["start"]), seconds(r["end"]))) for r in rows}
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(
            f"{folder / 'split.csv'}: damaged ({error}): restore it, or it is not known what was trained on"
        ) from error


def print_evaluation(evaluation: Evaluation) -> None:
    seen = describe_seen(*evaluation.seconds()[::-1])
    show_results(
        evaluation.results,
        split=evaluation.split,
        noun="clip",
        more=[("looked at", f"{seen} (--views {evaluation.views})")] if seen else [],
    )
    for one in evaluation.answers:
        if one.values is None:
            console.print(visible(one.status), style="red", soft_wrap=True)
        elif one.note:
            console.print(visible(f"{one.path}: {one.note}"), style="yellow", soft_wrap=True)
