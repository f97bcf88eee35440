"""From windows to segments: laws over random answers, a brute-force oracle, and the formats."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naming import naming

from tubelet.stream.segments import Segment, Window, borders, find_segments, hysteresis, moment, srt

CLASSES = ["walk", "run", "jump"]


def windows_of(chances: np.ndarray, *, window: float = 2.0, hop: float = 0.5) -> list[Window]:
    return [Window(i * hop, i * hop + window, row) for i, row in enumerate(chances.astype(np.float32))]


def drawn(seed: int, count: int) -> np.ndarray:
    """Probabilities (count, 3) that wander."""
    logits = np.cumsum(np.random.default_rng(seed).normal(0, 0.8, (count, 3)), 0)
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


# ---- cells


def test_cells_meet_in_the_middle_and_fill_the_time() -> None:
    windows = [Window(a, b, np.zeros(1)) for a, b in ((0, 4), (1, 5), (2, 6), (2.5, 6.5))]
    assert borders(windows).tolist() == [0, 2.5, 3.5, 4.25, 6.5]
    assert borders(windows[:1]).tolist() == [0, 4]


# ---- hysteresis


@given(st.integers(0, 10**6), st.integers(1, 60), st.floats(0.05, 1), st.floats(0.05, 1))
@settings(max_examples=100, deadline=None)
def test_hysteresis_is_its_definition(seed: int, count: int, one: float, other: float) -> None:
    """Class k is on at i where it was the likeliest and reached `on` at some j <= i, and since then was never below
    `off`, nor did another class come on."""
    chances, off, on = drawn(seed, count), min(one, other), max(one, other)
    comes_on = [row.argmax() if row.max() >= on else None for row in chances]
    for i, state in enumerate(hysteresis(chances, on=on, off=off)):
        expected = None
        for j in range(i, -1, -1):
            if comes_on[j] is not None:
                expected = comes_on[j] if (chances[j + 1 : i + 1, comes_on[j]] >= off).all() else None
                break
        assert state == expected


@given(st.integers(0, 10**6), st.integers(1, 60), st.floats(0.05, 1), st.floats(0.05, 1), st.floats(0, 3))
@settings(max_examples=100, deadline=None)
def test_segments_are_in_order_long_enough_and_as_likely_as_they_say(
    seed: int, count: int, one: float, other: float, shortest: float
) -> None:
    windows, off, on = windows_of(drawn(seed, count)), min(one, other), max(one, other)
    found = find_segments(windows, CLASSES, on=on, off=off, min_seconds=shortest)
    cuts = borders(windows)
    for segment in found:
        assert segment.end_seconds - segment.start_seconds >= shortest
        assert {segment.start_seconds, segment.end_seconds} <= set(cuts.tolist())
        cells = (cuts[:-1] >= segment.start_seconds) & (cuts[1:] <= segment.end_seconds)
        chances = np.stack([w.probabilities for w in windows])[cells, CLASSES.index(segment.label)]
        mean = (chances * np.diff(cuts)[cells]).sum() / (segment.end_seconds - segment.start_seconds)
        assert segment.probability == pytest.approx(mean, abs=1e-6)
        assert chances.max() >= on - 1e-6
        if shortest == 0:
            assert chances.min() >= off - 1e-6
    for before, after in pairwise(found):
        assert before.end_seconds <= after.start_seconds
        assert before.label != after.label or after.start_seconds - before.end_seconds >= max(shortest, 1e-9)


def test_one_state_a_cell_without_a_shortest_length() -> None:
    for seed in range(20):
        windows = windows_of(drawn(seed, 40))
        states = hysteresis(np.stack([w.probabilities for w in windows]), on=0.6, off=0.4)
        found = find_segments(windows, CLASSES, on=0.6, off=0.4)
        cuts = borders(windows)
        for i, state in enumerate(states):
            middle = (cuts[i] + cuts[i + 1]) / 2
            over = [one.label for one in found if one.start_seconds <= middle < one.end_seconds]
            assert over == ([] if state is None else [CLASSES[state]])


def test_an_example_by_hand() -> None:
    walk = np.array([0.1, 0.6, 0.45, 0.45, 0.2, 0.9, 0.1, 0.9, 0.9])
    chances = np.stack([walk, 1 - walk, 0 * walk], 1)
    chances[:, 1] *= np.array([1, 1, 1, 1, 0.3, 1, 1, 1, 1])  # nothing is likely at the fifth
    windows = windows_of(chances, window=1.0, hop=1.0)
    found = find_segments(windows, CLASSES, on=0.5, off=0.4)
    spans = [(one.start_seconds, one.end_seconds, one.label) for one in found]
    assert spans == [
        *((0, 1, "run"), (1, 2, "walk"), (2, 4, "run"), (5, 6, "walk")),
        *((6, 7, "run"), (7, 9, "walk")),
    ]
    found = find_segments(windows, CLASSES, on=0.5, off=0.4, min_seconds=1.5)
    assert [(one.start_seconds, one.end_seconds, one.label) for one in found] == [(2, 4, "run"), (7, 9, "walk")]
    joined = find_segments(windows, CLASSES, on=0.8, off=0.7, min_seconds=1.0)
    assert [(one.start_seconds, one.end_seconds, one.label) for one in joined][-1] == (7, 9, "walk")


def test_a_short_gap_is_closed() -> None:
    walk = np.array([0.9, 0.9, 0.1, 0.9, 0.9])
    windows = windows_of(np.stack([walk, 1 - walk, 0 * walk], 1), window=1.0, hop=1.0)
    apart = find_segments(windows, CLASSES, on=0.5, off=0.5)
    assert [one.label for one in apart] == ["walk", "run", "walk"]
    (whole,) = find_segments(windows, CLASSES, on=0.5, off=0.5, min_seconds=1.5)
    assert whole == Segment(0.0, 5.0, "walk", pytest.approx(walk.mean(), abs=1e-6))


def test_no_windows_no_segments() -> None:
    assert find_segments([], CLASSES, on=0.5, off=0.4) == []


@pytest.mark.parametrize(("on", "off"), [(0.4, 0.5), (0.5, 0.0), (1.1, 0.5)])
def test_thresholds_that_cannot_be(on: float, off: float) -> None:
    with pytest.raises(ValueError, match=naming(on, off, "0 < off <= on <= 1")):
        find_segments([], CLASSES, on=on, off=off)


# ---- formats


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00.0"), (9.96, "0:09.9"), (75.25, "1:15.2"), (3599.99, "59:59.9"), (3675, "1:01:15.0"), (0.3, "0:00.3")],
)
def test_moments(seconds: float, text: str) -> None:
    assert moment(seconds) == text


def test_subtitles() -> None:
    text = srt([Segment(0, 1.5, "walk", 0.934), Segment(3599.9996, 7325.25, "jump [x]", 1.0)])
    assert text == (
        "1\n00:00:00,000 --> 00:00:01,500\nwalk (93%)\n\n2\n01:00:00,000 --> 02:02:05,250\njump [x] (100%)\n"
    )
    assert srt([]) == ""
