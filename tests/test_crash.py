"""Nothing is lost: a save that is cut short at any call, a disk that fails or is full, damage, locks."""

import errno
import itertools
import os
import random
import re
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from failing_disk import Disk, end, full, in_child, refuse
from naming import naming
from safetensors import SafetensorError

from tubelet.media.reader import MediaError
from tubelet.runs.checkpoint import check_fits
from tubelet.runs.lock import hold
from tubelet.runs.run import Run
from tubelet.system.errors import EnvironmentTrouble, environment_error
from tubelet.system.files import write_whole

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")

STATE = {"steps": 10**9}
LINE = '{"step": 1}\n'


def tensors(step: int) -> dict[str, torch.Tensor]:
    return {"model.weight": torch.full((3, 5), float(step)), "optimizer.weight.step": torch.tensor(float(step))}


def save(run: Run, *steps: int) -> Run:
    run.path.mkdir(exist_ok=True)
    for step in steps:
        run.save_checkpoint(step, tensors(step), STATE)
    return run


# ---- every call that changes the disk


def calls_of_a_save(folder: Path, before: tuple[int, ...], step: int) -> list[tuple[str, str]]:
    run = save(Run(folder), *before)
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(patch)
        save(run, step)
    return disk.calls


def assert_whole(run: Run, steps: tuple[int | None, ...]) -> None:
    """The newest checkpoint, or that there is none, is one of `steps`, bit for bit; and the next save works."""
    found, notes = Run(run.path).newest_checkpoint()
    assert notes == []
    assert (found.step if found else None) in steps
    if found:
        assert found.tensors.keys() == tensors(found.step).keys()
        assert all(torch.equal(found.tensors[name], value) for name, value in tensors(found.step).items())
    again = save(Run(run.path), 1000)
    assert again.newest_checkpoint()[0].step == 1000  # type: ignore[union-attr]
    kept = [p.name for p in (run.path / "checkpoints").iterdir()]
    assert len(kept) <= 2
    assert all(name.startswith("step-") for name in kept)


SAVES = {"the first": ((), 3), "the second": ((3,), 5), "with two older": ((3, 5), 7), "the same again": ((3, 5), 5)}


@pytest.mark.parametrize("case", SAVES)
def test_a_crash_at_any_call_of_a_save_leaves_a_whole_checkpoint(tmp_path: Path, case: str) -> None:
    before, step = SAVES[case]
    count = len(calls_of_a_save(tmp_path / "count", before, step))
    assert count > 10
    for at in range(count):
        run = save(Run(tmp_path / f"{at}"), *before)

        def crash(run: Run = run, at: int = at) -> None:
            Disk(pytest.MonkeyPatch(), at=at, fail=end)
            save(run, step)

        assert in_child(crash) == 9, at
        assert_whole(run, (before[-1] if before else None, step))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("case", SAVES)
def test_a_disk_that_fails_at_any_call_of_a_save_loses_nothing(tmp_path: Path, case: str, number: int) -> None:
    before, step = SAVES[case]
    calls = calls_of_a_save(tmp_path / "count", before, step)
    for at in range(len(calls)):
        run = save(Run(tmp_path / f"{at}"), *before)
        with pytest.MonkeyPatch.context() as patch:
            run.unwritten = LINE
            Disk(patch, at=at, fail=refuse(number))
            told = run.try_checkpoint(step, tensors(step), STATE, last=False)
        if told:
            assert os.strerror(number) in told
        removing = calls[at][0] in ("unlink", "rmdir", "replace")  # what cannot be removed is there until the next save
        assert removing or not list(run.path.glob("**/.*")), (at, calls[at])
        assert not (run.path / "metrics.jsonl").exists() or (run.path / "metrics.jsonl").read_text() in ("", LINE)
        assert_whole(run, (before[-1] if before else None, step))


def test_everything_is_on_the_disk_before_it_gets_its_name_and_that_before_an_old_one_goes(tmp_path: Path) -> None:
    calls = calls_of_a_save(tmp_path / "run", (3, 5), 7)
    folder = tmp_path / "run" / "checkpoints"
    aside = folder / ".step-00000007.tmp"

    def first(name: str, what: str) -> int:
        return next(i for i, (call, path) in enumerate(calls) if call == name and path == what)

    synced = [path for call, path in calls[: first("replace", str(aside))] if call == "fsync"]
    named = first("replace", str(aside))
    assert sum(".state.safetensors" in path for path in synced) == 1
    assert sum(".manifest.json" in path for path in synced) == 1
    assert synced[-1] == str(aside)
    written = [i for i, (call, path) in enumerate(calls) if call in ("write", "open") and str(aside) in path]
    for part in ("state.safetensors", "manifest.json"):  # each file is flushed after the last write to it
        last = max(i for i in written if part in calls[i][1])
        assert last < max(i for i, (call, path) in enumerate(calls[:named]) if call == "fsync" and part in path)
    gone = next(i for i, (_, path) in enumerate(calls) if "step-00000003" in path)
    assert named < first("fsync", str(folder)) < gone


