"""The page (`report.html`) and the model card (`README.md`) of a finished run."""

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import numpy as np

from tubelet.evaluate.clips import Evaluation, stack_read
from tubelet.media.address import is_remote
from tubelet.predict.answer import predict_item
from tubelet.report.plots import curve_svg, reliability_svg, sound_uri, strip_uri
from tubelet.report.templates import open_templates
from tubelet.runs.run import BAD_FILES, CARD, CONFIG, METRICS, MODEL, PREDICTIONS, REPORT, RESULTS, SPLIT
from tubelet.system.files import write_whole
from tubelet.system.text import percent, plural
from tubelet.tasks import Results, Task
from tubelet.weights.terms import read_terms

MISTAKES_SHOWN = 12
BY_HEART = 0.25  # more of the training clips than of new ones are right, from which on it is said
FAILED_SHOWN = 200
CONFUSIONS_SHOWN = 5
MOST_CLASSES = 50  # of a confusion table that can be read
LISTED = 100  # files named in a cell of it
PICTURED_OF_A_CELL, PICTURED = 4, 60
SOUND_LETTERS = 6_000_000  # of all sounds in a page

# What one item of the data is called.
NOUNS = {"video": "clip", "image": "image", "sound": "recording"}
# Hugging Face's names for the tasks.
_TASKS = {"video": "video-classification", "image": "image-classification", "sound": "audio-classification"}
CONTENTS = {
    BAD_FILES: "the files that could not be read, and why",
    CONFIG: "the model, its input, the classes, the data and the training settings",
    METRICS: "loss, accuracy and speed along the training, one record a line",
    MODEL: "the weights, with the class names and the input they want",
    PREDICTIONS: "the answer to every file of the test, with all probabilities",
    REPORT: "the results above as a page with curves, confusions and the worst mistakes",
    RESULTS: "the results above, for programs",
    SPLIT: "which file was used for what",
}


class FinishedRun(Protocol):
    """What every page and card needs of a run at its end.

    config: as in config.json; results: as in results.json. noun: what one item is called, such as "clip"; counted: what
    is counted, by split and class, in config["data"]["counts"]; totals: the last rows of that table, by name and split.
    asked: the number of files to be answered; failed: those that could not be read, and why.
    """

    @property
    def path(self) -> Path: ...
    @property
    def config(self) -> dict[str, Any]: ...
    @property
    def results(self) -> dict[str, Any]: ...
    @property
    def name(self) -> str: ...
    @property
    def noun(self) -> str: ...
    @property
    def counted(self) -> str: ...
    @property
    def split(self) -> str | None: ...
    @property
    def summary(self) -> Results: ...
    @property
    def baselines(self) -> list[tuple[str, float]]: ...
    @property
    def classes(self) -> Sequence[str]: ...
    @property
    def totals(self) -> dict[str, dict[str, int]]: ...
    @property
    def asked(self) -> int: ...
    @property
    def failed(self) -> list[tuple[str, str]]: ...
    def describe(self) -> str:
        """What the model does, in words: "names one of 4 classes"."""


