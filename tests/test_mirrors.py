"""Class names tell what a flip and a reversal do to a label; doubt switches them off."""

import random

import pytest

from tubelet.data.label_swaps import as_indices, find_mirrors

FLIP_PAIRS = [
    ("move_left", "move_right"),
    ("Turn Left", "turn-right"),
    ("TurnLeftNow", "TurnRightNow"),
    ("left_to_right", "right_to_left"),
    ("from_left_to_right", "from_right_to_left"),
    ("swipeLEFT", "swipeRIGHT"),
    ("rotate_clockwise", "rotate_counterclockwise"),
    ("rotate_clockwise", "rotate_counter_clockwise"),
    ("rotate clockwise", "rotate counter-clockwise"),
    ("RotateClockwise", "RotateCounterClockwise"),
    ("RotateClockWise", "RotateAntiClockWise"),
    ("rotate_clockwise", "rotate_anticlockwise"),
    ("cw", "ccw"),
    ("spin_cw_2", "spin_acw_2"),
    ("spin_clockwise", "spin_ccw"),
    ("leftward", "rightward"),
    ("go_leftwards", "go_rightwards"),
    ("wind_east", "wind_west"),
    ("raise_left_hand", "raise_right_hand"),
]
REVERSAL_PAIRS = [
    ("open_door", "close_door"),
    ("DoorOpening", "DoorClosing"),
    ("up", "down"),
    ("swipe_left", "swipe_right"),
    ("zoom_in", "zoom_out"),
    ("forward", "backward"),
    ("drive_forwards", "drive_backwards"),
    ("drive_forward", "drive_reverse"),
    ("turn_clockwise", "turn_ccw"),
    ("enter_room", "exit_room"),
    ("enter_room", "leave_room"),
    ("pushing cart", "pulling cart"),
    ("rise", "fall"),
    ("raise_left_hand", "lower_left_hand"),
    ("load", "unload"),
    ("plug", "unplug"),
    ("folding_paper", "unfolding_paper"),
    ("sit", "stand"),
    ("sit_down", "stand_up"),
    ("appear", "disappear"),
    ("start", "stop"),
    ("walk_to_camera", "walk_from_camera"),
    ("red_to_green", "green_to_red"),
    ("left_to_right", "right_to_left"),
    ("move_left_to_right", "move_right_to_left"),
    ("walk_from_door_to_window", "walk_from_window_to_door"),
    ("disc_then_square", "square_then_disc"),
    ("clap_then_wave_then_nod", "nod_then_wave_then_clap"),
    ("open_door_then_sit", "stand_then_close_door"),
    ("jump", "jump_reversed"),
]


@pytest.mark.parametrize(("one", "other"), FLIP_PAIRS)
def test_flip_pairs(one: str, other: str) -> None:
    mirrors = find_mirrors((one, other, "walk"))
    assert mirrors.flip == {one: other, other: one, "walk": "walk"}
    assert f"horizontal flip swaps {min(one, other)} <-> {max(one, other)}" in mirrors.notes


@pytest.mark.parametrize(("one", "other"), REVERSAL_PAIRS)
def test_reversal_pairs(one: str, other: str) -> None:
    mirrors = find_mirrors((one, other))
    assert mirrors.reverse == {one: other, other: one}
    assert f"playing backwards swaps {min(one, other)} <-> {max(one, other)}" in mirrors.notes


def test_a_flip_changes_horizontal_words_only() -> None:
    classes = ("jump_up", "jump_down", "zoom_in", "zoom_out", "open", "close", "drive_forward", "upright", "leftover")
    mirrors = find_mirrors(classes)
    assert mirrors.flip == {label: label for label in classes}
    assert mirrors.notes[0] == "horizontal flip keeps every label"


@pytest.mark.parametrize("lonely", ["turn_left", "TurnRight", "spin_ccw", "go_east", "left_to_right"])
def test_a_missing_partner_switches_the_flip_off(lonely: str) -> None:
    mirrors = find_mirrors(("run", lonely, "walk"))
    assert mirrors.flip is None
    assert f"horizontal flip is off: {lonely!r} has no partner" in mirrors.notes


def test_one_class_without_a_partner_switches_reversal_off() -> None:
    mirrors = find_mirrors(("open", "close", "walk"))
    assert mirrors.reverse is None
    assert "playing backwards is off: 'walk' has no partner" in mirrors.notes


def test_what_is_undone_is_itself_backwards() -> None:
    """Open, then close; the film backwards shows the same."""
    classes = ("clap_then_clap", "open_then_close", "close_then_open")
    assert find_mirrors(classes).reverse == {label: label for label in classes}


def test_a_side_before_a_noun_is_not_a_direction() -> None:
    """A waving left hand, played backwards, is still the left one."""
    mirrors = find_mirrors(("wave_left_hand", "wave_right_hand"))
    assert mirrors.flip == {"wave_left_hand": "wave_right_hand", "wave_right_hand": "wave_left_hand"}
    assert mirrors.reverse is None


def test_the_deed_turns_even_where_only_the_side_has_a_partner() -> None:
    assert find_mirrors(("open_left", "open_right")).reverse is None


def test_doubt_switches_reversal_off() -> None:
    """The left door, closing: does it become the left door opening, or the right one?"""
    mirrors = find_mirrors(("open_left", "open_right", "close_left", "close_right"))
    assert mirrors.reverse is None
    assert mirrors.notes[-1] == "playing backwards is off: 'open_left' could become 'close_left' or 'close_right'"


def test_names_that_read_alike_switch_everything_off() -> None:
    mirrors = find_mirrors(("turn_left", "turn-left", "turn_right"))
    assert (mirrors.flip, mirrors.reverse) == (None, None)
    assert "horizontal flip is off: 'turn_left' and 'turn-left' read as the same words" in mirrors.notes


def test_digits_and_signs_keep_names_apart() -> None:
    classes = ("C", "C++", "C#", "sign1", "sign2", "左", "右")
    assert find_mirrors(classes).flip == {label: label for label in classes}


def test_partners_are_always_mutual() -> None:
    words = ["left", "right", "up", "out", "in", "open", "close", "to", "from", "then", "enter", "exit", "leave"]
    words += ["reversed", "forward", "reverse", "hand", "1"]
    draw = random.Random(0)
    found = 0
    for _ in range(3000):
        classes = tuple({"_".join(draw.choices(words, k=draw.randint(1, 3))) for _ in range(draw.randint(2, 4))})
        mirrors = find_mirrors(classes)
        for partners in filter(None, (mirrors.flip, mirrors.reverse)):
            found += 1
            assert sorted(partners) == sorted(classes)
            assert all(partners[partners[label]] == label for label in classes)
    assert found > 100


def test_as_indices() -> None:
    classes = ("left", "right", "walk")
    assert as_indices(find_mirrors(classes).flip, classes) == (1, 0, 2)
    assert as_indices(None, classes) is None