# ---- a checkpoint that was damaged


def damaged(run: Run) -> Iterator[tuple[str, Callable[[], None]]]:
    """Ways to damage the newest checkpoint, each named."""
    folder = next(run.checkpoints())
    files = sorted(folder.iterdir())
    dice = random.Random(5)

    def set_bytes(file: Path, data: bytes) -> Callable[[], None]:
        return lambda: (file.write_bytes(data), None)[1]

    for file in files:
        good = file.read_bytes()
        for part in range(32):
            yield f"{file.name} cut at {part}/32", set_bytes(file, good[: len(good) * part // 32])
        yield f"no {file.name}", file.unlink
        yield f"{file.name} zeroed", set_bytes(file, bytes(len(good)))
        yield f"{file.name} longer", set_bytes(file, good + b"\0")
    sizes = [file.stat().st_size for file in files]
    for bit in (dice.randrange(8 * sum(sizes)) for _ in range(200)):
        file, place = (files[0], bit) if bit < 8 * sizes[0] else (files[1], bit - 8 * sizes[0])
        data = bytearray(file.read_bytes())
        data[place // 8] ^= 1 << place % 8
        yield f"bit {place} of {file.name}", set_bytes(file, bytes(data))
    yield "one file more", set_bytes(folder / "more", b"")
    yield "a folder in it", (folder / "more").mkdir
    yield "empty", lambda: (shutil.rmtree(folder), folder.mkdir())[1]


def test_all_damage_is_noticed_and_the_one_before_is_used(tmp_path: Path) -> None:
    run = save(Run(tmp_path / "run"), 3, 5)
    kept = tmp_path / "kept"
    newest = next(run.checkpoints())
    shutil.copytree(newest, kept)
    noticed = 0
    for name, damage in list(damaged(run)):
        damage()
        found, notes = run.newest_checkpoint()
        assert found is not None
        assert found.step == 3, name
        assert torch.equal(found.tensors["model.weight"], tensors(3)["model.weight"])
        assert len(notes) == 1
        assert str(newest) in notes[0], name
        noticed += 1
        shutil.rmtree(newest)
        shutil.copytree(kept, newest)
    assert noticed == 2 * (32 + 3) + 200 + 3
    assert run.newest_checkpoint()[0].step == 5  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ({"steps": 0}, "5 of 0"),
        ({"steps": 4}, "5 of 4"),
        ({"steps": "9"}, "5 of '9'"),
        ({"steps": True}, "5 of True"),
        ({}, "5 of None"),
    ],
)
def test_a_state_that_cannot_be_is_damage(tmp_path: Path, state: dict[str, Any], told: str) -> None:
    run = save(Run(tmp_path / "run"), 3)
    run.save_checkpoint(5, tensors(5), state)
    found, notes = run.newest_checkpoint()
    assert found is not None
    assert found.step == 3
    assert told in notes[0]


def test_a_checkpoint_of_another_step_is_damage(tmp_path: Path) -> None:
    run = save(Run(tmp_path / "run"), 3, 5)
    newest = next(run.checkpoints())
    newest.rename(newest.with_name("step-00000009"))
    found, notes = run.newest_checkpoint()
    assert found is not None
    assert found.step == 3
    assert re.search(naming(newest.with_name("step-00000009"), "step 5"), notes[0])


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda folder: (folder / "more").write_text("x"), "more"),
        (lambda folder: (folder / "state.safetensors").unlink(), "state.safetensors"),
        (lambda folder: (folder / "state.safetensors").write_text("x"), "state.safetensors"),
        (lambda folder: (folder / "manifest.json").write_text("7"), "manifest.json"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), "manifest.json"),
    ],
)
def test_what_was_damaged_is_named(tmp_path: Path, change: Callable[[Path], object], name: str) -> None:
    run = save(Run(tmp_path / "run"), 3, 5)
    newest = next(run.checkpoints())
    change(newest)
    assert re.search(naming(newest, name), run.newest_checkpoint()[1][0])


