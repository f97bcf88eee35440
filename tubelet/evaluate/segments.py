"""How well a run finds segments in recordings that it was not trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from tubelet.data.segments import Recording
from tubelet.stream.segmenter import Segmenter
from tubelet.stream.segments import Window, find_overlapping
from tubelet.tasks.detection import Found, Row
from tubelet.tasks.segments import TIOUS, SegmentResults, guess_segments, mean_average_precision, measure_segments

LEAST_SCORE = 0.02  # of segments that are measured: average precision asks for the unlikely ones too
ONSETS = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)  # probabilities at which segments of the windows may begin
OFF_SHARE = 0.7  # of that, below which they end


@dataclass(frozen=True)
class Seen:
    """What a model sees in a recording: features (S, D) of its steps, and the probabilities of its windows."""

    recording: Recording
    steps: Tensor
    windows: Sequence[Window]


@dataclass(frozen=True)
class SegmentEvaluation:
    """Segments of recordings, true and found, and their figures. failed: recordings that could not be read, and why."""

    split: str | None
    recordings: tuple[Recording, ...]
    truth: list[Row]
    found: list[Found]
    results: SegmentResults
    failed: Mapping[str, str]


def evaluate_recordings(
    segmenter: Segmenter,
    seen: Sequence[Seen],
    *,
    failed: Mapping[str, str],
    split: str | None,
    seed: int = 0,
) -> SegmentEvaluation:
    """The figures of a segmenter on recordings, beside two baselines: hysteresis on the windows, at whatever onset is
    the best here, and segments of the lengths usual in training at random places.
    """
    recordings = tuple(one.recording for one in seen)
    files = {one.path: one.seconds for one in recordings}
    truth = rows(recordings)
    found = [
        (one.recording.path, each.start_seconds, each.end_seconds, each.label, each.probability)
        for one in seen
        for each in segmenter.find(one.steps, seconds=one.recording.seconds, least_score=LEAST_SCORE)
    ]
    results = measure_segments(
        truth,
        found,
        names=segmenter.names,
        threshold=segmenter.threshold,
        files=files,
        groups={one.path: one.group or one.path for one in recordings},
        baselines={
            "hysteresis on windows": best_of_windows(truth, seen, segmenter.names),
            "the usual length at random places": guess_segments(files, segmenter.usual, np.random.default_rng(seed)),
        },
        failed=len(failed),
    )
    return SegmentEvaluation(split, recordings, truth, found, results, failed)


def rows(recordings: Sequence[Recording]) -> list[Row]:
    return [(one.path, *segment) for one in recordings for segment in one.segments]


def best_of_windows(truth: Sequence[Row], seen: Sequence[Seen], names: Sequence[str]) -> list[Found]:
    """The segments that hysteresis finds in the probabilities of windows, with the onset that serves them best."""
    tried = []
    for on in ONSETS:
        found = [
            (one.recording.path, each.start_seconds, each.end_seconds, each.label, each.probability)
            for one in seen
            for each in find_overlapping(one.windows, names, on=on, off=OFF_SHARE * on)
        ]
        tried.append((mean_average_precision(truth, found, TIOUS)["mAP"], found))
    return max(tried, key=lambda one: one[0])[1]
