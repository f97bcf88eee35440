"""The next clips to label: chosen among the rows of a folder of vectors, written into the user's own table."""

import csv
import io
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.table import Table

from tubelet.data.duplicates import mark_content
from tubelet.data.items import Item
from tubelet.data.problems import DataProblems
from tubelet.data.table import TABLES, column_names, read_table
from tubelet.embed.coverage import Choice, choose
from tubelet.embed.embeddings import Embeddings, Hit
from tubelet.embed.folder import Row
from tubelet.embed.search import describe_span
from tubelet.media.address import absolute, join, name_from
from tubelet.system.console import console, say
from tubelet.system.files import write_whole
from tubelet.system.text import dumps, path_cell, plural
from tubelet.tasks import MultiLabel

HELD_OUT = ("val", "test")
WITHOUT_HARM = ("missing-file", "not-media", "layout")  # problems of a table: of files, and that it is empty


@dataclass(frozen=True)
class Suggestion:
    """A row to label, and why. `listed`: whether the table has it already."""

    row: Row
    why: str
    listed: bool = False

    @property
    def hit(self) -> Hit:
        return Hit(self.row.path, *self.row.span, 1.0)


@dataclass
class Known:
    """What a table says of the rows of a folder, by their numbers.

    labels, groups: those that there are. held_out: rows of val and test, and copies of these.
    waiting: rows suggested before that have no label yet. listed: rows without a label that the table has for their
    group's sake; they may be suggested.
    """

    labels: dict[int, str] = field(default_factory=dict)
    groups: dict[int, str] = field(default_factory=dict)
    waiting: set[int] = field(default_factory=set)
    listed: set[int] = field(default_factory=set)
    held_out: set[int] = field(default_factory=set)


def suggest(found: Embeddings, table: Path | None, *, count: int, seed: int = 0) -> tuple[list[Suggestion], Known]:
    """`count` rows to label next, and what the table says already.

    Never a row that the table holds out, nor one of a content that is held out, labelled, waiting or suggested.

    Raises ValueError for a faulty table, one of another data set, and where fewer rows are left.
    """
    known = read_known(found, table) if table else Known()
    rows = [number for number in range(len(found.rows)) if number not in known.held_out]
    contents = [content(found.rows[number]) for number in rows]
    told = {*known.labels, *known.waiting}
    taken = {one for one, number in zip(contents, rows, strict=True) if number in told}
    kept, free = [], []
    for one, number in zip(contents, rows, strict=True):
        if number in told or one not in taken:
            kept.append(number)
            free.append(number not in told)
            taken.add(one)
    if count > sum(free):
        waiting = f", and {plural(len(known.waiting), 'row')} suggested before that wait for one" * bool(known.waiting)
        raise ValueError(
            f"{found.folder}: {plural(sum(free), 'clip')} without a label and not held out{waiting}: expected at least "
            f"--count {count}; embed more, or ask for fewer"
        )
    labels = [known.labels.get(number, "") for number in kept]
    groups = [known.groups.get(number) or found.rows[number].mark for number in kept]
    chosen = choose(found.vectors[kept], labels, np.array(free), groups, count=count, seed=seed)
    return [
        Suggestion(found.rows[kept[one.row]], describe_reason(one), kept[one.row] in known.listed) for one in chosen
    ], known


def content(row: Row) -> tuple[str, float | None, float | None]:
    return row.mark, row.start_seconds, row.end_seconds


def describe_reason(one: Choice) -> str:
    if one.between:
        return f"between {one.between[0]} and {one.between[1]}"
    return f"typical of {plural(one.stands_for, 'clip')} without a label"


def read_known(found: Embeddings, table: Path) -> Known:
    """What a table says of the rows of a folder; nothing where it is not there yet.

    An item is of all rows of its file, or of that content, that share some of its time; one held out of all rows.

    Raises ValueError for a faulty table, and one that says nothing of the folder.
    """
    if table.suffix.lower() not in TABLES:
        raise ValueError(f"--labels {table}: expected a table, {', '.join(TABLES)}")
    if not os.path.exists(table):
        if not table.parent.is_dir():
            raise ValueError(f"--labels {table}: cannot be written: name a file in a folder that exists")
        return Known()
    root = table.parent.absolute()
    read = read_table(table, root=root, task=MultiLabel)
    if wrong := [problem for problem in read.problems if problem.kind not in WITHOUT_HARM]:
        raise DataProblems(str(table), wrong)
    items, known = [*read.items, *read.faulty], Known()
    numbers: dict[str, list[int]] = {}
    for number, row in enumerate(found.rows):
        for name in (row.path, row.mark):
            numbers.setdefault(name, []).append(number)
    marks = {row.path: row.mark for row in found.rows}
    for item in items:
        path = absolute(join(root, item.path))
        of_file = {*numbers.get(path, ()), *numbers.get(marks.get(path) or find_mark(path), ())}
        for number in of_file:
            add_item(known, item, number, found.rows[number], is_own=found.rows[number].path == path)
    if items and not (known.labels or known.waiting or known.listed or known.held_out):
        raise ValueError(
            f"--labels {table}: none of its {plural(len(items), 'row')} is in {found.folder}, whose first is "
            f"{found.rows[0].path}: name the table of that data set, or embed its files first"
        )
    known.waiting -= known.labels.keys()
    known.listed -= {*known.labels, *known.waiting}
    return known