@dataclass(frozen=True)
class Finished:
    """A run on clips at its end. config, metrics and results: as in config.json, metrics.jsonl and results.json."""

    path: Path
    config: dict[str, Any]
    metrics: list[dict[str, Any]]
    task: Task
    evaluation: Evaluation
    results: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.config["model_name"])

    @property
    def noun(self) -> str:
        return NOUNS[self.config["data"]["kind"]]

    @property
    def counted(self) -> str:
        return self.noun

    @property
    def split(self) -> str | None:
        return self.evaluation.split

    @property
    def summary(self) -> Results:
        return self.evaluation.results

    @property
    def asked(self) -> int:
        return len(self.evaluation.answers)

    @property
    def failed(self) -> list[tuple[str, str]]:
        return [(one.path, one.status) for one in self.evaluation.failed]

    def describe(self) -> str:
        return self.task.describe()

    @property
    def totals(self) -> dict[str, dict[str, int]]:
        return {"all": self.clips}

    @property
    def clips(self) -> dict[str, int]:
        """The number of clips in each split; a run that 0.1.0 began has counted them by class alone."""
        data = self.config["data"]
        return data.get("clips") or {split: sum(counts.values()) for split, counts in data["counts"].items()}

    @property
    def classes(self) -> list[str]:
        """The outputs that clips are counted by; none where they are numbers."""
        counted = set().union(*self.config["data"]["counts"].values())
        return [name for name in self.task.names if name in counted]

    @cached_property
    def shown(self) -> list["Shown"]:
        """The clips that were answered, with the answers in words."""
        read, targets, values = stack_read(self.evaluation.answers, self.task)
        errors = self.task.errors(targets, values).tolist()
        words = [predict_item(one, self.task) for one in read]
        return [
            Shown(one.path, one.item.label, str(word.label), word.probability, error)
            for one, word, error in zip(read, words, errors, strict=True)
        ]

    @property
    def mistakes(self) -> list["Shown"]:
        """Wrong answers, the most misleading first."""
        return sorted((one for one in self.shown if one.error > 0), key=lambda one: (-one.error, one.path))

    @property
    def baselines(self) -> list[tuple[str, float]]:
        """The baselines of the model, in words, and the figure of each."""
        found = [self.summary.baseline()]
        if single := self.results.get("single_frame"):
            found.append((f"a model given one frame of each {self.noun}", single[self.summary.figure_name]))
        return found


@dataclass(frozen=True)
class Shown:
    """One clip that was answered, as a page shows it. error: 0 where it was answered right."""

    path: str
    label: str
    answer: str
    probability: float | None
    error: float


@dataclass(frozen=True)
class Cell:
    """The files of one class that got one answer: mistakes with the surest first, right answers with it last."""

    label: str
    answer: str
    items: list[Shown]
    id: str  # in the page

    @property
    def right(self) -> bool:
        return self.label == self.answer


def write_report(
    run: Finished,
    *,
    frames: Callable[[str], np.ndarray | None],
    sounds: Callable[[str], tuple[np.ndarray, int] | None] | None = None,
    maps: Callable[[str, str], np.ndarray | None] | None = None,
) -> Path:
    """Draws RUN/report.html, one self-contained page; replaces an older one in one step.

    `frames(path)` gives the uint8 (T, H, W, 3) frames of an item, T = 1 for an image or a spectrogram, or None where
    they cannot be read. `sounds(path)` gives its mono float32 (samples,) in [-1, 1] and their number in a second, or
    None. `maps(path, answer)` gives frames like those, tinted where they speak for the answer or against it, or None;
    it is asked for the worst mistakes, the others for all that are pictured. Names of files link to them where they
    still lie in the data's folder.
    """
    cells = find_cells(run)
    confusions = sorted((cell for cell in cells if not cell.right), key=lambda cell: -len(cell.items))
    taken_for = {cell.label: cell for cell in reversed(confusions)}  # the most frequent of each class
    few = len(run.task.names) <= MOST_CLASSES
    linked = {cell.id for cell in (cells if few else [*confusions[:CONFUSIONS_SHOWN], *taken_for.values()])}
    opened = [cell for cell in cells if cell.id in linked]
    mistakes = run.mistakes[:MISTAKES_SHOWN]
    pictured = choose_pictured([cell for cell in confusions if cell.id in linked])
    listed = chain(mistakes, *(cell.items[:LISTED] for cell in opened))
    curves = draw_curves(run)
    columns, rows = run.summary.table()
    page = render(
        "clips.html.jinja",
        run,
        curves=curves,
        calibration=describe_calibration(run),
        reliability=draw_reliability(run),
        kept=describe_kept(run, curves["best"]),
        most_classes=MOST_CLASSES,
        cells=opened,
        listed=LISTED,
        confusions=confusions[:CONFUSIONS_SHOWN],
        columns=columns,
        rows=weakest_first(rows),
        taken_for=taken_for,
        mistakes=mistakes,
        seen=(seen := picture(mistakes, pictured, frames, sounds, maps)),
        mapped={path for path, one in seen.items() if one["map"]},
        links={item.path: link_file(run, item.path) for item in listed},
    )
    write_whole(file := run.path / REPORT, page)
    return file


