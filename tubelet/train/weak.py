"""Recordings of which only the labels are known, not when: a model that learned from noisy windows says when."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tubelet.data.segments import Recording, Recordings
from tubelet.media.address import join
from tubelet.predict.predictor import Predictor
from tubelet.stream.segments import Window, join_cells
from tubelet.stream.stream import windows_of_file
from tubelet.system.console import bar

HOLDS, ABSENT = 0.25, 0.4  # of the time of a recording: the likeliest in which a label surely holds, or does not
TOP_SHARE = 0.1  # of the windows of a recording: the likeliest and the least likely, half way between which it begins
LEAST = 1e-6  # probability


def locate_labels(predictor: Predictor, data: Recordings, *, sure: bool, show: bool) -> Recordings:
    """Recordings with segments for the labels that have no times, where a model finds them likeliest; see `locate`."""
    weak = [one for one in data.recordings if one.untimed]
    located: dict[str, Recording] = {}
    with bar("locating", len(weak), show=show) as progress:
        for one in weak:
            hop_seconds = predictor.spec.span_seconds / 2
            windows = list(windows_of_file(predictor, join(data.root, one.path), hop_seconds=hop_seconds))
            located[one.path] = locate(windows, one, predictor.classes, sure=sure)
            progress.advance(f"{progress.done + 1}/{progress.total} recordings left {progress.left}")
    return replace(data, recordings=tuple(located.get(one.path, one) for one in data.recordings))


def locate(windows: Sequence[Window], recording: Recording, classes: Sequence[str], *, sure: bool) -> Recording:
    """A recording whose labels hold in its likeliest windows.

    sure: only the likeliest and the least likely count, the time between is unknown; else every window is nearer to the
    ones or to the others.
    """
    chances = np.stack([window.probabilities for window in windows]).clip(LEAST, 1 - LEAST)  # (N, K)
    logits = np.log(chances / (1 - chances))
    held = np.zeros(chances.shape, bool)
    unknown = np.zeros(len(windows), bool)
    for number in map(classes.index, recording.untimed):
        ranks = (logits[:, number].argsort().argsort() + 0.5) / len(windows)
        if sure:
            held[:, number] = ranks > min(1 - HOLDS, ranks.max() - 1e-9)
            unknown |= ~held[:, number] & (ranks > ABSENT)
        else:
            ends = [logits[some, number].mean() for some in (ranks <= TOP_SHARE, ranks >= 1 - TOP_SHARE) if some.any()]
            held[:, number] = logits[:, number] >= np.mean(ends or logits[:, number])

    def spans(holds: np.ndarray, label: str) -> list[tuple[float, float, str]]:
        found = join_cells(windows, holds[:, None], [0 if one else None for one in holds], [label])
        return [(one.start_seconds, one.end_seconds, label) for one in found]

    segments = [span for label in recording.untimed for span in spans(held[:, classes.index(label)], label)]
    open_spans = tuple((start, end) for start, end, _ in spans(unknown, ""))
    return replace(recording, segments=tuple(sorted(segments)), untimed=(), unknown=open_spans)
