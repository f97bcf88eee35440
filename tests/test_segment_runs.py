"""Segments from a table to a model, its figures, and what it says of a video while it runs; by what a user types."""

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from recordings import HEIGHT_PX, WIDTH_PX, draw_segments, light_up, write_at_times, write_recording, write_recordings
from small_sets import command

import tubelet
from tubelet.data.augment import Augmentation
from tubelet.data.dataset import Changes
from tubelet.data.segments import read_segments
from tubelet.evaluate.segments import rows
from tubelet.media.writer import write_video
from tubelet.nn.segment_streamer import SegmentStreamer
from tubelet.predict.predictor import Predictor
from tubelet.runs.run import CARD, CONFIG, PREDICTIONS, REPORT, RESULTS
from tubelet.stream.segmenter import Segmenter, finds_segments
from tubelet.system.exits import Stopped
from tubelet.tasks.segments import TIOUS, mean_average_precision, time_f1
from tubelet.train import TrainConfig
from tubelet.train.init import find_start
from tubelet.train.segments import choose_frames
from tubelet.train.step_cache import StepCache

CPU = ("--device", "cpu", "--dtype", "float32")
FLAGS = ("--task", "segments", "--model", "vivit1-P/16x2", "--frames", "4", "--seconds-between-frames", "0.1")
FLAGS += ("--size", "32", "48", "--epochs", "6", "--batch", "8", "--workers", "1", "--no-augment", *CPU)
STEPS = 250


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recordings(tmp_path_factory.mktemp("films"), {"train": 8, "val": 2, "test": 3})


