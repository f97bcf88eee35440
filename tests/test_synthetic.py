"""Untrimmed videos: the truth says what is done where and when, and nothing else says it."""

import csv
from collections import Counter
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tubelet.data.segments import read_segments
from tubelet.data.table import Item, read_table
from tubelet.media.reader import index, read_frames
from tubelet.synthetic.films import APART_SECONDS, SPLITS, Film, draw_acts, draw_film, render_film
from tubelet.synthetic.objects import CLASSES, HOMES, PATTERNS, SHAPES, draw_object, split_looks
from tubelet.synthetic.scenes import FRAMES_PER_SECOND, HEIGHT_PX, HUES, PATCHES, WIDTH_PX, patch_mask
from tubelet.synthetic.untrimmed import render_untrimmed, segment_mask
from tubelet.tasks import MultiLabel

SECONDS = 9.0
TINY: dict[str, Any] = {"files": (2, 1, 1), "minutes": SECONDS / 60, "seed": 13}  # training has all classes
RANDOM = np.random.default_rng


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_untrimmed(tmp_path_factory.mktemp("plain") / "set", **TINY, copies=1)


@pytest.fixture(scope="module")
def shortcut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_untrimmed(tmp_path_factory.mktemp("shortcut") / "set", **TINY, variant="shortcut")


def items_of(table: Path) -> list[Item]:
    found = read_table(table, root=table.parent, task=MultiLabel)
    assert found.problems == []
    return found.items


def film_of(name: str, **settings: Any) -> Film:
    split, number = name.split("-")
    return draw_film(split, int(number), seconds=SECONDS, seed=TINY["seed"], **settings)


def rendered(film: Film) -> tuple[np.ndarray, np.ndarray]:
    frames, seen = zip(*render_film(film), strict=True)
    return np.concatenate(frames), np.concatenate(seen)


def test_the_table_is_the_truth_of_the_films(plain: Path) -> None:
    names = ["train-0000", "train-0001", "val-0000", "test-0000"]
    assert items_of(plain) == [item for name in names for item in film_of(name).items]
    assert {item.label for item in items_of(plain)} <= {"", *CLASSES}
    for item in items_of(plain):
        assert item.path == f"videos/{item.group}.mp4"
        assert item.group.startswith(item.split)


def test_a_training_reads_the_segments(plain: Path) -> None:
    for recording in read_segments(plain, minimum=1).recordings:
        film = film_of(recording.group)
        assert (recording.split, recording.seconds) == (film.split, pytest.approx(SECONDS))
        truth = [(item.start_seconds, item.end_seconds, item.label) for item in film.items if item.label]
        assert list(recording.segments) == truth


def test_the_videos_show_the_films(plain: Path) -> None:
    for name in ("train-0000", "test-0000"):
        frames, _ = rendered(film_of(name))
        found = index(plain.parent / "videos" / f"{name}.mp4")
        assert np.allclose(found.times, np.arange(len(frames)) / FRAMES_PER_SECOND, atol=1e-3)
        decoded = read_frames(plain.parent / "videos" / f"{name}.mp4", found.times)
        assert decoded.shape == (SECONDS * FRAMES_PER_SECOND, HEIGHT_PX, WIDTH_PX, 3)
        assert np.abs(decoded - frames.astype(float)).mean() < 5


def test_the_same_seed_gives_the_same_set_and_more_files_leave_the_first_as_they_were(
    plain: Path, tmp_path: Path
) -> None:
    again = render_untrimmed(tmp_path / "again", **TINY | {"files": (3, 1, 2)})
    first, second = items_of(plain), items_of(again)
    assert first == [item for item in second if item.group not in ("train-0002", "test-0001")]
    assert len(first) < len(second)
    for name in ("train-0001", "test-0000"):
        for file in (f"videos/{name}.mp4", f"masks/{name}.npz"):
            assert (plain.parent / file).read_bytes() == (again.parent / file).read_bytes()
    assert not np.array_equal(rendered(film_of("train-0000"))[0], rendered(film_of("train-0001"))[0])
    assert film_of("train-0000").items != draw_film("train", 0, seconds=SECONDS, seed=4).items