def test_a_damaged_checkpoint_goes_when_a_newer_one_is_there_and_a_whole_one_stays_for_it(tmp_path: Path) -> None:
    run = save(Run(tmp_path / "run"), 3, 9)
    (next(run.checkpoints()) / "state.safetensors").write_text("x")
    run = Run(run.path)
    assert run.newest_checkpoint()[0].step == 3  # type: ignore[union-attr]
    assert len(list(run.checkpoints())) == 2  # looking removes nothing
    save(run, 5)
    assert [p.name for p in run.checkpoints()] == ["step-00000005", "step-00000003"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_not_saved(tmp_path: Path, value: float) -> None:
    run = save(Run(tmp_path / "run"), 3)
    broken = {**tensors(5), "model.weight": torch.tensor([1.0, value])}
    with pytest.raises(ValueError, match=naming("step 5", "model.weight", "finite")):
        run.try_checkpoint(5, broken, STATE, last=False)
    assert [p.name for p in run.checkpoints()] == ["step-00000003"]


def test_tensors_that_do_not_fit_are_all_named() -> None:
    model = torch.nn.Linear(2, 3)
    good = {f"model.{name}": value.detach() for name, value in model.named_parameters()}
    for name, value in model.named_parameters():
        good |= {f"{part}.{name}": value.detach() for part in ("average",)}
        good |= {f"optimizer.{name}.{key}": value.detach() for key in ("exp_avg", "exp_avg_sq")}
        good[f"optimizer.{name}.step"] = torch.tensor(1.0)
    check_fits(good, model, average=True, what="run")
    wrong = {**good, "model.bias": torch.zeros(4), "model.more": torch.zeros(1)}
    wrong["average.bias"] = wrong["average.bias"].double()
    del wrong["optimizer.weight.step"]
    with pytest.raises(ValueError, match=naming("run", "--out")) as it:
        check_fits(wrong, model, average=True, what="run")
    assert str(it.value).splitlines()[1:] == [
        "  missing: optimizer.weight.step",
        "  unknown: model.more",
        "  average.bias is (3,) torch.float64, the model has (3,) torch.float32",
        "  model.bias is (4,) torch.float32, the model has (3,) torch.float32",
    ]
    with pytest.raises(ValueError, match=naming("average.bias")):
        check_fits(good, model, average=False, what="run")


# ---- a disk that stays full


def test_training_ends_when_three_checkpoints_in_a_row_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = save(Run(tmp_path / "run"), 3)

    def attempt(step: int, *, last: bool = False) -> str:
        return run.try_checkpoint(step, tensors(step), STATE, last=last)

    with monkeypatch.context() as patch:
        patch.setattr("tubelet.runs.checkpoint.write_tensors", full)
        assert re.search(
            naming(run.path, "step 4", "somewhere", os.strerror(errno.ENOSPC), "64 B", "step 3"), attempt(4)
        )
        assert attempt(4)
    attempt(5)  # room was made: counted anew
    monkeypatch.setattr("tubelet.runs.checkpoint.write_tensors", full)
    assert attempt(6)
    assert attempt(7)
    with pytest.raises(EnvironmentTrouble, match=naming(run.path, "step 8", "step 5")):
        attempt(8)
    run.misses = 0
    with pytest.raises(EnvironmentTrouble, match=naming(run.path, "step 9")):
        attempt(9, last=True)


def test_an_error_that_is_no_trouble_of_the_disk_is_a_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object) -> NoReturn:
        raise FileNotFoundError(errno.ENOENT, "gone")

    monkeypatch.setattr("tubelet.runs.checkpoint.write_tensors", absent)
    with pytest.raises(FileNotFoundError):
        save(Run(tmp_path / "run")).try_checkpoint(1, tensors(1), STATE, last=False)


def test_metrics_that_a_full_disk_did_not_take_come_later_and_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path)
    run.log({"step": 1})
    with monkeypatch.context() as patch:
        Disk(patch, at=1, fail=refuse(errno.ENOSPC))  # when half a line is written
        run.log({"step": 2})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n'
    run.log({"step": 3})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3}\n'


def test_a_checkpoint_comes_after_the_metrics_of_its_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path)
    with monkeypatch.context() as patch:
        Disk(patch, at=0, fail=refuse(errno.ENOSPC))
        run.log({"step": 1})
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(IsADirectoryError):
        save(run, 1)
    assert not list(run.checkpoints())
    (tmp_path / "metrics.jsonl").rmdir()
    save(run, 1)
    assert (tmp_path / "metrics.jsonl").read_text() == LINE


