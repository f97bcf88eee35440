"""What a file says of itself in its first bytes and its outermost boxes: read without a decoder, believed with care."""

import codecs
import struct
from collections.abc import Iterator
from typing import BinaryIO

HEAD_BYTES = 1 << 16
_PICTURES = (
    b"\x89PNG",
    b"\xff\xd8\xff",
    b"GIF8",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"RIFF",
    b"P1",
    b"P2",
    b"P3",
    b"P4",
    b"P5",
    b"P6",
)
_SIGNATURES = (
    *(b"\x1aE\xdf\xa3", b"RIFF", b"FORM", b"OggS", b"fLaC", b"FLV", b"ID3"),
    *(b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", b"\0\0\1\xba", b"\0\0\1\xb3"),  # ASF, MPEG programs, MPEG video
    *_PICTURES,
)
_MP4_BOXES = (b"ftyp", b"styp", b"moov", b"mdat", b"moof", b"sidx", b"free", b"skip", b"wide")
_PLAYLISTS = (
    b"#extm3u",
    b"ffconcat",
    b"v=0\r",
    b"v=0\n",
    b"[playlist]",
    b"[reference]",
    b"<asx",
    b"<smil",
    b"rtsptext",
)
_TRANSPORT = (0, 188, 376)  # where MPEG's transport packets start, each with a G
_MOST_BOXES = 1000  # a file of nothing but empty boxes must not keep us


def is_playlist(head: bytes) -> bool:
    """A list of other files, or a script that opens them."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return text.startswith(_PLAYLISTS) or (text.startswith((b"<?xml", b"<mpd")) and b"<mpd" in text)


def is_text(head: bytes) -> bool:
    try:
        letters = codecs.getincrementaldecoder("utf-8")().decode(head)  # the last letter may be cut
    except UnicodeDecodeError:
        return False
    return all(letter.isprintable() or letter in "\t\n\r\f\x1b\ufeff" for letter in letters)


def starts_like_media(head: bytes) -> bool:
    is_transport = len(head) > _TRANSPORT[-1] and all(head[place] == ord("G") for place in _TRANSPORT)
    return head.startswith(_SIGNATURES) or is_mp4(head) or is_transport


def starts_like_a_picture(head: bytes) -> bool:
    return head.startswith(_PICTURES)


def is_mp4(head: bytes) -> bool:
    return head[4:8] in _MP4_BOXES


def lacks_moov(file: BinaryIO) -> bool:
    """Whether this is an MP4 or QuickTime file without its table of contents, which is written last as a rule."""
    return is_mp4(_from(file, 0, 8)) and b"moov" not in _box_names(file)


def stated_size(head: bytes) -> tuple[int, int]:
    """(height, width) that a PNG, GIF, BMP or JPEG claims to have; (0, 0) for others."""
    if head.startswith(b"\x89PNG") and len(head) >= 24:
        width, height = struct.unpack_from(">II", head, 16)
    elif head.startswith(b"GIF8") and len(head) >= 10:
        width, height = struct.unpack_from("<HH", head, 6)
    elif head.startswith(b"BM") and len(head) >= 26:
        width, height = map(abs, struct.unpack_from("<ii", head, 18))  # a height below 0: from the top down
    elif head.startswith(b"\xff\xd8"):
        height, width = _jpeg_size(head)
    else:
        return 0, 0
    return height, width


def _jpeg_size(head: bytes) -> tuple[int, int]:
    place = 2
    while place + 9 <= len(head) and head[place] == 0xFF:
        if 0xC0 <= head[place + 1] <= 0xCF and head[place + 1] not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", head, place + 5)
            return height, width
        place += 2 + int.from_bytes(head[place + 2 : place + 4])
    return 0, 0


def _box_names(file: BinaryIO) -> Iterator[bytes]:
    """The names of the outermost boxes of MP4."""
    place = 0
    for _ in range(_MOST_BOXES):
        head = _from(file, place, 16)
        if len(head) < 8:
            return
        length, name = struct.unpack(">I4s", head[:8])
        length = int.from_bytes(head[8:]) if length == 1 else length
        yield name
        if length < 8:  # 0: it goes on to the end of the file
            return
        place += length


def _from(file: BinaryIO, place: int, size: int) -> bytes:
    file.seek(place)
    return file.read(size)
