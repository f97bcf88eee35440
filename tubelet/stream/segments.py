"""A timeline of segments from the answers of a sliding window: pure arithmetic."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from tubelet.system.console import clock
from tubelet.tasks.detection import Found


@dataclass(frozen=True)
class Window:
    """One stretch of a video and the probability of each class there, (classes,) float32."""

    start_seconds: float
    end_seconds: float
    probabilities: np.ndarray


@dataclass(frozen=True)
class Segment:
    """A stretch in which one class holds; `probability` is its mean over the stretch."""

    start_seconds: float
    end_seconds: float
    label: str
    probability: float

    def row(self, path: str) -> Found:
        """Of a file, as the measures of segments take it."""
        return path, self.start_seconds, self.end_seconds, self.label, self.probability


def borders(windows: Sequence[Window]) -> np.ndarray:
    """Cuts the time into one cell for each window, (N,) -> (N + 1,) seconds.

    A window speaks for the time nearest to its middle; the first and the last for the ends as well.

    windows  |-----------|
                 |-----------|
                     |-----------|
    cells    |-------|---|-------|
    """
    starts, ends = (np.array([getattr(w, name) for w in windows]) for name in ("start_seconds", "end_seconds"))
    middles = (starts + ends) / 2
    return np.concatenate([starts[:1], (middles[1:] + middles[:-1]) / 2, ends[-1:]])


def find_segments(
    windows: Sequence[Window], classes: Sequence[str], *, on: float, off: float, min_seconds: float = 0.0
) -> list[Segment]:
    """The stretches in which something happens, in order, none over another.

    A segment begins where a class is the likeliest and its probability reaches `on`. It ends where that probability
    falls below `off`, or where another segment begins. Of these, the ones shorter than `min_seconds` are left out;
    then two of one label with less than `min_seconds` between them become one.

    Raises:
        ValueError: thresholds that are not 0 < off <= on <= 1.
    """
    if not 0 < off <= on <= 1:
        raise ValueError(f"on = {on}, off = {off}: expected probabilities, 0 < off <= on <= 1")
    if not windows:
        return []
    chances = np.stack([window.probabilities for window in windows])
    return join_cells(windows, chances, hysteresis(chances, on=on, off=off), classes, min_seconds=min_seconds)


def find_overlapping(windows: Sequence[Window], classes: Sequence[str], *, on: float, off: float) -> list[Segment]:
    """The stretches in which each class holds, whatever the others do."""
    numbered = enumerate(classes if windows else ())
    return [one for number, name in numbered for one in find_stretches(windows, number, name, on=on, off=off)]


def find_stretches(windows: Sequence[Window], number: int, name: str, *, on: float, off: float) -> list[Segment]:
    """The stretches in which one class holds: `find_segments` of windows that know no other."""
    chances = np.stack([window.probabilities[[number]] for window in windows])
    return join_cells(windows, chances, hysteresis(chances, on=on, off=off), [name])


def join_cells(
    windows: Sequence[Window],
    chances: np.ndarray,
    states: Sequence[int | None],
    classes: Sequence[str],
    *,
    min_seconds: float = 0.0,
) -> list[Segment]:
    """Segments of the cells of one class in a row. chances: (N, classes); states: the class that is on in each."""
    cuts = borders(windows)
    spans: list[tuple[int, int, int]] = []  # class, first cell, cell after the last
    stop = 0
    for label, cells in groupby(states):
        first, stop = stop, stop + len(list(cells))
        if label is None or cuts[stop] - cuts[first] < min_seconds:
            continue
        if spans and spans[-1][0] == label and cuts[first] - cuts[spans[-1][2]] < min_seconds:
            first = spans.pop()[1]
        spans.append((label, first, stop))
    lengths = np.diff(cuts)
    return [
        Segment(float(cuts[a]), float(cuts[b]), classes[k], float(np.average(chances[a:b, k], weights=lengths[a:b])))
        for k, a, b in spans
    ]


def hysteresis(chances: np.ndarray, *, on: float, off: float) -> list[int | None]:
    """Probabilities (N, classes) -> for each of the N the class that is on, if one is."""
    state: int | None = None
    states = []
    for row in chances:
        best = int(row.argmax())
        if row[best] >= on:
            state = best
        elif state is not None and row[state] < off:
            state = None
        states.append(state)
    return states


def moment(seconds: float) -> str:
    """75.25 -> 1:15.2, 3675 -> 1:01:15.0."""
    whole, tenths = divmod(int(max(0.0, seconds) * 10 + 1e-6), 10)
    return f"{clock(whole)}.{tenths}"


def srt(segments: Sequence[Segment]) -> str:
    """Segments as SubRip subtitles: walk (93%)."""
    entries = []
    for number, one in enumerate(segments, 1):
        span = f"{_srt_time(one.start_seconds)} --> {_srt_time(one.end_seconds)}"
        entries.append(f"{number}\n{span}\n{one.label} ({100 * one.probability:.0f}%)\n")
    return "\n".join(entries)


def _srt_time(seconds: float) -> str:
    minutes, thousandths = divmod(round(seconds * 1000), 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{thousandths // 1000:02d},{thousandths % 1000:03d}"
