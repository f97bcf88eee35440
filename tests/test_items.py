"""Folders become items; what is wrong with them is said; the fingerprint is of the data alone."""

import os
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
from naming import naming

from tubelet.data.items import find_items, fingerprint
from tubelet.data.problems import DataProblems


def _touch(root: Path, *names: str) -> Path:
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(name.encode())
    return root


FOUR = ("walk/a.mp4", "walk/b.mp4", "run/c.mp4", "run/d.mp4")


# ---- folders


def test_class_folders(tmp_path: Path) -> None:
    source = find_items(_touch(tmp_path, *FOUR, "walk/deep/er/e.MKV"))
    assert source.classes == ("run", "walk")
    assert source.kind == "video"
    assert source.root == tmp_path
    assert [(item.path, item.label, item.split) for item in source.items] == [
        ("run/c.mp4", "run", ""),
        ("run/d.mp4", "run", ""),
        ("walk/a.mp4", "walk", ""),
        ("walk/b.mp4", "walk", ""),
        ("walk/deep/er/e.MKV", "walk", ""),
    ]
    assert source.notes == ()


@pytest.mark.parametrize("val", ["val", "valid", "validation", "eval", "Val"])
def test_split_folders(tmp_path: Path, val: str) -> None:
    _touch(tmp_path, "train/walk/a.mp4", "train/run/b.mp4", f"{val}/walk/a.mp4", f"{val}/run/b.mp4", "test/run/c.mp4")
    source = find_items(tmp_path)
    assert {(item.path, item.split) for item in source.items} == {
        ("train/walk/a.mp4", "train"),
        ("train/run/b.mp4", "train"),
        (f"{val}/walk/a.mp4", "val"),
        (f"{val}/run/b.mp4", "val"),
        ("test/run/c.mp4", "test"),
    }
    assert source.classes == ("run", "walk")


def test_a_class_may_be_called_test(tmp_path: Path) -> None:
    source = find_items(_touch(tmp_path, *FOUR, "test/a.mp4", "test/b.mp4"))
    assert source.classes == ("run", "test", "walk")
    assert {item.split for item in source.items} == {""}


def test_folders_without_clips_beside_the_splits_are_passed_over(tmp_path: Path) -> None:
    _touch(tmp_path, "annotations/all.json", *(f"train/{name}" for name in FOUR))
    assert "annotations/all.json" in " ".join(find_items(tmp_path).notes)


@pytest.mark.parametrize(("suffix", "kind"), [(".mp4", "video"), (".png", "image"), (".wav", "sound")])
def test_the_kind_is_told_by_the_suffixes(tmp_path: Path, suffix: str, kind: str) -> None:
    assert find_items(_touch(tmp_path, *(name.replace(".mp4", suffix) for name in FOUR))).kind == kind


