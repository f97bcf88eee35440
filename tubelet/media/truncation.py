"""Whether a file ends before it says it does, read from its own bytes: no decoder, and no header alone is believed.

A file is taken to be cut short only where the outermost box, chunk or element reaches beyond its end; how long it
should have lasted is asked only then. Whole files never are, whatever else their headers say.
"""

import os
import re
import struct
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from tubelet.media.sniff import ASF, MP4_BOXES, boxes, ebml_number
from tubelet.media.structure import ends_whole

_MOST_SEGMENTS = 1000
_BOXES = {*MP4_BOXES, b"mfra", b"uuid", b"udta"}
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_REORDERED_FRAMES = 16  # H.264 and HEVC hold back no more; holes before the cut lie within


def promised_bytes(path: str) -> int:
    """The size that the file says it has, at least; 0 where it says nothing that can be relied upon."""
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
            if head[4:8] in _BOXES:
                return _of_boxes(file, head)
            for starts, size in _FORMATS.items():
                if head.startswith(starts):
                    return size(file, head)
    except (OSError, struct.error, OverflowError):
        pass
    return 0


def is_cut(path: str) -> bool:
    return promised_bytes(path) > os.path.getsize(path)


def _of_boxes(file: BinaryIO, head: bytes) -> int:
    """MP4: the end of the last outer box, if all are of a known kind: what follows a whole file may be anything."""
    end = file.seek(0, os.SEEK_END)
    for name, place in boxes(file):
        if name not in _BOXES:
            return 0
        if place >= end:
            return place if name in (b"mdat", b"moof", b"moov") else 0
    return 0


def _of_matroska(file: BinaryIO, head: bytes) -> int:
    """Matroska: the header, then one segment; a size of ones only means that it was not known."""
    length, digits = ebml_number(head, 4)
    place = 4 + digits + length
    if digits == 0 or head[place : place + 4] != b"\x18\x53\x80\x67":
        return 0
    length, digits = ebml_number(head, place + 4)
    return 0 if digits == 0 or length == (1 << 7 * digits) - 1 else place + 4 + digits + length


def _of_riff(file: BinaryIO, head: bytes) -> int:
    length = struct.unpack("<I" if head.startswith(b"RIFF") else ">I", head[4:8])[0]
    was_known = length < 0xFFFFFF00 and not 0x7FFFF000 <= length < 0x80000100  # else written to a pipe
    return 8 + length if was_known else 0


def _of_flash(file: BinaryIO, head: bytes) -> int:
    """Some editors copy the number that was there before: it counts where the last tag is not whole."""
    mark = head.find(b"\0\x08filesize\0")
    size = struct.unpack(">d", head[mark + 11 : mark + 19])[0] if mark > 0 else 0.0
    if not 0 < size < 1e15 or ends_whole(file):
        return 0
    return int(size)


def _of_asf(file: BinaryIO, head: bytes) -> int:
    mark = head.find(_ASF_PROPERTIES)
    return struct.unpack("<Q", head[mark + 40 : mark + 48])[0] if mark > 0 else 0


def _of_png(file: BinaryIO, head: bytes) -> int:
    return _marked(file, 8, b"IEND")


def _of_jpeg(file: BinaryIO, head: bytes) -> int:
    """The mark of the end cannot stand among the coded pixels; before them, it ends the small picture for previews."""
    place = 2
    for _ in range(_MOST_SEGMENTS):
        start = _read(file, place, 4)
        if start[:2] == b"\xff\xff":  # one to fill up
            place += 1
            continue
        if start[:1] != b"\xff" or start[1:2] == b"\xda" or len(start) < 4:  # the pixels
            break
        place += 2 + int.from_bytes(start[2:])
    return _marked(file, place, b"\xff\xd9")


def _of_gif(file: BinaryIO, head: bytes) -> int:
    lacks = _marked(file, max(0, file.seek(0, os.SEEK_END) - 4096), b"\0;")
    return 0 if lacks and ends_whole(file) else lacks  # there may be more behind its end


def _of_bmp(file: BinaryIO, head: bytes) -> int:
    """Of pixels that are not packed the size follows from the picture's; some writers have no idea of the file's."""
    place, header, width, height, _, bits, packing = struct.unpack("<IIiiHHI", head[10:34])
    if header >= 40 and packing in (0, 3):
        return place + abs(height) * ((width * bits + 31) // 32 * 4)
    return struct.unpack("<I", head[2:6])[0]


def _marked(file: BinaryIO, since: int, mark: bytes) -> int:
    """A byte more than there are where the mark of the end is missing; behind it, some cameras write on."""
    return 0 if mark in _read(file, since) else file.seek(0, os.SEEK_END) + 1


def _read(file: BinaryIO, place: int, size: int = -1) -> bytes:
    file.seek(place)
    return file.read(size)


_FORMATS: dict[tuple[bytes, ...], Callable[[BinaryIO, bytes], int]] = {
    (b"\x1aE\xdf\xa3",): _of_matroska,
    (b"RIFF", b"FORM"): _of_riff,
    (b"FLV\x01",): _of_flash,
    (ASF,): _of_asf,
    (b"\x89PNG",): _of_png,
    (b"\xff\xd8\xff",): _of_jpeg,
    (b"GIF8",): _of_gif,
    (b"BM",): _of_bmp,
}


def asf_seconds(path: str) -> float:
    """How long a Windows Media file says it lasts; 0 where it does not."""
    with open(path, "rb") as file:
        head = file.read(4096)
    mark = head.find(_ASF_PROPERTIES)
    if not 0 < mark < len(head) - 88:
        return 0.0
    played, _, lead_ms = struct.unpack("<3Q", head[mark + 64 : mark + 88])
    return float(max(0.0, played / 1e7 - lead_ms / 1e3))


def promised_seconds(path: str, container: Any, stream: Any, *, start_seconds: float, end_seconds: float) -> float:
    """How long the header says the stream lasts from its first frame on; 0 where it does not. Ask of cut files only.

    Args:
        start_seconds: of the first frame, on the clock of the file.
        end_seconds: of what is there, from its first frame on.
    """
    formats = set(container.format.name.split(","))
    if formats & {"wav", "aiff"}:
        return end_seconds * promised_bytes(path) / os.path.getsize(path)
    if "asf" in formats:
        return asf_seconds(path)
    if "avi" in formats and stream.type == "video" and stream.average_rate:
        return float(stream.frames / stream.average_rate)
    clock = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if "matroska" in formats and clock:
        return 3600 * int(clock[1]) + 60 * int(clock[2]) + float(clock[3]) - start_seconds
    if formats & {"flv", "matroska"}:
        return float((container.duration or 0) / 1_000_000) - start_seconds
    if "mov" in formats and stream.duration:
        is_in_fragments = stream.type == "video" and not stream.frames
        return float(stream.duration * stream.time_base) - (start_seconds if is_in_fragments else 0)
    return 0.0  # a GIF, a picture: what the decoder says follows from what is there


def usual_gap(times: np.ndarray) -> float:
    """Seconds from one frame to the next, as in most of the file; 0 for less than two frames."""
    return float(np.median(np.diff(times))) if len(times) > 1 else 0.0


def missing_spans(
    times: np.ndarray, *, duration_seconds: float, promised_seconds: float
) -> tuple[tuple[float, float], ...]:
    """The seconds on screen that a file lacks: holes that reordering leaves before its end, then the end.

    Args:
        times: `(N,)` of the frames that are there, sorted.
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
