"""The damage of a file, and how much of it is lost: every packet decoded once, nothing kept.

A frame is good where the decoder, fed packet by packet, hands it out without a mark of damage; concealed blocks are
damage. The sound track of a video is not looked at.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from tubelet.media.address import absolute, suffix
from tubelet.media.decoder import COPY_AGAIN, Budget, decode_one, open_media, read_packets, sound_stream
from tubelet.media.formats import IMAGE_SUFFIXES, VIDEO_SUFFIXES, MediaError
from tubelet.media.index import cut_short
from tubelet.media.mono import mono
from tubelet.media.reader import index, open_frames
from tubelet.media.structure import broken_at
from tubelet.media.timeline import Index, Spans
from tubelet.media.truncation import promised_seconds, usual_gap


@dataclass(frozen=True)
class Health:
    """The readable and the lost parts of a file. All values are plain, fit for JSON.

    Attributes:
        ok: nothing at all is lost.
        usable: there are frames, or there is sound, to be read.
        code, message: "ok" and "", or the code of a `MediaError`, what is wrong and what to do.
        kind: "video", "image", "sound", or "" where that is not known. A file of sound alone under the suffix of a
            video or a picture is bad: no-picture.
        frames: good ones; of sound, good packets.
        bad_frames: those that are damaged or promised and not there, as far as known.
        bad_spans: (from, to) seconds on screen that are lost, sorted, merged. Where the file does not tell the times
            of its frames they are off by as many frames as the decoder holds back, and what follows frames that are
            not there moves up: they are missing at the end.
        duration_seconds, height, width: of what is there, as in `Index`.
        notes: what is worth knowing but not wrong: turned (or mirrored), variable-rate, interlaced, edit-list (it hides
            frames), geometry-changes, estimated-times (the file has none that can be relied upon), several-streams
            (of video; the first is read), other-suffix (than its container usually has).
    """

    path: str
    ok: bool
    usable: bool
    code: str = "ok"
    message: str = ""
    kind: str = ""
    frames: int = 0
    bad_frames: int = 0
    bad_spans: Spans = ()
    duration_seconds: float = 0.0
    height: int = 0
    width: int = 0
    notes: tuple[str, ...] = ()


def parse_health(path: str, fields: dict[str, Any]) -> Health:
    """Raises TypeError, ValueError or KeyError where the fields are not those of a Health."""
    spans = tuple((float(begin), float(end)) for begin, end in fields["bad_spans"])
    return Health(**{**fields, "path": path, "bad_spans": spans, "notes": tuple(map(str, fields["notes"]))})


def examine(path: str | os.PathLike[str], *, quick: bool = False) -> Health:
    """Looks at a whole file; never raises for a bad one.

    quick: reads the header, the list of packets and the first picture alone: finds files that cannot be opened or were
        cut short, but no damage further in.
    """
    file = absolute(path)
    try:
        found = index(file)
        if found.kind == "sound":
            if suffix(file) in VIDEO_SUFFIXES | IMAGE_SUFFIXES:
                remedy = "If it is meant to be sound, give it a suffix such as .m4a"
                raise MediaError(file, "no-picture", "it holds sound but no video", remedy)
            return _sound_health(found, quick)
        return _video_health(found, quick)
    except MediaError as error:
        return Health(file, False, False, error.code, error.message)
    except OSError as error:  # it was removed meanwhile, or the disk fails
        message = f"it cannot be read to its end ({error.strerror}). Check the path and the disk."
        return Health(file, False, False, "unreadable", message)


def _video_health(found: Index, quick: bool) -> Health:
    is_good = np.full(len(found.times), quick)
    notes, breaks, gaps = set(found.notes), None, []
    if not quick:
        breaks = broken_at(found.path)
        with open_frames(found, threads=1) as (stream, frames):
            size = None
            for number, frame in frames:
                is_good[number] = True
                size = size or (frame.height, frame.width)
                if (frame.height, frame.width) != size:
                    notes.add("geometry-changes")
                if frame.interlaced_frame:
                    notes.add("interlaced")
            if breaks is not None:
                gaps = _gaps(found, stream)
    ends = np.append(found.times[1:], max(found.duration_seconds, found.times[-1]))
    lost = [(float(found.times[number]), float(ends[number])) for number in np.flatnonzero(~is_good)]
    return _health(found, int(is_good.sum()), lost, sorted(notes), breaks=breaks, gaps=gaps)


def _gaps(found: Index, stream: Any) -> list[tuple[float, float]]:
    """(from, to) seconds on screen for which a broken file has no packet, if its frames else come at an even rate."""
    end, step = found.duration_seconds, usual_gap(found.times)
    since = np.flatnonzero(np.diff(found.times) > 1.5 * step)
    spans = [(float(found.times[number] + step), float(found.times[number + 1])) for number in since]
    if len(spans) > len(found.times) // 4:  # at a variable rate a hole cannot be told from a long frame
        spans = []
    promised = promised_seconds(found.path, stream, start_seconds=found.start_seconds, end_seconds=end)
    return spans + ([(end, promised)] if promised > end + step / 2 else [])


def _sound_health(found: Index, quick: bool) -> Health:
    """Sound is of use where the reader gets a sample out of it: it goes the same way."""
    packets: list[tuple[float, float, bool]] = []
    with open_media(found.path) as container:
        stream = sound_stream(found.path, container)
        spent = Budget(found.path).spend(read_packets(container, stream), stream)
        rate = stream.codec_context.sample_rate or 16000
        frames = _good_frames(spent, stream, packets)
        is_heard = next(mono(frames, sample_rate=rate), None) is not None
        deque(() if quick else frames, maxlen=0)  # where some can be heard, the rest need only be decoded
    if not is_heard:
        raise MediaError(found.path, "no-frames", "none of its sound can be decoded", COPY_AGAIN, stage="decode")
    start_seconds = packets[0][0]
    lost = [(since - start_seconds, to - start_seconds) for since, to, is_good in packets if not is_good]
    return _health(found, len(packets) - len(lost), lost, [*found.notes])


def _good_frames(packets: Iterable[Any], stream: Any, noted: list[tuple[float, float, bool]]) -> Iterator[Any]:
    """Yields frames of sound; notes of each packet when it begins and ends, in seconds, and whether it is good."""
    for packet in chain(packets, [None]):  # None: hand out what the decoder still holds
        frames = decode_one(packet, stream)
        if packet is not None:
            since = float((packet.pts or 0) * stream.time_base)
            noted.append((since, since + float((packet.duration or 0) * stream.time_base), None not in frames))
        yield from (frame for frame in frames if frame is not None)


def _health(
    found: Index,
    good: int,
    lost: list[tuple[float, float]],
    notes: list[str],
    *,
    breaks: int | None = None,
    gaps: Iterable[tuple[float, float]] = (),
) -> Health:
    """lost: seconds of damaged frames. breaks: the byte at which the file's chain does. gaps: frames it then lacks."""
    missing = merge_spans([*found.missing_spans, *gaps])
    seconds, step = sum(to - since for since, to in missing), usual_gap(found.times)
    bad = len(lost) + max(found.missing_frames, round(seconds / step) if gaps and step else 0)
    error = None
    if found.is_cut:
        error = cut_short(found)
    elif bad or breaks is not None:
        problem = f"{bad} of {good + bad} frames are damaged" if bad else f"it makes no sense from byte {breaks} on"
        error = MediaError(found.path, "damaged", problem, COPY_AGAIN, stage="decode")
    return Health(
        path=found.path,
        ok=error is None,
        usable=good > 0 or found.kind == "sound",  # else it had been refused
        code=error.code if error else "ok",
        message=error.message if error else "",
        kind=found.kind,
        frames=good,
        bad_frames=bad,
        bad_spans=merge_spans([*lost, *missing]),
        duration_seconds=found.duration_seconds,
        height=found.height,
        width=found.width,
        notes=tuple(notes),
    )


def merge_spans(spans: Iterable[tuple[float, float]]) -> Spans:
    """Sorts spans and joins those that touch; empty ones are dropped."""
    joined: list[tuple[float, float]] = []
    for since, to in sorted(spans):
        if joined and since <= joined[-1][1] + 1e-6:
            joined[-1] = (joined[-1][0], max(to, joined[-1][1]))
        elif to > since:
            joined.append((since, to))
    return tuple(joined)
