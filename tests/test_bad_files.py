"""Files that cannot be read, in training and evaluation: skipped in an order that can be repeated, named, never too
many in silence; and never replaced by others where anything is measured."""

import csv
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from media_files import write_numbered, write_sound
from naming import naming
from safetensors.torch import load_file
from small_sets import command, first_picture_only, named, pictures, tiny_config, write_image, write_videos
from test_train import image_vit, stopping_after

from tubelet.data import clips as clips_room
from tubelet.data.bad_files import BadFile, BadFiles, read_list
from tubelet.data.dataset import Clips
from tubelet.data.epochs import shuffled_order
from tubelet.media.reader import MediaError
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.predict.answer import cut_note
from tubelet.runs.run import Run
from tubelet.system.team import Team
from tubelet.system.text import percent
from tubelet.train.clips import bad_files
from tubelet.train.loop import Stopped
from tubelet.train.pace import Pace
from tubelet.train.plan import make_plan
from tubelet.train.train import train_fn
from tubelet.train.trainer import Fit

CPU = torch.device("cpu")
ALONE = Team(0, 1, CPU)
# clips, and the share of them that is bad; `make soak` takes the larger sets
SETS = [(60, 0.0), (60, 0.05), (60, 0.3)]
if os.environ.get("TUBELET_SOAK"):
    SETS = [(2000, 0.0), (2000, 0.0057), (2000, 0.05), (2000, 0.2)]

# Half of a file's 8 frames make a clip.
SETTINGS: dict[str, Any] = {"val_share": 0.3, "seconds_between_frames": 0.04, "max_bad": "50%"}
RANDOM: dict[str, Any] = {"dropout": 0.2, "mixup": 0.4, "ema": 0.9}


@pytest.fixture(autouse=True)
def files_are_read_each_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tubelet.train.plan.KEEP_SHARE", 0.0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 clips to train on, 6 held out."""
    return write_videos(tmp_path_factory.mktemp("data") / "clips", clips=9)


def paths(data: Path, split: str = "train") -> list[str]:
    plan = make_plan(tiny_config(data, data, val_share=0.3), CPU)
    return [item.path for item in plan.data.items(split)]


def train(data: Path, out: Path, *, show: bool = False, **settings: Any) -> Path:
    return train_fn(tiny_config(data, out, **SETTINGS | settings), show=show)


def listed(run: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (run / "bad_files.jsonl").read_text().splitlines()]


def results(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "results.json").read_text())
    return found


def assert_same_weights(run: Path, other: Path) -> None:
    one, same = load_file(run / "model.safetensors"), load_file(other / "model.safetensors")
    assert all(torch.equal(value, same[name]) for name, value in one.items())


# ---- twelve kinds of badness: nine that a look at the file tells, three that come out when it is decoded


def sound_inside(file: Path) -> None:
    noise = np.random.default_rng([*named(file)]).uniform(-0.5, 0.5, 8000).astype(np.float32)
    write_sound(file.with_suffix(".wav"), noise, sample_rate=16000)
    file.with_suffix(".wav").replace(file)


def picture_inside(file: Path) -> None:
    write_image(file.with_suffix(".png"), pictures(100, [*named(file)], frames=1)[0])
    file.with_suffix(".png").replace(file)


SEEN: dict[str, Callable[[Path], Any]] = {
    "empty": lambda file: file.write_bytes(b""),
    "text": lambda file: file.write_bytes(b"nothing to see here " + named(file)),
    "no-moov": lambda file: file.write_bytes(file.read_bytes()[:200] + named(file)),
    "playlist": lambda file: file.write_bytes(b"#EXTM3U\n" + named(file)),
    "zeroes": lambda file: file.write_bytes(bytes(1000) + named(file)),
    "noise": lambda file: file.write_bytes(np.random.default_rng([*named(file)]).bytes(5000)),
    "head": lambda file: file.write_bytes(file.read_bytes()[:32] + named(file)),
    "sound": sound_inside,
    "picture": picture_inside,
}
MET: dict[str, Callable[[Path], Any]] = {
    "all-but-the-first": first_picture_only,
    "too-slow": lambda file: None,
    "no-frames": lambda file: None,
}
ALL = {**SEEN, **MET}


