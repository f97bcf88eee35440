"""From files to a folder of vectors, which goes on where it was stopped."""

import math
import os
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from tubelet.data.duplicates import mark_content
from tubelet.data.items import Item
from tubelet.data.prefetch import prefetch
from tubelet.data.problems import DataProblems
from tubelet.data.shards import open_tars
from tubelet.data.table import TABLES, read_table
from tubelet.data.walk import list_media
from tubelet.embed.embedder import Embedder
from tubelet.embed.folder import (
    FILE,
    MAY_CHANGE,
    PARQUET,
    Row,
    Vectors,
    check_folder,
    merge,
    next_part,
    place,
    read_folder,
    read_vectors,
    write_folder,
    write_vectors,
)
from tubelet.embed.parquet import import_parquet, write_parquet
from tubelet.media.address import absolute, join
from tubelet.media.reader import MediaError
from tubelet.media.sampling import UNSEEN
from tubelet.predict.predictor import check_first
from tubelet.runs.lock import hold
from tubelet.runs.run import remove_leftovers
from tubelet.runs.share import ALONE, Form, Keep, Key, Share, Work, pack_array, unpack_array
from tubelet.system.console import bar, say
from tubelet.system.exits import Stopped
from tubelet.system.signals import signals
from tubelet.system.text import plural, visible
from tubelet.tasks import MultiLabel

SAVE_SECONDS = 15.0  # a crash loses no more than that
MOST_ROWS = 4096  # of a part
OF_FILES = ("missing-file", "not-media")  # problems of a table that become rows with a code


class Made(NamedTuple):
    """A row, its vector (D,), None where the file could not be read, and whether it is the last of its item."""

    row: Row
    vector: np.ndarray | None
    last: bool


def embed(
    run: str | os.PathLike[str],
    data: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    views: str = "auto",
    windows: float | None = None,
    parquet: bool = False,
    device: str = "auto",
    dtype: str = "float32",
    workers: int = 2,
    show: bool = True,
    share: Share = ALONE,
) -> Vectors:
    """Writes the vector of each file, or of each window of it, into the folder `out`; returns all that it then holds.

    The same call goes on where one was stopped, embeds files that are new, or changed, or could not be read, and adds
    them to what is there. A vector depends on its file and the model alone, to the bit on one machine.

    run: a run directory, a model.safetensors, or weights without a head. data: folders, tables (rows with start and
    end are items) and files. windows: the seconds of a window; one vector for each instead of one for an item.
    parquet: also write index.parquet. share: who embeds.

    Raises:
        ValueError: no such model or files, a folder that holds something else, or vectors made otherwise.
        Stopped: on a signal, with everything saved.
    """
    folder = Path(out)
    if parquet:
        import_parquet()
    embedder = Embedder.load(run, views=views, device=device, dtype=dtype)
    check_windows(windows, embedder.spec.kind)
    items = list_items([join("", path) for path in data])
    settings = {**embedder.describe(), "windows": None if windows is None else float(windows)}

    def make(numbers: list[int], keep: Keep[list[Made]]) -> None:
        mine = [items[number] for number in numbers]
        marks = find_marks(mine, workers=workers, show=show)
        making = embed_items(embedder, mine, windows=windows, marks=marks, known=set(), workers=workers)
        left, rows = iter(numbers), list[Made]()
        with closing(making) as made, bar("embedding", len(mine), show=show) as progress:
            for one in made:
                rows.append(one)
                if one.last:
                    keep(next(left), rows)
                    rows = []
                    progress.advance(f"{progress.done + 1}/{progress.total} files left {progress.left}")

    about = {name: value for name, value in settings.items() if name not in MAY_CHANGE}
    elsewhere: list[list[Made]] | None = None
    if share is not ALONE:  # what one process alone makes is kept in the folder itself
        form = Form(pack_made, lambda number, packed: unpack_made(packed))
        elsewhere = share.make(Work([key_of(item) for item in items], make, form, about=lambda: about))
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with hold(folder):
        remove_leftovers(folder)
        old = read_folder(folder, settings)
        marks = find_marks(items if elsewhere is None else [], workers=workers, show=show)
        marks |= {one.row.path: one.row.mark for some in elsewhere or [] for one in some}

        def holds(row: Row) -> bool:
            """Failed rows are made anew, and those of content that has changed."""
            return row.mark == marks.get(row.path, row.mark) and (row.code == "ok" or row.path not in marks)

        known = {row.key for one in old for row in one.rows if holds(row)}
        paths = {path for path, _, _ in known}
        if elsewhere is None:
            todo = [item for item in items if not is_known(embedder, item, windows, known, paths)]
            if show and len(todo) < len(items):
                say("known", f"{len(items) - len(todo)} of {plural(len(items), 'item')}")
            reading = embed_items(embedder, todo, windows=windows, marks=marks, known=known, workers=workers)
            with closing(reading) as made:
                new = write_parts(made, len(todo), folder, settings, show=show)
        else:
            new = [gather(settings, [one for some in elsewhere for one in some])]
        if new or len(old) != 1 or not all(map(holds, old[0].rows)) or not (folder / FILE).is_file():
            write_folder(folder, merge(old, new, settings, keep=holds))
        found = read_vectors(folder / FILE)
        if parquet:
            write_parquet(folder / PARQUET, found)
    if show:
        report(folder, found, asked={item.path for item in items})
    return found


