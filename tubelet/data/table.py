"""Labelled clips, and the CSV tables that hold them. Every faulty line is found before any is reported."""

import csv
import io
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tubelet.data.labels import LABELS
from tubelet.data.problems import Problem
from tubelet.media.address import TAR, as_posix, is_remote, join, suffix
from tubelet.media.bytes import is_file
from tubelet.media.formats import MEDIA_SUFFIXES
from tubelet.system.files import write_whole
from tubelet.system.text import plural
from tubelet.tasks import Classification, Task

TABLES = (".csv", ".tsv", ".txt")
COLUMNS = ("path", "label", "start", "end", "split", "group")
SPLITS = {"": "", "train": "train", **dict.fromkeys(("val", "valid", "validation", "eval"), "val"), "test": "test"}


@dataclass(frozen=True)
class Item:
    """One labelled clip: a file, or [start_seconds, end_seconds) of it; None is the file's own start or end.

    path: posix, relative to the source's root where the file lies below it. label: the cell of the table as the task
    reads it, those of several columns joined by ";". split: "", "train", "val" or "test".
    group: clips of one group (one recording, one person) must not be split up; "" until `assign_splits` fills it.
    """

    path: str
    label: str
    start_seconds: float | None = None
    end_seconds: float | None = None
    split: str = ""
    group: str = ""

    @property
    def name(self) -> str:
        """The path, and the seconds of a part: "a.mp4#t=1.5,4" (the notation of W3C media fragments)."""
        if self.start_seconds is None and self.end_seconds is None:
            return self.path
        start, end = ("" if t is None else f"{t:g}" for t in (self.start_seconds, self.end_seconds))
        return f"{self.path}#t={start}" + (f",{end}" if end else "")


@dataclass
class Found:
    """The clips of a folder or a table, and its faults.

    faulty: clips that something is wrong with, as far as they can be told, and one without a path for an empty class
    folder; they count nevertheless, so that one fault is not reported as another. names: classes as they are written.
    """

    items: list[Item] = field(default_factory=list)
    faulty: list[Item] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def read_table(table: Path, *, root: Path, task: type[Task] = Classification, labels: Sequence[str] = LABELS) -> Found:
    """The items of a table, a note on the columns that were not read, and all its faults by their line numbers.

    task: reads the cells of the columns `labels`, joined by ";" where there are several. The first line names the
    columns: path, those and, as wanted, start, end (seconds, or h:m:s), split, group, in any order, with commas,
    semicolons or tabs between. Paths are relative to `root`. A byte order mark, CRLF and blank lines do no harm, nor
    does the Unicode form of file names. A faulty header ends the reading. A tar is a row without a label, which stands
    for the clips in it: `shards.open_tars` puts these in its place; a table of tars alone needs no column of labels.
    """
    found = Found()
    try:
        data = table.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        found.problems.append(Problem("unreadable", str(table), f"cannot be opened ({reason}); check its permissions"))
        return found
    if b"\0" in data:
        message = "not a text table in UTF-8; save it as 'CSV UTF-8'"
        found.problems.append(Problem("unreadable", str(table), message))
        return found
    # File names need not be UTF-8: their bytes pass through unchanged.
    (_, first), *lines = [*records(data.decode("utf-8-sig", errors="surrogateescape"))] or [(1, [])]
    header = [] if isinstance(first, str) else [cell.strip().lower() for cell in first]
    labels = () if lines and all(_is_of_tar(header, cells) for _, cells in lines) else labels
    faults = [f"the first line cannot be read: {first}"] if isinstance(first, str) else _header_faults(header, labels)
    found.problems += [Problem("header", str(table), message) for message in faults]
    if found.problems:
        return found
    for line, cells in lines:
        wrong, item = ([("broken-row", cells)], None) if isinstance(cells, str) else _row(header, cells, root, labels)
        if item and suffix(item.path) != TAR and (fault := task.find_fault(item.label, labels)):
            wrong.append(("label" if item.label else "empty-label", fault))
        found.problems += [Problem(kind, f"{table.name} line {line}", message) for kind, message in wrong]
        if item and not any(kind in ("label", "empty-label") for kind, _ in wrong):
            found.names |= {*task.classes_in(item.label)} - {""}
            (found.faulty if wrong else found.items).append(item)
    if not (found.items or found.faulty or found.problems):
        message = "no clips; expected a line for each below the header"
        found.problems.append(Problem("layout", str(table), message))
    unread = [name for name in header if name not in (*COLUMNS, *labels)]
    found.notes += [f"{table.name}: columns not read: {', '.join(map(repr, unread))}"] if unread else []
    return found


