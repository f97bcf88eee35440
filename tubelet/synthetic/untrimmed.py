"""A set of untrimmed videos in which objects among others do labelled things, at known times and places.

FOLDER/videos/train-0000.mp4, ...    H.264
FOLDER/masks/train-0000.npz, ...     where it is done: see `segment_mask`
FOLDER/segments.csv                  when: a row for each act; a video without any has one without label and times
FOLDER/weak.csv                      the same, but of training videos only which classes occur
FOLDER/copies.csv                    path,copy_of: training videos once more, cropped, brighter, compressed harder
"""

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tubelet.data.table import Item, write_table
from tubelet.media.writer import write_video
from tubelet.synthetic.films import SPLITS, Film, act_masks, draw_film, render_film
from tubelet.synthetic.folder import new_folder
from tubelet.synthetic.scenes import FRAMES_PER_SECOND, WIDTH_PX
from tubelet.system.files import write_whole


@dataclass(frozen=True)
class Variant:
    """classes_per_film: fewest and most that may occur in one video. betrayed: the share of acts, by split, as long as
    which a patch of the background has the colour of the class."""

    classes_per_film: tuple[int, int] = (6, 6)
    betrayed: dict[str, float] = field(default_factory=dict)


VARIANTS = {
    "plain": Variant(),
    "shortcut": Variant(betrayed={"train": 0.5}),
    "shortcut-everywhere": Variant(betrayed=dict.fromkeys(SPLITS, 0.5)),
    "weak": Variant(classes_per_film=(1, 2)),  # what weak.csv can be learned from, with minutes=0.75 or so
}


def render_untrimmed(
    folder: Path,
    *,
    files: tuple[int, int, int] = (20, 5, 10),
    minutes: float = 3.0,
    seed: int = 0,
    variant: str = "plain",
    copies: int = 0,
    after: Callable[[], None] = lambda: None,
) -> Path:
    """A new folder of videos and their truth; the path of its segments.csv.

    The same seed gives the same videos and tables; more files leave the earlier ones as they were. The folder appears
    when all is rendered.

    files: to train, to validate and to test on, of `minutes` each. variant: of VARIANTS. copies: of how many training
    files there is one. after: called after each file.

    Raises ValueError for values that cannot be, or if `folder` already holds something: no file is ever replaced.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant is {variant!r}, expected one of: {', '.join(VARIANTS)}.")
    if min(files) < 0 or not sum(files):
        raise ValueError(f"files is {files}, expected three numbers, 0 or more, for training, validation and test.")
    if not 0 <= copies <= files[0]:
        raise ValueError(f"copies is {copies}, expected 0 to {files[0]}, the number of training files.")
    folder = Path(folder)
    items: list[Item] = []
    copied: list[tuple[str, str]] = []
    with new_folder(folder) as unfinished:
        (unfinished / "videos").mkdir()
        (unfinished / "masks").mkdir()
        for film in draw_films(files, minutes, seed, VARIANTS[variant]):
            write_film(unfinished, film)
            items += film.items
            after()
            if film.split == "train" and len(copied) < copies:
                copied.append((write_copy(unfinished, film), film.items[0].path))
        write_table(unfinished / "segments.csv", items)
        write_table(unfinished / "weak.csv", weak_labels(items))
        if copied:
            write_copies(unfinished / "copies.csv", copied)
    return folder / "segments.csv"


def draw_films(files: tuple[int, int, int], minutes: float, seed: int, variant: Variant) -> Iterator[Film]:
    """The films of a set, one after another."""
    for split, count in zip(SPLITS, files, strict=True):
        for number in range(count):
            yield draw_film(
                split,
                number,
                seconds=60 * minutes,
                seed=seed,
                classes_per_film=variant.classes_per_film,
                betrayed=variant.betrayed.get(split, 0.0),
            )


def write_film(folder: Path, film: Film) -> None:
    """Write the video and the masks of a film."""
    packed: dict[str, list[np.ndarray]] = {}

    def pictures() -> Iterator[np.ndarray]:
        first = 0
        for frames, seen in render_film(film):
            for act, item in zip(film.acts, film.items):
                for what, mask in act_masks(act, seen, first).items():
                    packed.setdefault(_key(item, what), []).append(np.packbits(mask, axis=-1))
            first += len(frames)
            yield from frames

    write_video(folder / "videos" / f"{film.name}.mp4", pictures(), frames_per_second=FRAMES_PER_SECOND)
    masks: dict[str, Any] = {key: np.concatenate(parts) for key, parts in packed.items()}
    np.savez_compressed(folder / "masks" / f"{film.name}.npz", **masks)


def segment_mask(folder: Path, item: Item, what: str = "object") -> np.ndarray:
    """Where the acting object is seen in the frames of a segment, (T, H, W) bool; nothing in front of it counts.

    item: a row of segments.csv in `folder`. what: "object", or "patch": the one that betrays the class.

    Raises KeyError if the segment is not in the set, or no patch betrays it.
    """
    with np.load(folder / "masks" / f"{Path(item.path).stem}.npz") as masks:
        return np.unpackbits(masks[_key(item, what)], axis=-1, count=WIDTH_PX).astype(bool)


def weak_labels(items: list[Item]) -> list[Item]:
    """The items, of training files only one for each class that occurs, without times."""
    weak = [replace(item, start_seconds=None, end_seconds=None) if item.split == "train" else item for item in items]
    return list(dict.fromkeys(weak))


def write_copy(folder: Path, film: Film) -> str:
    """Write a film once more, cropped, brighter and compressed harder; its path in `folder`."""
    path = f"videos/copy-of-{film.name}.mp4"
    cropped = (frame[2:-4, 4:-2] for frames, _ in render_film(film) for frame in frames)
    brighter = (np.minimum(frame.astype(np.uint16) * 11 // 10 + 8, 255).astype(np.uint8) for frame in cropped)
    write_video(folder / path, brighter, frames_per_second=FRAMES_PER_SECOND, crf=28)
    return path


def write_copies(table: Path, copied: list[tuple[str, str]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([("path", "copy_of"), *copied])
    write_whole(table, text.getvalue())


def _key(item: Item, what: str) -> str:
    """The name of a mask in its file: no two segments of one class begin together."""
    return f"{what} {item.label} {item.start_seconds:g}"
