"""`tubelet check`: every bad file named and no other, nothing read twice, nothing written into the folder."""

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from struct import pack
from typing import Any

import pytest
import torch
from corpus import GROUPS
from naming import naming
from small_files import small_file
from small_sets import command, spoil, tiny_config, write_sounds

import tubelet.data.health_cache
from tubelet.check import check
from tubelet.data.health_cache import HealthCache, index_file
from tubelet.data.items import Item, Source
from tubelet.media.health import Health, examine
from tubelet.media.workers import Workers
from tubelet.tasks import Classification
from tubelet.train.plan import Plan, make_plan
from tubelet.train.preflight import look_at_files

BAD = (  # of tests/corpus.py
    *("empty.mp4", "text.mp4", "hls.mp4", "half.mp4", "in-moov.mp4", "80-h264.mkv", "hole-mjpeg.mov", "bomb.png"),
    *("no-packets.mp4", "zzzz.mp4", "pipe.mp4", "dangling.mp4"),
)
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def clips(folder: Path, clips: int = 4, classes: tuple[str, ...] = ("run", "walk")) -> Path:
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(clips):
            box = pack(">I4s8s", 16, b"free", f"{name}{number}".encode())  # no two files are the same
            (folder / name / f"{number}.mp4").write_bytes(small_file("front.mp4") + box)
    return folder


def make(folder: Path, name: str) -> str:
    """Makes a bad file of the corpus; returns the code, or codes, that are right."""
    group = next(group for group, rows in GROUPS.items() if name in rows)
    row = GROUPS[group][name]
    if group == "place":
        row.make(folder / name)
    else:
        (folder / name).write_bytes(row.make())
    return row.expected_health


