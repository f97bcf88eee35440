"""The page (`report.html`) and the model card (`README.md`) of a run that finds segments."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tubelet.data.segments import Recording
from tubelet.evaluate.segments import SegmentEvaluation, rows
from tubelet.report.page import CONTENTS, find_warnings, link_file, list_card, render, weakest_first
from tubelet.report.plots import curve_svg, lanes_svg, recall_svg, strip_uri
from tubelet.runs.run import CARD, ENCODER, PREDICTIONS, REPORT, WEAK, WINDOWS
from tubelet.stream.segments import Segment
from tubelet.system.files import write_whole
from tubelet.system.text import plural
from tubelet.tasks.detection import MET_TIOU, Found, Row, highest_tious, mean_average_precision, precision_curves
from tubelet.tasks.segments import TIOUS, SegmentResults, point_f1

CURVE_TIOU = 0.5
WORST_DRAWN, DRAWN = 3, 6  # recordings: the worst ones, and all with those spread over the others
LISTED = 6  # misses, and as many false alarms
FEWEST_GROUPS = 5  # of which an interval says much
_CONTENTS = {
    ENCODER: "the training of the encoder, a run of its own",
    PREDICTIONS: "every segment that was found in the test, with its score, also those below the threshold",
    REPORT: "the results above as a page with timelines, curves and the worst mistakes",
    f"{ENCODER}-{WINDOWS}": "the windows that the encoder learned from",
    **dict.fromkeys(WEAK, "the training of an encoder that said when labels without times hold"),
    **{f"{name}-{WINDOWS}": "the windows that this one learned from" for name in WEAK},
}


@dataclass(frozen=True)
class FinishedSegments:
    """A run that finds segments at its end. config: as in config.json, with the model and the clip of its encoder;
    results: as in results.json; losses: of each step in which the head learned."""

    path: Path
    config: dict[str, Any]
    names: tuple[str, ...]
    evaluation: SegmentEvaluation
    results: dict[str, Any]
    losses: list[float]
    noun = "recording"
    counted = "segment"

    @property
    def name(self) -> str:
        return str(self.config["model_name"])

    @property
    def split(self) -> str | None:
        return self.evaluation.split

    @property
    def summary(self) -> SegmentResults:
        return self.evaluation.results

    @property
    def baselines(self) -> list[tuple[str, float]]:
        """The baselines, in words, and the figure of each, the best first."""
        return sorted(self.summary.baselines.items(), key=lambda one: -one[1])

    @property
    def classes(self) -> tuple[str, ...]:
        return self.names

    @property
    def totals(self) -> dict[str, dict[str, int]]:
        data = self.config["data"]
        every = {split: sum(counts.values()) for split, counts in data["counts"].items()}
        return {"all": every, "recordings": data["recordings"]}

    @property
    def asked(self) -> int:
        return self.summary.clips + len(self.failed)

    @property
    def failed(self) -> list[tuple[str, str]]:
        return list(self.evaluation.failed.items())

    def describe(self) -> str:
        return f"finds segments of {plural(len(self.names), 'class')}"

    @cached_property
    def answer(self) -> list[Found]:
        """The segments that are shown: those with a score of the threshold or more."""
        return [one for one in self.evaluation.found if one[4] >= self.summary.threshold]

    @property
    def misses(self) -> list[Row]:
        """True segments that nothing shown is of, the longest first."""
        tious = highest_tious(self.evaluation.truth, self.answer)
        missed = [row for row, tiou in zip(self.evaluation.truth, tious, strict=True) if tiou < MET_TIOU]
        return sorted(missed, key=lambda row: (row[1] - row[2], row))

    @property
    def alarms(self) -> list[Found]:
        """Shown segments that are of no true one, the surest first."""
        tious = highest_tious(self.answer, self.evaluation.truth)
        false = [one for one, tiou in zip(self.answer, tious, strict=True) if tiou < MET_TIOU]
        return sorted(false, key=lambda one: (-one[4], one))


@dataclass(frozen=True)
class Lanes:
    """The picture of a recording, none where nothing happens and nothing was found. width_px: the least."""

    recording: Recording
    point_f1: float
    svg: str | None = None
    width_px: int = 0


@dataclass(frozen=True)
class Piece:
    """A segment as a page shows it. name: of the file, with its times; strip: a data URI, None where it is gone."""

    name: str
    label: str
    seconds: float
    score: float | None
    strip: str | None


def write_segment_report(run: FinishedSegments, *, frames: Callable[[str, float, float], np.ndarray | None]) -> Path:
    """Draws RUN/report.html, one self-contained page; replaces an older one in one step.

    `frames(path, start_seconds, end_seconds)` gives uint8 (T, H, W, 3) frames from the start to the end of a segment,
    or None where they cannot be read. The worst misses and false alarms are asked for.
    """
    misses, alarms = ([picture(row, frames) for row in given[:LISTED]] for given in (run.misses, run.alarms))
    lanes = [draw_recording(run, one) for one in choose_recordings(run)]
    names = [*(one.recording.path for one in lanes), *(one.name for one in (*misses, *alarms))]
    columns, table = list_precisions(run)
    page = render(
        "segments.html.jinja",
        run,
        warnings=warn(run),
        lanes=lanes,
        met_tiou=MET_TIOU,
        worst_drawn=WORST_DRAWN,
        columns=columns,
        rows=weakest_first(table[:-1]),
        every=table[-1],
        curve_tiou=CURVE_TIOU,
        curves=draw_curves(run),
        misses=misses,
        alarms=alarms,
        loss=curve_svg([*enumerate(run.losses, 1)], [], name="loss", over="steps") if run.losses else None,
        encoder=f"{ENCODER}/{REPORT}" if (run.path / ENCODER / REPORT).is_file() else None,
        links={name: link_file(run, name) for name in names},
        failed_shown=len(run.failed),
    )
    write_whole(file := run.path / REPORT, page)
    return file


def write_segment_card(run: FinishedSegments) -> Path:
    """Writes RUN/README.md, a Hugging Face model card; replaces an older one in one step."""
    columns, table = run.summary.table()
    card = render(
        "segments.md.jinja",
        run,
        **list_card(run),
        warnings=warn(run),
        pipeline="video-classification",  # of those that Hugging Face knows, the nearest
        tag="temporal-action-localization",
        columns=columns,
        rows=table,
        contents=CONTENTS | _CONTENTS,
    )
    write_whole(file := run.path / CARD, card)
    return file


def warn(run: FinishedSegments) -> list[str]:
    """The warnings of every run, and one of an interval over few groups."""
    groups = len({one.group or one.path for one in run.evaluation.recordings})
    few = f"Tested on {plural(groups, 'group')} of recordings: of fewer than {FEWEST_GROUPS} the interval says little."
    return [*find_warnings(run), *([few] if groups < FEWEST_GROUPS else [])]


def choose_recordings(run: FinishedSegments) -> list[Recording]:
    """Up to six recordings: the three with the lowest point F1, then others, from worse to better."""
    ranked = sorted(run.evaluation.recordings, key=lambda one: (measure_recording(run, one), one.path))
    worst, others = ranked[:WORST_DRAWN], ranked[WORST_DRAWN:]
    spread = np.linspace(0, len(others) - 1, min(len(others), DRAWN - WORST_DRAWN)).round().astype(int)
    return [*worst, *(others[number] for number in spread)]


def measure_recording(run: FinishedSegments, recording: Recording) -> float:
    """The point F1 of one recording; 1 where nothing happens and nothing is shown."""
    return float(np.nan_to_num(point_f1(rows([recording]), answers_in(run, recording)), nan=1.0))


def answers_in(run: FinishedSegments, recording: Recording) -> list[Found]:
    return [one for one in run.answer if one[0] == recording.path]


def draw_recording(run: FinishedSegments, recording: Recording) -> Lanes:
    """The lanes of the classes that are true or shown somewhere in a recording."""
    found = [Segment(*one[1:]) for one in answers_in(run, recording)]
    there = {label for *_, label in recording.segments} | {one.label for one in found}
    names, figure = [name for name in run.names if name in there], measure_recording(run, recording)
    if not names:
        return Lanes(recording, figure)
    drawn = lanes_svg(found, names, seconds=recording.seconds, truth=recording.segments, file=recording.path)
    return Lanes(recording, figure, *drawn)


def list_precisions(run: FinishedSegments) -> tuple[list[str], list[list[Any]]]:
    """Columns, and the average precision of each class at each tIoU, that of all classes last."""
    summary, evaluation = run.summary, run.evaluation
    at = mean_average_precision(evaluation.truth, evaluation.found, TIOUS)["per_class"]
    columns = ["class", "AP", *(f"{tiou:g}" for tiou in TIOUS), "0.5 to 0.95", "recall", "segments"]
    unknown = [None] * len(TIOUS)
    table = [
        [one["label"], one["ap"], *at.get(one["label"], unknown), one["ap_strict"], one["recall"], one["support"]]
        for one in summary.per_class
    ]
    recalled = sum((one["recall"] or 0.0) * one["support"] for one in summary.per_class) / summary.segments
    every = ["all", summary.map, *summary.per_tiou, summary.map_strict, recalled, summary.segments]
    return columns, [*table, every]


def draw_curves(run: FinishedSegments) -> list[tuple[str, float, str]]:
    """Name, average precision and curve of each class with a true segment, the weakest first."""
    curves = precision_curves(run.evaluation.truth, run.evaluation.found, CURVE_TIOU)
    precisions = {row["label"]: row["ap_50"] for row in run.summary.per_class}
    return [(name, precisions[name], recall_svg(curves[name])) for name in sorted(curves, key=precisions.__getitem__)]


def picture(row: Row | Found, frames: Callable[[str, float, float], np.ndarray | None]) -> Piece:
    path, start, end, label, *score = row
    given = frames(path, start, end)
    strip = None if given is None else strip_uri(given)
    return Piece(f"{path}#t={start:.2f},{end:.2f}", label, end - start, score[0] if score else None, strip)
