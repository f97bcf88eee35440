"""Processes that train together: the same result as one process, and none is left waiting when another cannot go on."""

import csv
import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from naming import naming
from safetensors.torch import load_file
from small_sets import TINY_FLAGS, command, first_picture_only, tiny_config, without_key_bias, write_videos
from teams import HERE, environment, together

from tubelet.runs.run import Run
from tubelet.system.errors import EnvironmentTrouble
from tubelet.train.plan import make_plan
from tubelet.train.train import train_fn

# Of 18 clips 6 are held out; half of a file's 8 frames make a clip.
BAD: dict[str, Any] = {"val_share": 0.3, "seconds_between_frames": 0.04, "max_bad": "20%"}
# A batch is shared by two; mixing, averaging and layer-wise rates too must not depend on how many share it.
SHARED: dict[str, Any] = {"batch": 8, "mixup": 0.4, "ema": 0.5, "layer_decay": 0.8, "epochs": 4.0}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_videos(tmp_path_factory.mktemp("data") / "clips", clips=7)


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_fn(tiny_config(data, tmp_path_factory.mktemp("alone") / "run", **SHARED), show=False)


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 clips to train on, of two of which all frames but the first are damaged, 6 held out."""
    clips = write_videos(tmp_path_factory.mktemp("spoilt") / "clips", clips=9)
    plan = make_plan(tiny_config(clips, clips, **BAD), torch.device("cpu"))
    for number in (1, 8):
        first_picture_only(clips / plan.data.items("train")[number].path)
    return clips


@pytest.fixture(scope="module")
def team(data: Path, spoilt: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of a team of two, which goes from one training to the next."""
    out = tmp_path_factory.mktemp("team")
    jobs: list[tuple[str, dict[str, Any] | list[str], int | None]] = []
    for shard in ("none", "fsdp2"):
        settings = {**SHARED, "shard": shard}
        jobs += [
            (f"{shard}-whole", settings, None),
            (f"{shard}-stopped", settings, 2),
            (f"{shard}-stopped", {**settings, "accumulate": 2}, None),
        ]
    jobs += [("odd", {**SHARED, "batch": 9}, None), ("none-whole", SHARED, None)]
    jobs += [("typed", ["train", str(data), "--out", str(out / "typed"), *TINY_FLAGS, "--batch", "9"], None)]
    read_each_time = {**BAD, "data": str(spoilt), "keep_share": 0.0}
    jobs += [("skips", read_each_time, None), ("strict", {**read_each_time, "max_bad": "10%"}, None)]
    jobs += [(f"{shard}-half", {**SHARED, "shard": shard, "dtype": "bfloat16"}, None) for shard in ("none", "fsdp2")]
    jobs += [("counted", {"meet": 7, "batch": 4, "epochs": 10.0}, None)]
    jobs += [("fails", {"meet": 7, "batch": 4, "epochs": 10.0, "fail": 9}, None)]
    jobs += [("fsdp2-left", {**SHARED, "shard": "fsdp2"}, 2)]
    kept = {**BAD, "data": str(spoilt)}
    jobs += [("skips-kept", kept, None), ("strict-kept", {**kept, "max_bad": "10%"}, None)]
    cpu, whole = ("--device", "cpu", "--dtype", "float32"), str(out / "none-whole")
    jobs += [("predicted", ["predict", whole, str(data), str(spoilt), "--csv", str(out / "predicted.csv"), *cpu], None)]
    jobs += [("listed", ["predict", whole, str(data), "--json", *cpu], None)]
    jobs += [("evaluated", ["eval", whole, str(data), "--csv", str(out / "evaluated.csv"), *cpu], None)]
    jobs += [("nowhere", ["predict", whole, str(out / "nowhere.mp4"), "--views", "9", *cpu], None)]
    ends = together([str(HERE / "team_script.py"), str(data), str(out), json.dumps(jobs)])
    assert [end.returncode for end in ends] == [0, 0], ends[0].stderr + ends[1].stderr
    assert [end.stderr for end in ends] == ["", ""]
    return out


def outcomes(team: Path, job: str) -> list[Any]:
    return [json.loads((team / f"{job}.{rank}.json").read_text()) for rank in (0, 1)]


def assert_close(run: Path, other: Path, *, tolerance: float = 1e-5) -> None:
    weights, others = (without_key_bias(load_file(one / "model.safetensors")) for one in (run, other))
    assert set(weights) == set(others)
    for name, value in weights.items():
        torch.testing.assert_close(value, others[name], rtol=0, atol=tolerance, msg=name)


@pytest.mark.parametrize(("shard", "first_job"), [("none", 0), ("fsdp2", 3)])
def test_a_team_gives_the_result_of_one_process(team: Path, alone: Path, shard: str, first_job: int) -> None:
    assert outcomes(team, f"{first_job}-{shard}-whole") == ["finished", "finished"]
    assert_close(team / f"{shard}-whole", alone)
    one, same = (read_metrics(run) for run in (alone, team / f"{shard}-whole"))
    assert [(r["kind"], r["step"], r["accuracy"]) for r in one] == [(r["kind"], r["step"], r["accuracy"]) for r in same]
    assert [r["loss"] for r in one] == pytest.approx([r["loss"] for r in same], abs=1e-4)


