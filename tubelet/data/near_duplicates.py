"""Held-out clips that look like training clips: re-encoded, resized or cropped copies, stills of one video.

A picture is told by the differences between neighbouring cells of a grid laid over it in grey:

    +--+--+--+
    | 9| 9| 2|     to the right  0 -7 | 0 -7 | ...
    +--+--+--+  -> downwards     0  0  3 | ...       -> one vector of length 1
    | 9| 9| 5|
    +--+--+--+

Brightness and contrast drop out, and what most pictures have in common, light above and dark below, counts little.
Two vectors of one picture have a product near 1, two of different pictures one near 0. Grids are also laid over parts
of the picture, to find those that were cropped.
"""

import hashlib
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from time import monotonic

import numpy as np

from tubelet.data.clips import item_range
from tubelet.data.items import Item, Source
from tubelet.data.prefetch import prefetch
from tubelet.data.problems import some
from tubelet.media.address import join
from tubelet.media.reader import MediaError, read_frames
from tubelet.system.spread import Spread, alone

MOST_HELD_OUT, MOST_TRAIN = 300, 2000  # items that are looked at
MOST_SECONDS = 20.0
PLACES = (0.2, 0.5, 0.8)  # of a video
SIDE_PX, CELLS = 48, 12
ALIKE = 0.75  # tests/test_near_duplicates.py: copies have more, other clips of one class less than 0.5
FLAT_LEVELS = 0.5  # a picture whose cells differ by less, of 255, such as a black one, is like no other
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
# (top, left, side) of the parts, in shares of height and width: all, then what crops of 5 % and 10 % leave.
WHOLE = (0.0, 0.0, 1.0)
PARTS = tuple(
    (top * (1 - side), left * (1 - side), side) for side in (0.95, 0.9) for top in (0, 0.5, 1) for left in (0, 0.5, 1)
)


@dataclass(frozen=True)
class Likeness:
    """Pairs of a held-out item and the training item that it looks like, the likest first, among those compared."""

    pairs: tuple[tuple[Item, Item], ...]
    held_out: int
    train: int


def near_duplicate_notes(
    source: Source, *, workers: int = 1, seconds: float = MOST_SECONDS, spread: Spread = alone
) -> list[str]:
    """A sentence on held-out items that look like training items, if there are any. See `find_near_duplicates`."""
    found = find_near_duplicates(source, workers=workers, seconds=seconds, spread=spread)
    if not found.pairs:
        return []
    held_out, train = (len(items) for items in _sides(source))
    named = some((f"{one.name} ~ {other.name}" for one, other in found.pairs), most=3)
    compared = f"; compared were {found.held_out} of {held_out} held-out and {found.train} of {train} training clips"
    return [
        f"held-out clips that look like training clips ({len(found.pairs)} of {found.held_out}): {named}. If they are "
        f"of one recording, the result flatters: give each recording a group of its own, in a table"
        + (compared if (found.held_out, found.train) != (held_out, train) else "")
    ]


def find_near_duplicates(
    source: Source, *, workers: int = 1, seconds: float = MOST_SECONDS, spread: Spread = alone
) -> Likeness:
    """Compares the held-out items of a split source with its training items, by a few small pictures of each.

    Of many items, 300 held-out and 2,000 training ones are drawn, the same ones each time; items of one group are not
    compared. What cannot be read, and sounds, are passed over.

    workers: threads that read files. seconds: after that time no further file is read.
    """
    if source.kind == "sound":
        return Likeness((), 0, 0)
    held_out, train = (
        _draw(items, most) for items, most in zip(_sides(source), (MOST_HELD_OUT, MOST_TRAIN), strict=True)
    )
    items, look = _alternate(held_out, train), partial(_read, source.root, source.kind, workers, seconds)
    made = spread(look, items, file=attrgetter("path"))
    pictures = {item: found for item, found in zip(items, made, strict=True) if found is not None}
    held_out, train = ([item for item in items if item in pictures] for items in (held_out, train))
    if not (held_out and train):
        return Likeness((), len(held_out), len(train))
    alike = _similarity(*(np.stack([pictures[item] for item in items]) for items in (held_out, train)))
    groups = [np.array([item.group or item.name for item in items]) for items in (held_out, train)]
    alike[groups[0][:, None] == groups[1]] = -1
    # Where all is alike, as under one fixed camera, more is asked for.
    least = np.maximum(ALIKE, 1 - (1 - np.median(alike, axis=1)) / 3)
    likest = alike.argmax(axis=1)
    best = alike.max(axis=1)
    rows = [row for row in np.argsort(-best, kind="stable").tolist() if best[row] >= least[row]]
    return Likeness(tuple((held_out[row], train[likest[row]]) for row in rows), len(held_out), len(train))


