"""The kind and the size of a file by its first bytes and its outermost boxes: read without a decoder."""

import codecs
import os
import struct
from collections.abc import Iterator
from io import BytesIO
from typing import BinaryIO

HEAD_BYTES = 1 << 16
PICTURES = (
    *(b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"RIFF"),
    *(b"P%d" % number for number in range(1, 7)),  # PBM, PGM, PPM
)
_SIGNATURES = (
    *(b"\x1aE\xdf\xa3", b"RIFF", b"FORM", b"OggS", b"fLaC", b"FLV", b"ID3"),
    *(b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", b"\0\0\1\xba", b"\0\0\1\xb3"),  # Windows Media, MPEG programs, MPEG video
    *PICTURES,
)
MP4_BOXES = (b"ftyp", b"styp", b"moov", b"mdat", b"moof", b"sidx", b"free", b"skip", b"wide")
_PLAYLISTS = (
    *(b"#extm3u", b"ffconcat", b"[playlist]", b"[reference]", b"<asx", b"<smil"),
    *(b"v=0\r", b"v=0\n", b"rtsptext"),  # sessions
)
_TRANSPORT = (0, 188, 376)  # where MPEG's transport packets start, each with a G
_AVIF, _HEIC = (b"avif", b"avis"), (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
PICTURE_BRANDS = {brand.decode() for brand in _AVIF + _HEIC}
_JPEG_XL = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")
_MOST_SEGMENTS = 1000
_MOST_BOXES = 100_000  # a file of nothing but empty boxes must not keep us


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


def is_mp4(head: bytes) -> bool:
    return head[4:8] in MP4_BOXES


def lacks_moov(file: BinaryIO) -> bool:
    """Whether this is an MP4 or QuickTime file without its table of contents, which is written last as a rule."""
    return is_mp4(read_at(file, 0, 8)) and all(name != b"moov" for name, _ in boxes(file))


def unread_picture(file: BinaryIO) -> str:
    """The name of a kind of picture that is not read, whole as it may be; "" for others."""
    head = read_at(file, 0, 12)
    if head[4:8] == b"ftyp" and head[8:12] in _AVIF + _HEIC:
        return "AVIF" if head[8:12] in _AVIF else "HEIC"
    if head.startswith((b"II+\0", b"MM\0+")):
        return "BigTIFF"
    return "JPEG XL" if head.startswith(_JPEG_XL) else ""


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
    for _, segment in jpeg_segments(BytesIO(head)):
        if len(segment) == 9 and 0xC0 <= segment[1] <= 0xCF and segment[1] not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", segment, 5)
            return height, width
    return 0, 0


def jpeg_segments(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """The segments of a JPEG up to its pixels, or to what is none: the place and the first 9 bytes of each."""
    place = 2
    for _ in range(_MOST_SEGMENTS):
        head = read_at(file, place, 9)
        yield place, head
        if head[:2] == b"\xff\xff":  # one to fill up
            place += 1
        elif head[:1] != b"\xff" or head[1:2] == b"\xda" or len(head) < 4:
            return
        else:
            place += 2 + int.from_bytes(head[2:4])


def end_of_sound(file: BinaryIO) -> int:
    """The byte at which the sound of an MP3 ends; behind it may stand tags of three kinds, one after the other."""
    end = file.seek(0, os.SEEK_END)
    while True:
        tail, tag = read_at(file, max(0, end - 128), min(128, end)), 0
        if len(tail) == 128 and tail.startswith(b"TAG"):  # ID3, the first version
            tag = 128
        elif tail.endswith(b"LYRICS200") and tail[-15:-9].isdigit():
            tag = int(tail[-15:-9]) + 15
        elif tail[-32:-24] == b"APETAGEX":
            size, flags = struct.unpack("<I4xI", tail[-20:-8])
            tag = size + (32 if flags >> 31 else 0)  # the size is without the head, which may be left out
        if not 0 < tag < end:
            return end
        end -= tag


def holds_a_picture(packet: bytes) -> bool:
    """Whether there is more to a packet of GIF than the comments that may follow the last picture: extensions, each in
    blocks that begin with their length, the last one empty."""
    place = 0
    while packet[place : place + 1] == b"!":
        place += 2
        while place < len(packet) and packet[place]:
            place += 1 + packet[place]
        place += 1
    return place == 0 or packet[place : place + 1] == b","


def boxes(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """The outermost boxes of MP4: the name of each, and the byte that follows it; 0 where it does not say how long it
    is, as one that goes on to the end of the file."""
    place, end = 0, file.seek(0, os.SEEK_END)
    for _ in range(_MOST_BOXES):
        head = read_at(file, place, 16) if place < end else b""  # a place can be too far for any disk
        if len(head) < 8:
            return
        length, name = struct.unpack(">I4s", head[:8])
        length = int.from_bytes(head[8:]) if length == 1 and len(head) == 16 else length
        yield name, place + length if length >= 8 else 0
        if length < 8:
            return
        place += length


def ebml_number(data: bytes, place: int, *, keep_mark: bool = False) -> tuple[int, int]:
    """A number of Matroska: (value, bytes it takes; 0 where there is none). keep_mark: with the bit that tells its
    length, as the kinds of elements are known."""
    count = 9 - data[place].bit_length() if place < len(data) and data[place] else 0
    if count == 0 or place + count > len(data):
        return 0, 0
    value = int.from_bytes(data[place : place + count])
    return value if keep_mark else value & ((1 << 7 * count) - 1), count


def read_at(file: BinaryIO, place: int, size: int = -1) -> bytes:
    file.seek(place)
    return file.read(size)
