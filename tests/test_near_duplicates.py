"""Copies on both sides of a split are found, whatever was done to them; clips that differ are not taken for copies."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_sets import spoil, write_image, write_sounds

from tubelet.data import near_duplicates
from tubelet.data.items import Item, Source, find_items
from tubelet.data.near_duplicates import ALIKE, PLACES
from tubelet.data.splits import assign_splits
from tubelet.media.writer import write_video
from tubelet.synthetic.camera_motions import CLASSES, FRAMES, render_clip
from tubelet.tasks import Classification

find_near_duplicates = partial(near_duplicates.find_near_duplicates, seconds=np.inf)
near_duplicate_notes = partial(near_duplicates.near_duplicate_notes, seconds=np.inf)


def clip(name: str, number: int) -> np.ndarray:
    return render_clip(name, np.random.default_rng([11, number]))


def resized(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    pixels = torch.from_numpy(frames.copy()).permute(0, 3, 1, 2).float()
    scaled = F.interpolate(pixels, (height, width), mode="bilinear", antialias=True)
    return scaled.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


def cropped(frames: np.ndarray, share: float, at: tuple[float, float]) -> np.ndarray:
    """A share of each side is cut off, of it the shares `at` above and to the left."""
    (top, left), (height, width) = at, frames.shape[1:3]
    y, x = round(top * share * height), round(left * share * width)
    return frames[:, y : y + round((1 - share) * height) // 2 * 2, x : x + round((1 - share) * width) // 2 * 2]


# What is done to a copy, and the quality it is encoded with.
CHANGES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], int]] = {
    "encoded again": (lambda frames: frames, 38),
    "half the size": (lambda frames: resized(frames, 32, 40), 28),
    "twice the size": (lambda frames: resized(frames, 128, 160), 28),
    "squeezed": (lambda frames: resized(frames, 64, 64), 28),
    "darker": (lambda frames: (0.6 * frames).astype(np.uint8), 28),
    "flat and bright": (lambda frames: (0.5 * frames + 110).astype(np.uint8), 28),
    "a corner cut off": (lambda frames: cropped(frames, 0.1, (1, 1)), 28),
    "10 % cropped": (lambda frames: cropped(frames, 0.1, (0.3, 0.7)), 28),
    "5 % cropped and encoded again": (lambda frames: cropped(frames, 0.05, (0.5, 0.5)), 35),
    "one frame cut off": (lambda frames: frames[1:], 28),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Train: clips 0 to 9 of two classes. Test: of each class, a changed copy of each clip of train, and others."""
    root = tmp_path_factory.mktemp("data")
    items = []

    def add(split: str, label: str, name: str, frames: np.ndarray, crf: int) -> None:
        (root / split).mkdir(exist_ok=True)
        path = f"{split}/{label}-{name}.mp4"
        write_video(root / path, frames, frames_per_second=12, crf=crf)
        items.append(Item(path, label, split=split, group=path))

    for label in ("turn_clockwise", "zoom_in"):
        for number, (name, (change, crf)) in enumerate(CHANGES.items()):
            frames = clip(label, number)
            add("train", label, name, frames, 18)
            add("test", label, name, np.ascontiguousarray(change(frames)), crf)
            add("test", label, f"other {number}", clip(label, 100 + number), 18)
    spoil(root / "test" / "zoom_in-other 3.mp4")
    return Source(root, "video", tuple(items), Classification(("turn_clockwise", "zoom_in")))


def test_changed_copies_are_found_and_nothing_else(source: Source) -> None:
    found = find_near_duplicates(source, workers=2)
    assert {one.path for one, _ in found.pairs} == {
        f"test/{label}-{name}.mp4" for label in source.classes for name in CHANGES
    }
    assert all(other.path == one.path.replace("test", "train") for one, other in found.pairs)
    assert (found.held_out, found.train) == (39, 20)  # one cannot be read
    backwards = {"train": "val", "test": "train"}
    turned = replace(source, items=tuple(replace(item, split=backwards[item.split]) for item in source.items))
    assert {(other, one) for one, other in find_near_duplicates(turned).pairs} == {
        (replace(one, split="train"), replace(other, split="val")) for one, other in found.pairs
    }


