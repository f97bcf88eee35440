"""Pictures in order are those that the reader gives for the same times, in one pass, and say where a file is broken."""

import io
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from media_files import numbered_frames, read_numbers, spoil_packets, write_numbered, write_sound
from naming import naming

from tubelet.media import reader
from tubelet.media.reader import MediaError, index, read_frames
from tubelet.media.sequential import Picture, frames_in_order, pictures_within, raw_frames_in_order
from tubelet.media.writer import write_video

TICKS = [int(t) for t in np.cumsum(np.random.default_rng(0).integers(5, 200, 40))]
VP9 = {"g": "12", "deadline": "realtime", "cpu-used": "8"}
FILES: dict[str, dict[str, Any]] = {
    "b-frames.mp4": {},
    "open.mp4": {"codec_options": {"x264-params": "open-gop=1:keyint=12:bframes=2:scenecut=0:threads=1"}},
    "variable.mp4": {"ticks": [t - TICKS[0] for t in TICKS], "tick_seconds": Fraction(1, 1000)},
    "variable.mkv": {"ticks": [t - TICKS[0] for t in TICKS], "tick_seconds": Fraction(1, 1000)},
    "turned.mp4": {"turn": (90, True)},
    "sound.mp4": {"sound_hz": 300},
    "b-frames.ts": {},
    "b-frames.flv": {},
    "vp9.webm": {"codec": "libvpx-vp9", "codec_options": VP9},
    "mpeg4.avi": {"codec": "mpeg4", "codec_options": {"g": "12", "bf": "2"}},
    "plain.gif": {"codec": "gif", "codec_options": {}},
}


def pixels(pictures: list[Picture]) -> np.ndarray:
    return np.stack([picture.pixels for picture in pictures])


# ---- files


@pytest.mark.parametrize("name", FILES)
def test_pictures_in_order_are_those_of_the_reader(name: str, tmp_path: Path) -> None:
    path = write_numbered(tmp_path / name, 40, **FILES[name])
    duration = index(path).duration_seconds
    for spacing, cover in ((0.04, None), (0.013, (20, 20)), (0.11, (24, 60)), (9.0, None)):
        found = list(frames_in_order(path, seconds_between_frames=spacing, cover=cover))
        times = np.arange(len(found)) * spacing
        assert [picture.seconds for picture in found] == times.tolist()
        assert times[-1] < duration <= times[-1] + spacing + 0.002
        assert (pixels(found) == read_frames(path, times, cover=cover)).all()
        assert not any(picture.damaged for picture in found)
    if name != "turned.mp4":  # its numbers lie on their side
        assert set(read_numbers(pixels(list(frames_in_order(path, seconds_between_frames=0.004))))) == set(range(40))


def test_each_packet_is_decoded_once_and_no_sooner_than_its_picture_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_numbered(tmp_path / "a.mp4", 240)
    count, read_packets = [0], reader.read_packets

    def counting(*arguments: Any) -> Any:
        for packet in read_packets(*arguments):
            count[0] += 1
            yield packet

    monkeypatch.setattr(reader, "read_packets", counting)
    pictures = frames_in_order(path, seconds_between_frames=0.04)
    for number in range(100):
        assert read_numbers(next(pictures).pixels[None]) == [number]
    assert count[0] < 100 + 20
    assert len(list(pictures)) == 140
    assert count[0] == 240


def test_a_number_of_pictures_fills_the_time() -> None:
    for count in range(1, 200):
        for spacing in (0.04, 1 / 30, 0.08, 1.0):
            assert pictures_within(count * spacing, seconds_between_frames=spacing) == count
            assert pictures_within(count * spacing + 0.01, seconds_between_frames=spacing) == count + 1
    assert pictures_within(0.0, seconds_between_frames=0.1) == 1


def test_what_is_no_video_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=naming(tmp_path / "a.mp4")) as missing:
        frames_in_order(tmp_path / "a.mp4", seconds_between_frames=0.1)
    assert missing.value.code == "missing"
    write_sound(tmp_path / "a.wav", np.zeros(800, np.float32), sample_rate=8000)
    with pytest.raises(MediaError, match=naming(tmp_path / "a.wav", "read_sound")) as sound:
        frames_in_order(tmp_path / "a.wav", seconds_between_frames=0.1)
    assert sound.value.code == "no-picture"


# ---- damage


def until_broken(path: Path, spacing: float = 0.04) -> tuple[list[Picture], MediaError]:
    found: list[Picture] = []
    with pytest.raises(MediaError) as caught:
        found.extend(frames_in_order(path, seconds_between_frames=spacing))
    return found, caught.value


