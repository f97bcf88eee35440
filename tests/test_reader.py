"""The reader gives the frame on screen at a time, upright, from every container; and one clear error else."""

import os
import pickle
import re
import struct
import subprocess
import sys
import time
import zlib
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from media_files import numbered_frames, read_number, read_numbers, write_numbered
from naming import naming

from tubelet.media import decoder, formats, index_cache, reader, timeline
from tubelet.media.reader import MediaError, av, cover_size, index, read_frames
from tubelet.media.writer import write_video

X264_OPEN = {"x264-params": "open-gop=1:keyint=12:bframes=2:scenecut=0:threads=1"}
VP9 = {"g": "12", "deadline": "realtime", "cpu-used": "8"}
X265 = {"preset": "ultrafast", "x265-params": "keyint=12:open-gop=1:pools=1:frame-threads=1:log-level=none"}
GOP = {"g": "12", "bf": "2"}
PAIRS = {
    "h264.mp4": ("libx264", None, {}),
    "h264.mov": ("libx264", None, {}),
    "h264.mkv": ("libx264", None, {}),
    "h264.avi": ("libx264", None, {}),
    "h264.flv": ("libx264", None, {}),
    "h264.ts": ("libx264", None, {}),
    "h264.h264": ("libx264", None, {}),
    "fragments.mp4": ("libx264", None, {"movflags": "frag_keyframe+empty_moov"}),
    "open.mp4": ("libx264", X264_OPEN, {}),
    "open.mkv": ("libx264", X264_OPEN, {}),
    "hevc.mp4": ("libx265", X265, {}),
    "vp9.webm": ("libvpx-vp9", VP9, {}),
    "vp9.mp4": ("libvpx-vp9", VP9, {}),
    "mjpeg.avi": ("mjpeg", {}, {}),
    "mpeg4.avi": ("mpeg4", GOP, {}),
    "mpeg4.mp4": ("mpeg4", GOP, {}),
    "mpeg2.mpg": ("mpeg2video", GOP, {}),
    "mpeg2.ts": ("mpeg2video", GOP, {}),
    "mpeg1.mpg": ("mpeg1video", GOP, {}),
    "wmv2.wmv": ("wmv2", {"g": "12"}, {}),
    "ffv1.mkv": ("ffv1", {}, {}),
    "plain.gif": ("gif", {}, {}),
}


