"""What a run is worth: a page (`report.html`) and a model card (`README.md`), drawn from the run's files alone."""

import math
import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from tubelet.metrics import summarise
from tubelet.pictures import curve_svg, strip_uri
from tubelet.run_files import RunFiles, read_run_files
from tubelet.visible import visible
from tubelet.whole import write_whole

__all__ = ["summarise", "write_card", "write_report"]

MISTAKES_SHOWN = 12
FAILED_SHOWN = 200
CONFUSIONS_SHOWN = 5
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


def write_report(run: Path, *, frames: Callable[[str], np.ndarray | None]) -> Path:
    """Draws RUN/report.html, one self-contained page, from the files in RUN; replaces an older one in one step.

    `frames(path)` gives the uint8 (T, H, W, 3) frames of an item of predictions.csv, T = 1 for an image or a
    spectrogram, or None where they cannot be read. It is asked for the pictured mistakes only.

    Raises:
        ValueError: a file of the run is missing, damaged or does not fit the others (the message names it).
    """
    read = read_run_files(Path(run))
    pictures = [frames(mistake.path) for mistake in read.mistakes[:MISTAKES_SHOWN]]
    page = _render(
        "report.html.jinja",
        run=read,
        verdict=_verdict(read),
        curves=_curves(read.metrics),
        confusions=_confusions(read),
        per_class=_weakest_first(read),
        strips=[picture if picture is None else strip_uri(picture) for picture in pictures],
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
    count = f"{summary['clips']} {noun}{'s' if summary['clips'] != 1 else ''}"
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
        "best": max(points("val", "accuracy"), key=lambda point: point[1], default=None),
        "broken": sum(math.isnan(loss) for _, loss in losses),
        "last_epoch": max((record["epoch"] for record in metrics), default=0),
    }


def _confusions(run: RunFiles) -> list[tuple[int, str, str]]:
    """(how often, label, answer) of the most frequent confusions."""
    matrix, classes = run.summary["confusion"], run.config["classes"]
    pairs = [(n, classes[i], classes[j]) for i, row in enumerate(matrix) for j, n in enumerate(row) if n and i != j]
    return sorted(pairs, key=lambda pair: -pair[0])[:CONFUSIONS_SHOWN]


def _weakest_first(run: RunFiles) -> list[dict[str, Any]]:
    """The rows of summary["per_class"] by recall, each with the class it is mostly `taken_for`; untested ones last."""
    rows = []
    for i, row in enumerate(run.summary["per_class"]):
        mistakes = [0 if i == j else count for j, count in enumerate(run.summary["confusion"][i])]
        rows.append({**row, "taken_for": run.config["classes"][int(np.argmax(mistakes))] if any(mistakes) else None})
    return sorted(rows, key=lambda row: (row["recall"] is None, row["recall"] or 0, row["f1"] or 0))


def _settings(run: RunFiles) -> dict[str, dict[str, Any]]:
    """What stands in the page's fold-out tables; of the results only what the page does not show elsewhere."""
    plain = {key: value for key, value in run.results.items() if isinstance(value, str | int | float)}
    evaluation = {key: value for key, value in plain.items() if key not in run.summary}
    data = {key: value for key, value in run.config["data"].items() if isinstance(value, str)}
    sections = {"Model": run.config["model"], "Clip": run.config["clip_spec"], "Training": run.config["train"]}
    return {**sections, "Data": data, "Evaluation": evaluation}


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
        "markdown": _markdown,
    }
    return environment.from_string(files("tubelet").joinpath(template).read_text("utf-8")).render(names)