@pytest.mark.parametrize(
    ("name", "settings", "codes"),
    [
        ("a.mp4", {"container_options": {"movflags": "faststart"}}, {"damaged", "truncated"}),
        ("a.mov", {"container_options": {"movflags": "faststart"}}, {"damaged", "truncated"}),
        ("a.mkv", {}, {"truncated"}),
        ("vp9.webm", FILES["vp9.webm"], {"truncated"}),
    ],
)
@pytest.mark.parametrize("share", [0.5, 0.6, 0.7])
def test_a_file_cut_short_is_played_to_the_cut_and_says_so(
    name: str, settings: dict[str, Any], codes: set[str], share: float, tmp_path: Path
) -> None:
    path = write_numbered(tmp_path / name, 120, **settings)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    found, error = until_broken(path)
    assert 10 < len(found) < 100
    sure = len(found) - 3  # the frames around the cut are coded out of order
    assert read_numbers(pixels(found[:sure])) == list(range(sure))
    assert error.code in codes
    assert (pixels(found) == read_frames(path, np.array([p.seconds for p in found]))).all()


@pytest.fixture
def single_pictures(tmp_path: Path) -> Path:
    return write_numbered(tmp_path / "a.avi", 30, codec="mjpeg", codec_options={})


def test_damage_in_the_middle_is_held_over_and_marked(single_pictures: Path) -> None:
    spoil_packets(single_pictures, [11, 12, 20])
    found = list(frames_in_order(single_pictures, seconds_between_frames=0.02))
    assert [int(p.seconds / 0.04 + 0.1) for p in found if p.damaged] == [11, 11, 12, 12, 20, 20]
    shown = [10 if n in (11, 12) else 19 if n == 20 else n for n in range(30)]
    assert read_numbers(pixels(found)[::2]) == shown
    assert (pixels(found) == read_frames(single_pictures, np.array([p.seconds for p in found]))).all()


def test_damage_to_the_end_is_not_held_over(single_pictures: Path) -> None:
    spoil_packets(single_pictures, [12, *range(20, 30)])
    found, error = until_broken(single_pictures)
    assert read_numbers(pixels(found)) == [*range(12), 11, *range(13, 20)]
    assert error.code == "damaged"
    assert re.search(naming(single_pictures, "0.76", "1.20"), str(error))


def test_damage_at_the_start_is_what_it_is_to_the_reader(single_pictures: Path) -> None:
    spoil_packets(single_pictures, [0])
    found, error = until_broken(single_pictures)
    assert found == []
    with pytest.raises(MediaError) as caught:
        read_frames(single_pictures, np.array([0.0]))
    assert str(error) == str(caught.value)


# ---- raw frames


@pytest.mark.parametrize("pixel_format", ["rgb24", "gray"])
@pytest.mark.parametrize(("spacing", "rate"), [(0.04, 25), (0.1, 25), (0.013, 25), (0.04, 30), (1 / 30, 30), (0.5, 2)])
def test_raw_frames_are_the_same_pictures(pixel_format: str, spacing: float, rate: int, tmp_path: Path) -> None:
    frames = numbered_frames(30)
    raw = frames[..., 0] if pixel_format == "gray" else frames
    write_video(tmp_path / "a.mkv", frames, frames_per_second=rate, codec="ffv1")
    pipe = io.BytesIO(raw.tobytes())
    found = list(
        raw_frames_in_order(
            pipe,
            size=(48, 80),
            frames_per_second=rate,
            pixel_format=pixel_format,
            seconds_between_frames=spacing,
            cover=(24, 40),
        )
    )
    expected = list(frames_in_order(tmp_path / "a.mkv", seconds_between_frames=spacing, cover=(24, 40)))
    assert [p.seconds for p in found] == [p.seconds for p in expected]
    assert read_numbers(pixels(found)) == read_numbers(pixels(expected))
    assert pixels(found).shape == pixels(expected).shape
    assert np.abs(pixels(found).astype(int) - pixels(expected)).max() <= 3  # ffv1 here is not RGB


def raw(data: bytes, **settings: Any) -> list[Picture]:
    given = {"size": (2, 4), "frames_per_second": 5.0, "pixel_format": "rgb24", "seconds_between_frames": 0.2}
    return list(raw_frames_in_order(io.BytesIO(data), **(given | settings)))


def test_raw_frames_keep_their_bytes() -> None:
    data = np.random.default_rng(0).bytes(3 * 24)
    assert pixels(raw(data)).tobytes() == data
    grey = pixels(raw(data, pixel_format="gray"))
    assert grey.shape == (9, 2, 4, 3)
    assert (grey[..., 0] == np.frombuffer(data, np.uint8).reshape(9, 2, 4)).all()
    assert (grey[..., 0] == grey[..., 2]).all()


def test_a_pipe_that_ends_too_soon() -> None:
    with pytest.raises(MediaError, match=naming("standard input")):
        raw(b"")
    with pytest.raises(MediaError, match=naming("standard input", "frame 2", 7, 24, "4x2", "--size", "--pixel-format")):
        raw(bytes(55))


@pytest.mark.parametrize("settings", [{"size": (0, 4)}, {"frames_per_second": 0.0}, {"pixel_format": "yuv420p"}])
def test_raw_frames_that_cannot_be(settings: dict[str, Any]) -> None:
    with pytest.raises(
        ValueError, match=naming(*settings.values() if "size" not in settings else ("4x0",), "rgb24", "gray")
    ):
        raw(bytes(24), **settings)