def test_films_come_in_small_pieces() -> None:
    assert max(len(frames) for frames, _ in render_film(draw_film("train", 0, seconds=30))) <= 32


def test_acts_of_one_class_or_object_stand_apart_and_others_may_overlap() -> None:
    overlapping = 0
    for seed in range(20):
        acts = draw_acts(180 * FRAMES_PER_SECOND, CLASSES, 4, RANDOM(seed))
        assert acts == sorted(acts, key=lambda act: act.start)
        for one, other in combinations(acts, 2):
            if one.label == other.label or one.actor == other.actor:
                assert other.start - one.end >= APART_SECONDS * FRAMES_PER_SECOND
            overlapping += other.start < one.end
    assert overlapping > 20


def test_lengths_spread_over_their_range_and_half_of_the_time_is_quiet() -> None:
    frames = 180 * FRAMES_PER_SECOND
    films = [draw_acts(frames, CLASSES, 4, RANDOM(seed)) for seed in range(60)]
    seconds = np.array([(act.end - act.start) / FRAMES_PER_SECOND for acts in films for act in acts])
    assert seconds.min() >= 0.8
    assert seconds.max() <= 20
    counts, _ = np.histogram(seconds, np.geomspace(0.79, 20.01, 5))
    assert all(0.18 < count / len(seconds) < 0.32 for count in counts)
    busy = []
    for acts in filter(None, films):
        is_busy = np.zeros(frames, bool)
        for act in acts:
            is_busy[act.start : act.end] = True
        busy.append(is_busy.mean())
    assert 0.5 < np.mean(busy) < 0.55
    assert 0 < sum(not acts for acts in films) < 15
    assert draw_film("train", 0, seconds=8).items  # the shortest there are


def without(film: Film, actor: int) -> Film:
    """The film with one object far out of sight."""
    hidden = replace(film.objects[actor], x=film.objects[actor].x + 1000)
    return replace(film, objects=(*film.objects[:actor], hidden, *film.objects[actor + 1 :]))


def painted(film: Film, actor: int, level: float) -> Film:
    one = replace(film.objects[actor], colours=np.full((2, 3), level, np.float32))
    return replace(film, objects=(*film.objects[:actor], one, *film.objects[actor + 1 :]))


def test_masks_are_the_pixels_that_change_with_the_object(plain: Path) -> None:
    film = film_of("test-0000")
    frames, _ = rendered(film)
    assert len(film.acts) > 2
    for act, item in zip(film.acts, film.items, strict=True):
        mask = segment_mask(plain.parent, item)
        assert mask.shape == (act.end - act.start, HEIGHT_PX, WIDTH_PX)
        assert mask.mean() > 0.005
        black, white, gone = (
            rendered(one)[0][act.start : act.end]
            for one in (painted(film, act.actor, 0), painted(film, act.actor, 255), without(film, act.actor))
        )
        assert np.array_equal(mask, (black != white).any(-1))
        changed = (frames[act.start : act.end] != gone).any(-1)
        assert not changed[~mask].any()
        assert changed[mask].mean() > 0.9


def test_an_object_moves_from_the_first_frame_of_an_act_to_the_last_and_only_then() -> None:
    speeds = np.zeros((len(CLASSES), 90))
    names = ("x", "y", "radius", "angle")
    moving = {"sway": "x", "bounce": "y", "circle": "xy", "pulse": ("radius",), "spin": ("angle",), "blink": ()}
    for row, label in enumerate(CLASSES):
        acting = speeds.copy()
        acting[row, 30:60] = 0.1
        idle, busy = (draw_object(HOMES[0], one, "train", RANDOM(7)) for one in (speeds, acting))
        assert (idle.shape, idle.pattern, idle.colours.tolist()) == (busy.shape, busy.pattern, busy.colours.tolist())
        for name in names:
            steps = np.diff(getattr(busy, name) - getattr(idle, name))
            is_moving = np.abs(steps) > 1e-9
            assert is_moving[29:59].all() == (name in moving[label])
            assert is_moving.sum() == 30 * (name in moving[label])
        assert (np.diff(busy.swapped).sum() > 4) == (label == "blink")


