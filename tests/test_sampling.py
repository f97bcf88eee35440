"""Laws of the arithmetic on times, and a brute-force oracle for the frame on screen."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naming import naming

from tubelet.media.sampling import (
    FINER,
    MOST_VIEWS,
    UNSEEN,
    clip_times,
    displayed_frames,
    grid_clip,
    grid_times,
    view_starts,
    views_to_cover,
)

seconds = st.floats(0, 1000, allow_nan=False)


def test_clip_times_step_evenly_from_the_start():
    times = clip_times(2.5, frames=4, seconds_between_frames=0.5)
    assert times.dtype == np.float64
    assert times.tolist() == [2.5, 3.0, 3.5, 4.0]


def test_long_clips_do_not_drift():
    times = clip_times(0.0, frames=100_001, seconds_between_frames=0.1)
    assert times[-1] == pytest.approx(10_000, abs=1e-9)


@given(duration=seconds, span=seconds, views=st.integers(1, 20))
@settings(max_examples=100, deadline=None)
def test_views_stay_inside_and_are_even(duration, span, views):
    starts = view_starts(duration, span, views)
    assert starts.shape == (views,)
    assert starts.min() >= 0
    if span <= duration:
        assert starts.max() + span <= duration + 1e-9
    else:
        assert (starts == 0).all()
    assert np.allclose(np.diff(starts, n=2), 0, atol=1e-9)
    mirrored = max(0.0, duration - span) - starts[::-1]
    assert np.allclose(starts, mirrored, atol=1e-9), "the views favour neither end"


def test_several_views_touch_both_ends_and_one_is_centred():
    assert view_starts(10, 4, 3).tolist() == [0, 3, 6]
    assert view_starts(10, 4, 1).tolist() == [3]


@given(duration=seconds, span=st.floats(0.01, 100))
@settings(max_examples=100, deadline=None)
def test_as_many_views_as_cover_a_file(duration, span):
    views = views_to_cover(duration, span)
    assert 1 <= views <= MOST_VIEWS
    if views < MOST_VIEWS:
        assert duration - views * span <= UNSEEN * span + 1e-9
    if views > 1:
        assert duration - (views - 1) * span > UNSEEN * span - 1e-9, "one fewer would have done"


def test_a_file_hardly_longer_than_a_clip_has_one_view():
    durations = (0, 1, 2, 2.5, 2.6, 4, 4.5, 4.6, 60, 1e6)
    assert [views_to_cover(seconds, 2) for seconds in durations] == [1, 1, 1, 1, 2, 2, 2, 3, 30, MOST_VIEWS]
    assert views_to_cover(0, 0) == 1  # an image


@given(start=seconds, duration=st.floats(0, 60), frames=st.integers(1, 20), spacing=st.floats(0.01, 4))
@settings(max_examples=200, deadline=None)
def test_a_grid_holds_the_middle_clip_to_the_bit_and_others_on_both_sides(start, duration, frames, spacing):
    end, span = start + duration, frames * spacing
    grid = grid_times(start, end, frames=frames, seconds_between_frames=spacing)
    assert np.allclose(np.diff(grid), spacing / FINER)
    middle = clip_times(start + view_starts(end - start, span, 1)[0], frames=frames, seconds_between_frames=spacing)
    assert (grid[grid_clip(len(grid), None, frames=frames)] == middle).all()
    starts = len(grid) - (frames - 1) * FINER
    clips = {tuple(grid_clip(len(grid), (i + 0.5) / starts, frames=frames)) for i in range(starts)}
    assert clips == {tuple(first + FINER * np.arange(frames)) for first in range(starts)}, "each is drawn as often"
    rounding = 1e-5 * spacing + 1e-9
    assert grid[0] >= start - rounding
    if duration < span - 0.002:
        assert starts == 1
    elif duration > span:
        step = spacing / FINER
        assert grid[0] < start + step + rounding, "the first clip begins with the item"
        assert end - spacing - step - rounding < grid[-1] <= end - step + rounding, "the last one's frames lie inside"


def test_a_grid_of_columns_has_as_many_clips_as_fit():
    assert grid_clip(10, 0.0, frames=8, finer=1).tolist() == list(range(8))
    assert grid_clip(10, 0.999, frames=8, finer=1).tolist() == list(range(2, 10))
    assert grid_clip(10, None, frames=8, finer=1).tolist() == list(range(1, 9))


def on_screen(frame_times: list[float], wanted: float) -> int:
    """The slow way: walk through the frames while they are not later than wanted, a millisecond forgiven."""
    index = 0
    for place, time in enumerate(frame_times):
        if time <= wanted + 0.001:
            index = place
    return index


@given(gaps=st.lists(st.floats(0.002, 2), max_size=20), wanted=st.lists(st.floats(-1, 50), min_size=1, max_size=20))
@settings(max_examples=100, deadline=None)
def test_displayed_frames_agree_with_the_slow_way(gaps, wanted):
    times = [0.0, *np.cumsum(gaps).tolist()]
    assert displayed_frames(np.array(times), np.array(wanted)).tolist() == [on_screen(times, want) for want in wanted]


@pytest.mark.parametrize("rate", [23.976, 24, 25, 29.97, 30, 50, 59.94, 60, 120, 240])
def test_times_rounded_to_milliseconds_still_name_their_frame(rate):
    exact = np.arange(1000) / rate
    for offset in (0.0, 0.0004, 0.0335):
        rounded = np.round(exact + offset, 3) - round(offset, 3)
        assert (displayed_frames(rounded, exact) == np.arange(1000)).all()


def test_before_the_first_is_the_first_and_after_the_last_is_held():
    times = np.array([0.0, 0.5, 2.0])
    assert displayed_frames(times, np.array([-5.0, 0.0, 0.498, 0.4995, 1.9, 2.0, 99.0])).tolist() == [
        0,
        0,
        0,
        1,
        1,
        2,
        2,
    ]


def test_wanted_times_keep_their_shape():
    assert displayed_frames(np.array([0.0, 1.0]), np.zeros((2, 3))).shape == (2, 3)


@pytest.mark.parametrize(
    ("call", "values"),
    [
        (lambda: clip_times(0, frames=0, seconds_between_frames=1), ("frames", 0, "frames >= 1")),
        (lambda: clip_times(0, frames=1, seconds_between_frames=0), ("seconds_between_frames", 0)),
        (lambda: clip_times(0, frames=1, seconds_between_frames=float("nan")), ("seconds_between_frames", "nan")),
        (lambda: view_starts(1, 1, 0), ("views", 0, "views >= 1")),
        (lambda: grid_clip(9, 1.0, frames=2), ("draw", 1.0, "[0, 1)")),
        (lambda: displayed_frames(np.array([]), np.array([0.0])), ("frame_times",)),
    ],
)
def test_errors(call, values):
    with pytest.raises(ValueError, match=naming(*values)):
        call()
