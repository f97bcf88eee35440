"""The head that finds segments, from recordings as an encoder sees them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from tubelet.data.segments import Recording
from tubelet.evaluate.segments import rows
from tubelet.predict.predictor import Predictor
from tubelet.stream.segmenter import Segmenter
from tubelet.system.console import bar
from tubelet.tasks.segments import point_f1, usual_segments
from tubelet.train.pyramid import Lesson, fit_pyramid
from tubelet.train.step_cache import Seen

THRESHOLD = 0.3  # of the score, where validation recordings chose no other
THRESHOLDS = np.arange(0.05, 0.95, 0.05)  # of which they choose


def train_head(
    predictor: Predictor, training: Sequence[Seen], chosen: Sequence[Seen], *, seed: int, count: int, show: bool
) -> tuple[Segmenter, list[float]]:
    """A segmenter that has learned, and its loss along the training.

    chosen: recordings that choose the score from which segments are shown; none where all that are left are measured.
    """
    segmenter = Segmenter.untrained(predictor, THRESHOLD)
    lessons = [make_lesson(steps, one, segmenter) for one, steps in training]
    losses = list[float]()
    with bar("segments", count, show=show) as progress:

        def after(loss: float) -> None:
            losses.append(loss)
            progress.advance(f"loss {loss:.3f} left {progress.left}")

        pyramid = fit_pyramid(lessons, num_classes=len(segmenter.names), seed=seed, count=count, after=after)
    recordings = [one for one, _ in training]
    usual = usual_segments(rows(recordings), sum(one.seconds for one in recordings))
    segmenter = replace(segmenter, pyramid=pyramid, usual=usual)
    if any(one.segments for one, _ in chosen):
        segmenter = replace(segmenter, threshold=choose_threshold(segmenter, chosen))
    return segmenter, losses


def make_lesson(steps: Tensor, recording: Recording, segmenter: Segmenter) -> Lesson:
    rows = [[start, end, segmenter.names.index(label)] for start, end, label in recording.segments]
    segments = torch.tensor(rows, dtype=torch.float32).reshape(-1, 3)
    segments[:, :2] = segmenter.in_steps(segments[:, :2])
    return Lesson(steps, segments)


def choose_threshold(segmenter: Segmenter, chosen: Sequence[Seen]) -> float:
    """The score from which on segments are shown: that with the best F1 on validation recordings."""
    found = [
        each.row(one.path)
        for one, steps in chosen
        for each in segmenter.find(steps, seconds=one.seconds, least_score=float(THRESHOLDS[0]))
    ]
    truth = rows([one for one, _ in chosen])
    scores = [point_f1(truth, [one for one in found if one[4] >= threshold]) for threshold in THRESHOLDS]
    return float(THRESHOLDS[int(np.argmax(scores))])
