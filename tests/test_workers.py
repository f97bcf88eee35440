"""Child processes that look through files: one dies of a file, all else goes on; none is left behind."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_files import small_file
from small_sets import command
from test_check import clips

import tubelet.data.health_cache
from tubelet.check import check
from tubelet.data.bad_files import BadFile
from tubelet.data.health_cache import HealthCache
from tubelet.data.items import Item, Source
from tubelet.media.health import examine
from tubelet.media.reader import MediaError, index, read_frames, read_sound
from tubelet.media.workers import Workers
from tubelet.runs.run import Run
from tubelet.system.child import START
from tubelet.system.team import Team
from tubelet.tasks import Classification
from tubelet.train.clips import bad_files
from tubelet.train.config import TrainConfig
from tubelet.train.preflight import Data, look_at_files

# A child that does what the names of files say; the folder of the first file holds the notes of all.
CHILD = """
import json, os, pathlib, signal, sys, time
sys.path[:] = json.loads(sys.argv[1])
from tubelet.media import workers
whole = workers.examine

def examine(path, *, quick):
    path = pathlib.Path(path)
    note = path.parent / f"{path.name}.{os.getpid()}.note"
    note.write_text("")
    others = len(list(path.parent.glob(f"{path.name}.*.note")))
    if "segv" in path.name or ("once" in path.name and others == 1):
        os.kill(os.getpid(), signal.SIGSEGV)
    if "middle" in path.name and not quick:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "exit" in path.name:
        os._exit(7)
    if "mutter" in path.name:
        os.write(1, b"not an answer\\n")
    if "bug" in path.name:
        raise KeyError("of ours")
    if "memory" in path.name:
        raise MemoryError("all full")
    if "slow" in path.name:
        time.sleep(1 if others > 1 else 300)
    return whole(path, quick=quick)

workers.examine = examine
workers.work()
"""
TOLD = [sys.executable, "-P", "-c", CHILD, json.dumps(sys.path)]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def pids(folder: Path, name: str = "*") -> list[int]:
    """Of the children that have looked at a file."""
    return [int(note.name.split(".")[-2]) for note in folder.rglob(f"{name}.*.note")]


def is_there(pid: int) -> bool:
    """Whether a process lives: one that has ended and waits to be asked for its code does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def wait_until(happens: Callable[[], bool]) -> None:
    until = time.monotonic() + 200
    while not happens():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_child_says_what_would_be_said_here(tmp_path: Path) -> None:
    with Workers() as workers:
        for name in ("front.mp4", "png.png", "pcm.wav", "a\x1b\n\u2028'.mkv", os.fsdecode(b"\xff.mp4"), "gone.mp4"):
            path = tmp_path / name
            if name != "gone.mp4":
                path.write_bytes(small_file(name) if name[0] in "fp" else small_file("h264.mkv")[:4000])
            for quick in (False, True):
                assert workers.examine(str(path), quick=quick) == examine(path, quick=quick)
        (child,) = workers.idle
    assert child.returncode is not None