def write_card(run: Finished) -> Path:
    """Writes RUN/README.md, a Hugging Face model card; replaces an older one in one step."""
    columns, rows = run.summary.table()
    card = render(
        "clips.md.jinja",
        run,
        **list_card(run),
        pipeline=(pipeline := _TASKS[run.config["data"]["kind"]]),
        tag=pipeline,
        calibration=describe_calibration(run),
        columns=columns,
        rows=rows,
        contents=CONTENTS,
    )
    write_whole(file := run.path / CARD, card)
    return file


def list_card(run: FinishedRun) -> dict[str, Any]:
    """What a card lists: the name of the data, the settings, the files of the run."""
    names = {CARD, REPORT, *(path.name for path in run.path.iterdir() if path.name[0] != ".")}
    return {
        "dataset": Path(run.config["data"]["root"]).name,
        "settings": {name: choose_set(run.config[name]) for name in ("model", "clip_spec", "train")},
        "names": sorted(names - {CARD}),
    }


def say_verdict(run: FinishedRun) -> str:
    """The headline in a sentence."""
    summary, noun = run.summary, run.noun
    rivals = ", ".join(f"{summary.number(figure)} by {name}" for name, figure in run.baselines)
    seen = "it was trained on" if run.split == "train" else "it never saw"
    return f"The model is at {summary.say(summary.figure)} on {plural(summary.clips, noun)} {seen}; {rivals}."


def find_warnings(run: FinishedRun) -> list[str]:
    summary = run.summary
    warnings = []
    for name, figure in run.baselines:
        low, high = summary.interval_above(name, figure)
        if low <= 0:
            bounds = f"{summary.number(low)} to {summary.number(high)}"
            warnings.append(
                f"Not clearly better than {name}: the 95 % interval of the difference, {bounds}, does not lie above 0."
            )
    if run.split == "train":
        warnings.append(f"These {run.noun}s were used for training: the figures say nothing about new ones.")
    if by_heart := describe_by_heart(run):
        warnings.append(by_heart)
    if frozen := run.results.get("frozen"):
        whole = frozen["all_weights"]
        gap = f"came to {summary.say(whole[summary.figure_name])}" if whole else "may do better, which was not measured"
        warnings.append(
            f"Only {frozen['learned']} learned, on features of an encoder that stayed as it was; "
            f"training all weights from the same start {gap}."
        )
    warnings += [f"{one}." for one in read_terms(run.config) if one.binding]
    return [*warnings, *summary.warnings()]


def describe_by_heart(run: FinishedRun) -> str:
    """A sentence on clips that were learned by heart; "" where they were not, or that is not known."""
    learned, summary = run.results.get("on_training_clips"), run.summary
    if learned is None or learned - summary.figure < BY_HEART:
        return ""
    gap = f"{summary.number(learned)} of the last clips it learned from, {summary.number(summary.figure)} of new ones"
    return (
        f"Learned by heart: {gap} are right. More {run.noun}s help most, of more people, places and recordings; "
        "tubelet compare shows whether other settings or less time do."
    )