def examine_by(monkeypatch: pytest.MonkeyPatch, look: Callable[..., Health]) -> None:
    """Files are examined by `look` from now on, in this process."""

    class Here(Workers):
        examine = staticmethod(look)

    monkeypatch.setattr(tubelet.data.health_cache, "Workers", Here)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are examined from now on."""
    seen: list[str] = []

    def count(path: str, *, quick: bool) -> Health:
        seen.append(os.path.basename(path))
        return examine(path, quick=quick)

    examine_by(monkeypatch, count)
    return seen


def tree(folder: Path) -> dict[str, tuple[int, int, int]]:
    found = {path: path.lstat() for path in [folder, *folder.rglob("*")]}
    return {str(path): (status.st_size, status.st_mtime_ns, status.st_mode) for path, status in found.items()}


# ---- what is found


def test_exactly_the_bad_files_are_named(tmp_path: Path, capsys: Capture) -> None:
    data = clips(tmp_path / "clips", 24)
    expected = {f"{data}/walk/{name}": make(data / "walk", name) for name in BAD}
    before = tree(data)
    assert command("check", data) == 3
    assert tree(data) == before  # nothing is written, no time changed
    out = capsys.readouterr().out
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.startswith(str(data))}
    assert set(rows) == set(expected)
    assert all(rows[path][1] in codes.split("|") for path, codes in expected.items())
    assert f"bad  12 of 60 files: {Counter(row[1] for row in rows.values()).most_common(1)[0][1]} " in out
    assert f"index  {index_file(data)}" in out
    assert (
        "next  copy or download the bad files again, or remove them (10 cannot be used, 2 can in part); then t" in out
    )


def test_what_is_lost_of_a_damaged_file_is_said(tmp_path: Path, capsys: Capture) -> None:
    make(tmp_path, "hole-mjpeg.mov")
    (health,) = check(tmp_path / "hole-mjpeg.mov")
    assert health.usable
    assert not health.ok
    out = capsys.readouterr().out
    begin, end = health.bad_spans[0]
    lost = f"{health.bad_frames} of {health.frames + health.bad_frames} frames lost, {begin:.2f} to {end:.2f} s: "
    assert f"{tmp_path}/hole-mjpeg.mov  damaged     {lost}{health.message}" in out
    assert f"in them  1 video of {health.frames} frames, 0:0" in out


def test_json_is_a_line_for_each_file_and_nothing_else(tmp_path: Path, capsys: Capture) -> None:
    data = clips(tmp_path / "clips")
    spoil(data / "run" / "0.mp4")
    for _ in range(2):  # those that are known are told of too
        assert command("check", data, "--json") == 3
        out, err = capsys.readouterr()
        found = [json.loads(line) for line in out.splitlines()]
        assert sorted(one["path"] for one in found) == sorted(map(str, data.glob("*/*.mp4")))
        assert {one["path"]: one["code"] for one in found if not one["ok"]} == {f"{data}/run/0.mp4": "not-video"}
        assert all(set(one) == set(Health.__dataclass_fields__) for one in found)
        assert "bad  1 of 8 files: 1 not-video" in err


def test_names_cannot_play_tricks(tmp_path: Path, capsys: Capture) -> None:
    data = clips(tmp_path / "clips")
    name = "a\x1b[31m\nb\u202e.mp4"
    (data / "run" / name).write_bytes(b"nothing")
    (data / "run" / os.fsdecode(b"\xff.mp4")).write_bytes(small_file("front.mp4"))
    assert command("check", data) == 3
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert f"{data}/run/a\\x1b[31m\\nb\\u202e.mp4  not-video" in out
    assert command("check", data, "--json") == 3
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(os.path.exists(one["path"]) for one in found)


def test_many_bad_files_are_counted_and_some_shown(tmp_path: Path, capsys: Capture) -> None:
    data = clips(tmp_path / "clips", 1)
    for number in range(25):
        (data / "run" / f"bad{number}.mp4").write_bytes(b"")
    assert command("check", data) == 3
    out = capsys.readouterr().out
    assert len([line for line in out.splitlines() if line.startswith(str(data))]) == 20
    assert re.search(naming("5 more", f"`tubelet check {data} --json`"), out)
    assert "bad  25 of 27 files: 25 empty" in out


def test_a_plain_folder_of_all_kinds_is_fine(tmp_path: Path, capsys: Capture) -> None:
    data = tmp_path / "my media"
    (data / "2024" / "deep" / "er").mkdir(parents=True)
    (data / "2024" / "deep" / "er" / "a.MP4").write_bytes(small_file("front.mp4"))
    (data / "b.png").write_bytes(small_file("png.png"))
    write_sounds(data / "sounds", 1)
    for name in (".hidden.mp4", "notes.txt", "list.txt", "README"):
        (data / name).write_text("words")
    assert command("check", data) == 0
    out = capsys.readouterr().out
    assert "bad  none of 4 files" in out
    assert "1 image; 2 recordings of 0:01" in out
    assert "passed over  2 .txt, 1 hidden, 1 without a suffix" in out
    assert f"next  tubelet predict RUN '{data}'" in out


def test_files_are_checked_where_the_folders_are_no_data_set(tmp_path: Path, capsys: Capture) -> None:
    data = clips(tmp_path / "clips", classes=("Walk", "walk"))
    assert command("check", data) == 0
    out = capsys.readouterr().out
    assert "bad  none of 8 files" in out
    assert "classes 'Walk' and 'walk': differ only in case" in out


def test_a_good_data_set_is_said_to_be_one(tmp_path: Path, capsys: Capture) -> None:
    data = clips(tmp_path / "clips")
    (data / "walk" / "4.mp4").write_bytes(small_file("h264.mp4"))
    assert command("check", data) == 0
    assert f"next  tubelet train {data}\n" in capsys.readouterr().out


TASK_TABLES = {
    "multilabel": ("path,label", ["run/0.mp4,fast;far", "run/1.mp4,far", "walk/0.mp4,(none)", "walk/1.mp4,fast"]),
    "regression": ("path,speed,angle", ["run/0.mp4,1.5,2", "run/1.mp4,2.5,", "walk/0.mp4,-1,3", "walk/1.mp4,0,0"]),
    "segments": ("path,start,end,label", ["run/0.mp4,0,0.2,a", "run/0.mp4,0.1,0.3,b", "walk/0.mp4,0.1,0.2,a;b"]),
}


@pytest.mark.parametrize(
    ("flags", "is_good", "said"),
    [
        (["multilabel"], ["multilabel"], ["4 clips of 2 classes"]),
        (["regression", "--labels", "speed", "angle"], ["regression"], ["4 clips with speed, angle"]),
        (["regression", "--labels", "Speed"], ["regression"], ["4 clips with Speed"]),
        (["segments"], ["segments"], ["3 rows of 2 classes"]),
        (["regression"], [], ["not to be trained on", "label"]),
        (["classification"], [], ["not to be trained on"]),
    ],
)
@pytest.mark.parametrize("table", TASK_TABLES)
def test_a_table_is_looked_at_as_the_task_reads_it(
    tmp_path: Path, capsys: Capture, table: str, flags: list[str], is_good: list[str], said: list[str]
) -> None:
    data = clips(tmp_path / "clips", 2)
    header, lines = TASK_TABLES[table]
    (data / "set.csv").write_text("\n".join([header, *lines]))
    assert command("check", data / "set.csv", "--task", *flags) == 0
    out = capsys.readouterr().out
    if table in is_good:
        assert all(one in out for one in said)
        assert f"next  tubelet train {data / 'set.csv'} --task {' '.join(flags)}\n" in out
    elif not is_good:
        assert said[0] in out


@pytest.mark.parametrize("verb", [["check"], ["prepare", "small"]])
@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--labels", "a", "b"], "a b"),
        (["--task", "multilabel", "--labels", "a", "b"], "a b"),
        (["--task", "regression", "--labels", "a", "a"], "a a"),
        (["--task", "segments", "--labels", "a"], "--labels a"),
        (["--task", "guess"], "'guess'"),
    ],
)
def test_columns_that_a_task_does_not_read_are_refused_first(
    tmp_path: Path, capsys: Capture, verb: list[str], flags: list[str], named: str
) -> None:
    data = clips(tmp_path / "clips", 1)
    places = [data, *(tmp_path / place for place in verb[1:])]
    assert command(verb[0], *places, *flags) == 2
    assert named in capsys.readouterr().err
    assert not (tmp_path / "small").exists()


def test_a_table_is_checked_whatever_is_wrong_with_it(tmp_path: Path, capsys: Capture) -> None:
    data = clips(tmp_path / "clips", 1)
    spoil(data / "run" / "0.mp4")
    rows = ["Path;label", "run/0.mp4;run", f"{data}/walk/0.mp4;walk", "walk/gone.mp4;walk", "walk/0.mp4;"]
    (data / "set.csv").write_text("\n".join(rows))
    found = check(data / "set.csv")
    assert {health.path: health.code for health in found} == {
        f"{data}/run/0.mp4": "not-video",
        f"{data}/walk/0.mp4": "ok",
        f"{data}/walk/gone.mp4": "missing",
    }
    assert "as data  not to be trained on:" in capsys.readouterr().out


def test_links_do_not_lead_round_in_circles(tmp_path: Path, capsys: Capture) -> None:
    data = clips(tmp_path / "clips", 1)
    (data / "run" / "up").symlink_to("..")
    (data / "loop").symlink_to("loop")
    (data / "loop.mp4").symlink_to("loop.mp4")
    found = check(data)
    assert {health.path.removeprefix(f"{data}/"): health.code for health in found} == {
        "run/0.mp4": "ok",
        "walk/0.mp4": "ok",
        "loop.mp4": "missing",
    }
    assert "1 folders met a second time through a link" in capsys.readouterr().out


def test_a_folder_that_cannot_be_entered_is_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, scandir = clips(tmp_path / "clips", 1), os.scandir

    def refuse(path: str | Path) -> Any:
        if Path(path).name == "walk":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("tubelet.data.walk.os.scandir", refuse)
    found = check(data, show=False)
    assert [(health.path, health.ok, health.code) for health in found] == [
        (f"{data}/run/0.mp4", True, "ok"),
        (f"{data}/walk/", False, "unreadable"),
    ]


def no_media(folder: Path) -> Path:
    (folder / "notes.txt").write_text("words")
    return folder


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (lambda folder: folder / "nowhere", "nowhere does not exist: name a folder of media, a CSV file or a single"),
        (no_media, "no video, image or sound files in it, only 1 .txt: name a folder that holds some, or a table"),
        (lambda folder: no_media(folder) / "notes.txt", "notes.txt: no video, image or sound files in it: name a"),
    ],
)
def test_nothing_to_check_is_an_error(
    tmp_path: Path, capsys: Capture, where: Callable[[Path], Path], expected: str
) -> None:
    assert command("check", where(tmp_path)) == 2
    assert expected in capsys.readouterr().err


def test_workers_are_counted_from_none(tmp_path: Path, capsys: Capture) -> None:
    assert command("check", clips(tmp_path / "clips", 1), "--workers", "-1") == 2
    assert re.search(naming("--workers -1", 1, 0), capsys.readouterr().err)


# ---- what is remembered


def test_a_second_check_reads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    data = clips(tmp_path / "clips")
    make(data / "run", "80-h264.mkv")
    first, seen = check(data, workers=3), counted(monkeypatch)
    assert check(data) == first
    assert seen == []
    assert "known  9 of 9 files, not changed since" in capsys.readouterr().out
    assert check(data, quick=True) == first  # what was read in full need not be looked at quickly


def test_a_quick_check_is_no_full_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, seen = clips(tmp_path / "clips", 1), counted(monkeypatch)
    for quick, looks in ((True, 2), (True, 2), (False, 4), (True, 4)):
        check(data, quick=quick, show=False)
        assert len(seen) == looks


def touch(file: Path) -> None:
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))


def grow(file: Path) -> None:
    status = file.stat()
    file.write_bytes(file.read_bytes() + b" ")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def swap(file: Path) -> None:
    status = file.stat()
    shutil.copy(file, file.with_suffix(".new"))
    os.utime(file.with_suffix(".new"), ns=(status.st_atime_ns, status.st_mtime_ns))
    file.with_suffix(".new").replace(file)


@pytest.mark.parametrize("change", [touch, grow, swap])
def test_a_file_that_changed_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    data = clips(tmp_path / "clips")
    check(data, show=False)
    change(data / "walk" / "2.mp4")
    seen = counted(monkeypatch)
    check(data, show=False)
    assert seen == ["2.mp4"]


def test_a_file_that_changes_while_it_is_read_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = clips(tmp_path / "clips", 1)

    def slow(path: str, *, quick: bool) -> Health:
        health = examine(path, quick=quick)
        spoil(Path(path))
        return health

    examine_by(monkeypatch, slow)
    assert all(health.ok for health in check(data, show=False))
    examine_by(monkeypatch, examine)
    assert not any(health.ok for health in check(data, show=False))


def test_what_may_pass_by_itself_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = clips(tmp_path / "clips", 1)
    whole = examine(data / "run" / "0.mp4")
    examine_by(monkeypatch, lambda path, quick: replace(whole, ok=False, usable=False, code="unreadable"))
    assert not any(health.ok for health in check(data, show=False))
    examine_by(monkeypatch, examine)
    assert all(health.ok for health in check(data, show=False))


def test_stopped_it_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    data, looks = clips(tmp_path / "clips", 10), 0

    def stop(path: str, *, quick: bool) -> Health:
        nonlocal looks
        looks += 1
        if looks == 8:
            raise KeyboardInterrupt
        return examine(path, quick=quick)

    examine_by(monkeypatch, stop)
    assert command("check", data, "--workers", "1") == 130
    assert "7 of 20 files" in capsys.readouterr().out
    seen = counted(monkeypatch)
    assert command("check", data) == 0
    assert len(seen) == 13
    assert "known  7 of 20 files" in capsys.readouterr().out


def test_it_is_saved_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = clips(tmp_path / "clips")
    monkeypatch.setattr(tubelet.data.health_cache, "SAVE_SECONDS", 0.0)
    saved = []
    save = HealthCache.save
    monkeypatch.setattr(HealthCache, "save", lambda self: saved.append(len(self.entries)) or save(self))
    check(data, show=False)
    assert saved == [1, 2, 3, 4, 5, 6, 7, 8, 8]


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line[: len(line) // 2],
        lambda line: "null",
        lambda line: line.replace('"bad_spans": []', '"bad_spans": [[1]]'),
        lambda line: line.replace('"frames"', '"flames"'),
        lambda line: line.replace('"rules": "', '"rules": "0'),
        lambda line: line.replace('"health": {', '"health": [{').replace("}}", "}]}"),
        lambda line: "\x00\udcff".encode("utf-8", "surrogateescape").decode("latin-1"),
    ],
)
def test_damaged_lines_of_the_index_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[str], str]
) -> None:
    data = clips(tmp_path / "clips", 1)
    found = check(data, show=False)
    first, second = index_file(data).read_text().splitlines()
    assert damage(first) != first
    index_file(data).write_text(f"{damage(first)}\n{second}\n")
    seen = counted(monkeypatch)
    assert check(data, show=False) == found
    assert seen == ["0.mp4"]


def test_no_place_for_the_index_is_said(tmp_path: Path, cache: Path, capsys: Capture) -> None:
    data = clips(tmp_path / "clips", 1)
    cache.write_text("in the way")
    assert command("check", data) == 0
    assert "Not a directory" in capsys.readouterr().out


def test_no_home_is_no_disaster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    check(clips(tmp_path / "clips", 1))
    assert "XDG_CACHE_HOME" in capsys.readouterr().out


def test_a_save_that_fails_leaves_the_old_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = clips(tmp_path / "clips", 1)
    check(data, show=False)
    before = index_file(data).read_bytes()
    checked = HealthCache.open(data)
    checked.put("run/0.mp4", examine(data / "run" / "0.mp4"), stamp=checked.stamp("run/0.mp4"), quick=False)

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tubelet.data.health_cache.os.fsync", full)
    assert checked.save() == f"{index_file(data)} cannot be written (No space left on device)"
    assert index_file(data).read_bytes() == before
    assert len(list(index_file(data).parent.iterdir())) == 1


# ---- what training makes of it


def plan_for(data: Path, **settings: Any) -> Plan:
    return make_plan(tiny_config(data, data, **settings), torch.device("cpu"))


def test_training_opens_no_file_that_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, seen = clips(tmp_path / "clips", 5), counted(monkeypatch)
    plain = plan_for(data)
    assert len(seen) == 10
    check(data, show=False)
    seen.clear()
    plan = plan_for(data)
    assert seen == []
    assert plan == plain
    assert plan.data.bad == ()


def test_training_remembers_many_files_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tubelet.data.health_cache, "MANY", 10)
    data, seen = clips(tmp_path / "clips", 5), counted(monkeypatch)
    assert plan_for(data) == plan_for(data)
    assert len(seen) == 10
    check(data, show=False)  # but a full check reads in full


def test_the_plan_says_which_files_are_bad(tmp_path: Path) -> None:
    data = clips(tmp_path / "clips", 10)
    train = [item.path for item in plan_for(data).data.items("train")]
    held_out = plan_for(data).data.items("val")[0].path
    spoil(data / train[0])
    spoil(data / held_out)
    (data / train[1]).write_bytes(small_file("png.png"))
    plan = plan_for(data, max_bad="20%")
    assert {(bad.path, bad.code, bad.split) for bad in plan.data.bad} == {
        (train[0], "not-video", "train"),
        (train[1], "other-kind", "train"),
        (held_out, "not-video", "val"),
    }
    assert list(plan.data.bad) == sorted(plan.data.bad, key=lambda bad: bad.path)
    assert {item.path for item in plan.data.items("train")} == set(train[2:])
    assert held_out in {item.path for item in plan.data.items("val")}
    (note,) = (note for note in plan.notes if "cannot be read" in note)
    assert note.startswith("3 files cannot be read: 2 left out of training, held-out ones count as wrong\n  ")
    assert re.search(naming(data / train[1], "'image'", "'video'"), note)


def test_files_that_lost_something_are_used_and_told_of(tmp_path: Path) -> None:
    data = clips(tmp_path / "clips", 10)
    train = [item.path for item in plan_for(data).data.items("train")]
    make(tmp_path, "hole-mjpeg.mov")
    shutil.copy(tmp_path / "hole-mjpeg.mov", data / train[0])  # whatever its suffix
    (bad,) = (health for health in check(data, show=False) if not health.ok)
    plan = plan_for(data, max_bad="0%")
    assert plan.data.bad == ()
    assert train[0] in {item.path for item in plan.data.items("train")}
    frames = f"{bad.bad_frames} of {bad.frames + bad.bad_frames} frames"
    assert any(note.startswith(f"1 file damaged but used: {frames} (") for note in plan.notes)


@pytest.mark.parametrize(
    ("bad", "most", "values"),
    [
        (1, "5%", ("1 of 16", "6.2%", "5%", "--max-bad")),
        (4, "20%", ("4 of 16", "25.0%", "20%", "--max-bad 25%")),
        (1, "0%", ("0%", "--max-bad")),
        (10, "50%", ("--max-bad 63%", "2 more", "`tubelet check`")),
    ],
)
def test_more_bad_files_than_allowed_stop_the_training(
    tmp_path: Path, bad: int, most: str, values: tuple[str, ...]
) -> None:
    data = clips(tmp_path / "clips", 10)
    by_class: dict[str, list[str]] = {}
    for item in plan_for(data).data.items("train"):
        by_class.setdefault(item.label, []).append(item.path)
    for pair in list(zip(*by_class.values(), strict=True))[: max(1, bad // 2)]:
        for path in pair[: min(bad, 2)]:
            spoil(data / path)
    with pytest.raises(ValueError, match=naming(*values)):
        plan_for(data, max_bad=most)
    allowed = plan_for(data, max_bad="63%")
    assert len(allowed.data.items("train")) == 16 - bad


def test_many_known_files_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.mp4").write_bytes(small_file("front.mp4"))
    health, count = examine(tmp_path / "a.mp4"), 20_000
    items = tuple(Item(f"{i % 2}/{i}.mp4", str(i % 2), split="val" if i % 10 < 2 else "train") for i in range(count))
    monkeypatch.setattr(HealthCache, "stamp", lambda self, path: {"size": 1, "mtime_ns": 2, "inode": 3})
    checked = HealthCache.open(tmp_path)
    for item in items:
        checked.put(item.path, health, stamp=checked.stamp(item.path), quick=True)
    assert checked.save() == ""
    seen = counted(monkeypatch)
    look = look_at_files(Source(tmp_path, "video", items, Classification(("0", "1"))), most_bad=0.05, workers=1)
    assert seen == []
    assert (len(look.healths), len(look.source.items), look.bad, look.notes) == (count, count, (), ())


def test_parts_of_a_file_are_bad_each_by_itself(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(small_file("front.mp4"))
    spoil(tmp_path / "b.mp4")
    parts = [Item("b.mp4", "x", start, start + 1, "train") for start in (1.0, 0.0)]
    late = Item("a.mp4", "y", 99.0, 100.0, "val")
    good = [Item("a.mp4", label, split=split) for label in "xy" for split in ("train", "val")]
    source = Source(tmp_path, "video", (*good, *parts, late), Classification(("x", "y")))
    look = look_at_files(source, most_bad=0.5, workers=1)
    assert [(bad.path, bad.code, bad.split) for bad in look.bad] == [
        ("a.mp4#t=99,100", "no-frames", "val"),
        ("b.mp4#t=0,1", "not-video", "train"),
        ("b.mp4#t=1,2", "not-video", "train"),
    ]
    assert look.bad[0].message.startswith("nothing lies between 99.0 s and ")
    assert look.source.items == (*good, late)
