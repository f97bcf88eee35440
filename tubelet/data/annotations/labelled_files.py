"""The rows of our tables, file by file, as other programs want them: labels of people, and answers of a model.

Tables: of labels; predictions.csv of a run and of `tubelet eval` and `predict` (path, predicted, probability, ...); of
segments that were found (path, start, end, label, score); what `tubelet stream` writes, which names no file
(start_seconds, end_seconds, label, probability).
"""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tubelet.data.annotations.labels import number
from tubelet.data.problems import Problem
from tubelet.data.table import column_names, read_table, records
from tubelet.media.formats import IMAGE_SUFFIXES, SOUND_SUFFIXES
from tubelet.media.reader import Index, MediaError, index
from tubelet.system.text import plural, read_path_cell, read_text_cell

STREAM = ("start_seconds", "end_seconds", "label", "probability")
FOUND = ("path", "start", "end", "label", "score")
_PART = re.compile(r"(.+)#t=([\d.e+-]*)(?:,([\d.e+-]+))?", re.DOTALL)


@dataclass(frozen=True)
class Row:
    """A line of a table: a label of a file, or of [start_seconds, end_seconds) of it; None and None: all of it.

    where: its place, for messages. path: as the table has it. score: of an answer, 0 to 1, where there is one.
    """

    where: str
    path: str
    label: str
    start_seconds: float | None = None
    end_seconds: float | None = None
    split: str = ""
    group: str = ""
    is_answer: bool = False
    score: float | None = None

    @property
    def is_part(self) -> bool:
        return self.start_seconds is not None or self.end_seconds is not None


@dataclass(frozen=True)
class Label:
    """A label of a file, or of a part of it.

    is_answer: a model gave it, with a score from 0 to 1 where there is one. frames: the first and the last of a part of
    a video, counted from 1. seconds: start and end of a part of a sound.
    """

    name: str
    is_answer: bool = False
    score: float | None = None
    frames: tuple[int, int] | None = None
    seconds: tuple[float, float] | None = None


@dataclass
class LabelledFile:
    """A file and its labels: of all of it, one for each class, and of its parts.

    path: absolute. kind: "video", "image" or "sound". frames, frame_rate (1/s), seconds, width, height (px): of what
    was opened, 0 of other files.
    """

    where: str
    path: Path
    kind: str
    split: str = ""
    group: str = ""
    frames: int = 0
    frame_rate: float = 0.0
    seconds: float = 0.0
    width: int = 0
    height: int = 0
    whole: list[Label] = field(default_factory=list)
    parts: list[Label] = field(default_factory=list)


@dataclass
class LabelledFiles:
    """The files of a table, what was decided or left out, and all that is wrong."""

    files: list[LabelledFile] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def fault(self, kind: str, where: str, message: str) -> None:
        self.problems.append(Problem(kind, where, message))


def list_classes(files: Sequence[LabelledFile]) -> tuple[list[str], list[str]]:
    """The labels of whole files, and those of parts, in the order of the alphabet."""
    whole = {label.name for file in files for label in file.whole}
    return sorted(whole), sorted({label.name for file in files for label in file.parts})


def split_answers(labels: Sequence[Label]) -> tuple[list[Label], list[Label]]:
    """Labels of people, and answers of a model."""
    return [label for label in labels if not label.is_answer], [label for label in labels if label.is_answer]


def read_labelled_files(table: Path, *, videos: Path | None = None) -> LabelledFiles:
    """The files of a table with their labels; files are opened where a row is a part of one.

    videos: folder that the paths of the table start from, its own if None; of a table of `tubelet stream`, the video.

    Raises: ValueError: a table that does not say of which file it is, or `videos` is none.
    """
    if not table.is_file():
        raise ValueError(f"{table}: no file; name a table of labels, or of answers")
    labelled, of_file = LabelledFiles(), defaultdict[str, list[Row]](list)
    root = (videos if videos and videos.is_dir() else table.parent).absolute()
    for row in _read_rows(table, root, videos, labelled):
        of_file[os.path.normpath(root / row.path)].append(row)
    opens = any(row.is_part for rows in of_file.values() for row in rows)
    uneven = 0
    for path, rows in of_file.items():
        _check_alike(rows, labelled)
        try:
            found = index(path) if opens else None
        except MediaError as error:
            labelled.fault("unreadable", f"{rows[0].where} ({plural(len(rows), 'row')})", str(error))
            continue
        labelled.files.append(_label_file(path, rows, found, labelled))
        uneven += found is not None and _is_uneven(found)
    kinds = Counter(file.kind for file in labelled.files)
    if len(kinds) > 1:
        counts = " and ".join(plural(count, kind) for kind, count in kinds.items())
        labelled.fault("mixed-kinds", str(table), f"holds {counts}; give a table of each kind")
    if uneven:
        labelled.notes.append(f"{plural(uneven, 'video')} of variable frame rate, which players count frames of evenly")
    return labelled


