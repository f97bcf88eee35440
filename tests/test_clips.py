"""From a file to a clip by its ClipSpec: which frames, which part of them, in which order and range."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from media_files import write_sound
from naming import naming

from tubelet.data.clip_spec import ClipSpec
from tubelet.data.clips import crop, fine_times, item_range, load_frames, load_times, load_views, views
from tubelet.media import reader
from tubelet.media.reader import MediaError, index, read_frames, read_sound
from tubelet.media.spectrogram import log_mel
from tubelet.media.writer import write_video

FRAMES, RATE = 20, 10.0
VIDEO = ClipSpec(
    frames=4,
    seconds_between_frames=0.2,
    resize=(32, 32),
    crop=(24, 24),
    mean=(0.5, 0.4, 0.3),
    std=(0.2, 0.25, 0.5),
)
IMAGE = replace(VIDEO, kind="image", frames=1, seconds_between_frames=0.0)
SOUND = ClipSpec(
    kind="sound",
    frames=1,
    seconds_between_frames=0.01,
    resize=(32, 50),
    crop=(32, 50),
    mean=(-4.0,),
    std=(2.0,),
    channels="mel",
)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2 s at 10 frames per second; frame number in the red, 32 px high, 64 wide; left half dark green, right bright."""
    frames = np.zeros((FRAMES, 32, 64, 3), np.uint8)
    frames[..., 0] = (10 + 12 * np.arange(FRAMES))[:, None, None]
    frames[:, :, :32, 1], frames[:, :, 32:, 1] = 60, 180
    path = tmp_path_factory.mktemp("media") / "count.mp4"
    write_video(path, frames, frames_per_second=RATE)
    return path


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1 s of a rising tone."""
    time = np.arange(16000) / 16000
    path = tmp_path_factory.mktemp("media") / "tone.wav"
    write_sound(path, (0.5 * np.sin(2 * np.pi * (200 + 800 * time) * time)).astype(np.float32), sample_rate=16000)
    return path


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture in the plainest format there is, 40 px high, 20 wide, brighter downwards."""
    rows = np.broadcast_to(np.arange(40, dtype=np.uint8)[:, None, None] * 6, (40, 20, 3))
    path = tmp_path_factory.mktemp("media") / "ramp.ppm"
    path.write_bytes(b"P6\n20 40\n255\n" + rows.tobytes())
    return path


def _numbers(clip: torch.Tensor) -> list[int]:
    """Which frames a clip holds, read from its red."""
    return ((clip[0].float().mean((1, 2)) - 10) / 12).round().int().tolist()


# ---- which frames


def test_frames_are_taken_by_time(video: Path) -> None:
    clip = load_frames(video, VIDEO, start_seconds=0.3)
    assert (clip.dtype, tuple(clip.shape)) == (torch.uint8, (3, 4, 32, 64))
    assert clip.is_contiguous()
    assert _numbers(clip) == [3, 5, 7, 9]


def test_the_last_frame_is_held_past_the_end_of_the_file(video: Path) -> None:
    assert _numbers(load_frames(video, VIDEO, start_seconds=1.5)) == [15, 17, 19, 19]


@pytest.mark.parametrize(
    ("end_seconds", "numbers"),
    [(2.0, [3, 5, 7, 9]), (0.9, [3, 5, 7, 8]), (0.6, [3, 5, 5, 5]), (0.601, [3, 5, 5, 5]), (0.65, [3, 5, 6, 6])],
)
def test_the_last_frame_is_held_past_the_end_of_the_item(video: Path, end_seconds: float, numbers: list[int]) -> None:
    assert _numbers(load_frames(video, VIDEO, start_seconds=0.3, end_seconds=end_seconds)) == numbers


def test_an_item_within_one_frame_holds_it(video: Path) -> None:
    assert _numbers(load_frames(video, VIDEO, start_seconds=0.52, end_seconds=0.55)) == [5, 5, 5, 5]


