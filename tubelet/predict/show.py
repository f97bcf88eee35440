"""The screen of `tubelet predict`: a table, or JSON lines as they come."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from tubelet.predict.predictor import Prediction, Predictor
from tubelet.predict.tables import keep_rows, write_table
from tubelet.system.console import bar, console
from tubelet.system.text import dumps, visible


def show(
    predictor: Predictor,
    files: Sequence[str | Path],
    *,
    views: str,
    top: int,
    json: bool,
    csv: Path | None,
    workers: int,
) -> list[Prediction]:
    """Predicts files and prints a table, or JSON lines as they come, or writes a CSV file."""

    def say(prediction: Prediction) -> None:
        keep(prediction)
        if json:
            print(dumps(asdict(prediction)), flush=True)
        progress.advance(f"{progress.done + 1}/{progress.total} files")

    with keep_rows(predictor.task, csv) as keep:
        with bar("predicting", len(files), show=not json and len(files) > 1) as progress:
            predictions = predictor.predict_files(files, views=views, workers=workers, after=say)
        if csv:
            write_table(predictions, predictor.task, csv)
    if not (csv or json):
        print_table(predictions, top)
    if not json:
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
        "then": ("dim", [list_others(one, top) for one in predictions]),
        "looked at": ("yellow", [describe_seen(one.seconds_seen, one.seconds) for one in predictions]),
        "note": ("yellow", [one.note for one in predictions]),
    }
    shown = {name: column for name, column in further.items() if any(column[1])}
    for name, (style, _) in shown.items():
        table.add_column(name, style=style)
    for one, *words in zip(predictions, *(words for _, words in shown.values()), strict=True):
        sure = "" if one.probability is None else f"{100 * one.probability:.0f}%"
        cells = ["unreadable", ""] if one.label is None else [one.label, sure]
        cells = [f"none of these (nearest: {next(iter(one.probabilities))})", ""] if one.known is False else cells
        table.add_row(one.path, *cells, *words)
    console.print(table)


def list_others(one: Prediction, top: int) -> str:
    """The likeliest classes, `top` of them, but for the first where that is the label."""
    first = 0 if one.probability is None else 1
    return ", ".join(f"{name} {100 * p:.0f}%" for name, p in list(one.probabilities.items())[first:top])


def describe_seen(seconds_seen: float | None, seconds: float | None) -> str:
    """ "12.0 of 139.0 s": how much of an item was looked at; nothing where that was all, or is not known."""
    if seconds is None or seconds_seen is None or round(seconds_seen, 1) >= round(seconds, 1):
        return ""
    return f"{seconds_seen:.1f} of {seconds:.1f} s"
