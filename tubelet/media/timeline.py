"""What a file holds and which of its packets lead to a wanted frame: arithmetic on lists of packets, no decoder.

times      0    1    2    3    4    5    6    7    8        wanted: 1, 7
packets    K    .    .    K    .    .    K    .    .        K: a key frame, a decoder can start here
decoded    |----|                        |----|             two runs, a seek before each
"""

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any, NamedTuple, TypeVar

import numpy as np

Frame = TypeVar("Frame")
BEFORE_THE_FIRST_SECONDS = 0.0005  # a frame earlier than this leads up to the first one and is not displayed


@dataclass(frozen=True, eq=False)
class Index:
    """What a file holds.

    Attributes:
        kind: "video", "image" or "sound".
        times: `(N,)` seconds at which the frames appear, sorted, the first at 0; empty for sound.
        duration_seconds: until the last frame leaves the screen or the sound ends; 0 for an image.
        height, width: of a picture as displayed, rotation applied; 0 for sound.
        linear_only: frames must be decoded from the start of the file.
        key_times: seconds at which decoding can start; below 0 for a key frame that an edit list hides.
        start_seconds: the time of the first frame on the file's own clock.
        counted: the file's own times cannot tell its frames apart; they are told by counting.
    """

    path: str
    kind: str
    times: np.ndarray
    duration_seconds: float
    height: int
    width: int
    linear_only: bool
    key_times: np.ndarray
    start_seconds: float
    counted: bool


class Packet(NamedTuple):
    """One coded frame: its time in ticks, if the file says it, and what the demuxer tells beside."""

    ticks: int | None
    duration_ticks: int
    is_key: bool
    is_hidden: bool


class Timeline(NamedTuple):
    """The part of an `Index` that follows from the packets alone."""

    times: np.ndarray
    duration_seconds: float
    key_times: np.ndarray
    start_seconds: float
    counted: bool


def timeline(packets: list[Packet], *, tick_seconds: float, frame_seconds: float) -> Timeline:
    """Lists the displayed frames of a file from its packets in file order.

    What comes before the first key frame, in the file or on screen, has nothing to be decoded from and is left out;
    so is what an edit list hides. Where a packet has no time, or key frames run backwards (files glued together),
    frames are taken to follow each other in order, `frame_seconds` apart.

    Raises:
        ValueError: no packet is displayed.
    """
    first_key = next((place for place, packet in enumerate(packets) if packet.is_key), 0)
    packets = packets[first_key:]
    shown = [packet for packet in packets if not packet.is_hidden]
    ticks = [packet.ticks for packet in packets if packet.ticks is not None]
    keys = [packet.ticks for packet in packets if packet.is_key and packet.ticks is not None]
    if len(ticks) < len(packets) or any(later <= earlier for earlier, later in pairwise(keys)):
        times = np.arange(len(shown)) * frame_seconds
        if not shown:
            raise ValueError("no packet is displayed")
        return Timeline(times, len(shown) * frame_seconds, times[:1], 0.0, counted=True)
    ordered = sorted((p.ticks, p.duration_ticks) for p in shown if p.ticks is not None and p.ticks >= ticks[0])
    if not ordered:
        raise ValueError("no packet is displayed")
    times = np.array([time for time, _ in ordered], dtype=np.float64)
    start, times = times[0], (times - times[0]) * tick_seconds
    duration_seconds = times[-1] + (ordered[-1][1] * tick_seconds or frame_seconds)
    key_times = (np.array(keys, dtype=np.float64) - start) * tick_seconds
    twins = bool(np.any(np.diff(times) <= 0))
    return Timeline(times, float(duration_seconds), key_times, float(start * tick_seconds), counted=twins)


def runs(found: Index, wanted: list[int]) -> list[tuple[int, list[int]]]:
    """Cuts sorted frame numbers where whole groups of pictures lie between them.

    Returns:
        (place of the first key frame in `key_times`, frame numbers) of each run.
    """
    cut: list[tuple[int, list[int]]] = []
    previous = -2
    for number, group in zip(wanted, _groups(found, wanted), strict=True):
        if group > previous + 1:
            cut.append((group, []))
        cut[-1][1].append(number)
        previous = group
    return cut


def worth_seeking(found: Index, wanted: list[int]) -> bool:
    """Tells whether at least half of the groups of pictures up to the last wanted frame can be skipped."""
    if found.linear_only or not wanted:
        return False
    groups = _groups(found, wanted)
    return 2 * len(set(groups)) <= groups[-1] + 1


def numbered(frames: Iterable[Any], found: Index, *, tick_seconds: float) -> Iterator[tuple[int, Any]]:
    """Gives each good frame its place in `found.times`: (place, frame). None stands for a lost frame."""
    middles = (found.times[1:] + found.times[:-1]) / 2
    for count, frame in enumerate(frames):
        if frame is None:
            continue
        if found.counted:
            yield min(count, len(middles)), frame
        elif frame.pts is not None:
            seconds = frame.pts * tick_seconds - found.start_seconds
            if seconds > -BEFORE_THE_FIRST_SECONDS:
                yield int(np.searchsorted(middles, seconds)), frame


def displayed(numbered: Iterable[tuple[int, Frame]], wanted: list[int]) -> Iterator[tuple[int, int, Frame]]:
    """Takes the wanted frames, sorted, out of a row in display order; for a missing one the last good one before it.

    Reads no further than the last wanted frame, and stops early where the row starts too late or ends too soon.

    Yields:
        (wanted number, number of the frame that is shown for it, that frame).
    """
    waiting = deque(wanted)
    shown: tuple[int, Frame] | None = None
    for number, frame in numbered:
        while waiting and waiting[0] < number and shown is not None:
            yield waiting.popleft(), *shown
        if waiting and waiting[0] == number:
            yield waiting.popleft(), number, frame
        if not waiting or waiting[0] < number:
            return
        shown = number, frame


def collect(
    numbered: Iterable[tuple[int, Frame]], wanted: list[int], convert: Callable[[Frame], np.ndarray]
) -> dict[int, np.ndarray]:
    """The wanted frames by number, converted; a frame that is missing at the end too is the last good one before it.

    Returns less than what is wanted when the row starts too late.
    """
    end: tuple[int, Any] = (sys.maxsize, None)  # holds the last good frame for all that are still wanted
    return {number: convert(frame) for number, _, frame in displayed(chain(numbered, [end]), wanted)}


def _groups(found: Index, wanted: list[int]) -> list[int]:
    half_microsecond = 5e-7  # the times are sums of floats
    groups = np.searchsorted(found.key_times, found.times[wanted] + half_microsecond, side="right") - 1
    return [int(group) for group in np.maximum(groups, 0)]
