"""From a file to frames or sound: the only place that meets the decoder and its exceptions."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain, count, dropwhile
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.sidedata import sidedata
from av.video.reformatter import Interpolation, VideoReformatter

from tubelet.media.files import (
    CODECS,
    CONTAINERS,
    IMAGE_CONTAINERS,
    IMAGE_SUFFIXES,
    MAX_PIXELS,
    SEEKS_LATE,
    SOUND_SUFFIXES,
    TELLS_REFERENCES,
    VIDEO_SUFFIXES,
    MediaError,
    regular_file,
    why_not_opened,
)
from tubelet.media.geometry import Turn, cover_size, turn
from tubelet.media.sampling import displayed_frames
from tubelet.media.timeline import Index, Packet, Run, collect, numbered, runs, timeline

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
]

av.logging.set_level(None)  # silent: what matters is in the MediaError

_OPEN_OPTIONS = {
    "format_whitelist": ",".join(CONTAINERS),
    "protocol_whitelist": "file",
    "pattern_type": "none",  # a picture called %03d.png is that picture, not a row of others
}


def _name_unknown_side_data(kind: Any, value: int) -> Any:
    member = object.__new__(kind)
    member._name_, member._value_ = f"UNKNOWN_{value}", value
    return member


# PyAV 18 refuses all side data of a frame, the display matrix too, when FFmpeg adds a kind it has no name for (EXIF).
setattr(sidedata.Type, "_missing_", classmethod(_name_unknown_side_data))  # noqa: B010


def index(path: str | os.PathLike[str]) -> Index:
    """Lists the frames of a file without decoding more than the first; remembered until the file changes.

    Raises:
        MediaError: the file is not one that can be read.
    """
    absolute = os.path.abspath(path)
    size, changed_ns = regular_file(absolute)
    return _index(absolute, size, changed_ns)


def read_frames(
    path: str | os.PathLike[str],
    times_seconds: np.ndarray,
    *,
    cover: tuple[int, int] | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Returns the frames on screen at the wanted times, uint8 RGB `(T, H, W, 3)`, rotation and mirroring applied.

    A frame that is damaged is replaced by the last good one before it: what a player shows. Pixels are taken as
    square, transparency is dropped, and only the first video stream is read.

    Args:
        times_seconds: `(T,)` in any order, duplicates allowed; before the first frame means the first, after the last
            the last.
        cover: (height, width) of a box; frames are scaled, keeping their aspect, until they just cover it.
        threads: of the decoder; 1 for a worker among many, 0 lets FFmpeg choose.

    Raises:
        MediaError: the file cannot be read, or no good frame comes before a wanted one.
    """
    times = np.asarray(times_seconds, dtype=np.float64).reshape(-1)
    if not np.isfinite(times).all():
        raise ValueError(f"times_seconds holds {times[~np.isfinite(times)][0]}: pass finite seconds")
    found = index(path)
    size = shown_size(found, cover)
    numbers = displayed_frames(found.times, times)
    wanted = np.unique(numbers).tolist()
    pictures = np.empty((len(wanted), *size, 3), np.uint8)
    rows = _fill(pictures, found, wanted, threads)
    for number in wanted:
        if number not in rows:
            raise nothing_before(found, number)
    order = [rows[number] for number in numbers.tolist()]
    return pictures if order == [*range(len(wanted))] else pictures[order]


def read_sound(
    path: str | os.PathLike[str], *, sample_rate: int, start_seconds: float = 0.0, seconds: float | None = None
) -> np.ndarray:
    """Returns sound as `(samples,)` float32 mono in [-1, 1]: the mean of the channels, resampled.

    Fewer samples come back where the file ends early.

    Raises:
        MediaError: the file cannot be read, has no sound, or none of it can be decoded.
    """
    if start_seconds < 0 or (seconds is not None and seconds <= 0):
        raise ValueError(
            f"start {start_seconds} s, length {seconds} s: start at 0 or later and ask for more than nothing"
        )
    absolute = os.path.abspath(path)
    regular_file(absolute)
    first = round(start_seconds * sample_rate)
    last = None if seconds is None else first + round(seconds * sample_rate)
    pieces: list[np.ndarray] = []
    done = 0
    with open_media(absolute) as container:
        stream = _sound(absolute, container)
        resampler = av.AudioResampler(format="fltp", rate=sample_rate)  # FFmpeg's own mixing down can overflow
        good = (frame for frame in decode(packets_of(container, stream), stream) if frame is not None)
        for frame in chain(good, [None]):  # None: hand out what the resampler still holds
            if frame is not None:
                frame.pts = None  # samples follow each other; a jump of the clock must not upset the resampler
            for piece in resampler.resample(frame):
                pieces.append(piece.to_ndarray().mean(axis=0, dtype=np.float32)[max(0, first - done) :])
                done += piece.samples
            if last is not None and done >= last:
                break
    if done == 0:
        raise MediaError(
            absolute, "no-frames", "none of its sound can be decoded", "Copy the file again or leave it out"
        )
    return np.clip(np.concatenate(pieces)[: None if last is None else last - first], -1, 1)