def read_metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("shard", "first_job"), [("none", 0), ("fsdp2", 3)])
def test_a_signal_to_one_stops_all_and_the_same_call_goes_on(
    team: Path, alone: Path, shard: str, first_job: int
) -> None:
    assert outcomes(team, f"{first_job + 1}-{shard}-stopped") == ["stopped by 15", "stopped by 15"]
    assert outcomes(team, f"{first_job + 2}-{shard}-stopped") == ["finished", "finished"]
    assert_close(team / f"{shard}-stopped", alone)


def test_a_checkpoint_of_several_processes_is_read_by_one(team: Path, alone: Path, data: Path, tmp_path: Path) -> None:
    stopped = shutil.copytree(team / "fsdp2-left", tmp_path / "run")
    assert outcomes(team, "15-fsdp2-left") == ["stopped by 15", "stopped by 15"]
    (checkpoint,) = (stopped / "checkpoints").glob("step-*")
    parts = [load_file(checkpoint / f"part-0000{rank}.safetensors") for rank in (0, 1)]
    assert parts[0].keys() == parts[1].keys() > {"model.head.weight", "average.head.weight"}
    assert not any(name in load_file(checkpoint / "state.safetensors") for name in parts[0])
    train_fn(tiny_config(data, stopped, **SHARED), show=False)
    assert_close(stopped, alone)


def test_parts_that_are_missing_or_not_written_are_told(team: Path, data: Path, tmp_path: Path) -> None:
    stopped = shutil.copytree(team / "fsdp2-left", tmp_path / "run")
    (checkpoint,) = (stopped / "checkpoints").glob("step-*")
    (checkpoint / "part-00001.safetensors").unlink()
    found, notes = Run(stopped).newest_checkpoint()
    assert found is None
    assert re.search(naming("part-00001.safetensors is missing"), notes[0])
    run, rows = Run(tmp_path / "other"), {"a": torch.ones(2)}
    run.path.mkdir()
    run.begin(Run(stopped).config)
    assert run.try_part(1, 0, rows) is None
    told = run.try_checkpoint(1, {}, {"steps": 2}, last=False, parts=[None, None])
    assert re.search(naming("part-00001.safetensors", "--out"), told)
    told = run.try_checkpoint(1, {}, {"steps": 2}, last=False, parts=[None, EnvironmentTrouble("the disk is full")])
    assert re.search(naming("step 1", "the disk is full"), told)
    assert run.try_part(1, 1, rows) is run.try_part(1, 0, rows) is None
    assert run.try_checkpoint(1, {}, {"steps": 2}, last=False, parts=[None, None]) == ""
    assert Run(run.path).newest_checkpoint()[0].tensors["a"].tolist() == [1, 1, 1, 1]  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=naming("step 2", "a")):
        run.try_part(2, 0, {"a": torch.tensor([math.nan])})


def test_what_is_wrong_is_said_by_one_and_stops_all(team: Path) -> None:
    first, second = outcomes(team, "6-odd")
    assert first.startswith("ValueError: a batch of 9 clips for 2 processes in 1 part each cannot be shared out")
    assert second == "Elsewhere: process 0 of 2 cannot go on: see what it says"
    first, second = outcomes(team, "7-none-whole")  # known to the first process alone
    assert "holds a finished run" in first
    assert second.startswith("Elsewhere: ")


def test_on_the_command_line_one_speaks_and_all_end_alike(team: Path, data: Path) -> None:
    first, second = outcomes(team, "8-typed")
    assert [first["code"], second["code"]] == [2, 2]
    assert first["err"].startswith("tubelet: a batch of 9 clips for 2 processes")
    assert second["err"] == second["out"] == ""
    ended = together(["-m", "tubelet", "train", str(data), *TINY_FLAGS, "--bach", "9"])
    assert [one.returncode for one in ended] == [2, 2]
    assert "--bach" in ended[0].stderr
    assert ended[1].stderr == ended[1].stdout == ""


@pytest.mark.parametrize(
    ("job", "strict", "keep_share"), [("9-skips", "10-strict", 0.0), ("16-skips-kept", "17-strict-kept", 0.4)]
)
def test_a_team_skips_bad_files_as_one_process_does_and_ends_together(
    team: Path, spoilt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str, strict: str, keep_share: float
) -> None:
    monkeypatch.setattr("tubelet.train.plan.KEEP_SHARE", keep_share)
    assert outcomes(team, job) == ["finished", "finished"]
    alone = train_fn(tiny_config(spoilt, tmp_path / "alone", **BAD), show=False)
    run = team / job.partition("-")[2]
    listed = [(one / "bad_files.jsonl").read_text() for one in (alone, run)]
    assert listed[0] == listed[1]
    assert listed[0].count("\n") == 2
    assert_close(run, alone)
    ends = sorted(outcomes(team, strict))
    assert ends[0].startswith("Elsewhere: process ")
    assert re.search(naming("2 of 12", "16.7%", "10%", "--max-bad"), ends[1])