def test_views_are_spread_over_the_file(video: Path) -> None:
    found = views(video, VIDEO, temporal=3)
    assert found.shape == (3, 3, 4, 24, 24)
    assert [_numbers(clip) for clip in found] == [[0, 2, 4, 6], [6, 8, 10, 12], [12, 14, 16, 18]]


def test_views_are_spread_over_the_item(video: Path) -> None:
    found = views(video, VIDEO, temporal=2, start_seconds=0.5, end_seconds=1.5)
    assert [_numbers(clip) for clip in found] == [[5, 7, 9, 11], [7, 9, 11, 13]]


def test_an_item_shorter_than_a_clip_has_equal_views(video: Path) -> None:
    found = views(video, VIDEO, temporal=3, start_seconds=0.5, end_seconds=0.8)
    assert [_numbers(clip) for clip in found] == [[5, 7, 7, 7]] * 3


def test_frames_may_be_read_at_any_times(video: Path) -> None:
    assert _numbers(load_times(video, VIDEO, np.array([1.2, 0.1, 0.1, 1.9]))) == [12, 1, 1, 19]
    assert _numbers(load_times(video, VIDEO, np.array([0.7, 1.2, 1.9]), end_seconds=1.1)) == [7, 10, 10]


def test_fine_times_are_those_of_frames_or_columns(video: Path) -> None:
    assert fine_times(VIDEO, 0.5, 1.5) == pytest.approx(np.arange(0.5, 1.45, 0.1))  # 0.8 s of clip in 1 s
    assert fine_times(IMAGE, 0.0, 0.0).tolist() == [0.0]
    odd = replace(SOUND, seconds_between_frames=0.01003)  # 160.48 samples: columns are 160 apart
    assert (np.diff(fine_times(odd, 0.3, 1.3)) * 16000).round(6).tolist() == [160.0] * 99
    assert len(fine_times(SOUND, 0.0, 0.1)) == 50


def test_a_file_is_seen_with_as_many_views_as_it_needs(video: Path, image: Path, sound: Path) -> None:
    """The clip of VIDEO spans 0.8 s of the file's 2 s, that of SOUND 0.5 s of 1 s."""
    found = load_views(video, VIDEO, temporal=None, spatial=1)
    assert torch.equal(found.clips, views(video, VIDEO, temporal=3))
    assert (found.seconds, found.seconds_seen) == pytest.approx((2, 2))
    one = load_views(video, VIDEO, temporal=1, spatial=3)
    assert (len(one.clips), one.seconds, one.seconds_seen) == (3, pytest.approx(2), pytest.approx(0.8))
    part = load_views(video, VIDEO, temporal=None, spatial=1, start_seconds=0.5, end_seconds=1.45)
    assert (len(part.clips), part.seconds, part.seconds_seen) == (1, pytest.approx(0.95), pytest.approx(0.8))
    short = load_views(video, VIDEO, temporal=2, spatial=1, start_seconds=1.7)
    assert (len(short.clips), short.seconds, short.seconds_seen) == (2, pytest.approx(0.3), pytest.approx(0.3))
    assert torch.equal(views(sound, SOUND, temporal=None), views(sound, SOUND, temporal=2))
    still = load_views(image, IMAGE, temporal=None, spatial=3)
    assert (len(still.clips), still.seconds, still.seconds_seen) == (3, 0, 0)


def test_the_range_of_an_item(video: Path) -> None:
    assert item_range(video, start_seconds=None, end_seconds=None) == pytest.approx((0, 2))
    assert item_range(video, start_seconds=0.5, end_seconds=9) == pytest.approx((0.5, 2))
    for start, end in ((2.5, None), (1.5, 1.0)):
        with pytest.raises(ValueError, match=naming(video, start, end or 2.0)):
            item_range(video, start_seconds=start, end_seconds=end)


# ---- which part of them


