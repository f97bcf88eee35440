"""Figures of a run on clips that it was not trained on."""

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from tubelet.data.items import Item, Source, find_items
from tubelet.data.labels import LABELS
from tubelet.data.splits import with_groups
from tubelet.evaluate.show import show_results
from tubelet.features.distance import Distance, measure_telling
from tubelet.media.address import join, real
from tubelet.predict.answer import Answer, answer_form
from tubelet.predict.predictor import Predictor
from tubelet.predict.show import describe_seen
from tubelet.predict.tables import write_labelled
from tubelet.runs.run import CONFIG, SPLIT, Run
from tubelet.runs.share import ALONE, Keep, Key, Share, Work, count_in_order
from tubelet.system.console import console, say
from tubelet.system.text import percent, plural, visible
from tubelet.tasks import Results, Task

Clip = tuple[str, float | None, float | None]  # file, start and end in seconds


@dataclass(frozen=True)
class Evaluation:
    """Answers for labelled clips, those of a split unless it is None, and their figures."""

    split: str | None
    views: str
    answers: list[Answer]
    results: Results
    unknown: dict[str, Any] | None = None  # of classes that the model does not know, how well they are told

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
        unknown = {"unknown": self.unknown} if self.unknown else {}
        return {"split": self.split, "views": self.views, **self.results.to_json(), **seconds, **unknown}


def evaluate(
    predictor: Predictor,
    data: str | os.PathLike[str],
    *,
    views: str = "auto",
    split: str | None = None,
    labels: Sequence[str] | None = None,
    unknown: bool = False,
    csv_file: Path | None = None,
    workers: int = 2,
    show: bool = True,
    share: Share = ALONE,
) -> Evaluation:
    """Figures over labelled files, laid out as for training: over `split`, or, left out, over the test split, else val,
    else all, without the clips that the run was trained on.

    labels: the columns of a table that hold what is right; left out, "label", or the names of numbers.
    unknown: clips of classes that the model does not know are no error: how well they are told is measured, all other
    figures are of the rest. share: who answers.

    Raises:
        ValueError: labels that the model does not know, or no clips to evaluate.
    """
    task = predictor.task
    labels = labels or (LABELS if task.gives_probabilities else task.names)

    def choose() -> tuple[Source, list[str], str | None, list[Item]]:
        source = find_items(Path(data), task=type(task), labels=labels, minimum_classes=1, minimum_clips=1)
        strangers = sorted(set(source.classes) - set(task.names))
        check_classes(predictor, data, strangers, unknown=unknown)
        source = replace(source, items=tuple(with_groups(source)[0]))
        return source, strangers, *choose_items(predictor.run, source, split)

    source, strangers, split, items = share.begin(choose)
    if show and (left_out := sum(split in (None, item.split) for item in source.items) - len(items)):
        say("note", f"{plural(left_out, 'clip')} left out: the run was trained on {'it' if left_out == 1 else 'them'}")

    def make(numbers: list[int], keep: Keep[Answer]) -> None:
        mine = [items[number] for number in numbers]
        with count_in_order("evaluating", "files", numbers, keep, show=show) as count:
            how: dict[str, Any] = {"root": source.root, "views": views, "workers": workers}
            predictor.answer_items(mine, **how, among=len(items), after=count)

    keys: list[Key] = [(item.path, item.start_seconds, item.end_seconds) for item in items]
    answers = share.make(Work(keys, make, answer_form(items), root=source.root, about=predictor.describe))
    foreign = [one for one in answers if {*task.classes_in(one.item.label)} & {*strangers}]
    own = [one for one in answers if not {*task.classes_in(one.item.label)} & {*strangers}]
    if not own:
        raise ValueError(f"{data}: no clips of classes that the model knows: it knows {', '.join(task.names)}")
    used = read_used(predictor.run) if predictor.run else {}
    settling = used.get("val") or used.get("test", set())
    settled_by = any(locate_clip(source.root, one.item) in settling for one in own)
    evaluation = measure_answers(own, task, split=split, views=views, settled_by=settled_by)
    if show and settled_by and evaluation.results.calibration:
        say("note", "these clips settled the calibration: its figures are of fits on other groups of them")
    if predictor.distance and foreign:
        evaluation = replace(evaluation, answers=answers, unknown=measure_unknown(predictor.distance, own, foreign))
    if csv_file:
        write_labelled(answers, task, csv_file, distance=predictor.distance)
    if show:
        print_evaluation(evaluation)
    return evaluation


