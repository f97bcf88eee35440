"""The files of a run directory that tell what the run is worth, read and checked against each other."""

import csv
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tubelet.system.text import path_of, text_of
from tubelet.tasks.classification import measure

# What one item of the data is called.
NOUNS = {"video": "clip", "image": "image", "sound": "recording"}
# Of predictions.csv; one for each class follows.
PREDICTION_COLUMNS = ("path", "label", "predicted", "probability", "status", "code")


@dataclass(frozen=True)
class Prediction:
    """One line of predictions.csv. A file that could not be read has its fault as status and no probabilities."""

    path: str
    label: str
    predicted: str
    probability: float
    status: str
    probabilities: np.ndarray  # (classes,)


@dataclass(frozen=True)
class RunFiles:
    """What config.json, metrics.jsonl, predictions.csv and results.json of a run directory hold.

    `metrics` is in the order of the epochs; `summary` is `tubelet.tasks.classification.measure` of the predictions.
    """

    path: Path
    config: dict[str, Any]
    metrics: list[dict[str, Any]]
    predictions: list[Prediction]
    results: dict[str, Any]
    summary: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.config["model_name"])

    @property
    def noun(self) -> str:
        return NOUNS[self.config["data"]["kind"]]

    @property
    def mistakes(self) -> list[Prediction]:
        """Wrong answers, the most confident first."""
        wrong = [p for p in self.predictions if p.status == "ok" and p.predicted != p.label]
        return sorted(wrong, key=lambda p: (-p.probability, p.path))

    @property
    def failed(self) -> list[Prediction]:
        return [p for p in self.predictions if p.status != "ok"]


def read_run_files(path: Path) -> RunFiles:
    """Raises ValueError, naming the file, where one is missing, damaged or does not fit the others."""
    config_keys = ("tubelet", "model_name", "model", "clip_spec", "classes", "train", "data", "plan")
    config = _read_json(path / "config.json", keys=config_keys)
    data = config["data"]
    if missing := {"kind", "root", "counts"} - set(data):
        raise _fault(path / "config.json", f"has no {', '.join(sorted(missing))} in data")
    if data["kind"] not in NOUNS:
        raise _fault(path / "config.json", f"says data.kind is {data['kind']!r}; expected one of {', '.join(NOUNS)}")
    results = _read_json(path / "results.json", keys=("split", "accuracy", "failed"))
    _check_kept(path / "results.json", results.get("kept"))
    predictions = _read_predictions(path / "predictions.csv", classes=config["classes"])
    # The metrics anew from each line, so that the numbers and the pictures of a page cannot disagree.
    summary = _measure(path / "predictions.csv", classes=config["classes"], predictions=predictions)
    if results["failed"] != summary["failed"] or abs(results["accuracy"] - summary["accuracy"]) > 1e-3:
        stated, found = (f"accuracy {r['accuracy']:.4f} and {r['failed']} failed files" for r in (results, summary))
        raise _fault(path / "results.json", f"states {stated}, but predictions.csv gives {found}")
    return RunFiles(path, config, _read_metrics(path / "metrics.jsonl"), predictions, results, summary)


def _fault(path: Path, what: str) -> ValueError:
    return ValueError(f"{path} {what}. `tubelet train` writes this file: run it again")


def _read_text(path: Path) -> str:
    try:
        # Surrogates keep the bytes of file names that are not UTF-8, so that such files can still be opened.
        return path.read_bytes().decode("utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise _fault(path, f"cannot be read ({error.strerror})") from error


def _read_json(path: Path, *, keys: tuple[str, ...]) -> dict[str, Any]:
    try:
        value = json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise _fault(path, f"is not valid JSON ({error})") from error
    missing = [key for key in keys if not isinstance(value, dict) or key not in value]
    if missing:
        raise _fault(path, f"has no {', '.join(missing)}")
    return value


def _check_kept(path: Path, kept: Any) -> None:
    """The weights that were kept; runs of old do not say."""
    if kept is None:
        return
    types = {"which": str, "step": int, "epoch": int | float, "accuracy": int | float | None}
    wrong = [key for key, kind in types.items() if not isinstance(kept, dict) or not isinstance(kept.get(key), kind)]
    if wrong or kept["which"] not in ("best", "last"):
        raise _fault(path, f"says kept is {kept!r}; expected which (best or last), step, epoch and accuracy")


def _read_metrics(path: Path) -> list[dict[str, Any]]:
    records = []
    for number, line in enumerate(_read_text(path).splitlines(), start=1):
        try:
            record = json.loads(line)
            records.append({**record, "kind": record["kind"], "epoch": float(record["epoch"])})
        except (ValueError, TypeError, KeyError) as error:
            raise _fault(path, f"line {number} is no record with kind and epoch: {line[:80]!r}") from error
    return sorted(records, key=lambda record: record["epoch"])


def _read_predictions(path: Path, *, classes: list[str]) -> list[Prediction]:
    header = [*PREDICTION_COLUMNS, *(f"p:{name}" for name in classes)]
    lines = csv.reader(io.StringIO(_read_text(path), newline=""))
    found = next(lines, [])
    if found != header:
        raise _fault(path, f"has the columns {','.join(found)[:200]!r}; expected {','.join(header)[:200]!r}")
    predictions = []
    for row in lines:
        try:
            predictions.append(_prediction(row, classes=classes))
        except ValueError as error:
            raise _fault(path, f"line {lines.line_num} ({error}) cannot be used: {','.join(row)[:120]!r}") from error
    return predictions


def _prediction(row: list[str], *, classes: list[str]) -> Prediction:
    if len(row) != len(PREDICTION_COLUMNS) + len(classes):
        raise ValueError(f"{len(row)} columns")
    path, probability, shares = path_of(row[0]), row[3], row[len(PREDICTION_COLUMNS) :]
    label, predicted, status = (text_of(row[column]) for column in (1, 2, 4))
    if unknown := {label, predicted if status == "ok" else label} - set(classes):
        raise ValueError(f"unknown class {unknown.pop()!r}")
    if status != "ok":
        return Prediction(path, label, predicted, math.nan, status, np.empty(0))
    numbers = np.array([probability, *shares], dtype=np.float64)
    if not ((numbers >= 0) & (numbers <= 1 + 1e-6)).all():  # a mean over views may round up
        raise ValueError("probability outside 0 to 1")
    return Prediction(path, label, predicted, float(numbers[0]), status, numbers[1:])


def _measure(path: Path, *, classes: list[str], predictions: list[Prediction]) -> dict[str, Any]:
    read = [p for p in predictions if p.status == "ok"]
    if not read:
        raise _fault(path, f"holds no file that could be read ({len(predictions)} failed)")
    index = {name: i for i, name in enumerate(classes)}
    labels = np.array([index[p.label] for p in read])
    predicted = np.array([index[p.predicted] for p in read])
    probabilities = np.array([p.probabilities for p in read])
    return measure(classes, labels, predicted, probabilities, failed=len(predictions) - len(read))
