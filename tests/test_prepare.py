"""A prepared copy shows the same pictures at the same times, under the same labels and splits, and is quick to read."""

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from media_files import numbered_frames, read_numbers, write_numbered
from naming import naming
from small_sets import command, spoil, tiny_config, write_images, write_videos

import tubelet.prepare
from tubelet.data.items import Source, find_items
from tubelet.data.problems import DataProblems
from tubelet.data.segments import read_segments
from tubelet.data.splits import assign_splits
from tubelet.media.reader import MediaError, av, index, read_frames
from tubelet.media.transcode import read_comment, shrink, shrunk_size
from tubelet.media.writer import write_video
from tubelet.prepare import Settings, prepare, reading_seconds
from tubelet.tasks import find_task
from tubelet.train.loop import describe_wait
from tubelet.train.train import train_fn

SMALL = Settings(short_side_px=16, gop_frames=4)
UNEVEN = np.random.default_rng(0).integers(7, 400, 40).cumsum().tolist()


# ---- one file


def small_copy(source: Path, *, short_side_px: int = 24) -> Path:
    shrink(source, source.with_name("copy.mp4"), short_side_px=short_side_px, gop_frames=4, crf=10, comment="é 1")
    return source.with_name("copy.mp4")


@pytest.mark.parametrize(
    ("name", "tick"),
    [
        ("a.mp4", None),
        ("a.mkv", None),
        ("a.ts", None),
        ("a.avi", None),
        ("a.h264", None),
        ("a.mp4", Fraction(1, 1000)),
        ("a.mkv", Fraction(1, 1000)),
        ("a.mp4", Fraction(1001, 30000)),
        ("a.mp4", Fraction(1, 90000)),
        ("a.mp4", Fraction(1, 1000000)),
    ],
)
def test_every_frame_keeps_its_time_and_the_last_its_end(tmp_path: Path, name: str, tick: Fraction | None) -> None:
    ticks = [n * max(1, round(0.001 / tick)) + n % 3 for n in UNEVEN] if tick else None
    source = write_numbered(tmp_path / name, 40, ticks=ticks, tick_seconds=tick)
    copy = small_copy(source)
    old, new = index(source), index(copy)
    np.testing.assert_allclose(new.times, old.times, rtol=0, atol=1e-9)
    assert new.duration_seconds == pytest.approx(old.duration_seconds, abs=1e-9)
    assert read_numbers(read_frames(copy, old.times)) == list(range(40))
    assert (new.height, new.width, read_comment(copy)) == (24, 40, "é 1")


def test_key_frames_are_close_frames_in_order_and_sound_is_gone(tmp_path: Path) -> None:
    source = write_numbered(tmp_path / "a.mp4", 40, codec_options={"g": "250", "bf": "3"}, sound_hz=440)
    with av.open(str(small_copy(source))) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        packets = [packet for packet in container.demux(video=0) if packet.size]
    keys = [place for place, packet in enumerate(packets) if packet.is_keyframe]
    assert np.diff([*keys, 40]).max() <= 4
    assert all(packet.pts == packet.dts for packet in packets), "no frame waits for a later one"


@pytest.mark.parametrize("turn", [None, (90, False), (180, True)])
def test_pictures_stand_upright_and_look_the_same(tmp_path: Path, turn: tuple[int, bool] | None) -> None:
    source = write_numbered(tmp_path / "a.mp4", 20, height=96, width=160, turn=turn)
    copy = small_copy(source, short_side_px=48)
    with av.open(str(copy)) as container:
        assert next(container.decode(video=0)).rotation == 0
    times = index(source).times
    old, new = read_frames(source, times, cover=(48, 48)), read_frames(copy, times)
    assert new.shape == old.shape
    assert np.abs(new.astype(int) - old).mean() < 2


