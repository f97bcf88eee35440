"""The screen of `tubelet predict`: a table, or JSON lines as they come."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from tubelet.data.items import Item
from tubelet.predict.answer import Answer, answer_form, predict_item
from tubelet.predict.predictor import Prediction, Predictor
from tubelet.predict.tables import keep_rows, write_table
from tubelet.runs.share import Keep, Key, Share, Work, count_in_order
from tubelet.system.console import console
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
    share: Share,
) -> list[Prediction]:
    """Predicts files and prints a table, or JSON lines as they come, or writes a CSV file."""
    items = [Item(str(file), "") for file in files]
    predictions = list[Prediction]()

    def make(numbers: list[int], keep: Keep[Answer]) -> None:
        with count_in_order("predicting", "files", numbers, keep, show=not json and len(items) > 1) as count:
            mine = [items[number] for number in numbers]
            predictor.answer_items(mine, views=views, workers=workers, among=len(items), after=count)

    def say(one: Answer) -> None:
        predictions.append(predict_item(one, predictor.task, predictor.distance))
        keep_row(predictions[-1])
        if json:
            print(dumps(asdict(predictions[-1])), flush=True)

    with keep_rows(predictor.task, csv) as keep_row:
        keys: list[Key] = [(item.path, None, None) for item in items]
        share.make(Work(keys, make, answer_form(items), about=predictor.describe), after=say)
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