def shown_size(found: Index, cover: tuple[int, int] | None) -> tuple[int, int]:
    """(height, width) of the pictures handed out."""
    if found.kind == "sound":
        raise MediaError(found.path, "no-picture", "it holds sound but no video", "Read it with read_sound")
    return cover_size(found.height, found.width, cover) if cover else (found.height, found.width)


def nothing_before(found: Index, number: int) -> MediaError:
    problem = f"no good frame comes before second {found.times[number]:.3f}"
    return MediaError(found.path, "damaged", problem, "Copy the file again or leave it out")


@lru_cache(maxsize=16384)
def _index(path: str, size: int, changed_ns: int) -> Index:
    """The size and the time of the last change are there for the cache alone."""
    with open_media(path) as container:
        if not _streams(container, "video") and _streams(container, "audio"):
            return _sound_index(path, container)
        stream = video_stream(path, container, threads=1)
        notes: list[Packet] = []
        noted = _noting(packets_of(container, stream), notes)
        first = next((frame for frame in decode(noted, stream) if frame is not None), None)
        if first is None:
            raise MediaError(path, "no-frames", "not one picture can be decoded", "Copy the file again or leave it out")
        deque(noted, maxlen=0)  # the rest is listed, not decoded
        rate = stream.average_rate or stream.guessed_rate or 25
        found = timeline(notes, tick_seconds=float(stream.time_base), frame_seconds=float(1 / rate))
        formats, codec = set(container.format.name.split(",")), stream.codec_context.codec.canonical_name
    is_image = bool(formats & IMAGE_CONTAINERS) or (codec == "gif" and len(found.times) == 1)
    # AVI stores no display times; what the demuxer makes up is wrong once frames are reordered.
    counted = found.counted or first.pts is None or ("avi" in formats and not all(note.is_key for note in notes))
    height, width = _turn(first).of_size(first.height, first.width)
    found.times.setflags(write=False)
    return Index(
        path=path,
        kind="image" if is_image else "video",
        times=found.times,
        duration_seconds=0.0 if is_image else found.duration_seconds,
        height=height,
        width=width,
        linear_only=counted or len(found.key_times) < 2 or bool(SEEKS_LATE & {*formats, codec}),
        key_times=found.key_times,
        start_seconds=found.start_seconds,
        counted=counted,
        ticks=found.ticks,
        places=found.places,
        key_places=found.key_places,
        tells_references=codec in TELLS_REFERENCES,
    )


def _sound_index(path: str, container: InputContainer) -> Index:
    stream = _sound(path, container)
    spans = [
        (packet.pts, packet.pts + (packet.duration or 0))
        for packet in packets_of(container, stream)
        if packet.pts is not None
    ]
    ticks = max(end for _, end in spans) - min(start for start, _ in spans) if spans else 0
    seconds = float(ticks * stream.time_base) if ticks else (container.duration or 0) / av.time_base
    nothing = np.empty(0)
    return Index(path, "sound", nothing, seconds, 0, 0, True, nothing, 0.0, False, nothing, nothing, nothing, False)


@contextmanager
def open_media(path: str) -> Iterator[InputContainer]:
    """Opens a file; whatever the decoder raises inside the `with` leaves as a MediaError, not from FFmpeg alone."""
    try:
        container = av.open(f"file:{path}", options=_OPEN_OPTIONS)
    except Exception as error:
        refused = isinstance(error, av.ArgumentError)  # what FFmpeg says to a container that is not on the list
        raise why_not_opened(path, error, refused=refused) from error
    try:
        with container:
            yield container
    except MediaError:
        raise
    except Exception as error:
        problem = f"the decoder gave up ({type(error).__name__}: {error})"
        raise MediaError(path, "damaged", problem, "Copy the file again or leave it out") from error


def _streams(container: InputContainer, kind: str) -> list[Any]:
    """The streams of a kind; the cover picture of an album is not a video."""
    cover = av.stream.Disposition.attached_pic
    return [stream for stream in container.streams if stream.type == kind and not stream.disposition & cover]


