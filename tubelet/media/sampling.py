"""The moments of a file that a clip is made of: pure arithmetic on times in seconds, no file is touched.

A clip of `frames` frames, `seconds_between_frames` apart, spans `frames * seconds_between_frames`: each frame owns the
time until the next one, the last frame too.

    clip_times(start, frames=4, seconds_between_frames=d)

        start   +d      +2d     +3d
        |-------|-------|-------|-------|
        f0      f1      f2      f3
        <-------- span = 4 * d -------->
"""

import math

import numpy as np

TIME_ROUNDING_SECONDS = 0.001  # Matroska and Flash round times to a millisecond, the first and the wanted frame's alike
FINER = 2  # a grid of times is so many times as fine as a clip: clips begin between two frames of another, too
ROUNDING = 1e-6  # of a step
MOST_VIEWS = 32  # of a file, unless more are asked for: of a longer one, what lies between them is not looked at
UNSEEN = 0.25  # of a clip: a second one for less would look at the same again


def clip_times(start_seconds: float, *, frames: int, seconds_between_frames: float) -> np.ndarray:
    """Returns the wanted presentation times of one clip, `(frames,)` float64 seconds.

    Raises: ValueError: fewer than one frame, or a step that is not positive.
    """
    if frames < 1:
        raise ValueError(f"frames is {frames}: a clip has at least one frame; pass frames >= 1")
    if not seconds_between_frames > 0:
        raise ValueError(
            f"seconds_between_frames is {seconds_between_frames}: time runs forward; pass a number above 0"
        )
    return start_seconds + np.arange(frames, dtype=np.float64) * seconds_between_frames


def view_starts(duration_seconds: float, span_seconds: float, views: int) -> np.ndarray:
    """Returns the starts of `views` clips spread evenly over a file, `(views,)` float64 seconds.

        |==============================|   file
        |-------|                          view 0 starts at 0
                   |-------|               view 1
                               |-------|   view 2 ends with the file

    One view sits in the middle. A file shorter than the span has only one place for a clip: every start is 0.

    Raises: ValueError: fewer than one view.
    """
    if views < 1:
        raise ValueError(f"views is {views}: a file is seen at least once; pass views >= 1")
    room_seconds = max(0.0, duration_seconds - span_seconds)
    if views == 1:
        return np.array([room_seconds / 2])
    return np.linspace(0.0, room_seconds, views)


def views_to_cover(duration_seconds: float, span_seconds: float) -> int:
    """Returns how many clips, spread evenly, a file is looked at with: one where it is hardly longer than a clip, at
    most `MOST_VIEWS`, between them so many that less than `UNSEEN` of a clip is left out.

        |===========================|    file
        |-------| |-------| |-------|    three views leave a little out between them
    """
    if span_seconds <= 0:  # an image
        return 1
    return min(max(1, math.ceil(duration_seconds / span_seconds - UNSEEN)), MOST_VIEWS)


def grid_times(start_seconds: float, end_seconds: float, *, frames: int, seconds_between_frames: float) -> np.ndarray:
    """Returns all times that the clips of an item are made of in training, `(N,)` float64 seconds: a grid `FINER` times
    as fine as a clip, laid so that one of its clips is the one that `view_starts` has in the middle.

        |=======================================|    item
        . . . . . 0 . 1 . 2 . 3 . . . . . . . .      the grid, and the middle clip
        0 . 1 . 2 . 3                                the first
                            0 . 1 . 2 . 3            the last ends half a frame after the item: its frames lie inside

    An item shorter than a clip has one clip.
    """
    step_seconds, span_seconds = seconds_between_frames / FINER, frames * seconds_between_frames
    room_seconds = end_seconds - start_seconds - span_seconds
    middle_seconds = start_seconds + view_starts(end_seconds - start_seconds, span_seconds, 1)[0]
    before = int(max(room_seconds, 0.0) / 2 / step_seconds + ROUNDING)
    after = before + (room_seconds > -TIME_ROUNDING_SECONDS) + (frames - 1) * FINER
    return middle_seconds + np.arange(-before, after + 1) * step_seconds


def grid_clip(times: int, draw: float | None, *, frames: int, finer: int = FINER) -> np.ndarray:
    """Returns which of the `times` of a grid are a clip, `(frames,)` int64: that of a random `draw` in [0, 1), each as
    likely as the others, or, where it is None, the one in the middle.

    Raises: ValueError: a draw outside [0, 1).
    """
    if draw is not None and not 0 <= draw < 1:
        raise ValueError(f"draw is {draw}: it must be in [0, 1), as random.random() gives it")
    starts = times - (frames - 1) * finer
    first = (starts - 1) // 2 if draw is None else min(int(draw * starts), starts - 1)
    return first + finer * np.arange(frames)


def displayed_frames(frame_times: np.ndarray, wanted_times: np.ndarray) -> np.ndarray:
    """Returns the index of the frame on screen at each wanted time, int64, the shape of `wanted_times`.

        frame_times    0       1   2           3
                       |-------|---|-----------|- - - - (the last frame is held)
        wanted_times ^     ^       ^        ^       ^
        index        0     0       2        2       3

    A wanted time may lie a millisecond before its frame: containers round times to their own clock.

    frame_times: `(N,)` seconds, sorted. wanted_times: seconds, any shape and order.

    Raises: ValueError: there is no frame at all.
    """
    if len(frame_times) == 0:
        raise ValueError("frame_times is empty: no frame can be on screen; pass the times of at least one frame")
    latest = np.searchsorted(frame_times, np.asarray(wanted_times) + TIME_ROUNDING_SECONDS, side="right") - 1
    return np.maximum(latest, 0)
