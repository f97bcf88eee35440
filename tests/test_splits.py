"""Splits are fair to each class, keep groups whole, and are the same everywhere."""

import hashlib
import random
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from naming import naming

from tubelet.data.items import Item, Source
from tubelet.data.splits import assign_splits
from tubelet.tasks import Classification, MultiLabel, Regression, Task


def _source(labels_and_groups: list[tuple[str, str]]) -> Source:
    items = tuple(
        Item(f"{label}/{i:04d}.mp4", label, group=group) for i, (label, group) in enumerate(labels_and_groups)
    )
    return Source(Path("/data"), "video", items, Classification(tuple(sorted({item.label for item in items}))))


def _counts(source: Source, split: str) -> Counter[str]:
    return Counter(item.label for item in source.items if item.split == split)


@pytest.mark.parametrize("val_share", [0.05, 0.2, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(3))
def test_every_class_is_held_out_by_its_share(val_share: float, seed: int) -> None:
    sizes = {"a": 2, "b": 3, "c": 7, "d": 10, "e": 101}
    source = assign_splits(
        _source([(label, "") for label, n in sizes.items() for _ in range(n)]), val_share=val_share, seed=seed
    )
    val, train = _counts(source, "val"), _counts(source, "train")
    for label, n in sizes.items():
        wanted = min(max(val_share * n, 1), n - 1)
        assert abs(val[label] - wanted) <= 0.5
        assert val[label] + train[label] == n
    assert source.notes == ()


@pytest.mark.parametrize("trial", range(60))
def test_groups_stay_whole_and_classes_on_both_sides(trial: int) -> None:
    draw = random.Random(trial)
    across = trial % 2  # groups such as people, who do several things, or recordings of one thing
    pairs = []
    for _ in range(draw.randint(6, 120)):
        label = draw.choice("abc")
        pairs.append((label, f"{'' if across else label}{draw.randint(0, 7)}"))
    source = assign_splits(_source(pairs), val_share=draw.choice([0.1, 0.2, 0.4]), seed=trial)
    sides = defaultdict(set)
    groups = defaultdict(set)
    for item in source.items:
        sides[item.group].add(item.split)
        groups[item.label].add(item.group)
    assert all(len(found) == 1 for found in sides.values())
    for label in source.classes:
        assert _counts(source, "train")[label] >= 1
        if len(groups[label]) == 1:
            assert _counts(source, "val")[label] == 0
            assert any("are in one group" in note and repr(label) in note for note in source.notes)
        elif not across:
            assert _counts(source, "val")[label] >= 1


def test_many_equal_groups_come_near_the_share() -> None:
    pairs = [(label, f"{label}{i % 25}") for label in "abcde" for i in range(150)]
    source = assign_splits(_source(pairs))
    assert all(abs(_counts(source, "val")[label] - 30) <= 3 for label in "abcde")


@pytest.mark.parametrize("seed", range(30))
def test_a_large_group_does_not_crowd_out_a_better_fit(seed: int) -> None:
    pairs = [("a", f"two{i // 2}") for i in range(12)]
    source = assign_splits(_source([("a", "crowd")] * 7 + pairs), seed=seed)
    assert _counts(source, "val") == {"a": 4}


def test_no_class_loses_its_last_train_clips_to_another() -> None:
    """The first group would serve a better, but it is all there is of b."""
    source = assign_splits(_source([("a", "first")] + [("b", "first")] * 3 + [("a", "second")] * 9))
    assert _counts(source, "val") == {"a": 9}


@pytest.mark.parametrize("seed", range(10))
def test_two_large_groups_are_parted_for_want_of_better(seed: int) -> None:
    source = assign_splits(_source([("a", "big")] * 9 + [("a", "smaller")] * 8), seed=seed)
    assert _counts(source, "val") == {"a": 8}


@pytest.mark.parametrize("seed", range(5))
def test_the_split_does_not_depend_on_the_order_or_the_root(seed: int) -> None:
    source = _source([(label, f"g{i % 9}" if i % 2 else "") for label in "abc" for i in range(40)])
    shuffled = random.Random(seed).sample(source.items, len(source.items))
    here = assign_splits(source, seed=seed)
    there = assign_splits(replace(source, items=tuple(shuffled), root=Path("/mnt")), seed=seed)
    assert set(here.items) == set(there.items)


def test_another_seed_gives_another_split() -> None:
    source = _source([(label, "") for label in "ab" for _ in range(50)])
    assert len({assign_splits(source, seed=seed).items for seed in range(5)}) == 5


def test_the_draw_rests_on_sha256_of_seed_and_name_alone() -> None:
    """Oracle: lone clips are held out in the order of their hashes, so neither library nor machine has a say."""
    source = assign_splits(_source([(label, "") for label in "ab" for _ in range(10)]), seed=5)
    for label in "ab":
        paths = [item.path for item in source.items if item.label == label]
        first = sorted(paths, key=lambda path: hashlib.sha256(f"5/{path}".encode()).digest())[:2]
        assert sorted(first) == [item.path for item in source.items if item.label == label and item.split == "val"]


def test_clips_of_one_file_stay_together() -> None:
    items = tuple(
        Item(f"{n}.mp4", label, start, start + 1.0) for n in range(8) for start, label in ((0.0, "a"), (1.0, "b"))
    )
    source = assign_splits(Source(Path("/data"), "video", items, Classification(("a", "b"))), val_share=0.25)
    sides = {item.path: item.split for item in source.items}
    assert all(sides[item.path] == item.split for item in source.items)
    assert _counts(source, "val") == {"a": 2, "b": 2}


def test_ucf101_names_keep_recordings_together() -> None:
    items = tuple(
        Item(f"{label}/v_{label}_g{group:02d}_c{cut:02d}.avi", label)
        for label in ("Archery", "Bowling")
        for group in range(1, 11)
        for cut in range(1, 5)
    )
    source = assign_splits(Source(Path("/data"), "video", items, Classification(("Archery", "Bowling"))))
    assert {item.group for item in source.items if item.label == "Archery"} == {
        f"Archery/g{g:02d}" for g in range(1, 11)
    }
    sides = defaultdict(set)
    for item in source.items:
        sides[item.group].add(item.split)
    assert all(len(found) == 1 for found in sides.values())
    assert _counts(source, "val") == {"Archery": 8, "Bowling": 8}
    assert source.notes[0].startswith("80 clips named as in UCF101")


@pytest.mark.parametrize("task", [MultiLabel(("jump", "run")), Regression(("label",))])
def test_recordings_stay_together_whatever_their_cuts_are_labelled_with(task: Task) -> None:
    cells = ("1", "2", "3", "4") if isinstance(task, Regression) else ("jump;run", "jump", "run", "(none)")
    items = tuple(Item(f"v_Jump_g{group:02d}_c{cut:02d}.avi", cells[cut]) for group in range(10) for cut in range(4))
    source = assign_splits(Source(Path("/data"), "video", items, task))
    assert {item.group for item in source.items} == {f"Jump/g{group:02d}" for group in range(10)}
    assert sum(item.split == "val" for item in source.items) == 8


def test_a_given_split_stays() -> None:
    items = (
        Item("a.mp4", "x", split="train"),
        Item("b.mp4", "y", split=""),
        Item("c.mp4", "x", split="val"),
        Item("d.mp4", "y", split="test"),
    )
    source = assign_splits(Source(Path("/data"), "video", items, Classification(("x", "y"))))
    assert [item.split for item in source.items] == ["train", "train", "val", "test"]
    assert source.notes == ("1 clip without a split, taken for train", "no val clips for 'y'")


def test_val_is_cut_from_a_lone_train() -> None:
    source = _source([(label, "") for label in "ab" for _ in range(10)])
    train = replace(source, items=tuple(replace(item, split="train") for item in source.items))
    assert _counts(assign_splits(train), "val") == {"a": 2, "b": 2}


def test_a_group_torn_by_the_given_split_is_noted() -> None:
    items = (Item("a.mp4", "x", split="train", group="g"), Item("b.mp4", "x", split="test", group="g"))
    notes = assign_splits(Source(Path("/data"), "video", items, Classification(("x",)))).notes
    assert notes == ("1 group with clips both in train and in val or test, which flatters the result: 'g'",)


def test_split_faults() -> None:
    source = _source([(label, "") for label in "ab" for _ in range(4)])
    for share in (0.0, 1.0, float("nan")):
        with pytest.raises(ValueError, match=naming(f"val_share={share}", 0, 1)):
            assign_splits(source, val_share=share)
    held = replace(
        source, items=tuple(replace(item, split="val" if item.label == "b" else "") for item in source.items)
    )
    with pytest.raises(ValueError, match=naming("train", "'b'")):
        assign_splits(held)


def test_copies_merge_the_groups_they_are_in_directly_and_through_others() -> None:
    source = _source([("a", "one"), ("a", "two"), ("a", "three"), ("a", "three"), ("a", ""), ("a", "")])
    paths = [item.path for item in source.items]
    copies = ((paths[0], paths[1]), (paths[1], paths[2]), (paths[3], paths[4]))
    groups = [item.group for item in assign_splits(replace(source, copies=copies)).items]
    assert len(set(groups[:5])) == 1
    assert groups[5] == paths[5]
    for order in (copies[::-1], copies[1:] + copies[:1]):
        again = assign_splits(replace(source, copies=order))
        assert [item.group for item in again.items] == groups
        assert again.notes[-1] == "3 groups with copies of clips of others; they stay together"
