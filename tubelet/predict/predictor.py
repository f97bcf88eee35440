"""From a run, or its model file alone, and files to labels."""

import csv
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from tubelet.data.clip_spec import ClipSpec
from tubelet.data.items import Item, Source, find_items
from tubelet.data.walk import walk
from tubelet.evaluate import Answer, answer, results_of, seen_words, write_predictions
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.predict.exported import Exported, is_exported
from tubelet.predict.precision import choose_dtype, prepared
from tubelet.runs.run import Run
from tubelet.system.console import bar, console, facts, say
from tubelet.system.device import find_device
from tubelet.system.text import plural
from tubelet.weights.store import open_model


@dataclass(frozen=True)
class Prediction:
    """The answer for one file: the label, its probability, and those of all classes, the likeliest first.

    Where the file could not be read, `status` says why, `code` what kind of fault it is, and the others are None and
    empty. `note`: of a file that ends early but could be read, that it does. `seconds`, `seconds_seen`: how long the
    file is and how much of it was looked at, None where it could not be read; 0 for an image.
    """

    path: str
    label: str | None
    probability: float | None
    probabilities: dict[str, float]
    status: str = "ok"
    code: str = "ok"
    note: str = ""
    seconds: float | None = None
    seconds_seen: float | None = None


class Predictor:
    """A trained model with all it needs to answer for a file: class names and ClipSpec come from the checkpoint.

    >>> Predictor.load("runs/clips").predict("clip.mp4").label
    """

    def __init__(
        self, model: SpaceTimeTransformer | Exported, spec: ClipSpec, classes: Sequence[str], *, device: str = "auto"
    ):
        self.device = find_device(device)
        self.answers, self.spec, self.classes = model.eval().to(self.device), spec, list(classes)
        self.run: Path | None = None
        self.precision = "float32"  # in words

    @classmethod
    def load(
        cls, run: str | os.PathLike[str], *, device: str = "auto", dtype: str = "float32", compile: bool = False
    ) -> "Predictor":
        """From a run directory, a model.safetensors file, or the folder of an exported model.

        dtype: "float32", "bfloat16", "float16" (on a GPU), or "auto": what the device is fast in. compile: at the
        first clips, have torch compile the model if that makes it faster on them.

        Raises:
            ValueError: no checkpoint there, or one without class names (weights that were not trained by tubelet), or
                a dtype that the device or the exported model does not have.
        """
        model: SpaceTimeTransformer | Exported
        if is_exported(run):
            if compile or device not in ("auto", "cpu"):
                raise ValueError(f"{run}: an exported model runs on the processor, as it is: leave device, compile out")
            model, device = Exported(run, dtype=dtype), "cpu"
            about, precision = model.about, model.precision
        else:
            file = open_model(run)
            about = file.about
            if "classes" not in about or "clip_spec" not in about:
                raise ValueError(f"{run}: weights without class names and ClipSpec: train them with `tubelet train`")
            chosen, precision = choose_dtype(dtype, find_device(device))
            model = prepared(file.load(), chosen, compile=compile)
        check_classes(about["classes"], run, model)
        found = cls(model, ClipSpec.from_json(about["clip_spec"]), about["classes"], device=device)
        found.run, found.precision = Path(str(about.get("run", run))), precision
        return found

    @property
    def model(self) -> SpaceTimeTransformer:
        """The model in torch.

        Raises:
            ValueError: it was exported.
        """
        if isinstance(self.answers, Exported):
            raise ValueError("an exported model only answers whole clips: give the run that it was made from")
        return self.answers

    def predict(self, path: str | os.PathLike[str], *, views: str = "auto") -> Prediction:
        """The answer for one file.

        views: temporal x spatial views, such as 4x3; "auto": as many clips as show all of the file, 32 at most.

        Raises:
            ValueError: the file cannot be read; says why.
        """
        prediction = self.predict_files([path], views=views)[0]
        if prediction.label is None:
            raise ValueError(prediction.status)
        return prediction

    def predict_files(
        self,
        paths: Iterable[str | os.PathLike[str]],
        *,
        views: str = "auto",
        workers: int = 2,
        after: Callable[[Prediction], None] = lambda prediction: None,
    ) -> list[Prediction]:
        """Answers for many files, in their order; one that cannot be read keeps its place and says why."""
        items = [Item(str(path), "") for path in paths]
        given: list[Prediction] = []

        def take(one: Answer) -> None:
            given.append(self.prediction(one))
            after(given[-1])

        answer(
            self.answers, self.spec, Path(), items, views_text=views, workers=workers, device=self.device, after=take
        )
        return given

    def prediction(self, one: Answer) -> Prediction:
        if one.probabilities is None:
            return Prediction(one.path, None, None, {}, one.status, one.code)
        chances = {self.classes[i]: float(one.probabilities[i]) for i in (-one.probabilities).argsort(kind="stable")}
        label, probability = next(iter(chances.items()))
        return Prediction(
            one.path, label, probability, chances, note=one.note, seconds=one.seconds, seconds_seen=one.seconds_seen
        )

    def evaluate(
        self,
        data: str | os.PathLike[str],
        *,
        views: str = "auto",
        split: str | None = None,
        csv_file: Path | None = None,
        workers: int = 2,
        show: bool = True,
    ) -> dict[str, Any]:
        """Metrics over labelled files, laid out as for training: over `split`, or, left out, over the test split, else
        val, else all, without the clips that the run was trained on. `failures` tells of each file that was not read.

        Raises:
            ValueError: labels that the model does not know, or no clips to evaluate.
        """
        source = find_items(Path(data), minimum_classes=1, minimum_clips=1)
        if strangers := sorted(set(source.classes) - set(self.classes)):
            raise ValueError(
                f"{data} has classes the model does not know: {', '.join(strangers)}; "
                f"it knows {', '.join(self.classes)}"
            )
        split, items = self.choose(source, split)
        if show and (left_out := sum(split in (None, item.split) for item in source.items) - len(items)):
            say(
                "note",
                f"{plural(left_out, 'clip')} left out: the run was trained on {'it' if left_out == 1 else 'them'}",
            )
        with bar("evaluating", len(items), show=show) as progress:
            answers = answer(
                self.answers,
                self.spec,
                source.root,
                items,
                views_text=views,
                workers=workers,
                device=self.device,
                after=lambda _: progress.advance(f"{progress.done + 1}/{progress.total} files"),
            )
        failures = [{"path": a.path, "code": a.code, "message": a.status} for a in answers if a.probabilities is None]
        results = {"split": split, "views": views, **results_of(answers, self.classes), "failures": failures}
        if csv_file:
            write_predictions(answers, self.classes, csv_file)
        if show:
            print_evaluation(results, answers, split)
        return results

    def choose(self, source: Source, split: str | None) -> tuple[str | None, list[Item]]:
        """The split to evaluate on and its items."""
        splits = {item.split for item in source.items}
        chosen = split or next((name for name in ("test", "val") if name in splits), None)
        items = [item for item in source.items if chosen in (None, item.split)]
        if not items:
            has = ", ".join(sorted(splits - {""})) or "no splits"
            raise ValueError(f"{source.root} has no split {chosen!r} but {has}")
        if split is None:
            known = trained_on(self.run) if self.run else set()
            items = [item for item in items if clip_of(source.root, item) not in known]
            if not items:
                raise ValueError(f"{source.root}: the run was trained on every one of these clips: give it others")
        return chosen, items


