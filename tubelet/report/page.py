"""What a run is worth: a page (`report.html`) and a model card (`README.md`), drawn from the run's files alone."""

import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from tubelet.report.plots import curve_svg, sound_uri, strip_uri
from tubelet.report.results import Prediction, RunFiles, read_run_files
from tubelet.system.files import write_whole
from tubelet.system.text import plural, visible
from tubelet.tasks.classification import summarise

__all__ = ["summarise", "write_card", "write_report"]

MISTAKES_SHOWN = 12
FAILED_SHOWN = 200
CONFUSIONS_SHOWN = 5
MOST_CLASSES = 50  # of a confusion table that can be read
LISTED = 100  # files named in a cell of it
PICTURED_OF_A_CELL, PICTURED = 4, 60
SOUND_LETTERS = 6_000_000  # of all sounds in a page
NAMES_IN_A_SENTENCE = 10

# Hugging Face's names for the tasks.
_TASKS = {"video": "video-classification", "image": "image-classification", "sound": "audio-classification"}
_CONTENTS = {
    "bad_files.jsonl": "the files that could not be read, and why",
    "config.json": "the model, its input, the classes, the data and the training settings",
    "metrics.jsonl": "loss, accuracy and speed along the training, one record a line",
    "model.safetensors": "the weights, with the class names and the input they want",
    "predictions.csv": "the answer to every file of the test, with all probabilities",
    "report.html": "the results above as a page with curves, confusions and the worst mistakes",
    "results.json": "the results above, for programs",
    "split.csv": "which file was used for what",
}


@dataclass(frozen=True)
class Cell:
    """The files of one class that got one answer: mistakes with the surest first, right answers with it last."""

    label: str
    answer: str
    items: list[Prediction]
    id: str  # in the page

    @property
    def right(self) -> bool:
        return self.label == self.answer


@dataclass(frozen=True)
class Seen:
    """What the page shows of a file: a strip of frames, a small one, its sound; data URIs, or None."""

    strip: str | None
    small: str | None
    sound: str | None


def write_report(
    run: Path,
    *,
    frames: Callable[[str], np.ndarray | None],
    sounds: Callable[[str], tuple[np.ndarray, int] | None] | None = None,
) -> Path:
    """Draws RUN/report.html, one self-contained page, from the files in RUN; replaces an older one in one step.

    `frames(path)` gives the uint8 (T, H, W, 3) frames of an item of predictions.csv, T = 1 for an image or a
    spectrogram, or None where they cannot be read. `sounds(path)` gives its mono float32 (samples,) in [-1, 1] and
    their number in a second, or None. Both are asked for the pictured mistakes only. Names of files link to them where
    they still lie in the data's folder.

    Raises:
        ValueError: a file of the run is missing, damaged or does not fit the others (the message names it).
    """
    read = read_run_files(Path(run))
    cells = _cells(read)
    confusions = sorted((cell for cell in cells if not cell.right), key=lambda cell: -len(cell.items))
    taken_for = {cell.label: cell for cell in reversed(confusions)}  # the most frequent of each class
    few = len(read.config["classes"]) <= MOST_CLASSES
    linked = {cell.id for cell in (cells if few else [*confusions[:CONFUSIONS_SHOWN], *taken_for.values()])}
    opened = [cell for cell in cells if cell.id in linked]
    mistakes = read.mistakes[:MISTAKES_SHOWN]
    pictured = _pictured([cell for cell in confusions if cell.id in linked])
    listed = chain(mistakes, *(cell.items[:LISTED] for cell in opened))
    curves = _curves(read.metrics)
    page = _render(
        "report.html.jinja",
        run=read,
        verdict=_verdict(read),
        curves=curves,
        kept=_kept(read, curves["best"]),
        most_classes=MOST_CLASSES,
        cells=opened,
        listed=LISTED,
        confusions=confusions[:CONFUSIONS_SHOWN],
        per_class=_weakest_first(read),
        taken_for=taken_for,
        mistakes=mistakes,
        seen=_seen(mistakes, pictured, frames, sounds),
        links={item.path: _link(read, item.path) for item in listed},
        failed_shown=FAILED_SHOWN,
        settings=_settings(read),
    )
    return written(read.path / "report.html", page)


def written(path: Path, text: str) -> Path:
    write_whole(path, text)
    return path


def write_card(run: Path) -> Path:
    """Writes RUN/README.md, a Hugging Face model card, from the files in RUN; replaces an older one in one step.

    Raises:
        ValueError: a file of the run is missing, damaged or does not fit the others (the message names it).
    """
    read = read_run_files(Path(run))
    names = {"README.md", "report.html", *(path.name for path in read.path.iterdir() if path.name[0] != ".")}
    card = _render(
        "card.md.jinja",
        run=read,
        verdict=_verdict(read),
        task=_TASKS[read.config["data"]["kind"]],
        dataset=Path(read.config["data"]["root"]).name,
        settings={name: _set(read.config[name]) for name in ("model", "clip_spec", "train")},
        names=sorted(names - {"README.md"}),
        contents=_CONTENTS,
    )
    return written(read.path / "README.md", card)