def draw_curves(run: Finished) -> dict[str, Any]:
    """The figures, the best (epoch, score) in validation, and how many records have no finite loss."""
    score = run.task.figure_name

    def points(kind: str, name: str) -> list[tuple[float, float]]:
        values = [(r["epoch"], r[name]) for r in run.metrics if r["kind"] == kind and name in r]
        return [(epoch, value if value is not None and math.isfinite(value) else math.nan) for epoch, value in values]

    losses = [*points("train", "loss"), *points("val", "loss")]
    return {
        "figures": {n: curve_svg(points("train", n), points("val", n), name=n) for n in ("loss", score)},
        "best": max(
            (point for point in points("val", score) if not math.isnan(point[1])),
            key=lambda point: point[1],
            default=None,
        ),
        "broken": sum(math.isnan(loss) for _, loss in losses),
        "last_epoch": max((record["epoch"] for record in run.metrics), default=0),
    }


def draw_reliability(run: Finished) -> str | None:
    found = run.summary.calibration
    return reliability_svg(found["bins_before"], found["bins"]) if found else None


def describe_calibration(run: Finished) -> str:
    """Sentences on the worth of a probability; "" of a task that has none."""
    if not run.task.gives_probabilities:
        return ""
    settled, found, noun = run.results.get("settled") or {}, run.summary.calibration, run.noun
    if not found:
        why = f", not calibrated, for want of {noun}s: {settled['shortage']}" if settled.get("shortage") else ""
        return f"A probability is the model’s own estimate{why}."
    by = f"{plural(settled['clips'], noun)} of {plural(settled['groups'], 'group')} of the {settled['split']} split"
    how = f", and measured on the same {noun}s by fits on other groups of them" if settled["measured"] else ""
    error, before, coverage = (percent(found[name]) for name in ("error", "error_before", "coverage"))
    words = (
        f"Probabilities are calibrated by {by}{how}: they differ from the share that is right by {error} in the mean, "
        f"{before} before. Sets of the likeliest classes, made to hold what is right nine times in ten, held it for "
        f"{coverage}, with {found['set_size']:.2f} classes in the mean."
    )
    if settled["distance"]:
        words += (
            f" A {noun} further from the training {noun}s than 95 % of these is called none of the classes; how well "
            f"that tells unknown ones is what tubelet eval --unknown measures."
        )
    return words


def describe_kept(run: Finished, best: tuple[float, float] | None) -> str:
    """A sentence on the weights that were kept, and on their choice by the looks at held-out clips."""
    kept, noun, score = run.results["kept"], run.noun, run.task.figure_name
    if kept["which"] == "best":
        found = f"the best of the looks at validation {noun}s: {score} {run.summary.number(kept[score])}"
        return f"The weights kept are those of step {kept['step']}, epoch {kept['epoch']:.3g}, {found}."
    last = f"The last weights are kept, those of step {kept['step']}"
    if best is None:
        return f"{last}."
    look = f"the best look at held-out {noun}s was {score} {run.summary.number(best[1])} at epoch {best[0]:.3g}"
    return f"{last}; {look}, which chose nothing."


def find_cells(run: Finished) -> list[Cell]:
    """The cells of the confusion table that are not empty, row by row; none where there is no such table."""
    if run.summary.confusion is None:
        return []
    number = {name: i for i, name in enumerate(run.task.names)}
    found: dict[tuple[int, int], list[Shown]] = {}
    for item in run.shown:
        found.setdefault((number[item.label], number[item.answer]), []).append(item)
    cells = []
    for (i, j), items in sorted(found.items()):
        sure = {item.path: item.probability or 0.0 for item in items}
        ordered = sorted(items, key=lambda item: (sure[item.path] if i == j else -sure[item.path], item.path))
        cells.append(Cell(run.task.names[i], run.task.names[j], ordered, f"cell-{i}-{j}"))
    return cells


def choose_pictured(cells: Sequence[Cell]) -> list[Shown]:
    """Up to four files of each cell and 60 in all: the first of each, then the second, and so on."""
    rounds = zip_longest(*(cell.items[:PICTURED_OF_A_CELL] for cell in cells))
    return [item for one in rounds for item in one if item is not None][:PICTURED]