def find_mark(path: str) -> str:
    """The mark of a file that has no vector; a path that no row has where it cannot be read."""
    return mark_content(path) or path


def add_item(known: Known, item: Item, number: int, row: Row, *, is_own: bool) -> None:
    if item.split in HELD_OUT:
        known.held_out.add(number)
    elif is_own and item.group:
        known.groups[number] = item.group
    if not shares_time(item, row):
        return
    if item.label:
        known.labels[number] = item.label
    elif item.group:
        known.listed |= {number} if is_own else set()
    else:
        known.waiting.add(number)


def shares_time(item: Item, row: Row) -> bool:
    start, end = row.span
    item_start, item_end = item.start_seconds or 0.0, item.end_seconds
    whole = item.start_seconds is None and item_end is None
    return whole or start == end or (item_start < end and (item_end is None or start < item_end))


def append_rows(table: Path, suggestions: Sequence[Suggestion]) -> int:
    """Adds the rows that a table does not list, with an empty label, whole or not at all; what it holds stays, to the
    byte. A table that is not there is begun. Returns how many were added.

    Raises ValueError for parts of files where the table has no columns start and end.
    """
    new = [one.row for one in suggestions if not one.listed]
    has_times = any(row.start_seconds is not None or row.end_seconds is not None for row in new)
    before = table.read_bytes().decode("utf-8", errors="surrogateescape") if table.exists() else ""
    names = column_names(table) if before else ["path", "label", *(("start", "end") if has_times else ())]
    if has_times and not {"start", "end"} <= {*names}:
        raise ValueError(f"--labels {table}: has no columns start and end, which parts of files need: add them")
    first = next((line for line in re.split(r"[\r\n]", before) if line.strip()), ",")
    ending = next(iter(re.findall(r"\r\n|\n|\r", before)), "\n")
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=max(",;\t", key=first.count), lineterminator=ending)
    if not before:
        writer.writerow(names)
    elif not before.endswith(("\n", "\r")):
        text.write(ending)
    for row in new:
        times = ["" if seconds is None else repr(seconds) for seconds in (row.start_seconds, row.end_seconds)]
        cells = {"path": path_cell(name_from(table.parent.absolute(), row.path)), "start": times[0], "end": times[1]}
        writer.writerow([cells.get(name, "") for name in names])
    if new:
        write_whole(Path(os.path.realpath(table)), before + text.getvalue())
    return len(new)


def print_suggestions(suggestions: Sequence[Suggestion], *, as_json: bool) -> None:
    """A table, or a JSON object a line: rank, file, seconds, why."""
    if as_json:
        for rank, one in enumerate(suggestions, 1):
            path, start, end, _ = one.hit
            about = {"rank": rank, "path": path, "start_seconds": start, "end_seconds": end, "why": one.why}
            print(dumps(about), flush=True)
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("", justify="right")
    table.add_column("file", overflow="fold")
    table.add_column("seconds", justify="right")
    table.add_column("why", style="bold")
    for rank, one in enumerate(suggestions, 1):
        table.add_row(str(rank), one.row.path, describe_span(one.hit), one.why)
    console.print(table)


def report(folder: Path, table: Path | None, known: Known, added: int) -> None:
    """Says what waits for a label, and what comes next."""
    if known.waiting:
        say("waiting", f"{plural(len(known.waiting), 'row')} suggested before, still without a label")
    if known.held_out:
        say("held out", f"{plural(len(known.held_out), 'row')} of val and test, left out")
    if table:
        say("table", f"{plural(added, 'row')} added to {table}")
        say("next", f"fill in the labels there, then once more: tubelet suggest {folder} --labels {table}")