def check_classes(names: object, run: str | os.PathLike[str], model: SpaceTimeTransformer | Exported) -> None:
    """Raises ValueError unless there is a name for each output of a model, and no two are the same."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        raise ValueError(f"{run}: its class names are not a list of different texts: copy or train it again")
    if isinstance(model, SpaceTimeTransformer) and model.config.num_classes != len(names):
        raise ValueError(f"{run}: {len(names)} class names for {model.config.num_classes} outputs: copy it again")


Clip = tuple[str, float | None, float | None]  # file, start and end in seconds


def clip_of(root: Path, item: Item) -> Clip:
    return os.path.realpath(root / item.path), item.start_seconds, item.end_seconds


def trained_on(run: Path) -> set[Clip]:
    """The clips that the model of a run was trained on, where they still are; none where that is not known."""
    folder = run if run.is_dir() else run.parent
    if not ((folder / "split.csv").is_file() and (folder / "config.json").is_file()):
        return set()
    data = Run(folder).config["data"]
    if not (isinstance(data, dict) and isinstance(data.get("root"), str)):
        raise ValueError(f"{folder / 'config.json'}: damaged (it does not say where the data are): restore it")
    root = Path(data["root"])

    def seconds(text: str) -> float | None:
        return float(text) if text else None

    try:
        with open(folder / "split.csv", newline="", encoding="utf-8", errors="surrogateescape") as table:
            rows = [row for row in csv.DictReader(table) if row["split"] == "train"]
        return {clip_of(root, Item(r["path"], r["label"], seconds(r["start"]), seconds(r["end"]))) for r in rows}
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(
            f"{folder / 'split.csv'}: damaged ({error}): restore it, or it is not known what was trained on"
        ) from error


def print_evaluation(results: dict[str, Any], answers: Sequence[Answer], split: str | None) -> None:
    low, high = results["interval"]
    majority, clips = results["majority"], plural(results["clips"], "clip")
    rows = [
        ("accuracy", f"{100 * results['accuracy']:.1f}% of {clips} ({100 * low:.0f}-{100 * high:.0f}%)"),
        ("macro F1", f"{100 * results['macro']['f1']:.1f}%"),
        ("majority", f"{100 * majority['accuracy']:.1f}% by always saying {majority['label']}"),
    ]
    if results["failed"]:
        wrong = f"{100 * results['accuracy_all']:.1f}% if counted as wrong"
        rows.append(("unreadable", f"{plural(results['failed'], 'file')}; {wrong}"))
    if seen := seen_words(results["seconds_seen"], results["seconds"]):
        rows.append(("looked at", f"{seen} (--views {results['views']})"))
    facts(f"Evaluation{f' on {split}' if split else ''}", rows)
    table = Table("class", "clips", "recall", "precision", box=None, padding=(0, 2, 0, 0))
    for row in results["per_class"]:
        shares = ("-" if row[name] is None else f"{100 * row[name]:.0f}%" for name in ("recall", "precision"))
        table.add_row(row["label"], str(row["support"]), *shares)
    console.print(table)
    for one in answers:
        if one.probabilities is None:
            console.print(one.status, style="red", soft_wrap=True)
        elif one.note:
            console.print(f"{one.path}: {one.note}", style="yellow", soft_wrap=True)


def find_files(paths: Iterable[Path]) -> list[Path]:
    """The files named, and the media files in the folders named, sorted.

    Raises:
        ValueError: nothing named, a folder without media, or one that may not be looked into.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = walk(path)
            if inside.closed:
                raise ValueError(f"{path}/{inside.closed[0]}: you may not look into this folder: check the permissions")
            if not inside.files:
                raise ValueError(f"{path}: no video, image or sound files in this folder")
            files += [path / name for name in inside.files]
        else:
            files.append(path)
    if not files:
        raise ValueError("no files to predict: name at least one, as in `tubelet predict RUN clip.mp4`")
    return files