@pytest.fixture(scope="module")
def run(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "films"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tubelet.train.segments.STEPS", STEPS)
        patch.setattr("tubelet.tasks.calibration.FEWEST_GROUPS", 2)  # of windows: as many as validation recordings
        assert command("train", table, "--out", out, *FLAGS) == 0
    return out


def found_by(run: Path, file: Path, out: Path, *more: str) -> list[dict[str, str]]:
    assert command("stream", run, file, "--out", out, *more, *CPU) == 0
    with open(out / "segments.csv", newline="") as handle:
        return list(csv.DictReader(handle))


def is_found(segment: tuple[float, float, str], rows: list[dict[str, str]], *, within_seconds: float) -> bool:
    """Whether a row of its label begins and ends so near to where a segment does."""
    start, end, label = segment
    return any(
        abs(float(row["start_seconds"]) - start) < within_seconds
        and abs(float(row["end_seconds"]) - end) < within_seconds
        for row in rows
        if row["label"] == label
    )


def test_finds_the_segments_of_recordings_that_it_never_saw(run: Path) -> None:
    results = json.loads((run / RESULTS).read_text())
    assert results["clips"] == 3
    assert results["map"] > 0.8
    assert results["map"] > results["baselines"]["the usual length at random places"] + 0.5
    assert 0 <= results["baselines"]["hysteresis on windows"] <= 1
    assert finds_segments(run)
    assert not finds_segments(run / "encoder")
    assert 0 < Segmenter.load(run, device="cpu").threshold < 1


def test_labels_without_times_are_located(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = write_recordings(tmp_path / "films", {"train": 12, "test": 3}, weak=True)
    monkeypatch.setattr("tubelet.train.segments.STEPS", STEPS)
    assert command("train", table, "--out", tmp_path / "run", *FLAGS) == 0
    assert json.loads((tmp_path / "run" / RESULTS).read_text())["map"] > 0.5
    names = ("encoder-weak-1", "encoder-weak-2", "encoder")
    specs = [json.loads((tmp_path / "run" / name / CONFIG).read_text())["clip_spec"] for name in names]
    assert specs[0] == specs[1] == specs[2]


def test_an_encoder_to_start_from_sees_the_windows_that_it_knows(run: Path, table: Path) -> None:
    spec = Predictor.load(run / "encoder", device="cpu").spec
    config = TrainConfig(data=table, task="segments", init=str(run / "encoder"))
    frames, seconds = choose_frames(config, find_start(config, "video"), read_segments(table))
    assert frames == spec.frames
    assert seconds == spec.span_seconds


def test_a_model_file_alone_finds_the_same_segments(run: Path, table: Path, tmp_path: Path) -> None:
    video = table.parent / "test-0.mp4"
    (tmp_path / "alone.safetensors").write_bytes((run / "model.safetensors").read_bytes())
    assert found_by(tmp_path / "alone.safetensors", video, tmp_path / "one") == found_by(run, video, tmp_path / "two")


def test_windows_are_still_answered_for(run: Path, table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = tubelet.Predictor.load(run, device="cpu").predict(table.parent / "test-0.mp4")
    assert set(answer.probabilities or {}) == {"left", "right"}
    capsys.readouterr()
    assert command("predict", run, table.parent / "test-0.mp4", *CPU) == 0
    assert "tubelet stream" in capsys.readouterr().err


def test_what_the_encoder_settled_travels(run: Path) -> None:
    encoder, whole = (tubelet.Predictor.load(one, device="cpu") for one in (run / "encoder", run))
    assert whole.task == encoder.task
    assert encoder.task.to_json()["calibration"]["groups"] == 2
    assert encoder.distance
    assert whole.distance
    assert whole.distance.limit == encoder.distance.limit


def test_eval_says_what_training_said(
    run: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    for _ in range(2):  # a table of ours is written over
        assert command("eval", run, table, "--csv", tmp_path / "found.csv", *CPU) == 0
    assert (tmp_path / "found.csv").read_text() == (run / PREDICTIONS).read_text()
    capsys.readouterr()
    assert command("eval", run, table, "--json", *CPU) == 0
    found, then = json.loads(capsys.readouterr().out), json.loads((run / RESULTS).read_text())
    for name in ("map", "map_strict", "point_f1", "frame_f1", "segments", "clips"):
        assert found[name] == pytest.approx(then[name], abs=1e-6)


def test_a_stream_finds_what_is_found_at_once(run: Path, table: Path, tmp_path: Path) -> None:
    video = table.parent / "test-1.mp4"
    segmenter = Segmenter.load(run, device="cpu")
    expected = segmenter.find(segmenter.see(video))
    rows = found_by(run, video, tmp_path / "out")
    live = sorted(
        (float(row["start_seconds"]), float(row["end_seconds"]), row["label"], float(row["probability"]))
        for row in rows
    )
    assert len(live) == len(expected) > 2
    for (start, end, label, score), one in zip(live, expected, strict=True):
        assert label == one.label
        assert (start, end) == pytest.approx((one.start_seconds, one.end_seconds), abs=1e-3)
        assert score == pytest.approx(one.probability, abs=1e-5)


def test_frames_through_a_pipe_are_told_as_they_come(run: Path) -> None:
    """One step after the other: what was told by the delay, and nothing later changes it."""
    segmenter = Segmenter.load(run, device="cpu")
    generator = np.random.default_rng(7)
    segments = draw_segments(60.0, generator)
    frames = generator.integers(30, 70, (600, HEIGHT_PX, WIDTH_PX, 3))
    light_up(frames, segments)
    clip = torch.from_numpy(frames.astype(np.uint8)).permute(3, 0, 1, 2)
    steps = torch.cat([*segmenter.steps(clip.split(2, 1))])
    streamer, seen, late = SegmentStreamer(segmenter.pyramid, least_score=0.3), segmenter.step_streamer(), []
    for number, block in enumerate(clip.split(2, 1)):
        new = seen.push(block)
        for one in streamer.push(new) if len(new) else ():
            late.append((number + 1) * 0.2 - segmenter.in_seconds(one).end_seconds)
    assert late
    assert max(late) <= segmenter.delay_seconds
    whole = segmenter.find(steps, least_score=0.3)
    assert len(whole) >= len(late)


def test_saved_steps_are_streamed_again(run: Path, table: Path, tmp_path: Path) -> None:
    video, codes = table.parent / "test-0.mp4", tmp_path / "codes.safetensors"
    first = found_by(run, video, tmp_path / "one", "--save", str(codes))
    assert found_by(run, codes, tmp_path / "two") == first


def test_a_slow_source_is_neither_skipped_nor_repeated(run: Path, tmp_path: Path) -> None:
    """Frames at 4 a second, the model's at 10: every picture is seen, in its time."""
    segments = [(2.0, 6.0, "left"), (9.0, 13.0, "right")]
    frames = np.full((80, HEIGHT_PX, WIDTH_PX, 3), 50)
    light_up(frames, segments, frames_per_second=4)
    write_video(tmp_path / "slow.mp4", frames.astype(np.uint8), frames_per_second=4)
    rows = found_by(run, tmp_path / "slow.mp4", tmp_path / "out", "--threshold", "0.3")
    assert all(is_found(segment, rows, within_seconds=0.5) for segment in segments)


def test_frames_at_a_varying_rate_keep_their_times(run: Path, tmp_path: Path) -> None:
    """Ten frames a second in the first half, then three of ten, drawn at random."""
    segments = [(2.0, 6.0, "left"), (9.0, 13.0, "right"), (17.0, 21.0, "left"), (24.0, 28.0, "right")]
    frames = np.full((300, HEIGHT_PX, WIDTH_PX, 3), 50, np.uint8)
    light_up(frames, segments)
    kept = np.random.default_rng(0).random(300) < np.where(np.arange(300) < 150, 1.0, 0.3)
    kept[[0, 299]] = True
    write_at_times(tmp_path / "varying.mp4", frames[kept], (100 * np.flatnonzero(kept)).tolist())
    rows = found_by(run, tmp_path / "varying.mp4", tmp_path / "out", "--threshold", "0.3")
    assert all(is_found(segment, rows, within_seconds=0.8) for segment in segments)


@pytest.mark.parametrize("flags", [("--window", "1"), ("--hop", "1"), ("--on", "0.9"), ("--off", "0.1")])
def test_settings_of_windows_are_refused(
    run: Path, table: Path, flags: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("stream", run, table.parent / "test-0.mp4", *flags) == 2
    assert flags[0] in capsys.readouterr().err


def test_a_label_that_the_model_does_not_know_is_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_recording(tmp_path / "a.mp4", 6.0, [], 0)
    (tmp_path / "t.csv").write_text("path,start,end,label\na.mp4,1,2,jump\na.mp4,3,4,left\n")
    assert command("eval", run, tmp_path / "t.csv", *CPU) == 2
    assert "jump" in capsys.readouterr().err


def test_a_training_goes_on_where_it_stopped(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder is not trained again, no recording seen twice."""
    monkeypatch.setattr("tubelet.train.segments.STEPS", 3)
    config = TrainConfig(
        data=table,
        out=tmp_path / "run",
        task="segments",
        model="vivit1-P/16x2",
        frames=4,
        seconds_between_frames=0.1,
        size=(32, 48),
        epochs=1,
        batch=8,
        workers=1,
        device="cpu",
        dtype="float32",
    )

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tubelet.train.segment_head.fit_pyramid", stop)
        with pytest.raises(Stopped, match=re.escape(str(tmp_path / "run"))):
            tubelet.train_fn(config, show=False)
    with monkeypatch.context() as patch:
        patch.setattr("tubelet.train.segments.train_clips", stop)
        patch.setattr(Segmenter, "see", stop)
        run = tubelet.train_fn(config, show=False)
    assert finds_segments(run)
    with pytest.raises(ValueError, match="finished"):
        tubelet.train_fn(config, show=False)


def test_a_damaged_pyramid_is_told(run: Path, tmp_path: Path) -> None:
    from tubelet.weights.store import open_model, save

    file = open_model(run)
    about = {**file.about, "segments": {**file.about["segments"], "threshold": 2}}
    save(file.load(), tmp_path / "bad.safetensors", about=about, beside=file.beside())
    with pytest.raises(ValueError, match=r"bad\.safetensors"):
        Segmenter.load(tmp_path / "bad.safetensors", device="cpu")
    save(file.load(), tmp_path / "worse.safetensors", about=file.about)
    with pytest.raises(ValueError, match=r"worse\.safetensors"):
        Segmenter.load(tmp_path / "worse.safetensors", device="cpu")


def test_a_finished_run_has_its_report_card_and_table(run: Path, table: Path) -> None:
    """All that was found is in the table, as it was measured."""
    page, card = (run / REPORT).read_text(encoding="utf-8"), (run / CARD).read_text(encoding="utf-8")
    assert 'href="./encoder/report.html"' in page
    assert page.count('class="lanes"') == 3
    assert "tubelet stream RUN FILE" in card
    with open(run / PREDICTIONS, newline="") as rows, open(table, newline="") as labels:
        found = [
            (row["path"], float(row["start"]), float(row["end"]), row["label"], float(row["score"]))
            for row in csv.DictReader(rows)
        ]
        truth = [
            (row["path"], float(row["start"]), float(row["end"]), row["label"])
            for row in csv.DictReader(labels)
            if row["split"] == "test"
        ]
    results = json.loads((run / RESULTS).read_text())
    assert mean_average_precision(truth, found, TIOUS)["mAP"] == pytest.approx(results["map"], abs=1e-3)


def test_varied_views_are_the_same_again_and_mirrored_ones_swap_their_labels(
    run: Path, table: Path, tmp_path: Path
) -> None:
    data = read_segments(table)
    swaps = Changes(augmentation=Augmentation(), flipped={"left": "right", "right": "left"})
    cache = StepCache(tubelet.Predictor.load(run, device="cpu"), data.root, tmp_path / "one", run, show=False)
    again = StepCache(tubelet.Predictor.load(run, device="cpu"), data.root, tmp_path / "two", run, show=False)
    recordings = [one for one in data.recordings if one.split == "test"]
    varied = cache.vary(recordings, swaps, views=4, seed=0)
    mirrored = 0
    for (one, steps), (_, others), (_, kept) in zip(
        varied,
        again.vary(recordings, swaps, views=4, seed=0),
        cache.vary(recordings, swaps, views=4, seed=0),
        strict=True,
    ):
        assert torch.equal(steps, others)
        assert torch.equal(steps, kept)
        source = next(each for each in recordings if each.path == one.path)
        swapped = {(start, end, {"left": "right", "right": "left"}[label]) for start, end, label in source.segments}
        assert {*one.segments} in ({*source.segments}, swapped)
        mirrored += {*one.segments} == swapped
    assert 0 < mirrored < len(varied)
    segmenter, swapped_sides = Segmenter.load(run, device="cpu"), {"left": "right", "right": "left"}
    named = [(replace(one, path=f"{number} {one.path}"), steps) for number, (one, steps) in enumerate(varied)]
    found = [each.row(one.path) for one, steps in named for each in segmenter.find(steps, least_score=0.4)]
    truth = rows([one for one, _ in named])
    wrong = [(path, start, end, swapped_sides[label]) for path, start, end, label in truth]
    assert time_f1(truth, found) > time_f1(wrong, found) + 0.2  # the labels are those of what is seen
