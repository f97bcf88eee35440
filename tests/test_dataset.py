"""The clips of a training: kept in memory or read each time, cut where they may be, changed with their labels."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from media_files import numbered_frames, read_numbers
from naming import naming
from small_sets import write_image, write_sounds

from tubelet.data.augment import Augmentation
from tubelet.data.clip_spec import ClipSpec
from tubelet.data.clips import crop, load_frames, views
from tubelet.data.dataset import Changes, Clips, kept_bytes
from tubelet.data.segments import StepLabels
from tubelet.data.table import Item
from tubelet.media.reader import MediaError
from tubelet.media.writer import write_video
from tubelet.tasks import Classification, MultiLabel
from tubelet.tasks.multilabel import NONE

VIDEO = ClipSpec(
    frames=4,
    seconds_between_frames=0.2,
    resize=(20, 40),
    crop=(20, 40),
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)
SOUND = replace(
    VIDEO, kind="sound", frames=1, seconds_between_frames=0.01, resize=(16, 20), crop=(16, 20), mean=(0.0,), std=(1.0,),
    channels="mel",
)  # fmt: skip
IMAGE = replace(VIDEO, kind="image", frames=1, seconds_between_frames=0.0)
AS_THEY_ARE = Changes(augmentation=None)
TASK = Classification(("left", "right"))
draw = st.floats(0, 1, exclude_max=True)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """long.mp4: 40 numbered frames in 2 s; short.mp4: 3 in 0.15 s; image.png; low/0.wav and others."""
    root = tmp_path_factory.mktemp("clips")
    write_video(root / "long.mp4", numbered_frames(40, 40, 80), frames_per_second=20)
    write_video(root / "short.mp4", numbered_frames(3, 40, 80), frames_per_second=20)
    write_image(root / "image.png", numbered_frames(1, 40, 80, first=7)[0])
    return write_sounds(root, 1, seconds=1.0)


def clips_of(root: Path, *items: Item, spec: ClipSpec = VIDEO, keep: bool) -> Clips:
    return Clips(root, items, TASK, spec, keep=keep)


def numbers(clip: torch.Tensor) -> list[int]:
    return read_numbers(clip.permute(1, 2, 3, 0).numpy())


LONG = Item("long.mp4", "left")
MIDDLE = Item("long.mp4", "left", 0.5, 1.5)
SHORT = Item("short.mp4", "right")


# ---- kept and not kept


items = st.tuples(st.floats(0, 1.9), st.none() | st.floats(0.01, 2.5))  # start and length in seconds of long.mp4


@given(item=items, frames=st.integers(1, 9), spacing=st.floats(0.02, 0.7), draws=st.lists(draw, min_size=1, max_size=3))
@settings(max_examples=40, deadline=None)
def test_clips_are_the_same_kept_or_read_and_the_middle_one_is_that_of_evaluation(
    root: Path, item: tuple[float, float | None], frames: int, spacing: float, draws: list[float]
) -> None:
    start, length = item
    end = None if length is None else start + length
    spec = replace(VIDEO, frames=frames, seconds_between_frames=spacing)
    where = {"start_seconds": start, "end_seconds": end}
    kept, read = (clips_of(root, Item("long.mp4", "left", start, end), spec=spec, keep=keep) for keep in (True, False))
    expected = views(root / "long.mp4", spec, **where)[0]
    assert torch.equal(kept.centre(0), expected)
    for one in draws:
        assert torch.equal(kept.cut(0, one), read.cut(0, one))
    assert 0 in kept.kept
    assert torch.equal(kept.centre(0), expected), "cut from what is kept"
    assert torch.equal(read.centre(0), expected)


@given(start=st.floats(0, 0.9), length=st.none() | st.floats(0.01, 1.5), hop=st.floats(0.004, 0.02), draw=draw)
@settings(max_examples=40, deadline=None)
def test_sounds_are_the_same_kept_or_read_but_for_rounding(
    root: Path, start: float, length: float | None, hop: float, draw: float
) -> None:
    spec, end = replace(SOUND, seconds_between_frames=hop), None if length is None else start + length
    item = Item("low/0.wav", "left", start, end)
    kept, read = (clips_of(root, item, spec=spec, keep=keep) for keep in (True, False))
    torch.testing.assert_close(kept.cut(0, draw), read.cut(0, draw), atol=1e-4, rtol=1e-5)
    expected = views(root / item.path, spec, start_seconds=start, end_seconds=end)[0]
    assert torch.equal(kept.centre(0), expected)
    assert torch.equal(read.centre(0), expected)


@pytest.mark.parametrize("keep", [True, False])
def test_clips_lie_inside_their_item_and_reach_both_its_ends(root: Path, keep: bool) -> None:
    clips = clips_of(root, LONG, MIDDLE, keep=keep)
    for number, (first, last) in enumerate(((0, 39), (10, 29))):
        seen = [numbers(clips.cut(number, draw)) for draw in np.linspace(0, 0.9999, 30)]
        assert all(b - a == 4 for one in seen for a, b in pairwise(one))
        assert first <= min(one[0] for one in seen) <= first + 1
        assert last - 4 <= max(one[-1] for one in seen) <= last


@pytest.mark.parametrize("keep", [True, False])
def test_an_item_shorter_than_a_clip_holds_its_last_frame(root: Path, keep: bool) -> None:
    clips = clips_of(root, SHORT, Item("long.mp4", "left", 1.9), keep=keep)
    assert numbers(clips.centre(0)) == [0, 2, 2, 2]
    assert numbers(clips.centre(1)) == [38, 39, 39, 39]
    for seed in range(5):
        clip, (label,) = clips.random(0, AS_THEY_ARE, np.random.default_rng(seed))
        assert clip.shape == (3, 4, 20, 40)
        assert set(numbers(clip)) <= {0, 1, 2}
        assert label == "right"


def test_what_is_kept_is_read_once(root: Path, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes((root / "long.mp4").read_bytes())
    items = [Item("a.mp4", "left")]
    kept, read_each_time = (Clips(tmp_path, items, TASK, VIDEO, keep=keep) for keep in (True, False))
    before = kept.centre(0)
    (tmp_path / "a.mp4").unlink()
    assert torch.equal(kept.centre(0), before)
    with pytest.raises(MediaError, match=naming(tmp_path / "a.mp4")) as caught:
        read_each_time.centre(0)
    assert caught.value.code == "missing"


def test_the_memory_for_what_is_kept_is_known_before(root: Path) -> None:
    clips = clips_of(root, LONG, MIDDLE, SHORT, keep=True)
    held = sum(clips.timeline(number).numel() for number in range(3))
    assert kept_bytes(VIDEO, [2.0, 1.0, 0.15]) == held
    sounds = clips_of(root, Item("low/0.wav", "left"), spec=SOUND, keep=True)
    assert kept_bytes(SOUND, [1.0]) == 4 * sounds.timeline(0).numel()
    pictures = clips_of(root, Item("image.png", "left"), spec=IMAGE, keep=True)
    assert kept_bytes(IMAGE, [0.0]) == pictures.timeline(0).numel()


# ---- images and sound


@pytest.mark.parametrize("keep", [True, False])
def test_an_image_is_a_clip_of_one_frame(root: Path, keep: bool) -> None:
    clips = clips_of(root, Item("image.png", "left"), spec=IMAGE, keep=keep)
    assert numbers(clips.centre(0)) == [7]
    clip, (label,) = clips.random(0, AS_THEY_ARE, np.random.default_rng(0))
    assert torch.equal(clip, clips.centre(0))
    assert (clip.dtype, clip.shape, label) == (torch.uint8, (3, 1, 20, 40), "left")


@pytest.mark.parametrize("keep", [True, False])
def test_sound_is_cut_along_its_columns(root: Path, keep: bool) -> None:
    item = Item("low/0.wav", "right")
    clips = clips_of(root, item, spec=SOUND, keep=keep)
    assert clips.centre(0).shape == (1, 1, 16, 20)
    for draw in (0.0, 0.5):
        start = 0.01 * int(81 * draw)
        torch.testing.assert_close(clips.cut(0, draw), load_frames(root / item.path, SOUND, start_seconds=start))
    clip, (label,) = clips.random(0, Changes(augmentation=Augmentation()), np.random.default_rng(0))
    assert (clip.dtype, clip.shape, label) == (torch.float32, (1, 1, 16, 20), "right")


# ---- changes


def test_labels_follow_what_is_seen(tmp_path: Path) -> None:
    """In "left" a light is on the left and grows; mirrored it is "right", backwards it shrinks."""
    frames = np.zeros((8, 20, 40, 3), np.uint8)
    for t in range(8):
        frames[t, :, : 4 + 2 * t] = 220
    write_video(tmp_path / "a.mp4", frames, frames_per_second=5)
    classes = ("grow left", "grow right", "shrink left", "shrink right")
    changes = Changes(
        augmentation=Augmentation(scale=(0.95, 1.0), colour=0.05, reverse=True),
        flipped=dict(zip(classes, [classes[i] for i in (1, 0, 3, 2)])),
        reversed=dict(zip(classes, [classes[i] for i in (2, 3, 0, 1)])),
    )
    clips = Clips(tmp_path, [Item("a.mp4", "grow left")], Classification(classes), VIDEO, keep=True)
    several = Clips(tmp_path, [Item("a.mp4", "grow left;any")], MultiLabel(("any", *classes)), VIDEO, keep=True)
    seen = set()
    for seed in range(30):
        clip, (label,) = clips.random(0, changes, np.random.default_rng(seed))
        light = clip.float().mean((0, 2))  # (T, W)
        side = "left" if light[:, :20].mean() > light[:, 20:].mean() else "right"
        assert label == f"{'grow' if light[-1].mean() > light[0].mean() else 'shrink'} {side}"
        assert several.random(0, changes, np.random.default_rng(seed))[1] == [f"{label};any"]
        seen.add(label)
    assert seen == set(classes)


@pytest.mark.parametrize("keep", [True, False])
def test_each_step_has_the_label_of_its_time_backwards_too(root: Path, keep: bool) -> None:
    """Between 0.5 and 1.5 s somebody goes left, or, backwards, right."""
    steps = StepLabels({root / "long.mp4": [(0.5, 1.5, "left")]}, frames=2, stride=2)
    clips = Clips(root, [LONG], MultiLabel(("left", "right")), VIDEO, keep=keep, steps=steps)
    turn = {"left": "right", "right": "left"}
    plain = Augmentation(scale=(1, 1), aspect=(1, 1), flip=False, reverse=True, colour=0)
    seen = set()
    for seed in range(40):
        found = clips.random(0, Changes(augmentation=plain, reversed=turn), np.random.default_rng(seed))
        assert found is not None
        clip, cells = found
        starts = [min(pair) / 20 for pair in zip(numbers(clip)[::2], numbers(clip)[1::2])]
        backwards = starts[0] > starts[1]
        assert len(cells) == 2
        for start, cell in zip(starts, cells):
            share = (min(start + 0.4, 1.5) - max(start, 0.5)) / 0.4
            if abs(share - 0.5) > 0.15:  # a frame is shown for 0.05 s
                assert cell == (NONE if share < 0.5 else "right" if backwards else "left")
                seen.add((cell, backwards))
    assert seen == {("left", False), ("right", True), (NONE, False), (NONE, True)}


def test_a_single_frame_has_the_label_of_its_item(root: Path) -> None:
    steps = StepLabels({root / "long.mp4": []}, frames=2, stride=2)
    clips = Clips(root, [LONG], MultiLabel(("left", "right")), VIDEO, keep=True, steps=steps)
    found = clips.random(0, AS_THEY_ARE, np.random.default_rng(0), single_frame=True)
    assert found is not None
    assert found[1] == ["left"]


def test_a_users_change_of_sound_comes_last(root: Path) -> None:
    sounds = clips_of(root, Item("low/0.wav", "left"), spec=SOUND, keep=True)
    for augmentation in (None, Augmentation()):
        changes = Changes(augmentation=augmentation)
        clip, _ = sounds.random(0, changes, np.random.default_rng(1))
        turned, _ = sounds.random(0, replace(changes, user=torch.neg), np.random.default_rng(1))
        assert torch.equal(turned, -clip)


def test_the_same_draws_give_the_same_clip_and_a_users_change_comes_last(root: Path) -> None:
    clips = clips_of(root, LONG, keep=True)
    changes = Changes(augmentation=Augmentation(), flipped={})
    one, same, other = (clips.random(0, changes, np.random.default_rng(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    inverted, _ = clips.random(0, replace(changes, user=lambda clip: 255 - clip), np.random.default_rng(1))
    assert torch.equal(inverted, 255 - one)


def test_without_changes_a_clip_is_cut_from_the_centre(root: Path) -> None:
    spec = replace(VIDEO, resize=(24, 48))
    clips = clips_of(root, LONG, spec=spec, keep=True)
    clip, _ = clips.random(0, AS_THEY_ARE, np.random.default_rng(3))
    assert torch.equal(clip, crop(clips.cut(0, np.random.default_rng(3).random()), (20, 40)))


def test_kept_frames_are_not_written_to(root: Path) -> None:
    clips = clips_of(root, LONG, keep=True)
    before = clips.timeline(0).clone()
    changes = Changes(augmentation=Augmentation(), flipped={}, reversed={})
    for seed in range(10):
        clips.random(0, changes, np.random.default_rng(seed))[0].zero_()
    assert torch.equal(clips.timeline(0), before)