def test_clips_of_one_class_are_not_alike() -> None:
    """At most one false alarm in 1,000 pairs."""
    pairs = false = 0
    places = np.array([round(place * (FRAMES - 1)) for place in PLACES])
    for name in list(CLASSES)[::2]:  # the others are these backwards
        frames = np.stack([clip(name, number)[places] for number in range(40)])
        grey = frames @ np.array(near_duplicates.LUMA, np.float32)
        shares = near_duplicates._shares
        pictures = shares(64, near_duplicates.SIDE_PX) @ grey @ shares(80, near_duplicates.SIDE_PX).T
        alike = near_duplicates._similarity(pictures[:20], pictures[20:])
        pairs += alike.size
        false += int((alike >= ALIKE).sum())
    assert pairs > 1000
    assert false <= pairs / 1000


def test_stills_of_one_video_on_both_sides(tmp_path: Path) -> None:
    for label in ("move_left", "move_right"):
        (tmp_path / label).mkdir()
        for number in range(6):
            frames = clip(label, number)
            for still in range(3):
                write_image(tmp_path / label / f"{number}-{still}.png", frames[still])
    source = assign_splits(find_items(tmp_path), val_share=0.3, seed=1)
    recording = {item: item.path.partition("-")[0] for item in source.items}
    train = {recording[item] for item in source.items if item.split == "train"}
    torn = {item for item in source.items if item.split == "val" and recording[item] in train}
    found = find_near_duplicates(source)
    assert {one for one, _ in found.pairs} == torn != set()
    assert all(recording[one] == recording[other] for one, other in found.pairs)
    whole = replace(source, items=tuple(replace(item, group=recording[item]) for item in source.items))
    assert find_near_duplicates(whole).pairs == ()  # of one group: told elsewhere


def test_parts_of_a_file_are_told_apart_by_their_times(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", np.concatenate([clip("zoom_in", 0), clip("zoom_in", 1)]), frames_per_second=12)
    write_video(tmp_path / "b.mp4", clip("zoom_in", 1), frames_per_second=12)
    items = [
        Item("b.mp4", "x", split="test"),
        Item("a.mp4", "x", 0.0, 2.0, "train"),
        Item("a.mp4", "x", 2.0, None, "train"),
    ]
    (pair,) = find_near_duplicates(Source(tmp_path, "video", tuple(items), Classification(("x",)))).pairs
    assert pair == (items[0], items[2])


def test_where_all_is_alike_more_is_asked_for(tmp_path: Path) -> None:
    """One camera that never moves: only what is alike beyond that is named."""
    room = clip("zoom_in", 0)[:1].repeat(6, axis=0).astype(np.float32)
    items = []
    for number in range(12):
        things = np.random.default_rng(number).normal(0, 40, (1, 8, 10, 1)).repeat(8, axis=1).repeat(8, axis=2)
        write_video(tmp_path / f"{number}.mp4", (room + things).clip(0, 255).astype(np.uint8), frames_per_second=3)
        items.append(Item(f"{number}.mp4", "x", split="val" if number % 3 == 0 else "train"))
    write_video(tmp_path / "copy.mp4", (room + things).clip(0, 255).astype(np.uint8), crf=35)
    items.append(Item("copy.mp4", "x", split="val"))
    (pair,) = find_near_duplicates(Source(tmp_path, "video", tuple(items), Classification(("x",)))).pairs
    assert [item.path for item in pair] == ["copy.mp4", "11.mp4"]


def test_black_pictures_and_sounds_are_like_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c", "d"):
        picture = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        if name in ("a", "b"):  # all but black, with an edge that is hardly there
            picture[:16], picture[16:] = 7, 8
        write_image(tmp_path / f"{name}.png", picture)
    items = tuple(Item(f"{name}.png", "x", split="val" if name == "b" else "train") for name in "abcd")
    assert find_near_duplicates(Source(tmp_path, "image", items, Classification(("x",)))).pairs == ()
    sounds = assign_splits(find_items(write_sounds(tmp_path / "sounds", 3)))
    assert near_duplicate_notes(sounds) == []


def test_the_note_names_pairs_and_says_what_was_compared(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    (note,) = near_duplicate_notes(source, workers=2)
    assert "(20 of 39)" in note
    assert ".mp4 ~ train/" in note
    assert "39 of 40 held-out and 20 of 20 training" in note
    monkeypatch.setattr(near_duplicates, "MOST_HELD_OUT", 10)
    monkeypatch.setattr(near_duplicates, "MOST_TRAIN", 8)
    (note,) = near_duplicate_notes(source)
    assert "of 40 held-out and 8 of 20 training" in note
    assert note == near_duplicate_notes(replace(source, items=source.items[::-1]))[0]
    assert near_duplicate_notes(source, seconds=0) == []