@pytest.mark.parametrize("colour", [(200, 30, 30), (30, 180, 60), (40, 40, 220), (250, 250, 250), (4, 4, 4)])
@pytest.mark.parametrize(("codec", "name"), [("libx264", "a.mp4"), ("ffv1", "a.mkv"), ("mjpeg", "a.avi")])
def test_colours_stay(tmp_path: Path, codec: str, name: str, colour: tuple[int, int, int]) -> None:
    frames = np.full((3, 32, 48, 3), colour, np.uint8)
    write_video(tmp_path / name, frames, codec=codec)
    old = read_frames(tmp_path / name, np.zeros(1), cover=(24, 24)).astype(int)
    new = read_frames(small_copy(tmp_path / name), np.zeros(1))
    assert np.abs(new.mean((0, 1, 2)) - old.mean((0, 1, 2))).max() <= 3


@pytest.mark.parametrize(
    ("size", "short_side_px", "expected"),
    [
        ((1080, 1920), 256, (256, 456)),
        ((1920, 1080), 256, (456, 256)),
        ((240, 320), 256, (240, 320)),
        ((241, 321), 256, (240, 320)),
        ((257, 257), 256, (256, 256)),
        ((1, 400), 256, (2, 400)),
    ],
)
def test_copies_are_even_and_never_larger(size: tuple[int, int], short_side_px: int, expected: tuple[int, int]) -> None:
    assert shrunk_size(*size, short_side_px) == expected


def test_odd_sides_lose_a_row(tmp_path: Path) -> None:
    source = write_numbered(tmp_path / "a.gif", 5, height=49, width=81, codec="gif", codec_options={})
    copy = small_copy(source, short_side_px=200)
    assert (index(copy).height, index(copy).width) == (48, 80)
    assert read_numbers(read_frames(copy, index(copy).times)) == list(range(5))