def test_objects_of_a_film_move_in_their_acts_and_only_then() -> None:
    for number in range(3):
        film = draw_film("val", number, seconds=60)
        for actor, thing in enumerate(film.objects):
            for label, values in (("spin", thing.angle), ("pulse", thing.radius)):
                is_acting = np.zeros(len(values), bool)
                for act in film.acts:
                    is_acting[act.start : act.end] |= (act.actor, act.label) == (actor, label)
                assert np.array_equal(np.diff(values) != 0, is_acting[1:])


def poses(label: str | None, seeds: range) -> dict[str, np.ndarray]:
    """How objects stand in the middle of an act, or without one: one value for each seed."""
    speeds = np.zeros((len(CLASSES), 40))
    if label:
        speeds[CLASSES.index(label)] = 0.11
    objects = [draw_object((48, 20), speeds, "train", RANDOM(seed)) for seed in seeds]
    values = {name: np.array([getattr(one, name)[-1] for one in objects]) for name in ("x", "y", "radius", "angle")}
    values |= {"angle": values["angle"] % (2 * np.pi), "swapped": np.array([one.swapped[-1] for one in objects])}
    return values | {"far": np.hypot(values["x"] - 48, values["y"] - 20), "sum": values["x"] + values["y"]}


def test_no_single_frame_tells_what_is_done() -> None:
    idle = poses(None, range(600))
    for label in CLASSES:
        for name, values in poses(label, range(1000, 1600)).items():
            grid = np.sort(np.concatenate([values, idle[name]]).astype(float))
            shares = [np.searchsorted(np.sort(one), grid, side="right") / 600 for one in (values, idle[name])]
            assert np.abs(shares[0] - shares[1]).max() < 0.12, (label, name)  # Kolmogorov-Smirnov, p about 0.0003


def test_neither_look_nor_place_says_what_an_object_does() -> None:
    """Counts of each class with each shape, pattern and home are those of independent draws."""
    films = [draw_film("train", number, seconds=20) for number in range(150)]
    counts: Counter[tuple[str, str]] = Counter()
    totals: Counter[str] = Counter()
    for film in films:
        for act in film.acts:
            thing = film.objects[act.actor]
            left, top = thing.x.mean() // (WIDTH_PX / 3), thing.y.mean() // (HEIGHT_PX / 2)
            for trait in (thing.shape, thing.pattern, f"{left:g} {top:g}"):
                counts[act.label, trait] += 1
                totals[trait] += 1
            totals[act.label] += 1
    acts = sum(totals[label] for label in CLASSES)
    traits = [trait for trait in totals if trait not in CLASSES]
    assert len(traits) == len(SHAPES) + len(PATTERNS) + len(HOMES)
    for label in CLASSES:
        for trait in traits:
            expected = totals[label] * totals[trait] / acts
            assert abs(counts[label, trait] - expected) < 4 * expected**0.5


def test_splits_share_no_palette_and_no_look() -> None:
    edges = sorted(HUES.values())
    assert all(one[1] <= other[0] for one, other in pairwise(edges))
    looks = {split: set(split_looks(split)) for split in SPLITS}
    assert sum(map(len, looks.values())) == len(set.union(*looks.values())) == len(SHAPES) * len(PATTERNS)
    assert all({shape for shape, _ in ones} == set(SHAPES) for ones in looks.values())
    assert all({pattern for _, pattern in ones} == set(PATTERNS) for ones in looks.values())
    for split in SPLITS:
        things = [thing for number in range(5) for thing in draw_film(split, number, seconds=8).objects]
        assert {(thing.shape, thing.pattern) for thing in things} <= looks[split]


