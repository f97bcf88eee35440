"""Folders and tables become items; faults are said; splits are fair, whole and the same everywhere."""

import hashlib
import os
import random
import unicodedata
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

from tubelet.data.items import Item, Source, find_items, fingerprint, read_split, write_split
from tubelet.data.splits import assign_splits


def _touch(root: Path, *names: str) -> Path:
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(name.encode())
    return root


def _table(root: Path, text: str | bytes, *clips: str) -> Path:
    _touch(root, *(clips or ("a.mp4", "b.mp4", "c.mp4", "d.mp4")))
    file = root / "clips.csv"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


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
        "ignored 2 entries that are no regular files: 'run/gone.mp4', 'run/pipe.mp4'",
        "ignored 1 files outside class folders: 'labels.csv'",
        "ignored 1 files that are no video, image or sound by their suffix: 'walk/Thumbs.db'",
        "ignored 2 hidden files and folders: 'walk/._a.mp4', 'walk/.cache'",
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
    assert "ignored 3 folders met a second time through a link: 'knot', 'walk/self', 'walk/up'" in source.notes


def _nothing(root: Path) -> Path:
    return root / "nowhere"


def _a_file(root: Path) -> Path:
    return _touch(root, "a.mp4") / "a.mp4"


FOLDER_FAULTS = {
    "missing": (_nothing, r"nowhere does not exist; expected a folder for each class"),
    "one file": (_a_file, r"a\.mp4 is a single file; expected a folder for each class"),
    "empty": (lambda root: root, r"the folder is empty; expected a folder for each class"),
    "hidden only": (lambda root: _touch(root, ".x/a.mp4", ".y"), r"the folder is empty; expected"),
    "flat": (lambda root: _touch(root, "a.mp4", "b.mp4"), r"2 files but no class folders; expected a folder for each"),
    "flat splits": (
        lambda root: _touch(root, "train/a.mp4", "val/b.mp4"),
        r"no class folders in 'train', 'val'; expected",
    ),
    "one class": (lambda root: _touch(root, *FOUR[:2]), r"1 class \('walk'\), at least 2 are needed"),
    "one clip": (lambda root: _touch(root, *FOUR[:3]), r"fewer than 2 clips in 'run \(1\)'; add clips or remove"),
    "no clip": (
        lambda root: _touch(root, *FOUR, "sit/notes.txt", "stand/.hidden.mp4"),
        r"no video, image or sound in 'sit', 'stand'; fill or remove these folders",
    ),
    "splits beside classes": (
        lambda root: _touch(root, *FOUR, "train/walk/e.mp4"),
        r"both split folders and other folders of clips, 'train' and 'run', 'walk'",
    ),
    "kinds": (
        lambda root: _touch(root, *FOUR, "walk/a.png", "run/b.wav", "run/c.wav"),
        r"a mix of kinds \(1 image, 2 sound, 4 video files\); keep one kind",
    ),
    "case": (
        lambda root: _touch(root, *FOUR, "Walk/e.mp4", "Walk/f.mp4"),
        r"classes 'Walk' and 'walk' differ only in case, spaces or Unicode form; merge them",
    ),
    "case across splits": (
        lambda root: _touch(root, "train/walk/a.mp4", "train/run/b.mp4", "val/Walk/a.mp4", "val/run/a.mp4"),
        r"classes 'Walk' and 'walk' differ only in case",
    ),
    "unicode": (
        lambda root: _touch(root, *FOUR, *(f"{unicodedata.normalize(form, 'é')}/a.mp4" for form in ("NFC", "NFD"))),
        r"classes 'e\\u0301' and '\\xe9' differ only in case, spaces or Unicode form",
    ),
    "unprintable": (lambda root: _touch(root, *FOUR, "a\nb/a.mp4"), r"class name 'a\\nb' has signs that cannot be"),
}


@pytest.mark.parametrize("fault", FOLDER_FAULTS)
def test_folder_faults(tmp_path: Path, fault: str) -> None:
    make, message = FOLDER_FAULTS[fault]
    with pytest.raises(ValueError, match=message):
        find_items(make(tmp_path))


def test_one_file_under_two_labels(tmp_path: Path) -> None:
    _touch(tmp_path, *FOUR)
    (tmp_path / "run" / "e.mp4").symlink_to(tmp_path / "walk" / "a.mp4")
    with pytest.raises(ValueError, match=r"run/e.mp4 and walk/a.mp4 are one file, labelled 'run' and 'walk'"):
        find_items(tmp_path)


def test_a_folder_of_links_back_to_itself_has_no_clips(tmp_path: Path) -> None:
    (tmp_path / "knot").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="no clips; expected a folder for each class"):
        find_items(tmp_path)


