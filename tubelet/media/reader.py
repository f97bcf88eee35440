"""From a file to frames or sound, by time."""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, dropwhile
from typing import Any

import numpy as np

from tubelet.media.address import absolute
from tubelet.media.bytes import is_plain
from tubelet.media.decoder import (
    COPY_AGAIN,
    MAX_PIXELS,
    Budget,
    InputContainer,
    VideoReformatter,
    av,
    decode,
    fetch_packets,
    open_media,
    read_packets,
    sound_stream,
    upright_rgb,
    video_stream,
)
from tubelet.media.formats import IMAGE_SUFFIXES, SOUND_SUFFIXES, VIDEO_SUFFIXES, MediaError
from tubelet.media.geometry import cover_size
from tubelet.media.index_cache import index, openable_file
from tubelet.media.mono import mono
from tubelet.media.sampling import displayed_frames
from tubelet.media.timeline import Index, Run, number_frames, pick_frames, runs

__all__ = [
    "IMAGE_SUFFIXES",
    "SOUND_SUFFIXES",
    "VIDEO_SUFFIXES",
    "Index",
    "MediaError",
    "cover_size",
    "index",
    "read_frames",
    "read_sound",
    "read_sounds",
]

MOST_LOST = 0.1  # of the wanted frames


def read_frames(
    path: str | os.PathLike[str],
    times_seconds: np.ndarray,
    *,
    cover: tuple[int, int] | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Returns the frames on screen at the wanted times, uint8 RGB `(T, H, W, 3)`, rotation and mirroring applied.

    A frame that is damaged is replaced by the last good one before it: what a player shows. Where more than a tenth
    of the wanted times, and more than one, show such a frame or lie in what a file cut short lacks, it is an error.
    Pixels are taken as square, transparency is dropped, and only the first video stream is read.

    Args:
        times_seconds: `(T,)` in any order, duplicates allowed; before the first frame means the first, after the last
            the last.
        cover: (height, width) of a box; frames are scaled, keeping their aspect, until they just cover it.
        threads: of the decoder; 1 for a worker among many, 0 lets FFmpeg choose.

    Raises: MediaError: the file cannot be read, no good frame comes before a wanted one, or too many are lost.
    """
    times = np.asarray(times_seconds, dtype=np.float64).reshape(-1)
    if not np.isfinite(times).all():
        raise ValueError(f"times_seconds holds {times[~np.isfinite(times)][0]}: pass finite seconds")
    found = index(path)
    size = shown_size(found, cover)
    numbers = displayed_frames(found.times, times)
    wanted = np.unique(numbers).tolist()
    pictures = np.empty((len(wanted), *size, 3), np.uint8)
    lost = _fill(pictures, found, wanted, threads)
    _check_loss(found, times, np.isin(numbers, lost))
    return pictures if numbers.tolist() == wanted else pictures[np.searchsorted(wanted, numbers)]


def read_sound(
    path: str | os.PathLike[str], *, sample_rate: int, start_seconds: float = 0.0, seconds: float | None = None
) -> np.ndarray:
    """Returns sound as `(samples,)` float32 mono in [-1, 1]: the mean of the channels, resampled.

    Fewer samples come back where the file ends early.

    Raises: MediaError: the file cannot be read, has no sound, or none of it can be decoded.
    """
    return read_sounds(path, sample_rate=sample_rate, spans=[(start_seconds, seconds)])[0]


def read_sounds(
    path: str | os.PathLike[str], *, sample_rate: int, spans: Sequence[tuple[float, float | None]]
) -> list[np.ndarray]:
    """`read_sound` from each start for so many seconds, in one pass; what lies between them is not held in memory."""
    for start_seconds, seconds in spans:
        if start_seconds < 0 or (seconds is not None and seconds <= 0):
            raise ValueError(
                f"start {start_seconds} s, length {seconds} s: start at 0 or later and ask for more than nothing"
            )
    file = absolute(path)
    openable_file(file)
    firsts = [round(start_seconds * sample_rate) for start_seconds, _ in spans]
    lasts = [
        sys.maxsize if seconds is None else first + round(seconds * sample_rate)
        for first, (_, seconds) in zip(firsts, spans, strict=True)
    ]
    pieces: list[list[np.ndarray]] = [[np.empty(0, np.float32)] for _ in spans]
    done, end = 0, max(lasts)
    with open_media(file) as container:
        stream = sound_stream(file, container)
        packets = Budget(file).spend(read_packets(container, stream), stream)
        good = (frame for frame in decode(packets, stream) if frame is not None)
        for piece in mono(good, sample_rate=sample_rate):
            for first, last, kept in zip(firsts, lasts, pieces, strict=True):
                if first < done + len(piece) and done < last:
                    kept.append(piece[max(0, first - done) : last - done])
            done += len(piece)
            if done >= end:
                break
    if done == 0:
        raise MediaError(file, "no-frames", "none of its sound can be decoded", COPY_AGAIN, stage="decode")
    return [np.clip(np.concatenate(kept), -1, 1) for kept in pieces]


def shown_size(found: Index, cover: tuple[int, int] | None) -> tuple[int, int]:
    """(height, width) of the pictures handed out."""
    if found.kind == "sound":
        raise MediaError(found.path, "no-picture", "it holds sound but no video", "Read it with read_sound")
    height, width = cover_size(found.height, found.width, cover) if cover else (found.height, found.width)
    if height * width > MAX_PIXELS:
        problem = f"its pictures of {found.width}x{found.height} are so long that they would become {width}x{height}"
        raise MediaError(found.path, "too-big", problem, "Crop it first")
    return height, width


def nothing_before(found: Index, number: int) -> MediaError:
    problem = f"no good frame comes before second {found.times[number]:.3f}"
    return MediaError(found.path, "damaged", problem, COPY_AGAIN, stage="decode")


def _check_loss(found: Index, times: np.ndarray, is_damaged: np.ndarray) -> None:
    """Raises MediaError where too much of what is wanted would be made up for by other frames."""
    is_lost = is_damaged.copy()
    for since, to in found.missing_spans:
        is_lost |= (times >= since) & (times < to)
    count = int(is_lost.sum())
    if count > max(1, MOST_LOST * len(times)):
        first, last = times[is_lost].min(), times[is_lost].max()
        problem = f"{count} of {len(times)} wanted frames are lost, between seconds {first:.2f} and {last:.2f}"
        code = "damaged" if is_damaged.any() else "truncated"
        raise MediaError(found.path, code, problem, COPY_AGAIN, stage="decode")


@contextmanager
def open_frames(found: Index, threads: int) -> Iterator[tuple[Any, Iterator[tuple[int, Any]]]]:
    """The first video stream of a file, and its good frames in display order, each with its place in `found.times`."""
    with open_media(found.path) as container:
        stream = video_stream(found.path, container, threads)
        frames = decode(Budget(found.path).spend(read_packets(container, stream), stream), stream)
        yield stream, number_frames(frames, found, tick_seconds=float(stream.time_base))


def _fill(pictures: np.ndarray, found: Index, wanted: list[int], threads: int) -> list[int]:
    """Reads the wanted frames into the rows of `pictures`, out of as few packets as the file allows, else all from its
    start. Returns the numbers of the frames for which another one stands in."""
    reformatter, size = VideoReformatter(), pictures.shape[1:3]
    if not found.counted and len(found.places):
        rows = {number: row for row, number in enumerate(wanted)}
        with open_media(found.path) as container:
            stream = video_stream(found.path, container, threads)
            for number, frame in _decode_runs(container, stream, found, wanted):
                pictures[rows.pop(number)] = upright_rgb(frame, reformatter, size)
        if not rows:
            return []
    lost, reached = [], 0
    with open_frames(found, threads) as (_, frames):
        for number, shown, frame in pick_frames(frames, wanted, to_the_end=True):
            pictures[reached] = upright_rgb(frame, reformatter, size)
            lost += [number] if shown != number else []
            reached += 1
    if reached < len(wanted):
        raise nothing_before(found, wanted[reached])
    return lost


def _decode_runs(container: InputContainer, stream: Any, found: Index, wanted: list[int]) -> Iterator[tuple[int, Any]]:
    """Yields wanted frames with their numbers, run by run; stops early where a seek leads astray or one is damaged."""
    budget, rows = Budget(found.path), runs(found, wanted)
    fetch_packets(found.path, stream, len(found.ticks), [(run.first, run.last) for run in rows])
    for turns, run in enumerate(rows):
        from_start = turns == 0 and run.first == 0
        packets = read_packets(container, stream) if from_start else _seek(container, stream, found, run.first)
        needed, missing = budget.spend(_read_run(packets, stream.codec_context, found, run), stream), {**run.wanted}
        for frame in decode(needed, stream):
            if frame is not None and frame.pts in missing:
                yield missing.pop(frame.pts), frame
        if missing:
            return


def _seek(container: InputContainer, stream: Any, found: Index, first: int) -> Iterator[av.Packet]:
    """Packets from a key frame on, or from a little before; none where seeking does not lead there."""
    nearest = found.key_places[found.key_places <= first][:-3:-1]  # this key frame, then the one before
    for ticks in found.ticks[nearest].tolist():
        try:
            container.seek(ticks, stream=stream)
        except av.FFmpegError:
            break
        packets = read_packets(container, stream)
        landed = next(packets, None)
        if landed is not None and np.any(found.ticks[: first + 1] == landed.pts):
            return chain([landed], packets)
    return iter(())


def _read_run(packets: Iterable[av.Packet], context: Any, found: Index, run: Run) -> Iterator[av.Packet]:
    """The packets of a run; the decoder passes over frames that are not wanted and that no other refers to."""
    first, last = found.ticks[[run.first, run.last]].tolist()
    passes_over = None
    takes_tables_word = not is_plain(found.path)  # for what is a key frame
    for packet in dropwhile(lambda packet: packet.pts != first, packets):
        if takes_tables_word and not packet.is_keyframe:
            return
        takes_tables_word = False
        if found.tells_references and passes_over != (packet.pts not in run.wanted):
            passes_over = packet.pts not in run.wanted
            context.skip_frame = "NONREF" if passes_over else "DEFAULT"
        yield packet
        if packet.pts == last:
            return
