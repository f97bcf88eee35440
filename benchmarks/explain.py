"""How faithful explanations are, on clips whose truth is known, beside other ways to explain.

python benchmarks/explain.py FOLDER [--minutes 20]

Rendered clips in which one object of several does something for a part of the time: which one, where and when is known,
and the class is what it does. The test has scenes and objects that training never saw. A second set, the shortcut: in
half of the training clips, and in all test clips, a tinted patch of the background betrays the class; a faithful map must
point at it.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from tubelet.data.table import Item, write_table
from tubelet.media.writer import write_video
from tubelet.synthetic.films import OBJECTS, Act, Film, act_masks, render_film
from tubelet.synthetic.objects import CLASSES, CYCLES_PER_SECOND, HOMES, draw_object
from tubelet.synthetic.scenes import FRAMES_PER_SECOND, draw_scene

SECONDS, ACT_SECONDS = 3.2, (1.2, 1.8)
CLIPS = {"train": 400, "test": 40}  # of each class
FRAMES, SIZE, TUBELET = 32, (72, 96), (4, 12)


def draw_clip(split: str, number: int, *, betrayed: bool) -> Film:
    """A short film in which one object of several does one thing."""
    seeds = (7, ("train", "val", "test").index(split), number)
    rng = np.random.default_rng(seeds)
    frames = round(SECONDS * FRAMES_PER_SECOND)
    label, count = CLASSES[number % len(CLASSES)], int(rng.integers(OBJECTS[0], OBJECTS[1] + 1))
    length = round(rng.uniform(*ACT_SECONDS) * FRAMES_PER_SECOND)
    start, actor = int(rng.integers(frames - length + 1)), int(rng.integers(count))
    speeds = np.zeros((count, len(CLASSES), frames))
    speed = rng.uniform(*CYCLES_PER_SECOND) * rng.choice([-1, 1]) / FRAMES_PER_SECOND
    speeds[actor, CLASSES.index(label), start : start + length] = speed
    objects = tuple(draw_object(home, one, split, rng) for home, one in zip(rng.permutation(HOMES), speeds))
    act = Act(start, start + length, label, actor, betrayed)
    return Film(f"{split}-{number:04d}", split, seeds, draw_scene(frames, split, rng), objects, (act,))


def render(folder: Path, *, shortcut: bool) -> Path:
    """Clips and a table of them, with where and when it is done beside each: masks (T, H, W) bool as .npz."""
    table, items = folder / "clips.csv", list[Item]()
    if table.is_file():
        return table
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in CLIPS.items():
        for number in range(count * len(CLASSES)):
            film = draw_clip(split, number, betrayed=shortcut and (split == "test" or number // len(CLASSES) % 2 == 0))
            frames, seen = (np.concatenate(parts) for parts in zip(*render_film(film), strict=True))
            write_video(folder / f"{film.name}.mp4", frames, frames_per_second=FRAMES_PER_SECOND)
            if split == "test":
                (act,) = film.acts
                masks = {name: np.zeros(seen.shape, bool) for name in ("object", "patch")}
                for name, mask in act_masks(act, seen, 0).items():
                    masks[name][act.start : act.end] = mask
                np.savez_compressed(folder / f"{film.name}.npz", **masks)
            items.append(Item(f"{film.name}.mp4", film.acts[0].label, split=split, group=film.name))
    write_table(table, items)
    return table


def train(table: Path, out: Path, minutes: float) -> Path:
    """A run, trained as a user would."""
    if not (out / "results.json").is_file():
        size = ["--frames", str(FRAMES), "--size", *map(str, SIZE), "--seconds-between-frames", "0.1"]
        command = [sys.executable, "-m", "tubelet", "train", str(table), *size, "--minutes", str(minutes)]
        subprocess.run([*command, "--out", str(out)], check=True)
    print(json.dumps({"run": str(out), "accuracy": json.loads((out / "results.json").read_text())["accuracy"]}))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=20)
    arguments = parser.parse_args()
    for name in ("plain", "shortcut"):
        table = render(arguments.folder / name, shortcut=name == "shortcut")
        train(table, arguments.folder / f"run-{name}", arguments.minutes)


if __name__ == "__main__":
    main()
