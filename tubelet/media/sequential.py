"""A video from its first picture to its last, in one pass: what is held does not grow with its length."""

import math
import os
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

from tubelet.media.decoder import VideoReformatter, av, upright_rgb
from tubelet.media.formats import MediaError
from tubelet.media.geometry import cover_size
from tubelet.media.index import cut_short
from tubelet.media.reader import index, nothing_before, open_frames, shown_size
from tubelet.media.sampling import TIME_ROUNDING_SECONDS, clip_times, displayed_frames
from tubelet.media.timeline import Index, pick_frames

PIXEL_FORMATS = {"rgb24": 3, "gray": 1}  # bytes of a pixel


class Picture(NamedTuple):
    """The picture on screen at a time; `damaged`: it is the last good picture before one that cannot be decoded."""

    seconds: float
    pixels: np.ndarray  # uint8 (H, W, 3)
    damaged: bool


def pictures_within(duration_seconds: float, *, seconds_between_frames: float) -> int:
    """The number of pictures that a video has at 0, d, 2 d, ... before it ends; at least one.

    |---------|---------|-----|   duration
    0         d        2 d          three
    """
    return max(1, math.ceil((duration_seconds - TIME_ROUNDING_SECONDS) / seconds_between_frames))


def frames_in_order(
    path: str | os.PathLike[str],
    *,
    seconds_between_frames: float,
    cover: tuple[int, int] | None = None,
    threads: int = 1,
) -> Iterator[Picture]:
    """The pictures of a file at 0, d, 2 d, ... until it ends, each packet decoded once, as `read_frames` gives them.

    Where nothing can be decoded to the end, an error comes after all that could be, not the last good picture again.

    Raises: MediaError: the file cannot be read, no good frame comes before the first wanted one, or the rest is lost.
    """
    found = index(path)
    shown_size(found, cover)
    count = pictures_within(found.duration_seconds, seconds_between_frames=seconds_between_frames)
    times = clip_times(0.0, frames=count, seconds_between_frames=seconds_between_frames)
    return _pick_pictures(found, times, cover, threads)


def _pick_pictures(found: Index, times: np.ndarray, cover: tuple[int, int] | None, threads: int) -> Iterator[Picture]:
    numbers = displayed_frames(found.times, times)
    wanted, firsts = np.unique(numbers, return_index=True)
    stops = [*firsts[1:], len(numbers)]  # a picture that stays on screen is wanted at several times in a row
    size, reformatter, reached = shown_size(found, cover), VideoReformatter(), 0
    with open_frames(found, threads) as (_, frames):
        for number, shown, frame in pick_frames(frames, wanted.tolist()):
            pixels = upright_rgb(frame, reformatter, size)
            for time in times[firsts[reached] : stops[reached]]:
                yield Picture(float(time), pixels, shown < number)
            reached += 1
    if reached == 0:
        raise nothing_before(found, int(wanted[0]))
    if reached < len(wanted):
        last, end = found.times[wanted[reached - 1]], found.duration_seconds
        problem = f"nothing after second {last:.2f} of {end:.2f} can be decoded"
        raise MediaError(found.path, "damaged", problem, "Copy the file again", stage="decode")
    if found.is_cut or found.missing_spans:
        raise cut_short(found)


def raw_frames_in_order(
    pipe: BinaryIO,
    *,
    size: tuple[int, int],
    frames_per_second: float,
    pixel_format: str,
    seconds_between_frames: float,
    cover: tuple[int, int] | None = None,
) -> Iterator[Picture]:
    """The pictures of raw frames, one after the other with nothing between, as `ffmpeg -f rawvideo -` writes them.

    size: (height, width) px of each frame. pixel_format: "rgb24" or "gray", 8 bits for each channel.

    Raises:
        MediaError: the pipe ends inside a frame, or before there is one.
        ValueError: a size, a rate or a pixel format that no frames have.
    """
    if min(size) < 1 or not 0 < frames_per_second < math.inf or pixel_format not in PIXEL_FORMATS:
        raise ValueError(
            f"raw frames of {size[1]}x{size[0]} px, {frames_per_second} a second, {pixel_format}: "
            f"expected sides and a rate above 0 and one of {', '.join(PIXEL_FORMATS)}"
        )
    shape = size if pixel_format == "gray" else (*size, 3)
    scaled_to = cover_size(*size, cover) if cover else size
    reformatter, number, wanted = VideoReformatter(), 0, 0  # frames read, pictures handed out
    while data := _read_up_to(pipe, math.prod(shape)):
        if len(data) < math.prod(shape):
            problem = f"it ends inside frame {number}: {len(data)} bytes of {math.prod(shape)} for {size[1]}x{size[0]}"
            raise MediaError("standard input", "truncated", problem, "Check --size and --pixel-format", stage="decode")
        number += 1
        times = []
        while (wanted * seconds_between_frames + TIME_ROUNDING_SECONDS) * frames_per_second < number:
            times.append(wanted * seconds_between_frames)
            wanted += 1
        if times:
            frame = av.VideoFrame.from_ndarray(np.frombuffer(data, np.uint8).reshape(shape), format=pixel_format)
            pixels = upright_rgb(frame, reformatter, scaled_to)
            yield from (Picture(time, pixels, False) for time in times)
    if number == 0:
        raise MediaError(
            "standard input", "no-frames", "it ends before the first frame", "Check what writes to it", stage="list"
        )


def _read_up_to(pipe: BinaryIO, size: int) -> bytes:
    """Reads `size` bytes; fewer where the pipe ends: a pipe hands out what it holds, not what is asked for."""
    pieces = []
    while size and (piece := pipe.read(size)):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)