def pack_made(some: list[Made]) -> list[Any]:
    return [[asdict(one.row), None if one.vector is None else pack_array(one.vector)] for one in some]


def unpack_made(packed: list[Any]) -> list[Made]:
    return [Made(Row(**row), None if vector is None else unpack_array(vector), True) for row, vector in packed]


def gather(settings: dict[str, Any], made: Sequence[Made]) -> Vectors:
    vectors = [one.vector for one in made if one.vector is not None]
    stacked = np.stack(vectors) if vectors else np.empty((0, settings["width"]), np.float32)
    return Vectors(settings, [one.row for one in made], stacked)


def check_windows(windows: float | None, kind: str) -> None:
    """Raises ValueError for windows that files of a kind cannot be cut into."""
    if windows is not None and kind == "image":
        raise ValueError(f"--windows {windows:g}: the model takes images, which last no time: leave it out")
    if windows is not None and not (math.isfinite(windows) and windows > 0):
        raise ValueError(f"--windows {windows:g}: expected seconds, more than 0")


def list_items(data: Sequence[str | Path]) -> list[Item]:
    """The files named, those in the folders named, and the rows of the tables named, each once, by absolute path.

    Raises: ValueError where there is nothing, or a table cannot be read.
    """
    found: dict[Key, Item] = {}
    for path in data:
        is_table = isinstance(path, Path) and path.suffix.lower() in TABLES and path.is_file()
        for item in read_items(Path(path)) if is_table else walk_items(path):
            found.setdefault(key_of(item), item)
    return sorted(found.values(), key=lambda item: place(row_of(item, "")))


def walk_items(data: str | Path) -> Iterator[Item]:
    listing = list_media(data)
    if listing.closed:
        raise ValueError(f"{data}/{listing.closed[0]}: you may not look into this folder: check the permissions")
    yield from (Item(absolute(join(listing.root, name)), "") for name in listing.files)


def read_items(table: Path) -> Iterator[Item]:
    """The rows of a table, whatever their labels; files that are not there are rows that fail."""
    root = table.parent.absolute()
    found = open_tars(read_table(table, root=root, task=MultiLabel, labels=()), root, MultiLabel, ())
    if wrong := [problem for problem in found.problems if problem.kind not in OF_FILES]:
        raise DataProblems(str(table), wrong)
    for item in (*found.items, *found.faulty):
        yield Item(absolute(join(root, item.path)), "", item.start_seconds, item.end_seconds)


def key_of(item: Item) -> Key:
    return item.path, item.start_seconds, item.end_seconds


def row_of(item: Item, mark: str, **found: Any) -> Row:
    return Row(item.path, item.start_seconds, item.end_seconds, mark, **found)


def find_marks(items: Sequence[Item], *, workers: int, show: bool) -> dict[str, str]:
    """The mark of the content of each file, "" where there is none, by path."""
    paths = list(dict.fromkeys(item.path for item in items))

    marks = {}
    with (
        closing(prefetch(mark_content, paths, threads=workers, ahead=4 * workers)) as found,
        bar("looking at files", len(paths), show=show) as progress,
    ):
        for path, mark in zip(paths, found, strict=True):
            marks[path] = mark
            progress.advance(f"{progress.done + 1}/{progress.total} files left {progress.left}")
    return marks