def video_stream(path: str, container: InputContainer, threads: int) -> Any:
    streams = _streams(container, "video")
    if not streams:
        raise MediaError(path, "no-picture", "there is no video in it", "Check that it is the file you mean")
    stream = streams[0]
    _check_codec(path, stream)
    context = stream.codec_context
    if context.width * context.height > MAX_PIXELS:
        problem = f"its pictures have {context.width}x{context.height} pixels, more than {MAX_PIXELS} in all"
        raise MediaError(path, "too-big", problem, "Scale it down first")
    context.options = {"max_pixels": str(MAX_PIXELS * 9 // 8)}  # the size can change on the way; decoders pad a little
    context.thread_type, context.thread_count = ("NONE", 1) if threads == 1 else ("AUTO", threads)
    return stream


def _sound(path: str, container: InputContainer) -> Any:
    streams = _streams(container, "audio")
    if not streams:
        raise MediaError(path, "no-sound", "there is no sound in it", "Check that it is the file you mean")
    _check_codec(path, streams[0])
    return streams[0]


def _check_codec(path: str, stream: Any) -> None:
    name = stream.codec_context.codec.canonical_name if stream.codec_context else "unknown"
    if name not in CODECS and not name.startswith("pcm_"):
        raise MediaError(path, "blocked", f"the codec {name} is not read", "Convert it, to H.264 for instance")


def packets_of(container: InputContainer, stream: Any) -> Iterator[av.Packet]:
    """Yields packets with something in them, from where the container stands, until the end or what looks like it."""
    try:
        for packet in container.demux(stream):
            if packet.size:  # an empty one would tell the decoder that the file ends
                yield packet
    except av.FFmpegError:
        return  # the rest of the file cannot be taken apart: it ends here


def _noting(packets: Iterable[av.Packet], notes: list[Packet]) -> Iterator[av.Packet]:
    for packet in packets:
        notes.append(Packet(packet.pts, packet.duration or 0, packet.is_keyframe, packet.is_discard))
        yield packet


def decode(packets: Iterable[av.Packet], stream: Any) -> Iterator[Any]:
    """Yields frames in the order of display, None for one that is lost or marked as damaged."""
    for packet in chain(packets, [None]):  # None: hand out what the decoder still holds
        try:
            frames = stream.codec_context.decode(packet)
        except Exception:  # not FFmpegError alone; the next packet may be good
            yield None
            continue
        for frame in frames:
            yield None if frame.is_corrupt else frame


def _fill(pictures: np.ndarray, found: Index, wanted: list[int], threads: int) -> dict[int, int]:
    """Reads the wanted frames out of as few packets as the file allows, else all from its start: number -> row."""
    reformatter = VideoReformatter()

    def keeping() -> Callable[[av.VideoFrame], int]:
        free = count()

        def keep(frame: av.VideoFrame) -> int:
            row = next(free)
            pictures[row] = upright_rgb(frame, reformatter, pictures.shape[1:3])
            return row

        return keep

    if not found.counted and len(found.places):
        with open_media(found.path) as container:
            stream = video_stream(found.path, container, threads)
            rows = _by_runs(container, stream, found, wanted, keeping())
        if len(rows) == len(wanted):
            return rows
    with open_media(found.path) as container:
        stream = video_stream(found.path, container, threads)
        frames = decode(packets_of(container, stream), stream)
        return collect(numbered(frames, found, tick_seconds=float(stream.time_base)), wanted, keeping())


def _by_runs(
    container: InputContainer, stream: Any, found: Index, wanted: list[int], keep: Callable[[av.VideoFrame], int]
) -> dict[int, int]:
    """Reads run by run; returns less than what is wanted where a seek leads astray or a frame is damaged."""
    rows: dict[int, int] = {}
    for turns, run in enumerate(runs(found, wanted)):
        from_start = turns == 0 and run.first == 0
        packets = packets_of(container, stream) if from_start else _sought(container, stream, found, run.first)
        for frame in decode(_needed(packets, stream.codec_context, found, run), stream):
            number = run.wanted.get(frame.pts) if frame is not None else None
            if number is not None and number not in rows:
                rows[number] = keep(frame)
        if not rows.keys() >= set(run.wanted.values()):
            break
    return rows


def _sought(container: InputContainer, stream: Any, found: Index, first: int) -> Iterator[av.Packet]:
    """Packets from a key frame on, or from a little before; none where seeking does not lead there."""
    nearest = found.key_places[found.key_places <= first][:-3:-1]  # this key frame, then the one before
    for ticks in found.ticks[nearest].tolist():
        try:
            container.seek(ticks, stream=stream)
        except av.FFmpegError:
            break
        packets = packets_of(container, stream)
        landed = next(packets, None)
        if landed is not None and np.any(found.ticks[: first + 1] == landed.pts):
            return chain([landed], packets)
    return iter(())


def _needed(packets: Iterable[av.Packet], context: Any, found: Index, run: Run) -> Iterator[av.Packet]:
    """The packets of a run; the decoder passes over frames that are not wanted and that no other refers to."""
    first, last = found.ticks[[run.first, run.last]].tolist()
    passes_over = None
    for packet in dropwhile(lambda packet: packet.pts != first, packets):
        if found.tells_references and passes_over != (packet.pts not in run.wanted):
            passes_over = packet.pts not in run.wanted
            context.skip_frame = "NONREF" if passes_over else "DEFAULT"
        yield packet
        if packet.pts == last:
            return


def _turn(frame: Any) -> Turn:
    sides = (np.frombuffer(side, np.int32) for side in frame.side_data if side.type.name == "DISPLAYMATRIX")
    matrix = next(sides, None)
    return Turn() if matrix is None or len(matrix) < 9 else turn(matrix)


def upright_rgb(frame: Any, reformatter: VideoReformatter, size: tuple[int, int]) -> np.ndarray:
    """Scales, converts and turns one frame to the size it is displayed at, `(H, W, 3)` uint8."""
    turned = _turn(frame)
    height, width = turned.of_size(*size)
    area = Interpolation.AREA
    scaled = reformatter.reformat(frame, width, height, "rgb24", interpolation=area, threads=1)
    return turned.of_picture(scaled.to_ndarray())
