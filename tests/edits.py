"""Ways to break a media file, or to make it lie: bytes in, bytes out."""

import struct
from fractions import Fraction

import numpy as np
from small_files import FRAMES, small_file, sound, video


def cut(name: str, share: float) -> bytes:
    content = small_file(name)
    return content[: round(len(content) * share)]


def zeroed(name: str, start: float, end: float) -> bytes:
    content = bytearray(small_file(name))
    first, last = round(len(content) * start), round(len(content) * end)
    content[first:last] = bytes(last - first)
    return bytes(content)


def put(name: str, after: bytes, offset: int, layout: str, *values: float) -> bytes:
    """Writes over what stands `offset` bytes after the start of a mark."""
    content = bytearray(small_file(name))
    struct.pack_into(layout, content, content.index(after) + offset, *values)
    return bytes(content)


def swapped(name: str, old: bytes, new: bytes) -> bytes:
    content = small_file(name)
    assert old in content
    assert len(old) == len(new)
    return content.replace(old, new)


def within(name: str, mark: bytes, offset: int = 4) -> bytes:
    """Cut so many bytes after the start of a mark."""
    content = small_file(name)
    return content[: content.index(mark) + offset]


def without_packets(name: str) -> bytes:
    """The head of a file in fragments: a video stream, and not one packet."""
    content = small_file(name)
    return content[: content.index(b"moof") - 4]


def without_pixels(name: str, mark: bytes) -> bytes:
    """Zeroes from the first mark on, all but those at its side."""
    content = small_file(name)
    place = content.index(mark) + len(mark) + 16
    return content[:place] + bytes(len(content) - place)


def flv_with_size(height: int, width: int) -> bytes:
    """The head of the first picture says another size: 16 bits a side in the place of 8."""
    content = small_file("flv1.flv")
    tag = content.index(b"\x09", 13)
    while content[tag + 11] & 15 != 2:  # the codec, Sorenson H.263
        tag = content.index(b"\x09", tag + 1)
    length = int.from_bytes(content[tag + 1 : tag + 4])
    bits = f"{int.from_bytes(content[tag + 12 : tag + 11 + length]):0{8 * (length - 1)}b}"
    assert bits[30:33] == "000"
    bits = bits[:30] + "001" + f"{width:016b}{height:016b}" + bits[49:]
    picture = int(bits, 2).to_bytes(length + 1)
    head = content[tag : tag + 1] + (length + 2).to_bytes(3) + content[tag + 4 : tag + 12]
    return content[:tag] + head + picture + (length + 13).to_bytes(4) + content[tag + 11 + length + 4 :]


def tagged_with(words: bytes) -> bytes:
    """Sound whose title is these bytes, UTF-8 or not."""
    return sound("a.mp3", "libmp3lame", words={"title": "?" * len(words)}).replace(b"?" * len(words), words)


def random_bytes(size: int) -> bytes:
    return np.random.default_rng(0).bytes(size)


def two_sizes() -> bytes:
    """The picture grows in mid-stream."""
    at_once = {"bf": "0", "tune": "zerolatency", "threads": "1"}
    return b"".join(video("a.h264", codec_options=at_once, height=side, width=2 * side) for side in (48, 96))


def several_streams() -> bytes:
    """An MP4 of two video streams: the boxes of the second track are those of the first."""
    content = small_file("h264.mp4")
    track = content.index(b"trak") - 4
    length = int.from_bytes(content[track : track + 4])
    again = bytearray(content[track : track + length])
    again[again.index(b"tkhd") + 19] = 2  # its number
    moov = content.index(b"moov") - 4
    size = int.from_bytes(content[moov : moov + 4]) + length
    return content[:moov] + size.to_bytes(4) + content[moov + 4 : track + length] + again + content[track + length :]


def at_odd_times() -> bytes:
    ticks = np.cumsum([0, 40, 7, 300, 40, 1, 90, 40, 500, 3, 40, 80]).tolist()
    return video("a.mkv", frames=FRAMES, ticks=ticks, tick_seconds=Fraction(1, 1000))