def test_a_real_limit_of_the_system_is_a_full_disk(tmp_path: Path) -> None:
    run = save(Run(tmp_path / "run"), 3)
    big = {"model.weight": torch.zeros(200_000)}

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        told = run.try_checkpoint(5, big, STATE, last=False)
        assert "File too large" in told, told

    assert in_child(limited) == 0
    assert not list(run.path.glob("**/.*"))
    assert_whole(run, (3,))


def test_a_text_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    for at in itertools.count():
        file.write_text("old")
        with pytest.MonkeyPatch.context() as patch:
            disk = Disk(patch, at=at, fail=refuse(errno.ENOSPC))
            with suppress(OSError):
                write_whole(file, "new, and longer")
        done = len(disk.calls) <= at
        assert file.read_text() == "new, and longer" if done else file.read_text() in ("old", "new, and longer")
        assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == [] or disk.calls[at][0] == "unlink"
        if done:
            break
    assert at > 4


def test_what_is_no_file_is_written_to_and_stays(tmp_path: Path) -> None:
    write_whole(Path(os.devnull), "x")
    assert not Path(os.devnull).is_file()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    write_whole(tmp_path / "link", "x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there").read_text() == "x"


# ---- one process at a time


def test_a_run_is_held_by_one_process_and_let_go_when_it_dies(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        with hold(tmp_path):
            os.write(writing, b"x")
            time.sleep(60)
        os._exit(0)
    os.read(reading, 1)
    with (
        pytest.raises(EnvironmentTrouble, match=naming(tmp_path, f"process {child}")),
        hold(tmp_path),
    ):
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with hold(tmp_path):
        assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on ")
        with pytest.raises(EnvironmentTrouble), hold(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_strangers_is_no_lock(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("mine")
    with pytest.raises(ValueError, match=naming(tmp_path / ".lock", "--out")), hold(tmp_path):
        pass
    assert (tmp_path / ".lock").read_text() == "mine"


def test_a_disk_without_locks_is_told_of_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unknown(*_: object) -> NoReturn:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", unknown)
    with hold(tmp_path), hold(tmp_path):
        pass
    assert str(tmp_path) in capsys.readouterr().out
    monkeypatch.setattr("fcntl.flock", full)
    with pytest.raises(OSError, match="No space left"), hold(tmp_path):
        pass


# ---- what trouble is


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/tmp/x"),
            r"/tmp/x: No space left on device: .* are free the",
        ),
        (OSError(errno.EDQUOT, "Quota exceeded"), r"Quota exceeded: make room, or choose another place"),
        (OSError(errno.EROFS, "Read-only", "/tmp/x"), "/tmp/x: Read-only: make it writable for you, or choose another"),
        (PermissionError(errno.EACCES, "Permission denied", b"/x"), "/x: Permission denied: make it writable for you"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error: look at the disk, or choose another place"),
        (
            OSError(errno.EMFILE, "Too many open files"),
            "Too many open files: fewer --workers, or raise the limit with `",
        ),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), r"memory is full \(Cannot allocate memory\): close other"),
        (MemoryError(), r"memory is full \(MemoryError\): .*--accumulate 2 or more \(same result\), --checkpointing"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB\nstack"),
            r"full \(CUDA out of memory\. Tried 2 GiB\)",
        ),
        (
            RuntimeError("CUDA error: out of memory"),
            r"a smaller --size or fewer --frames; all commands take fewer --wor",
        ),
    ],
)
def test_trouble_says_what_to_do(error: Exception, told: str) -> None:
    found = environment_error(error)
    assert found is not None
    assert re.search(told, str(found))
    assert environment_error(found) is found


def test_real_errors_of_torch_and_safetensors_are_known() -> None:
    with pytest.raises(RuntimeError) as it:
        torch.empty(10**15)
    assert "memory is full" in str(environment_error(it.value))
    assert "No space left" in str(
        environment_error(SafetensorError("I/O error: No space left on device (os error 28)"))
    )
    others = [FileNotFoundError(errno.ENOENT, "no"), RuntimeError("shapes"), ValueError("out of memory"), KeyError("x")]
    assert [environment_error(error) for error in [*others, MediaError("a.mp4", "damaged", "x", "y")]] == [None] * 5


def test_room_for_checkpoints_is_looked_for_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = save(Run(tmp_path / "run"), 3)
    monkeypatch.setattr("tubelet.system.errors.free_bytes", lambda path: 2_000)
    run.check_room(900)  # 2.1 x 900 B
    with pytest.raises(EnvironmentTrouble, match=naming(run.path, "2 kB", "1 kB")):
        run.check_room(1_000)
    monkeypatch.setattr("tubelet.system.errors.free_bytes", lambda path: None)
    run.check_room(10**18)
