"""Whole trainings that are killed, stopped or run out of something: the same command ends as if nothing had been."""

import errno
import json
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from failing_disk import full, in_child
from naming import naming
from safetensors.torch import load_file
from small_sets import TINY_FLAGS, command, tiny_config, write_videos

from tubelet.runs import checkpoint
from tubelet.runs.lock import hold
from tubelet.runs.run import Run
from tubelet.train.train import train_fn
from tubelet.train.trainer import Fit

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")

SOAK = os.environ.get("TUBELET_SOAK", "") == "1"
SETTINGS: dict[str, Any] = {"epochs": 3, "save_minutes": 0.0, "dropout": 0.2, "mixup": 0.4, "ema": 0.9}
FLAGS = (*TINY_FLAGS, "--epochs", "3", "--save-minutes", "0", "--dropout", "0.2", "--mixup", "0.4", "--ema", "0.9")
STEPS = 6  # 3 epochs of 8 clips, 4 at a time
TIMES = ("seconds", "clips_per_second", "data_wait")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_videos(tmp_path_factory.mktemp("data") / "clips")


@pytest.fixture(scope="module", autouse=True)
def checkpoints_stay() -> Iterator[None]:
    """Also when a training is done, to compare optimizers; and what is logged is of several steps, here and there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "remove_checkpoints", lambda run: None)
        patch.setattr("tubelet.train.loop.VALIDATIONS", (2, 2))
        yield


@pytest.fixture(scope="module")
def straight(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    return train_fn(tiny_config(data, tmp_path_factory.mktemp("straight") / "run", **SETTINGS), show=False)


def metrics_of(run: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if key not in TIMES} for record in records]


def assert_same(run: Path, straight: Path) -> None:
    """Weights, their average, optimizer, predictions and metrics, bit for bit."""
    for one, other in [
        (run, straight),
        *zip(sorted(run.glob("checkpoints/*")), sorted(straight.glob("checkpoints/*"))),
    ]:
        name = "model.safetensors" if one == run else "state.safetensors"
        first, second = load_file(one / name), load_file(other / name)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first), one
    assert Run(run).newest_checkpoint()[0].step == STEPS  # type: ignore[union-attr]
    assert (run / "predictions.csv").read_bytes() == (straight / "predictions.csv").read_bytes()
    assert metrics_of(run) == metrics_of(straight)
    # a process that was killed when all was done leaves its lock, which nobody holds
    assert {p.name for p in run.iterdir() if p.name.startswith(".")} <= {".lock"}


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("workers", [1, 2, 3] if SOAK else [2])
def test_a_training_that_is_killed_again_and_again_ends_as_one_that_was_not(
    data: Path, straight: Path, tmp_path: Path, workers: int
) -> None:
    dice, kills, most = random.Random(workers), 0, 34 if SOAK else 3
    begun = time.monotonic()
    arguments = ("train", data, *FLAGS, "--workers", str(workers), "--out")
    assert in_child(lambda: os._exit(command(*arguments, tmp_path / "whole"))) == 0
    seconds = time.monotonic() - begun
    number = 0
    while kills < most:
        out, number = tmp_path / f"{number}", number + 1

        def attempt(out: Path, limit: float) -> int:
            def work() -> None:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends a process as SIGKILL does: nothing is cleaned up
                signal.setitimer(signal.ITIMER_REAL, limit)
                os._exit(command(*arguments, out))

            return in_child(work)

        while not Run(out).finished:
            code = attempt(out, dice.uniform(0.05, seconds) if kills < most else 1000)
            assert code in (0, -signal.SIGALRM)
            kills += code != 0
        Run(out).remove_leftovers()
        assert_same(out, straight)


def stopped_by(number: int, times: int = 1) -> Callable[..., Any]:
    """A `Fit.take_step` in whose third step a signal comes, or more."""
    learn = Fit.take_step

    def learn_and_signal(fit: Fit, parts: Any) -> dict[str, float]:
        for _ in range(times if fit.step == 2 else 0):
            os.kill(os.getpid(), number)
        return learn(fit, parts)

    return learn_and_signal


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_after_its_step_and_the_same_command_goes_on(
    data: Path, straight: Path, tmp_path: Path, number: int, code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        Fit.take_step = stopped_by(number)  # type: ignore[method-assign]
        os._exit(command("train", data, *FLAGS, "--save-minutes", "9", "--out", tmp_path / "run"))

    assert in_child(work) == code
    assert f"tubelet: stopped; the same command goes on from {tmp_path / 'run'}" in capfd.readouterr().err
    assert [p.name for p in Run(tmp_path / "run").checkpoints()] == ["step-00000003"]
    assert command("train", data, *FLAGS, "--out", tmp_path / "run") == 0
    assert_same(tmp_path / "run", straight)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_does_not_wait_for_the_step(data: Path, tmp_path: Path, number: int, code: int) -> None:
    def work() -> None:
        Fit.take_step = stopped_by(number, times=2)  # type: ignore[method-assign]
        os._exit(command("train", data, *FLAGS, "--save-minutes", "9", "--out", tmp_path / "run"))

    assert in_child(work) == code
    assert not list(Run(tmp_path / "run").checkpoints())


def test_a_signal_that_torchrun_passes_on_is_no_second_one(data: Path, tmp_path: Path) -> None:
    def work() -> None:
        os.environ["TORCHELASTIC_RUN_ID"] = "none"
        Fit.take_step = stopped_by(signal.SIGINT, times=2)  # type: ignore[method-assign]
        os._exit(command("train", data, *FLAGS, "--save-minutes", "9", "--out", tmp_path / "run"))

    assert in_child(work) == 130
    assert [p.name for p in Run(tmp_path / "run").checkpoints()] == ["step-00000003"]


@pytest.mark.parametrize("where", ["tubelet.train.clips.make_clips", "tubelet.train.settle.answer"])
def test_a_signal_where_no_step_is_done_ends_the_command_too(
    data: Path, straight: Path, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work() -> None:
        monkeypatch.setattr(where, lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
        os._exit(command("train", data, *FLAGS, "--out", tmp_path / "run"))

    assert in_child(work) == 143
    assert command("train", data, *FLAGS, "--out", tmp_path / "run") == 0
    assert_same(tmp_path / "run", straight)


def test_too_little_memory_is_told_with_what_to_do_and_the_same_run_goes_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    learn = Fit.take_step

    def too_big(fit: Fit, parts: Any) -> dict[str, float]:
        if fit.step == 3:
            torch.empty(10**15)
        return learn(fit, parts)

    arguments = ("train", data, *FLAGS, "--mixup", "0", "--out", tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(Fit, "take_step", too_big)
        assert command(*arguments) == 4
    told = capsys.readouterr().err
    assert "tubelet: memory is full (" in told
    assert re.search(naming("--accumulate 2", "--checkpointing"), told)
    assert told.endswith("The same command goes on from the last checkpoint\n")
    assert command(*arguments, "--accumulate", "2", "--checkpointing") == 0
    assert "going on  from step 3 of 6" in capsys.readouterr().out


@pytest.mark.parametrize("misses", [2, 3])
def test_a_disk_that_is_full_for_a_while_ends_nothing(
    data: Path,
    straight: Path,
    tmp_path: Path,
    misses: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    real, left = checkpoint.write_tensors, [0, *[1] * misses]

    def sometimes_full(*given: Any) -> None:
        if left and left.pop(0):
            full()
        real(*given)

    arguments = ("train", data, *FLAGS, "--out", tmp_path / "run")
    monkeypatch.setattr("tubelet.runs.checkpoint.write_tensors", sometimes_full)
    assert command(*arguments) == (0 if misses == 2 else 4)
    shown = capsys.readouterr()
    assert shown.out.count("that of step 1 before it is kept; training goes on, and tries again") == 2
    if misses == 3:
        assert "step 1" in shown.err
        assert command(*arguments) == 0
    assert_same(tmp_path / "run", straight)


LAST_FILES = ("model.safetensors", "predictions.csv", "results.json", "report.html", "README.md")


@pytest.mark.parametrize("name", LAST_FILES)
def test_a_last_file_that_cannot_be_written_costs_no_training(
    data: Path, straight: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def refused(source: Any, target: Any) -> None:
        if Path(target).name == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        replace(source, target)

    arguments = ("train", data, *FLAGS, "--out", tmp_path / "run")
    monkeypatch.setattr(Fit, "take_step", None)
    shutil.copytree(straight, tmp_path / "run", ignore=shutil.ignore_patterns(*LAST_FILES))
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refused)
        assert command(*arguments) == 4
    assert not (tmp_path / "run" / name).exists()
    assert Run(tmp_path / "run").newest_checkpoint()[0].step == STEPS  # type: ignore[union-attr]
    assert command(*arguments) == 0
    assert_same(tmp_path / "run", straight)


def test_no_training_begins_where_it_could_not_be_kept(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tubelet.system.errors.free_bytes", lambda path: 5_000_000)
    monkeypatch.setattr(Fit, "take_step", None)
    assert command("train", data, *FLAGS, "--out", tmp_path / "run") == 4
    assert "run: 5 MB are free there, " in capsys.readouterr().err


def test_a_second_training_in_a_directory_is_refused_and_changes_nothing(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path / "run")
    run.path.mkdir()
    with hold(run.path):
        assert command("train", data, *FLAGS, "--out", run.path) == 4
        assert [p.name for p in run.path.iterdir()] == [".lock"]
    assert f"{run.path} is in use by process {os.getpid()} on " in capsys.readouterr().err


def test_weights_of_another_model_are_refused_when_going_on(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        Fit.take_step = stopped_by(signal.SIGTERM)  # type: ignore[method-assign]
        os._exit(command("train", data, *FLAGS, "--out", tmp_path / "run"))

    assert in_child(work) == 143
    run = Run(tmp_path / "run")
    found, _ = run.newest_checkpoint()
    assert found is not None
    run.save_checkpoint(4, {**found.tensors, "model.head.bias": torch.zeros(7)}, found.state)
    assert command("train", data, *FLAGS, "--out", tmp_path / "run") == 2
    told = capsys.readouterr().err
    assert re.search(naming("--out", "model.head.bias", "(7,)", "(2,)"), told)