def test_three_views_are_left_centre_right(video: Path) -> None:
    left, centre, right = views(video, replace(VIDEO, crop=(32, 32)), spatial=3)
    greens = [view[1].float().mean() for view in (left, centre, right)]
    assert greens == pytest.approx([60, 120, 180], abs=8)
    assert torch.equal(centre, views(video, replace(VIDEO, crop=(32, 32)))[0])


def test_three_views_are_top_centre_bottom_of_a_tall_picture(image: Path) -> None:
    found = views(image, replace(IMAGE, resize=(20, 20), crop=(20, 20)), spatial=3)
    assert found.shape == (3, 3, 1, 20, 20)
    assert [int(view[0, 0, 0, 0]) for view in found] == pytest.approx([0, 60, 120], abs=2)


def test_views_of_one_time_stand_together(video: Path) -> None:
    spec = replace(VIDEO, crop=(32, 32))
    both = views(video, spec, temporal=2, spatial=3)
    assert torch.equal(both[[1, 4]], views(video, spec, temporal=2))


@pytest.mark.parametrize("size", [(1, 1), (5, 4), (7, 9), (6, 9), (7, 3), (2, 7)])
def test_crop_is_the_slice_it_says(size: tuple[int, int]) -> None:
    clip = torch.arange(2 * 7 * 9).view(1, 2, 7, 9)
    h, w = size
    top, left = (7 - h) // 2, (9 - w) // 2
    assert torch.equal(crop(clip, size), clip[..., top : top + h, left : left + w])
    first, last = crop(clip, size, position=0), crop(clip, size, position=1)
    if 7 - h > 9 - w:
        assert torch.equal(first, clip[..., :h, left : left + w])
        assert torch.equal(last, clip[..., 7 - h :, left : left + w])
    else:
        assert torch.equal(first, clip[..., top : top + h, :w])
        assert torch.equal(last, clip[..., top : top + h, 9 - w :])


def test_crop_faults() -> None:
    clip = torch.zeros(3, 1, 8, 8)
    with pytest.raises(ValueError, match=naming("crop", "size=(9, 4)", "(8, 8)")):
        crop(clip, (9, 4))
    with pytest.raises(ValueError, match=naming("position=1.1", 0, 1)):
        crop(clip, (4, 4), position=1.1)


# ---- which numbers


def test_channels(video: Path) -> None:
    rgb = load_frames(video, VIDEO, start_seconds=0)
    assert torch.equal(load_frames(video, replace(VIDEO, channels="bgr"), start_seconds=0), rgb[[2, 1, 0]])
    gray = load_frames(video, replace(VIDEO, channels="gray", mean=(0.5,), std=(0.5,)), start_seconds=0)
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64).view(3, 1, 1, 1)
    assert (gray.shape, gray.dtype) == ((1, 4, 32, 64), torch.uint8)
    assert ((rgb.double() * weights).sum(0) - gray[0]).abs().max() <= 0.501


def test_frames_cover_the_box_of_the_spec(video: Path) -> None:
    clip = load_frames(video, replace(VIDEO, resize=(20, 24), crop=(20, 24)), start_seconds=0)
    assert clip.shape == (3, 4, 20, 40)
    expected = read_frames(video, np.array([0, 0.2, 0.4, 0.6]), cover=(20, 24))
    assert torch.equal(clip, torch.from_numpy(expected).permute(3, 0, 1, 2))


# ---- images and sound


def test_an_image_is_a_clip_of_one_frame(image: Path) -> None:
    clip = views(image, IMAGE)
    assert (clip.dtype, tuple(clip.shape)) == (torch.uint8, (1, 3, 1, 24, 24))
    assert torch.equal(load_times(image, IMAGE, np.zeros(1)), load_frames(image, IMAGE, start_seconds=0))