def cut(embedder: Embedder, item: Item, windows: float | None) -> list[Item]:
    """The windows of an item, one after another, or the item where it is no longer than one.

        |=========================|       an item
        |-------|-------|---------|       the last ends with it, and takes in less than a quarter of another

    Raises: MediaError where the file cannot be read.
    """
    if windows is None:
        return [item]
    start, end = embedder.find_range(item)
    count = math.ceil((end - start) / windows - UNSEEN)
    if count <= 1:
        return [item]
    edges = [*(start + number * windows for number in range(count)), end]
    return [replace(item, start_seconds=one, end_seconds=other) for one, other in pairwise(edges)]


def is_known(embedder: Embedder, item: Item, windows: float | None, known: set[Key], paths: set[str]) -> bool:
    """Whether there is a row for each window of an item. paths: those of the known rows."""
    if windows is None or item.path not in paths:
        return key_of(item) in known
    try:
        return all(key_of(piece) in known for piece in cut(embedder, item, windows))
    except MediaError:
        return False


def embed_items(
    embedder: Embedder,
    items: Sequence[Item],
    *,
    windows: float | None,
    marks: dict[str, str],
    known: set[Key],
    workers: int,
) -> Generator[Made, None, None]:
    """The row and the vector of each window that is not known, in order; files are read ahead by threads."""

    def list_work() -> Iterator[tuple[Item, bool]]:
        for item in ready:
            try:
                pieces = cut(embedder, item, windows)
            except MediaError:
                pieces = [item]  # which fails once more where it is read
            left = [piece for piece in pieces if key_of(piece) not in known]
            yield from ((piece, piece is left[-1]) for piece in left)

    def read(work: tuple[Item, bool]) -> tuple[Row, Tensor | None, bool]:
        item, last = work
        mark = marks[item.path]
        try:
            found = embedder.load_views(item)
        except MediaError as error:
            return row_of(item, mark, code=error.code, message=str(error)), None, last
        return row_of(item, mark, seconds=found.seconds), found.clips, last

    with (
        closing(check_first(items, workers=workers)) as ready,
        closing(prefetch(read, list_work(), threads=workers, ahead=2 * workers)) as made,
    ):
        for row, clips, last in made:
            yield Made(row, None if clips is None else embedder.embed(clips), last)


def write_parts(
    made: Iterator[Made], items: int, folder: Path, settings: dict[str, Any], *, show: bool
) -> list[Vectors]:
    """Writes what is made into parts, one every few seconds, with a bar over so many items; returns the parts.

    Raises: Stopped on a signal, when all that was made is written.
    """
    part, parts = Part(folder, settings), list[Path]()
    begun = time.monotonic()
    with signals(show=show) as caught, bar("embedding", items, show=show) as progress:
        for one in made:
            part.add(one)
            done = progress.done + one.last
            rate = done / (time.monotonic() - begun)
            progress.advance(f"{done}/{items} files {rate:.1f} a second left {progress.left}", by=int(one.last))
            if caught or part.is_due:
                parts += part.write()
            if caught:
                raise Stopped(folder, caught[0])
        return [read_vectors(file) for file in parts + part.write()]


class Part:
    """Rows and vectors since the last part."""

    def __init__(self, folder: Path, settings: dict[str, Any]):
        self.folder, self.settings = folder, settings
        self.made: list[Made] = []
        self.saved = time.monotonic()

    def add(self, made: Made) -> None:
        self.made.append(made)

    @property
    def is_due(self) -> bool:
        return time.monotonic() - self.saved > SAVE_SECONDS or len(self.made) >= MOST_ROWS

    def write(self) -> list[Path]:
        """The file that was written, if there was anything to write."""
        if not self.made:
            return []
        file = next_part(self.folder)
        write_vectors(file, gather(self.settings, self.made))
        self.made, self.saved = [], time.monotonic()
        return [file]


def report(folder: Path, found: Vectors, *, asked: set[str]) -> None:
    failed = [row for row in found.rows if row.code != "ok"]
    for row in failed:
        if row.path in asked:
            print(f"tubelet: {visible(row.message)}", file=sys.stderr)
    bad = f", {len(failed)} could not be read" if failed else ""
    say("vectors", f"{len(found.vectors)} of {found.settings['width']} numbers each{bad}: {folder / FILE}")
    say("next", f"tubelet search {folder} FILE")
