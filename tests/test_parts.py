"""A command cut into parts: merged, they are what one process makes, byte for byte, whatever became of the jobs."""

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from failing_disk import Disk, end, in_child
from naming import naming
from recordings import write_recordings
from small_sets import command, spoil, tiny_config, write_videos

from tubelet.runs.parts import (
    MANIFEST,
    RESULTS,
    Merged,
    Part,
    PartsMissing,
    PartWritten,
    Shard,
    place,
)
from tubelet.runs.share import Form, Keep, Key, Work, pack_array, unpack_array
from tubelet.train.train import train_fn

SOAK = os.environ.get("TUBELET_SOAK", "") == "1"
CPU = ("--device", "cpu", "--dtype", "float32")
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")


@pytest.fixture(scope="module")
def place_of_work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `run`, and `clips`: 34 files, one of them damaged, so that two batches leave one clip over."""
    folder = tmp_path_factory.mktemp("work")
    train_fn(tiny_config(write_videos(folder / "known"), folder / "run", epochs=1), show=False)
    spoil(write_videos(folder / "clips", 17, first=100) / "dark" / "103.mp4")
    return folder


@pytest.fixture(autouse=True)
def there(place_of_work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("run", "clips"):
        (tmp_path / name).symlink_to(place_of_work / name)


# ---- the mechanism alone

KEYS: list[Key] = [(f"{number}.mp4", None, None) for number in range(12)] + [("0.mp4", 0.0, 0.1), ("0.mp4", 0.1, None)]
SQUARES = Form[float](lambda value: value, lambda number, packed: packed)


def square(numbers: list[int], keep: Keep[float]) -> None:
    for number in numbers:
        keep(number, number**2 / 3)


def do_part(folder: Path, text: str, keys: Sequence[Key] = KEYS, *, work: Any = square, **settings: Any) -> PartWritten:
    with pytest.raises(PartWritten) as done:
        Shard(Part.parse(folder, text), ("typed",), settings).make(Work(keys, work, SQUARES))
    return done.value


def merge_parts(folder: Path, keys: Sequence[Key] = KEYS) -> list[float]:
    return Merged(folder).make(Work(keys, square, SQUARES))


def test_where_a_path_belongs_depends_on_it_alone_and_is_the_same_for_ever() -> None:
    assert [place(f"clips/{number}.mp4", 7) for number in range(6)] == [4, 1, 3, 4, 1, 1]
    assert place("u\N{COMBINING DIAERESIS}.mp4", 1000) == place("\N{LATIN SMALL LETTER U WITH DIAERESIS}.mp4", 1000)
    assert place("\udcff.mp4", 3) in (1, 2, 3)
    counts = np.bincount([place(f"{number}", 10) for number in range(20_000)], minlength=11)
    assert counts[0] == 0
    assert counts[1:].min() > 1800


def test_each_item_is_in_one_part_and_those_of_one_file_are_together() -> None:
    folder = Path("parts")
    cuts = [Part(folder, number, 4).cut(KEYS) for number in range(1, 5)]
    assert sorted(number for cut in cuts for number in cut) == list(range(len(KEYS)))
    assert len({number for number, cut in enumerate(cuts) for one in cut if KEYS[one][0] == "0.mp4"}) == 1
    more = [("new.mp4", None, None), *KEYS]
    for number, cut in enumerate(cuts, 1):
        assert {KEYS[one] for one in cut} == {more[one] for one in Part(folder, number, 4).cut(more)} - {more[0]}


@pytest.mark.parametrize("text", ["", "3", "0/3", "4/3", "-1/3", "1/0", "1/3/5", "a/b", "1.0/2", "٣/٤"])
def test_no_part_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=naming("--shard")):
        Part.parse(Path("parts"), text)


def test_parts_in_any_order_are_merged_in_the_order_of_the_items(tmp_path: Path) -> None:
    folder, twice = tmp_path / "parts", [*KEYS, KEYS[3]]
    with pytest.raises(ValueError, match=naming(folder)):
        Merged(folder).read_typed()
    for text in ("3/3", "1/3"):
        do_part(folder, text, twice)
    with pytest.raises(PartsMissing, match=naming("2", "1 of 3 parts")) as missing:
        merge_parts(folder, twice)
    assert missing.value.numbers == [2]
    do_part(folder, "2/3", twice)
    squares = [number**2 / 3 for number in range(len(KEYS))]
    assert merge_parts(folder, twice) == [*squares, squares[3]]
    assert Merged(folder).read_typed() == ["typed"]


def test_a_job_done_again_makes_what_is_new_alone(tmp_path: Path) -> None:
    def make(numbers: list[int], keep: Keep[float]) -> None:
        made.extend(numbers)
        square(numbers, keep)

    made: list[int] = []
    folder, part = tmp_path / "parts", Part(tmp_path / "parts", 1, 2)
    first = do_part(folder, "1/2", work=make)
    assert (first.items, first.known, made) == (len(part.cut(KEYS)), 0, part.cut(KEYS))
    before, files = (part.path / RESULTS).stat(), sorted(os.listdir(part.path))
    assert files == [MANIFEST, RESULTS]
    again = do_part(folder, "1/2", work=make)
    assert (again.items, again.known, made) == (first.items, first.items, part.cut(KEYS))
    assert (part.path / RESULTS).stat().st_mtime_ns == before.st_mtime_ns
    do_part(folder, "2/2")
    more: list[Key] = [*KEYS[1:], *((f"new-{number}.mp4", None, None) for number in range(9))]
    with pytest.raises(PartsMissing):
        merge_parts(folder, more)
    made.clear()
    third = do_part(folder, "1/2", more, work=make)
    assert made == [number for number in part.cut(more) if number >= len(KEYS) - 1]
    assert third.known == third.items - len(made) > 0
    do_part(folder, "2/2", more)
    assert len(merge_parts(folder, more)) == len(more)


def test_parts_made_otherwise_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    do_part(folder, "1/2", views="1x1")
    with pytest.raises(ValueError, match=naming("views: 1x1 -> 4x1", "--parts")):
        Shard(Part(folder, 2, 2), ("typed",), {"views": "4x1"}).make(Work(KEYS, square, SQUARES))
    with pytest.raises(ValueError, match=naming("2", "3", "--parts")):
        Shard(Part(folder, 1, 3), ("typed",), {"views": "1x1"}).make(Work(KEYS, square, SQUARES))
    do_part(folder, "2/2", views="1x1")
    with pytest.raises(ValueError, match=naming(folder, "model: None -> b")):
        Merged(folder).make(Work(KEYS, square, SQUARES, about=lambda: {"model": "b", "precision": "another"}))
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match=naming(tmp_path / "else", "--parts")):
        Shard(Part(tmp_path / "else", 1, 2), (), {}).make(Work(KEYS, square, SQUARES))
    manifest = folder / "2-of-2" / MANIFEST
    manifest.write_text(manifest.read_text().replace("1x1", "4x1"))
    with pytest.raises(ValueError, match=naming(folder / "2-of-2", "views: 4x1 -> 1x1")):
        merge_parts(folder)
    manifest.write_text("{")
    with pytest.raises(ValueError, match=naming(manifest)):
        merge_parts(folder)
    shutil.copytree(folder / "1-of-2", folder / "1-of-7")
    with pytest.raises(ValueError, match=naming("1-of-2", "1-of-7")):
        merge_parts(folder)


def test_damaged_results_are_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    do_part(folder, "1/1")
    results = folder / "1-of-1" / RESULTS
    whole = results.read_bytes()
    results.write_bytes(whole.replace(b"3.0", b"4.0"))
    with pytest.raises(PartsMissing, match=naming("damaged", "1")):
        merge_parts(folder)
    assert do_part(folder, "1/1").known == 0
    assert results.read_bytes() == whole


@forks
def test_a_job_killed_at_any_change_of_the_disk_goes_on(tmp_path: Path) -> None:
    """A first job, and one after items were added; each is killed before every call that changes the disk, in turn."""
    more = KEYS + [(f"new-{number}.mp4", None, None) for number in range(3)]
    do_part(tmp_path / "straight", "1/1", more)
    whole = (tmp_path / "straight" / "1-of-1" / RESULTS).read_bytes()
    for keys in ([], KEYS):
        at, killed = 0, True
        while killed:
            folder = tmp_path / f"{len(keys)}-{at}"
            if keys:
                do_part(folder, "1/1", keys)

            def job(folder: Path = folder, at: int = at) -> None:
                disk = Disk(pytest.MonkeyPatch(), at=at, fail=end)
                do_part(folder, "1/1", more)
                os._exit(0 if len(disk.calls) <= at else 1)

            killed = in_child(job) == 9
            do_part(folder, "1/1", more)
            assert (folder / "1-of-1" / RESULTS).read_bytes() == whole, at
            assert sorted(os.listdir(folder / "1-of-1")) == [MANIFEST, RESULTS], at
            at += 1
        assert at > 20


@forks
def test_a_file_of_which_decoders_die_does_not_end_its_job_for_ever(tmp_path: Path) -> None:
    """Twice a job dies of it; the third has the files decoded by children first, and opens it no more."""
    deadly, refused = 5, set[str]()

    class Children:
        def __enter__(self) -> "Children":
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def examine(self, path: str, *, quick: bool) -> None:
            assert not quick
            refused.add(path)

    def die(numbers: list[int], keep: Keep[float]) -> None:
        for number in numbers:
            if number == deadly and str(tmp_path / KEYS[deadly][0]) not in refused:
                os._exit(11)
            keep(number, number**2 / 3)

    def job() -> None:
        pytest.MonkeyPatch().setattr("tubelet.runs.parts.Workers", Children)
        with pytest.raises(PartWritten):
            Shard(Part(tmp_path / "parts", 1, 1), (), {}).make(Work(KEYS, die, SQUARES, root=tmp_path))
        os._exit(len(refused))

    assert [in_child(job) for _ in range(4)] == [11, 11, len(KEYS) - deadly - 1, 0]
    assert merge_parts(tmp_path / "parts") == [number**2 / 3 for number in range(len(KEYS))]


@pytest.mark.parametrize("kind", ["<f4", "<f8", ">f4", "|u1"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3)])
def test_arrays_come_back_to_the_bit(kind: str, shape: tuple[int, ...]) -> None:
    values = (np.random.default_rng(0).normal(size=shape) * 100).astype(kind)
    back = unpack_array(json.loads(json.dumps(pack_array(values))))
    assert (back.dtype, back.shape, back.tobytes()) == (values.dtype, values.shape, values.tobytes())


# ---- the commands

COMMANDS: dict[str, tuple[str, ...]] = {
    "predict": ("predict", "run", "clips", "--csv", "out.csv", *CPU),
    "eval": ("eval", "run", "clips", "--csv", "out.csv", *CPU),
    "embed": ("embed", "run", "clips", "--out", "out", "--device", "cpu"),
    "check": ("check", "clips"),
    "prepare": ("prepare", "clips", "out", "--short-side", "16"),
}


def contents() -> dict[str, bytes]:
    """What a command wrote."""
    files = [Path("out.csv"), *Path("out").rglob("*")]
    return {str(file): file.read_bytes() for file in files if file.is_file()}


def clear() -> None:
    shutil.rmtree("out", ignore_errors=True)
    Path("out.csv").unlink(missing_ok=True)


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What a command printed, but for times, places and what was measured with a clock."""
    clock = ("reading", "known", "index", "prepared", "vectors")
    shown = [line for line in capsys.readouterr().out.splitlines() if line.split(" ")[0] not in clock]
    return [line for line in shown if not line.startswith(("preparing ", "checking ", "predicting ", "evaluating "))]