class Trouble:
    """Decoding the named files goes wrong while this is around; `calls` counts how often it was tried."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.codes: dict[str, str] = {}
        self.good: dict[str, Callable[[np.ndarray], bool]] = {}  # whether some times of a file can be read after all
        self.calls: list[str] = []
        read_frames = clips_room.read_frames

        def read(path: str | Path, times: np.ndarray, **named: Any) -> np.ndarray:
            name = "/".join(Path(path).parts[-2:])
            if name in self.codes and not (name in self.good and self.good[name](times)):
                self.calls.append(name)
                raise MediaError(str(path), self.codes[name], "it is broken", "Mend it")
            return read_frames(path, times, **named)

        monkeypatch.setattr(clips_room, "read_frames", read)


@pytest.fixture
def trouble(monkeypatch: pytest.MonkeyPatch) -> Trouble:
    return Trouble(monkeypatch)


def name_of(data: Path, path: str) -> str:
    return "/".join((data / path).parts[-2:])


def spoil_some(data: Path, many: int, trouble: Trouble) -> dict[str, str]:
    """Spoils so many training files, in turn in each of the ways; path -> way."""
    chosen = np.random.default_rng(many).permutation(paths(data))[:many].tolist()
    ways = dict(zip(chosen, list(ALL) * (many // len(ALL) + 1)))
    for path, way in ways.items():
        ALL[way](data / path)
        if way in ("too-slow", "no-frames"):
            trouble.codes[name_of(data, path)] = way
    return ways


def check_counts(data: Path, trouble: Trouble, *, clips: int, share: float, capsys: pytest.CaptureFixture[str]) -> None:
    """The epoch completes, the list names exactly the bad ones, each is said once, and all counts add up."""
    write_videos(data, clips=clips // 2)
    held_out, total = len(paths(data, "val")), len(paths(data))
    ways = spoil_some(data, round(share * total), trouble)
    run = train(data, data.with_name("run"), epochs=1, show=True)
    shown = capsys.readouterr().out
    found = results(run)
    assert (found["train_files"], found["train_skipped"], found["failed"]) == (total, len(ways), 0)
    assert found["clips"] + found["failed"] == held_out == len((run / "predictions.csv").read_text().splitlines()) - 1
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["epoch"] == pytest.approx(1, rel=0.2)
    if not ways:
        assert not (run / "bad_files.jsonl").exists()
        return
    assert [one["path"] for one in listed(run)] == sorted(ways)
    assert {one["split"] for one in listed(run)} == {"train"}
    met = {path for path, way in ways.items() if way in MET}
    assert sorted(line.split("  ")[1].split(": ")[0] for line in shown.splitlines() if line.endswith("]")) == sorted(
        met
    )
    codes = {one["path"]: one["code"] for one in listed(run)}
    assert {path: codes[path] for path in met} == {
        path: {"all-but-the-first": "damaged"}.get(ways[path], ways[path]) for path in met
    }
    assert f"{len(ways)} of {total} training files could not be read" in " ".join(shown.split())


@pytest.mark.parametrize(("clips", "share"), SETS)
def test_an_epoch_completes_and_exactly_the_bad_files_are_named(
    tmp_path: Path, trouble: Trouble, clips: int, share: float, capsys: pytest.CaptureFixture[str]
) -> None:
    check_counts(tmp_path / "data", trouble, clips=clips, share=share, capsys=capsys)


# ---- the stream of clips


def order_of(epoch: int) -> np.ndarray:
    return shuffled_order(torch.zeros(12), seed=0, epoch=epoch)


def make_fit(data: Path, *, keep: bool = False, **settings: Any) -> Fit:
    plan = make_plan(tiny_config(data, data, **SETTINGS | settings), CPU)
    clips = Clips(plan.data.source.root, plan.data.items("train"), plan.data.source.task, plan.spec, keep=keep)
    torch.manual_seed(0)
    return Fit(plan=plan, model=SpaceTimeTransformer(plan.model), clips=clips, team=ALONE, pace=Pace(9))


def break_some(fit: Fit, trouble: Trouble, *, partly: bool = True) -> set[int]:
    """Four of 12 clips, two of them neighbours in the first epoch, one of which ends it. partly: two more that are good
    in their first half, or only where no fixed part of them is looked at, as in the first epoch and not in the next."""
    order = order_of(0).tolist()
    bad = [order[3], order[4], order[11], order[7]]
    rest = [number for number in order if number not in bad]
    draws = {number: [np.random.default_rng([0, epoch, number]).random() for epoch in (0, 1)] for number in rest}
    rare = next(number for number in rest if 0.1 < draws[number][0] < 0.4 < 0.5 < draws[number][1])
    half = next(number for number in rest if number != rare)
    names = [name_of(fit.clips.root, fit.clips.items[number].path) for number in (*bad, half, rare)]
    trouble.codes |= dict(zip(names[:4], ["damaged", "no-frames", "too-slow", "truncated"]))
    if partly:
        trouble.codes |= dict.fromkeys(names[4:], "damaged")
        trouble.good |= {names[4]: first_half, names[5]: in_between}
    return set(bad)


def first_half(times: np.ndarray) -> bool:
    return bool(times.max() < 0.21)


def in_between(times: np.ndarray) -> bool:
    return bool(0.01 < times.min() < 0.07)


def test_the_place_of_a_bad_clip_is_taken_by_the_next_of_the_epoch_varied_otherwise(
    data: Path, trouble: Trouble
) -> None:
    fit, whole = make_fit(data, batch=12), make_fit(data)
    bad = break_some(fit, trouble, partly=False)
    for epoch, (clips, labels) in enumerate(fit.batches(3)):
        order = order_of(epoch).tolist()
        for place in range(12):
            skips = next(skips for skips in range(12) if order[(place + skips) % 12] not in bad)
            number = order[(place + skips) % 12]
            rng = np.random.default_rng([0, epoch, number, skips] if skips else [0, epoch, number])
            expected = whole.clips.random(number, whole.plan.changes, rng)
            assert expected is not None
            assert torch.equal(clips[place], expected[0])
            assert [fit.task.names[labels[place]]] == expected[1]
            if skips:  # no copy of its own turn
                assert not torch.equal(clips[place], clips[order.index(number)])
    assert {number for number in range(12) if fit.clips.is_bad(number)} == bad
    assert [fit.epochs.find_readable(place) for place in range(12)] == [
        next(n for n in (order_of(0).tolist() * 2)[place:] if n not in bad) for place in range(12)
    ]


@pytest.mark.parametrize("keep", [False, True])
def test_the_stream_does_not_depend_on_threads_or_on_when_a_bad_file_was_met(
    data: Path, trouble: Trouble, keep: bool
) -> None:
    straight = make_fit(data, workers=1, keep=keep)
    break_some(straight, trouble)
    batches = list(straight.batches(9))
    for workers, first in ((1, 0), (3, 0), (3, 4), (1, 7)):
        fit = make_fit(data, workers=workers, keep=keep)
        fit.step = first
        for (clips, labels), (same, same_labels) in zip(fit.batches(9), batches[first:], strict=True):
            assert torch.equal(clips, same)
            assert torch.equal(labels, same_labels)
        informed = make_fit(data, keep=keep)
        informed.step, informed.clips.bad = first, straight.clips.bad
        assert all(torch.equal(a, b) for (a, _), (b, _) in zip(informed.batches(9), batches[first:], strict=True))


def test_a_clip_that_is_damaged_in_part_is_drawn_from_the_rest(data: Path, trouble: Trouble) -> None:
    fit = make_fit(data)
    item = fit.clips.items[0]
    trouble.codes[name_of(data, item.path)] = "damaged"
    trouble.good[name_of(data, item.path)] = first_half
    middle, start, late = (found and found[0] for found in (fit.clips.readable(0, draw) for draw in (0.5, 0.0, 0.99)))
    assert middle is not None
    assert start is not None
    assert late is not None
    assert torch.equal(late, middle)
    assert not torch.equal(start, middle)
    assert fit.clips.bad.unannounced() == []


def test_what_is_known_to_be_wholly_bad_is_not_decoded_again(data: Path, trouble: Trouble) -> None:
    fit = make_fit(data)
    name = name_of(data, fit.clips.items[0].path)
    trouble.codes[name] = "too-slow"
    assert [fit.clips.readable(0, draw) for draw in (0.1, 0.2, 0.3)] == [None] * 3
    assert trouble.calls == [name]
    expected = BadFile(fit.clips.items[0].path, "too-slow", "it is broken. Mend it.", "train")
    assert fit.clips.bad.unannounced() == [expected]


# ---- a run


@pytest.mark.parametrize("stop", [1, 3])
def test_a_run_stopped_among_bad_files_ends_as_one_that_was_not(
    data: Path, tmp_path: Path, trouble: Trouble, stop: int, capsys: pytest.CaptureFixture[str]
) -> None:
    break_some(make_fit(data), trouble)
    straight = train(data, tmp_path / "straight", **RANDOM)
    with stopping_after(stop), pytest.raises(Stopped):
        train(data, tmp_path / "stopped", show=True, **RANDOM)
    before = listed(tmp_path / "stopped")
    trouble.calls.clear()
    stopped = train(data, tmp_path / "stopped", show=True, workers=3, **RANDOM)
    assert_same_weights(straight, stopped)
    assert listed(stopped) == listed(straight)
    assert len(listed(stopped)) == 5  # one of those damaged in part, too
    known = {name_of(data, one["path"]) for one in before if one["code"] in ("too-slow", "no-frames")}
    assert not known & set(trouble.calls)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("skipped") and line[-1] == "]"]
    assert len(lines) == len(set(lines)) == 5


def test_frames_kept_in_memory_go_the_same_way(
    data: Path, tmp_path: Path, trouble: Trouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tubelet.train.plan.KEEP_SHARE", 0.4)
    bad = break_some(make_fit(data), trouble)
    run = train(data, tmp_path / "run")
    assert json.loads((run / "config.json").read_text())["data"]["keep"]
    assert {one["path"] for one in listed(run)} > {make_fit(data).clips.items[number].path for number in bad}
    assert len(trouble.calls) == 6  # each once: they are read whole here, and two are not
    with pytest.raises(ValueError, match=naming("1 of 12", "8.3%", "--max-bad", "0%")):
        train(data, tmp_path / "strict", max_bad="0%")


def test_a_frozen_encoder_goes_the_same_way(data: Path, tmp_path: Path, trouble: Trouble) -> None:
    vit = str(image_vit(tmp_path / "vit.safetensors"))
    break_some(make_fit(data), trouble)
    settings: dict[str, Any] = {"freeze": True, "init": vit, "model": None, "freeze_views": 2}
    run = train(data, tmp_path / "run", **settings)
    assert results(run)["train_skipped"] == len(listed(run)) >= 4
    with pytest.raises(ValueError, match=naming("2 of 12", "16.7%", "--max-bad", "10%")):
        train(data, tmp_path / "strict", cache=tmp_path / "other", **{**settings, "max_bad": "10%"})
    with stopping_after(2), pytest.raises(Stopped):
        train(data, tmp_path / "stopped", **settings)
    trouble.calls.clear()
    stopped = train(data, tmp_path / "stopped", **settings)
    assert trouble.calls == []
    assert_same_weights(run, stopped)


# ---- the ceiling


def test_too_many_bad_files_end_the_training_and_a_higher_ceiling_goes_on(
    data: Path, tmp_path: Path, trouble: Trouble
) -> None:
    fit = make_fit(data)
    for number in order_of(0)[[5, 11]]:
        trouble.codes[name_of(data, fit.clips.items[number].path)] = "no-frames"
    first, second = sorted(fit.clips.items[number].path for number in order_of(0)[[5, 11]])
    values = ("2 of 12", "16.7%", "--max-bad", "10%", first, second, "2 no-frames", f"`tubelet check {data}`")
    with pytest.raises(ValueError, match=naming(*values)):
        train(data, tmp_path / "run", max_bad="10%", batch=2, epochs=3)
    straight = train(data, tmp_path / "straight", max_bad="20%", batch=2, epochs=3)
    assert any((tmp_path / "run" / "checkpoints").iterdir())
    assert_same_weights(train(data, tmp_path / "run", max_bad="20%", batch=2, epochs=3), straight)


def test_at_no_percent_the_first_bad_file_ends_it(data: Path, tmp_path: Path, trouble: Trouble) -> None:
    trouble.codes[name_of(data, make_fit(data).clips.items[0].path)] = "damaged"
    with pytest.raises(ValueError, match=naming("1 of 12", "8.3%", "--max-bad", "0%")):
        train(data, tmp_path / "run", max_bad="0%")


def test_without_a_good_clip_there_is_an_end(data: Path, tmp_path: Path, trouble: Trouble) -> None:
    for item in make_fit(data).clips.items:
        trouble.codes[name_of(data, item.path)] = "damaged"
    with pytest.raises(ValueError, match=naming("12 of 12", "100.0%", "4 more")):
        train(data, tmp_path / "run", max_bad="100%", workers=3)


def test_files_that_the_plan_left_out_count_too(data: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(data, tmp_path / "data"))
    SEEN["text"](copy / paths(copy)[0])
    plan = make_plan(tiny_config(copy, copy, val_share=0.3, max_bad="25%"), CPU)
    assert [one.path for one in plan.data.bad] == [paths(data)[0]]
    bad = bad_files(plan, Run(tmp_path), ALONE, show=False)
    assert (bad.skipped, bad.train_files) == (1, 12)
    assert [one["path"] for one in listed(tmp_path)] == [paths(data)[0]]
    items = plan.data.items("train")
    for many in (2, 3):
        for item in items[:many]:
            bad.add(BadFile(item.path, "damaged", "x", "train"))
        if many == 2:
            bad.check()  # 3 of 12
    assert [one.path for one in bad.unannounced()] == [item.path for item in items[:3]]
    assert [one["path"] for one in listed(tmp_path)] == [paths(data)[0]]
    with pytest.raises(ValueError, match=naming("4 of 12", "33.3%", "3 damaged", "1 not-video")):
        bad.check()
    bad.announce(bad.unannounced())
    assert (bad.skipped, bad.unannounced(), len(listed(tmp_path))) == (4, [], 4)
    again = bad_files(plan, Run(tmp_path), ALONE, show=False)
    assert again.files == bad.files


def test_held_out_files_do_not_count_against_the_limit(tmp_path: Path) -> None:
    bad = BadFiles(tmp_path, train_files=2, most=0.5)
    for name in "abc":
        bad.add(BadFile(name, "damaged", "x", "val"))
    bad.add(BadFile("d", "damaged", "x", "train"))
    bad.add(BadFile("d", "damaged", "x", "train"))
    bad.check()
    bad.announce(bad.unannounced())
    assert bad.skipped == 1


@pytest.mark.parametrize(
    "text", ["{", '{"path": "a"}\n', "[]\n", '{"path": 1, "code": "", "message": "", "split": ""}']
)
def test_a_list_that_is_damaged_is_not_passed_over(data: Path, tmp_path: Path, text: str) -> None:
    with stopping_after(1), pytest.raises(Stopped):
        train(data, tmp_path / "run")
    (tmp_path / "run" / "bad_files.jsonl").write_text(text)
    with pytest.raises(ValueError, match=naming(tmp_path / "run" / "bad_files.jsonl")):
        train(data, tmp_path / "run")
    assert read_list(tmp_path / "nowhere") == []


# ---- evaluation


def test_held_out_files_that_cannot_be_read_fail_and_are_not_replaced(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(data, tmp_path / "data"))
    held_out = paths(copy, "val")
    first_picture_only(copy / held_out[0])
    SEEN["text"](copy / held_out[3])
    flags = ("--model", "vivit1-P/16x4", "--frames", "4", "--size", "32", "32", "--epochs", "1", "--batch", "4")
    more = ("--device", "cpu", "--dtype", "float32", "--workers", "1", "--val-share", "0.3")
    assert command("train", copy, "--out", tmp_path / "run", *flags, *more) == 3
    shown = " ".join(capsys.readouterr().out.split())
    found = results(tmp_path / "run")
    assert (found["clips"], found["failed"], len(held_out)) == (4, 2, 6)
    assert found["accuracy_all"] == pytest.approx(found["accuracy"] * 4 / 6)
    assert "2 more clips" in shown
    assert " ".join(percent(found["accuracy_all"]).split()) in shown
    with open(tmp_path / "run" / "predictions.csv", newline="") as table:
        codes = {row["path"]: row["code"] for row in csv.DictReader(table)}
    assert codes == {**dict.fromkeys(held_out, "ok"), held_out[0]: "damaged", held_out[3]: "not-video"}
    assert [(one["path"], one["split"]) for one in listed(tmp_path / "run")] == sorted(
        [(held_out[0], "val"), (held_out[3], "val")]
    )
    assert command("eval", tmp_path / "run", copy, "--split", "train", "--device", "cpu") == 2
    shutil.copytree(data, tmp_path / "whole")
    assert command("train", tmp_path / "whole", "--out", tmp_path / "good", *flags, *more) == 0


def test_a_file_that_ends_early_is_used_and_noted(tmp_path: Path) -> None:
    whole = write_numbered(tmp_path / "a.avi", 40, codec="mjpeg", codec_options={})
    assert cut_note(whole) == ""
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert re.fullmatch(r"truncated: ends after 0\.[6-8] of 1\.6 s", cut_note(whole))
    assert cut_note(tmp_path / "gone.mp4") == ""


# ---- a loss that is not finite


def test_a_loss_that_is_not_finite_names_the_clips_and_the_last_checkpoint(data: Path, trouble: Trouble) -> None:
    fit = make_fit(data)
    bad = break_some(fit, trouble, partly=False)
    fit.run(after=lambda figures: fit.step == 3)
    names = [fit.clips.items[fit.epochs.find_readable(position)].path for position in range(8, 12)]
    assert all(fit.epochs.find_readable(position) not in bad for position in range(12))
    with pytest.raises(ValueError, match=naming("step 2", "nan", "none", *map(repr, names))):
        fit.give_up(2, math_nan := float("nan"), math_nan)
    fit.saved_step = 1
    with pytest.raises(ValueError, match=naming("step 2", "inf", "step 1")):
        fit.give_up(2, 1.0, float("inf"))
