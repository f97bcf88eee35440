"""Whether the pieces of a file follow one another from its start to its end: no decoder, only their heads are read.

A demuxer steps over what it cannot make sense of without a word, and with it over frames. Matroska, AVI, Flash and GIF
are chains: each piece says how long it is, and the next one begins there. Zeroes within one piece break no chain.
"""

import os
import re
from collections.abc import Iterator
from io import BytesIO
from typing import BinaryIO

from tubelet.media.sniff import ebml_number

_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675
_IN_SEGMENT = {0x114D9B74, 0x1549A966, 0x1654AE6B, _CLUSTER, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367}
_BLOCK, _GROUP = 0xA3, 0xA0
_IN_CLUSTER = {0xE7, _BLOCK, _GROUP, 0xAB, 0xA7, 0x5854, 0xAF}
_KNOWN = {0x1A45DFA3, _SEGMENT, 0xEC, 0xBF} | _IN_SEGMENT | _IN_CLUSTER
_IN_MOVI = re.compile(rb"\d\d(dc|db|wb|pc|tx)|ix\d\d|JUNK|LIST")
_IN_AVI = {b"RIFF", b"LIST", b"JUNK", b"idx1", b"indx"}
_CHUNK_NAME = re.compile(rb"[ -~]{4}")
_FLASH_TAGS = {8, 9, 18}


class Broken(Exception):
    """The next piece does not begin where the one before it says."""


def ends_whole(file: BinaryIO) -> bool:
    """Whether the last tag of a Flash file ends where the file does, or a GIF has its mark of the end."""
    file.seek(0)
    head, size, place = file.read(16), os.fstat(file.fileno()).st_size, 0
    is_gif = head.startswith(b"GIF8")
    try:
        for place in _gif(file, 13 + _colours(head[10]), size) if is_gif else _flash(file, _first_tag(head), size):  # noqa: B007
            pass
    except Broken:
        return False
    file.seek(place)
    last = file.read(4)
    return last.startswith(b";") if is_gif else place + 15 + int.from_bytes(last[1:]) == size


def broken_at(path: str) -> int | None:
    """The byte at which the chain of a file breaks; None where it holds, or the file is of another kind.

    A file that merely ends too soon is not broken.
    """
    with open(path, "rb") as file:
        head, size = file.read(16), os.fstat(file.fileno()).st_size
        if head.startswith(b"\x1aE\xdf\xa3"):
            walk = _matroska(file, 0, size)
        elif head.startswith(b"RIFF") and head[8:12] == b"AVI ":
            walk = _avi(file, 0, size)
        elif head.startswith(b"FLV\x01"):
            walk = _flash(file, _first_tag(head), size)
        elif head.startswith(b"GIF8"):
            walk = _gif(file, 13 + _colours(head[10]), size)
        else:
            return None
        place = 0
        try:
            for place in walk:  # noqa: B007  # where it stands when it breaks is wanted
                pass
        except Broken:
            return place
    return None


def _matroska(file: BinaryIO, place: int, end: int) -> Iterator[int]:
    """Elements one after the other; the segment and its clusters, which hold others, are entered."""
    was_known, stop = True, end  # behind the segment may follow anything
    while place < stop:
        file.seek(place)
        head = file.read(12)
        kind, kind_bytes = ebml_number(head, 0, keep_mark=True)
        length, length_bytes = ebml_number(head, kind_bytes)
        if len(head) < 12 and not (kind_bytes and length_bytes):
            return  # cut short
        is_known = kind in _KNOWN
        if is_known:
            yield place
            if _is_of_no_track(kind, head[kind_bytes + length_bytes :]):
                raise Broken
        elif not was_known or not 0 < kind_bytes <= 4 or length_bytes == 0:  # an element of tomorrow stands alone
            raise Broken
        was_known = is_known
        place += kind_bytes + length_bytes
        if kind == _SEGMENT and length < (1 << 7 * length_bytes) - 1:  # else it was not known when it was written
            stop = min(end, place + length)
        elif kind not in (_SEGMENT, _CLUSTER):
            place += length


def _is_of_no_track(kind: int, content: bytes) -> bool:
    """Whether it is a packet that belongs to no track: demuxers pass over it, and over the rest of its cluster."""
    if kind == _GROUP and content.startswith(b"\xa1"):
        content = content[1 + ebml_number(content, 1)[1] :]
    elif kind != _BLOCK:
        return False
    return content != b"" and content[0] < 0x40  # the first bits tell how long the number is: 16,383 are enough


def _avi(file: BinaryIO, place: int, end: int) -> Iterator[int]:
    """Chunks, padded to even places; the lists of a file and that of its packets are entered.

    Editors and cameras add chunks of their own, with a name in letters, that lie within the file; some writers forget
    the padding.
    """
    in_packets, stop = False, end  # behind the last RIFF may follow anything
    while place + 12 <= end:
        file.seek(place)
        head = file.read(12)
        kind, length = head[:4], int.from_bytes(head[4:8], "little")
        if kind == b"RIFF":
            stop = place + 8 + length
        elif place >= stop:
            return
        yield place
        is_known = kind in _IN_AVI or bool(in_packets and _IN_MOVI.fullmatch(kind))
        if not is_known and (not _CHUNK_NAME.fullmatch(kind) or place + 8 + length > stop):
            raise Broken
        is_entered = kind == b"RIFF" or (kind == b"LIST" and head[8:12] in (b"movi", b"rec "))
        in_packets = in_packets or (kind == b"LIST" and head[8:12] == b"movi")
        place += 12 if is_entered else 8 + length
        if not is_entered and length % 2:
            file.seek(place)
            is_padded = not _CHUNK_NAME.fullmatch(file.read(4))
            place += is_padded


def _first_tag(head: bytes) -> int:
    return int.from_bytes(head[5:9]) + 4


def _flash(file: BinaryIO, place: int, end: int) -> Iterator[int]:
    """Tags, each followed by its own length once more."""
    while place + 15 <= end:
        yield place
        file.seek(place)
        head = file.read(4)
        if len(head) < 4:  # the file was cut meanwhile
            return
        length = 11 + int.from_bytes(head[1:4])
        place += length + 4
        file.seek(place - 4)
        after = file.read(4)
        usual = {length, length - 1, length - 11, 0} if head[0] & 0x1F in _FLASH_TAGS else {length}  # as writers do
        if len(after) == 4 and int.from_bytes(after) not in usual:
            raise Broken


def _gif(file: BinaryIO, place: int, end: int) -> Iterator[int]:
    """Extensions and pictures, each in blocks of up to 255 bytes, the last one empty."""
    while place < end:
        yield place
        file.seek(place)
        head = file.read(10)
        if head[:1] == b";":
            return
        if head[:1] == b"!":
            place += 2
        elif head[:1] == b"," and len(head) == 10:
            place += 11 + _colours(head[9])
        elif len(head) < 10:
            return  # cut short
        else:
            raise Broken
        while place < end:
            file.seek(place)
            length = int.from_bytes(file.read(1))  # nothing, if the file was cut meanwhile
            place += 1 + length
            if length == 0:
                break


def holds_a_picture(packet: bytes) -> bool:
    """Whether there is more to a packet of GIF than the comments that may follow the last picture."""
    if not packet.startswith(b"!"):
        return True
    return any(packet[place : place + 1] == b"," for place in _gif(BytesIO(packet), 0, len(packet)))


def _colours(flags: int) -> int:
    """Bytes of a table of colours."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0
