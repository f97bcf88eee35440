"""The run directory: checkpoints that are whole or passed over, and directories that must not be written to."""

import errno
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from naming import naming
from small_sets import tiny_config, write_videos

from tubelet.nn import model_config
from tubelet.runs.run import Run
from tubelet.system.team import Team
from tubelet.train.clips import new_model
from tubelet.train.config import TrainConfig
from tubelet.train.finish import one_frame
from tubelet.train.plan import Plan, make_plan
from tubelet.train.resume import find_run, next_run, open_run
from tubelet.train.show import describe_config, other_length

CPU = torch.device("cpu")


def tensors(step: int) -> dict[str, torch.Tensor]:
    return {"model.weight": torch.full((3, 5), float(step)), "optimizer.weight.step": torch.tensor(float(step))}


def run_with(path: Path, *steps: int) -> Run:
    run = Run(path)
    run.path.mkdir()
    for step in steps:
        run.save_checkpoint(step, tensors(step), {"steps": 10**9})
    return run


# ---- the model


def test_the_model_is_regularised_as_the_settings_say(plan: Plan, tmp_path: Path) -> None:
    config = replace(plan.config, dropout=0.2, drop_path=0.1, checkpointing=True)
    model = new_model(replace(plan, config=config), Run(tmp_path), Team(0, 1, CPU), init=False, show=False)
    assert model.regularisation == {"dropout": 0.2, "drop_path": 0.1, "checkpointing": True}
    assert model.config == plan.model
    assert (
        describe_config(plan.model, checkpointing=True).activation_bytes < describe_config(plan.model).activation_bytes
    )


def test_the_baseline_is_a_plain_encoder_of_one_frame_as_large_as_the_first() -> None:
    config = model_config("vivit2-P/16x2", clip=(4, 32, 32), num_classes=2, embed="conv")
    plain = model_config("vidtrans-P/16", clip=(1, 32, 32), num_classes=2, embed="conv")
    assert one_frame(config) == plain


# ---- checkpoints


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    found, notes = run_with(tmp_path / "run", 7).newest_checkpoint()
    assert found is not None
    assert notes == []
    assert found.step == 7
    assert found.state["steps"] == 10**9
    assert all(torch.equal(found.tensors[name], value) for name, value in tensors(7).items())