def sequential(path) -> np.ndarray:
    """Every frame in the decoder's own order: the plainest way to read an undamaged file."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize("name", PAIRS)
def test_any_frame_is_the_frame_of_the_sequential_decode(tmp_path, name):
    codec, codec_options, container_options = PAIRS[name]
    path = write_numbered(
        tmp_path / name, 60, codec=codec, codec_options=codec_options, container_options=container_options
    )
    found = index(path)
    assert (found.kind, len(found.times), found.height, found.width) == ("video", 60, 48, 80)
    assert found.times[0] == 0
    assert (np.diff(found.times) > 0).all()
    assert found.duration_seconds == pytest.approx(2.4, abs=0.05)
    assert read_numbers(read_frames(path, found.times)) == list(range(60))
    every = sequential(path)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    draws = [rng.integers(0, 60, size) for size in (1, 1, 1, 1, 2, 2, 2, 3, 5)]
    for wanted in [*draws, np.array([59]), np.array([13, 59, 13, 0])]:
        got = read_frames(path, found.times[wanted])
        assert read_numbers(got) == wanted.tolist()
        assert (np.abs(got.astype(int) - every[wanted]) <= 3).all(), "pixels as the sequential decode has them"


@pytest.mark.parametrize("name", ["h264.mp4", "h264.mkv", "vp9.webm", "mjpeg.avi", "hevc.mp4"])
def test_where_seeking_works_most_of_the_file_is_skipped(tmp_path, name, monkeypatch):
    codec, codec_options, _ = PAIRS[name]
    path = write_numbered(tmp_path / name, 240, codec=codec, codec_options=codec_options)
    found = index(path)
    read, packets = [], reader.read_packets

    def counting(container, stream):
        for packet in packets(container, stream):
            read.append(packet.pts)
            yield packet

    monkeypatch.setattr(reader, "read_packets", counting)
    assert read_numbers(read_frames(path, found.times[[100, 230]])) == [100, 230]
    assert len(read) <= 2 * 20


@pytest.mark.parametrize("name", ["h264.ts", "mpeg2.mpg", "mpeg2.ts", "mpeg1.mpg", "h264.h264", "plain.gif"])
def test_where_seeking_does_not_work_it_is_not_tried(tmp_path, name):
    codec, codec_options, _ = PAIRS[name]
    path = write_numbered(tmp_path / name, 60, codec=codec, codec_options=codec_options)
    assert index(path).linear_only


X264 = {
    "pyramid": {"bf": "3", "x264-params": "b-pyramid=normal:keyint=30:scenecut=0:threads=1"},
    "strict pyramid": {"bf": "7", "x264-params": "b-pyramid=strict:b-adapt=0:keyint=30:scenecut=0:threads=1"},
    "open": X264_OPEN,
    "interlaced": {"bf": "3", "x264-params": "interlaced=1:keyint=30:scenecut=0:threads=1"},
    "weighted": {"bf": "3", "x264-params": "weightp=2:weightb=1:ref=4:keyint=30:scenecut=0:threads=1"},
    "refreshed": {"bf": "3", "x264-params": "intra-refresh=1:keyint=30:scenecut=0:threads=1"},
}


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("options", X264.values(), ids=X264)
def test_what_no_frame_refers_to_is_passed_over_and_nothing_else(tmp_path, monkeypatch, options, suffix):
    """Few frames are bit for bit those that come when every frame is decoded; fewer leave the decoder."""
    path = write_numbered(tmp_path / f"a.{suffix}", 60, codec_options=options)
    found, passed, decode = index(path), [], reader.decode
    every = read_frames(path, found.times)
    assert read_numbers(every) == list(range(60))

    def counting(packets, stream):
        for frame in decode(packets, stream):
            passed.append(frame)
            yield frame

    monkeypatch.setattr(reader, "decode", counting)
    rng = np.random.default_rng(3)
    for wanted in [np.array([59]), np.array([29, 31]), *(np.sort(rng.choice(60, 4, replace=False)) for _ in range(6))]:
        assert (read_frames(path, found.times[wanted]) == every[wanted]).all()
    passed.clear()
    read_frames(path, found.times[[10]])
    (run,) = timeline.runs(found, [10])
    assert len(passed) < (run.last - run.first + 1) * 0.8


def test_frames_of_other_codecs_are_not_passed_over(tmp_path):
    assert index(write_numbered(tmp_path / "a.mp4", 12)).tells_references
    path = write_numbered(tmp_path / "b.mp4", 12, codec="libx265", codec_options=X265)
    assert not index(path).tells_references, "a layer above may refer to what HEVC calls unreferenced"


class LateContainer:
    """Seeks land some milliseconds late, or between key frames, as in MPEG streams and fragmented MP4."""

    def __init__(self, container, late_ms, any_frame):
        self.container, self.late_ms, self.any_frame = container, late_ms, any_frame

    def __getattr__(self, name):
        return getattr(self.container, name)

    def seek(self, ticks, *, stream):
        self.container.seek(ticks + self.late_ms, stream=stream, any_frame=self.any_frame)


@pytest.mark.parametrize(
    ("codec", "codec_options"),
    [
        ("libx264", {**GOP, "sc_threshold": "0"}),
        ("libx264", X264_OPEN),
        ("mpeg4", {**GOP, "sc_threshold": "1000000000"}),
    ],
)
@pytest.mark.parametrize(
    ("late_ms", "any_frame", "opened_times"),
    [(0, False, 1), (500, False, 1), (1000, False, 2), (60_000, False, 2), (40, True, 1)],
)
def test_a_late_seek_costs_time_and_never_a_wrong_frame(
    tmp_path, monkeypatch, codec, codec_options, late_ms, any_frame, opened_times
):
    """A group lasts 480 ms: half a second late is mended by one step back, more by reading from the start."""
    path = write_numbered(tmp_path / "a.mkv", 120, codec=codec, codec_options=codec_options)
    times, opened, openings = index(path).times, reader.open_media, []

    @contextmanager
    def opened_late(path):
        with opened(path) as container:
            openings.append(path)
            yield LateContainer(container, late_ms, any_frame)

    monkeypatch.setattr(reader, "open_media", opened_late)
    for wanted in ([36], [45], [46], [47], [50, 106]):
        openings.clear()
        assert read_numbers(read_frames(path, times[wanted])) == wanted
        assert len(openings) == opened_times


@pytest.mark.parametrize("name", ["h264.ts", "mpeg2.ts"])
def test_a_recording_that_starts_in_mid_stream_starts_at_its_first_key_frame(tmp_path, name):
    codec, codec_options, _ = PAIRS[name]
    path = write_numbered(tmp_path / name, 60, codec=codec, codec_options=codec_options)
    data = path.read_bytes()
    path.write_bytes(data[len(data) // 3 // 188 * 188 :])
    found = index(path)
    numbers = read_numbers(read_frames(path, found.times))
    assert numbers == list(range(numbers[0], 60))
    assert 0 < numbers[0] < 40
    assert found.times[0] == 0


@pytest.mark.parametrize(("limit", "second_part"), [(8192 * 8192, [*range(5)]), (13_000, [199] * 5)])
def test_a_size_that_changes_on_the_way(tmp_path, monkeypatch, limit, second_part):
    """Later frames are brought to the size of the first; those beyond the limit of pixels are lost."""
    at_once = {"bf": "0", "tune": "zerolatency"}
    small = write_numbered(tmp_path / "small.h264", 200, codec_options=at_once)
    large = write_numbered(tmp_path / "large.h264", 5, height=96, width=160, codec_options=at_once)
    path = tmp_path / "both.h264"
    path.write_bytes(small.read_bytes() + large.read_bytes())
    monkeypatch.setattr(decoder, "MAX_PIXELS", limit)
    times = index(path).times[-55:]
    if limit == 13_000:
        with pytest.raises(MediaError, match=naming(path, "5 of 15")):
            read_frames(path, times[-15:])
    frames = read_frames(path, times)
    assert frames.shape == (55, 48, 80, 3)
    assert read_numbers(frames) == [*range(150, 200), *second_part]


def test_variable_frame_rate_goes_by_time(tmp_path):
    ticks = np.cumsum(np.random.default_rng(0).integers(5, 400, 40))
    ticks = [int(tick) for tick in ticks - ticks[0]]
    path = write_numbered(tmp_path / "a.mp4", 40, ticks=ticks, tick_seconds=Fraction(1, 1000))
    found = index(path)
    np.testing.assert_allclose(found.times, np.array(ticks) / 1000, atol=1e-6)
    wanted = np.sort(np.random.default_rng(1).uniform(0, found.duration_seconds, 30))
    shown = [max(number for number in range(40) if ticks[number] / 1000 <= time) for time in wanted]
    assert read_numbers(read_frames(path, wanted)) == shown


def test_order_duplicates_and_times_outside_the_file(tmp_path):
    path = write_numbered(tmp_path / "a.mp4", 30)
    times = np.array([9.0, 0.5, -3.0, 0.5, 0.0])
    assert read_numbers(read_frames(path, times)) == [29, 12, 0, 12, 0]
    assert read_frames(path, np.array([])).shape == (0, 48, 80, 3)


def test_one_frame(tmp_path):
    path = write_numbered(tmp_path / "a.mp4", 1)
    assert index(path).times.tolist() == [0.0]
    assert index(path).duration_seconds == pytest.approx(0.04)
    assert read_numbers(read_frames(path, np.array([0.0, 5.0]))) == [0, 0]


def test_frames_hidden_by_an_edit_list_do_not_count(tmp_path):
    path = write_numbered(tmp_path / "a.mp4", 40)
    data = bytearray(path.read_bytes())
    place = data.index(b"elst") + 16  # media time of the first edit, in ticks of 1/12800
    (media_time,) = struct.unpack_from(">i", data, place)
    struct.pack_into(">i", data, place, media_time + 7 * 512)
    path.write_bytes(data)
    found = index(path)
    assert len(found.times) == 33
    assert read_numbers(read_frames(path, found.times[[0, 1, 20, 32]])) == [7, 8, 27, 39]
    assert read_numbers(read_frames(path, found.times[[30]])) == [37]


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotation_and_mirroring_are_applied(tmp_path, degrees, mirrored):
    path = write_numbered(tmp_path / "a.mp4", 30, turn=(degrees, mirrored))
    upright = numbered_frames(30)[[3, 21]]
    # FFmpeg's mark: the picture is turned anticlockwise, then mirrored left to right.
    expected = np.rot90(upright, degrees // 90, axes=(1, 2))
    expected = expected[:, :, ::-1] if mirrored else expected
    found = index(path)
    assert (found.height, found.width) == expected.shape[1:3]
    got = read_frames(path, found.times[[3, 21]])
    assert got.shape == expected.shape
    assert (np.abs(got.astype(int) - expected) > 60).mean() < 0.05  # but for the edges of the blocks
    cover = read_frames(path, found.times[[3]], cover=(20, 20))
    assert cover.shape[1:3] == cover_size(*expected.shape[1:3], (20, 20))


def test_written_rotation_is_read(tmp_path):
    frames = numbered_frames(3)
    write_video(tmp_path / "a.mp4", frames, rotation_degrees=90)
    assert (index(tmp_path / "a.mp4").height, index(tmp_path / "a.mp4").width) == (80, 48)
    back = read_frames(tmp_path / "a.mp4", np.array([0.04]))
    assert read_number(np.rot90(back[0], -1)) == 1


# --- pictures


def write_picture(path, codec, pixel_format):
    with av.open(str(path), "w", format="image2") as container:
        stream = container.add_stream(codec, rate=1)
        stream.width, stream.height, stream.pix_fmt = 80, 48, pixel_format
        frame = av.VideoFrame.from_ndarray(numbered_frames(1, first=77)[0]).reformat(format=pixel_format)
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [
        ("a.png", "png", "rgb24"),
        ("a.jpg", "mjpeg", "yuvj420p"),
        ("a.bmp", "bmp", "bgr24"),
        ("a.tif", "tiff", "rgb24"),
        ("a.webp", "libwebp", "yuv420p"),
        ("a.ppm", "ppm", "rgb24"),
    ],
)
def test_a_picture_is_one_frame(tmp_path, name, codec, pixel_format):
    path = write_picture(tmp_path / name, codec, pixel_format)
    found = index(path)
    assert (found.kind, found.times.tolist(), found.duration_seconds) == ("image", [0.0], 0.0)
    assert (found.height, found.width) == (48, 80)
    assert read_numbers(read_frames(path, np.array([0.0, 1.0]))) == [77, 77]


def test_one_gif_frame_is_a_picture(tmp_path):
    write_numbered(tmp_path / "a.gif", 1, codec="gif", codec_options={})
    assert index(tmp_path / "a.gif").kind == "image"


def test_a_name_that_looks_like_a_row_of_pictures_is_one(tmp_path):
    other = av.VideoFrame.from_ndarray(numbered_frames(1, first=5)[0]).reformat(format="yuvj420p")
    for number in range(3):
        other.save(str(tmp_path / f"{number:03d}.jpg"))
    write_picture(tmp_path / "plain.jpg", "mjpeg", "yuvj420p").rename(tmp_path / "%03d.jpg")
    assert read_numbers(read_frames(tmp_path / "%03d.jpg", np.array([0.0]))) == [77]


# The orientations of the EXIF standard: where the first row and the first column of the stored picture belong.
STORED_FROM_UPRIGHT = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: upright.swapaxes(0, 1)[::-1],
    7: lambda upright: upright.swapaxes(0, 1)[::-1, ::-1],
    8: lambda upright: upright.swapaxes(0, 1)[:, ::-1],
}


@pytest.mark.parametrize("orientation", STORED_FROM_UPRIGHT)
def test_photographs_stand_upright(tmp_path, orientation):
    data = write_picture(tmp_path / "plain.jpg", "mjpeg", "yuvj420p").read_bytes()
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0" + bytes([orientation]) + b"\0" * 7
    path = tmp_path / "a.jpg"
    path.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:])
    upright = read_frames(path, np.array([0.0]))[0]
    assert upright.shape[:2] == (index(path).height, index(path).width)
    assert read_number(STORED_FROM_UPRIGHT[orientation](upright)) == 77


def test_a_profile_of_colours_kills_nobody_and_changes_nothing(tmp_path):
    """With a name, as GIMP and Photoshop write it, PyAV frees it twice: in a process of its own, which may die."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    profile = chunk(b"iCCP", b"Display P3\0\0" + zlib.compress(bytes(range(256)) * 2))
    expected = b""
    for number, form in enumerate(["rgb24", "gray16be", "rgba", "monob", *["rgb24"] * 4]):
        data = write_picture(tmp_path / "plain.png", "png", form).read_bytes()
        exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0" + bytes([number + 1]) + b"\0" * 7
        (tmp_path / "turned.png").write_bytes(data[:33] + chunk(b"eXIf", exif) + data[33:])
        (tmp_path / f"{number}.png").write_bytes(data[:33] + profile + chunk(b"eXIf", exif) + data[33:])
        upright = read_frames(tmp_path / "turned.png", np.zeros(1))
        assert read_number(STORED_FROM_UPRIGHT[number + 1](upright[0])) == 77
        expected += 20 * upright.tobytes()
    reads = (
        "import sys, numpy; from tubelet.media.health import examine; from tubelet.media.reader import read_frames\n"
        "for name in (f'{number}.png' for number in range(8)):\n"
        "    for _ in range(20): sys.stdout.buffer.write(read_frames(name, numpy.zeros(1)).tobytes())\n"
        "    assert examine(name).ok"
    )
    ended = subprocess.run([sys.executable, "-c", reads], cwd=tmp_path, capture_output=True, timeout=200)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert ended.stdout == expected


