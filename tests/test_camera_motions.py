"""The demo set: twins are each other backwards, motions go where their names say, no frame tells its class."""

from pathlib import Path

import numpy as np
import pytest
from naming import naming

from tubelet.media.reader import index, read_frames
from tubelet.synthetic.camera_motions import (
    CLASSES,
    FRAMES,
    FRAMES_PER_SECOND,
    HEIGHT_PX,
    WIDTH_PX,
    render_clip,
    render_demo,
)

NAMES = list(CLASSES)
PAIRS = list(zip(NAMES[::2], NAMES[1::2]))


def clip(name: str, seed: int) -> np.ndarray:
    return render_clip(name, np.random.default_rng(seed))


@pytest.mark.parametrize("name", NAMES)
def test_a_clip_is_uint8_frames_decided_by_the_generator(name: str) -> None:
    frames = clip(name, 3)
    assert frames.shape == (FRAMES, HEIGHT_PX, WIDTH_PX, 3)
    assert frames.dtype == np.uint8
    assert np.array_equal(frames, clip(name, 3))
    assert not np.array_equal(frames, clip(name, 4))


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_twins_show_the_same_frames_in_opposite_order(first: str, second: str) -> None:
    assert np.array_equal(clip(first, 5)[::-1], clip(second, 5))


def follow(frames: np.ndarray, *, right_px: float = 0, clockwise: float = 0, growth: float = 1) -> float:
    """How well each frame, moved like this about its centre, predicts the frame after next: mean correlation."""
    grey = frames.mean(-1)
    x = np.arange(WIDTH_PX) - (WIDTH_PX - 1) / 2 - right_px
    y = np.arange(HEIGHT_PX)[:, None] - (HEIGHT_PX - 1) / 2
    from_x = np.rint((np.cos(clockwise) * x + np.sin(clockwise) * y) / growth + (WIDTH_PX - 1) / 2).astype(int)
    from_y = np.rint((np.cos(clockwise) * y - np.sin(clockwise) * x) / growth + (HEIGHT_PX - 1) / 2).astype(int)
    seen = (from_x >= 0) & (from_x < WIDTH_PX) & (from_y >= 0) & (from_y < HEIGHT_PX)
    before = grey[:-2, from_y[seen], from_x[seen]]
    return float(np.mean([np.corrcoef(a, b[seen])[0, 1] for a, b in zip(before, grey[2:])]))


@pytest.mark.parametrize("seed", range(4))
def test_motions_go_where_their_names_say(seed: int) -> None:
    left, turned, zoomed = (clip(name, seed) for name in ("move_left", "turn_clockwise", "zoom_in"))
    assert follow(left, right_px=-3) > follow(left, right_px=3)
    assert follow(turned, clockwise=0.12) > follow(turned, clockwise=-0.12)
    assert follow(zoomed, growth=1.12) > follow(zoomed, growth=1 / 1.12)


def test_demo_writes_the_same_number_of_readable_clips_for_every_class(tmp_path: Path) -> None:
    folder = render_demo(tmp_path / "demo", clips_per_class=2, seed=1)
    assert folder == tmp_path / "demo"
    assert sorted(entry.name for entry in folder.iterdir()) == sorted(NAMES)
    for label, name in enumerate(NAMES):
        files = sorted((folder / name).iterdir())
        assert [file.name for file in files] == ["0000.mp4", "0001.mp4"]
        for number, file in enumerate(files):
            rendered = render_clip(name, np.random.default_rng([1, label, number]))
            found = index(file)
            assert np.allclose(found.times, np.arange(FRAMES) / FRAMES_PER_SECOND, atol=1e-3)
            decoded = read_frames(file, found.times)
            assert decoded.shape == rendered.shape
            error, error_backwards = (np.abs(decoded - one.astype(float)).mean() for one in (rendered, rendered[::-1]))
            assert error < min(12, error_backwards)  # grey levels lost to compression, sensor noise and all


def test_errors_say_what_was_wrong(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=naming("'jump'", "move_left", "square_then_disc")):
        clip("jump", 0)
    with pytest.raises(ValueError, match=naming("clips_per_class", 0, 1)):
        render_demo(tmp_path / "demo", clips_per_class=0)
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(ValueError, match=naming(tmp_path)):
        render_demo(tmp_path, clips_per_class=1)
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine.txt"]
