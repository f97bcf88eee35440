"""From a file to its `Index`: packets are listed, only the first picture is decoded."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from tubelet.media.address import suffix
from tubelet.media.bytes import is_plain, stat
from tubelet.media.decoder import (
    Budget,
    InputContainer,
    av,
    decode,
    list_streams,
    open_media,
    read_packets,
    read_turn,
    sound_stream,
    video_stream,
)
from tubelet.media.formats import FETCH_AGAIN, IMAGE_CONTAINERS, SEEKS_LATE, TELLS_REFERENCES, MediaError, why_no_frames
from tubelet.media.geometry import Turn
from tubelet.media.structure import broken_at
from tubelet.media.timeline import Index, Packet, Spans, Timeline, timeline
from tubelet.media.truncation import is_cut, missing_spans, promised_seconds, usual_gap

ROUNDED_SECONDS = 0.0011  # Matroska and Flash round to a millisecond, so two times differ by one more or less
TAG_SECONDS = 0.25  # muxers do not agree whether the last frame counts
FEW_GAPS = 0.05  # a frame that was dropped here and there does not make a rate variable
_SUFFIXES = {
    "mov": {".mp4", ".m4v", ".mov", ".3gp", ".m4a"},
    "matroska": {".mkv", ".webm"},
    "avi": {".avi"},
    "flv": {".flv"},
    "asf": {".wmv", ".asf", ".wma"},
    "gif": {".gif"},
    "mpegts": {".ts", ".mts", ".m2ts"},
    "mpeg": {".mpg", ".mpeg", ".vob"},
    "mpegvideo": {".mpg", ".mpeg"},
    "ogg": {".ogv", ".ogg", ".opus"},
}


def list_frames(path: str) -> Index:
    """Lists what a file holds.

    Raises: MediaError: the file is not one that can be read.
    """
    with open_media(path) as container:
        if not list_streams(container, "video") and list_streams(container, "audio"):
            return _sound_index(path, container)
        stream = video_stream(path, container, threads=1)
        notes: list[Packet] = []
        noted = _note_packets(read_packets(container, stream), notes)
        first = next((f for f in decode(Budget(path).spend(noted, stream), stream) if f is not None), None)
        if first is None:
            raise why_no_frames(path, is_picture=container.format.name in IMAGE_CONTAINERS)
        if is_plain(path) or not _list_hollow(path, stream, notes):
            deque(noted, maxlen=0)  # the rest is listed, not decoded
        rate = stream.average_rate or stream.guessed_rate or 25
        found = timeline(notes, tick_seconds=float(stream.time_base), frame_seconds=float(1 / rate))
        formats, codec = set(container.format.name.split(",")), stream.codec_context.codec.canonical_name
        cut, spans, missing = _find_missing(path, stream, found, len(notes))
        words = _notes(path, stream, found, first, any(note.is_hidden for note in notes))
    is_image = bool(formats & IMAGE_CONTAINERS) or (codec == "gif" and len(found.times) == 1)
    # AVI stores no display times; what the demuxer makes up is wrong once frames are reordered.
    counted = found.counted or first.pts is None or ("avi" in formats and not all(note.is_key for note in notes))
    height, width = read_turn(first).turn_size(first.height, first.width)
    found.times.setflags(write=False)
    found = replace(found, counted=counted, duration_seconds=0.0 if is_image else found.duration_seconds)
    return Index(
        **vars(found),
        path=path,
        kind="image" if is_image else "video",
        height=height,
        width=width,
        linear_only=counted or len(found.key_times) < 2 or bool(SEEKS_LATE & {*formats, codec}),
        tells_references=codec in TELLS_REFERENCES,
        is_cut=cut,
        missing_spans=spans,
        missing_frames=missing,
        notes=(*words, "estimated-times") if counted and not is_image else words,
    )


def cut_short(found: Index) -> MediaError:
    """The error for a file that is not all there."""
    problem, end = "it ends before it says it does", found.duration_seconds
    if found.missing_spans and found.missing_spans[-1][1] > end:
        problem = f"it ends after {end:.2f} of {found.missing_spans[-1][1]:.2f} seconds"
    return MediaError(found.path, "truncated", problem, FETCH_AGAIN, stage="list")


def _note_packets(packets: Iterable[Any], notes: list[Packet]) -> Iterator[Any]:
    for packet in packets:
        notes.append(Packet(packet.pts, packet.duration or 0, packet.is_keyframe, packet.is_discard))
        yield packet


def _list_hollow(path: str, stream: Any, notes: list[Packet]) -> bool:
    """Lists all packets of an MP4 elsewhere by its tables, without fetching them; whether that could be done: the table
    tells all, and the packets that are here, which the notes hold, are as it says."""
    if "mov" not in stream.container.format.name.split(","):
        return False
    listed: list[Packet] = []
    with open_media(path, hollow=True) as container:
        hollow = container.streams[stream.index]
        places = [(packet.pos, packet.size) for packet in _note_packets(read_packets(container, hollow), listed)]
        told = [(entry.pos, entry.size) for entry in hollow.index_entries]
        # else the parser says which are key frames, from what is not there
        listed = [note._replace(is_key=entry.is_keyframe) for note, entry in zip(listed, hollow.index_entries)]
    if listed[: len(notes)] != notes or places != told:
        return False
    notes[:] = listed
    return True


def _find_missing(path: str, stream: Any, found: Timeline, packets: int) -> tuple[bool, Spans, int]:
    """(is the file cut short, the seconds on screen that it lacks, how many frames that is)."""
    listed, cut = _count_beyond_end(path, stream), is_cut(path)
    end, count = found.duration_seconds, len(found.times)
    promised = promised_seconds(path, stream, start_seconds=found.start_seconds, end_seconds=end)
    # Matroska's muxers note how long a stream lasted after they wrote it: to be believed even of a whole file.
    is_timed = "DURATION" in stream.metadata
    lacks_its_end = is_timed and promised > end + TAG_SECONDS and broken_at(path) is not None
    if not listed and not cut and not lacks_its_end:  # where nothing is broken, the last frame stays on for long
        return False, (), 0
    frame_seconds = usual_gap(found.times) or end / count
    missing = max(0, listed - packets)
    in_fragments = "mov" in stream.container.format.name and not stream.frames
    if missing and in_fragments:  # what follows this fragment may not be known
        promised = max(promised, (count + missing) * frame_seconds)
    spans = missing_spans(found.times, duration_seconds=end, promised_seconds=promised)
    seconds = sum(to - since for since, to in spans)
    if not missing or in_fragments:
        missing = max(missing, round(seconds / frame_seconds))
    return (cut or bool(listed)) and bool(missing or in_fragments or promised <= 0), spans, missing


def _count_beyond_end(path: str, stream: Any) -> int:
    """The number of packets in the table of an MP4, if some would lie behind the end of the file; else 0."""
    entries = stream.index_entries
    if "mov" not in stream.container.format.name.split(",") or len(entries) == 0:
        return 0
    last = entries[len(entries) - 1]
    return len(entries) if last.pos + last.size > stat(path).size else 0


def _notes(path: str, stream: Any, found: Timeline, first: Any, hides: bool) -> tuple[str, ...]:
    gaps, usual_seconds = np.diff(found.times), usual_gap(found.times)
    ending, formats = suffix(path), stream.container.format.name.split(",")
    usual = [_SUFFIXES[name] for name in formats if name in _SUFFIXES]
    is_off = np.abs(gaps - usual_seconds) > 0.1 * usual_seconds + ROUNDED_SECONDS
    words = {
        "turned": read_turn(first) != Turn(),
        "variable-rate": len(gaps) > 1 and np.mean(is_off) > FEW_GAPS,
        "interlaced": first.interlaced_frame,
        "edit-list": "mov" in formats and (hides or 0 < len(stream.index_entries) < stream.frames),
        "several-streams": len(list_streams(stream.container, "video")) > 1,
        "other-suffix": bool(usual) and not any(ending in names for names in usual),
    }
    return tuple(word for word, holds in words.items() if holds)


def _sound_index(path: str, container: InputContainer) -> Index:
    stream = sound_stream(path, container)
    spans = [
        (packet.pts, packet.pts + (packet.duration or 0))
        for packet in read_packets(container, stream)
        if packet.pts is not None
    ]
    ticks = max(end for _, end in spans) - min(start for start, _ in spans) if spans else 0
    tick_seconds = float(stream.time_base or 0)
    seconds = ticks * tick_seconds if ticks else (container.duration or 0) / av.time_base
    missing: Spans = ()
    if is_cut(path):
        start = min((start for start, _ in spans), default=0) * tick_seconds
        promised = promised_seconds(path, stream, start_seconds=start, end_seconds=seconds)
        missing = ((seconds, promised),) if promised > seconds + 0.05 else ()
    return Index(
        path=path,
        kind="sound",
        times=np.empty(0),
        duration_seconds=seconds,
        is_cut=bool(missing),
        missing_spans=missing,
    )