# --- size


@given(*[st.integers(1, 500)] * 4)
@settings(max_examples=200, deadline=None)
def test_cover_size_just_covers(height, width, tall, wide):
    new_height, new_width = cover_size(height, width, (tall, wide))
    assert new_height >= tall
    assert new_width >= wide
    assert new_height == tall or new_width == wide
    scale = max(Fraction(tall, height), Fraction(wide, width))
    assert abs(new_height - scale * height) <= Fraction(1, 2)
    assert abs(new_width - scale * width) <= Fraction(1, 2)
    assert cover_size(width, height, (wide, tall)) == (new_width, new_height)


@pytest.mark.parametrize(("box", "size"), [((24, 24), (24, 40)), ((48, 160), (96, 160)), ((48, 80), (48, 80))])
def test_frames_cover_the_box(tmp_path, box, size):
    path = write_numbered(tmp_path / "a.mp4", 30)
    frames = read_frames(path, np.array([0.4, 1.0]), cover=box)
    assert frames.shape == (2, *size, 3)
    assert read_numbers(frames) == [10, 25]


def test_scaling_down_averages(tmp_path):
    """Fine stripes become grey; a method that picks pixels would make bands of them."""
    stripes = np.zeros((2, 480, 640, 3), np.uint8)
    stripes[:, :, ::2] = 255
    write_video(tmp_path / "a.mkv", stripes, codec="ffv1")
    small = read_frames(tmp_path / "a.mkv", np.array([0.0]), cover=(120, 120))
    assert small.shape == (1, 120, 160, 3)
    assert small.std() < 12