def test_two_are_kept_and_counted_as_numbers(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", 9, 10, 99999999, 100000000)
    assert [folder.name for folder in run.checkpoints()] == ["step-100000000", "step-99999999"]
    assert run.newest_checkpoint()[0].step == 100000000  # type: ignore[union-attr]
    assert not list(run.path.glob("checkpoints/.*"))


def test_a_step_that_is_saved_again_replaces_the_first(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", 3, 5)
    run.save_checkpoint(5, tensors(6), {"steps": 9})
    assert run.newest_checkpoint()[0].tensors["model.weight"][0, 0] == 6  # type: ignore[union-attr]
    assert len(list(run.checkpoints())) == 2


def test_no_checkpoint_is_no_fault(tmp_path: Path) -> None:
    assert Run(tmp_path).newest_checkpoint() == (None, [])


def test_what_a_killed_process_left_behind_is_passed_over_and_removed(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", 4)
    cut_short = run.path / "checkpoints" / ".step-00000006.tmp"
    cut_short.mkdir()
    (run.path / "checkpoints" / "step-by-step").mkdir()
    assert run.newest_checkpoint()[0].step == 4  # type: ignore[union-attr]
    run.save_checkpoint(8, tensors(8), {"steps": 9})
    assert not cut_short.exists()


def cut(file: Path, size: int) -> None:
    file.write_bytes(file.read_bytes()[:size])


def flip(file: Path, bit: int) -> None:
    data = bytearray(file.read_bytes())
    data[bit // 8 % len(data)] ^= 1 << bit % 8
    file.write_bytes(data)


FAULTS: dict[str, Callable[[Path], object]] = {
    "no tensors": lambda folder: (folder / "state.safetensors").unlink(),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "empty folder": lambda folder: (shutil.rmtree(folder), folder.mkdir()),
    "empty manifest": lambda folder: (folder / "manifest.json").write_text(""),
    "a manifest of something else": lambda folder: (folder / "manifest.json").write_text('["sha256"]'),
    "a manifest without a checksum": lambda folder: (folder / "manifest.json").write_text("{}"),
    **{
        f"tensors cut to {size} bytes": lambda folder, size=size: cut(folder / "state.safetensors", size)
        for size in (0, 7, 100, 240)
    },
    **{f"manifest cut to {size}": lambda folder, size=size: cut(folder / "manifest.json", size) for size in (1, 30)},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_checkpoint_is_passed_over_with_a_note(tmp_path: Path, fault: str) -> None:
    run = run_with(tmp_path / "run", 3, 5)
    FAULTS[fault](run.path / "checkpoints" / "step-00000005")
    found, notes = run.newest_checkpoint()
    assert found is not None
    assert found.step == 3
    assert torch.equal(found.tensors["model.weight"], tensors(3)["model.weight"])
    assert len(notes) == 1
    assert "step-00000005 is damaged" in notes[0]
    assert "going on from the one before it" in notes[0]


def test_every_flipped_bit_is_seen(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", 3, 5)
    folder = run.path / "checkpoints" / "step-00000005"
    bits = {"state.safetensors": range(0, 8 * (folder / "state.safetensors").stat().st_size, 71)}
    bits["manifest.json"] = range(0, 8 * (folder / "manifest.json").stat().st_size, 5)
    for name, places in bits.items():
        good = (folder / name).read_bytes()
        for bit in places:
            flip(folder / name, bit)
            found, _ = run.newest_checkpoint()
            assert found is not None
            assert found.step == 3, (name, bit)
            (folder / name).write_bytes(good)


def test_when_none_is_whole_training_starts_again(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", 3, 5)
    for folder in run.checkpoints():
        cut(folder / "state.safetensors", 50)
    found, notes = run.newest_checkpoint()
    assert found is None
    assert [note.split(" is damaged")[0][-1] for note in notes[:2]] == ["5", "3"]
    assert notes[2] == "no checkpoint is whole: starting again"


# ---- metrics


def read_metrics(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]


def test_records_of_steps_that_are_done_again_are_dropped(tmp_path: Path) -> None:
    run = Run(tmp_path)
    records = [{"kind": kind, "step": step, "loss": 1 / step} for step in range(1, 6) for kind in ("train", "val")]
    for record in records:
        run.log(record)
    run.forget_metrics_after(3)
    assert read_metrics(run) == records[:6]
    run.log(records[6])
    assert read_metrics(run) == records[:7]


@pytest.mark.parametrize("rest", ['{"kind": "val", "st', "[]", "7", '{"kind": "val"}', "\x00\x00"])
def test_a_line_that_was_cut_short_is_dropped(tmp_path: Path, rest: str) -> None:
    run = Run(tmp_path)
    run.log({"kind": "val", "step": 1})
    with open(tmp_path / "metrics.jsonl", "a") as handle:
        handle.write(rest)
    run.forget_metrics_after(9)
    assert read_metrics(run) == [{"kind": "val", "step": 1}]


def test_a_damaged_line_in_the_midst_costs_no_other(tmp_path: Path) -> None:
    run = Run(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"st\x00p": 2}\n{"step": 3}\n{"step": 4}\n{"step')
    assert run.forget_metrics_after(3) == 1
    assert read_metrics(run) == [{"step": 1}, {"step": 3}]


# ---- directories


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    data = write_videos(tmp_path_factory.mktemp("data") / "clips", clips=3)
    return make_plan(tiny_config(data, data), CPU)


def in_folder(plan: Plan, out: Path | None, **settings: Any) -> Plan:
    return replace(plan, config=replace(plan.config, out=out, **settings))


def begin(plan: Plan) -> Run:
    return open_run(plan, find_run(plan.config))


def stopped_run(plan: Plan, path: Path) -> Run:
    run = begin(in_folder(plan, path))
    run.save_checkpoint(3, tensors(3), {"steps": 9})
    return run


def test_a_new_run_says_what_is_done(plan: Plan, tmp_path: Path) -> None:
    run = begin(in_folder(plan, tmp_path / "a" / "run"))
    config = run.config
    assert TrainConfig.from_json(config["train"]) == replace(plan.config, out=tmp_path / "a" / "run")
    assert config["task"]["names"] == ["bright", "dark"]
    assert config["data"]["counts"] == {"train": {"bright": 2, "dark": 2}, "val": {"bright": 1, "dark": 1}}
    assert any(line.startswith("model: vivit1-P/16x4 with tubelet tokens") for line in config["plan"])
    assert len((run.path / "split.csv").read_text().splitlines()) == 7
    assert not run.finished


def test_settings_are_not_fetched_back_from_the_disk(plan: Plan, tmp_path: Path) -> None:
    for _ in ("begun", "gone on with"):
        run = stopped_run(plan, tmp_path / "run")
        text = run.config_file.read_text()
        run.config_file.write_text("{")
        assert run.config == json.loads(text)
        assert run.newest_checkpoint()[0].step == 3  # type: ignore[union-attr]
        run.config_file.write_text(text)


def test_a_stopped_run_is_opened_again(plan: Plan, tmp_path: Path) -> None:
    stopped = stopped_run(plan, tmp_path / "run")
    before = stopped.config_file.read_bytes()
    # how long, where and how fast may change; so may naming what was chosen anyway
    again = in_folder(plan, tmp_path / "run", epochs=9.0, accumulate=2, checkpointing=True, workers=3, minutes=1.0)
    assert begin(again).newest_checkpoint()[0].step == 3  # type: ignore[union-attr]
    assert begin(in_folder(plan, tmp_path / "run", size=None)).config_file.read_bytes() == before


@pytest.mark.parametrize(
    ("settings", "values"),
    [
        ({"lr": 0.5}, ("lr: None -> 0.5",)),
        ({"batch": 8, "seed": 1}, ("batch: 4 -> 8", "seed: 0 -> 1")),
        ({"augment": False}, ("augment: True -> False",)),
    ],
)
def test_other_settings_are_named(
    plan: Plan, tmp_path: Path, settings: dict[str, Any], values: tuple[str, ...]
) -> None:
    stopped_run(plan, tmp_path / "run")
    with pytest.raises(ValueError, match=naming(tmp_path / "run", *values)):
        begin(in_folder(plan, tmp_path / "run", **settings))


def test_a_table_of_label_swaps_that_says_something_else_now_is_refused(plan: Plan, tmp_path: Path) -> None:
    here = in_folder(plan, tmp_path / "run", label_swaps=Path("swaps.csv"))
    stopped_run(here, tmp_path / "run")
    elsewhere = in_folder(plan, tmp_path / "run", label_swaps=Path("copy of swaps.csv"))
    assert begin(elsewhere).path == tmp_path / "run"
    changed = replace(here, changes=replace(here.changes, reversed={"bright": "dark", "dark": "bright"}))
    with pytest.raises(ValueError, match=r"label_swaps: .* -> .*'bright': 'dark'"):
        begin(changed)
    with pytest.raises(ValueError, match=r"label_swaps: .* -> None"):
        begin(in_folder(plan, tmp_path / "run"))


def test_another_model_or_clip_is_named_also_where_it_was_chosen_by_default(plan: Plan, tmp_path: Path) -> None:
    stopped_run(plan, tmp_path / "run")
    here = in_folder(plan, tmp_path / "run")
    model = replace(here, model=plan.model.with_stage(0, dim=48), model_name="vivit1-X/16x4")
    with pytest.raises(ValueError, match=naming("vivit1-P/16x4 -> vivit1-X/16x4", "stage 0 dim: 96 -> 48")):
        begin(model)
    with pytest.raises(ValueError, match=naming("seconds_between_frames: 0.08 -> 0.5")):
        begin(replace(here, spec=replace(plan.spec, seconds_between_frames=0.5)))


def test_other_data_is_refused(plan: Plan, tmp_path: Path) -> None:
    stopped_run(plan, tmp_path / "run")
    with pytest.raises(ValueError, match=naming(tmp_path / "run", "data")):
        begin(replace(in_folder(plan, tmp_path / "run"), fingerprint="other"))


def test_a_finished_run_is_not_written_to(plan: Plan, tmp_path: Path) -> None:
    run = stopped_run(plan, tmp_path / "run")
    run.remove_checkpoints()
    run.write_text("README.md", "done")
    with pytest.raises(ValueError, match=naming(tmp_path / "run", "finished", "--out")):
        begin(in_folder(plan, tmp_path / "run"))
    with pytest.raises(ValueError, match=naming(tmp_path / "run", "data")):
        begin(replace(in_folder(plan, tmp_path / "run"), fingerprint="other"))


def test_a_model_is_not_written_over(plan: Plan, tmp_path: Path) -> None:
    run = begin(in_folder(plan, tmp_path / "run"))
    (run.path / "model.safetensors").write_text("precious")
    with pytest.raises(ValueError, match=naming(run.path, "README.md", "--out")):
        begin(in_folder(plan, run.path))
    run.config_file.write_text('{"architectures": ["of", "others"]}')
    with pytest.raises(ValueError, match=naming(run.config_file, "settings")):
        begin(in_folder(plan, run.path))


@pytest.mark.parametrize("where", ["folder", "checkpoint"])
def test_a_checkpoint_that_may_not_be_read_is_not_passed_over(
    plan: Plan, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_run(plan, tmp_path / "run")

    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(*(("os.listdir",) if where == "folder" else ("tubelet.runs.checkpoint.read",)), refuse)
    with pytest.raises(PermissionError):
        begin(in_folder(plan, tmp_path / "run")).newest_checkpoint()


def test_checkpoints_on_a_disk_that_is_not_there_are_not_forgotten(plan: Plan, tmp_path: Path) -> None:
    run = stopped_run(plan, tmp_path / "run")
    (run.path / "checkpoints").rename(tmp_path / "away")
    (run.path / "checkpoints").symlink_to(tmp_path / "not there now")
    with pytest.raises(FileNotFoundError):
        begin(in_folder(plan, run.path))


def test_a_checkpoint_of_another_run_is_refused(plan: Plan, tmp_path: Path) -> None:
    run, other = stopped_run(plan, tmp_path / "run"), begin(in_folder(plan, tmp_path / "other", seed=1))
    other.save_checkpoint(4, tensors(4), {"steps": 9})
    shutil.copytree(other.path / "checkpoints" / "step-00000004", run.path / "checkpoints" / "step-00000004")
    with pytest.raises(ValueError, match=naming(run.path / "checkpoints" / "step-00000004", run.config_file)):
        begin(in_folder(plan, run.path)).newest_checkpoint()
    run.path.rename(tmp_path / "renamed")
    shutil.rmtree(tmp_path / "renamed" / "checkpoints" / "step-00000004")
    found, _ = begin(in_folder(plan, tmp_path / "renamed", workers=3)).newest_checkpoint()
    assert found is not None
    assert found.step == 3


def test_a_split_that_is_gone_is_written_again(plan: Plan, tmp_path: Path) -> None:
    run = stopped_run(plan, tmp_path / "run")
    before = (run.path / "split.csv").read_bytes()
    (run.path / "split.csv").unlink()
    begin(in_folder(plan, run.path))
    assert (run.path / "split.csv").read_bytes() == before


def test_another_length_than_the_run_was_begun_with_is_told(plan: Plan, tmp_path: Path) -> None:
    run = stopped_run(plan, tmp_path / "run")
    assert other_length(plan, run) == []
    assert other_length(in_folder(plan, run.path, epochs=9.0), run) == [
        "with 2 epochs, as it was begun, not 9 epochs: that takes another --out"
    ]


def test_without_out_a_finished_run_is_followed_by_the_next(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here = in_folder(plan, None)
    assert begin(here).path == Path("runs/clips")
    assert begin(here).path == Path("runs/clips")
    Run(Path("runs/clips")).write_text("README.md", "done")
    assert begin(here).path == Path("runs/clips-2")
    Run(Path("runs/clips-2")).write_text("README.md", "done")
    assert next_run(Path("runs/clips")).path == Path("runs/clips-3")


@pytest.mark.parametrize(("data", "name"), [("a/b/", "b"), ("a/b/..", "a"), ("a/set.csv", "set"), (".", "here")])
def test_a_run_is_named_after_its_data(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str, name: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert begin(in_folder(plan, None, data=Path(data))).path == Path("runs") / name


def test_a_run_that_learned_nothing_is_begun_again_with_whatever_is_asked_for(plan: Plan, tmp_path: Path) -> None:
    run = begin(in_folder(plan, tmp_path / "run"))
    run.log({"kind": "val", "step": 1})
    again = begin(replace(in_folder(plan, tmp_path / "run", lr=0.5), fingerprint="other"))
    assert again.config["train"]["lr"] == 0.5
    assert not (run.path / "metrics.jsonl").exists()


def test_what_processes_that_were_killed_left_behind_is_no_hindrance_and_removed(plan: Plan, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    for name in (".lock", ".config.json.77.tmp", ".model.safetensors.8.tmp", ".tmpAb3dE9"):
        (out / name).write_text("cut sho")
    begin(in_folder(plan, out))
    assert sorted(file.name for file in out.iterdir()) == [".lock", "config.json", "split.csv"]
    (out / ".config.json.77.tmp").write_text("cut sho")
    (out / ".mine.tmp").write_text("mine")
    run = stopped_run(plan, out)
    begin(in_folder(plan, out))
    assert not (out / ".config.json.77.tmp").exists()
    assert (out / ".mine.tmp").exists()
    assert run.newest_checkpoint()[0].step == 3  # type: ignore[union-attr]


@pytest.mark.parametrize("what", ["file in it", "file"])
def test_a_folder_of_something_else_is_refused(plan: Plan, tmp_path: Path, what: str) -> None:
    out = tmp_path / "run"
    if what == "file":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match=naming(out, "--out")):
        begin(in_folder(plan, out))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"train": {}}', "\x00"])
def test_a_damaged_config_is_named(plan: Plan, tmp_path: Path, text: str) -> None:
    run = stopped_run(plan, tmp_path / "run")
    run.config_file.write_text(text)
    with pytest.raises(ValueError, match=naming(run.config_file, "--out")):
        begin(in_folder(plan, tmp_path / "run"))
    with pytest.raises(ValueError, match=naming(tmp_path / "nowhere", "config.json", "tubelet train")):
        _ = Run(tmp_path / "nowhere").config


def test_what_is_written_is_json_to_every_parser(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.log({"kind": "train", "step": 1, "epoch": 0.5, "loss": math.nan})
    run.write_json("results.json", {"accuracy": math.inf})

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    assert json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=refuse)["loss"] is None
    assert json.loads((tmp_path / "results.json").read_text(), parse_constant=refuse) == {"accuracy": None}
