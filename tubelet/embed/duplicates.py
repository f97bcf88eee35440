"""Files that show the same: encoded again, resized, cropped, trimmed, faster or slower, mirrored.

Small grey pictures of each file, evenly spread over its time, are compared as `tubelet.data.near_duplicates` does:

    one          a   b   c   d   e   f   g   h        eight moments of the shorter file,
                 |   |   |   |   |   |   |   |
    other    A B C D E F G H I J K L M N O P Q R S    each with the picture of the longer one at that time,

for the start and the rate at which they are the most alike. This is done twice: with the pictures as they are, and less
the mean picture of the file, which leaves what moves. A fixed camera shows the same place in all that it records, and
only copies show the same movement there. Vectors are not looked at: what a model was trained to tell apart, or not to,
says little about copies.
"""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from tubelet.data.near_duplicates import PARTS, WHOLE, grid_vectors, read_pictures
from tubelet.data.prefetch import prefetch
from tubelet.embed.embeddings import Embeddings
from tubelet.media.address import absolute
from tubelet.media.reader import MediaError, index
from tubelet.media.sampling import TIME_ROUNDING_SECONDS
from tubelet.system.console import bar

MOMENTS = 8  # of a file that are looked for in another
PICTURES_A_SECOND = 8.0
FEWEST, MOST = 16, 96  # pictures of a video
RATES = (1 / 1.1, 1.0, 1.1)  # of the time of a copy; files of about one length are also laid end to end
SHORTEST = 2 / 3  # of the longer of two files: what is shorter is a part of it, and no copy
CENTRE = (0.05, 0.05, 0.9)
PROPOSED = 0.4  # likeness of any two pictures, whole or their centres, from which on two files are compared closely
ALIKE, MOVING_ALIKE = 0.75, 0.65  # chosen by benchmarks/duplicates.py --seed 1
STILL_LEVELS = 2.0  # files whose pictures differ less from their mean, of 255, show no movement that could be compared

Part = tuple[float, float, float]  # top, left and side of a part of a picture, in shares of its sides
Way = tuple[Part, Part, bool]  # the parts of two files that are compared, and whether one is mirrored
PAIRS = ((WHOLE, WHOLE), *((WHOLE, part) for part in PARTS), *((part, WHOLE) for part in PARTS))


@dataclass(frozen=True)
class Pictures:
    """Of a file: pictures (T, SIDE_PX, SIDE_PX) uint8 in grey, and the seconds that they are spread over."""

    path: str
    seconds: float
    grey: np.ndarray

    @property
    def moving(self) -> np.ndarray:
        """The pictures less their mean."""
        grey = self.grey.astype(np.float32)
        return grey - grey.mean(0)

    @cached_property
    def movement(self) -> float:
        """How much the pictures differ from their mean, of 255."""
        return float(np.sqrt((self.moving**2).mean()))


class Pair(NamedTuple):
    """Two files that show the same, how alike their pictures are, up to 1, and whether one is a mirror image."""

    path: str
    other: str
    likeness: float
    mirrored: bool


class Copy(NamedTuple):
    """A file of a set; see `find_sets`."""

    path: str
    likeness: float
    mirrored: bool


def find_pairs(paths: Sequence[str], *, workers: int = 1, show: bool = False) -> list[Pair]:
    """Pairs of files that show the same, by path. Files that cannot be read, and sounds, are passed over."""
    files = read_files(sorted(set(paths)), workers=workers, show=show)
    proposed = [(one, files[other]) for one, others in zip(files, propose(files), strict=True) for other in others]
    found = []
    with bar("comparing", len(proposed), show=show) as progress:
        for one, other in proposed:
            if told := compare(one, other):
                found.append(Pair(one.path, other.path, *told))
            progress.advance(f"{progress.done + 1}/{progress.total} pairs left {progress.left}")
    return found


def read_files(paths: Sequence[str], *, workers: int, show: bool) -> list[Pictures]:
    with (
        closing(prefetch(read_file, paths, threads=workers, ahead=2 * workers)) as made,
        bar("looking at files", len(paths), show=show) as progress,
    ):
        found = []
        for one in made:
            found += [one] if one else []
            progress.advance(f"{progress.done + 1}/{progress.total} files left {progress.left}")
    return found


def read_file(path: str) -> Pictures | None:
    try:
        seconds = index(path).duration_seconds
        count = int(np.clip(round(seconds * PICTURES_A_SECOND), FEWEST, MOST)) if seconds else 1
        grey = read_pictures(path, (np.arange(count) + 0.5) * seconds / count)
    except MediaError:
        return None
    return Pictures(absolute(path), seconds, np.rint(grey).clip(0, 255).astype(np.uint8))


def propose(files: Sequence[Pictures]) -> list[list[int]]:
    """For each file the later ones that may be copies of it: about as long, and alike in two pictures."""
    if not files:
        return []
    few = [one.grey[moments(len(one.grey))] for one in files]
    whole, centre = ([describe(grey, part) for grey in few] for part in (WHOLE, CENTRE))
    mirrored, mirrored_centre = ([describe(grey[:, :, ::-1], part) for grey in few] for part in (WHOLE, CENTRE))
    first, all_whole, all_centre = np.cumsum([0, *map(len, few)]), np.concatenate(whole), np.concatenate(centre)
    found = []
    for number, one in enumerate(files):
        to_whole = np.concatenate([side[number] for side in (whole, mirrored, centre, mirrored_centre)])
        to_centre = np.concatenate([side[number] for side in (whole, mirrored)])
        begin = first[number]
        best = np.maximum((to_whole @ all_whole[begin:].T).max(0), (to_centre @ all_centre[begin:].T).max(0))
        likeness = np.maximum.reduceat(best, first[number:-1] - begin)
        near = (number + int(step) for step in np.flatnonzero(likeness >= PROPOSED) if step)
        found.append([other for other in near if lasts_as_long(one, files[other])])
    return found


