"""What bytes alone tell of a file, against files of every container."""

import io
import struct

import pytest
from hanging import ending
from small_files import PICTURES, SOUNDS, VIDEOS, picture, png_of_one_colour, small_file

from tubelet.media import sniff
from tubelet.media.health import examine
from tubelet.media.truncation import is_cut

ALL = [*VIDEOS, *PICTURES, *SOUNDS]
WITHOUT_A_MARK = {
    "h264.h264",
    "aac.aac",
    "rare.au",
    "rare.mxf",
    "rare.nut",
    "rare.ivf",
    "rare.swf",
    "targa.tga",
}


@pytest.mark.parametrize("name", ALL)
def test_media_is_no_text_no_playlist_and_is_known_by_its_start(name):
    head = small_file(name)
    assert not sniff.is_text(head)
    assert not sniff.is_playlist(head)
    assert sniff.starts_like_media(head) == (name not in WITHOUT_A_MARK)
    assert sniff.is_mp4(head) == (name.rsplit(".")[-1] in ("mp4", "mov", "m4v", "3gp", "m4a"))
    assert not sniff.lacks_moov(io.BytesIO(head))


@pytest.mark.parametrize("text", ["hello", "# Überschrift\n", "\ufeffhello", "日本" * 9, "\x1b[31mred"])
def test_text(text):
    assert sniff.is_text(text.encode())
    assert sniff.is_text(text.encode()[: len(text.encode()) // 2]), "also where the last letter is cut"
    assert not sniff.is_text(text.encode() + b"\0")
    assert not sniff.is_text(text.encode() + b"\xff")


def test_playlists_by_content():
    for head in (
        b"#EXTM3U\n",
        b"\xef\xbb\xbf#EXTM3U",
        b"\n\n#extm3u",
        b"ffconcat version 1.0",
        b"v=0\r\no=-",
        b"<MPD>",
    ):
        assert sniff.is_playlist(head)
    for head in (b"#EXT", b"<?xml version='1.0'?><html>", b"v=01", b"", b"RIFF#EXTM3U"):
        assert not sniff.is_playlist(head)


@pytest.mark.parametrize("name", [name for name in ALL if sniff.is_mp4(small_file(name))])
def test_a_moov_is_found_wherever_it_stands(name):
    whole = small_file(name)
    moov = whole.index(b"moov") - 4
    length = int.from_bytes(whole[moov : moov + 4])
    assert sniff.lacks_moov(io.BytesIO(whole[:moov] + whole[moov + length :]))
    assert sniff.lacks_moov(io.BytesIO(whole[:moov]))
    large = struct.pack(">I4sQ", 1, b"free", 16 + 5) + bytes(5)  # a length of 64 bits
    assert not sniff.lacks_moov(io.BytesIO(whole[:8] + whole[8:moov] + large + whole[moov:]))


def test_a_file_of_empty_boxes_does_not_keep_us():
    with ending():
        assert sniff.lacks_moov(io.BytesIO(struct.pack(">I4s", 8, b"free") * 10**6))


@pytest.mark.parametrize(("name", "mode"), [("a.png", "rgb24"), ("a.bmp", "bgr24"), ("a.jpg", "yuvj420p")])
def test_the_size_a_picture_states(name, mode):
    codec = {"jpg": "mjpeg"}.get(name[2:], name[2:])
    assert sniff.stated_size(picture(name, codec, mode, (30, 70))) == (30, 70)
    assert sniff.stated_size(picture(name, codec, mode, (30, 70))[:12]) == (0, 0)


def test_the_size_stands_behind_other_parts_of_a_photograph():
    jpeg = picture("a.jpg", "mjpeg", "yuvj420p", (30, 70))
    exif = b"Exif\0\0" + bytes(5000)
    assert sniff.stated_size(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]) == (30, 70)
    assert sniff.stated_size(jpeg[:2] + b"\xff\xe1\0\0" + bytes(100)) == (0, 0)
    assert sniff.stated_size(small_file("plain.gif")) == (48, 64)
    assert sniff.stated_size(small_file("h264.mp4")) == (0, 0)
    assert sniff.stated_size(png_of_one_colour(9)) == (9, 9)


@pytest.mark.parametrize("name", ["jpeg.jpg", "plain.gif", "webp.webp"])
def test_pictures_have_an_end_and_may_be_written_on_behind_it(tmp_path, name):
    path, whole = tmp_path / name, small_file(name)
    for more in (b"", b"\0" * 9, b"camera" * 100):
        path.write_bytes(whole + more)
        assert not is_cut(str(path))
    for share in (0.3, 0.7, 0.95):
        path.write_bytes(whole[: int(len(whole) * share)])
        assert is_cut(str(path))


def test_the_end_of_the_preview_is_not_the_end_of_the_photograph(tmp_path):
    jpeg = small_file("jpeg.jpg")
    exif = b"Exif\0\0" + jpeg
    photograph = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]
    (tmp_path / "a.jpg").write_bytes(photograph)
    assert not is_cut(str(tmp_path / "a.jpg"))
    (tmp_path / "a.jpg").write_bytes(photograph[:-10])
    assert is_cut(str(tmp_path / "a.jpg"))


@pytest.mark.parametrize("length", [2**63, 2**64 - 5])
def test_a_box_longer_than_any_disk(tmp_path, length):
    start = struct.pack(">I4s8s", 16, b"ftyp", b"isom") + struct.pack(">I4sQ", 1, b"mdat", length)
    (tmp_path / "a.mp4").write_bytes(start + bytes(200))
    assert examine(tmp_path / "a.mp4").code == "no-moov"
    assert is_cut(str(tmp_path / "a.mp4"))
