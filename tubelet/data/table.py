"""Labelled clips, and the CSV tables that hold them. Every faulty line is found before any is reported."""

import csv
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tubelet.media.reader import IMAGE_SUFFIXES, SOUND_SUFFIXES, VIDEO_SUFFIXES

COLUMNS = ("path", "label", "start", "end", "split", "group")
SPLITS = {
    "": "",
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "eval": "val",
    "test": "test",
}
_SHOWN = 20


@dataclass(frozen=True)
class Item:
    """One labelled clip: a file, or [start_seconds, end_seconds) of it; None is the file's own start or end.

    path: posix, relative to the source's root where the file lies below it. split: "", "train", "val" or "test".
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


def read_table(table: Path, *, root: Path) -> tuple[list[Item], tuple[str, ...]]:
    """The items of a table, and a note on the columns that were not read.

    The first line names the columns: path, label and, as wanted, start, end (seconds), split, group, in any order,
    with commas, semicolons or tabs between. Paths are relative to `root`. A byte order mark, CRLF and blank lines do no
    harm.

    Raises: ValueError with the line numbers of all faults, the first 20 in full.
    """
    text = _text(table)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
    items: list[Item] = []
    problems: list[str] = []
    try:
        header = [cell.strip().lower() for cell in next(reader, [])]
        _check_header(table, header)
        for cells in reader:
            if any(cell.strip() for cell in cells):
                try:
                    items.append(_row(header, cells, root))
                except ValueError as fault:
                    problems.append(f"line {reader.line_num}: {fault}")
    except csv.Error as fault:
        problems.append(f"line {reader.line_num}: {fault}")
    if problems:
        more = f"; the first {_SHOWN}" if len(problems) > _SHOWN else ""
        raise ValueError("\n  ".join([f"{table}: {len(problems)} faulty lines{more}:", *problems[:_SHOWN]]))
    if not items:
        raise ValueError(f"{table}: no clips; expected a line for each below the header")
    unread = [name for name in header if name not in COLUMNS]
    return items, (f"{table.name}: columns not read: {', '.join(map(repr, unread))}",) if unread else ()


def write_table(table: Path, items: Iterable[Item]) -> None:
    """Write what `read_table` reads back to the same items."""
    with open(table, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for item in items:
            times = ["" if seconds is None else repr(seconds) for seconds in (item.start_seconds, item.end_seconds)]
            writer.writerow([item.path, item.label, *times, item.split, item.group])


def _text(table: Path) -> str:
    data = table.read_bytes()
    if b"\0" in data:
        raise ValueError(f"{table}: not a text table in UTF-8; save it as 'CSV UTF-8'")
    # File names need not be UTF-8: their bytes pass through unchanged.
    return data.decode("utf-8-sig", errors="surrogateescape")


def _delimiter(text: str) -> str:
    header = text.split("\n", 1)[0]
    return max(",;\t", key=header.count)


def _check_header(table: Path, header: list[str]) -> None:
    if "path" not in header or "label" not in header:
        raise ValueError(
            f"{table}: the first line reads {','.join(header)!r}; expected a header that names at least "
            f"path and label, and at most {','.join(COLUMNS)}, with commas, semicolons or tabs between"
        )
    twice = [name for name in COLUMNS if header.count(name) > 1]
    if twice:
        raise ValueError(f"{table}: the header names {', '.join(map(repr, twice))} more than once")


def _row(header: list[str], cells: list[str], root: Path) -> Item:
    if len(cells) < len(header) or any(cell.strip() for cell in cells[len(header) :]):
        raise ValueError(f"{len(cells)} cells, the header has {len(header)}")
    values = dict(zip(header, cells))
    item = Item(
        path=_path(values["path"], root),
        label=_label(values["label"]),
        start_seconds=_seconds("start", values.get("start", "")),
        end_seconds=_seconds("end", values.get("end", "")),
        split=_split(values.get("split", "")),
        group=values.get("group", "").strip(),
    )
    if item.end_seconds is not None and item.end_seconds <= (item.start_seconds or 0.0):
        raise ValueError(f"start {item.start_seconds or 0.0} is not before end {item.end_seconds}")
    return item


def _path(text: str, root: Path) -> str:
    if not text.strip():
        raise ValueError("the path is empty")
    if not (root / text).is_file():
        raise ValueError(f"no file {text!r} in {root}")
    if Path(text).suffix.lower() not in (*VIDEO_SUFFIXES, *IMAGE_SUFFIXES, *SOUND_SUFFIXES):
        raise ValueError(f"{text!r} is not a video, image or sound by its suffix")
    return text


def _label(text: str) -> str:
    label = text.strip()
    if not label:
        raise ValueError("the label is empty")
    return label


def _seconds(name: str, text: str) -> float | None:
    if not text.strip():
        return None
    try:
        seconds = float(text)
    except ValueError:
        raise ValueError(f"{name} {text!r} is not a number of seconds") from None
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError(f"{name} {text!r} is not a finite number of seconds from 0 up")
    return seconds


def _split(text: str) -> str:
    if text.strip().lower() not in SPLITS:
        raise ValueError(f"split {text!r} is unknown; expected one of {', '.join(name for name in SPLITS if name)}")
    return SPLITS[text.strip().lower()]
