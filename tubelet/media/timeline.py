"""The frames of a file and the packets that lead to a wanted one: arithmetic on lists of packets, no decoder.

packets, in the order of the file    K    .    .    K    .    .    K    .    .    K: a decoder can start here
wanted                                    1                             7
decoded                              |----|                        |----|         two runs, a seek before the second
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np

Frame = TypeVar("Frame")
BEFORE_THE_FIRST_SECONDS = 0.0005  # a frame earlier than this leads up to the first one and is not displayed


Spans = tuple[tuple[float, float], ...]  # (from, to) in seconds
_nothing = partial(np.empty, 0, np.int64)


@dataclass(frozen=True, eq=False, kw_only=True)
class Timeline:
    """The part of an `Index` that follows from the packets alone.

    Attributes:
        times: `(N,)` seconds at which the frames appear, sorted, the first at 0; empty for sound.
        duration_seconds: until the last frame leaves the screen or the sound ends; 0 for an image.
        key_times: seconds at which decoding can start; below 0 for a key frame that an edit list hides.
        start_seconds: the time of the first frame on the file's own clock.
        counted: the file's own times cannot tell its frames apart; they are told by counting.
        ticks: `(M,)` the time of each packet on the file's own clock, in the order of the file from the first key
            frame on; empty, as the next two, where times cannot tell packets apart.
        places: `(N,)` where in that order the packet of each frame stands.
        key_places: `(K,)` where each key frame stands.
    """

    times: np.ndarray
    duration_seconds: float
    key_times: np.ndarray = field(default_factory=_nothing)
    start_seconds: float = 0.0
    counted: bool = False
    ticks: np.ndarray = field(default_factory=_nothing)
    places: np.ndarray = field(default_factory=_nothing)
    key_places: np.ndarray = field(default_factory=_nothing)


@dataclass(frozen=True, eq=False, kw_only=True)
class Index(Timeline):
    """The contents of a file.

    Attributes:
        kind: "video", "image" or "sound".
        height, width: of a picture as displayed, rotation applied; 0 for sound.
        linear_only: frames must be decoded from the start of the file.
        tells_references: the decoder knows, before it decodes a frame, whether others refer to it.
        is_cut: the file ends before it says it does, and not all that it promises is there.
        missing_spans: (from, to) seconds on screen of frames that are promised and not there, as far as known.
        missing_frames: how many these are, as far as known.
        notes: what is worth knowing but not wrong: see `health.Health`.
    """

    path: str
    kind: str
    height: int = 0
    width: int = 0
    linear_only: bool = True
    tells_references: bool = False
    is_cut: bool = False
    missing_spans: Spans = ()
    missing_frames: int = 0
    notes: tuple[str, ...] = ()


class Packet(NamedTuple):
    """One coded frame: its time in ticks, if the file says it, and what the demuxer tells beside."""

    ticks: int | None
    duration_ticks: int
    is_key: bool
    is_hidden: bool


class Run(NamedTuple):
    """Packets decoded in a row: their places in the file, from a key frame to the last that a wanted frame is made of.

    wanted: the numbers of the wanted frames by their ticks.
    """

    first: int
    last: int
    wanted: dict[int, int]


def timeline(packets: list[Packet], *, tick_seconds: float, frame_seconds: float) -> Timeline:
    """Lists the displayed frames of a file from its packets in file order.

    What comes before the first key frame, in the file or on screen, has nothing to be decoded from and is left out;
    so is what an edit list hides. Where a packet has no time, or key frames run backwards (files glued together),
    frames are taken to follow each other in order, `frame_seconds` apart.

    Raises: ValueError: no packet is displayed.
    """
    first_key = next((place for place, packet in enumerate(packets) if packet.is_key), 0)
    packets = packets[first_key:]
    is_shown = np.array([not packet.is_hidden for packet in packets], dtype=bool)
    key_places = np.array([place for place, packet in enumerate(packets) if packet.is_key], dtype=np.int64)
    ticks = np.array([packet.ticks for packet in packets if packet.ticks is not None], dtype=np.int64)
    counted = len(ticks) < len(packets) or bool(np.any(np.diff(ticks[key_places]) <= 0))
    places = np.flatnonzero(is_shown if counted else is_shown & (ticks >= ticks[:1]))
    if len(places) == 0:
        raise ValueError("no packet is displayed")
    if counted:
        times = np.arange(len(places)) * frame_seconds
        return Timeline(times=times, duration_seconds=len(times) * frame_seconds, key_times=times[:1], counted=True)
    places = places[np.argsort(ticks[places], kind="stable")]
    start = ticks[places[0]]
    times = (ticks[places] - start) * tick_seconds
    key_times = (ticks[key_places] - start) * tick_seconds
    duration_seconds = float(times[-1] + (packets[places[-1]].duration_ticks * tick_seconds or frame_seconds))
    is_told = len(np.unique(ticks)) == len(ticks)
    return Timeline(
        times=times,
        duration_seconds=duration_seconds,
        key_times=key_times,
        start_seconds=float(start * tick_seconds),
        counted=bool(np.any(np.diff(times) <= 0)),
        **({"ticks": ticks, "places": places, "key_places": key_places} if is_told else {}),
    )


def runs(found: Index, wanted: list[int]) -> list[Run]:
    """Leaves out the packets that no wanted frame is made of. Takes sorted numbers; the places must be known."""
    places = found.places[wanted]
    cut: list[Run] = []
    for number, place, first in zip(wanted, places.tolist(), _key_places(found, places), strict=True):
        if not cut or not cut[-1].first <= first <= cut[-1].last + 1:
            cut.append(Run(first, place, {}))
        elif place > cut[-1].last:
            cut[-1] = cut[-1]._replace(last=place)
        cut[-1].wanted[int(found.ticks[place])] = number
    return cut


def _key_places(found: Index, places: np.ndarray) -> list[int]:
    """The nearest key frame before each frame, both on screen and in the file.

    What leads up to a key frame is on screen before it and in the file after it, and refers to what came earlier.
    """
    if found.linear_only:
        return [0] * len(places)
    on_screen = np.searchsorted(found.ticks[found.key_places], found.ticks[places], side="right")
    in_file = np.searchsorted(found.key_places, places, side="right")
    nearest: list[int] = found.key_places[np.maximum(np.minimum(on_screen, in_file) - 1, 0)].tolist()
    return nearest


def number_frames(frames: Iterable[Any], found: Index, *, tick_seconds: float) -> Iterator[tuple[int, Any]]:
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


def pick_frames(
    numbered: Iterable[tuple[int, Frame]], wanted: list[int], *, to_the_end: bool = False
) -> Iterator[tuple[int, int, Frame]]:
    """Takes the wanted frames, sorted, out of a row in display order; for a missing one the last good one before it.

    Reads no further than the last wanted frame, and stops early where the row starts too late or ends too soon;
    to_the_end: the last good frame is shown for all that are missing after it.

    Yields (wanted number, number of the frame that is shown for it, that frame).
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
    if to_the_end and shown is not None:
        yield from ((number, *shown) for number in waiting)
