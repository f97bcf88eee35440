"""From a table of segments to recordings, and to the windows that an encoder learns from: faults and laws."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import draw_segments, write_recording
from small_sets import tiny_config

from tubelet.data.problems import DataProblems
from tubelet.data.segments import (
    Recording,
    Recordings,
    StepLabels,
    choose_window,
    cut_windows,
    hold,
    read_segments,
    split_recordings,
)
from tubelet.tasks.multilabel import NONE
from tubelet.train.plan import make_plan


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    for number in range(4):
        write_recording(folder / f"{number}.mp4", 6.0, [], number)
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


def table(folder: Path, *rows: str, header: str = "path,start,end,label,split,group") -> Path:
    file = folder / f"{abs(hash(rows))}.csv"
    commas = header.count(",")
    file.write_text("\n".join([header, *(row + "," * (commas - row.count(",")) for row in rows)]))
    return file


GOOD = ("0.mp4,1,2.5,walk,train", "0.mp4,2,4,wave,train", "1.mp4,0:01,0:03,walk,train", "1.mp4,3,5,wave,train")


def test_rows_of_a_file_are_its_segments_and_may_overlap(folder: Path) -> None:
    found = read_segments(table(folder, *GOOD, "2.mp4,,,,val", "3.mp4,,2,walk;wave,val"))
    assert found.names == ("walk", "wave")
    by_path = {one.path: one for one in found.recordings}
    assert by_path["0.mp4"].segments == ((1.0, 2.5, "walk"), (2.0, 4.0, "wave"))
    assert by_path["1.mp4"].named("walk") == [(1.0, 3.0)]
    assert by_path["2.mp4"].segments == ()
    assert by_path["3.mp4"].segments == ((0.0, 2.0, "walk"), (0.0, 2.0, "wave"))
    assert [by_path[path].split for path in ("0.mp4", "2.mp4")] == ["train", "val"]
    assert all(one.seconds == pytest.approx(6.0) and one.group for one in found.recordings)


FAULTS = {
    "an end before its start": ("2.mp4,4,3,walk", "times", ("4", "3")),
    "a start after the file's end": ("2.mp4,8,9,walk", "times", ("2.mp4", "6.00")),
    "an end long after the file's": ("2.mp4,1,9,walk", "times", ("2.mp4", "6.00")),
    "times without a label": ("2.mp4,1,2,", "empty-label", ("2.mp4",)),
    "labels with times and without": ("0.mp4,,,walk", "times", ("0.mp4",)),
    "a test without times": ("2.mp4,,,walk,test", "times", ("2.mp4", "test")),
    "no such file": ("9.mp4,1,2,walk", "missing-file", ("9.mp4",)),
    "no time": ("2.mp4,one,2,walk", "times", ("one",)),
    "an unknown split": ("2.mp4,1,2,walk,dev", "split", ("dev",)),
    "a label once": ("2.mp4,1,2,run", "few-clips", ("run",)),
    "labels alike": ("2.mp4,1,2,Walk", "alike-classes", ("Walk", "walk")),
}


@pytest.mark.parametrize(("row", "kind", "values"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_named(folder: Path, row: str, kind: str, values: tuple[str, ...]) -> None:
    with pytest.raises(DataProblems) as caught:
        read_segments(table(folder, *GOOD, row))
    (found,) = [one for one in caught.value.problems if one.kind == kind]
    assert all(value in str(found) for value in values)


def test_overlapping_rows_of_one_label_and_two_splits_of_a_file_are_named(folder: Path) -> None:
    rows = ("2.mp4,1,3,walk,train", "2.mp4,2,4,walk,val")
    with pytest.raises(DataProblems) as caught:
        read_segments(table(folder, *GOOD, *rows))
    assert {one.kind for one in caught.value.problems} == {"overlap", "split"}


def test_all_faults_are_named_at_once(folder: Path) -> None:
    rows = [row for row, *_ in FAULTS.values()]
    with pytest.raises(DataProblems) as caught:
        read_segments(table(folder, *GOOD, *rows))
    assert {kind for _, kind, _ in FAULTS.values()} <= {one.kind for one in caught.value.problems}
    assert len(caught.value.problems) >= len(FAULTS)


def test_a_file_that_cannot_be_read_is_told_and_left_out(folder: Path) -> None:
    found = read_segments(table(folder, *GOOD, "broken.mp4,1,2,walk,train"))
    assert list(found.unreadable) == ["broken.mp4"]
    assert "broken.mp4" not in [one.path for one in found.recordings]


@pytest.mark.parametrize("what", ["a folder", "nothing"])
def test_what_is_no_table_is_refused(folder: Path, what: str) -> None:
    path = folder if what == "a folder" else folder / "none.csv"
    with pytest.raises(DataProblems) as caught:
        read_segments(path)
    assert [one.kind for one in caught.value.problems] == ["layout" if what == "a folder" else "missing"]


def test_without_splits_whole_groups_are_held_out(folder: Path) -> None:
    rows = [f"{n}.mp4,1,2,walk,,{n % 2}" for n in range(4)] + [f"{n}.mp4,3,4,wave,,{n % 2}" for n in range(4)]
    found = split_recordings(read_segments(table(folder, *rows)), val_share=0.3, seed=0)
    assert {one.split for one in found.recordings} == {"train", "val"}
    assert len({(one.group, one.split) for one in found.recordings}) == 2
    assert found.held_out == "val"


def test_recordings_without_times_are_learned_from_and_never_held_out(folder: Path) -> None:
    rows = ["0.mp4,1,2,walk", "1.mp4,1,2,walk", "0.mp4,3,4,wave", "1.mp4,3,4,wave", "2.mp4,,,walk;wave", "3.mp4,,,"]
    found = split_recordings(read_segments(table(folder, *rows)), val_share=0.3, seed=0)
    by_path = {one.path: one for one in found.recordings}
    assert found.is_weak
    assert by_path["2.mp4"].untimed == ("walk", "wave")
    assert by_path["2.mp4"].split == "train"
    windows = cut_windows(found, 1.0, seed=0)
    assert {item.label for item in windows if item.path == "2.mp4"} == {"walk;wave"}
    with pytest.raises(ValueError, match="times"):
        split_recordings(read_segments(table(folder, "0.mp4,,,walk;wave", "1.mp4,,,walk;wave")), val_share=0.3, seed=0)


def make(seconds: float = 120.0, count: int = 6) -> Recordings:
    recordings = tuple(
        Recording(f"{n}.mp4", seconds, tuple(draw_segments(seconds, np.random.default_rng(n))), "train", str(n))
        for n in range(count)
    )
    return Recordings(Path(), recordings, ("left", "right"))


def test_windows_have_the_labels_that_hold_in_them_and_none_that_hold_in_part() -> None:
    data = make()
    seconds = choose_window(data)
    items = cut_windows(data, seconds, seed=0)
    assert items == cut_windows(data, seconds, seed=0)
    busy = [one for one in items if one.label != NONE]
    assert 0 < len(items) - len(busy) <= len(busy)
    by_path = {one.path: one for one in data.recordings}
    for item in items:
        assert item.start_seconds is not None
        assert item.end_seconds is not None
        assert seconds <= item.end_seconds - item.start_seconds <= 1.25 * seconds + 1e-9
        start = round(item.start_seconds / seconds + 0.1) * seconds  # the window without its margin
        for name in data.names:
            segments = by_path[item.path].named(name)
            shared = max((min(start + seconds, stop) - max(start, begin) for begin, stop in segments), default=0.0)
            if shared > 0.71 * seconds:
                assert name in item.label
            if shared < 0.19 * seconds:
                assert name not in item.label


def test_with_borders_every_window_to_train_on_is_there_and_no_other_more() -> None:
    whole = make()
    splits = ["train"] * 4 + ["val"] * 2
    data = replace(whole, recordings=tuple(map(lambda one, split: replace(one, split=split), whole.recordings, splits)))
    seconds = choose_window(data)
    plain, items = cut_windows(data, seconds, seed=0), cut_windows(data, seconds, seed=0, borders=True)
    held_out = [[item for item in some if item.split == "val"] for some in (plain, items)]
    assert held_out[0] == held_out[1]
    for one in data.of_split("train"):
        starts = {item.start_seconds for item in items if item.path == one.path}
        for number in range(int(one.seconds / seconds)):
            begin, stop = number * seconds, (number + 1) * seconds
            if any(min(stop, end) - max(begin, start) > 0.31 * seconds for start, end, _ in one.segments):
                assert max(0.0, begin - 0.125 * seconds) in starts


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), length=st.integers(1, 3), stride=st.integers(1, 3), steps=st.integers(1, 6))
def test_the_labels_of_steps_by_counting_moments(seed: int, length: int, stride: int, steps: int) -> None:
    rng, file = np.random.default_rng(seed), Path("a.mp4")
    spans = [(start, start + rng.uniform(0.1, 3), str(rng.choice(["a", "b"]))) for start in rng.uniform(0, 6, 5)]
    times = rng.uniform(0, 4) + 0.25 * np.arange(length + stride * (steps - 1))
    cells = StepLabels({file: spans}, frames=length, stride=stride).cells(file, times, 0.25)
    assert len(cells) == (len(times) - length) // stride + 1
    for number, cell in enumerate(cells):
        moments = times[number * stride] + np.linspace(0, 0.25 * length, 401)
        for name in ("a", "b"):
            shares = [np.mean((moments >= start) & (moments < end)) for start, end, label in spans if label == name]
            if all(abs(share - 0.5) > 0.01 for share in shares):
                assert (name in cell.split(";")) == any(share > 0.5 for share in shares)


@pytest.mark.parametrize(
    ("segments", "expected"),
    [
        ([], False),
        ([(0.0, 2.0)], True),
        ([(0.5, 9.0)], True),
        ([(1.0, 9.0)], None),
        ([(1.5, 9.0)], False),
        ([(0.5, 1.0)], True),
        ([(0.5, 0.8)], False),
        ([(-0.5, 0.5)], None),
        ([(3.0, 4.0), (0.1, 3.0)], True),
    ],
)
def test_a_label_holds_in_most_of_a_window_or_with_most_of_its_segment(
    segments: list[tuple[float, float]], expected: bool | None
) -> None:
    assert hold(0.0, 2.0, segments) is expected


def test_the_plan_points_to_segments_where_rows_are_short_parts_of_long_files(folder: Path, tmp_path: Path) -> None:
    def notes(*rows: str) -> list[str]:
        config = tiny_config(table(folder, *rows), tmp_path / "run")
        return [note for note in make_plan(config, torch.device("cpu")).notes if "--task segments" in note]

    cuts = [f"{n}.mp4,{at},{at + 0.5},{label}," for n in range(4) for at, label in ((0, "walk"), (2, "wave"))]
    assert len(notes(*cuts)) == 1
    assert not notes(*(f"{n}.mp4,{at},{at + 2},{label}," for n in range(4) for at, label in ((0, "walk"), (3, "wave"))))
    assert not notes(*(f"{n}.mp4,1,1.5,{'walk' if n % 2 else 'wave'}," for n in range(4)))


def test_another_column_of_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="behaviour"):
        tiny_config(tmp_path / "t.csv", tmp_path / "run", task="segments", labels=("behaviour",))
