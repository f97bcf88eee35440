"""Files that are cut short: their outermost box, chunk or element reaches beyond their end.

Read from their own bytes, without a decoder. Only of such a file is asked how long it should have lasted.
"""

import os
import re
import struct
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from tubelet.media.bytes import open_bytes, stat
from tubelet.media.sniff import MP4_BOXES, boxes, ebml_number, jpeg_segments, read_at
from tubelet.media.timeline import Spans

_BOXES = {*MP4_BOXES, b"mfra", b"uuid", b"udta"}
_REORDERED_FRAMES = 16  # H.264 and HEVC hold back no more; holes before the cut lie within


def promised_bytes(path: str) -> int:
    """The size that the file says it has, at least; 0 where it says nothing that can be relied upon."""
    try:
        with open_bytes(path) as file:
            head = file.read(4096)
            if head[4:8] in _BOXES:
                return _box_bytes(file, head)
            for starts, size in _FORMATS.items():
                if head.startswith(starts):
                    return size(file, head)
    except (OSError, struct.error, OverflowError):
        pass
    return 0


def is_cut(path: str) -> bool:
    return promised_bytes(path) > stat(path).size


def _box_bytes(file: BinaryIO, head: bytes) -> int:
    """MP4: the end of the last outer box, if all are of a known kind: what follows a whole file may be anything."""
    end = file.seek(0, os.SEEK_END)
    for name, place in boxes(file):
        if name not in _BOXES:
            return 0
        if place >= end:
            return place if name in (b"mdat", b"moof", b"moov") else 0
    return 0


def _matroska_bytes(file: BinaryIO, head: bytes) -> int:
    """Matroska: the header, then one segment; a size of ones only means that it was not known."""
    length, digits = ebml_number(head, 4)
    place = 4 + digits + length
    if digits == 0 or head[place : place + 4] != b"\x18\x53\x80\x67":
        return 0
    length, digits = ebml_number(head, place + 4)
    return 0 if digits == 0 or length == (1 << 7 * digits) - 1 else place + 4 + digits + length


def _riff_bytes(file: BinaryIO, head: bytes) -> int:
    length = struct.unpack("<I" if head.startswith(b"RIFF") else ">I", head[4:8])[0]
    was_known = length < 0xFFFFFF00 and not 0x7FFFF000 <= length < 0x80000100  # else written to a pipe
    return 8 + length if was_known else 0


def _jpeg_bytes(file: BinaryIO, head: bytes) -> int:
    """The mark of the end cannot stand among the coded pixels; before them, it ends the small picture for previews."""
    pixels = max(place for place, _ in jpeg_segments(file))
    return _bytes_with_mark(file, pixels, b"\xff\xd9")


def _gif_bytes(file: BinaryIO, head: bytes) -> int:
    return _bytes_with_mark(file, max(0, file.seek(0, os.SEEK_END) - 4096), b"\0;")  # a little may stand behind the end


def _bytes_with_mark(file: BinaryIO, since: int, mark: bytes) -> int:
    """0 where the mark of the end is there (some cameras write on behind it), else one byte more than the file has."""
    return 0 if mark in read_at(file, since) else file.seek(0, os.SEEK_END) + 1


_FORMATS: dict[tuple[bytes, ...], Callable[[BinaryIO, bytes], int]] = {
    (b"\x1aE\xdf\xa3",): _matroska_bytes,
    (b"RIFF", b"FORM"): _riff_bytes,
    (b"\xff\xd8\xff",): _jpeg_bytes,
    (b"GIF8",): _gif_bytes,
}


def promised_seconds(path: str, stream: Any, *, start_seconds: float, end_seconds: float) -> float:
    """Seconds that the stream lasts from its first frame on, by its header; 0 where that does not say. Cut files only.

    start_seconds: of the first frame, on the clock of the file. end_seconds: of the frames there are, from the first.
    """
    container, formats = stream.container, set(stream.container.format.name.split(","))
    if formats & {"wav", "aiff"}:
        return end_seconds * promised_bytes(path) / stat(path).size
    if "avi" in formats and stream.type == "video" and stream.average_rate:
        return float(stream.frames / stream.average_rate)
    clock = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if "matroska" in formats and clock:
        return 3600 * int(clock[1]) + 60 * int(clock[2]) + float(clock[3]) - start_seconds
    if "matroska" in formats:
        return float((container.duration or 0) / 1_000_000) - start_seconds
    if "mov" in formats and stream.duration:
        is_in_fragments = stream.type == "video" and not stream.frames
        return float(stream.duration * stream.time_base) - (start_seconds if is_in_fragments else 0)
    return 0.0  # a GIF, a picture: what the decoder says follows from what is there


def usual_gap(times: np.ndarray) -> float:
    """Seconds from one frame to the next, as in most of the file; 0 for less than two frames."""
    return float(np.median(np.diff(times))) if len(times) > 1 else 0.0


def missing_spans(times: np.ndarray, *, duration_seconds: float, promised_seconds: float) -> Spans:
    """Spans on screen that a file lacks: holes that reordering leaves before its end, then the end.

    times: `(N,)` seconds of the frames that are there, sorted.
    """
    spans = []
    gaps, step = np.diff(times), usual_gap(times)
    counts = np.round(gaps / step) if step > 0 else gaps
    is_regular = np.all(counts[:-_REORDERED_FRAMES] == 1) and np.abs(gaps - counts * step).max(initial=0) < 0.1 * step
    if step > 0 and is_regular:  # at a variable rate a hole cannot be told from a long frame
        for number in np.flatnonzero(counts > 1).tolist():
            spans.append((float(times[number] + step), float(times[number + 1])))
    if promised_seconds > duration_seconds + max(step / 2, 0.01):
        spans.append((duration_seconds, promised_seconds))
    return tuple(spans)