# ------------------------------------------------------------------------------------------ what the templates are told


def _verdict(run: RunFiles) -> dict[str, Any]:
    """The headline in words: the sentence, the baselines as (name, accuracy), and what a reader has to be warned of."""
    summary, split, noun = run.summary, run.results["split"], run.noun
    baselines = [(f"always answering “{summary['majority']['label']}”", summary["majority"]["accuracy"])]
    if single_frame := run.results.get("single_frame"):
        baselines.append((f"a model given one frame of each {noun}", single_frame["accuracy"]))
    rivals = ", ".join(
        f"{name} {'would be right ' if i == 0 else ''}on {_percent(accuracy)}"
        for i, (name, accuracy) in enumerate(baselines)
    )
    count = plural(summary["clips"], noun)
    seen = "it was trained on" if split == "train" else "it never saw"
    sentence = f"The model is right on {_percent(summary['accuracy'])} of {count} {seen}; {rivals}."
    return {"sentence": sentence, "baselines": baselines, "warnings": _warnings(run, baselines)}


def _warnings(run: RunFiles, baselines: list[tuple[str, float]]) -> list[str]:
    low, high = (_percent(bound, 1) for bound in run.summary["interval"])
    warnings = [
        f"Not clearly better than {name}: the 95 % interval of the model’s accuracy, {low} to {high}, "
        f"does not lie above {_percent(accuracy, 1)}."
        for name, accuracy in baselines
        if run.summary["interval"][0] <= accuracy
    ]
    if run.results["split"] == "train":
        warnings.append(f"These {run.noun}s were used for training: the figures say nothing about new ones.")
    if frozen := run.results.get("frozen"):
        whole = frozen["all_weights"]
        gap = f"was right on {_percent(whole['accuracy'], 1)}" if whole else "may do better, which was not measured"
        warnings.append(
            f"Only {frozen['learned']} learned, on features of an encoder that stayed as it was; "
            f"training all weights from the same start {gap}."
        )
    absent = [row["label"] for row in run.summary["per_class"] if not row["support"]]
    if absent:
        more = f" and {len(absent) - NAMES_IN_A_SENTENCE} more" if len(absent) > NAMES_IN_A_SENTENCE else ""
        names = ", ".join(absent[:NAMES_IN_A_SENTENCE]) + more
        warnings.append(f"Not tested, for want of {run.noun}s that could be read: {names}.")
    return warnings


