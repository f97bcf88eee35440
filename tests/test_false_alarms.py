"""Whole files such as editors, recorders and cameras write are not called bad."""

import errno
import struct

import av
import numpy as np
import pytest
from media_files import read_numbers, write_numbered
from small_files import small_file

from tubelet.media import decoder, health
from tubelet.media.chain import broken_at
from tubelet.media.health import examine
from tubelet.media.reader import read_frames

COUNT = 20


def chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content


def riff_of_size(data: bytes, size: int) -> bytes:
    return data[:4] + struct.pack("<I", size) + data[8:]


def with_data_size(size: int) -> bytes:
    """As programs that write to a pipe: they do not know how long the sound will be."""
    data = small_file("pcm.wav")
    place = data.index(b"data") + 4
    return riff_of_size(data[:place] + struct.pack("<I", size) + data[place + 4 :], size + 36)


def segment(mark: int, content: bytes) -> bytes:
    return bytes([0xFF, mark]) + struct.pack(">H", len(content) + 2) + content


def avi_with(extra: bytes) -> bytes:
    data = small_file("mjpeg.avi") + extra
    return riff_of_size(data, len(data) - 8)


def avi_without_padding() -> bytes:
    data = small_file("mjpeg.avi")
    start = data.index(b"movi") + 4
    packets, place = b"", start
    while data[place : place + 4] == b"00dc":
        length = struct.unpack("<I", data[place + 4 : place + 8])[0]
        packets += data[place : place + 8 + length]
        place += 8 + length + length % 2
    assert len(packets) < place - start
    head = data[: start - 8] + struct.pack("<I", len(packets) + 4) + b"movi"
    return riff_of_size(head + packets, len(head + packets) - 8)


def flv_with_lengths(more: int, extra: bytes = b"") -> bytes:
    """The length behind each tag, counted in another way."""
    data = small_file("h264.flv")
    made, place = data[:13], 13
    while place < len(data):
        length = int.from_bytes(data[place + 1 : place + 4])
        made += data[place : place + 11 + length] + (length + more).to_bytes(4)
        place += 15 + length
    return made + extra


WHOLE = {
    "words.avi": lambda: avi_with(chunk(b"_PMX", b"<x:xmpmeta/>" * 20) + chunk(b"DISP", b"\1\0\0\0title\0")),
    "unpadded.avi": avi_without_padding,
    "length.flv": lambda: flv_with_lengths(0),
    "length-10.flv": lambda: flv_with_lengths(10),
    "other-tag.flv": lambda: flv_with_lengths(11, b"\x0f\0\0\5" + bytes(7) + b"hello" + (16).to_bytes(4)),
    "comment.gif": lambda: small_file("plain.gif")[:-1] + b"!\xfe\5hello\0;",
    "trailing.png": lambda: small_file("png.png") + b"the screenshot before it was cropped" * 9,
    "filled.jpg": lambda: b"\xff\xd8\xff\xff\xff" + small_file("jpeg.jpg")[2:],
    "filled-twice.jpg": lambda: b"\xff\xd8\xff\xff" + segment(0xFE, bytes(9)) + b"\xff" + small_file("jpeg.jpg")[2:],
    "sox.wav": lambda: with_data_size(0x7FFFF000),
    "arecord.wav": lambda: with_data_size(0x80000000),
}


@pytest.mark.parametrize("name", WHOLE)
def test_whole(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(WHOLE[name]())
    found = examine(path)
    assert (found.ok, found.code, found.bad_frames, found.message) == (True, "ok", 0, "")
    assert found.frames == 1 or found.kind != "image"


def test_a_page_in_the_middle_of_an_avi_is_damage(tmp_path):
    """Its letters are no names of chunks: these would reach beyond the file."""
    path = write_numbered(tmp_path / "a.avi", COUNT, codec="mjpeg", codec_options={})
    data = bytearray(path.read_bytes())
    middle = data.index(b"00dc", len(data) // 2)
    data[middle : middle + 400] = b"<html><body>not here</body></html>"[:20] * 20
    path.write_bytes(data)
    assert broken_at(str(path)) == middle


def test_a_last_picture_that_stays_for_long_is_no_loss(tmp_path):
    """As in a recording of a screen on which nothing moves at the end."""
    path, again = write_numbered(tmp_path / "a.mp4", COUNT), tmp_path / "b.mkv"
    with av.open(str(path)) as container, av.open(str(again), "w") as copy:
        stream = container.streams.video[0]
        copied = copy.add_stream_from_template(stream)
        packets = [packet for packet in container.demux(stream) if packet.size]
        last = max(packets, key=lambda packet: packet.pts)
        last.duration = round(5 / last.time_base)
        for packet in packets:
            packet.stream = copied
            copy.mux(packet)
    found = examine(again)
    assert (found.code, found.frames, found.bad_spans) == ("ok", COUNT, ())
    assert read_numbers(read_frames(again, np.arange(COUNT) / 25 + 0.02)) == [*range(COUNT)]


def test_a_large_screen_on_which_nothing_moves_is_no_bomb(tmp_path, monkeypatch):
    """A repeated picture takes 25 bytes here, 3 in AV1: what the container spends pays for it, however many follow."""
    path = tmp_path / "a.gif"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("gif", rate=10)
        stream.width, stream.height, stream.pix_fmt = 3840, 2160, "gray"
        frame = av.VideoFrame.from_ndarray(np.zeros((2160, 3840), np.uint8), format="gray")
        for number in range(COUNT):
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        first, *others = [packet.size for packet in container.demux(video=0) if packet.size]
    assert max(others) * decoder.PIXELS_FOR_A_BYTE < 3840 * 2160
    monkeypatch.setattr(decoder, "FREE_PIXELS", 2 * 3840 * 2160 - first * decoder.PIXELS_FOR_A_BYTE)
    assert examine(path).frames == COUNT


def test_an_animated_webp_says_what_it_is(tmp_path):
    path = tmp_path / "a.webp"
    with av.open(str(path), "w", format="webp") as container:
        stream = container.add_stream("libwebp_anim", rate=10)
        stream.width, stream.height, stream.pix_fmt = 80, 48, "yuv420p"
        for shade in (0, 99):
            picture_of_one = av.VideoFrame.from_ndarray(np.full((48, 80, 3), shade, np.uint8))
            container.mux(stream.encode(picture_of_one.reformat(format="yuv420p")))
        container.mux(stream.encode())
    found = examine(path)
    assert (found.code, found.message[:25]) == ("no-decoder", "animated WebP is not read")


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "No such file"), OSError(errno.EIO, "I/O error")])
def test_a_file_that_goes_away_while_it_is_read_does_not_end_the_check(tmp_path, monkeypatch, error):
    path = write_numbered(tmp_path / "a.mkv", COUNT)

    def fail(path):
        raise error

    monkeypatch.setattr(health, "broken_at", fail)
    found = examine(path)
    assert (found.ok, found.usable, found.code) == (False, False, "unreadable")
    assert found.message == f"it cannot be read to its end ({error.strerror}). Check the path and the disk."
