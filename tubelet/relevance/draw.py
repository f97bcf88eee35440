"""Maps as people see them: the picture, tinted where it speaks for an answer and where against it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from torch import Tensor

from tubelet.data.clip_spec import ClipSpec
from tubelet.data.clips import load_frames
from tubelet.media.reader import index, read_frames
from tubelet.media.sequential import frames_in_order
from tubelet.media.writer import write_video
from tubelet.relevance.maps import Box, FileMap
from tubelet.stream.canvas import GRID, TEXT, drawing, place_axes, save_picture, tick_label, tick_seconds, write_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FOR, AGAINST = (230, 97, 1), (94, 60, 153)  # orange and violet, which all eyes tell apart
OPACITY = 0.75  # of what is most relevant
FAINTER = 0.6  # power of the share of that which others have
PALE = 0.12  # how much of its colours a picture keeps: the others are the map's
TOP_SHARE = 0.005  # of the parts of a file, that are as relevant as can be shown
STRIP, STRIP_PX = 6, 260  # frames of a strip, and the most px of a side of one
WIDTH_INCHES = 11.0
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
FASTEST = 60.0  # frames a second of a video


def largest(relevance: np.ndarray) -> float:
    """The relevance that is shown as the most there is: one for a whole file."""
    sizes = np.sort(np.abs(relevance).ravel())
    return max(float(sizes[-max(1, round(TOP_SHARE * sizes.size))]), 1e-12)


def tint(picture: np.ndarray, relevance: np.ndarray, box: Box, scale: float) -> np.ndarray:
    """A picture (H, W, 3) uint8 with the relevance (h, w) of what is in the box, smoothly between its cells; `scale`
    is the most that is shown."""
    height, width = picture.shape[:2]
    top, left, tall, wide = (round(share * side) for share, side in zip(box, (height, width, height, width)))
    tall, wide = min(tall, height - top), min(wide, width - left)
    cells = Image.fromarray(relevance.astype(np.float32)).resize((wide, tall), Image.Resampling.BICUBIC)
    values = np.zeros((height, width), np.float32)
    values[top : top + tall, left : left + wide] = np.asarray(cells) / scale
    strength = OPACITY * np.abs(values).clip(0, 1)[..., None] ** FAINTER
    colour = np.where(values[..., None] > 0, FOR, AGAINST)
    grey = picture.mean(2, keepdims=True)
    pale = grey + PALE * (picture - grey)
    return ((1 - strength) * pale + strength * colour).round().clip(0, 255).astype(np.uint8)


def tint_clip(clip: Tensor, relevance: np.ndarray, *, least_px: tuple[int, int]) -> np.ndarray:
    """A clip (C, T, H, W) uint8, or of sound normalised, with its relevance (t, h, w), each side at least so long:
    (T, H', W', 3) uint8."""
    frames = draw_mel(clip[0].numpy()) if clip.is_floating_point() else clip.permute(1, 2, 3, 0).numpy()
    frames = frames if frames.shape[3] == 3 else np.repeat(frames, 3, 3)
    height, width = frames.shape[1:3]
    share = max(1.0, least_px[0] / height, least_px[1] / width)
    size = round(share * width), round(share * height)
    scale, steps = largest(relevance), len(relevance)
    tinted = []
    for number, frame in enumerate(frames):
        picture = np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC))
        tinted.append(tint(picture, relevance[number * steps // len(frames)], WHOLE, scale))
    return np.stack(tinted)[:, ::-1] if clip.is_floating_point() else np.stack(tinted)


def draw_mel(values: np.ndarray) -> np.ndarray:
    """Spectrograms (T, mel, columns) as pictures (T, mel, columns, 3) uint8, loud is dark; low tones above."""
    grey = 255 * (1 - (values - values.min()) / max(float(np.ptp(values)), 1e-9))
    return np.repeat(grey[..., None], 3, 3).round().astype(np.uint8)


def write_overlay(found: FileMap, out: Path) -> None:
    """The video with its map laid over, of its own size and speed."""
    times = index(found.path).times
    step = max(float(np.median(np.diff(times))) if len(times) > 1 else 0.04, 1 / FASTEST)
    scale = largest(found.relevance)

    def pictures() -> Iterator[np.ndarray]:
        for seconds, picture, _ in frames_in_order(found.path, seconds_between_frames=step):
            tinted = tint(picture, found.at(seconds), found.box, scale)
            height, width = (side + side % 2 for side in tinted.shape[:2])  # codecs want even sides
            yield np.pad(tinted, ((0, height - tinted.shape[0]), (0, width - tinted.shape[1]), (0, 0)), mode="edge")

    write_video(out, pictures(), frames_per_second=1 / step)


def write_picture(found: FileMap, spec: ClipSpec, out: Path) -> None:
    """A strip of frames with the map laid over and, of videos, what adds to the answer and what takes from it over the
    time; of sound, its spectrogram."""
    from matplotlib.figure import Figure

    strip = draw_sound(found, spec) if found.kind == "sound" else draw_strip(found)
    has_time = found.kind == "video"
    tall = (WIDTH_INCHES - 0.9) * strip.shape[0] / strip.shape[1]
    bottom = 1.75 if has_time else 0.45
    with drawing(os.path.basename(found.path)):
        figure = Figure(figsize=(WIDTH_INCHES, 0.75 + tall + bottom))
        write_title(figure, f"{os.path.basename(found.path)}: {found.label}", describe(found))
        axes = place_axes(figure, bottom, tall)
        axes.imshow(strip, aspect="auto", interpolation="antialiased")
        axes.set_axis_off()
        write_scale(figure)
        if has_time:
            draw_course(found, place_axes(figure, 0.35 + 0.3, bottom - 0.95))
        save_picture(figure, out)


def describe(found: FileMap) -> list[str]:
    """The answer, and what becomes of it without its most relevant parts, in words."""
    without, others = found.say(found.without), found.say(found.without_others)
    return [found.say(found.answer), f"{without} without its most relevant fifth, {others} without another"]


def draw_strip(found: FileMap) -> np.ndarray:
    """Up to six frames of a file, evenly spread, with their map, side by side: (H, W, 3) uint8."""
    start, end = float(found.starts_seconds[0]), float(found.starts_seconds[-1] + found.span_seconds)
    count = STRIP if found.kind == "video" else 1
    times = start + (np.arange(count) + 0.5) * (end - start) / count
    scale = largest(found.relevance)
    shown = index(found.path)
    height, width = shown.height, shown.width
    longest = STRIP_PX if count > 1 else 2 * STRIP_PX
    share = min(1.0, longest / max(height, width)) if count > 1 else longest / max(height, width)
    frames = read_frames(found.path, times, cover=(max(1, round(share * height)), max(1, round(share * width))))
    tinted = [tint(frame, found.at(float(seconds)), found.box, scale) for frame, seconds in zip(frames, times)]
    gap = np.full((tinted[0].shape[0], 4, 3), 255, np.uint8)
    return np.concatenate([part for one in tinted for part in (one, gap)][:-1], 1)


def draw_sound(found: FileMap, spec: ClipSpec) -> np.ndarray:
    """The spectrogram of the first view with its map, low tones below: (mel, columns, 3) uint8."""
    mel = load_frames(found.path, spec, start_seconds=float(found.starts_seconds[0]))[0, 0].numpy()
    return tint(draw_mel(mel[None])[0], found.relevance[0, 0], WHOLE, largest(found.relevance))[::-1]


def draw_course(found: FileMap, axes: "Axes") -> None:
    """What speaks for the answer, and what against it, at each step in time, as bars."""
    times, width = found.times_seconds.ravel(), found.span_seconds / found.relevance.shape[1]
    cells = found.relevance.reshape(len(times), -1)
    for values, colour in ((cells.clip(0).sum(1), FOR), (cells.clip(max=0).sum(1), AGAINST)):
        axes.bar(times, values, width=0.92 * width, align="edge", color=[channel / 255 for channel in colour])
    axes.axhline(0, color=GRID, linewidth=0.8)
    start, end = float(times.min()), float(times.max() + width)
    axes.set_xlim(start, end)
    ticks = tick_seconds(start, end, most=8)
    axes.set_xticks(ticks, [tick_label(one) for one in ticks])
    axes.set_ylabel("logit", color=TEXT)


def write_scale(figure: "Figure") -> None:
    """What the two colours say."""
    width, height = figure.get_size_inches()
    for number, (words, colour) in enumerate((("speaks for it", FOR), ("speaks against it", AGAINST))):
        ink = [channel / 255 for channel in colour]
        figure.text((0.55 + 1.6 * number) / width, 0.16 / height, f"■ {words}", color=ink, va="center")
