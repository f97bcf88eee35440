"""What is lost of a file is told exactly: against a decoder fed packet by packet, on videos of numbered frames."""

import contextlib
import ctypes
import gc
import json
import os
import pickle
import re
import struct
import threading
import zlib
from dataclasses import asdict
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from media_files import numbered_frames, read_numbers, spoil_packets, write_numbered, write_sound
from naming import naming

from tubelet.media import decoder, truncation
from tubelet.media.health import Health, examine, merge_spans
from tubelet.media.reader import MediaError, av, index, read_frames, read_sound

FRONT = {"movflags": "faststart"}
VP9 = {"g": "12", "deadline": "realtime", "cpu-used": "8"}
X265 = {"preset": "ultrafast", "x265-params": "keyint=12:open-gop=1:pools=1:frame-threads=1:log-level=none"}
GOP = {"g": "12", "bf": "2"}
FRAME_SECONDS = 0.04
KINDS = {
    "front.mp4": {"container_options": FRONT},
    "front.mov": {"container_options": FRONT},
    "plain.mp4": {"codec_options": {"g": "12", "bf": "0"}, "container_options": FRONT},
    "hevc.mp4": {"codec": "libx265", "codec_options": X265, "container_options": FRONT},
    "fragments.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "listed.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov+global_sidx+default_base_moof"}},
    "h264.mkv": {},
    "vp9.webm": {"codec": "libvpx-vp9", "codec_options": VP9},
    "mjpeg.avi": {"codec": "mjpeg", "codec_options": {}},
    "mpeg4.avi": {"codec": "mpeg4", "codec_options": GOP},
    "mpeg4.mp4": {"codec": "mpeg4", "codec_options": GOP, "container_options": FRONT},
    "h264.flv": {},
    "wmv2.wmv": {"codec": "wmv2", "codec_options": {"g": "12"}},
    "h264.ts": {},
    "mpeg2.mpg": {"codec": "mpeg2video", "codec_options": GOP},
    "ffv1.mkv": {"codec": "ffv1", "codec_options": {}},
    "plain.gif": {"codec": "gif", "codec_options": {}},
    "h264.h264": {},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("whole")
    return {name: write_numbered(folder / name, 60, **KINDS[name]) for name in KINDS}


def good_numbers(path: Path) -> tuple[set[int], int]:
    """The plainest salvage: (numbers of the frames a decoder hands out unmarked, packet by packet; all it was given).

    Frames are told apart by their time, from the first one on.
    """
    good, packets = set(), []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        with contextlib.suppress(av.FFmpegError):
            packets.extend(packet for packet in container.demux(stream) if packet.size)
        start = min(packet.pts for packet in packets)
        for packet in [*packets, None]:
            try:
                frames = stream.codec_context.decode(packet)
            except Exception:
                continue
            for frame in frames:
                if not frame.is_corrupt:
                    good.add(round(float((frame.pts - start) * stream.time_base) / FRAME_SECONDS))
    return good, len(packets)


def spans_without(good: set[int], count: int) -> list[tuple[float, float]]:
    """The time on screen of the numbers below `count` that are not good, at 25 frames a second, joined."""
    lost = [number for number in range(count) if number not in good]
    starts = [number for number in lost if number - 1 not in lost]
    ends = [number + 1 for number in lost if number + 1 not in lost]
    return [(since * FRAME_SECONDS, to * FRAME_SECONDS) for since, to in zip(starts, ends, strict=True)]


def check_spans(found: Health, expected: list[tuple[float, float]]) -> None:
    assert len(found.bad_spans) == len(expected), (found.bad_spans, expected)
    if expected:
        np.testing.assert_allclose(found.bad_spans, expected, atol=0.0021)  # some containers round to milliseconds


# ---- whole files


@pytest.mark.parametrize("name", KINDS)
def test_a_whole_file_is_whole(whole, name):
    for quick in (False, True):
        found = examine(whole[name], quick=quick)
        assert (found.ok, found.usable, found.code, found.message) == (True, True, "ok", "")
        assert (found.kind, found.frames, found.bad_frames, found.bad_spans) == ("video", 60, 0, ())
        assert (found.height, found.width) == (48, 80)
        assert found.duration_seconds == pytest.approx(2.4, abs=0.05)
    assert not index(whole[name]).is_cut


@pytest.mark.parametrize(
    "change",
    {
        "rubbish behind": lambda data: data + b"rubbish " * 99,
        "zeros behind": lambda data: data + bytes(999),
        "long header": lambda data: changed(data, b"mvhd", 20, 10**7),
        "long track": lambda data: changed(data, b"tkhd", 24, 10**7),
        "many frames": lambda data: changed(data, b"stts", 12, 30_000_000),
    }.items(),
    ids=lambda change: change[0],
)
def test_a_whole_file_with_odd_numbers_is_not_cut_short(whole, tmp_path, change):
    path = tmp_path / "a.mp4"
    path.write_bytes(change[1](whole["front.mp4"].read_bytes()))
    assert (examine(path).ok, examine(path).frames) == (True, 60)


def changed(data: bytes, box: bytes, offset: int, value: int) -> bytes:
    place = data.index(box) + offset
    return data[:place] + struct.pack(">I", value) + data[place + 4 :]


def test_files_of_unknown_length_are_not_cut_short(tmp_path):
    for name, options in (("a.mkv", {"live": "1"}), ("a.webm", {"live": "1"}), ("a.flv", {"flvflags": "no_metadata"})):
        settings = KINDS["vp9.webm"] if name == "a.webm" else {}
        path = write_numbered(tmp_path / name, 30, container_options=options, **settings)
        assert (examine(path).code, examine(path).frames) == ("ok", 30)
    path = write_numbered(tmp_path / "b.avi", 30, codec="mjpeg", codec_options={})
    data = path.read_bytes()
    for length in (0, 0xFFFFFFFF):  # as written to a pipe
        path.write_bytes(data[:4] + struct.pack("<I", length) + data[8:])
        assert examine(path).ok


def test_sound_beside_that_lasts_longer_or_is_cut_is_not_missed_on_screen(tmp_path):
    path = write_numbered(tmp_path / "a.mp4", 60, sound_hz=300, container_options=FRONT)
    assert examine(path).ok
    data = path.read_bytes()
    with av.open(str(path)) as container:
        last = max(packet.pos + packet.size for packet in container.demux(video=0) if packet.size)
    path.write_bytes(data[: last + (len(data) - last) // 2])
    assert examine(path).ok


@pytest.mark.parametrize("hidden", [7, -20])
def test_what_an_edit_list_hides_is_not_lost(tmp_path, hidden):
    path = write_numbered(tmp_path / "a.mp4", 40, container_options=FRONT)
    data = bytearray(path.read_bytes())
    place = data.index(b"elst") + 12  # duration in ticks of 1/1000, first time in ticks of 1/12800
    duration, start = struct.unpack_from(">Ii", data, place)
    new = (duration, start + hidden * 512) if hidden > 0 else (duration + hidden * 40, start)
    struct.pack_into(">Ii", data, place, *new)
    path.write_bytes(data)
    found = examine(path)
    assert (found.ok, found.frames, found.notes) == (True, 40 - abs(hidden), ("edit-list",))
    path.write_bytes(data[: len(data) * 4 // 5])
    assert examine(path).code == "truncated"


# ---- cut short

TELLS_ITS_LENGTH = [
    *("front.mp4", "front.mov", "plain.mp4", "hevc.mp4", "mpeg4.mp4", "listed.mp4"),
    *("h264.mkv", "vp9.webm", "mjpeg.avi", "ffv1.mkv"),
]


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75, 0.95])
@pytest.mark.parametrize("name", TELLS_ITS_LENGTH)
def test_a_file_cut_short_gives_all_its_good_frames_and_the_exact_loss(whole, tmp_path, name, share):
    data = whole[name].read_bytes()
    path = tmp_path / name
    path.write_bytes(data[: int(len(data) * share)])
    found, quick = examine(path), examine(path, quick=True)
    try:
        good, packets = good_numbers(path)
    except (av.FFmpegError, ValueError):
        good, packets = set(), 0
    if not good:
        assert (found.ok, found.usable, found.code, quick.code) == (False, False, "truncated", "truncated")
        return
    assert (found.frames, found.bad_frames) == (len(good), 60 - len(good))
    if packets == 60:  # only what comes after the frames was cut: a list of key frames
        assert found.ok == quick.ok == (len(good) == 60)
        return
    assert (found.ok, found.usable, found.code, quick.code) == (False, True, "truncated", "truncated")
    check_spans(found, spans_without(good, 60))
    assert (quick.frames, quick.bad_frames) == (packets, 60 - packets)
    held = [max(number for number in good if number <= wanted) for wanted in range(len(index(path).times)) if good]
    assert read_numbers(read_frames(path, index(path).times[: len(good) // 2])) == held[: len(good) // 2]


def test_where_frames_are_counted_the_loss_is_counted(whole, tmp_path):
    path, data = tmp_path / "mpeg4.avi", whole["mpeg4.avi"].read_bytes()
    path.write_bytes(data[: int(len(data) * 0.8)])
    found = examine(path)
    assert (found.code, found.frames + found.bad_frames) == ("truncated", 60)
    assert found.frames == len(good_numbers(path)[0])
    assert found.bad_spans[-1] == pytest.approx((found.bad_spans[-1][0], 2.4), abs=0.01)


def test_a_cut_between_fragments_of_unknown_length_is_known_all_the_same(whole, tmp_path):
    data = whole["fragments.mp4"].read_bytes()
    last = data.rindex(b"moof")
    path = tmp_path / "a.mp4"
    path.write_bytes(data[: last + 20])
    found = examine(path)
    assert (found.code, found.usable, found.bad_spans) == ("truncated", True, ())
    assert found.message.startswith("it ends before it says it does. The copy or download was probably cut short")


def test_seconds_that_are_missing_are_not_made_up(whole, tmp_path):
    data = whole["front.mp4"].read_bytes()
    path = tmp_path / "a.mp4"
    path.write_bytes(data[: len(data) * 3 // 4])
    end = index(path).duration_seconds
    good = index(path).times[:10]
    assert len(read_frames(path, good)) == 10
    assert read_numbers(read_frames(path, np.array([0.0, end + 0.1]))) == [0, max(good_numbers(path)[0])]
    with pytest.raises(MediaError, match=naming(path, "2 of 12", "2.39")) as caught:
        read_frames(path, np.concatenate([good, [end + 0.1, 2.39]]))
    assert (caught.value.code, caught.value.stage) == ("truncated", "decode")


@given(lengths=st.lists(st.integers(0, 3000), max_size=4), cut=st.integers(0, 5000))
@settings(max_examples=60, deadline=None)
def test_boxes_that_reach_beyond_the_end(tmp_path_factory, lengths, cut):
    path = tmp_path_factory.mktemp("boxes") / "a.mp4"
    boxes = b"".join(struct.pack(">I4s", 8 + length, b"mdat") + bytes(length) for length in lengths)
    data = struct.pack(">I4s", 16, b"ftyp") + b"isom\0\0\0\0" + boxes
    path.write_bytes(data[: max(24, cut)])
    ends = [16 + sum(8 + length for length in lengths[:count]) for count in range(len(lengths) + 1)]
    size = path.stat().st_size
    inside = size < len(data) and size not in ends and size - max(end for end in ends if end < size) >= 8
    assert truncation.is_cut(str(path)) == inside


# ---- damage


def spoil_contents(path: Path, numbers: list[int]) -> None:
    """Writes zeroes over what is in packets and leaves what the container says of them."""
    with av.open(str(path)) as container:
        contents = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    data, place = bytearray(path.read_bytes()), 0
    for number, content in enumerate(contents):
        place = data.index(content, place)
        if number in numbers:
            data[place : place + len(content)] = bytes(len(content))
    path.write_bytes(data)


@pytest.mark.parametrize(
    "name", ["front.mp4", "plain.mp4", "h264.mkv", "vp9.webm", "mjpeg.avi", "hevc.mp4", "mpeg4.mp4"]
)
def test_damage_is_told_exactly_and_everything_else_is_kept(whole, tmp_path, name):
    """Removing the try around each packet, or ending at the first bad one, turns this red."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    for turn in range(4):
        path = tmp_path / f"{turn}-{name}"
        path.write_bytes(whole[name].read_bytes())
        spoil_contents(path, rng.choice(np.arange(3, 60), 1 + 4 * turn, replace=False).tolist())
        good, packets = good_numbers(path)
        found = examine(path)
        assert (found.frames, found.bad_frames, packets) == (len(good), 60 - len(good), 60)
        check_spans(found, spans_without(good, 60))
        assert found.ok == (len(good) == 60)
        if not found.ok:
            assert (found.usable, found.code) == (True, "damaged")
            assert found.message == f"{60 - len(good)} of 60 frames are damaged. Copy the file again or leave it out."
        assert examine(path, quick=True).ok
    assert not found.ok
    assert len(good) >= 15


@pytest.mark.parametrize("name", ["h264.mkv", "vp9.webm"])
def test_what_the_container_loses_of_a_whole_file_is_damage(whole, tmp_path, name):
    """Zeroes over the marks between packets: all after them cannot be found, though the file is as long as it was."""
    path = tmp_path / name
    path.write_bytes(whole[name].read_bytes())
    spoil_packets(path, [8, 9])
    good, packets = good_numbers(path)
    assert packets < 40
    for quick in (False, True):
        found = examine(path, quick=quick)
        assert (found.code, found.usable, found.frames, found.bad_frames) == ("damaged", True, packets, 60 - packets)
    check_spans(found, spans_without(good, 60))


def test_frames_after_the_damage_are_good(tmp_path):
    path = write_numbered(tmp_path / "a.avi", 60, codec="mjpeg", codec_options={})
    spoil_packets(path, [0, 20, 21, 59])
    found = examine(path)
    assert (found.frames, found.bad_frames) == (56, 4)
    check_spans(found, [(0.0, 0.04), (0.8, 0.88), (2.36, 2.4)])


def test_more_than_a_tenth_may_not_be_lost(tmp_path):
    path = write_numbered(tmp_path / "a.avi", 60, codec="mjpeg", codec_options={})
    spoil_packets(path, [20, 21, 22])
    times = index(path).times
    assert read_numbers(read_frames(path, times[[20]])) == [19], "one may be lost, however few are wanted"
    assert read_numbers(read_frames(path, times[[22, 30]])) == [19, 30]
    assert read_numbers(read_frames(path, times[10:40]))[9:14] == [19, 19, 19, 19, 23], "three of thirty"
    for wanted, text in ((times[11:40], "3 of 29"), (times[[21, 20]], "2 of 2"), (times[[20, 20]], "2 of 2")):
        with pytest.raises(MediaError, match=naming(path, text, "0.80")) as caught:
            read_frames(path, wanted)
        assert (caught.value.code, caught.value.stage) == ("damaged", "decode")


# ---- notes


def write_streams(path: Path, count: int) -> Path:
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=25) for _ in range(count)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 80, 48, "yuv420p"
        for number, picture in enumerate(numbered_frames(12)):
            for stream in streams:
                frame = av.VideoFrame.from_ndarray(picture).reformat(format="yuv420p")
                frame.pts = number
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode())
    return path


def test_notes_tell_what_is_odd_and_not_wrong(tmp_path):
    write = write_numbered
    gaps = np.random.default_rng(0).integers(5, 200, 40)
    at_odd_times = {"ticks": [int(tick) for tick in np.cumsum(gaps) - gaps[0]], "tick_seconds": Fraction(1, 1000)}
    interlaced = {"x264-params": "interlaced=1:keyint=12:threads=1"}
    expected = {
        "turned": write(tmp_path / "turned.mp4", 12, turn=(90, False)),
        "variable-rate": write(tmp_path / "odd.mkv", 40, **at_odd_times),
        "interlaced": write(tmp_path / "interlaced.mp4", 12, codec_options=interlaced),
        "estimated-times": write(tmp_path / "raw.h264", 12),
        "several-streams": write_streams(tmp_path / "two.mkv", 2),
        "other-suffix": write(tmp_path / "web.webm", 12, codec="libvpx-vp9", codec_options=VP9).rename(
            tmp_path / "web.mp4"
        ),
    }
    for note, path in expected.items():
        for quick in (False, True):
            found = examine(path, quick=quick)
            assert (found.ok, found.notes) == (True, (note,))
    assert examine(write(tmp_path / "mirrored.mp4", 12, turn=(0, True))).notes == ("turned",)
    assert examine(write_streams(tmp_path / "one.mkv", 1)).notes == ()


def test_a_size_that_changes_is_noted_where_all_is_decoded(tmp_path):
    at_once = {"bf": "0", "tune": "zerolatency"}
    small = write_numbered(tmp_path / "small.h264", 20, codec_options=at_once)
    large = write_numbered(tmp_path / "large.h264", 5, height=96, width=160, codec_options=at_once)
    small.write_bytes(small.read_bytes() + large.read_bytes())
    found = examine(small)
    assert (found.ok, found.frames, found.notes) == (True, 25, ("estimated-times", "geometry-changes"))
    assert "geometry-changes" not in examine(small, quick=True).notes


# ---- what is no video


def test_files_that_cannot_be_read_have_the_code_of_the_error(tmp_path):
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "zeros.mp4").write_bytes(bytes(5000))
    for name, code in (("empty.mp4", "empty"), ("zeros.mp4", "not-video"), ("none.mp4", "missing")):
        for quick in (False, True):
            found = examine(tmp_path / name, quick=quick)
            with pytest.raises(MediaError) as caught:
                read_frames(tmp_path / name, np.array([0.0]))
            assert (found.ok, found.usable, found.code, found.kind) == (False, False, code, "")
            assert str(caught.value) == f"{found.path}: {found.message}"
            assert caught.value.stage == "open"
    assert examine("a\0b.mp4").code == "missing"


def write_tone(path: Path, codec: str, seconds: int = 2) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=48000, layout="mono")
        samples = (np.sin(np.arange(48000 * seconds) / 20) * 20000).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = 48000
        resampler = av.AudioResampler(format=stream.codec_context.format, rate=48000, layout="mono")
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.wav", "pcm_s16le"), ("a.m4a", "aac"), ("a.flac", "flac"), ("a.mp3", "libmp3lame"), ("a.opus", "libopus")],
)
def test_sound_is_decoded_to_its_end(tmp_path, name, codec):
    path = write_tone(tmp_path / name, codec)
    found = examine(path)
    assert (found.ok, found.usable, found.code, found.kind) == (True, True, "ok", "sound")
    assert (found.height, found.width, found.bad_frames, found.bad_spans) == (0, 0, 0, ())
    assert found.duration_seconds == pytest.approx(2, abs=0.1)
    with av.open(str(path)) as container:
        assert found.frames == sum(1 for packet in container.demux(audio=0) if packet.size)
    assert examine(path, quick=True).ok


def test_sound_that_is_damaged_or_cut_short(tmp_path):
    path = write_tone(tmp_path / "a.m4a", "aac")
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size, p.pts) for p in container.demux(audio=0) if p.size]
    data = bytearray(path.read_bytes())
    for place, size, _ in (packets[40], packets[41], packets[60]):
        data[place : place + size] = b"\xff" * size
    path.write_bytes(data)
    found = examine(path)
    assert (found.ok, found.usable, found.code) == (False, True, "damaged")
    bad = [(packets[number][2] - packets[0][2]) / 48000 for number in (40, 60)]
    assert [span[0] for span in found.bad_spans] == pytest.approx(bad, abs=0.001)
    assert (found.frames, found.bad_frames) == (len(packets) - 3, 3)
    write_sound(tmp_path / "b.wav", np.zeros(32000, np.float32), sample_rate=8000)
    (tmp_path / "b.wav").write_bytes((tmp_path / "b.wav").read_bytes()[:32044])
    found = examine(tmp_path / "b.wav")
    assert (found.code, found.usable) == ("truncated", True)
    np.testing.assert_allclose(found.bad_spans, [(2.0, 4.0)], atol=0.02)


def test_sound_under_the_suffix_of_a_video_has_no_picture(tmp_path):
    path = write_tone(tmp_path / "a.m4a", "aac").rename(tmp_path / "a.mp4")
    found = examine(path)
    assert (found.ok, found.usable, found.code) == (False, False, "no-picture")
    assert found.message == ("it holds sound but no video. If it is meant to be sound, give it a suffix such as .m4a.")


def test_health_is_plain(whole):
    found = examine(whole["front.mp4"])
    assert json.loads(json.dumps(asdict(found)))["frames"] == 60
    assert found == examine(str(whole["front.mp4"]))
    assert pickle.loads(pickle.dumps(found)) == found
    with pytest.raises(AttributeError):
        found.ok = False  # type: ignore[misc]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)).map(sorted)))
def test_spans_are_joined(spans):
    joined = merge_spans([(float(since), float(to)) for since, to in spans])
    inside = {second for since, to in spans for second in range(since, to)}
    assert {second for since, to in joined for second in range(int(since), int(to))} == inside
    assert all(since < to for since, to in joined)
    assert all(before[1] < after[0] for before, after in pairwise(joined))


# ---- the error


def test_the_stage_survives_a_worker_process():
    error = MediaError("a.mp4", "damaged", "it is broken", "Copy it", stage="decode")
    again = pickle.loads(pickle.dumps(error))
    assert (again.stage, again.code, str(again)) == ("decode", "damaged", "a.mp4: it is broken. Copy it.")
    assert MediaError("a.mp4", "missing", "it is not there", "Look").stage == "open"


# ---- work


def gif_bomb(side: int, frames: int) -> bytes:
    """A huge canvas of which each picture changes one pixel: 25 bytes for `side * side` pixels."""
    head = b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + bytes(6)
    change = b"!\xf9\4\0\1\0\0\0" + b",\0\0\0\0\1\0\1\0\0" + b"\2\2D\1\0"
    return head + change * frames + b";"


def test_a_small_file_cannot_make_minutes_of_work(tmp_path, monkeypatch):
    """As it is, some 30 of 2,000 pictures of 8000x8000 would be drawn; here pixels are scarcer."""
    monkeypatch.setattr(decoder, "FREE_PIXELS", decoder.FREE_PIXELS // 100)
    monkeypatch.setattr(decoder, "PIXELS_FOR_A_BYTE", decoder.PIXELS_FOR_A_BYTE // 100)
    path = tmp_path / "a.gif"
    path.write_bytes(gif_bomb(800, 2000))
    decoded: list[int] = []
    decode_one = decoder.decode_one
    monkeypatch.setattr(decoder, "decode_one", lambda packet, stream: decoded.append(1) or decode_one(packet, stream))
    for read in (lambda: read_frames(path, np.array([1.0, 15.0])), lambda: examine_or_raise(path)):
        decoded.clear()
        with pytest.raises(MediaError, match=naming(path)) as caught:
            read()
        assert (caught.value.code, caught.value.stage) == ("too-slow", "decode")
        assert 10 < len(decoded) < 60
    assert read_frames(path, np.array([0.0, 0.05])).shape == (2, 800, 800, 3)


def examine_or_raise(path: Path) -> None:
    found = examine(path)
    if not found.ok:
        raise MediaError(found.path, found.code, found.message, "", stage="decode")


def test_a_bomb_of_sound(tmp_path, monkeypatch):
    path = write_tone(tmp_path / "a.flac", "flac", seconds=4)
    assert len(read_sound(path, sample_rate=8000)) == 32000
    monkeypatch.setattr(decoder, "FREE_PIXELS", 0)
    monkeypatch.setattr(decoder, "PIXELS_FOR_A_BYTE", 10)
    with pytest.raises(MediaError, match=naming(path)) as caught:
        read_sound(path, sample_rate=8000)
    assert caught.value.code == "too-slow"


def test_a_long_black_video_is_no_bomb(tmp_path):
    """The least that a real video holds, two minutes of black in 320x240, is decoded within what its bytes pay for."""
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "ultrafast", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((240, 320, 3), np.uint8)).reformat(format="yuv420p")
        for number in range(1000):
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        sizes = [packet.size for packet in container.demux(video=0) if packet.size]
    assert 1920 * 1080 / np.median(sizes) < decoder.PIXELS_FOR_A_BYTE, "a skipped picture takes as much in any size"
    assert examine(path).frames == 1000


def test_a_sliver_does_not_become_a_giant(tmp_path):
    from test_reader import write_picture

    path = write_picture(tmp_path / "a.png", "png", "rgb24")
    data = path.read_bytes()
    rows = zlib.compress((b"\0" + bytes(3 * 16000)) * 1)
    parts = [(b"IHDR", struct.pack(">IIBBBBB", 16000, 1, 8, 2, 0, 0, 0)), (b"IDAT", rows), (b"IEND", b"")]
    path.write_bytes(
        data[:8] + b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts)
    )
    assert read_frames(path, np.array([0.0])).shape == (1, 1, 16000, 3)
    with pytest.raises(MediaError, match=naming(path, "16000x1", "3584000x224")) as caught:
        read_frames(path, np.array([0.0]), cover=(224, 224))
    assert caught.value.code == "too-big"


# ---- memory


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="measures memory through /proc")
def test_reading_bad_files_over_and_over_keeps_nothing(whole, tmp_path):
    paths = [whole[name] for name in ("front.mp4", "vp9.webm", "mjpeg.avi", "h264.ts")]
    for path in paths[:3]:
        cut, bad = tmp_path / f"cut-{path.name}", tmp_path / f"bad-{path.name}"
        cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        bad.write_bytes(path.read_bytes())
        spoil_packets(bad, [5, 6, 7, 30])
        paths += [cut, bad]
    for name, content in (("junk.mp4", b"x" * 999), ("empty.mp4", b""), ("moov.mp4", b"\0\0\0\x20ftypisom" * 50)):
        (tmp_path / name).write_bytes(content)
        paths.append(tmp_path / name)

    def read_all(times: int) -> None:
        for turn in range(times):
            with contextlib.suppress(MediaError):
                read_frames(paths[turn % len(paths)], np.array([0.1, 0.4, 0.9]))

    def resident_kb() -> int:
        gc.collect()
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)  # what is free but not given back is no leak
        return int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1])

    warming_up, reads = (5000, 5000) if os.environ.get("TUBELET_SOAK") else (400, 1000)
    read_all(warming_up)
    before, files, threads = resident_kb(), len(os.listdir("/proc/self/fd")), threading.active_count()
    read_all(reads)
    grown, most = resident_kb() - before, max(400, reads // 10)
    assert grown < most, "a row of packets that is never closed keeps 1 to 2 kB"
    print(f"{reads} reads: {grown} kB more")
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == (files, threads)
    assert len(os.listdir("/proc/self/task")) < 40


def test_a_row_of_packets_that_is_left_in_the_middle_is_closed():
    """PyAV never gives back the packet of a row that is merely dropped: 1 to 2 kB for each read of a few frames."""

    class Row:
        closed = 0
        size = 1

        def __iter__(self):
            yield from (self, self, self)

        def close(self):
            Row.closed += 1

    class Container:
        format = SimpleNamespace(name="avi")

        def demux(self, stream):
            return Row()

    packets = decoder.read_packets(Container(), None)
    next(packets)
    assert Row.closed == 0
    del packets
    assert Row.closed == 1
    assert len(list(decoder.read_packets(Container(), None))) == 3
    assert Row.closed == 2


# ---- random access

EXACT = {
    **{name: KINDS[name] for name in KINDS if name not in ("front.mov", "listed.mp4")},
    "h264.avi": {},
    "h264.mov": {},
    "vp9.mp4": {"codec": "libvpx-vp9", "codec_options": VP9},
    "mpeg2.ts": {"codec": "mpeg2video", "codec_options": GOP},
    "mpeg1.mpg": {"codec": "mpeg1video", "codec_options": GOP},
}


@pytest.mark.parametrize("name", EXACT)
def test_a_hundred_random_frames_are_all_exact(tmp_path, name):
    path = write_numbered(tmp_path / name, 60, **EXACT[name])
    times = index(path).times
    wanted = np.random.default_rng(zlib.crc32(name.encode())).integers(0, 60, 100).tolist()
    assert [read_numbers(read_frames(path, times[[number]]))[0] for number in wanted] == wanted


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_turned_at_an_odd_rate_with_frames_out_of_order(tmp_path, degrees, mirrored):
    """Without the turn the numbers could not be read."""
    gaps = np.random.default_rng(1).integers(5, 200, 30)
    ticks = [int(tick) for tick in np.cumsum(gaps) - gaps[0]]
    path = write_numbered(tmp_path / "a.mp4", 30, ticks=ticks, tick_seconds=Fraction(1, 1000), turn=(degrees, mirrored))
    frames = read_frames(path, np.array(ticks)[::-1] / 1000 + 0.002)
    upright = frames[:, :, ::-1] if mirrored else frames
    assert read_numbers(np.rot90(upright, -degrees // 90, axes=(1, 2))) == list(range(30))[::-1]
    assert read_numbers(frames[:3]) != [29, 28, 27] or (degrees, mirrored) == (0, False)


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [
        ("ten.mp4", "libx265", "yuv420p10le"),
        ("ten.mkv", "ffv1", "yuv420p10le"),
        ("ten.mov", "prores_ks", "yuv422p10le"),
        ("full.mkv", "libx264", "yuv444p"),
    ],
)
def test_deep_colours_keep_their_frames(tmp_path, name, codec, pixel_format):
    options = X265 if codec == "libx265" else {}
    path = tmp_path / name
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 80, 48, pixel_format
        for number, picture in enumerate(numbered_frames(30)):
            frame = av.VideoFrame.from_ndarray(picture).reformat(format=pixel_format)
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    wanted = np.random.default_rng(2).permutation(30)
    frames = read_frames(path, index(path).times[wanted])
    assert read_numbers(frames) == wanted.tolist()
    assert np.median(np.abs(frames.astype(int) - numbered_frames(30)[wanted])) < 8
    assert examine(path).ok
