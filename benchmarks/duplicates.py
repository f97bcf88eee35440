"""How many changed copies `tubelet search --duplicates` finds, and how much else it takes for copies.

    python benchmarks/duplicates.py FOLDER [--clips 12] [--films 6] [--seed 0]

Renders clips whose camera moves (`tubelet/synthetic/camera_motions.py`), and cuts, each around one act, of films of a
camera that hardly moves (`tubelet/synthetic/untrimmed.py`), several of each film: these show one place and are no
copies. Of each clip one copy is made for each change. All are compared with all; prints, for each change, how many
copies were found, and how many pairs of clips that are no copies were taken for some.
"""

import argparse
import time
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from tubelet.data.table import Item, read_table
from tubelet.embed.duplicates import find_pairs, join
from tubelet.media.reader import index, read_frames
from tubelet.media.writer import write_video
from tubelet.synthetic.camera_motions import CLASSES, FRAMES_PER_SECOND, render_clip
from tubelet.synthetic.scenes import FRAMES_PER_SECOND as FILM_RATE
from tubelet.synthetic.untrimmed import render_untrimmed
from tubelet.tasks import MultiLabel

MOST_CUTS = 4  # of a film
AROUND_SECONDS = 0.5


def resize(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    pixels = torch.from_numpy(frames.copy()).permute(0, 3, 1, 2).float()
    scaled = F.interpolate(pixels, (height // 2 * 2, width // 2 * 2), mode="bilinear", antialias=True)
    return scaled.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


def scale(frames: np.ndarray, share: float) -> np.ndarray:
    return resize(frames, round(frames.shape[1] * share), round(frames.shape[2] * share))


def crop(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A tenth of each side is cut off, somewhere."""
    height, width = (round(0.9 * side) // 2 * 2 for side in frames.shape[1:3])
    top, left = rng.integers(0, frames.shape[1] - height + 1), rng.integers(0, frames.shape[2] - width + 1)
    return frames[:, top : top + height, left : left + width]


def trim(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A fifth is cut off, some at the start, some at the end."""
    cut = round(0.2 * len(frames))
    first = rng.integers(0, cut + 1)
    return frames[first : len(frames) - cut + first]


Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]
# What is done to the frames, the quality they are encoded with, and by how much faster they are shown.
CHANGES: dict[str, tuple[Change, int, float]] = {
    "encoded again": (lambda frames, rng: frames, 36, 1.0),
    "half the size": (lambda frames, rng: scale(frames, 0.5), 23, 1.0),
    "twice the size": (lambda frames, rng: scale(frames, 2.0), 23, 1.0),
    "cropped by 10 %": (crop, 23, 1.0),
    "trimmed by 20 %": (trim, 23, 1.0),
    "10 % faster": (lambda frames, rng: frames, 23, 1.1),
    "10 % slower": (lambda frames, rng: frames, 23, 1 / 1.1),
    "mirrored": (lambda frames, rng: frames[:, :, ::-1], 23, 1.0),
    "mirrored, cropped, trimmed, encoded again": (
        lambda frames, rng: trim(crop(frames, rng), rng)[:, :, ::-1],
        30,
        1.0,
    ),
}


def render(folder: Path, clips: int, films: int, seed: int) -> list[Path]:
    """The clips, written once; cut-F-N.mp4 are of film F."""
    if not (folder / "films").is_dir():
        render_untrimmed(folder / "films", files=(films, 0, 0), minutes=1.0, seed=seed)
    made = folder / "clips"
    if not made.is_dir():
        made.mkdir()
        for label, name in enumerate(CLASSES):
            for number in range(clips):
                frames = render_clip(name, np.random.default_rng([seed, label, number]))
                write_video(made / f"{name}-{number}.mp4", frames, frames_per_second=FRAMES_PER_SECOND)
        rows = read_table(folder / "films" / "segments.csv", root=folder / "films", task=MultiLabel).items
        for film in sorted({row.path for row in rows}):
            for number, (start, end) in enumerate(choose_cuts([row for row in rows if row.path == film])):
                frames = read_frames(folder / "films" / film, np.arange(start, end, 1 / FILM_RATE))
                write_video(made / f"cut-{Path(film).stem}-{number}.mp4", frames, frames_per_second=FILM_RATE)
    return sorted(made.iterdir())


def choose_cuts(acts: list[Item]) -> list[tuple[float, float]]:
    """Start and end, in seconds, of up to MOST_CUTS cuts of a film, each of one act; no two share any of its time."""
    cuts: list[tuple[float, float]] = []
    for act in sorted(acts, key=lambda act: act.start_seconds or 0.0):
        if act.end_seconds is None:
            continue
        start, end = max(0.0, (act.start_seconds or 0.0) - AROUND_SECONDS), act.end_seconds + AROUND_SECONDS
        if not cuts or start >= cuts[-1][1]:
            cuts.append((start, end))
    return cuts[:MOST_CUTS]


def change(folder: Path, clips: list[Path], seed: int) -> dict[Path, tuple[Path, str]]:
    """The copies: of which clip, and how they were changed."""
    found = {}
    for number, (name, (make, crf, faster)) in enumerate(CHANGES.items()):
        place = folder / "copies" / f"{number}"
        place.mkdir(parents=True, exist_ok=True)
        for at, clip in enumerate(clips):
            copy = place / clip.name
            found[copy] = clip, name
            if copy.exists():
                continue
            times = index(clip).times
            frames = np.ascontiguousarray(make(read_frames(clip, times), np.random.default_rng([seed, number, at])))
            rate = (FILM_RATE if clip.name.startswith("cut") else FRAMES_PER_SECOND) * faster
            write_video(copy, frames, frames_per_second=rate, crf=crf)
    return found


def measure(folder: Path, clips: int, films: int, seed: int) -> None:
    sources = render(folder, clips, films, seed)
    copies = change(folder, sources, seed)
    origin = {str(path.absolute()): str(clip.absolute()) for path, (clip, _) in copies.items()}
    origin |= {str(clip.absolute()): str(clip.absolute()) for clip in sources}
    begun = time.monotonic()
    sets = join(find_pairs(list(origin)))
    seconds = time.monotonic() - begun
    side = {copy.path: copy.mirrored for copies in sets for copy in copies}
    found = {frozenset(pair) for copies in sets for pair in combinations([copy.path for copy in copies], 2)}
    for kind in ("camera", "cut"):
        print(f"{kind}:")
        for name in CHANGES:
            asked = [(str(c.absolute()), str(path.absolute())) for path, (c, how) in copies.items() if how == name]
            asked = [pair for pair in asked if Path(pair[0]).name.startswith("cut") == (kind == "cut")]
            hits = [pair for pair in asked if frozenset(pair) in found]
            right = sum((side[one] != side[other]) == ("mirrored" in name) for one, other in hits)
            print(f"  {name:<42} {len(hits):>4} of {len(asked)}, {right} with the right side")
        files = [path for path in origin if Path(path).name.startswith("cut") == (kind == "cut")]
        true = {frozenset(pair) for pair in combinations(files, 2) if origin[pair[0]] == origin[pair[1]]}
        of_kind = {pair for pair in found if pair <= set(files)}
        right = len(of_kind & true)
        print(
            f"  pairs of all: recall {right / len(true):.4f}, precision {right / max(1, len(of_kind)):.4f}, {len(true)}"
        )
        wrong = [sorted(Path(path).name for path in pair) for pair in of_kind - true]
        print(f"  wrong: {len(wrong)} {wrong[:4]}")
    print(f"across: {sum(1 for pair in found if len({Path(path).name.startswith('cut') for path in pair}) > 1)}")
    print(f"{len(origin)} files, {seconds:.1f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--films", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    measure(given.folder, given.clips, given.films, given.seed)
