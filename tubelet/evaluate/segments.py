"""Figures of the segments that a run finds in recordings that it was not trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tubelet.data.segments import Recording, Recordings, as_source, read_segments
from tubelet.evaluate.clips import choose_items
from tubelet.evaluate.show import show_results
from tubelet.media.address import join
from tubelet.media.reader import MediaError
from tubelet.predict.predictor import Predictor
from tubelet.runs.share import ALONE, Form, Keep, Key, Share, Work, pack_array, unpack_array
from tubelet.stream.segmenter import Segmenter
from tubelet.stream.segments import Window, find_overlapping
from tubelet.stream.stream import windows_of_file
from tubelet.system.console import bar, console
from tubelet.system.text import visible
from tubelet.tasks.detection import Found, Row
from tubelet.tasks.segments import TIOUS, SegmentResults, guess_segments, mean_average_precision, measure_segments

LEAST_SCORE = 0.02  # of segments that are measured: average precision asks for the unlikely ones too
ONSETS = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)  # probabilities at which segments of the windows may begin
OFF_SHARE = 0.7  # of that, below which they end


@dataclass(frozen=True)
class Seen:
    """A recording as a model sees it: features (S, D) of its steps, and the probabilities of its windows."""

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
        each.row(one.recording.path)
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


def evaluate_segments(
    predictor: Predictor,
    segmenter: Segmenter,
    data: Path,
    *,
    split: str | None = None,
    workers: int = 2,
    show: bool = True,
    share: Share = ALONE,
) -> SegmentEvaluation:
    """The figures on the recordings of a table: those of `split`, or, left out, of the test split, else val, else all,
    without those that the run was trained on. share: who looks through them.

    Raises:
        ValueError: labels that the model does not know, or no recordings to evaluate.
    """

    def choose() -> tuple[Recordings, str | None, list[Recording]]:
        found = read_segments(data, workers=workers, minimum=1, show=show)
        if strangers := sorted(set(found.names) - set(segmenter.names)):
            known = ", ".join(segmenter.names)
            raise ValueError(f"{data} has labels the model does not know: {', '.join(strangers)}; it knows {known}")
        chosen, items = choose_items(predictor.run, as_source(found), split)
        paths = {item.path for item in items}
        return found, chosen, [one for one in found.recordings if one.path in paths]

    found, split, recordings = share.begin(choose)

    def make(numbers: list[int], keep: Keep[Seen | str]) -> None:
        with bar("evaluating", len(numbers), show=show) as progress:
            for number in numbers:
                try:
                    keep(number, look_through(predictor, segmenter, found.root, recordings[number]))
                except MediaError as error:
                    keep(number, str(error))
                progress.advance(f"{progress.done + 1}/{progress.total} recordings left {progress.left}")

    keys: list[Key] = [(one.path, None, None) for one in recordings]
    made = share.make(Work(keys, make, seen_form(recordings), root=found.root, about=predictor.describe))
    failed = {one.path: why for one, why in zip(recordings, made, strict=True) if isinstance(why, str)}
    failed = {**found.unreadable, **failed}
    seen = [one for one in made if isinstance(one, Seen)]
    evaluation = evaluate_recordings(segmenter, seen, failed=failed, split=split)
    if show:
        show_results(evaluation.results, split=split, noun="recording")
        for message in failed.values():
            console.print(visible(message), style="red", soft_wrap=True)
    return evaluation


def seen_form(recordings: Sequence[Recording]) -> Form[Seen | str]:
    """Recordings as seen, and messages, as JSON: the recording is told by its number."""

    def pack(one: Seen | str) -> Any:
        if isinstance(one, str):
            return one
        windows = [[w.start_seconds, w.end_seconds, pack_array(w.probabilities)] for w in one.windows]
        return [pack_array(one.steps.cpu().numpy()), windows]

    def unpack(number: int, packed: Any) -> Seen | str:
        if isinstance(packed, str):
            return packed
        windows = [Window(start, end, unpack_array(values)) for start, end, values in packed[1]]
        return Seen(recordings[number], torch.from_numpy(unpack_array(packed[0])), windows)

    return Form(pack, unpack)


def look_through(
    predictor: Predictor, segmenter: Segmenter, root: Path, recording: Recording, steps: Tensor | None = None
) -> Seen:
    """A recording as a model sees it. Raises MediaError where it cannot be read to its end.

    steps: of another time, if they are there.
    """
    path, hop_seconds = join(root, recording.path), predictor.spec.span_seconds / 2
    windows = list(windows_of_file(predictor, path, hop_seconds=hop_seconds))
    return Seen(recording, segmenter.see(path) if steps is None else steps, windows)


def rows(recordings: Sequence[Recording]) -> list[Row]:
    return [(one.path, *segment) for one in recordings for segment in one.segments]


def best_of_windows(truth: Sequence[Row], seen: Sequence[Seen], names: Sequence[str]) -> list[Found]:
    """The segments that hysteresis finds in the probabilities of windows, with the onset that serves them best."""
    tried = []
    for on in ONSETS:
        found = [
            each.row(one.recording.path)
            for one in seen
            for each in find_overlapping(one.windows, names, on=on, off=OFF_SHARE * on)
        ]
        tried.append((mean_average_precision(truth, found, TIOUS)["mAP"], found))
    return max(tried, key=lambda one: one[0])[1]