def check_classes(
    predictor: Predictor, data: str | os.PathLike[str], strangers: Sequence[str], *, unknown: bool
) -> None:
    """Raises ValueError for classes that the model does not know, unless they are to be told, and can be."""
    if strangers and not unknown:
        hint = ". --unknown measures how well they are told" if predictor.distance else ""
        classes = f"{', '.join(strangers)}; it knows {', '.join(predictor.task.names)}"
        raise ValueError(f"{data} has classes the model does not know: {classes}{hint}")
    if unknown and not (predictor.distance and strangers):
        has = f"{data} has none" if predictor.distance else f"{predictor.run} tells none"
        raise ValueError(f"--unknown measures how well unknown classes are told, and {has}: leave it out")


def measure_answers(
    answers: list[Answer], task: Task, *, split: str | None, views: str, settled_by: bool = False
) -> Evaluation:
    """The figures of answers for labelled clips, which may be those that settled the task.

    Raises ValueError: no file could be read.
    """
    read, targets, values = stack_read(answers, task)
    failed = len(answers) - len(read)
    results = task.measure(targets, values, groups=list_groups(read), failed=failed, settled_by=settled_by)
    return Evaluation(split, views, answers, results)


def measure_unknown(distance: Distance, own: list[Answer], foreign: list[Answer]) -> dict[str, Any]:
    """The figures of telling clips of unknown classes from those of known ones. Raises ValueError: none can be read."""
    near, far = ([one.features for one in some if one.features is not None] for some in (own, foreign))
    if not far:
        raise ValueError(f"none of {len(foreign)} files of unknown classes could be read: {foreign[0].status}")
    known, unknown = (distance.measure(np.stack(some)) for some in (near, far))
    return {"clips": len(far), **measure_telling(known, unknown, distance.limit)}


def list_groups(answers: list[Answer]) -> list[str]:
    return [one.item.group or one.item.path for one in answers]


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
        known = read_used(run).get("train", set()) if run else set()
        items = [item for item in items if locate_clip(source.root, item) not in known]
        if not items:
            raise ValueError(f"{source.root}: the run was trained on every one of these clips: give it others")
    return chosen, items


def locate_clip(root: Path, item: Item) -> Clip:
    return real(join(root, item.path)), item.start_seconds, item.end_seconds


def read_used(run: Path) -> dict[str, set[Clip]]:
    """The clips that a run used, by split, where they still are; none where that is not known."""
    folder = run if run.is_dir() else run.parent
    if not ((folder / SPLIT).is_file() and (folder / CONFIG).is_file()):
        return {}
    data = Run(folder).config["data"]
    if not (isinstance(data, dict) and isinstance(data.get("root"), str)):
        raise ValueError(f"{folder / 'config.json'}: damaged (it does not say where the data are): restore it")
    root = Path(data["root"])

    def seconds(text: str) -> float | None:
        return float(text) if text else None

    try:
        with open(folder / SPLIT, newline="", encoding="utf-8", errors="surrogateescape") as table:
            rows = list(csv.DictReader(table))
        used: dict[str, set[Clip]] = {row["split"]: set() for row in rows}
        for row in rows:
            item = Item(row["path"], row["label"], seconds(row["start"]), seconds(row["end"]))
            used[row["split"]].add(locate_clip(root, item))
        return used
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(
            f"{folder / 'split.csv'}: damaged ({error}): restore it, or it is not known what was trained on"
        ) from error


def print_evaluation(evaluation: Evaluation) -> None:
    seen = describe_seen(*evaluation.seconds()[::-1])
    more = [("unknown classes", describe_unknown(evaluation.unknown))] if evaluation.unknown else []
    more += [("looked at", f"{seen} (--views {evaluation.views})")] if seen else []
    show_results(evaluation.results, split=evaluation.split, noun="clip", more=more)
    for one in evaluation.answers:
        if one.values is None:
            console.print(visible(one.status), style="red", soft_wrap=True)
        elif one.note:
            console.print(visible(f"{one.path}: {one.note}"), style="yellow", soft_wrap=True)


def describe_unknown(unknown: dict[str, Any]) -> str:
    told, kept, alarms = (percent(unknown[name]) for name in ("told", "kept", "false_alarms"))
    return (
        f"{told} of {plural(unknown['clips'], 'clip')} told, {kept} of the known kept; AUROC {unknown['auroc']:.3f}; "
        f"where 95 % of the known are kept, {alarms} are taken for known"
    )
