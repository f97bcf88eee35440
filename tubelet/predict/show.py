"""What `tubelet predict` shows and writes: a table, JSON lines or a CSV file of the answers for files."""

import csv
import io
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from tubelet.evaluate import seen_words
from tubelet.predict.predictor import Prediction, Predictor
from tubelet.system.console import bar, console
from tubelet.system.files import write_whole
from tubelet.system.text import dumps, path_cell, text_cell, visible

COLUMNS = ("path", "predicted", "probability", "status", "code", "seconds", "seconds_seen")  # then one for each class


def check_table(file: Path | None) -> None:
    """Raises ValueError, before the work is done, where a table could not be written after it, or would replace
    something else: `--csv *.mp4` names a video."""
    if file is None:
        return
    if (file.exists() and not file.is_file()) or not file.parent.is_dir():  # nor a device: a file would replace it
        raise ValueError(f"{file}: cannot be written: name a file in a folder that exists")
    if file.is_file() and file.stat().st_size:
        with open(file, "rb") as handle:
            if not re.match(rb"path,(label,)?predicted,", handle.read(30)):
                raise ValueError(f"{file}: is there, and no table of predictions: name another file for --csv")


def show(
    predictor: Predictor,
    files: Sequence[Path],
    *,
    views: str,
    top: int,
    json_lines: bool,
    csv_file: Path | None,
    workers: int,
) -> list[Prediction]:
    """Predicts files and prints a table, or JSON lines as they come, or writes a CSV file."""

    def say(prediction: Prediction) -> None:
        if json_lines:
            print(dumps(asdict(prediction)), flush=True)
        progress.advance(f"{progress.done + 1}/{progress.total} files")

    with bar("predicting", len(files), show=not json_lines and len(files) > 1) as progress:
        predictions = predictor.predict_files(files, views=views, workers=workers, after=say)
    if csv_file:
        write_table(predictions, predictor.classes, csv_file)
    elif not json_lines:
        print_table(predictions, top)
    if not json_lines:
        for one in predictions:
            if one.label is None:
                print(f"tubelet: {visible(one.status)}", file=sys.stderr)
    return predictions


def print_table(predictions: Sequence[Prediction], top: int) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("file", overflow="fold")
    table.add_column("label", style="bold")
    table.add_column("", justify="right")
    further = {
        "then": ("dim", [others(one, top) for one in predictions]),
        "looked at": ("yellow", [seen_words(one.seconds_seen, one.seconds) for one in predictions]),
        "note": ("yellow", [one.note for one in predictions]),
    }
    shown = {name: column for name, column in further.items() if any(column[1])}
    for name, (style, _) in shown.items():
        table.add_column(name, style=style)
    for one, *words in zip(predictions, *(words for _, words in shown.values()), strict=True):
        cells = ["unreadable", ""] if one.probability is None else [one.label or "", f"{100 * one.probability:.0f}%"]
        table.add_row(one.path, *cells, *words)
    console.print(table)


def others(one: Prediction, top: int) -> str:
    """The likeliest classes but the first, `top` in all."""
    return ", ".join(f"{name} {100 * p:.0f}%" for name, p in list(one.probabilities.items())[1:top])


def write_table(predictions: Sequence[Prediction], classes: Sequence[str], file: Path) -> None:
    """A CSV table: path, predicted, probability, status, code, seconds, seconds_seen, then one column for each class.
    Cells that a spreadsheet would compute are marked, see `tubelet.system.text`."""
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow([*COLUMNS, *(f"p:{name}" for name in classes)])
    for one in predictions:
        probability = "" if one.probability is None else f"{one.probability:.6f}"
        chances = [f"{one.probabilities[name]:.6f}" if one.probabilities else "" for name in classes]
        names = path_cell(one.path), text_cell(one.label or "")
        seconds = ["" if value is None else f"{value:.3f}" for value in (one.seconds, one.seconds_seen)]
        table.writerow([*names, probability, text_cell(one.status), one.code, *seconds, *chances])
    write_whole(file, text.getvalue())