def picture(
    mistakes: Sequence[Shown],
    pictured: Iterable[Shown],
    frames: Callable[[str], np.ndarray | None],
    sounds: Callable[[str], tuple[np.ndarray, int] | None] | None,
    maps: Callable[[str, str], np.ndarray | None] | None,
) -> dict[str, dict[str, str | None]]:
    """A strip of frames, of those with their map, a small one and the sound, as data URIs or None, by the path of the
    item; each is asked for once. Sounds, the longer part of a page, only as far as they fit."""
    found: dict[str, dict[str, str | None]] = {}
    large, left = {item.path: item.answer for item in mistakes}, SOUND_LETTERS
    for path in dict.fromkeys(item.path for item in chain(mistakes, pictured)):
        picture = frames(path)
        heard = sounds(path) if sounds and left > 0 else None
        sound = sound_uri(*heard) if heard else None
        sound = sound if sound and len(sound) <= left else None
        left -= len(sound or "") * (2 if path in large else 1)  # which stand in their cells as well
        strip = strip_uri(picture) if picture is not None and path in large else None
        small = None if picture is None else strip_uri(picture, small=True)
        tinted = maps(path, large[path]) if maps and strip else None
        found[path] = {"strip": strip, "small": small, "sound": sound}
        found[path]["map"] = None if tinted is None else strip_uri(tinted)
    return found


def link_file(run: FinishedRun, name: str) -> str | None:
    """A link from the page to the file of an item, at the second that a part begins with; None where it is gone."""
    if is_remote(name):
        return name if name.lower().startswith("http") else None
    whole, mark, part = name.rpartition("#t=")
    for path, moment in ((name, ""), (whole, mark + part)):
        file = os.path.join(run.config["data"]["root"], path)
        if path and os.path.isfile(file):
            try:
                relative = os.path.relpath(os.path.realpath(file), os.path.realpath(run.path))
            except ValueError:  # on another drive
                return None
            return "./" + quote(os.fsencode(Path(relative).as_posix())) + moment
    return None


def weakest_first(rows: list[list[Any]]) -> list[list[Any]]:
    """The rows of a table by their shares, the first of which counts most; where that is not known, last."""
    return sorted(rows, key=lambda row: (row[1] is None, [one or 0.0 for one in row if isinstance(one, float | None)]))


def list_settings(run: FinishedRun) -> dict[str, dict[str, Any]]:
    """The page's fold-out tables; of the results only those that the page does not show elsewhere."""
    plain = {key: value for key, value in run.results.items() if isinstance(value, str | int | float)}
    shown = run.summary.to_json()
    evaluation = {key: value for key, value in plain.items() if key not in shown}
    data = {key: value for key, value in run.config["data"].items() if isinstance(value, str)}
    sections = {"Model": run.config["model"], "Clip": run.config["clip_spec"], "Training": run.config["train"]}
    sections |= {"Data": data, "Evaluation": evaluation}
    return {title: choose_set(values) for title, values in sections.items()}


def choose_set(values: dict[str, Any]) -> dict[str, Any]:
    """The settings that are set, also inside of others."""
    return {
        key: choose_set(value) if isinstance(value, dict) else value
        for key, value in values.items()
        if value is not None and value not in ([], {}, "")
    }


def render(template: str, run: FinishedRun, **names: Any) -> str:
    """A template filled in with a run, what page and card both say of it, and what is this one's alone."""
    environment = open_templates(html=template.endswith(".html.jinja"))
    environment.filters["number"] = run.summary.number
    told = {name for name, _ in run.baselines}
    both = {
        "run": run,
        "summary": run.summary,
        "sentence": say_verdict(run),
        "warnings": find_warnings(run),
        "terms": read_terms(run.config),
        "facts": [(name, value) for name, value in run.summary.facts() if name not in told],
        "failed_shown": FAILED_SHOWN,
        "settings": list_settings(run),
    }
    return environment.get_template(template).render(both | names)