def _curves(metrics: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures, the best (epoch, accuracy) in validation, and how many records have no finite loss."""

    def points(kind: str, name: str) -> list[tuple[float, float]]:
        values = [(r["epoch"], r[name]) for r in metrics if r["kind"] == kind and name in r]
        return [(epoch, value if value is not None and math.isfinite(value) else math.nan) for epoch, value in values]

    losses = [*points("train", "loss"), *points("val", "loss")]
    return {
        "figures": {n: curve_svg(points("train", n), points("val", n), name=n) for n in ("loss", "accuracy")},
        "best": max(
            (point for point in points("val", "accuracy") if not math.isnan(point[1])),
            key=lambda point: point[1],
            default=None,
        ),
        "broken": sum(math.isnan(loss) for _, loss in losses),
        "last_epoch": max((record["epoch"] for record in metrics), default=0),
    }


def _kept(run: RunFiles, best: tuple[float, float] | None) -> str:
    """Which weights these are, and what the looks at held-out clips had to do with it; runs of old do not say."""
    kept, noun = run.results.get("kept"), run.noun
    if kept and kept["which"] == "best":
        found = f"the best of the looks at validation {noun}s: {_percent(kept['accuracy'], 1)}"
        return f"The weights kept are those of step {kept['step']}, epoch {kept['epoch']:.3g}, {found}."
    last = f"The last weights are kept, those of step {kept['step']}" if kept else ""
    if best is None:
        return last and f"{last}."
    look = f"he best look at held-out {noun}s was {_percent(best[1], 1)} at epoch {best[0]:.3g}"
    return f"{last}; t{look}, which chose nothing." if last else f"T{look}."


def _cells(run: RunFiles) -> list[Cell]:
    """The cells of the confusion table that are not empty, row by row."""
    number = {name: i for i, name in enumerate(run.config["classes"])}
    found: dict[tuple[int, int], list[Prediction]] = {}
    for item in run.predictions:
        if item.status == "ok":
            found.setdefault((number[item.label], number[item.predicted]), []).append(item)
    cells = []
    for (i, j), items in sorted(found.items()):
        ordered = sorted(items, key=lambda item: (item.probability if i == j else -item.probability, item.path))
        cells.append(Cell(run.config["classes"][i], run.config["classes"][j], ordered, f"cell-{i}-{j}"))
    return cells


def _pictured(cells: Sequence[Cell]) -> list[Prediction]:
    """Up to four files of each cell and 60 in all: the first of each, then the second, and so on."""
    rounds = zip_longest(*(cell.items[:PICTURED_OF_A_CELL] for cell in cells))
    return [item for one in rounds for item in one if item is not None][:PICTURED]


def _seen(
    mistakes: Sequence[Prediction],
    pictured: Iterable[Prediction],
    frames: Callable[[str], np.ndarray | None],
    sounds: Callable[[str], tuple[np.ndarray, int] | None] | None,
) -> dict[str, Seen]:
    """By the path of the item; each is asked for once. Sounds, the longer part of a page, only as far as they fit."""
    found: dict[str, Seen] = {}
    large, left = {item.path for item in mistakes}, SOUND_LETTERS
    for path in dict.fromkeys(item.path for item in chain(mistakes, pictured)):
        picture = frames(path)
        heard = sounds(path) if sounds and left > 0 else None
        sound = sound_uri(*heard) if heard else None
        sound = sound if sound and len(sound) <= left else None
        left -= len(sound or "") * (2 if path in large else 1)  # which stand in their cells as well
        strip = strip_uri(picture) if picture is not None and path in large else None
        found[path] = Seen(strip, None if picture is None else strip_uri(picture, small=True), sound)
    return found


def _link(run: RunFiles, name: str) -> str | None:
    """From the page to the file of an item, at the second that a part begins with; None where it is not there."""
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


def _weakest_first(run: RunFiles) -> list[dict[str, Any]]:
    """The rows of summary["per_class"] by recall; untested classes last."""
    return sorted(run.summary["per_class"], key=lambda row: (row["recall"] is None, row["recall"] or 0, row["f1"] or 0))


def _settings(run: RunFiles) -> dict[str, dict[str, Any]]:
    """What stands in the page's fold-out tables; of the results only what the page does not show elsewhere."""
    plain = {key: value for key, value in run.results.items() if isinstance(value, str | int | float)}
    evaluation = {key: value for key, value in plain.items() if key not in run.summary}
    data = {key: value for key, value in run.config["data"].items() if isinstance(value, str)}
    sections = {"Model": run.config["model"], "Clip": run.config["clip_spec"], "Training": run.config["train"]}
    sections |= {"Data": data, "Evaluation": evaluation}
    return {title: _set(values) for title, values in sections.items()}


def _set(values: dict[str, Any]) -> dict[str, Any]:
    """The settings that are set, also inside of others."""
    return {
        key: _set(value) if isinstance(value, dict) else value
        for key, value in values.items()
        if value is not None and value not in ([], {}, "")
    }


# --------------------------------------------------------------------------------------------------- text and templates


def _percent(share: float | None, digits: int = 0) -> str:
    """0.931 -> "93 %"; as many more digits as it takes not to call 99.96 % all, or 0.04 % nothing."""
    if share is None:
        return "–"
    text = f"{math.floor(100 * share * 10**digits + 0.5) / 10**digits:.{digits}f}"  # a half goes up, as people expect
    if float(text) in (0, 100) and share not in (0, 1):
        return _percent(share, digits + 1)
    return text + "\N{NO-BREAK SPACE}%"


def _width(share: float) -> str:
    return f"{100 * share:.2f}%"


def _setting(value: Any) -> str:
    """The value of a setting, as a reader would write it."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, list):
        return ", ".join(map(_setting, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {_setting(part)}" for key, part in value.items())
    return str(value)


def _without_folders(value: Any) -> Any:
    """A card goes out into the world: a path would tell how its author's folders are called."""
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _printable(value: Any) -> Any:
    """Control characters, text-direction overrides and stray bytes of file names, spelled out; the rest as it is."""
    return visible(value) if type(value) is str else value


def _markdown(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|#&~])", r"\\\1", _printable(text))


def _render(template: str, **names: Any) -> str:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=template.endswith(".html.jinja"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,  # all that is printed passes through here: no value can be forgotten
    )
    environment.filters |= {
        "percent": _percent,
        "width": _width,
        "setting": _setting,
        "without_folders": _without_folders,
        "plural": plural,
        "markdown": _markdown,
    }
    return environment.from_string(files("tubelet.report").joinpath(template).read_text("utf-8")).render(names)
