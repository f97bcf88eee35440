"""A folder of vectors: one file that holds them and their rows, and while it is being made, parts of the same kind.

vectors.safetensors    `vectors` (N, D) float32, `index` the bytes of index.jsonl, and in the header all that the
                       vectors depend on
index.jsonl            a row a line: path, seconds, mark of the content, code; a copy, for people and other programs
index.parquet          where asked for
part-00001.safetensors until the end: what was made since the last part

The nth row of code "ok" has the nth vector; another row has none. Rows are sorted by path and time, so a folder holds
the same bytes in whatever order, and after however many stops, it was made.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tubelet.runs.run import holds_others, list_changes
from tubelet.runs.share import Key
from tubelet.system.files import write_whole
from tubelet.system.text import dumps
from tubelet.weights.store import read_tensors, write_tensors

FILE, INDEX, PARQUET = "vectors.safetensors", "index.jsonl", "index.parquet"
HEADER = "embeddings"
FORMAT = 1  # raised whenever the same settings give other vectors, or a file holds them in another way
MAY_CHANGE = ("run", "model")  # of the settings: the same weights may lie elsewhere


@dataclass(frozen=True)
class Row:
    """A file, or [start_seconds, end_seconds) of it; None is the file's own start or end.

    path: absolute. mark: that of the content, by `mark_content`; "" where the file is not there. code: "ok", or that of
    the MediaError; message: its words. seconds: how long the item is; 0 for an image, None where it could not be read.
    """

    path: str
    start_seconds: float | None
    end_seconds: float | None
    mark: str
    code: str = "ok"
    message: str = ""
    seconds: float | None = None

    @property
    def key(self) -> Key:
        return self.path, self.start_seconds, self.end_seconds

    @property
    def span(self) -> tuple[float, float]:
        """Start and end in seconds, the file's own where none were asked for."""
        start = self.start_seconds or 0.0
        return start, start + (self.seconds or 0.0)


NAMES = tuple(field.name for field in fields(Row))


@dataclass(frozen=True)
class Vectors:
    """Rows, and the vectors (N, D) float32 of those with code "ok", in their order. settings: of `Embedder.describe`,
    and "windows", the seconds of one."""

    settings: dict[str, Any]
    rows: list[Row]
    vectors: np.ndarray

    def numbered(self) -> Iterator[tuple[Row, int | None]]:
        """Each row with the number of its vector."""
        number = 0
        for row in self.rows:
            yield row, number if row.code == "ok" else None
            number += row.code == "ok"


def write_vectors(file: Path, found: Vectors) -> None:
    """Writes rows and vectors, whole or not at all."""
    index = np.frombuffer(index_text(found).encode(), np.uint8)
    tensors = {
        "index": torch.from_numpy(index.copy()),
        "vectors": torch.from_numpy(np.ascontiguousarray(found.vectors, np.float32)),
    }
    write_tensors(file, tensors, {HEADER: {**found.settings, "format": FORMAT}})


def index_text(found: Vectors) -> str:
    """The lines of index.jsonl, each with the number of its vector."""
    return "".join(dumps({**asdict(row), "vector": number}) + "\n" for row, number in found.numbered())


def read_vectors(file: Path) -> Vectors:
    """Rows and vectors; these are mapped into memory, and read where they are used.

    Raises:
        ValueError: no such file, a damaged one, or one of another version of tubelet.
    """
    tensors, header = read_tensors(file)
    settings = header.get(HEADER)
    if not isinstance(settings, dict) or not tensors.keys() >= {"index", "vectors"}:
        raise ValueError(f"{file}: holds no embeddings: expected a file that `tubelet embed` wrote")
    if settings.get("format") != FORMAT:
        raise ValueError(
            f"{file}: of another version of tubelet (format {settings.get('format')}, expected {FORMAT}): embed again "
            "into another folder"
        )
    vectors = tensors["vectors"]
    try:
        rows = [parse_row(line) for line in tensors["index"].numpy().tobytes().decode().splitlines()]
        expected = (sum(row.code == "ok" for row in rows), settings["width"])
        if vectors.dtype != torch.float32 or tuple(vectors.shape) != expected:
            raise ValueError(f"vectors of {vectors.dtype} {tuple(vectors.shape)}, its rows have {expected}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file}: damaged ({error}): copy it again, or embed again into another folder") from error
    return Vectors({name: value for name, value in settings.items() if name != "format"}, rows, vectors.numpy())


def parse_row(line: str) -> Row:
    values = json.loads(line)
    return Row(*(values[name] for name in NAMES))


def part_files(folder: Path) -> list[Path]:
    """Parts that are not yet in the one file, the oldest first."""
    names = [file.name for file in folder.iterdir()] if folder.is_dir() else []
    return [folder / name for name in sorted(name for name in names if re.fullmatch(r"part-\d{5}\.safetensors", name))]


def next_part(folder: Path) -> Path:
    number = max((int(file.stem.removeprefix("part-")) for file in part_files(folder)), default=0) + 1
    return folder / f"part-{number:05d}.safetensors"


def check_folder(folder: Path) -> None:
    """Raises ValueError where a folder holds something else than vectors."""
    if not (folder / FILE).is_file() and not part_files(folder) and holds_others(folder):
        raise ValueError(f"{folder} holds something that are no embeddings: choose another --out")


def read_folder(folder: Path, settings: dict[str, Any]) -> list[Vectors]:
    """All that a folder holds already, the newest last. Raises ValueError where it was made otherwise; says how."""
    whole = [folder / FILE] if (folder / FILE).is_file() else []
    found = [read_vectors(file) for file in whole + part_files(folder)]
    for one in found:
        check_settings(folder, one.settings, settings)
    return found


def check_settings(folder: Path, then: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises ValueError where the vectors in a folder were made otherwise than those that are to come."""
    asked = {name: value for name, value in now.items() if name not in MAY_CHANGE}
    if changed := list_changes(then, asked):
        was, comes = (f"{one.get('model')} of {one.get('run')}" for one in (then, now))
        raise ValueError(
            f"{folder} holds vectors of {was}, with which those of {comes} cannot be compared ({changed}): choose "
            "another --out"
        )


def merge(
    old: Sequence[Vectors], new: Sequence[Vectors], settings: dict[str, Any], *, keep: Callable[[Row], bool]
) -> Vectors:
    """The rows of all, sorted, each item once: the last row of it. keep: whether an old row still holds."""
    latest: dict[Key, tuple[Row, np.ndarray, int | None]] = {}
    for one in (*old, *new):
        is_new = any(one is other for other in new)
        for row, number in one.numbered():
            if is_new or keep(row):
                latest[row.key] = row, one.vectors, number
    ordered = sorted(latest.values(), key=lambda entry: place(entry[0]))
    sources = [(vectors, number) for _, vectors, number in ordered if number is not None]
    merged = np.empty((len(sources), settings["width"]), np.float32)
    for at, (vectors, number) in enumerate(sources):
        merged[at] = vectors[number]
    return Vectors(settings, [row for row, _, _ in ordered], merged)


def place(row: Row) -> tuple[str, float, float]:
    start, end = (-1.0 if seconds is None else seconds for seconds in (row.start_seconds, row.end_seconds))
    return row.path, start, end


def write_folder(folder: Path, found: Vectors) -> None:
    """Writes the one file, then the copy of its index; the parts, and a table of other rows, are no longer needed."""
    write_vectors(folder / FILE, found)
    (folder / PARQUET).unlink(missing_ok=True)  # of the rows before
    write_whole(folder / INDEX, index_text(found))
    for file in part_files(folder):
        file.unlink()