def _sides(source: Source) -> tuple[list[Item], list[Item]]:
    """Held-out items, training items."""
    held_out = [item for item in source.items if item.split in ("val", "test")]
    return held_out, [item for item in source.items if item.split == "train"]


def _draw(items: list[Item], most: int) -> list[Item]:
    def draw(item: Item) -> bytes:
        return hashlib.sha256(unicodedata.normalize("NFC", item.name).encode(errors="surrogateescape")).digest()

    return sorted(items, key=draw)[:most]


def _alternate(*sides: list[Item]) -> list[Item]:
    """Items of all sides, in such an order that any beginning of it holds the same share of each."""
    places = [(number / len(side), item) for side in sides for number, item in enumerate(side)]
    return [item for _, item in sorted(places, key=lambda place: place[0])]


def _read(root: Path, kind: str, workers: int, seconds: float, items: Sequence[Item]) -> Iterator[np.ndarray | None]:
    """Pictures of each item; None for those that cannot be read, and for all others when the time is over."""
    until, done = monotonic() + seconds, 0
    with closing(prefetch(partial(_pictures, root, kind), items, threads=workers, ahead=2 * workers)) as made:
        while done < len(items) and monotonic() < until:
            yield next(made)
            done += 1
    yield from [None] * (len(items) - done)


def _pictures(root: Path, kind: str, item: Item) -> np.ndarray | None:
    """Pictures (places, SIDE_PX, SIDE_PX) float32 in grey; None where the file cannot be read: training tells."""
    path, places = join(root, item.path), np.array(PLACES if kind == "video" else (0.0,))
    try:
        start, end = item_range(path, start_seconds=item.start_seconds, end_seconds=item.end_seconds)
        return read_pictures(path, start + places * (end - start))
    except MediaError:
        return None


def read_pictures(path: str | Path, times_seconds: np.ndarray) -> np.ndarray:
    """The frames on screen at times (T,), squeezed and in grey: (T, SIDE_PX, SIDE_PX) float32 in [0, 255].

    Raises: MediaError where the file cannot be read.
    """
    grey = read_frames(path, times_seconds, cover=(SIDE_PX, SIDE_PX)) @ np.array(LUMA, np.float32)
    return _shares(grey.shape[1], SIDE_PX) @ grey @ _shares(grey.shape[2], SIDE_PX).T


def _shares(size: int, cells: int, begin: float = 0.0, end: float = 1.0) -> np.ndarray:
    """(cells, size): the weight of each pixel in the mean of each cell, from begin to end of a side."""
    edges = np.linspace(begin * size, end * size, cells + 1)
    pixels = np.arange(size)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    overlap = overlap.clip(0)
    return (overlap / overlap.sum(axis=1, keepdims=True)).astype(np.float32)


def grid_vectors(pictures: np.ndarray, part: tuple[float, float, float]) -> np.ndarray:
    """(N, SIDE_PX, SIDE_PX) -> (N, 2 * CELLS * (CELLS - 1)), of length 1, or of zeros where a picture is flat.

    part: (top, left, side) of the picture, in shares of its sides.
    """
    top, left, side = part
    grid = _shares(SIDE_PX, CELLS, top, top + side) @ pictures @ _shares(SIDE_PX, CELLS, left, left + side).T
    steps = [np.diff(grid, axis=axis).reshape(len(grid), -1) for axis in (1, 2)]
    vectors = np.concatenate(steps, axis=1)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors * (length > FLAT_LEVELS * vectors.shape[1] ** 0.5) / np.maximum(length, 1e-9)


def _similarity(held_out: np.ndarray, train: np.ndarray) -> np.ndarray:
    """(H, places, px, px), (T, places, px, px) -> (H, T): the largest product of any two of their pictures, one of them
    whole, the other whole or cropped."""
    ours, theirs = (pictures.reshape(-1, SIDE_PX, SIDE_PX) for pictures in (held_out, train))
    whole, other = grid_vectors(ours, WHOLE), grid_vectors(theirs, WHOLE)
    best = whole @ other.T
    for part in PARTS:
        np.maximum(best, whole @ grid_vectors(theirs, part).T, out=best)
        np.maximum(best, grid_vectors(ours, part) @ other.T, out=best)
    return best.reshape(len(held_out), held_out.shape[1], len(train), train.shape[1]).max(axis=(1, 3))
