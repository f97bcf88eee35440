"""Segments found in videos: what is measured of them, and what finds some without a model."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, ClassVar

import numpy as np

from tubelet.system.text import decimal, list_names, percent, plural
from tubelet.tasks.detection import (
    PROTOCOLS,
    Found,
    Matched,
    Row,
    match_classes,
    mean_average_precision,
    point_f1,
    point_hits,
    time_f1,
)
from tubelet.tasks.intervals import group_interval
from tubelet.tasks.task import Results, mean_known, none_if_unknown

__all__ = [
    "Found",
    "Row",
    "SegmentResults",
    "guess_segments",
    "mean_average_precision",
    "measure_segments",
    "point_f1",
    "time_f1",
    "usual_segments",
]

TIOUS = (0.3, 0.4, 0.5, 0.6, 0.7)  # as papers report THUMOS14
Usual = Mapping[str, tuple[float, float]]  # of each class the median length in seconds, and how many a second
STRICT_TIOUS = tuple(np.linspace(0.5, 0.95, 10).tolist())  # as ActivityNet


@dataclass(frozen=True)
class SegmentResults(Results):
    """Figures of what was found in `clips` files of `seconds` in all, which hold `segments` true segments.

    map: mean average precision over the classes with a true segment and TIOUS, by the protocol of ActivityNet;
    per_tiou: at each of these. map_strict: over STRICT_TIOUS. The F1, and the recall in per_class, are of the segments
    with a score of `threshold` or more. baselines: the map of each, by what it is in words; ahead: the interval of how
    far `map` is above it, over the same groups.
    """

    clips: int
    failed: int
    seconds: float
    segments: int
    map: float
    interval: list[float]
    per_tiou: list[float]
    map_strict: float
    map_strict_interval: list[float]
    threshold: float
    point_f1: float
    frame_f1: float
    baselines: dict[str, float]
    ahead: dict[str, list[float]]
    per_class: list[dict[str, Any]]
    confusion = None
    calibration = None
    figure_name: ClassVar[str] = "map"

    def number(self, figure: float) -> str:
        return decimal(figure)

    def say(self, figure: float) -> str:
        return f"mAP {decimal(figure, 2)}"

    def baseline(self) -> tuple[str, float]:
        return max(self.baselines.items(), key=lambda one: one[1], default=("finding nothing", 0.0))

    def interval_above(self, name: str, figure: float) -> list[float]:
        return self.ahead.get(name) or super().interval_above(name, figure)

    def facts(self) -> list[tuple[str, str]]:
        low, high = map(self.number, self.map_strict_interval)
        shown = f"of segments with a score of {self.threshold:g} or more"
        best, _ = self.baseline()
        return [
            ("mAP over tIoU 0.5 to 0.95", f"{self.number(self.map_strict)} ({low} to {high})"),
            (f"mAP at tIoU {', '.join(map(str, TIOUS))}", ", ".join(map(self.number, self.per_tiou))),
            (f"point F1 {shown}", percent(self.point_f1)),
            (f"frame F1 {shown}", percent(self.frame_f1)),
            ("true segments", f"{self.segments} in {plural(round(self.seconds / 60, 1), 'minute')}"),
            *((words, f"mAP {self.number(figure)}") for words, figure in self.baselines.items() if words != best),
        ]

    def table(self) -> tuple[list[str], list[list[Any]]]:
        keys = ("ap_50", "ap", "ap_strict", "recall", "support")
        columns = ["class", "AP at tIoU 0.5", "AP over 0.3 to 0.7", "AP over 0.5 to 0.95", "recall", "segments"]
        return columns, [[row["label"], *(row[key] for key in keys)] for row in self.per_class]

    def warnings(self) -> list[str]:
        absent = [row["label"] for row in self.per_class if not row["support"]]
        return [f"Not tested, for no file that could be read holds them: {list_names(absent)}."] if absent else []


def measure_segments(
    truth: Sequence[Row],
    found: Sequence[Found],
    *,
    names: Sequence[str],
    threshold: float,
    files: Mapping[str, float],
    groups: Mapping[str, str],
    baselines: Mapping[str, Sequence[Found]],
    failed: int = 0,
) -> SegmentResults:
    """The figures of what was found in files.

    names: of the classes. threshold: the score from which a segment is shown. files: the seconds of each that was
    looked at, also where it holds nothing; groups: the group of each, of which those in one, such as one recording, are
    not independent. baselines: what else finds segments, in words, and what it found.

    Raises:
        ValueError: no true segment; a segment in a file, or of a class, that is not named; as `check_rows`.
    """
    if not truth:
        raise ValueError(f"no true segment in {plural(len(files), 'file')}: nothing can be measured")
    every_row = chain(truth, found, *baselines.values())
    strange = [row for row in every_row if row[0] not in files or row[3] not in names]
    if strange:
        raise ValueError(
            f"{plural(len(strange), 'segment')} in no file or of no class that is measured, the first "
            f"{tuple(strange[0])}: expected one of {plural(len(files), 'file')} and of {list_names(names)}"
        )
    numbers = {file: number for number, file in enumerate(files)}
    protocol = PROTOCOLS["activitynet"]
    matched = match_classes(truth, found, (*TIOUS, *STRICT_TIOUS), numbers, protocol)
    rivals = {words: match_classes(truth, given, TIOUS, numbers, protocol) for words, given in baselines.items()}

    def precisions(classes: Mapping[str, Matched], rows: np.ndarray) -> np.ndarray:
        kept = np.isin(np.arange(len(files)), rows)
        return np.array([one.average_precisions(kept) for one in classes.values()])

    def mean_precision(rows: np.ndarray, classes: Mapping[str, Matched] = matched) -> float:
        return mean_known(precisions(classes, rows)[:, : len(TIOUS)])

    def strict_mean_precision(rows: np.ndarray) -> float:
        return mean_known(precisions(matched, rows)[:, len(TIOUS) :])

    def lead(rival: Mapping[str, Matched], rows: np.ndarray) -> float:
        return mean_precision(rows) - mean_precision(rows, rival)

    every, members = np.arange(len(files)), [groups[file] for file in files]
    shown = [one for one in found if one[4] >= threshold]
    support, hits = Counter(row[3] for row in truth), point_hits(truth, shown)
    table = dict(zip(matched, precisions(matched, every), strict=True))
    unknown = np.full(len(TIOUS) + len(STRICT_TIOUS), np.nan)
    rows = [
        {
            "label": name,
            "ap_50": none_if_unknown(ap[TIOUS.index(0.5)]),
            "ap": none_if_unknown(ap[: len(TIOUS)].mean()),
            "ap_strict": none_if_unknown(ap[len(TIOUS) :].mean()),
            "recall": hits[name] / support[name] if support[name] else None,
            "support": support[name],
        }
        for name, ap in ((name, table.get(name, unknown)) for name in names)
    ]
    return SegmentResults(
        clips=len(files),
        failed=failed,
        seconds=math.fsum(files.values()),
        segments=len(truth),
        map=mean_precision(every),
        interval=group_interval(members, mean_precision),
        per_tiou=[mean_known(column) for column in np.array([*table.values()]).T[: len(TIOUS)]],
        map_strict=strict_mean_precision(every),
        map_strict_interval=group_interval(members, strict_mean_precision),
        threshold=threshold,
        point_f1=point_f1(truth, shown),
        frame_f1=time_f1(truth, shown),
        baselines={words: mean_precision(every, classes) for words, classes in rivals.items()},
        ahead={words: group_interval(members, partial(lead, classes)) for words, classes in rivals.items()},
        per_class=rows,
    )


def usual_segments(rows: Sequence[Row], seconds: float) -> Usual:
    """Median length and number a second of the segments of each class, in recordings of so many seconds in all."""
    lengths = defaultdict(list)
    for _, start, end, label in rows:
        lengths[label].append(end - start)
    return {label: (float(np.median(known)), len(known) / seconds) for label, known in sorted(lengths.items())}


def guess_segments(files: Mapping[str, float], usual: Usual, rng: np.random.Generator) -> list[Found]:
    """Segments of the usual lengths and numbers at random places, with random scores. files: the seconds of each."""
    found = []
    for file, seconds in files.items():
        for label, (usual_length, per_second) in usual.items():
            length = min(usual_length, seconds)
            count = int(seconds * per_second + rng.random())  # rounded so that its mean is right
            for start, score in zip(rng.uniform(0, seconds - length, count), rng.random(count), strict=True):
                found.append((file, float(start), float(start) + length, label, float(score)))
    return found
