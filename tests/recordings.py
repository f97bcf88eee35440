"""Recordings in which halves of the picture light up at known times, and their table."""

import csv
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from tubelet.media.reader import av
from tubelet.media.writer import write_video

HEIGHT_PX, WIDTH_PX, FRAMES_PER_SECOND = 32, 48, 10
SIDES = {"left": slice(0, 24), "right": slice(24, 48)}

Rows = list[tuple[str, ...]]  # path, start, end, label, split


def draw_segments(
    seconds: float, rng: np.random.Generator, sides: Sequence[str] = tuple(SIDES)
) -> list[tuple[float, float, str]]:
    """Segments of 1 to 6 s of each side, which overlap those of the other."""
    segments = []
    for side in sides:
        at = rng.uniform(0, 4)
        while (end := at + rng.uniform(1, 6)) < seconds:
            segments.append((round(at, 1), round(end, 1), side))
            at = end + rng.uniform(1, 5)
    return sorted(segments)


def light_up(
    frames: np.ndarray, segments: Sequence[tuple[float, float, str]], *, frames_per_second: float = FRAMES_PER_SECOND
) -> None:
    """Brightens the sides of frames (T, H, W, 3) while their segments last."""
    for start, end, side in segments:
        frames[round(start * frames_per_second) : round(end * frames_per_second), :, SIDES[side]] += 140


def write_recording(file: Path, seconds: float, segments: list[tuple[float, float, str]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    frames = rng.integers(30, 70, (round(seconds * FRAMES_PER_SECOND), HEIGHT_PX, WIDTH_PX, 3))
    light_up(frames, segments)
    write_video(file, frames.astype(np.uint8), frames_per_second=FRAMES_PER_SECOND)


def write_recordings(folder: Path, splits: dict[str, int], *, seconds: float = 30.0, weak: bool = False) -> Path:
    """FOLDER/SPLIT-NUMBER.mp4 and FOLDER/segments.csv, the table.

    weak: training recordings show one side, or none, and their rows have no times.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows: Rows = []
    for split, count in splits.items():
        for number in range(count):
            name, seed = f"{split}-{number}.mp4", 100 * len(split) + number
            alone = weak and split == "train"
            sides = (["left"], ["right"], [])[number % 3] if alone else [*SIDES]
            segments = draw_segments(seconds, np.random.default_rng(seed), sides)
            write_recording(folder / name, seconds, segments, seed)
            rows += [(name, "", "", *sides, split)] if alone and sides else []
            rows += [(name, "", "", "", split)] if not segments else []
            rows += [] if alone else [(name, str(start), str(end), side, split) for start, end, side in segments]
    with open(folder / "segments.csv", "w", newline="") as file:
        csv.writer(file).writerows([("path", "start", "end", "label", "split"), *rows])
    return folder / "segments.csv"


def write_at_times(file: Path, frames: np.ndarray, times_ms: Sequence[int]) -> None:
    """Frames (T, H, W, 3) uint8 at any times: a variable frame rate."""
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options={"threads": "1"})
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for picture, time in zip(frames, times_ms, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