# ---- tables


def _read_rows(table: Path, root: Path, videos: Path | None, labelled: LabelledFiles) -> Iterator[Row]:
    names = {*column_names(table)}
    of_stream = {*STREAM} <= names and "path" not in names
    if of_stream and not (videos and videos.is_file()):
        raise ValueError(f"{table}: does not say of which video it is: add --videos VIDEO")
    if videos and not of_stream and not videos.is_dir():
        raise ValueError(f"--videos {videos}: no folder; name the one that the paths of {table.name} start from")
    if of_stream and videos:
        yield from _read_stream(table, videos.absolute().as_posix(), labelled)
    elif {*FOUND} <= names:
        yield from _read_found(table, root, labelled)
    elif "predicted" in names:
        yield from _read_predictions(table, root, labelled)
    else:
        yield from _read_labels(table, root, labelled)


def _read_labels(table: Path, root: Path, labelled: LabelledFiles) -> list[Row]:
    found = read_table(table, root=root)
    labelled.problems += found.problems
    labelled.notes += found.notes
    return [
        Row(f"{table.name} {one.name}", one.path, one.label, one.start_seconds, one.end_seconds, one.split, one.group)
        for one in found.items
    ]


def _read_predictions(table: Path, root: Path, labelled: LabelledFiles) -> Iterator[Row]:
    """Answers for files, after a label for each where there is one."""
    for where, cells in _lines(table, {"path", "predicted"}, labelled):
        path, start, end = _find(read_path_cell(cells["path"]), root)
        if not (root / path).is_file():
            labelled.fault(
                "missing-file", where, f"no file {path!r} in {root}; say --videos DIR, where the paths start"
            )
            continue
        if label := read_text_cell(cells.get("label", "")):
            yield Row(where, path, label, start, end)
        predicted = read_text_cell(cells["predicted"])
        if not predicted:
            labelled.left_out["files without an answer"] += 1
        elif cells.get("known") == "no":
            labelled.left_out["answers that none of the classes is it"] += 1
        else:
            for name in _names(predicted):  # of several at once, each has its own probability
                score = number(cells.get("probability") or cells.get(f"p:{name}"))
                yield Row(where, path, name, start, end, is_answer=True, score=score)


def _read_found(table: Path, root: Path, labelled: LabelledFiles) -> Iterator[Row]:
    for where, cells in _lines(table, {*FOUND}, labelled):
        path = read_path_cell(cells["path"])
        if not (root / path).is_file():
            labelled.fault(
                "missing-file", where, f"no file {path!r} in {root}; say --videos DIR, where the paths start"
            )
            continue
        yield from _segment(where, path, cells["label"], (cells["start"], cells["end"]), cells["score"], labelled)


def _read_stream(table: Path, path: str, labelled: LabelledFiles) -> Iterator[Row]:
    start, end, label, score = STREAM
    for where, cells in _lines(table, {*STREAM}, labelled):
        yield from _segment(where, path, cells[label], (cells[start], cells[end]), cells[score], labelled)


def _segment(
    where: str, path: str, label: str, times: tuple[str, str], score: str, labelled: LabelledFiles
) -> Iterator[Row]:
    start, end = map(number, times)
    if start is None or end is None or not 0 <= start < end:
        labelled.fault("times", where, f"from {times[0]!r} to {times[1]!r}; expected two times from 0 up")
    elif not label:
        labelled.fault("empty-label", where, "a segment without a label")
    else:
        yield Row(where, path, read_text_cell(label), start, end, is_answer=True, score=number(score))