@pytest.mark.parametrize(("name", "how"), [("segv", "Segmentation fault"), ("exit", "exit code 7")])
def test_the_file_of_which_children_die_is_named_and_the_rest_goes_on(
    tmp_path: Path, name: str, how: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = clips(tmp_path / "clips")
    killer = data / "run" / f"1{name}.mp4"
    killer.write_bytes(small_file("front.mp4"))
    (data / "run" / "2once.mp4").write_bytes(small_file("front.mp4"))
    (data / "walk" / "mutter.mp4").write_bytes(small_file("front.mp4"))
    monkeypatch.setattr(tubelet.data.health_cache, "Workers", lambda: Workers(TOLD))
    for _ in range(2):  # what kills may be the moment: it is looked at again
        assert command("check", data, "--json") == 3
        found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert len(found) == 11
        assert {one["path"]: one["code"] for one in found if not one["ok"]} == {str(killer): "decoder-crash"}
        assert all(how in one["message"] and not one["usable"] for one in found if not one["ok"])
    assert len(pids(data, killer.name)) == 4
    assert len(pids(data, "2once.mp4")) == 2
    assert not any(map(is_there, pids(data)))


def test_what_would_kill_this_process_is_not_opened_in_it(tmp_path: Path) -> None:
    killer = tmp_path / "segv.mp4"
    killer.write_bytes(small_file("h264.mp4"))
    with Workers(TOLD) as workers:
        assert workers.examine(str(killer), quick=True).code == "decoder-crash"
    for read in (
        index,
        lambda path: read_frames(path, np.zeros(1)),
        lambda path: read_sound(path, sample_rate=8000),
    ):
        with pytest.raises(MediaError) as caught:
            read(killer)
        assert caught.value.code == "decoder-crash"
    assert examine(killer).code == "decoder-crash"
    killer.write_bytes(small_file("h264.mp4") + b"\0\0\0\x08free")  # it was mended
    assert index(killer).kind == "video"


def test_training_goes_on_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = clips(tmp_path / "clips", 2)
    monkeypatch.setattr(tubelet.data.health_cache, "Workers", lambda: Workers(TOLD))
    for name in ("segv", "segv-too"):
        (data / "run" / f"{name}.mp4").write_bytes(small_file("front.mp4"))
    named = [("run/0", "train"), ("run/1", "val"), ("walk/0", "train"), ("walk/1", "val")]
    named += [("run/segv", "train"), ("run/segv-too", "val")]
    items = tuple(Item(f"{name}.mp4", name[:3], split=split) for name, split in named)
    look = look_at_files(Source(data, "video", items, Classification(("run", "wal"))), most_bad=0.5, workers=2)
    assert [(bad.path, bad.code, bad.split) for bad in look.bad] == [
        ("run/segv-too.mp4", "decoder-crash", "val"),
        ("run/segv.mp4", "decoder-crash", "train"),
    ]
    assert {item.path for item in look.source.items} == {item.path for item in items} - {"run/segv.mp4"}
    with pytest.raises(MediaError):  # when the held-out clips are asked for
        index(data / "run" / "segv-too.mp4")


def test_what_a_full_check_found_holds_for_quick_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file that kills in the middle, its start tells nothing."""
    data = clips(tmp_path / "clips", 1)
    killer = data / "run" / "middle.mp4"
    killer.write_bytes(small_file("front.mp4"))
    monkeypatch.setattr(tubelet.data.health_cache, "Workers", lambda: Workers(TOLD))
    paths = ["run/0.mp4", "run/middle.mp4", "run/0.mp4", "walk/0.mp4"]
    for is_checked in (False, True):
        if is_checked:
            check(data, show=False)
        before = len(pids(data))
        monkeypatch.setattr("tubelet.media.index_cache._deadly", {})  # as in a process of tomorrow
        codes = [health.code for health in HealthCache.open(data).look(paths, threads=1)]
        assert codes == ["ok", "decoder-crash" if is_checked else "ok", "ok", "ok"]
        assert len(pids(data)) - before == (0 if is_checked else 3)
    with pytest.raises(MediaError) as caught:
        index(killer)
    known = next(health for health in check(data, show=False) if not health.ok)
    assert (caught.value.code, caught.value.message) == (known.code, known.message)
    killer.write_bytes(small_file("front.mp4") + b"\0\0\0\x08free")  # it was mended
    assert [health.code for health in HealthCache.open(data).look(["run/middle.mp4"], threads=1)] == ["ok"]


def test_the_newest_of_the_folders_above_tells(tmp_path: Path) -> None:
    deep = clips(tmp_path / "a" / "b", 1)
    files = [str(deep / "run" / "0.mp4"), str(deep / "walk" / "0.mp4")]
    assert HealthCache.open_above(files).root == str(deep)
    for number, folder in enumerate((tmp_path / "a", deep, tmp_path, deep / "run")):
        check(folder, quick=True, show=False)
        os.utime(HealthCache.open(folder).file, (1e9 + number, 1e9 + number))
    found = HealthCache.open_above(files)
    assert (found.root, len(found.entries)) == (str(tmp_path), 2)


def test_what_a_run_knows_to_kill_is_not_opened_when_it_goes_on(tmp_path: Path) -> None:
    """Nor in another process of its team, whatever that one found itself."""
    data = clips(tmp_path / "data" / "clips", 1)
    items = tuple(Item(f"../clips/{name}/0.mp4", name, 0.0, 0.1, "val") for name in ("run", "walk"))
    message = "the decoder dies of it (Aborted). Leave it out, or convert it."
    known = [BadFile(item.name, code, message, "val") for item, code in zip(items, ("decoder-crash", "damaged"))]
    run = Run(tmp_path)
    (tmp_path / "bad_files.jsonl").write_text("".join(json.dumps(vars(one)) + "\n" for one in known))
    found = Data(source=Source(data, "video", items, Classification(("run", "walk"))), healths={}, bad=(), notes=())
    plan = SimpleNamespace(config=TrainConfig(data=data), data=found)
    bad_files(plan, run, Team(1, 2, torch.device("cpu")), show=False)  # type: ignore[arg-type]
    with pytest.raises(MediaError) as caught:
        index(data / items[0].path)
    assert (caught.value.code, caught.value.message) == ("decoder-crash", message)
    assert index(data / items[1].path).kind == "video"


def test_a_child_that_is_killed_at_work_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the system, say, for its memory: the file is not to blame."""
    (tmp_path / "slow.mp4").write_bytes(small_file("front.mp4"))
    (tmp_path / "b.mp4").write_bytes(small_file("front.mp4"))
    looks = HealthCache(tmp_path, {})
    monkeypatch.setattr(tubelet.data.health_cache, "Workers", lambda: Workers(TOLD))
    scan = looks.scan(["b.mp4", "slow.mp4", "b.mp4"], quick=False, threads=1)
    assert next(scan)[1].ok
    wait_until(lambda: len(pids(tmp_path, "slow.mp4")) == 1)
    os.kill(pids(tmp_path, "slow.mp4")[0], signal.SIGKILL)
    assert [health.code for _, health in scan] == ["ok", "ok"]


@pytest.mark.parametrize(("name", "error"), [("bug", RuntimeError), ("memory", MemoryError)])
def test_errors_of_ours_are_not_taken_for_the_files(tmp_path: Path, name: str, error: type[Exception]) -> None:
    (tmp_path / f"{name}.mp4").write_bytes(small_file("front.mp4"))
    with Workers(TOLD) as workers, pytest.raises(error, match="of ours" if name == "bug" else "all full"):
        workers.examine(str(tmp_path / f"{name}.mp4"), quick=False)


@pytest.mark.parametrize("start", [[sys.executable, "-c", "raise SystemExit(3)"], ["/nowhere/python"]])
def test_a_child_that_cannot_be_started_is_no_fault_of_files(
    tmp_path: Path, start: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Workers(start) as workers, pytest.raises(OSError, match=r"exit code 3|No such file") as caught:
        workers.examine(str(tmp_path / "a.mp4"), quick=False)
    assert caught.value.errno == errno.ENOMEM
    data = clips(tmp_path / "clips", 1)
    monkeypatch.setattr(tubelet.data.health_cache, "Workers", lambda: Workers(start))
    assert command("check", data) == 4


def test_nothing_is_left_open(tmp_path: Path) -> None:
    data = clips(tmp_path / "clips")
    check(clips(tmp_path / "first", 1), workers=1, show=False)  # what a library opens once and keeps
    before = sorted(os.listdir("/proc/self/fd"))
    for workers in (1, 3):
        check(data, workers=workers, show=False)
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_a_child_starts_light() -> None:
    """Torch alone would take it ten times as long to start."""
    looks = f"{START.replace('.work()', '')}; print(*sys.modules)"
    typed = [sys.executable, "-P", "-c", looks, "tubelet.media.workers", json.dumps(sys.path)]
    loaded = subprocess.run(typed, capture_output=True, text=True, timeout=200, check=True).stdout.split()
    assert "av" in loaded
    assert not {"torch", "rich", "tyro", "safetensors", "PIL"} & set(loaded)


CHECK = """
import json, sys
import tubelet.data.health_cache
from tubelet.media.workers import Workers
child = json.loads(sys.argv.pop())
tubelet.data.health_cache.Workers = lambda: Workers(child)
from tubelet.cli import main
main()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_no_child_outlives_the_check(tmp_path: Path, number: int, code: int) -> None:
    """The terminal sends Ctrl-C to all processes of a command; standard input and output are pipes here."""
    data = clips(tmp_path / "clips", 4)
    (data / "walk" / "slow.mp4").write_bytes(small_file("front.mp4"))
    typed = [sys.executable, "-W", "error", "-c", CHECK, "check", str(data), "--workers", "2", json.dumps(TOLD)]
    pipe = subprocess.PIPE
    with subprocess.Popen(typed, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True, text=True) as process:
        wait_until(lambda: len(pids(data)) == 9)
        children = set(pids(data))
        assert all(map(is_there, children))
        os.killpg(process.pid, number)
        time.sleep(0.2)  # it waits for those that are at work, and they end when they have nobody to tell
        (slow,) = pids(data, "slow.mp4")
        os.kill(slow, signal.SIGKILL)
        out, errors = process.communicate(timeout=200)
    assert process.returncode == code, errors
    wait_until(lambda: not any(map(is_there, pids(data))))
    if number != signal.SIGKILL:
        known = re.search(r"(\d) of 9 files are known", out)
        assert known, out
        assert len(HealthCache.open(data).entries) == int(known[1]) < 9