def lasts_as_long(one: Pictures, other: Pictures) -> bool:
    short, long = sorted((one.seconds, other.seconds))
    return short >= SHORTEST * long and (len(one.grey) == 1) == (len(other.grey) == 1)


def compare(one: Pictures, other: Pictures) -> tuple[float, bool] | None:
    """How alike the pictures of two copies are, up to 1, and whether one is mirrored; None where they are no copies."""
    short, long = sorted((one, other), key=lambda file: file.seconds)
    seconds = short.seconds, long.seconds
    found = measure(short.grey, long.grey, seconds, least=ALIKE)
    if found and max(short.movement, long.movement) >= STILL_LEVELS:
        moving = measure(short.moving, long.moving, seconds, least=MOVING_ALIKE)
        found = {way: likeness for way, likeness in found.items() if way in moving}
    return max(((likeness, mirrored) for (_, _, mirrored), likeness in found.items()), default=None)


def measure(short: np.ndarray, long: np.ndarray, seconds: tuple[float, float], *, least: float) -> dict[Way, float]:
    """(T, px, px), (U, px, px) -> how alike the pictures of a shorter and a longer file are at the same times, in each
    way in which that is `least` or more."""
    ours = short[moments(len(short))]
    sides = {False: describe_parts(ours), True: describe_parts(ours[:, :, ::-1])}
    theirs = describe_parts(long)
    found = {}
    for one, other in PAIRS:
        for mirrored, side in sides.items():
            products = side[one] @ theirs[other].T
            if products.max(1).mean() >= least:  # no line has more
                found[one, other, mirrored] = follow(products, *seconds)
    return {way: likeness for way, likeness in found.items() if likeness >= least}


def describe_parts(pictures: np.ndarray) -> dict[Part, np.ndarray]:
    return {part: describe(pictures, part) for part in (WHOLE, *PARTS)}


def follow(products: np.ndarray, short_seconds: float, long_seconds: float) -> float:
    """(M, U), of moments of the short file with pictures of the long one -> the mean along the likest line.

    A line is a start in the long file and a rate; next to it counts as on it, for pictures are apart in time.
    """
    count, pictures = products.shape
    if pictures == 1:
        return float(products.mean())
    edge = np.pad(products, ((0, 0), (1, 1)), constant_values=-1)
    near = np.maximum(np.maximum(edge[:, :-2], products), edge[:, 2:])
    shares = (np.arange(count) + 0.5) / count
    best = -1.0
    for rate in (*RATES, min(long_seconds / short_seconds, RATES[-1])):
        spare = long_seconds - rate * short_seconds
        starts = np.arange(0, max(spare, 0) + 1e-6, long_seconds / pictures / 2)
        if spare < -TIME_ROUNDING_SECONDS:
            continue
        times = starts[:, None] + shares * rate * short_seconds
        at = (times / long_seconds * pictures).astype(int).clip(0, pictures - 1)
        best = max(best, float(near[np.arange(count), at].mean(1).max()))
    return best


def moments(count: int) -> np.ndarray:
    """Which of so many pictures are looked for in another file."""
    few = min(MOMENTS, count)
    return ((np.arange(few) + 0.5) * count / few).astype(int)


def describe(pictures: np.ndarray, part: Part = WHOLE) -> np.ndarray:
    return grid_vectors(pictures.astype(np.float32), part)


def find_sets(found: Embeddings, *, workers: int, show: bool) -> list[list[Copy]]:
    """Sets of two files or more that show the same, each sorted by path; of each file whether it is mirrored, as seen
    from the first, and how alike it is to the one that it was found by.

    Raises: ValueError for sounds.
    """
    if found.settings["clip_spec"]["kind"] == "sound":
        raise ValueError(f"{found.folder}: holds vectors of sounds: --duplicates compares pictures alone")
    marks: dict[str, str] = {}
    pairs = []
    for row in found.rows:
        first = marks.setdefault(row.mark, row.path)
        pairs += [Pair(first, row.path, 1.0, False)] if first != row.path else []
    return join([*pairs, *find_pairs([*marks.values()], workers=workers, show=show)])


def join(pairs: Sequence[Pair]) -> list[list[Copy]]:
    """Sets of files that pairs hold together, as `find_sets` has them."""
    near: dict[str, list[tuple[str, float, bool]]] = defaultdict(list)
    for one, other, likeness, mirrored in pairs:
        near[one].append((other, likeness, mirrored))
        near[other].append((one, likeness, mirrored))
    sets, seen = [], set[str]()
    for first in sorted(near):
        if first in seen:
            continue
        copies = [Copy(first, 1.0, False)]
        seen.add(first)
        for copy in copies:  # which grows meanwhile
            for path, likeness, mirrored in near[copy.path]:
                if path not in seen:
                    seen.add(path)
                    copies.append(Copy(path, likeness, mirrored != copy.mirrored))
        sets.append(sorted(copies))
    return sets
