"""Whether the pieces of a file follow one another from its start to its end: no decoder, only their heads are read.

A demuxer steps over what it cannot make sense of without a word, and with it over frames. Matroska and AVI are chains:
each piece says how long it is, and the next one begins there. Zeroes within one piece break no chain.
"""

import os
import re
from collections.abc import Iterator
from typing import BinaryIO

from tubelet.media.bytes import open_bytes
from tubelet.media.sniff import ebml_number, read_at

_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675
_IN_SEGMENT = {0x114D9B74, 0x1549A966, 0x1654AE6B, _CLUSTER, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367}
_BLOCK, _GROUP = 0xA3, 0xA0
_IN_CLUSTER = {0xE7, _BLOCK, _GROUP, 0xAB, 0xA7, 0x5854, 0xAF}
_KNOWN = {0x1A45DFA3, _SEGMENT, 0xEC, 0xBF} | _IN_SEGMENT | _IN_CLUSTER
_IN_MOVI = re.compile(rb"\d\d(dc|db|wb|pc|tx)|ix\d\d|JUNK|LIST")
_IN_AVI = {b"RIFF", b"LIST", b"JUNK", b"idx1", b"indx"}
_CHUNK_NAME = re.compile(rb"[ -~]{4}")


class Broken(Exception):
    """The next piece does not begin where the one before it says."""


def broken_at(path: str) -> int | None:
    """The byte at which the chain of a file breaks; None where it holds, or the file is of another kind.

    A file that merely ends too soon is not broken.
    """
    with open_bytes(path) as file:
        head, size = file.read(16), file.seek(0, os.SEEK_END)
        if head.startswith(b"\x1aE\xdf\xa3"):
            walk = _matroska(file, 0, size)
        elif head.startswith(b"RIFF") and head[8:12] == b"AVI ":
            walk = _avi(file, 0, size)
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
        head = read_at(file, place, 12)
        kind, kind_bytes = ebml_number(head, 0, keep_mark=True)
        length, length_bytes = ebml_number(head, kind_bytes)
        if len(head) < 12 and not (kind_bytes and length_bytes):
            return  # cut short
        is_known = kind in _KNOWN
        if is_known:
            yield place
            if _is_of_no_track(kind, head[kind_bytes + length_bytes :]):
                raise Broken
        elif not was_known or not 0 < kind_bytes <= 4 or length_bytes == 0:  # a kind of a later version stands alone
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
        head = read_at(file, place, 12)
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
            place += not _CHUNK_NAME.fullmatch(read_at(file, place, 4))