def test_fewer_classes_and_clips_where_the_use_allows(tmp_path: Path) -> None:
    assert len(find_items(_touch(tmp_path, "walk/a.mp4"), minimum_classes=1, minimum_clips=1).items) == 1


# ---- tables


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_tables_of_any_make(tmp_path: Path, separator: str, newline: str, mark: str) -> None:
    lines = [
        "Path,Label,start,end,split,group",
        "a.mp4,walk,0.5,2,train,g",
        "b.mp4,walk,,1.5,Valid,",
        "",
        "c.mp4,run,3,,,",
    ]
    lines += ["d.mp4,run,,,,", ",,,,,", "./sub//e.mp4, run ,,,,"]
    text = mark + newline.join(lines).replace(",", separator) + newline
    file = _table(tmp_path, text, "a.mp4", "b.mp4", "c.mp4", "d.mp4", "sub/e.mp4")
    assert find_items(file).items == (
        Item("a.mp4", "walk", 0.5, 2.0, "train", "g"),
        Item("b.mp4", "walk", None, 1.5, "val", ""),
        Item("c.mp4", "run", 3.0, None, "", ""),
        Item("d.mp4", "run"),
        Item("sub/e.mp4", "run"),
    )


def test_paths_below_the_table_become_relative_and_others_stay(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    _touch(outside, "x.mp4", "y.mp4")
    rows = [f"{inside}/a.mp4,walk", "b.mp4,run", f"{outside}/x.mp4,walk", "../out/y.mp4,run"]
    source = find_items(_table(inside, "\n".join(["path,label", *rows])))
    assert {item.path for item in source.items} == {"a.mp4", "b.mp4", f"{outside}/x.mp4", "../out/y.mp4"}


def test_unread_columns_are_noted(tmp_path: Path) -> None:
    text = "label,fps,path,url\nwalk,25,a.mp4,u\nwalk,25,b.mp4,u\nrun,25,c.mp4,u\nrun,25,d.mp4,u\n"
    assert find_items(_table(tmp_path, text)).notes == ("clips.csv: columns not read: 'fps', 'url'",)


def test_parts_of_one_file_are_different_clips(tmp_path: Path) -> None:
    text = "path,label,start,end\na.mp4,walk,0,1\na.mp4,run,1,2\na.mp4,walk,2,3\na.mp4,run,3,\n"
    assert len(find_items(_table(tmp_path, text)).items) == 4


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("gone.mp4,walk,,,,", r"line 3: no file 'gone\.mp4' in "),
        (" ,walk,,,,", r"line 3: the path is empty"),
        ("a.mp4,,,,,", r"line 3: the label is empty"),
        ("a.mp4", r"line 3: 1 cells, the header has 6"),
        ("a.mp4,walk,,,,,x", r"line 3: 7 cells, the header has 6"),
        ("notes.txt,walk,,,,", r"line 3: 'notes\.txt' is not a video, image or sound by its suffix"),
        ("a.mp4,walk,x,,,", r"line 3: start 'x' is not a number of seconds"),
        ("a.mp4,walk,,nan,,", r"line 3: end 'nan' is not a finite number of seconds from 0 up"),
        ("a.mp4,walk,-1,,,", r"line 3: start '-1' is not a finite number of seconds from 0 up"),
        ("a.mp4,walk,2,2,,", r"line 3: start 2\.0 is not before end 2\.0"),
        ("a.mp4,walk,,0,,", r"line 3: start 0\.0 is not before end 0\.0"),
        ("a.mp4,walk,,,hold,", r"line 3: split 'hold' is unknown; expected one of train, val, valid"),
        ('"a.mp4,walk,,,,', r"line 3: unexpected end of data"),
    ],
)
def test_faulty_lines(tmp_path: Path, row: str, message: str) -> None:
    text = f"path,label,start,end,split,group\nb.mp4,walk,,,,\n{row}"
    with pytest.raises(ValueError, match=message):
        find_items(_table(tmp_path, text, "a.mp4", "b.mp4", "notes.txt"))