def test_threads_change_nothing(tmp_path):
    path = write_numbered(tmp_path / "a.mp4", 60)
    times = np.array([0.1, 2.2])
    assert (read_frames(path, times, threads=0) == read_frames(path, times)).all()


# --- damage


def fast_start(tmp_path, count=60):
    return write_numbered(tmp_path / "a.mp4", count, container_options={"movflags": "faststart"})


def test_a_file_cut_short_yields_what_is_there(tmp_path):
    path = fast_start(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 3 // 4])
    found = index(path)
    assert 20 < len(found.times) < 60
    assert found.duration_seconds < 2.4
    numbers = read_numbers(read_frames(path, found.times[:-3]))
    assert numbers == list(range(len(found.times) - 3))
    assert read_numbers(read_frames(path, np.array([99.0])))[0] >= len(found.times) - 4


def test_a_file_cut_before_its_first_frame(tmp_path):
    path = fast_start(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"mdat") + 4])
    check_error(path, "truncated")


def packet_places(path) -> dict[int, tuple[int, int]]:
    """Number of the frame -> (place, size) of its packet in the file, for 25 frames a second."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        return {round(packet.pts * packet.time_base * 25): (packet.pos, packet.size) for packet in packets}


def test_a_damaged_middle_shows_the_last_good_frame(tmp_path):
    path = write_numbered(tmp_path / "a.avi", 40, codec="mjpeg", codec_options={})
    data = bytearray(path.read_bytes())
    places = packet_places(path)
    for number in (17, 18, 19):
        place, size = places[number]
        data[place : place + size] = bytes(size)
    path.write_bytes(data)
    found = index(path)
    expected = [16 if number in (17, 18, 19) else number for number in range(40)]
    assert read_numbers(read_frames(path, found.times)) == expected
    assert read_numbers(read_frames(path, found.times[[18]])) == [16]
    assert read_numbers(read_frames(path, found.times[[20]])) == [20]


def test_damage_between_key_frames_leaves_the_rest_alone(tmp_path):
    path = write_numbered(tmp_path / "a.mp4", 60, codec_options={"g": "12", "bf": "0", "sc_threshold": "0"})
    data = bytearray(path.read_bytes())
    places = packet_places(path)
    for number in range(26, 36):
        place, size = places[number]
        data[place : place + size] = bytes(size)
    path.write_bytes(data)
    times = index(path).times[[*range(60), *range(20), *range(20)]]  # ten of a hundred may be lost
    numbers = read_numbers(read_frames(path, times))
    assert numbers == [*range(26), *[25] * 10, *range(36, 60), *range(20), *range(20)]
    with pytest.raises(MediaError, match=naming(path, "10 of 60", "1.04", "1.40")):
        read_frames(path, index(path).times)


def test_damage_before_the_first_wanted_frame_is_an_error(tmp_path):
    path = write_numbered(tmp_path / "a.avi", 10, codec="mjpeg", codec_options={})
    data = bytearray(path.read_bytes())
    place, size = packet_places(path)[0]
    data[place : place + size] = bytes(size)
    path.write_bytes(data)
    assert read_numbers(read_frames(path, np.array([0.04]))) == [1]
    with pytest.raises(MediaError, match=naming(path, "0.000")) as caught:
        read_frames(path, np.array([0.0]))
    assert caught.value.code == "damaged"


def test_files_glued_together_are_read_in_order(tmp_path):
    parts = [write_numbered(tmp_path / name, 20, codec="mpeg2video", codec_options=GOP) for name in ("a.ts", "b.ts")]
    glued = tmp_path / "glued.ts"
    glued.write_bytes(parts[0].read_bytes() + parts[1].read_bytes())
    found = index(glued)
    assert found.counted
    assert read_numbers(read_frames(glued, found.times)) == [*range(20), *range(20)]


# --- files that are none


def check_error(path, code, *values):
    with pytest.raises(MediaError) as caught:
        read_frames(path, np.array([0.0]))
    assert caught.value.code == code
    assert caught.value.path == str(path)
    assert re.search(naming(*values), str(caught.value))
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty"),
        (b"\x00" * 8, "not-video"),
        (np.random.default_rng(0).bytes(5000), "not-video"),
        (b"not a video\n" * 50, "not-video"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nother.ts\n#EXT-X-ENDLIST\n", "blocked"),
        (b"ffconcat version 1.0\nfile other.mp4\n", "blocked"),
    ],
)
def test_content_that_is_no_video(tmp_path, content, code):
    write_numbered(tmp_path / "other.mp4", 5)
    write_numbered(tmp_path / "other.ts", 5)
    (tmp_path / "a.mp4").write_bytes(content)
    check_error(tmp_path / "a.mp4", code)


def test_text_that_ffmpeg_would_draw_is_none(tmp_path):
    (tmp_path / "notes.nfo").write_text("hello")
    check_error(tmp_path / "notes.nfo", "not-video", "text")


def test_an_mp4_without_its_index(tmp_path):
    path = write_numbered(tmp_path / "a.mp4", 30)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moov")])
    check_error(path, "no-moov")


def test_what_is_no_file(tmp_path):
    check_error(tmp_path, "not-a-file")
    check_error(tmp_path / "nothing.mp4", "missing")
    os.mkfifo(tmp_path / "pipe.mp4")
    check_error(tmp_path / "pipe.mp4", "not-a-file")
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    check_error(tmp_path / "loop.mp4", "missing")
    with pytest.raises(MediaError) as caught:
        index("a\0b.mp4")
    assert caught.value.code == "missing"


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = write_numbered(tmp_path / "a.mp4", 2)

    def forbidden(*arguments, **named):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(av, "open", forbidden)  # permissions themselves do not stop a superuser
    monkeypatch.setattr("tubelet.media.bytes.open", forbidden, raising=False)
    check_error(path, "unreadable", "Permission denied")


def test_sound_with_a_cover_picture_is_sound(tmp_path):
    write_picture(tmp_path / "cover.png", "png", "rgb24")
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        tone = container.add_stream("aac", rate=16000, layout="mono")
        cover = container.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 80, 48, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(cover.encode(av.VideoFrame.from_ndarray(numbered_frames(1)[0])))
        container.mux(tone.encode(frame))
        container.mux(tone.encode())
    assert index(tmp_path / "a.mp4").kind == "sound"
    check_error(tmp_path / "a.mp4", "no-picture")


def test_codecs_off_the_list_are_not_decoded(tmp_path):
    path = write_numbered(tmp_path / "a.mkv", 3, codec="snow", codec_options={"strict": "-2"})
    check_error(path, "no-decoder", "snow")


def test_pictures_beyond_the_limit(tmp_path, monkeypatch):
    path = write_numbered(tmp_path / "a.mp4", 3)
    for module in (decoder, formats):
        monkeypatch.setattr(module, "MAX_PIXELS", 1000)
    check_error(path, "too-big", "80x48", 1000)


def test_names_that_ffmpeg_would_read_meaning_into(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("http:a.mp4", "concat:a.mp4", "-i.mp4", "*[x].mp4", "日本 %20'.mp4"):
        write_numbered("plain.mp4", 3)
        os.rename("plain.mp4", name)
        assert read_numbers(read_frames(name, np.array([0.04]))) == [1]


# --- the error, the cache, the tidiness


def test_the_error_survives_a_worker_process_and_a_terminal():
    error = MediaError("/a/\n\udcff.mp4", "empty", "the file is empty", "Copy it again")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) == "/a/\\n\\udcff.mp4: the file is empty. Copy it again."
    assert (again.path, again.code) == (error.path, "empty")


def test_the_index_is_remembered_until_the_file_changes(tmp_path):
    path = write_numbered(tmp_path / "a.mp4", 10)
    os.utime(path, ns=(0, time.time_ns() - 10**9))
    first = index(path)
    assert index(path) is first
    assert not first.times.flags.writeable
    write_numbered(path, 20)
    assert len(index(path).times) == 20


def test_a_file_that_was_just_written_is_listed_again(tmp_path):
    """Within one step of the file system's clock a file can change twice and look the same."""
    path = write_numbered(tmp_path / "a.mp4", 3)
    os.utime(path)
    first = index(path)
    assert index(path) is not first