def test_a_shortcut_is_a_patch_that_lasts_as_long_as_the_act(plain: Path, shortcut: Path) -> None:
    items = items_of(shortcut)
    assert items == items_of(plain)
    betrayed = 0
    for name in dict.fromkeys(item.group for item in items):
        film = film_of(name, betrayed=0.5 if name.startswith("train") else 0.0)
        (frames, seen), (bare, _) = rendered(film), rendered(film_of(name))
        assert film.items == [item for item in items if item.group == name]
        expected = np.zeros(seen.shape, bool)
        for act, item in zip(film.acts, film.items):
            if not act.betrayed:
                with pytest.raises(KeyError, match="patch"):
                    segment_mask(shortcut.parent, item, "patch")
                continue
            betrayed += 1
            mask = segment_mask(shortcut.parent, item, "patch")
            expected[act.start : act.end] |= mask
            assert np.array_equal(mask, patch_mask(CLASSES.index(act.label)) & (seen[act.start : act.end] == 0))
        changed = (frames != bare).any(-1)
        assert not changed[~expected].any()
        assert not expected.any() or changed[expected].mean() > 0.9
    assert betrayed > 0


def test_half_of_the_training_acts_are_betrayed_where_asked_for() -> None:
    for betrayed, low, high in ((0.0, 0, 0), (0.5, 0.4, 0.6), (1.0, 1, 1)):
        films = [draw_film("test", number, seconds=60, betrayed=betrayed) for number in range(20)]
        assert low <= np.mean([act.betrayed for film in films for act in film.acts]) <= high
    assert len(PATCHES) == len(CLASSES)
    assert not sum(patch_mask(number).astype(int) for number in range(len(PATCHES))).max() > 1


def test_weak_labels_say_of_training_files_only_which_classes_occur(tmp_path: Path) -> None:
    table = render_untrimmed(tmp_path / "weak", files=(2, 1, 1), minutes=0.15, variant="weak")
    strong, weak = items_of(table), items_of(table.with_name("weak.csv"))
    assert [item for item in weak if item.split != "train"] == [item for item in strong if item.split != "train"]
    of_training = [item for item in weak if item.split == "train"]
    assert {(item.start_seconds, item.end_seconds) for item in of_training} == {(None, None)}
    assert Counter((item.path, item.label) for item in of_training) == Counter(
        {(item.path, item.label) for item in strong if item.split == "train"}
    )
    assert max(Counter(item.path for item in of_training).values()) <= 2


def test_copies_look_like_what_they_are_copies_of(plain: Path) -> None:
    with open(plain.with_name("copies.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [{"path": "videos/copy-of-train-0000.mp4", "copy_of": "videos/train-0000.mp4"}]
    times = index(plain.parent / rows[0]["path"]).times[::20]
    copy, original = (read_frames(plain.parent / rows[0][name], times).astype(float) for name in ("path", "copy_of"))
    cropped = original[:, 2:-4, 4:-2]
    assert copy.shape == cropped.shape
    assert copy.mean() > cropped.mean() + 8
    assert np.corrcoef(copy.ravel(), cropped.ravel())[0, 1] > 0.95


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"variant": "fancy"}, r"'fancy'.* plain, shortcut, shortcut-everywhere, weak"),
        ({"files": (0, 0, 0)}, r"\(0, 0, 0\)"),
        ({"files": (1, -1, 0)}, r"\(1, -1, 0\)"),
        ({"copies": 3}, "3, expected 0 to 2"),
        ({"minutes": 0.05}, "3 seconds, expected 6.4"),
    ],
)
def test_what_cannot_be_rendered_is_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        render_untrimmed(tmp_path / "set", **TINY | settings)
    assert [*tmp_path.iterdir()] == []


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(ValueError, match="not an empty folder"):
        render_untrimmed(tmp_path, **TINY)
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine.txt"]
