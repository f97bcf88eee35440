"""The files of a folder of vectors that are the likest to some file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.table import Table

from tubelet.data.duplicates import mark_content
from tubelet.data.items import Item
from tubelet.embed.duplicates import Copy
from tubelet.embed.embeddings import Embeddings, Hit
from tubelet.media.address import absolute
from tubelet.stream.segments import moment
from tubelet.system.console import console, say
from tubelet.system.text import dumps, plural


def search_files(found: Embeddings, files: Sequence[str | Path], *, top: int) -> list[tuple[str | Path, list[Hit]]]:
    """Up to `top` hits for each file, the likest first. A file of the folder does not find itself.

    Raises: ValueError, also MediaError, where a file cannot be read or is of another kind, or the model is gone.
    """
    if top < 1:
        raise ValueError(f"--top {top}: expected 1 or more")
    return [(file, find_alike(found, file, top)) for file in files]


def find_alike(found: Embeddings, file: str | Path, top: int) -> list[Hit]:
    path = absolute(file)
    own = sum(row.path == path for row in found.rows)
    hits = found.search(find_vector(found, path), top + own)
    return [hit for hit in hits if hit.path != path][:top]


def find_vector(found: Embeddings, path: str) -> np.ndarray:
    """The vector (D,) of a whole file: its row's, where it has one and has not changed, or made anew."""
    for number, row in enumerate(found.rows):
        if row.key == (path, None, None) and row.mark == mark_content(path):
            return found.vectors[number]
    embedder = found.embedder
    return embedder.embed(embedder.load_views(Item(path, "")).clips)


def print_hits(asked: Sequence[tuple[str | Path, list[Hit]]], *, as_json: bool) -> None:
    """A table, or a JSON object a line: rank, file, seconds, similarity."""
    if as_json:
        for file, hits in asked:
            for rank, hit in enumerate(hits, 1):
                print(dumps({"file": file, "rank": rank, **hit._asdict()}), flush=True)
        return
    for file, hits in asked:
        table = Table(title=str(file), title_justify="left", box=None, padding=(0, 2, 0, 0))
        table.add_column("", justify="right")
        table.add_column("file", overflow="fold")
        table.add_column("seconds", justify="right")
        table.add_column("similarity", justify="right", style="bold")
        for rank, hit in enumerate(hits, 1):
            table.add_row(str(rank), hit.path, describe_span(hit), f"{hit.similarity:.4f}")
        console.print(table)


def print_sets(sets: Sequence[Sequence[Copy]], *, as_json: bool) -> None:
    """A table, or a JSON object a line for each set: its files, and which of them are mirrored."""
    if as_json:
        for number, copies in enumerate(sets, 1):
            print(dumps({"set": number, "files": [copy._asdict() for copy in copies]}), flush=True)
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("set", justify="right")
    table.add_column("file", overflow="fold")
    table.add_column("likeness", justify="right")
    table.add_column("")
    for number, copies in enumerate(sets, 1):
        for copy in copies:
            first = copy is copies[0]
            words = ["", ""] if first else [f"{copy.likeness:.2f}", "mirrored" if copy.mirrored else ""]
            table.add_row(str(number) if first else "", copy.path, *words)
    if sets:
        console.print(table)
    files = sum(map(len, sets))
    say("copies", f"{plural(len(sets), 'set')} of {plural(files, 'file')} in all" if sets else "none")


def describe_span(hit: Hit) -> str:
    """ "0:00 to 0:12.5"; nothing for an image."""
    if hit.end_seconds == hit.start_seconds:
        return ""
    return f"{moment(hit.start_seconds)} to {moment(hit.end_seconds)}"