@pytest.mark.parametrize("name", COMMANDS)
def test_merged_parts_are_what_one_process_makes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, typed = 3, COMMANDS[name]
    assert command(*typed) == code
    whole, shown = contents(), said(capsys)
    assert whole or name == "check"
    assert command(*typed, "--json") == code
    as_json = capsys.readouterr().out
    clear()
    for number in (2, 3, 1):
        assert command(*typed, "--shard", f"{number}/3", "--parts", "parts") == 0
        assert "tubelet merge parts" in capsys.readouterr().out
        if number != 1:
            assert command("merge", "parts", "--json") == 5
            assert json.loads(capsys.readouterr().out) == {"missing": [1] if number == 3 else [1, 3]}
    if name != "prepare":
        assert contents() == {}
    assert command("merge", "parts") == code
    assert contents() == whole
    assert said(capsys) == shown
    assert command("merge", "parts", "--json") == code
    assert capsys.readouterr().out == as_json
    assert command(*typed, "--shard", "2/3", "--parts", "parts", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["known"] == found["items"] > 0


def test_segments_are_shared_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tubelet.train.segments.STEPS", 3)
    table = write_recordings(tmp_path / "films", {"train": 2, "val": 3}, seconds=12.0)
    settings: dict[str, Any] = {"task": "segments", "seconds_between_frames": 0.1, "epochs": 1}
    train_fn(tiny_config(table, tmp_path / "finds", **settings), show=False)
    spoil(tmp_path / "films" / "val-1.mp4")
    typed = ("eval", "finds", "films/segments.csv", "--csv", "out.csv", *CPU)
    code = command(*typed, "--json")
    whole, shown = contents(), capsys.readouterr().out
    clear()
    for number in (1, 2):
        assert command(*typed, "--shard", f"{number}/2", "--parts", "parts") == 0
    capsys.readouterr()
    assert command("merge", "parts", "--json") == code == 3
    assert (contents(), capsys.readouterr().out) == (whole, shown)


def test_a_table_can_be_written_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(*COMMANDS["predict"], "--shard", "1/1", "--parts", "parts") == 0
    assert command("merge", "parts", "--csv", "other.csv") == 3
    assert Path("other.csv").is_file()
    assert not Path("out.csv").exists()
    assert command(*COMMANDS["check"], "--shard", "1/1", "--parts", "checked") == 0
    assert command("merge", "checked", "--csv", "other.csv") == 2
    assert "--csv other.csv" in capsys.readouterr().err


def test_another_model_is_refused(place_of_work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (Path("run")).unlink()
    shutil.copytree(place_of_work / "run", "run")
    typed = COMMANDS["predict"]
    assert command(*typed, "--shard", "1/2", "--parts", "parts") == 0
    Path("run", "model.safetensors").unlink()
    train_fn(tiny_config(place_of_work / "known", Path("other"), epochs=1, seed=1), show=False)
    shutil.copy("other/model.safetensors", "run/model.safetensors")
    capsys.readouterr()
    assert command(*typed, "--shard", "2/2", "--parts", "parts") == 2
    assert "model: " in capsys.readouterr().err


@forks
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", COMMANDS if SOAK else ["predict"])
def test_jobs_that_are_killed_and_done_again_make_the_same(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    dice, kills, most, typed = random.Random(name), 0, 20 if SOAK else 4, COMMANDS[name]
    assert command(*typed) == 3
    whole, shown = contents(), said(capfd)
    clear()

    def job(folder: str, number: int, limit: float) -> int:
        def work() -> None:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends a process as SIGKILL does: nothing is cleaned up
            signal.setitimer(signal.ITIMER_REAL, limit)
            os._exit(command(*typed, "--shard", f"{number}/2", "--parts", folder))

        return in_child(work)

    begun = time.monotonic()
    assert job("timed", 1, 1000) == 0
    seconds, rounds = time.monotonic() - begun, 0
    while kills < most:
        folder, rounds = f"parts-{rounds}", rounds + 1
        clear()
        for number in (1, 2):
            while code := job(folder, number, dice.uniform(0.02, seconds) if kills < most else 1000):
                assert code == -signal.SIGALRM
                kills += 1
        capfd.readouterr()
        assert command("merge", folder) == 3
        assert contents() == whole
        assert said(capfd) == shown