def test_little_is_remembered_whatever_the_number_of_files(tmp_path, monkeypatch):
    index_cache.forget()
    paths = [write_numbered(tmp_path / f"{number}.mp4", 3) for number in range(4)]
    for path in paths:
        os.utime(path, ns=(0, 10**9))
    room = 2 * index_cache.count_bytes(index(paths[0]))
    monkeypatch.setattr(index_cache, "MOST_BYTES", room)
    kept = [index(path) for path in paths]
    assert index(paths[3]) is kept[3]
    assert index(paths[2]) is kept[2]
    assert index(paths[0]) is not kept[0]
    monkeypatch.setattr(index_cache, "MOST_BYTES", 10)
    assert index(paths[1]) is not index(paths[1])


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files through /proc")
def test_files_are_closed(tmp_path):
    path = write_numbered(tmp_path / "a.mp4", 30)
    (tmp_path / "bad.mp4").write_bytes(b"\0\0\0\x20ftypisom" * 50)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        read_frames(path, np.array([0.0, 1.0]))
        with pytest.raises(MediaError):
            index(tmp_path / "bad.mp4")
    assert len(os.listdir("/proc/self/fd")) == before


def test_ctrl_c_passes(tmp_path, monkeypatch):
    path = write_numbered(tmp_path / "a.mp4", 3)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(reader, "upright_rgb", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read_frames(path, np.array([0.0]))


@pytest.mark.parametrize(
    "error", [UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), IndexError("x"), OverflowError("x")]
)
def test_other_exceptions_of_the_decoder_are_mapped(tmp_path, monkeypatch, error):
    path = write_numbered(tmp_path / "a.mp4", 3)

    def fails(*_):
        raise error

    monkeypatch.setattr(reader, "upright_rgb", fails)
    check_error(path, "damaged", type(error).__name__)
    monkeypatch.setattr(av, "open", lambda *_, **__: fails())
    check_error(path, "damaged", "moov", type(error).__name__)