def _lines(table: Path, needed: set[str], labelled: LabelledFiles) -> Iterator[tuple[str, dict[str, str]]]:
    """Place and cells of each line of a table of answers."""
    text = table.read_bytes().decode("utf-8-sig", errors="surrogateescape")
    columns: list[str] = []
    for line, cells in records(text):
        where = f"{table.name} line {line}"
        if isinstance(cells, str):
            labelled.fault("broken-row", where, cells)
        elif not columns:
            columns = cells
            if missing := sorted(needed - {*columns}):
                labelled.fault("header", str(table), f"names no {', '.join(missing)}")
                return
        elif len(cells) < len(columns):
            labelled.fault("cells", where, f"{plural(len(cells), 'cell')}, the header has {len(columns)}")
        else:
            yield where, dict(zip(columns, cells))


def _find(path: str, root: Path) -> tuple[str, float | None, float | None]:
    """ "a.mp4#t=1.5,4" -> "a.mp4", 1.5, 4.0, unless a file has that very name."""
    part = None if (root / path).is_file() else _PART.fullmatch(path)
    return (part[1], number(part[2]), number(part[3])) if part else (path, None, None)


def _names(label: str) -> list[str]:
    """ "a;b" -> ["a", "b"]; what does not read so is one name."""
    names = [name.strip() for name in label.split(";")]
    return names if all(names) else [label]


# ---- files


def _check_alike(rows: Sequence[Row], labelled: LabelledFiles) -> None:
    """Rows of one file that say different things of all of it are faults."""
    first = rows[0]
    for row in rows[1:]:
        if (row.split, row.group) != (first.split, first.group) and not row.is_answer:
            said = [f"{one.split or 'none'}, {one.group or 'none'}" for one in (first, row)]
            labelled.fault(
                "split", row.where, f"split and group {said[1]}, and {said[0]} before; a file has one of each"
            )
    whole = [row for row in rows if not (row.is_part or row.is_answer)]
    for row in whole[1:]:
        labelled.fault("two-labels", row.where, f"labelled {row.label!r}, and {whole[0].label!r} before; leave one")


def _label_file(path: str, rows: Sequence[Row], found: Index | None, labelled: LabelledFiles) -> LabelledFile:
    """A file with the labels of its rows; found: what is in it, where it was opened."""
    suffix = Path(path).suffix.lower()
    kind = "sound" if suffix in SOUND_SUFFIXES else "image" if suffix in IMAGE_SUFFIXES else "video"
    file = LabelledFile(rows[0].where, Path(path), kind, rows[0].split, rows[0].group)
    if found:
        file.kind = kind = found.kind
        file.seconds, file.width, file.height = found.duration_seconds, found.width, found.height
    if found and found.kind == "video":
        file.frames, file.frame_rate = len(found.times), _frame_rate(found)
    for row in rows:
        try:
            (file.parts if row.is_part else file.whole).extend(_row_labels(row, kind, found))
        except ValueError as error:
            labelled.fault("times", row.where, str(error))
    return file


def _frame_rate(found: Index) -> float:
    """Frames a second on the average."""
    count, since_first = len(found.times), float(found.times[-1] - found.times[0])
    rate = (count - 1) / since_first if since_first else count / (found.duration_seconds or 1.0)
    return round(rate, 6)


def _is_uneven(found: Index) -> bool:
    """Whether a frame of a video is more than half of one away from where an even rate would have it."""
    count = len(found.times)
    if found.kind != "video" or count < 2:
        return False
    even = np.linspace(found.times[0], found.times[-1], count)
    return bool(np.abs(found.times - even).max() > 0.5 * even[-1] / (count - 1))


def _row_labels(row: Row, kind: str, found: Index | None) -> Iterator[Label]:
    """The labels of a row. Raises: ValueError for times that the file does not have."""
    if not row.is_part or not found:
        for name in _names(row.label):
            yield Label(name, row.is_answer, row.score)
        return
    start, end = row.start_seconds or 0.0, found.duration_seconds if row.end_seconds is None else row.end_seconds
    if kind == "image":
        raise ValueError("a part of an image, which has no times")
    if start >= found.duration_seconds:
        raise ValueError(f"starts at {start:g} s, and the file ends at {found.duration_seconds:g} s")
    if kind == "sound":
        yield Label(row.label, row.is_answer, row.score, seconds=(start, end))
        return
    borders = np.append(found.times, found.duration_seconds)
    first = int(np.abs(borders[:-1] - start).argmin())  # the nearest: tables have times of three decimals
    after = max(first + 1, int(np.abs(borders - end).argmin()))
    yield Label(row.label, row.is_answer, row.score, frames=(first + 1, after))
