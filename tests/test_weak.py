"""Labels without times: when a model that learned from noisy windows says that they hold, and what is left open."""

from pathlib import Path

import numpy as np
import pytest

from tubelet.data.segments import Recording, Recordings, StepLabels, cut_windows
from tubelet.stream.segments import Window
from tubelet.tasks import MultiLabel
from tubelet.tasks.multilabel import NONE
from tubelet.train.weak import ABSENT, HOLDS, locate

CLASSES = ("run", "walk", "wave")


def windows_of(chances: np.ndarray) -> list[Window]:
    """Of a second each, one after the other; chances (N,) of walking."""
    rows = np.stack([np.full(len(chances), 0.9), chances, np.full(len(chances), 0.4)], 1)
    return [Window(float(n), n + 1.0, row) for n, row in enumerate(rows)]


def moments(spans: list[tuple[float, float]], count: int) -> np.ndarray:
    """Which of so many seconds lie in one of the spans, by their middles, (count,) bool."""
    middles = np.arange(count) + 0.5
    return np.any([(start <= middles) & (middles < end) for start, end in spans] or [np.zeros(count, bool)], axis=0)


@pytest.mark.parametrize("count", [1, 2, 7, 20, 61])
@pytest.mark.parametrize("seed", range(4))
def test_what_is_sure_are_the_likeliest_and_what_is_open_lies_between(count: int, seed: int) -> None:
    chances = np.random.default_rng(seed).permutation(np.linspace(0.01, 0.99, count))
    found = locate(windows_of(chances), Recording("a.mp4", float(count), (), untimed=("walk",)), CLASSES, sure=True)
    held, unknown = moments(found.named("walk"), count), moments(list(found.unknown), count)
    assert {label for *_, label in found.segments} == {"walk"}
    assert found.untimed == ()
    assert held.any()
    assert not (held & unknown).any()
    assert abs(held.sum() - max(1, HOLDS * count)) <= 1
    assert abs((~held & ~unknown).sum() - ABSENT * count) <= 1
    likeliest = chances[held].min()
    assert all(chances[unknown] < likeliest)
    assert chances[~held & ~unknown].max(initial=0.0) < chances[held | unknown].min()


def test_otherwise_every_moment_is_nearer_to_one_or_the_other() -> None:
    chances = np.array([0.1, 0.1, 0.9, 0.8, 0.3, 0.1, 0.1, 0.95, 0.1, 0.1])
    found = locate(windows_of(chances), Recording("a.mp4", 10.0, (), untimed=("walk",)), CLASSES, sure=False)
    assert found.segments == ((2.0, 4.0, "walk"), (7.0, 8.0, "walk"))
    assert found.unknown == ()


def test_of_what_is_unknown_nothing_is_learned() -> None:
    one = Recording("a.mp4", 8.0, ((1.0, 3.0, "walk"),), "train", unknown=((3.0, 6.0),))
    steps = StepLabels({Path("a.mp4"): one.spans}, frames=2, stride=2)
    cells = steps.cells(Path("a.mp4"), 0.5 * np.arange(16), 0.5)
    assert cells == [NONE, "walk", "walk", "", "", "", NONE, NONE]
    assert MultiLabel(("walk",)).targets(cells).isnan().flatten().tolist() == [cell == "" for cell in cells]
    data = Recordings(Path(), (one,), ("walk",))
    for borders, expected in ((False, {5.75}), (True, {0.0, 1.75, 5.75})):
        windows = cut_windows(data, 2.0, seed=0, borders=borders)
        assert {item.start_seconds for item in windows} == expected


def test_a_label_without_times_holds_everywhere() -> None:
    one = Recording("a.mp4", 4.0, (), "train", untimed=("walk", "wave"))
    steps = StepLabels({Path("a.mp4"): one.spans}, frames=1, stride=1)
    assert steps.cells(Path("a.mp4"), np.arange(4.0), 1.0) == ["walk;wave"] * 4
