"""Recordings of which only the labels are known, not when: a model that learned from noisy windows says when."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tubelet.data.segments import Recording, Recordings, Span
from tubelet.predict.predictor import Predictor
from tubelet.stream.segments import Window, find_stretches
from tubelet.stream.stream import windows_of_file
from tubelet.system.console import bar

TOP_SHARE = 0.1  # of the windows of a recording, the likeliest of which surely show its label, the others not


def locate_labels(predictor: Predictor, data: Recordings, *, show: bool) -> Recordings:
    """Recordings with segments for the labels that have no times, where a model finds them likeliest."""
    weak = [one for one in data.recordings if one.untimed]
    located: dict[str, Recording] = {}
    with bar("locating", len(weak), show=show) as progress:
        for one in weak:
            hop_seconds = predictor.spec.span_seconds / 2
            windows = list(windows_of_file(predictor, data.root / one.path, hop_seconds=hop_seconds))
            located[one.path] = replace(one, segments=locate(windows, one, predictor.classes), untimed=())
            progress.advance(f"{progress.done + 1}/{progress.total} recordings left {progress.left}")
    return replace(data, recordings=tuple(located.get(one.path, one) for one in data.recordings))


def locate(windows: Sequence[Window], recording: Recording, classes: Sequence[str]) -> tuple[Span, ...]:
    """A recording's labels where its windows are nearer to the likeliest of them than to the least likely."""
    chances = np.stack([window.probabilities for window in windows])  # (N, K)
    top = max(1, round(TOP_SHARE * len(windows)))
    ordered = np.sort(chances, axis=0)
    middle = (ordered[:top].mean(0) + ordered[-top:].mean(0)) / 2
    spans = []
    for label in recording.untimed:
        number = classes.index(label)
        on = float(np.clip(middle[number], 1e-6, 1.0))
        found = find_stretches(windows, number, label, on=on, off=on)
        spans += [(one.start_seconds, one.end_seconds, label) for one in found]
    return tuple(sorted(spans))
