"""Whole files such as editors, recorders and cameras write are not called bad."""

import errno
import struct
from io import BytesIO

import av
import numpy as np
import pytest
from media_files import read_numbers, write_numbered
from PIL import Image
from small_files import small_file

from tubelet.media import decoder, health
from tubelet.media.health import examine
from tubelet.media.reader import MediaError, read_frames
from tubelet.media.structure import broken_at

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


def ape(*items: tuple[bytes, bytes], head: bool = True) -> bytes:
    """A tag behind the sound, of (name, value)."""
    body = b"".join(struct.pack("<II", len(value), 0) + name + b"\0" + value for name, value in items)
    counts = 2000, len(body) + 32, len(items)

    def end(flags: int) -> bytes:
        return struct.pack("<8s4I8x", b"APETAGEX", *counts, flags)

    return (end(5 << 29) if head else b"") + body + end(head << 31)


def lyrics(words: bytes) -> bytes:
    return b"LYRICSBEGIN" + words + b"%06dLYRICS200" % (len(words) + 11)


def mp3_with(extra: bytes) -> bytes:
    return small_file("mp3.mp3") + extra


def bmp(
    bits: int, packing: int, *, header: int = 40, planes: int = 1, claims: int = 0, masks: tuple[int, ...] = ()
) -> bytes:
    """4x3 pixels; `claims` is the size of the file in its own words."""
    row = (4 * bits + 31) // 32 * 4
    info = struct.pack("<IiiHHIIiiII", header, 4, 3, planes, bits, packing, row * 3, 0, 0, 0, 0)
    info = (info + struct.pack(f"<{len(masks)}I", *masks)).ljust(header, b"\0")
    whole = 14 + len(info) + row * 3
    return b"BM" + struct.pack("<IHHI", claims or whole, 0, 0, 14 + len(info)) + info + bytes(range(row * 3))


COVER = bytes(range(256)) * 20 + b"\xff\xfb\x90\x64" + bytes(3000)  # it holds what starts a packet of sound
RGBA = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
WHOLE = {
    "ape.mp3": lambda: mp3_with(ape((b"Title", b"x" * 50))),
    "headless-ape.mp3": lambda: mp3_with(ape((b"Title", b"x" * 300), head=False)),
    "cover-ape.mp3": lambda: mp3_with(ape((b"Cover Art (Front)", COVER))),
    "ape-and-id3.mp3": lambda: mp3_with(ape((b"Cover", COVER), head=False) + b"TAG" + bytes(125)),
    "lyrics.mp3": lambda: mp3_with(lyrics(b"IND0000210" + b"la" * 400) + b"TAG" + bytes(125)),
    "behind.gif": lambda: small_file("plain.gif") + b"<html>what a server added</html>" * 99,
    "size.bmp": lambda: bmp(24, 0, claims=1_000_000),
    "alpha.bmp": lambda: bmp(32, 3, header=124, masks=RGBA),
    "words.avi": lambda: avi_with(chunk(b"_PMX", b"<x:xmpmeta/>" * 20) + chunk(b"DISP", b"\1\0\0\0title\0")),
    "unpadded.avi": avi_without_padding,
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


TURNED = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\6" + bytes(7)
UNREAD = {  # whole as they are
    "planes.bmp": lambda: bmp(24, 0, planes=7),
    "old-alpha.bmp": lambda: bmp(32, 6, masks=RGBA),
    "short-alpha.bmp": lambda: bmp(32, 3, header=52, masks=RGBA[:3]),
    "ten-bits.bmp": lambda: bmp(32, 3, header=108, masks=(0x3FF00000, 0xFFC00, 0x3FF, 0)),
    "jpeg.bmp": lambda: bmp(24, 4),
    "lab.tif": lambda: saved("LAB", "tiff"),
    "lzma.tif": lambda: saved("RGB", "tiff", compression="lzma"),
    "float.tif": lambda: saved("F", "tiff"),
    "big.tif": lambda: saved("RGB", "tiff", big_tiff=True),
    "a.avif": lambda: saved("RGB", "avif"),
    "turned.avif": lambda: saved(
        "RGB", "avif", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\6" + bytes(7)
    ),
    "moving.avif": lambda: saved("RGB", "avif", save_all=True, append_images=[Image.new("RGB", (40, 30), "red")]),
    "a.heic": lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100),
    "naked.jxl": lambda: b"\xff\x0a" + bytes(range(200)),
    "boxed.jxl": lambda: b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl \0\0\0\0jxl " + bytes(100),
}


def saved(mode: str, form: str, **how) -> bytes:
    file, picture = BytesIO(), Image.linear_gradient("L").resize((40, 30))
    (picture if mode == "F" else picture.convert("RGB")).convert(mode).save(file, form, **how)
    return file.getvalue()


@pytest.mark.parametrize("name", UNREAD)
def test_a_picture_that_is_not_read_is_not_called_broken(name, tmp_path):
    for place in (name, f"{name}.png", f"{name}.mp4"):
        path = tmp_path / place
        path.write_bytes(UNREAD[name]())
        with pytest.raises(MediaError) as caught:
            read_frames(path, np.zeros(1))
        assert (examine(path).code, caught.value.code) == ("no-decoder", "no-decoder")
        assert "Convert it" in examine(path).message


@pytest.mark.parametrize("how", [{}, {"compression": "tiff_deflate"}])
def test_a_tiff_that_is_damaged_is_not_whole(how, tmp_path):
    data = saved("RGB", "tiff", **how)
    (tmp_path / "a.tif").write_bytes(data)
    assert examine(tmp_path / "a.tif").ok
    for size in (8, 40, len(data) // 2):
        (tmp_path / "a.tif").write_bytes(data[:size])
        assert not examine(tmp_path / "a.tif").usable


@pytest.mark.parametrize("kept", [0.5, 0.9, 0.99])
@pytest.mark.parametrize(
    "name", ["plain.gif", "png.png", "grey16.png", "clear.png", "bmp.bmp", "jpeg.jpg", "webp.webp"]
)
def test_a_picture_that_is_cut_short_is_not_whole(name, kept, tmp_path):
    """By the decoder itself, or by its mark of the end."""
    data = small_file(name)
    (tmp_path / name).write_bytes(data[: min(int(len(data) * kept), len(data) - 40)])
    found = examine(tmp_path / name)
    assert not found.ok
    assert found.code == "truncated" or not found.usable


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "No such file"), OSError(errno.EIO, "I/O error")])
def test_a_file_that_goes_away_while_it_is_read_does_not_end_the_check(tmp_path, monkeypatch, error):
    path = write_numbered(tmp_path / "a.mkv", COUNT)

    def fail(path):
        raise error

    monkeypatch.setattr(health, "broken_at", fail)
    found = examine(path)
    assert (found.ok, found.usable, found.code) == (False, False, "unreadable")
    assert found.message == f"it cannot be read to its end ({error.strerror}). Check the path and the disk."
