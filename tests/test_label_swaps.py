"""What a flip and a reversal do to a label: a file says, or class names that come in pairs; doubt switches them off."""

import json
import random
from pathlib import Path

import pytest
from naming import naming
from small_sets import command, write_sounds, write_videos

from tubelet.data.items import find_items
from tubelet.data.label_swaps import find_swaps, read_swaps
from tubelet.demo import LABEL_SWAPS
from tubelet.synthetic.camera_motions import CLASSES
from tubelet.train.config import TrainConfig
from tubelet.train.plan import choose_changes

FLIP_PAIRS = [
    ("move_left", "move_right"),
    ("Turn Left", "turn-right"),
    ("TurnLeftNow", "TurnRightNow"),
    ("left_to_right", "right_to_left"),
    ("swipeLEFT", "swipeRIGHT"),
    ("rotate_clockwise", "rotate_counter_clockwise"),
    ("rotate clockwise", "rotate counter-clockwise"),
    ("RotateClockWise", "RotateAntiClockWise"),
    ("cw", "ccw"),
    ("spin_cw_2", "spin_acw_2"),
    ("go_leftwards", "go_rightwards"),
    ("wind_east", "wind_west"),
    ("raise_left_hand", "raise_right_hand"),
]
REVERSAL_PAIRS = [
    ("up", "down"),
    ("swipe_left", "swipe_right"),
    ("zoom_in", "zoom_out"),
    ("drive_forwards", "drive_backwards"),
    ("walk_forward", "walk_reversed"),  # the motion set of the benchmarks
    ("turn_clockwise", "turn_ccw"),
]


@pytest.mark.parametrize(("one", "other"), FLIP_PAIRS)
def test_flip_pairs(one: str, other: str) -> None:
    swaps = find_swaps((one, other, "walk"))
    assert swaps.mirrored == {one: other, other: one, "walk": "walk"}
    assert f"{min(one, other)} <-> {max(one, other)}" in swaps.notes[0]


@pytest.mark.parametrize(("one", "other"), REVERSAL_PAIRS)
def test_reversal_pairs(one: str, other: str) -> None:
    swaps = find_swaps((one, other))
    assert swaps.reversed == {one: other, other: one}
    assert f"{min(one, other)} <-> {max(one, other)}" in swaps.notes[1]


def test_a_flip_changes_horizontal_words_only() -> None:
    classes = ("jump_up", "jump_down", "zoom_in", "zoom_out", "open", "close", "drive_forward", "upright", "leftover")
    assert find_swaps(classes).mirrored == {label: label for label in classes}


@pytest.mark.parametrize("lonely", ["turn_left", "TurnRight", "spin_ccw", "go_east", "left_to_right"])
def test_a_missing_partner_switches_the_flip_off_and_says_what_helps(lonely: str) -> None:
    swaps = find_swaps(("run", lonely, "walk"))
    assert swaps.mirrored is None
    assert repr(lonely) in swaps.notes[0]
    assert "--label-swaps" in swaps.notes[0]


@pytest.mark.parametrize(
    "classes",
    [
        ("zoom_in", "zoom_out", "walk"),
        ("wave_left_hand", "wave_right_hand"),  # a waving left hand, played backwards, is still the left one
        ("open_left", "open_right"),  # the left door, closing
        ("raising_left", "raising_right"),
        ("left_to_right", "right_to_left"),
        ("walk_from_left", "walk_from_right"),
        ("zoom_in_then_left", "zoom_in_then_right"),
        ("drive_forward", "drive_backward", "drive_reversed"),  # two partners
        ("turn_left", "turn-left", "turn_right"),  # two names read alike
        ("", "left"),
    ],
)
def test_doubt_switches_reversal_off(classes: tuple[str, ...]) -> None:
    assert find_swaps(classes).reversed is None


def test_digits_and_signs_keep_names_apart() -> None:
    classes = ("C", "C++", "C#", "sign1", "sign2", "左", "右")
    assert find_swaps(classes).mirrored == {label: label for label in classes}


def test_partners_are_always_mutual() -> None:
    words = ["left", "right", "up", "out", "in", "open", "to", "then", "reversed", "forward", "backward", "hand", "1"]
    draw = random.Random(0)
    found = 0
    for _ in range(3000):
        classes = tuple({"_".join(draw.choices(words, k=draw.randint(1, 3))) for _ in range(draw.randint(2, 4))})
        swaps = find_swaps(classes)
        for partners in filter(None, (swaps.mirrored, swaps.reversed)):
            found += 1
            assert sorted(partners) == sorted(classes)
            assert all(partners[partners[label]] == label for label in classes)
    assert found > 100


# ---- a file

DOORS = ("close", "open", "turn_left", "turn_right", "walk")
TABLE = "label,mirrored,reversed\nopen,,close\nclose,,open\nturn_left,turn_right,\nturn_right,turn_left,\n"