def write_table(table: Path, items: Iterable[Item], *, labels: Sequence[str] = LABELS) -> None:
    """Write what `read_table` reads back, of the same columns `labels`, to the same items."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    path, _, *others = COLUMNS
    writer.writerow([path, *labels, *others])
    for item in items:
        times = ["" if seconds is None else repr(seconds) for seconds in (item.start_seconds, item.end_seconds)]
        cells = item.label.split(";") if len(labels) > 1 else [item.label]
        writer.writerow([item.path, *cells, *times, item.split, item.group])
    write_whole(table, text.getvalue())


def from_anywhere(items: Iterable[Item], root: Path) -> list[Item]:
    """The items with absolute paths, for a table in another folder than `root`."""
    return [replace(item, path=as_posix(join(root, item.path))) for item in items]


def column_names(table: Path) -> list[str]:
    """The names in the first line of a table, in small letters; none where it cannot be read."""
    return next(rows(table), [])


def rows(table: Path) -> Iterator[list[str]]:
    """The names of the columns of a table, in small letters, then the cells of each line that can be read."""
    text = table.read_bytes().decode("utf-8-sig", errors="surrogateescape").replace("\0", "")
    readable = (cells for _, cells in records(text) if not isinstance(cells, str))
    yield [cell.strip().lower() for cell in next(readable, [])]
    yield from readable


def records(text: str) -> Iterator[tuple[int, list[str] | str]]:
    """The line that each record begins on, and its cells, or why they cannot be told apart. Blank ones are left out."""
    first = next((line for line in re.split(r"[\r\n]", text) if line.strip()), "")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as fault:
            yield line, f"{fault}; check the quotes from here on"
            continue
        if any(cell.strip() for cell in cells):
            yield line, cells


def _header_faults(header: list[str], labels: Sequence[str]) -> Iterator[str]:
    if not {"path", *labels} <= set(header):
        yield (
            f"the first line reads {','.join(header)!r}; expected a header that names at least path and "
            f"{' and '.join(labels)}, and of the others {','.join(COLUMNS)}, with commas, semicolons or tabs between"
        )
    twice = [name for name in dict.fromkeys((*COLUMNS, *labels)) if header.count(name) > 1]
    if twice:
        yield f"the header names {', '.join(map(repr, twice))} more than once; rename all but one"


def _is_of_tar(header: list[str], cells: list[str] | str) -> bool:
    return not isinstance(cells, str) and suffix(dict(zip(header, cells)).get("path", "")) == TAR


def _row(
    header: list[str], cells: list[str], root: Path, labels: Sequence[str]
) -> tuple[list[tuple[str, str]], Item | None]:
    """All faults of a line, each its kind and a message, and its item, as far as the faults let it be told."""
    if len(cells) < len(header) or any(cell.strip() for cell in cells[len(header) :]):
        return [("cells", f"{plural(len(cells), 'cell')}, the header has {len(header)}")], None
    values = dict.fromkeys(COLUMNS, "") | dict(zip(header, cells))
    item = Item(
        path=_on_disk(values["path"], root),
        label=";".join(values[name].strip() for name in labels),
        start_seconds=_seconds(values["start"]),
        end_seconds=_seconds(values["end"]),
        split=SPLITS.get(values["split"].strip().lower(), ""),
        group=values["group"].strip(),
    )
    return [*_path_faults(item.path, root), *_other_faults(values, item)], item


def _on_disk(path: str, root: Path) -> str:
    """The path in the Unicode form that the file has: tables and disks may differ in it."""
    if is_remote(path):
        return path
    forms = (path, *(unicodedata.normalize(form, path) for form in ("NFC", "NFD")))
    return next((form for form in forms if is_file(root / form)), path)


def _path_faults(path: str, root: Path) -> Iterator[tuple[str, str]]:
    if not path.strip():
        yield "empty-path", "the path is empty"
    elif not is_file(join(root, path)):
        yield "missing-file", f"no file {path!r} in {root}"
    elif suffix(path) not in (*MEDIA_SUFFIXES, TAR):
        yield "not-media", f"{path!r} is not a video, image or sound by its suffix"


def _other_faults(values: dict[str, str], item: Item) -> Iterator[tuple[str, str]]:
    for name, seconds in (("start", item.start_seconds), ("end", item.end_seconds)):
        if values[name].strip() and seconds is None:
            yield "times", f"{name} {values[name]!r}, expected seconds from 0 up, or h:m:s, such as 62.5 or 0:01:02.5"
    if item.end_seconds is not None and item.end_seconds <= (item.start_seconds or 0.0):
        yield "times", f"start {item.start_seconds or 0.0} is not before end {item.end_seconds}"
    if values["split"].strip().lower() not in SPLITS:
        known = ", ".join(name for name in SPLITS if name)
        yield "split", f"split {values['split']!r} is unknown; expected one of {known}"


def _seconds(text: str) -> float | None:
    """Seconds of "62.5", "1:02.5" or "0:01:02.5"; None for no text, and for a text that is no time."""
    clock = re.fullmatch(r"(?:(\d+):(?=\d\d?:))?(\d+):([0-5]?\d(?:\.\d*)?)", text.strip(), re.ASCII)
    if clock:
        hours, minutes, rest = (float(part or 0) for part in clock.groups())
        return None if clock[1] and minutes >= 60 else 3600 * hours + 60 * minutes + rest
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