def test_all_faults_are_counted_and_twenty_shown(tmp_path: Path) -> None:
    text = "path,label\n" + "".join(f"{i}.mp4,walk\n" for i in range(30))
    with pytest.raises(ValueError, match=r"30 faulty lines; the first 20:") as caught:
        find_items(_table(tmp_path, text))
    assert [line.split(":")[0].strip() for line in str(caught.value).splitlines()[1:]] == [
        f"line {number}" for number in range(2, 22)
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.mp4,walk\nb.mp4,run\n", r"first line reads 'a\.mp4,walk'; expected a header that names at least path and"),
        ("", r"first line reads ''; expected a header"),
        ("a.mp4 0\n", r"first line reads 'a\.mp4 0'; expected a header"),
        ("path,label,label\n", r"the header names 'label' more than once"),
        ("path,label\n\n", r"no clips; expected a line for each below the header"),
        ("path,label\n".encode("utf-16"), r"not a text table in UTF-8; save it as 'CSV UTF-8'"),
        ("path,label\na.mp4,café\n".encode("latin-1"), r"class name 'caf\\udce9' has signs that cannot be printed"),
        ("path,label\na.mp4,walk\nb.mp4,Walk\n", r"classes 'Walk' and 'walk' differ only in case"),
        ("path,label\na.mp4,walk\na.mp4,run\n", r"a\.mp4 labelled 'run' and 'walk'"),
        ("path,label,start,end\na.mp4,walk,1,2\na.mp4,run,1,2\n", r"a\.mp4 labelled 'run' and 'walk'"),
        ("path,label,split\na.mp4,walk,train\na.mp4,walk,val\n", r"1 repeated clips:\n  a\.mp4 listed twice"),
        ("path,label\na.mp4,walk\nb.mp4,walk\n", r"1 class \('walk'\), at least 2"),
    ],
)
def test_faulty_tables(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_items(_table(tmp_path, text))


def test_a_split_written_and_read_is_the_same(tmp_path: Path) -> None:
    awkward = ("run/a, b.mp4", 'run/"q".mp4', "run/ é\n.mp4", "walk/-x;y.mp4", "walk/=1+1.mp4")
    source = assign_splits(find_items(_touch(tmp_path / "data", *FOUR, *awkward)), seed=3)
    timed = replace(source.items[0], start_seconds=1 / 3, end_seconds=1e9 / 7)
    source = replace(source, items=(timed, *source.items[1:]), notes=())
    write_split(source, tmp_path / "split.csv")
    assert read_split(tmp_path / "split.csv", tmp_path / "data") == source


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


# ---- splits


def _source(labels_and_groups: list[tuple[str, str]]) -> Source:
    items = tuple(
        Item(f"{label}/{i:04d}.mp4", label, group=group) for i, (label, group) in enumerate(labels_and_groups)
    )
    return Source(Path("/data"), "video", items, tuple(sorted({item.label for item in items})))


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
    source = assign_splits(Source(Path("/data"), "video", items, ("a", "b")), val_share=0.25)
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
    source = assign_splits(Source(Path("/data"), "video", items, ("Archery", "Bowling")))
    assert {item.group for item in source.items if item.label == "Archery"} == {
        f"Archery/g{g:02d}" for g in range(1, 11)
    }
    sides = defaultdict(set)
    for item in source.items:
        sides[item.group].add(item.split)
    assert all(len(found) == 1 for found in sides.values())
    assert _counts(source, "val") == {"Archery": 8, "Bowling": 8}
    assert source.notes[0].startswith("80 clips are named as in UCF101")


def test_a_given_split_stays() -> None:
    items = (
        Item("a.mp4", "x", split="train"),
        Item("b.mp4", "y", split=""),
        Item("c.mp4", "x", split="val"),
        Item("d.mp4", "y", split="test"),
    )
    source = assign_splits(Source(Path("/data"), "video", items, ("x", "y")))
    assert [item.split for item in source.items] == ["train", "train", "val", "test"]
    assert source.notes == ("1 clips have no split and are taken for train", "no val clips for 'y'")


def test_val_is_cut_from_a_lone_train() -> None:
    source = _source([(label, "") for label in "ab" for _ in range(10)])
    train = replace(source, items=tuple(replace(item, split="train") for item in source.items))
    assert _counts(assign_splits(train), "val") == {"a": 2, "b": 2}


def test_a_group_torn_by_the_given_split_is_noted() -> None:
    items = (Item("a.mp4", "x", split="train", group="g"), Item("b.mp4", "x", split="test", group="g"))
    notes = assign_splits(Source(Path("/data"), "video", items, ("x",))).notes
    assert notes == ("1 groups have clips in train and in val or test, which flatters the result: 'g'",)


def test_split_faults() -> None:
    source = _source([(label, "") for label in "ab" for _ in range(4)])
    for share in (0.0, 1.0, float("nan")):
        with pytest.raises(ValueError, match=f"val_share={share}, expected a share between 0 and 1"):
            assign_splits(source, val_share=share)
    held = replace(
        source, items=tuple(replace(item, split="val" if item.label == "b" else "") for item in source.items)
    )
    with pytest.raises(ValueError, match="no train clips for 'b'; add some or remove these classes"):
        assign_splits(held)