def test_a_file_names_what_words_do_not_tell(tmp_path: Path) -> None:
    (tmp_path / "swaps.csv").write_text(f"\ufeff{TABLE}", encoding="utf-8")
    rows = [dict(zip(("label", "mirrored", "reversed"), line.split(","), strict=True)) for line in TABLE.split()[1:]]
    (tmp_path / "swaps.json").write_text(json.dumps([{k: v for k, v in row.items() if v} for row in rows]))
    for name in ("swaps.csv", "swaps.json"):
        swaps = read_swaps(tmp_path / name, DOORS)
        assert [DOORS.index(swaps.mirrored[name]) for name in DOORS] == [0, 1, 3, 2, 4]
        assert [DOORS.index(swaps.reversed[name]) for name in DOORS] == [1, 0, 2, 3, 4]
        assert "turn_left <-> turn_right" in swaps.notes[0]


def test_a_change_without_a_column_is_not_made(tmp_path: Path) -> None:
    (tmp_path / "swaps.csv").write_text("label,reversed\nopen,close\nclose,open\n")
    swaps = read_swaps(tmp_path / "swaps.csv", DOORS)
    assert swaps.mirrored is None
    assert swaps.reversed is not None


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", ("none",)),
        (
            "name,mirrored\nopen,close\n",
            (
                "mirrored",
                "name",
            ),
        ),
        (
            "label\nopen\n",
            (
                "columns",
                "label",
            ),
        ),
        (
            "label,mirrored\nopen,shut\nrun,open\n",
            (
                "'shut'",
                "'run'",
            ),
        ),
        ("label,mirrored\nopen,close\nopen,walk\n", ("'open'",)),
        (
            "label,mirrored\nopen,close\n,walk\n",
            (
                "row",
                "label",
            ),
        ),
        (
            "label,reversed\nopen,close\n",
            (
                "'open'",
                "'close'",
            ),
        ),
        (
            "label,mirrored\nopen,close,walk\n",
            (
                "cells",
                "columns",
            ),
        ),
        ('label,mirrored\nopen,"close\n', ()),
        (b"label,mirrored\n\xff,\xfe\n", ()),
        (None, ()),
    ],
)
def test_a_file_that_is_wrong_is_refused_by_name(
    text: str | bytes | None, values: tuple[str, ...], tmp_path: Path
) -> None:
    file = tmp_path / "swaps.csv"
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=naming(file, *values)):
        read_swaps(file, DOORS)


@pytest.mark.parametrize("value", [3, {"open": "close"}, ["open"], [{"label": "open", "mirrored": 3}], "not json"])
def test_json_that_is_wrong_is_refused(value: object, tmp_path: Path) -> None:
    (tmp_path / "swaps.json").write_text(value if isinstance(value, str) else json.dumps(value))
    with pytest.raises(ValueError, match=naming(tmp_path / "swaps.json")):
        read_swaps(tmp_path / "swaps.json", DOORS)


def test_the_demo_says_what_each_of_its_classes_becomes(tmp_path: Path) -> None:
    classes = tuple(sorted(CLASSES))
    (tmp_path / "label-swaps.csv").write_text(LABEL_SWAPS)
    swaps = read_swaps(tmp_path / "label-swaps.csv", classes)
    names = list(CLASSES)
    assert swaps.reversed == {name: names[number ^ 1] for number, name in enumerate(names)}
    assert swaps.mirrored == find_swaps(classes).mirrored


def test_a_training_makes_the_changes_that_the_file_names(tmp_path: Path) -> None:
    clips, file = write_videos(tmp_path / "clips", 2), tmp_path / "swaps.csv"
    file.write_text("label,reversed\nbright,dark\ndark,bright\n")
    changes, notes = choose_changes(TrainConfig(data=clips, label_swaps=file), find_items(clips), None)
    assert (changes.flipped, changes.reversed) == (None, {"bright": "dark", "dark": "bright"})
    assert changes.augmentation is not None
    assert (changes.augmentation.flip, changes.augmentation.reverse) == (False, True)
    assert any("bright <-> dark" in note for note in notes)


def test_a_file_of_swaps_that_changes_nothing_is_refused(tmp_path: Path) -> None:
    clips, sounds, file = write_videos(tmp_path / "clips", 2), write_sounds(tmp_path / "sounds", 2), tmp_path / "s.csv"
    file.write_text("label,reversed\n")
    for config in (
        TrainConfig(data=clips, label_swaps=file, augment=False),
        TrainConfig(data=sounds, label_swaps=file),
    ):
        with pytest.raises(ValueError, match=naming("--label-swaps")):
            choose_changes(config, find_items(config.data), None)


def test_a_training_refuses_a_file_of_swaps_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = write_videos(tmp_path / "clips", 2)
    assert command("train", clips, "--out", tmp_path / "run", "--label-swaps", tmp_path / "none.csv") == 2
    assert "none.csv: " in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