def test_what_is_ignored_is_noted(tmp_path: Path) -> None:
    _touch(tmp_path, *FOUR, "walk/._a.mp4", "walk/Thumbs.db", "walk/.cache/x.mp4", "labels.csv", "__MACOSX/walk/z.mp4")
    (tmp_path / "run" / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    os.mkfifo(tmp_path / "run" / "pipe.mp4")
    source = find_items(tmp_path)
    assert len(source.items) == 4
    assert source.notes == (
        "ignored entries that are no regular files (2): 'run/gone.mp4', 'run/pipe.mp4'",
        "ignored files outside class folders (1): 'labels.csv'",
        "ignored files that are no video, image or sound by their suffix (1): 'walk/Thumbs.db'",
        "ignored hidden files and folders (3): '__MACOSX', 'walk/._a.mp4', 'walk/.cache'",
    )


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    _touch(data, *FOUR)
    _touch(elsewhere, "far.mp4")
    (data / "walk" / "far").symlink_to(elsewhere)
    (data / "walk" / "self").symlink_to(data / "walk")
    (data / "walk" / "up").symlink_to(data)
    (data / "knot").symlink_to(data)
    (data / "walk" / "bite").symlink_to(data / "walk" / "bite")
    source = find_items(data)
    assert [item.path for item in source.items] == [*sorted(FOUR), "walk/far/far.mp4"]
    assert "ignored folders met a second time through a link (3): 'knot', 'walk/self', 'walk/up'" in source.notes


def _nothing(root: Path) -> Path:
    return root / "nowhere"


def _a_file(root: Path) -> Path:
    return _touch(root, "a.mp4") / "a.mp4"


FOLDER_FAULTS = {
    "missing": (_nothing, "missing", ("path,label[,start,end,split,group]",)),
    "one file": (_a_file, "layout", ("path,label[,start,end,split,group]",)),
    "empty": (lambda root: root, "layout", ("path,label[,start,end,split,group]",)),
    "hidden only": (lambda root: _touch(root, ".x/a.mp4", ".y"), "layout", ("path,label[,start,end,split,group]",)),
    "flat": (lambda root: _touch(root, "a.mp4", "b.mp4"), "layout", ("2 files",)),
    "flat splits": (
        lambda root: _touch(root, "train/a.mp4", "val/b.mp4"),
        "layout",
        ("2 layout", "train:", "val:"),
    ),
    "one class": (lambda root: _touch(root, *FOUR[:2]), "few-classes", ("'walk'", 1, 2)),
    "one clip": (lambda root: _touch(root, *FOUR[:3]), "few-clips", ("'run'", 1, 2)),
    "no clip": (
        lambda root: _touch(root, *FOUR, "sit/notes.txt", "stand/.hidden.mp4"),
        "empty-class",
        ("2 empty-class", "sit:", "stand:"),
    ),
    "splits beside classes": (
        lambda root: _touch(root, *FOUR, "train/walk/e.mp4"),
        "layout",
        ("'train'", "'run'", "'walk'"),
    ),
    "kinds": (
        lambda root: _touch(root, *FOUR, "walk/a.png", "run/b.wav", "run/c.wav"),
        "mixed-kinds",
        ("1 image", "2 sound", "4 video", "'run/b.wav'", "'run/c.wav'", "'walk/a.png'"),
    ),
    "case": (
        lambda root: _touch(root, *FOUR, "Walk/e.mp4", "Walk/f.mp4"),
        "alike-classes",
        ("'Walk'", "'walk'"),
    ),
    "case across splits": (
        lambda root: _touch(root, "train/walk/a.mp4", "train/run/b.mp4", "val/Walk/a.mp4", "val/run/a.mp4"),
        "alike-classes",
        ("'Walk'", "'walk'"),
    ),
    "unicode": (
        lambda root: _touch(root, *FOUR, *(f"{unicodedata.normalize(form, 'é')}/a.mp4" for form in ("NFC", "NFD"))),
        "alike-classes",
        (r"'e\u0301'", r"'\xe9'"),
    ),
    "unprintable": (lambda root: _touch(root, *FOUR, "a\nb/a.mp4"), "class-name", (r"'a\nb'",)),
}


@pytest.mark.parametrize("fault", FOLDER_FAULTS)
def test_folder_faults(tmp_path: Path, fault: str) -> None:
    make, kind, values = FOLDER_FAULTS[fault]
    folder = make(tmp_path)
    with pytest.raises(DataProblems, match=naming(folder, *values)) as caught:
        find_items(folder)
    assert caught.value.problems[0].kind == kind


def test_one_file_under_two_labels(tmp_path: Path) -> None:
    _touch(tmp_path, *FOUR)
    (tmp_path / "run" / "e.mp4").symlink_to(tmp_path / "walk" / "a.mp4")
    with pytest.raises(DataProblems, match=naming("run/e.mp4", "walk/a.mp4", "'run'", "'walk'")) as caught:
        find_items(tmp_path)
    assert caught.value.problems[0].kind == "two-labels"


def test_a_folder_of_links_back_to_itself_has_no_clips(tmp_path: Path) -> None:
    (tmp_path / "knot").symlink_to(tmp_path)
    with pytest.raises(DataProblems, match=naming(tmp_path)) as caught:
        find_items(tmp_path)
    assert caught.value.problems[0].kind == "layout"


def test_fewer_classes_and_clips_where_the_use_allows(tmp_path: Path) -> None:
    assert len(find_items(_touch(tmp_path, "walk/a.mp4"), minimum_classes=1, minimum_clips=1).items) == 1


# ---- fingerprint


def test_the_fingerprint_is_of_the_data_and_not_of_the_place(tmp_path: Path) -> None:
    here, there = (find_items(_touch(tmp_path / place, *FOUR)) for place in ("here", "there"))
    assert fingerprint(here) == fingerprint(there) == fingerprint(replace(here, items=here.items[::-1], notes=("x",)))


@pytest.mark.parametrize(
    "change",
    [
        {"label": "sit"},
        {"start_seconds": 0.0},
        {"end_seconds": 1.0},
        {"split": "val"},
        {"group": "g"},
        {"path": FOUR[1]},
    ],
    ids=str,
)
def test_the_fingerprint_changes_with_every_field(tmp_path: Path, change: dict[str, str]) -> None:
    source = find_items(_touch(tmp_path, *FOUR))
    changed = replace(source, items=(replace(source.items[0], **change), *source.items[1:]))  # type: ignore[arg-type]
    assert fingerprint(changed) != fingerprint(source)


def test_the_fingerprint_changes_with_a_file_size(tmp_path: Path) -> None:
    source = find_items(_touch(tmp_path, *FOUR))
    before = fingerprint(source)
    (tmp_path / FOUR[0]).write_bytes(b"other")
    assert fingerprint(source) != before


# ---- notes


@pytest.mark.parametrize(("clips", "noted"), [(40, False), (41, True)])
def test_uneven_classes_are_noted(tmp_path: Path, clips: int, noted: bool) -> None:
    _touch(
        tmp_path,
        *(f"walk/{n}.mp4" for n in range(clips)),
        *(f"{name}/{n}.mp4" for name in ("run", "sit") for n in (1, 2)),
    )
    notes = find_items(tmp_path).notes
    expected = (
        f"classes are uneven, more than 20 to 1: 'walk' has {clips} clips, 'run', 'sit' as few as 2; "
        "look at the figures of each class, not at the overall accuracy alone"
    )
    assert notes == ((expected,) if noted else ())