def test_sound_is_a_normalised_spectrogram(sound: Path) -> None:
    clip = load_frames(sound, SOUND, start_seconds=0.2)
    assert (clip.dtype, tuple(clip.shape)) == (torch.float32, (1, 1, 32, 50))
    samples = read_sound(sound, sample_rate=16000, start_seconds=0.2, seconds=0.49 + 0.025)
    expected = log_mel(samples, sample_rate=16000, mel_bins=32, window_seconds=0.025, hop_seconds=0.01)
    assert expected.shape == (32, 50)
    assert clip[0, 0].numpy() == pytest.approx((expected + 4) / 2, abs=1e-5)


def test_missing_sound_is_silence(sound: Path) -> None:
    whole = load_frames(sound, SOUND, start_seconds=0.0)
    silence = (np.log(np.finfo(np.float32).eps) + 4) / 2
    for start, end, heard in ((0.8, None, 18), (0.0, 0.3, 28), (0.0, 0.005, 1), (5.0, None, 0)):
        clip = load_frames(sound, SOUND, start_seconds=start, end_seconds=end)
        assert clip[..., heard:].numpy() == pytest.approx(silence, abs=1e-5)
        assert (clip[..., :heard] > silence + 0.1).any(2).all()
        if start == 0 and heard > 1:
            assert clip[..., :heard].numpy() == pytest.approx(whole[..., :heard].numpy(), abs=0.1)


def test_views_of_sound(sound: Path) -> None:
    found = views(sound, SOUND, temporal=3)
    assert found.shape == (3, 1, 1, 32, 50)
    for clip, start in zip(found, (0.0, 0.25, 0.5)):
        assert torch.equal(clip, load_frames(sound, SOUND, start_seconds=start))


# ---- faults


def test_a_file_of_another_kind_is_refused(video: Path, image: Path, sound: Path) -> None:
    for path, spec, kinds in (
        (image, VIDEO, ("image", "video")),
        (sound, VIDEO, ("sound", "video")),
        (video, IMAGE, ("video", "image")),
    ):
        with pytest.raises(ValueError, match=naming(path, *map(repr, kinds))):
            load_frames(path, spec, start_seconds=0)
    with pytest.raises(MediaError) as caught:
        load_frames(video, SOUND, start_seconds=0)
    assert caught.value.code == "no-sound"


def test_a_missing_file_is_a_media_error(tmp_path: Path) -> None:
    for spec in (VIDEO, IMAGE, SOUND):
        with pytest.raises(MediaError) as caught:
            views(tmp_path / "nowhere.mp4", spec)
        assert caught.value.code == "missing"


@pytest.mark.parametrize(
    ("spec", "temporal", "spatial", "values"),
    [
        (VIDEO, 0, 1, ("temporal >= 1",)),
        (VIDEO, 1, 2, ("spatial 1 or 3",)),
        (IMAGE, 2, 1, ("image",)),
        (SOUND, 1, 3, ("sound",)),
    ],
)
def test_views_that_do_not_exist(spec: ClipSpec, temporal: int, spatial: int, values: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=naming(f"temporal={temporal}", f"spatial={spatial}", *values)):
        views("unread", spec, temporal=temporal, spatial=spatial)


def test_views_of_a_file_are_read_in_one_pass(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine views that overlap: the file is opened once, and no packet is decoded twice."""
    index(video)
    decoded: list[object] = []
    opened: list[str] = []
    decode, open_media = reader.decode, reader.open_media
    monkeypatch.setattr(reader, "decode", lambda row, stream: decode((decoded.append(p) or p for p in row), stream))
    monkeypatch.setattr(reader, "open_media", lambda path: opened.append(path) or open_media(path))
    views(video, VIDEO, temporal=9)
    assert len(opened) == 1
    assert 10 <= len(decoded) <= FRAMES


def test_views_of_sound_are_read_in_one_pass(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    open_media = reader.open_media
    index(sound)
    monkeypatch.setattr(reader, "open_media", lambda path: opened.append(path) or open_media(path))
    assert views(sound, SOUND, temporal=7).shape[0] == 7
    assert len(opened) == 1