def test_weights_spread_and_exchanged_in_bfloat16_learn_what_whole_ones_do(team: Path) -> None:
    assert outcomes(team, "11-none-half") == outcomes(team, "12-fsdp2-half") == ["finished", "finished"]
    one, other = (load_file(team / f"{shard}-half" / "model.safetensors") for shard in ("none", "fsdp2"))
    # AdamW makes a step of any size of what rounds to one side or the other
    assert sum((one[name] - other[name]).abs().mean().item() for name in one) / len(one) < 3e-4
    whole, spread = ([r["loss"] for r in read_metrics(team / f"{shard}-half")] for shard in ("none", "fsdp2"))
    assert spread == pytest.approx(whole, abs=0.02)
    assert {value.dtype for value in load_file(team / "fsdp2-half" / "model.safetensors").values()} == {torch.float32}


def test_a_step_exchanges_gradients_alone_but_for_one_step_in_seven(team: Path) -> None:
    first, second = outcomes(team, "13-counted")
    assert first == second
    looks = [record["step"] for record in read_metrics(team / "counted") if record["kind"] == "val"]
    steps = looks[-1]
    assert steps == 30
    meetings, step = [], 1
    while step < steps:  # a meeting may be before its time, for a look
        meetings.append(step)
        step = min(step + 7, *[look for look in looks if look > step])
    assert sorted({step for step in first["numbers"] if step}) == [*meetings, steps]
    assert len(first["numbers"]) <= len(meetings) + 1 + len(looks)
    assert {step for step in first["objects"] if step > 1} == {steps}  # where all is written down


def test_one_that_has_no_clips_ends_all_at_the_next_meeting(team: Path) -> None:
    first, second = outcomes(team, "14-fails")
    assert first == "Elsewhere: process 1 of 2 cannot go on: see what it says"
    assert re.search(naming("EnvironmentTrouble", "No space left"), second)
    assert not (team / "fails" / "model.safetensors").exists()


def assert_same_table(one: Path, other: Path) -> None:
    """Two tables of answers, in the same order, numbers to a millionth, and what is rounded there."""
    first, second = (list(csv.reader(table.read_text().splitlines())) for table in (one, other))
    assert len(first) == len(second) > 1
    for cells, others in zip(first, second, strict=True):
        assert [is_number(cell) or cell for cell in cells] == [is_number(cell) or cell for cell in others]
        numbers, same = ([float(cell) for cell in some if is_number(cell)] for some in (cells, others))
        assert numbers == pytest.approx(same, abs=2e-6)


def is_number(cell: str) -> bool:
    return bool(re.fullmatch(r"\d+\.\d+", cell))


def test_a_team_predicts_and_evaluates_as_one_process(
    team: Path, data: Path, spoilt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, cpu = team / "none-whole", ("--device", "cpu", "--dtype", "float32")
    for job, code in (("18-predicted", 3), ("19-listed", 0), ("20-evaluated", 0)):  # two files are damaged
        first, second = outcomes(team, job)
        assert (first["code"], second) == (code, {"code": 0, "out": "", "err": ""})
    assert command("predict", whole, data, spoilt, "--csv", tmp_path / "alone.csv", *cpu) == 3
    assert_same_table(team / "predicted.csv", tmp_path / "alone.csv")
    assert command("eval", whole, data, "--csv", tmp_path / "evaluated.csv", *cpu) == 0
    assert_same_table(team / "evaluated.csv", tmp_path / "evaluated.csv")
    assert outcomes(team, "20-evaluated")[0]["out"] == capsys.readouterr().out
    listed = [json.loads(line)["path"] for line in outcomes(team, "19-listed")[0]["out"].splitlines()]
    assert listed == sorted(str(file) for file in data.rglob("*.mp4"))
    assert_same_table(whole / "predictions.csv", tmp_path / "evaluated.csv")  # of the end of the training


def test_what_is_wrong_with_a_prediction_is_said_by_one(team: Path) -> None:
    first, second = outcomes(team, "21-nowhere")
    assert (first["code"], second) == (2, {"code": 2, "out": "", "err": ""})
    assert first["err"].count("tubelet: views = '9'") == 1


def test_torchrun_trains(data: Path, alone: Path, tmp_path: Path) -> None:
    flags = [part for name, value in SHARED.items() for part in (f"--{name.replace('_', '-')}", f"{value:g}")]
    arguments = ["train", str(data), "--out", str(tmp_path / "run"), *TINY_FLAGS, *flags]
    end = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "tubelet", *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert end.returncode == 0, end.stderr
    assert end.stdout.count("Plan for") == end.stdout.count("this model") == 1
    assert "cpu x 2 processes" in end.stdout
    assert_close(tmp_path / "run", alone)