def damage(path: Path, *numbers: int) -> None:
    """Fills the packets of some frames of a file with zeros."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        places = [(packet.pos, packet.size) for packet in packets]
    data = bytearray(path.read_bytes())
    for number in numbers:
        place, size = places[number]
        data[place : place + size] = bytes(size)
    path.write_bytes(data)


def test_a_lost_frame_shows_the_one_before_in_the_copy_too(tmp_path: Path) -> None:
    source = write_numbered(tmp_path / "a.avi", 20, codec="mjpeg", codec_options={})
    times = index(source).times
    damage(source, 7, 8, 19)
    copy = small_copy(source)
    assert read_numbers(read_frames(copy, times)) == [6 if n in (7, 8) else min(n, 18) for n in range(20)]
    assert index(copy).duration_seconds == pytest.approx(0.8)


def test_without_its_first_frame_a_video_is_not_copied(tmp_path: Path) -> None:
    source = write_numbered(tmp_path / "a.avi", 20, codec="mjpeg", codec_options={})
    damage(source, 0)
    with pytest.raises(MediaError, match=naming(source, "0.000")):
        small_copy(source)
    assert os.listdir(tmp_path) == ["a.avi"]


# ---- a data set


def same(old: Source, new: Source, rename: Callable[[str], str] = lambda path: path) -> None:
    """Items, labels, times, splits and groups agree, before and after val is cut, whatever the seed."""
    assert new.classes == old.classes
    for seed in range(3):
        items = sorted(assign_splits(old, seed=seed).items, key=lambda item: (rename(item.path), item.start_seconds))
        for before, after in zip(items, assign_splits(new, seed=seed).items, strict=True):
            assert (after.path, after.label, after.split) == (rename(before.path), before.label, before.split)
            assert (after.start_seconds, after.end_seconds) == (before.start_seconds, before.end_seconds)


def test_a_folder_of_mp4_becomes_the_same_folder(tmp_path: Path) -> None:
    data = write_videos(tmp_path / "data", 6)
    (data / "bright" / "deeper").mkdir()
    shutil.move(data / "bright" / "5.mp4", data / "bright" / "deeper" / "5.MOV")
    assert prepare(data, tmp_path / "out", settings=SMALL, show=False).failed == []
    same(find_items(data), find_items(tmp_path / "out"))
    assert sorted(os.listdir(tmp_path / "out")) == ["bright", "dark"]


def test_split_folders_stay(tmp_path: Path) -> None:
    for first, split in ((0, "train"), (5, "validation")):
        write_videos(tmp_path / "data" / split, 2, first=first)
    prepare(tmp_path / "data", tmp_path / "out", settings=SMALL, show=False)
    same(find_items(tmp_path / "data"), find_items(tmp_path / "out"))


@pytest.mark.parametrize("stem", ["{label}_{number}", "v_{label}_g{number}_c1"])
def test_where_names_change_a_table_keeps_the_split(tmp_path: Path, stem: str) -> None:
    for first, label in ((0, "run"), (6, "walk")):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(first, first + 6):
            path = tmp_path / "data" / label / f"{stem.format(label=label, number=number)}.avi"
            write_video(path, np.full((2, 16, 16, 3), 20 * number, np.uint8))
    prepare(tmp_path / "data", tmp_path / "out", settings=SMALL, show=False)
    old, new = find_items(tmp_path / "data"), find_items(tmp_path / "out" / "clips.csv")
    same(old, new, lambda path: path.replace(".avi", ".mp4"))


def test_a_table_keeps_copies_together_though_they_are_no_copies_any_more(tmp_path: Path) -> None:
    data = write_videos(tmp_path / "data", 4)
    for number in range(4):
        shutil.copyfile(data / "dark" / f"{number}.mp4", data / "dark" / f"{number}-again.mp4")
    prepare(data, tmp_path / "out", settings=SMALL, show=False)
    old, new = find_items(data), find_items(tmp_path / "out" / "clips.csv")
    assert (len(old.copies), len(new.copies)) == (4, 0)
    same(old, new)


def test_a_table_becomes_a_table(tmp_path: Path) -> None:
    data = write_videos(tmp_path / "data" / "clips", 3).parent
    elsewhere = write_videos(tmp_path / "elsewhere", 1, first=7) / "dark" / "7.mp4"
    rows = [
        "path,label,start,end,split,group",
        *(f"clips/bright/{n}.mp4,bright,,,train,{n // 2}" for n in range(3)),
        "clips/dark/0.mp4,dark,0,0.1,train,x",
        "clips/dark/0.mp4,dark,0.15,,val,x",
        f"{elsewhere},dark,,,test,",
    ]
    (data / "my.tsv").write_text("\n".join(rows))
    prepare(data / "my.tsv", tmp_path / "out", settings=SMALL, show=False)
    old, new = find_items(data / "my.tsv"), find_items(tmp_path / "out" / "my.csv")
    same(old, new, lambda path: path.lstrip("/"))
    assert (tmp_path / "out" / str(elsewhere).lstrip("/")).is_file()
    assert not (tmp_path / "out" / "clips" / "dark" / "1.mp4").exists(), "only what the table names"


@pytest.mark.parametrize(
    ("task", "labels", "rows"),
    [
        (
            "multilabel",
            ["tags"],
            ["path,tags,split", "dark/0.mp4,a;b,train", "dark/1.mp4,(none),train", "dark/2.mp4,,"],
        ),
        ("regression", ["speed", "angle"], ["angle,path,speed,group", "-2,dark/0.mp4,1.5,x", ",dark/1.mp4,0,y"]),
        ("regression", ["speed"], ["path,speed", "dark/0.mp4,1", "dark/1.mp4,2"]),
        ("classification", ["tags"], ["path,tags,label", "dark/0.mp4,a,x", "dark/1.mp4,b,x"]),
    ],
)
def test_labels_of_any_task_stay_in_their_columns(
    tmp_path: Path, task: str, labels: list[str], rows: list[str]
) -> None:
    data = write_videos(tmp_path / "data", 3)
    (data / "my.csv").write_text("\n".join(rows))
    made = prepare(data / "my.csv", tmp_path / "out", task=task, labels=labels, settings=SMALL, show=False)
    assert made.train_on == tmp_path / "out" / "my.csv"
    assert len(made.copies) == 2
    how: dict[str, Any] = {"task": find_task(task), "labels": labels, "minimum_classes": 1, "minimum_clips": 1}
    same(find_items(data / "my.csv", **how), find_items(made.train_on, **how))


def test_segments_of_a_file_stay_where_they_are(tmp_path: Path) -> None:
    for name, level in (("a.avi", 60), ("b.mp4", 190), ("c.mp4", 20)):
        write_video(tmp_path / name, np.full((50, 32, 40, 3), level, np.uint8))
    rows = ["path,start,end,label,split,group", "a.avi,0.1,0.5,x,train,g", "a.avi,0.25,,y;z,,", "b.mp4,0,1.5,x,val,"]
    (tmp_path / "my.csv").write_text("\n".join([*rows, "c.mp4,,,(none),val,"]))
    made = prepare(tmp_path / "my.csv", tmp_path / "out", task="segments", settings=SMALL, show=False)
    assert made.copies == {"a.avi": "a.mp4", "b.mp4": "b.mp4", "c.mp4": "c.mp4"}
    old, new = read_segments(tmp_path / "my.csv", minimum=1), read_segments(tmp_path / "out" / "my.csv", minimum=1)
    assert [replace(one, path=made.copies[one.path]) for one in old.recordings] == [
        replace(one, group=before.group) if before.group == before.path else one
        for one, before in zip(new.recordings, old.recordings, strict=True)
    ]
    assert old.names == new.names == ("x", "y", "z")


@pytest.mark.parametrize("flags", [["--task", "multilabel"], ["--labels", "tags"], ["--task", "segments"]])
def test_labels_that_were_asked_for_and_are_not_there_are_no_files_without_labels(
    tmp_path: Path, flags: list[str]
) -> None:
    data = write_videos(tmp_path / "data", 1)
    (data / "my.csv").write_text("path\ndark/0.mp4\n")
    assert command("prepare", data / "my.csv", tmp_path / "out", *flags) == 2
    assert not (tmp_path / "out").exists()
    assert command("prepare", data / "my.csv", tmp_path / "out") == 0


def test_what_is_there_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, out = write_videos(tmp_path / "data", 2), tmp_path / "out"
    made: list[Path] = []

    def counting(source: Path, *arguments: object, **named: object) -> None:
        made.append(source)
        shrink(source, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(tubelet.prepare, "shrink", counting)
    prepare(data, out, settings=SMALL, show=False)
    assert len(made) == 4
    made.clear()
    prepare(data, out, settings=SMALL, show=False)
    assert made == []
    (out / "dark" / "1.mp4").unlink()
    write_videos(data, 1, classes=("bright",))  # another content under the same name
    os.utime(data / "bright" / "0.mp4", ns=(1, 1))
    prepare(data, out, settings=SMALL, show=False)
    assert sorted(made) == [data / "bright" / "0.mp4", data / "dark" / "1.mp4"]
    made.clear()
    prepare(data, out, settings=Settings(short_side_px=18, gop_frames=4), show=False)
    assert len(made) == 4, "copies made with other settings are made anew"
    assert index(out / "dark" / "0.mp4").height == 18


def test_an_interrupted_copy_leaves_nothing_half_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, out = write_videos(tmp_path / "data", 2), tmp_path / "out"
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        prepare(data, out, settings=SMALL, workers=1, show=False)
    assert [path for path in out.rglob("*") if path.is_file()] == []


def test_unreadable_files_are_named_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = write_videos(tmp_path / "data", 3), tmp_path / "out"
    spoil(data / "dark" / "1.mp4")
    assert command("prepare", data, out, "--short-side", "16", "--gop", "4", "--quality", "20", "--workers", "1") == 3
    said = capsys.readouterr().out
    assert f"{data / 'dark' / '1.mp4'}: " in said
    assert f"prepared  5 files in {out}; missing, as they cannot be read: 1" in said
    assert [item.path for item in find_items(out).items if item.label == "dark"] == ["dark/0.mp4", "dark/2.mp4"]
    write_videos(data, 3, classes=("dark",))
    assert command("prepare", data, out, "--short-side", "16", "--gop", "4", "--quality", "20") == 0
    said = capsys.readouterr().out
    assert f"prepared  6 files in {out}\n" in said
    assert re.search(r"size  \d+ kB before, \d+ kB now\n", said)
    assert re.search(r"reading  \d+ ms a clip before, [\d.]+ ms now: [\d.]+ times as fast\n", said)
    assert f"train on  {out}\n" in said


def test_a_table_leaves_out_what_cannot_be_read(tmp_path: Path) -> None:
    data = write_videos(tmp_path / "data", 2)
    (data / "a.csv").write_text(
        "path,label\n" + "".join(f"{c}/{n}.mp4,{c}\n" for c in ("dark", "bright") for n in (0, 1))
    )
    spoil(data / "dark" / "1.mp4")
    (error,) = prepare(data / "a.csv", tmp_path / "out", settings=SMALL, show=False).failed
    assert error.path == str(data / "dark" / "1.mp4")
    items = find_items(tmp_path / "out" / "a.csv", minimum_clips=1).items
    assert [item.path for item in items] == ["bright/0.mp4", "bright/1.mp4", "dark/0.mp4"]


def flat(folder: Path) -> Path:
    """Loose videos and a picture, an empty folder, one with a video."""
    write_videos(folder, 2, classes=("a",))
    write_images(folder / "pictures", 1)
    shutil.move(folder / "a" / "0.mp4", folder / "0.MOV")
    shutil.move(folder / "a" / "1.mp4", folder / "1.mp4")
    shutil.move(folder / "pictures" / "dark" / "0.png", folder / "2.png")
    shutil.rmtree(folder / "pictures")
    return folder


@pytest.mark.parametrize(
    ("data", "copied"),
    [
        (".", ["0.MOV", "1.mp4"]),
        ("1.mp4", ["1.mp4"]),
        ("paths.csv", ["0.MOV"]),
        ("train", ["x.mp4"]),
    ],
)
def test_videos_without_labels_are_copied_under_their_names(
    tmp_path: Path, data: str, copied: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = flat(tmp_path / "data"), tmp_path / "out"
    (folder / "paths.csv").write_text("path,start\n0.MOV,1\n2.png,\n")
    if data == "train":
        for split in ("train", "val"):
            (folder / "train" / split).mkdir(parents=True)
        shutil.copy(folder / "1.mp4", folder / "train" / "train" / "x.mp4")
        copied = ["train/x.mp4"]
    assert command("prepare", folder / data, out, "--short-side", "16", "--json") == 0
    said = capsys.readouterr()
    made = json.loads(said.out)
    assert made == {"out": str(out), "train_on": None, "copies": {name: name for name in copied}, "failed": []}
    assert sorted(file.relative_to(out).as_posix() for file in out.rglob("*") if file.is_file()) == copied
    assert ("left out, as no videos (1): '2.png'" in said.err) == (data in (".", "paths.csv"))


def test_a_faulty_data_set_is_not_taken_for_one_without_labels(tmp_path: Path) -> None:
    data = write_videos(tmp_path / "data", 2)
    shutil.copytree(data, data / "train")
    with pytest.raises(DataProblems) as caught:
        prepare(data, tmp_path / "out", show=False)
    assert [problem.kind for problem in caught.value.problems][:1] == ["layout"]
    for header in ("path,label,label", "name,label", "path"):
        (tmp_path / "t.csv").write_text(f"{header}\n")
        with pytest.raises(DataProblems):
            prepare(tmp_path / "t.csv", tmp_path / "out", show=False)
    assert not (tmp_path / "out").exists()


def test_copies_may_lie_beside_the_table_but_not_around_its_files(tmp_path: Path) -> None:
    flat(tmp_path)
    assert prepare(tmp_path / "1.mp4", tmp_path / "small", settings=SMALL, show=False).copies == {"1.mp4": "1.mp4"}
    for out in (tmp_path, tmp_path.parent):
        with pytest.raises(ValueError, match=naming(out, "'1.mp4'")):
            prepare(tmp_path / "1.mp4", out, show=False)


def test_the_time_that_reading_takes_is_told_of_both(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_video(tmp_path / "data" / "a.mp4", numbered_frames(120, 240, 320), gop=250)
    shrink(tmp_path / "data" / "a.mp4", tmp_path / "a.mp4", short_side_px=64, gop_frames=12, crf=20)
    before, after = reading_seconds(tmp_path / "data", tmp_path, {"a.mp4": "a.mp4"})
    assert before > 0 < after


# ---- what is refused


@pytest.mark.parametrize(("data", "out"), [("a", "a/b"), ("a/b", "a"), ("a", "a"), ("a", "link/b")])
def test_folders_within_each_other(tmp_path: Path, data: str, out: str) -> None:
    write_videos(tmp_path / data, 1)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with pytest.raises(ValueError, match=naming(tmp_path / data, tmp_path / out)):
        prepare(tmp_path / data, tmp_path / out)


def test_other_kinds(tmp_path: Path) -> None:
    write_images(tmp_path / "data", 1)
    with pytest.raises(ValueError, match=naming(tmp_path / "data", "'image'")):
        prepare(tmp_path / "data", tmp_path / "out")
    with pytest.raises(ValueError, match=naming(tmp_path / "data" / "dark" / "0.png", 1, "'0.png'")):
        prepare(tmp_path / "data" / "dark" / "0.png", tmp_path / "out")


def test_two_files_with_one_copy(tmp_path: Path) -> None:
    data = write_videos(tmp_path / "data", 1)
    shutil.copy(data / "dark" / "0.mp4", data / "dark" / "0.avi")
    with pytest.raises(ValueError, match=naming(data, "'dark/0.avi'", "'dark/0.mp4'")):
        prepare(data, tmp_path / "out")


def test_files_of_others_are_not_overwritten(tmp_path: Path) -> None:
    data, out = write_videos(tmp_path / "data", 1), write_videos(tmp_path / "out", 1)
    before = (out / "dark" / "0.mp4").read_bytes()
    with pytest.raises(ValueError, match=naming(out / "bright" / "0.mp4")):
        prepare(data, out, show=False)
    assert (out / "dark" / "0.mp4").read_bytes() == before


@pytest.mark.parametrize(
    ("flag", "value", "bounds"),
    [
        ("--short-side", 255, (16,)),
        ("--short-side", 14, (16,)),
        ("--gop", 0, (1,)),
        ("--quality", 52, (0, 51)),
        ("--quality", -1, (0, 51)),
    ],
)
def test_settings_that_cannot_be(
    tmp_path: Path, flag: str, value: int, bounds: tuple[int, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("prepare", tmp_path, tmp_path / "out", flag, str(value)) == 2
    assert re.search(naming(flag, value, *bounds), capsys.readouterr().err)


def test_a_full_disk_is_no_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_videos(tmp_path / "data", 1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        prepare(data, tmp_path / "out", settings=SMALL, show=False)


# ---- the wait that a copy is to shorten


@pytest.mark.parametrize(
    ("waits", "from_files", "words"),
    [
        ([(0.5, 1.0), (0.0, 9.0)], True, "5% of 0:10"),
        ([(3.0, 4.0), (3.0, 6.0)], True, "60% of 0:10; `tubelet prepare` makes a copy that is quicker to read"),
        ([(3.0, 4.0), (3.0, 6.0)], False, "60% of 0:10"),
    ],
)
def test_training_says_how_long_it_waited(waits: list[tuple[float, float]], from_files: bool, words: str) -> None:
    assert describe_wait(waits, from_files=from_files) == words


def test_the_line_is_shown_after_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_fn(tiny_config(write_videos(tmp_path / "data", 2), tmp_path / "run", epochs=1), show=True)
    assert re.search(r"^data wait  \d+% of 0:\d\d\b", capsys.readouterr().out, re.MULTILINE)