def test_the_decoder_is_silent_and_torch_stays_away(tmp_path):
    path = fast_start(tmp_path)
    data = bytearray(path.read_bytes())
    start = len(data) * 3 // 4
    data[start::50] = bytes(len(data[start::50]))
    path.write_bytes(data)
    program = (
        "import contextlib, sys, numpy\n"
        "from tubelet.media import reader, spectrogram, writer\n"
        "with contextlib.suppress(reader.MediaError):\n"
        f"    reader.read_frames({str(path)!r}, numpy.arange(20) / 10)\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_times_must_be_numbers(tmp_path, value):
    path = write_numbered(tmp_path / "a.mp4", 3)
    with pytest.raises(ValueError, match=naming("times_seconds", value)):
        read_frames(path, np.array([0.0, value]))


def test_cover_wants_a_box():
    with pytest.raises(ValueError, match=naming("0x5", "48x80")):
        cover_size(48, 80, (0, 5))


# --- the plan


class Frame(NamedTuple):
    """What the plan sees of a decoded frame."""

    pts: int | None
    is_corrupt: bool = False


def packets(times: list[int | None], keys: tuple[int, ...] = (0,), hidden: tuple[int, ...] = ()) -> list:
    return [timeline.Packet(ticks, 4, place in keys, place in hidden) for place, ticks in enumerate(times)]


@pytest.mark.parametrize(
    ("listed", "ticks", "counted"),
    [
        (packets([0, 8, 4, 12]), [0, 4, 8, 12], False),
        (packets([100, 108, 104]), [0, 4, 8], False),
        (packets([0, 4, 12, 8, 16], keys=(2,)), [0, 4], False),  # 8 leads up to the key frame at 12
        (packets([-8, -4, 0, 4], hidden=(0, 1)), [0, 4], False),
        (packets([0, 4, 4, 8]), [0, 4, 4, 8], True),
        (packets([0, None, None]), [0, 10, 20], True),
        (packets([0, 4, 0, 4], keys=(0, 2)), [0, 10, 20, 30], True),
        (packets([0, 4, 8], keys=()), [0, 4, 8], False),
    ],
)
def test_the_timeline_follows_from_the_packets(listed, ticks, counted):
    found = timeline.timeline(listed, tick_seconds=0.01, frame_seconds=0.1)
    np.testing.assert_allclose(found.times, np.array(ticks) / 100)
    assert found.counted == counted
    last = 0.1 if listed[1].ticks is None or ticks[1] == 10 else 0.04
    assert found.duration_seconds == pytest.approx(ticks[-1] / 100 + last)


@pytest.mark.parametrize("listed", [[], packets([0, 4], hidden=(0, 1)), packets([None], hidden=(0,))])
def test_a_timeline_of_nothing(listed):
    with pytest.raises(ValueError, match=naming("packet")):
        timeline.timeline(listed, tick_seconds=1, frame_seconds=1)


def test_lost_and_damaged_frames_are_told_apart_from_good_ones():
    class Context:
        codec = SimpleNamespace(canonical_name="h264")

        def decode(self, packet):
            if packet == "bad":
                raise UnicodeDecodeError("utf-8", b"", 0, 1, "")
            return [Frame(9)] if packet is None else [Frame(1), Frame(2, is_corrupt=True)]

    class Stream:
        codec_context = Context()

    assert list(reader.decode(["good", "bad"], Stream())) == [Frame(1), None, None, Frame(9)]


def test_frames_are_numbered_by_time_or_by_counting():
    frames = [Frame(-4), Frame(0), None, Frame(8), Frame(12)]
    by_time = timeline.number_frames(frames, plan_of([0], 4), tick_seconds=0.01)
    assert [(place, frame.pts) for place, frame in by_time] == [(0, 0), (2, 8), (3, 12)]
    by_count = timeline.number_frames(frames, replace(plan_of([0], 4), counted=True), tick_seconds=0.01)
    assert [place for place, _ in by_count] == [0, 1, 3, 3]


@given(good=st.sets(st.integers(0, 12)), wanted=st.sets(st.integers(0, 12), min_size=1))
@settings(max_examples=200, deadline=None)
def test_a_missing_frame_is_the_good_one_before_it(good, wanted):
    row = iter((number, number) for number in sorted(good))
    got = {number: shown for number, shown, _ in timeline.pick_frames(row, sorted(wanted), to_the_end=True)}
    expected = {number: max((other for other in good if other <= number), default=None) for number in wanted}
    if None in expected.values():
        assert len(got) < len(wanted), "the row starts too late"
    else:
        assert got == expected
        read_on = [number for number in sorted(good) if number >= max(wanted)][1:]
        assert [number for number, _ in row] == read_on, "nothing is decoded after the last wanted frame"


def plan_of(key_places: list[int], count: int, *, linear_only: bool = False) -> timeline.Index:
    """Frames in display order in the file, 25 a second, a hundred ticks a second."""
    ticks, keys = np.arange(count) * 4, np.array(key_places, dtype=np.int64)
    way = {"ticks": ticks, "places": np.arange(count), "key_places": keys, "key_times": ticks[keys] / 100}
    shown = {"times": ticks / 100, "duration_seconds": count / 25, "height": 48, "width": 80}
    return timeline.Index(path="", kind="video", linear_only=linear_only, **shown, **way)


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_runs_cover_what_is_wanted_and_nothing_else(data):
    count = data.draw(st.integers(1, 60))
    keys = [0, *sorted(data.draw(st.sets(st.integers(1, max(count - 1, 1)), max_size=10)) & set(range(1, count)))]
    wanted = sorted(data.draw(st.sets(st.integers(0, count - 1), min_size=1, max_size=10)))
    runs = timeline.runs(plan_of(keys, count), wanted)
    decoded = [place for run in runs for place in range(run.first, run.last + 1)]
    leads = {place for number in wanted for place in range(max(k for k in keys if k <= number), number + 1)}
    assert decoded == sorted(leads), "each packet between a wanted frame and the key frame before it, once"
    assert [(ticks, number) for run in runs for ticks, number in run.wanted.items()] == [(4 * n, n) for n in wanted]
    for before, run in pairwise(runs):
        assert run.first > before.last + 1, "a seek leaves something out"


def test_runs_of_a_file_that_must_be_read_from_its_start():
    assert timeline.runs(plan_of([0, 10, 20], 30, linear_only=True), [5, 25]) == [(0, 25, {20: 5, 100: 25})]
    assert timeline.runs(plan_of([], 30, linear_only=True), [7]) == [(0, 7, {28: 7})]


def test_what_leads_up_to_a_key_frame_is_decoded_from_the_one_before():
    """Display order 0 1 2 3 4 5, order in the file 0 1 4 2 3 5 with 4 a key frame: 2 and 3 refer to 1 and 4."""
    listed = [timeline.Packet(4 * number, 4, number in (0, 4), False) for number in (0, 1, 4, 2, 3, 5)]
    found = timeline.timeline(listed, tick_seconds=0.01, frame_seconds=0.04)
    way = {name: getattr(found, name) for name in ("ticks", "places", "key_places", "times")}
    plan = replace(plan_of([0], 6), **way)
    assert timeline.runs(plan, [3]) == [(0, 4, {12: 3})]
    assert timeline.runs(plan, [4]) == [(2, 2, {16: 4})]
    assert timeline.runs(plan, [1, 5]) == [(0, 5, {4: 1, 20: 5})]
    assert timeline.runs(plan, [0, 5]) == [(0, 0, {0: 0}), (2, 5, {20: 5})]


# --- the writer


def test_what_is_written_comes_back(tmp_path):
    frames = numbered_frames(30)
    write_video(tmp_path / "a.mp4", frames, frames_per_second=10, crf=1)
    found = index(tmp_path / "a.mp4")
    assert found.times[-1] == pytest.approx(2.9)
    assert read_numbers(read_frames(tmp_path / "a.mp4", found.times)) == list(range(30))
    assert np.diff(found.key_times).max() <= 1.2 + 1e-9
    assert os.listdir(tmp_path) == ["a.mp4"]


@pytest.mark.parametrize(
    ("frames", "name", "codec", "values"),
    [
        (np.zeros((2, 48, 80, 3), np.float32), "a.mp4", "libx264", ("float32", "uint8")),
        (np.zeros((0, 48, 80, 3), np.uint8), "a.mp4", "libx264", ("T > 0",)),
        ([np.zeros((48, w, 3), np.uint8) for w in (80, 96)], "a.mp4", "libx264", ("(48, 96, 3)", "(48, 80, 3)")),
        (np.zeros((2, 47, 80, 3), np.uint8), "a.mp4", "libx264", ("47x80", "yuv420p")),
        (np.zeros((2, 48, 80, 3), np.uint8), "a.xyz", "libx264", ("a.xyz", "ValueError")),
        (np.zeros((2, 48, 80, 3), np.uint8), "a.mp4", "nonsense", ("a.mp4", "nonsense")),
        (np.zeros((2, 48, 80, 3), np.uint8), "no/a.mp4", "libx264", ("a.mp4", "FileNotFoundError")),
    ],
)
def test_what_cannot_be_written_leaves_nothing_behind(tmp_path, frames, name, codec, values):
    with pytest.raises(ValueError, match=naming(*values)):
        write_video(tmp_path / name, frames, codec=codec)
    assert os.listdir(tmp_path) == []


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.mp4"
    write_video(path, numbered_frames(3))
    old = path.read_bytes()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_video(path, numbered_frames(5))
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["a.mp4"]
