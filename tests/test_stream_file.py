"""tubelet stream: from a run and a long video to windows, segments and files; pipes, codes, damage, Ctrl-C."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from media_files import spoil_packets
from naming import naming
from safetensors import safe_open
from safetensors.torch import load_file
from small_sets import command, write_image

from tubelet import ClipSpec, Predictor, create_model, save
from tubelet.data.clips import crop, load_frames
from tubelet.features.store import write_features
from tubelet.media.reader import MediaError, read_frames
from tubelet.media.writer import write_video
from tubelet.stream import StreamConfig, Window, find_segments, plot, windows_of_file
from tubelet.stream.canvas import tick_label, tick_seconds
from tubelet.stream.codes import hash_steps, keep_steps, read_steps
from tubelet.stream.plot import COLOURS, draw, ink_on, labels, shown_classes, thin_curve
from tubelet.stream.segments import Segment, borders
from tubelet.stream.source import BLOCKS_AHEAD, read_ahead
from tubelet.stream.window import choose_slide
from tubelet.system.console import console
from tubelet.weights.store import write_tensors

CLASSES = ["jump", "run [fast]", "walk"]
SPEC: dict[str, Any] = {
    "frames": 8,
    "seconds_between_frames": 0.08,
    "resize": (20, 20),
    "crop": (16, 16),
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
}
FPS, SECONDS = 25, 20
WINDOW, STEP = 0.64, 0.16  # seconds


def make_run(path: Path, family: str = "vivit2", *, seed: int = 0, **settings: Any) -> Path:
    """A run with random weights that answers differently at different times."""
    torch.manual_seed(seed)
    spec = ClipSpec(**(SPEC | settings))
    model = create_model(f"{family}-P/8x2", clip=spec.clip_size, num_classes=len(CLASSES), channels=spec.num_channels)
    frames = torch.from_numpy(moving(12)).permute(3, 0, 1, 2)[: spec.num_channels, ::2]
    clips = torch.stack(crop(frames, spec.crop).split(8, 1)[:-1])
    with torch.no_grad():
        features = model.features(clips)
        model.head.weight.copy_(torch.randn(3, 96) / features.std(0).norm())
        model.head.bias.copy_(-model.head.weight @ features.mean(0))
    save(model, path, about={"classes": CLASSES, "clip_spec": spec.to_json()})
    return path


def moving(seconds: float) -> np.ndarray:
    """Frames (T, 24, 32, 3) of coarse noise that changes every second and a half and drifts in between."""
    rng = np.random.default_rng(0)
    frames = []
    for number in range(round(seconds * FPS)):
        if number % 38 == 0:
            base = rng.integers(0, 256, (6, 8, 3)).astype(np.uint8).repeat(4, 0).repeat(4, 1)
        frames.append(np.roll(base, number % 38, axis=1))
    return np.stack(frames)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "long.mp4"
    write_video(path, moving(SECONDS), frames_per_second=FPS)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run") / "vivit2")


@pytest.fixture(scope="module")
def recomputing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run") / "vivit1", "vivit1")


def stream(*arguments: str | Path) -> int:
    return command("stream", *arguments, "--device", "cpu")


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as table:
        return list(csv.DictReader(table))


def chances(found: list[Window]) -> np.ndarray:
    return np.stack([window.probabilities for window in found])


# ---- the law: what predict would say, window by window


@pytest.mark.parametrize(
    ("family", "channels"), [("vivit2", "rgb"), ("vivit2", "gray"), ("vivit2", "bgr"), ("vivit1", "rgb")]
)
def test_windows_are_what_the_model_says_of_the_clips_read_one_by_one(
    family: str, channels: str, video: Path, tmp_path: Path
) -> None:
    one = {"mean": (0.4,), "std": (0.3,)} if channels == "gray" else {}
    predictor = Predictor.load(make_run(tmp_path, family, channels=channels, **one), device="cpu")
    found = list(windows_of_file(predictor, video, hop_seconds=2 * STEP))
    assert len(found) == 1 + (SECONDS * FPS // 2 - 8) // 4 + 1  # and the last whole one
    for window in found:
        clip = crop(load_frames(video, predictor.spec, start_seconds=window.start_seconds), predictor.spec.crop)
        with torch.inference_mode():
            expected = predictor.model(clip[None]).softmax(1)[0].numpy()
        np.testing.assert_allclose(window.probabilities, expected, atol=1e-5)
        assert window.end_seconds == pytest.approx(window.start_seconds + WINDOW)
    assert found[-1].end_seconds == pytest.approx(SECONDS, abs=STEP)
    assert len({int(row.argmax()) for row in chances(found)}) > 1


def test_a_video_shorter_than_the_window_gets_one_answer(run: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", moving(0.44), frames_per_second=FPS)  # 6 frames, 0.08 s apart
    predictor = Predictor.load(run, device="cpu")
    (only,) = windows_of_file(predictor, tmp_path / "a.mp4")
    assert (only.start_seconds, only.end_seconds) == (0, pytest.approx(0.48))
    clip = crop(load_frames(tmp_path / "a.mp4", predictor.spec, start_seconds=0), predictor.spec.crop)[:, :6]
    with torch.inference_mode():
        expected = predictor.model(clip[None]).softmax(1)[0].numpy()
    np.testing.assert_allclose(only.probabilities, expected, atol=1e-5)


# ---- window and hop in whole steps


@pytest.mark.parametrize(
    ("window_seconds", "hop_seconds", "frames"),
    [
        (None, None, (8, 2)),  # a quarter
        (0.64, 0.16, (8, 2)),
        (0.70, 0.25, (8, 4)),
        (0.75, 0.001, (10, 2)),
        (0.01, 9.0, (2, 112)),
        (3.2, None, (40, 10)),
    ],
)
def test_what_is_asked_for_is_rounded_to_whole_steps(
    run: Path, window_seconds: float | None, hop_seconds: float | None, frames: tuple[int, int]
) -> None:
    slide = choose_slide(Predictor.load(run, device="cpu"), window_seconds, hop_seconds)
    assert (slide.window, slide.hop) == frames


def test_what_was_rounded_is_said(run: Path, video: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert stream(run, video, "--window", "1", "--hop", "0.3") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "vivit2, 3 classes; each step is encoded once" in shown
    assert "32x24, 25 frames a second" in shown
    assert "window 0.96 s, 12 frames, trained on 8, 1 s rounded to whole steps" in shown
    assert "hop 0.32 s, 0.3 s rounded to whole steps" in shown
    assert "x real time" in shown


# ---- the command


def test_all_files_of_a_stream_agree(
    run: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    flags = ("--on", "0.45", "--off", "0.4", "--min-seconds", "0.5")
    assert stream(run, video, "--out", out, *flags) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert {file.name for file in out.iterdir()} == {
        *("windows.csv", "windows.jsonl", "segments.csv", "segments.srt", "timeline.svg")
    }
    found = list(windows_of_file(Predictor.load(run, device="cpu"), video))
    table = rows(out / "windows.csv")
    assert [float(row["start_seconds"]) for row in table] == pytest.approx([w.start_seconds for w in found])
    written = np.array([[float(row[f"p:{name}"]) for name in CLASSES] for row in table])
    np.testing.assert_allclose(written, chances(found), atol=1e-6)
    assert [row["label"] for row in table] == [CLASSES[i] for i in chances(found).argmax(1)]
    segments = find_segments(found, CLASSES, on=0.45, off=0.4, min_seconds=0.5)
    assert len(segments) > 2
    assert [row["label"] for row in rows(out / "segments.csv")] == [one.label for one in segments]
    lines = [json.loads(line) for line in (out / "windows.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["window"] * len(found) + ["segment"] * len(segments)
    assert lines[0]["probabilities"] == dict(zip(CLASSES, found[0].probabilities.tolist(), strict=True))
    assert (out / "segments.srt").read_text().count(" --> ") == len(segments)
    picture = (out / "timeline.svg").read_text()
    assert all(one.label in picture for one in segments)
    assert all(words in picture for words in (video.name, f"vivit2 of {run}, 3 classes"))
    assert shown.out.count("run [fast]") == sum(one.label == "run [fast]" for one in segments)
    assert f"wrote  {out / 'windows.csv'}" in shown.out


def test_json_is_all_that_is_printed(run: Path, video: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert stream(run, video, "--json", "--threshold", "0.4") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found = list(windows_of_file(Predictor.load(run, device="cpu"), video))
    segments = find_segments(found, CLASSES, on=0.4, off=0.4)
    assert [line["start_seconds"] for line in lines if line["kind"] == "segment"] == [
        one.start_seconds for one in segments
    ]
    assert sum(line["kind"] == "window" for line in lines) == len(found)


def test_files_one_by_one(run: Path, video: Path, tmp_path: Path) -> None:
    places = {"--csv": "a.csv", "--srt": "a.srt", "--picture": "a.png", "--save": "a.safetensors"}
    flags = [part for flag, name in places.items() for part in (flag, tmp_path / name)]
    assert stream(run, video, *flags) == 0
    assert {file.name for file in tmp_path.iterdir()} == set(places.values())
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_what_exists_is_not_written_over(
    run: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "a.csv"
    kept.write_text("mine")
    assert stream(run, video, "--csv", kept) == 2
    assert re.search(naming(kept, "--overwrite"), capsys.readouterr().err)
    assert kept.read_text() == "mine"
    assert stream(run, video, "--csv", kept, "--overwrite") == 0
    assert len(rows(kept)) > 10
    size = video.stat().st_size
    assert stream(run, video, "--csv", video, "--overwrite") == 2
    assert re.search(naming(video), capsys.readouterr().err)
    assert video.stat().st_size == size


def test_nothing_likely_enough_is_said(run: Path, video: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert stream(run, video, "--on", "1") == 0
    assert "--on 1" in capsys.readouterr().out


def test_many_segments_are_not_all_shown(
    run: Path, video: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tubelet.stream.show.SHOWN_SEGMENTS", 1)
    assert stream(run, video, "--threshold", "0.34") == 0
    assert "--out DIR" in capsys.readouterr().out


@pytest.mark.parametrize("columns", ["80", "60"])
def test_what_is_printed_fits_a_terminal(
    run: Path,
    recomputing: Path,
    columns: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "width", int(columns))
    write_video("long.mp4", moving(3), frames_per_second=FPS)
    for one in (run, recomputing):
        assert stream(one, "long.mp4", "--window", "1", "--hop", "0.3", "--csv", f"{one.name}.csv") == 0
        shown = capsys.readouterr()
        assert shown.err == ""
        assert max(map(len, shown.out.splitlines())) <= int(columns)


def test_a_recomputing_model_says_so(recomputing: Path, video: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert stream(recomputing, video, "--hop", "1") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "vivit1, 3 classes; each window is computed anew (vivit2 would encode each step once)" in shown


# ---- wrong settings


@pytest.mark.parametrize(
    ("flags", "values"),
    [
        (["--window", "0"], ("window", "0.0")),
        (["--hop", "-1"], ("hop", "-1.0", 0)),
        (["--on", "0.3", "--off", "0.4"], ("on = 0.3", "off = 0.4", "0 < off <= on <= 1")),
        (["--threshold", "1.5"], ("on = 1.5", "off = 1.5", "0 < off <= on <= 1")),
        (["--threshold", "0.5", "--off", "0.4"], ("threshold", "on", "off")),
        (["--min-seconds", "-1"], ("min_seconds", "-1.0", 0)),
        (["--picture", "a.jpg"], ("picture", "a.jpg", ".svg", ".png")),
        (["--save", "a.bin"], ("save", "a.bin", ".safetensors")),
        (["--size", "32x24"], ("FILE -", "--size WIDTHxHEIGHT", "--fps N")),
    ],
)
def test_settings_that_cannot_work(
    flags: list[str], values: tuple[object, ...], run: Path, video: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stream(run, video, *flags) == 2
    words = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert re.search(naming(*values), words), words


@pytest.mark.parametrize("size", ["32", "32x", "0x24", "axb", "32x24x3"])
def test_sizes_that_do_not_read_so(size: str) -> None:
    with pytest.raises(ValueError, match=naming("size", f"'{size}'", "WIDTHxHEIGHT")):
        StreamConfig(run=Path("r"), file=Path("-"), size=size, fps=25)


def test_files_that_cannot_be_written_are_said_first(
    run: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stream(run, video, "--csv", tmp_path / "nowhere" / "a.csv") == 2
    assert re.search(naming(tmp_path / "nowhere" / "a.csv"), capsys.readouterr().err)
    (tmp_path / "file").write_text("")
    assert stream(run, video, "--out", tmp_path / "file") == 2
    assert re.search(naming(tmp_path / "file", "--out"), capsys.readouterr().err)
    assert stream(run, video, "--csv", tmp_path / "a", "--srt", tmp_path / "a") == 2
    assert re.search(naming("two files"), capsys.readouterr().err)


def test_models_and_files_of_another_kind(
    run: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    spec = ClipSpec(**(SPEC | {"kind": "image", "frames": 1, "seconds_between_frames": 0.0}))
    model = create_model("vit-P/8", clip=(1, 16, 16), num_classes=3)
    save(model, tmp_path / "image", about={"classes": CLASSES, "clip_spec": spec.to_json()})
    assert stream(tmp_path / "image", video) == 2
    assert re.search(naming("'image'", "video"), capsys.readouterr().err)
    write_image(tmp_path / "a.png", moving(0.04)[0])
    for file in (tmp_path / "a.png", tmp_path / "b.mp4"):
        assert stream(run, file) == 3
        assert f"tubelet: {file}: " in capsys.readouterr().err
    write_video(tmp_path / "short.mp4", moving(0.04), frames_per_second=FPS)
    assert stream(run, tmp_path / "short.mp4") == 2
    assert re.search(naming(tmp_path / "short.mp4", "0.16 s", "`tubelet predict`"), capsys.readouterr().err)


# ---- damage


def test_a_file_cut_short_is_answered_for_up_to_there(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, cut = tmp_path / "whole.mkv", tmp_path / "cut.mkv"
    write_video(whole, moving(8), frames_per_second=FPS)
    data = whole.read_bytes()
    cut.write_bytes(data[: len(data) // 2])
    assert stream(run, cut, "--out", tmp_path / "out") == 3
    shown = capsys.readouterr()
    assert f"{cut}: " in shown.err
    assert "done" in shown.out
    predictor = Predictor.load(run, device="cpu")
    found, expected = rows(tmp_path / "out" / "windows.csv"), list(windows_of_file(predictor, whole))
    assert 5 < len(found) < len(expected)
    for row, window in list(zip(found, expected, strict=False))[:-3]:  # the last frames before the cut may be lost
        assert float(row["p:walk"]) == pytest.approx(window.probabilities[2], abs=1e-5)
    with pytest.raises(MediaError, match=naming(cut, "4.00", "8.00")):
        list(windows_of_file(predictor, cut))


def test_damaged_frames_are_counted(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.avi"
    write_video(path, moving(4), frames_per_second=FPS, codec="mjpeg")
    spoil_packets(path, [50, 51, 52, 53])
    assert stream(run, path) == 0
    assert "note  2 damaged frames, from 0:02.0 on, were taken to be as the last good one" in capsys.readouterr().out


# ---- pipes


@contextmanager
def pipe_in(monkeypatch: pytest.MonkeyPatch, data: bytes) -> Iterator[None]:
    """Inside, standard input is a pipe that `data` is written to."""
    reader, writer = os.pipe()

    def write() -> None:
        with open(writer, "wb") as pipe:
            pipe.write(data)

    thread = threading.Thread(target=write)
    thread.start()
    with open(reader) as stdin, monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", stdin)
        yield
        thread.join()


@pytest.mark.parametrize("pixel_format", ["rgb24", "gray"])
def test_raw_frames_from_a_pipe(
    tmp_path: Path, pixel_format: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run", resize=(24, 24))  # nothing to scale: the pixels are the same to the bit
    frames = moving(6)
    if pixel_format == "gray":
        frames = frames[..., :1].repeat(3, axis=3)
    write_video(tmp_path / "a.mkv", frames, frames_per_second=FPS, codec="ffv1")
    assert stream(run, tmp_path / "a.mkv", "--csv", tmp_path / "file.csv") == 0
    capsys.readouterr()
    frames = read_frames(tmp_path / "a.mkv", np.arange(len(frames)) / FPS)  # its colours are stored less finely
    flags = ("--size", "32x24", "--fps", "25", "--pixel-format", pixel_format)
    with pipe_in(monkeypatch, (frames if pixel_format == "rgb24" else frames[..., 0]).tobytes()):
        assert stream(run, "-", *flags, "--csv", tmp_path / "pipe.csv") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"video 32x24 {pixel_format}, 25 frames a second, from standard input" in shown
    one, other = rows(tmp_path / "file.csv"), rows(tmp_path / "pipe.csv")
    assert [row["start_seconds"] for row in one] == [row["start_seconds"] for row in other]
    for a, b in zip(one, other, strict=True):
        assert float(a["p:walk"]) == pytest.approx(float(b["p:walk"]), abs=1e-5)


def test_a_pipe_that_breaks_off(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pipe_in(monkeypatch, moving(2).tobytes()[:-5]):
        assert stream(run, "-", "--size", "32x24", "--fps", "25", "--csv", tmp_path / "a.csv") == 3
    assert re.search(naming("standard input", "frame 49"), capsys.readouterr().err)
    assert len(rows(tmp_path / "a.csv")) == 1 + (25 - 8) // 2
    with pipe_in(monkeypatch, b""):
        assert stream(run, "-", "--size", "32x24", "--fps", "25") == 3
    assert re.search(naming("standard input"), capsys.readouterr().err)


def test_a_terminal_is_no_pipe(run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pipe_in(monkeypatch, b""):
        monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
        assert stream(run, "-", "--size", "32x24", "--fps", "25") == 2
    assert re.search(naming("standard input", "terminal"), capsys.readouterr().err)
    assert stream(run, "-") == 2
    assert "FILE -" in " ".join(capsys.readouterr().err.replace("│", " ").split())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_what_was_computed_though_the_pipe_is_silent(
    run: Path, tmp_path: Path, number: int, code: int
) -> None:
    out, (reader, writer) = tmp_path / "out", os.pipe()
    arguments = ["stream", run, "-", "--size", "32x24", "--fps", "25", "--out", out, "--json", "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "tubelet", *map(str, [*arguments, "--save", tmp_path / "c.safetensors"])],
        stdin=reader,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    with process, open(reader), open(writer, "wb") as pipe:  # open until the process has ended
        assert process.stdout
        pipe.write(moving(2).tobytes())
        pipe.flush()
        first = [json.loads(process.stdout.readline()) for _ in range(9)]  # all, and they come before the pipe ends
        time.sleep(0.5)  # until it waits for the next frame
        process.send_signal(number)
        rest, errors = process.communicate(timeout=200)
    assert process.returncode == code, errors
    assert errors.decode() == "tubelet: interrupted; what was computed so far is kept\n"
    lines = [*first, *(json.loads(line) for line in rest.splitlines())]
    written = [json.loads(line) for line in (out / "windows.jsonl").read_text().splitlines()]
    assert written == lines
    assert len(rows(out / "windows.csv")) == sum(line["kind"] == "window" for line in lines) >= 5
    assert (out / "timeline.svg").is_file()
    with safe_open(tmp_path / "c.safetensors", "pt") as handle:
        assert handle.get_slice("codes").get_shape()[0] >= 8


# ---- codes


@pytest.fixture(scope="module")
def codes(run: Path, video: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("codes") / "long.safetensors"
    assert stream(run, video, "--save", path, "--hop", "5") == 0
    return path


@pytest.mark.parametrize(("window", "hop"), [(None, None), (1.6, 0.16), (0.32, 4.0), (99.0, 1.0)])
def test_codes_give_the_windows_of_the_video(
    run: Path, video: Path, codes: Path, window: float | None, hop: float | None
) -> None:
    predictor = Predictor.load(run, device="cpu")
    one, other = (
        list(windows_of_file(predictor, file, window_seconds=window, hop_seconds=hop)) for file in (video, codes)
    )
    assert [(w.start_seconds, w.end_seconds) for w in one] == [(w.start_seconds, w.end_seconds) for w in other]
    np.testing.assert_allclose(chances(one), chances(other), atol=1e-5)


def test_codes_are_a_plain_safetensors_file(run: Path, codes: Path) -> None:
    with safe_open(codes, "pt") as handle:
        tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118  # no dict
        about = json.loads(handle.metadata()["tubelet"])["codes"]
    assert set(tensors) == {"codes", "times"}
    assert tensors["codes"].shape == (SECONDS * FPS // 4, 96)
    assert tensors["times"].tolist() == pytest.approx((np.arange(len(tensors["codes"])) * STEP).tolist())
    assert (about["path"], about["start_seconds"], about["end_seconds"]) == ("long.mp4", 0, pytest.approx(SECONDS))


def test_codes_of_another_model_are_refused(
    run: Path, recomputing: Path, codes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others = {
        "weights": make_run(tmp_path / "weights", seed=1),
        "spacing": make_run(tmp_path / "spacing", seconds_between_frames=0.1),
        "crop": make_run(tmp_path / "crop", crop=(16, 8)),
        "mean": make_run(tmp_path / "mean", mean=(0.4, 0.5, 0.5)),
    }
    for other in others.values():
        assert stream(other, codes) == 2
        assert re.search(naming(codes, "model"), capsys.readouterr().err)
    assert stream(recomputing, codes) == 2
    assert re.search(naming("vivit1", "codes"), capsys.readouterr().err)
    assert stream(run, run / "model.safetensors") == 2
    assert re.search(naming(run / "model.safetensors", "`tubelet stream --save`"), capsys.readouterr().err)


def test_another_head_and_clip_length_take_the_same_codes(run: Path, tmp_path: Path) -> None:
    predictor = Predictor.load(run, device="cpu")
    spec = predictor.spec
    one = hash_steps(predictor.model, spec)
    with torch.no_grad():
        predictor.model.head.weight.add_(1)
        next(predictor.model.encoders[1].parameters()).add_(1)
    assert hash_steps(predictor.model, replace(spec, frames=99)) == one
    with torch.no_grad():
        next(predictor.model.encoders[0].parameters()).add_(1)
    assert hash_steps(predictor.model, spec) != one


def test_codes_that_cannot_be_saved(
    run: Path, recomputing: Path, video: Path, codes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stream(recomputing, video, "--save", tmp_path / "a.safetensors") == 2
    assert re.search(naming("--save", "vivit1"), capsys.readouterr().err)
    assert stream(run, codes, "--save", tmp_path / "a.safetensors") == 2
    assert re.search(naming(codes, "--save"), capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def test_codes_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    file, settings = tmp_path / "a.safetensors", {"key": "abc", "seconds_between_steps": 0.5, "source": "a.mp4"}
    with keep_steps(file, **settings) as blocks:  # type: ignore[arg-type]
        blocks.append(torch.empty(0))
        assert not file.exists()
    assert list(tmp_path.iterdir()) == []
    parts = [torch.randn(3, 5), torch.empty(0, 5), torch.randn(4, 5)]

    def interrupted() -> None:
        with keep_steps(file, **settings) as blocks:  # type: ignore[arg-type]
            blocks.extend(parts)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
    assert read_steps(file, key="abc").equal(torch.cat(parts))
    assert load_file(file)["times"].tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3]


def test_codes_of_other_versions_and_of_clips_are_refused(codes: Path, tmp_path: Path) -> None:
    """Those of 0.1.0, and those that a frozen training keeps."""
    old = {"encoder": "abc", "seconds_between_steps": 0.5, "source": "a.mp4"}
    write_tensors(tmp_path / "old.safetensors", {"codes": torch.ones(3, 5)}, {"codes": old})
    with pytest.raises(ValueError, match=naming(tmp_path / "old.safetensors", "format None")):
        read_steps(tmp_path / "old.safetensors", key="abc")
    write_features(tmp_path / "clip.safetensors", torch.ones(3, 2, 5), key="abc", path="a.mp4", seconds=(None, 1.5))
    with pytest.raises(ValueError, match=naming(tmp_path / "clip.safetensors", "float32", "(t, D)")):
        read_steps(tmp_path / "clip.safetensors", key="abc")


def test_a_place_that_takes_no_codes_is_told_before_the_work(run: Path, video: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(FileNotFoundError),
        keep_steps(tmp_path / "no" / "a", key="", seconds_between_steps=1, source=""),
    ):
        pytest.fail("the work has begun")
    out = tmp_path / "new"  # a folder that --out makes takes them
    assert stream(run, video, "--hop", "5", "--out", out, "--save", out / "a.safetensors") == 0
    assert (out / "a.safetensors").is_file()


# ---- made ahead


def test_blocks_come_in_order_and_few_lie_waiting() -> None:
    made: list[int] = []

    def blocks() -> Generator[int, None, None]:
        for number in range(20):
            made.append(number)
            yield number

    for number, block in enumerate(read_ahead(blocks())):
        assert block == number
        time.sleep(0.002)
        assert len(made) <= number + 1 + BLOCKS_AHEAD + 1
    assert len(made) == 20


def test_an_error_comes_where_its_block_would_have_stood() -> None:
    def blocks() -> Generator[int, None, None]:
        yield 0
        yield 1
        raise MediaError("a.mp4", "damaged", "broken", "Mend it")

    got = []
    with pytest.raises(MediaError, match="broken"):
        got.extend(read_ahead(blocks()))
    ordered = read_ahead(blocks())
    assert [next(ordered), next(ordered)] == [0, 1]
    with pytest.raises(MediaError, match="broken"):
        next(ordered)


def test_closing_stops_the_thread_and_its_source() -> None:
    closed = threading.Event()

    def blocks() -> Generator[int, None, None]:
        try:
            yield from count()
        finally:
            closed.set()

    endless = read_ahead(blocks())
    assert [next(endless) for _ in range(5)] == [0, 1, 2, 3, 4]
    endless.close()  # type: ignore[attr-defined]
    assert closed.wait(10)
    assert not [thread for thread in threading.enumerate() if thread.name == "tubelet-stream" and thread.is_alive()]


# ---- the picture


NAMES = ["walk", "走る", "$x_1$ and $", "<b>&", "a very long name that does not fit in anywhere, whatever is drawn"]


def steps(count: int, *, hop: float = 1.0, classes: int = len(NAMES), seed: int = 0) -> list[Window]:
    """Windows that are sure of one class after another."""
    sure = np.eye(classes, dtype=np.float32)[np.random.default_rng(seed).integers(0, classes, count)]
    return [Window(i * hop, i * hop + 2, 0.9 * row + 0.1 / classes) for i, row in enumerate(sure)]


def drawn(file: Path, windows: list[Window], classes: list[str] = NAMES, **words: str) -> bytes:
    draw(file, windows, find_segments(windows, classes, on=0.5, off=0.5), classes, on=0.5, **words)
    return file.read_bytes()


def test_a_picture_shows_the_classes_that_occur() -> None:
    many = [f"class {k}" for k in range(30)]
    likely = np.random.default_rng(0).dirichlet(np.ones(30), 50).astype(np.float32)
    likely[20:30] = np.eye(30, dtype=np.float32)[17]
    windows = [Window(i, i + 2, row) for i, row in enumerate(likely)]
    segments = find_segments(windows, many, on=0.9, off=0.5)
    assert shown_classes(likely, segments, many) == [17]
    everything = [Segment(k, k + 0.1 * (k + 1), name, 1.0) for k, name in enumerate(many)]
    assert shown_classes(likely, everything, many) == [*range(30 - len(COLOURS), 30)]  # those that last longest
    assert shown_classes(likely[:20], [], many) == sorted(np.argsort(-likely[:20].max(0))[:3])


def test_what_a_picture_says(tmp_path: Path) -> None:
    rows = [[0.9, 0.1, 0.0]] * 10 + [[0.2, 0.8, 0.0]] * 10
    windows = [Window(10.0 * i, 10.0 * i + 10, np.array(row, np.float32)) for i, row in enumerate(rows)]
    text = drawn(tmp_path / "a.svg", windows, CLASSES, title="match.mp4", model="vivit2 of runs/a").decode()
    shown = re.findall(r"<text[^>]*>(.*?)</text>", text)
    words = {"match.mp4", "3:20.0 · vivit2 of runs/a", "jump 1:40.0", "run [fast] 1:40.0", "jump 90%", "run [fast] 80%"}
    times = {"0:00", "0:30", "1:00", "1:30", "2:00", "2:30", "3:00"}
    assert sorted(shown) == sorted(words | times | {"0%", "50%", "100%"})
    none = drawn(tmp_path / "b.svg", [Window(0, 1, np.full(3, 1 / 3, np.float32))], CLASSES).decode()
    assert "no class stays at 50% for long enough" in none
    assert "jump at most 33%" in none


@pytest.mark.parametrize("suffix", [".svg", ".png"])
@pytest.mark.parametrize("count", [1, 2, 40])
def test_any_name_is_drawn_and_the_same_bytes_again(suffix: str, count: int, tmp_path: Path) -> None:
    words = {"title": "走る $\x1b[31m" * 40, "model": "$_{" * 90}
    first = drawn(tmp_path / f"a{suffix}", steps(count, hop=4), **words)
    assert drawn(tmp_path / f"b{suffix}", steps(count, hop=4), **words) == first
    if suffix == ".svg" and count == 40:
        assert all(name in first.decode() for name in ("走る", "$x_1$ and $", "&lt;b&gt;&amp;", "a very long name tha"))
        assert "\\x1b[31m" in first.decode()


def test_a_long_video_has_a_wider_picture_within_bounds(tmp_path: Path) -> None:
    def width(seconds: float) -> int:
        png = drawn(tmp_path / "a.png", steps(5, hop=seconds / 5))
        return int.from_bytes(png[16:20], "big")

    widths = [width(seconds) for seconds in (1, 60, 600, 3600, 36_000)]
    assert widths == sorted(widths)
    assert 1300 <= widths[0] < widths[2] < widths[3] == widths[4] == 2600


@given(st.integers(0, 10**6), st.integers(1, 120), st.floats(0.05, 300))
@settings(max_examples=60, deadline=None)
def test_no_text_covers_another(seed: int, count: int, hop: float) -> None:
    windows = steps(count, hop=hop, seed=seed)
    cuts, segments = borders(windows), find_segments(windows, NAMES, on=0.5, off=0.5)
    inches = 9 / (cuts[-1] - cuts[0])  # of a second
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # there are no Japanese letters among matplotlib's
        inside, flags = labels(segments, cuts, inches)
        widths = [plot.text_inches(flag.text) / inches for flag in flags]
    spans = [
        (flag.seconds - width, flag.seconds) if flag.leftwards else (flag.seconds, flag.seconds + width)
        for flag, width in zip(flags, widths, strict=True)
    ]
    for i, (flag, span) in enumerate(zip(flags, spans, strict=True)):
        assert cuts[0] <= span[0] < span[1] <= cuts[-1]
        for other, (begin, end) in zip(flags[:i], spans[:i], strict=True):
            if flag.line == other.line:
                assert span[1] <= begin or end <= span[0]
            low, high = sorted(((flag.line, span, flag), (other.line, (begin, end), other)), key=lambda one: one[0])
            assert low[0] == high[0] or not low[1][0] < high[2].seconds < low[1][1]  # its staff passes by
    for number, text in inside.items():
        one = segments[number]
        assert text.startswith(plot.shorten_name(one.label))
        assert plot.text_inches(text) / inches < one.end_seconds - one.start_seconds
    assert len(inside) + len(flags) <= len(segments)
    if len(segments) == 1:
        assert len(inside) == 1


@example(0.0, 86_400.0, 5)
@given(st.floats(0, 1000), st.floats(0.5, 90_000), st.integers(5, 25))
def test_ticks_are_round_different_and_no_more_than_fit(start: float, seconds: float, most: int) -> None:
    ticks = tick_seconds(start, start + seconds, most=most)
    assert 1 <= len(ticks) <= most + 1
    assert start - 1e-3 <= ticks[0] <= ticks[-1] <= start + seconds + 1e-3
    assert len({tick_label(tick) for tick in ticks}) == len(ticks)


def test_letters_can_be_read_on_every_colour() -> None:
    from matplotlib.colors import to_rgb

    def luminance(colour: str) -> float:
        return sum(
            weight * (share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4)
            for weight, share in zip((0.2126, 0.7152, 0.0722), to_rgb(colour), strict=True)
        )

    for colour in (*COLOURS, plot.OTHER):
        dark, light = sorted((luminance(colour), luminance(ink_on(colour))))
        assert (light + 0.05) / (dark + 0.05) >= 4.5  # WCAG 2.2, level AA


def test_a_long_curve_keeps_its_peaks() -> None:
    values = np.zeros(20_000)
    values[[3, 12_345]] = 1
    times, heights = thin_curve(np.arange(20_001.0), values)
    assert len(times) == len(heights) < 2000
    assert (np.diff(times) >= 0).all()
    assert sorted(set(heights)) == [0, 1]
    assert times[np.argmax(heights[100:]) + 100] == pytest.approx(12_345, abs=25)
    short = thin_curve(np.arange(4.0), np.array([0.1, 0.9, 0.2]))
    assert short[0].tolist() == [0, 1, 1, 2, 2, 3]
    assert short[1].tolist() == [0.1, 0.1, 0.9, 0.9, 0.2, 0.2]
