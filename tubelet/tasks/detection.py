"""Measures of found segments: average precision as two challenges measure it, F1 by points and by time.

Rows are (file, start_seconds, end_seconds, label); found ones have a score behind these, the best the highest.
tIoU is the time that two segments share, of the time that they span together.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Row = tuple[str, float, float, str]  # file, start_seconds, end_seconds, label
Found = tuple[str, float, float, str, float]  # the same and a score
MET_TIOU = 0.1  # from which on a found segment and a true one are taken to be of one event, in pictures and lists
AMBIGUOUS = "Ambiguous"  # the label of THUMOS14 for what is right neither to find nor to miss


def mean_average_precision(
    truth: Sequence[Row], found: Sequence[Found], tious: Sequence[float], *, protocol: str = "activitynet"
) -> dict[str, Any]:
    """{"mAP": mean over all, "per_tiou": [mean over the classes], "per_class": {label: [AP at each tIoU]}}.

    The classes are those of the truth, found segments of others are left out; without any, means are NaN.

    activitynet: found segments, the best score first, take the true one of their file with the highest tIoU that none
    took, if the tIoU is at least the threshold. Precision at a recall is the best at that or a higher one. Of equal
    scores the one given first goes first; of equal tIoUs the true segment given last is taken.
    Source: ActivityNet's eval_detection.py.

    thumos: true segments, in the order given, take the found one of their file with the highest tIoU that none took, if
    the tIoU is above the threshold, so that not the best score but the best place is right. AP is the sum of the
    precisions at right segments, as they are, over the number of true ones. Of equal scores the first file by name goes
    first, then the one given first. "Ambiguous" is no class: what meets such a segment and is not right is not counted.
    Source: THUMOS14's TH14evalDet_Updated.m; TH14eventdetpr.m, which differs, averages precision at 11 recalls.

    Raises:
        ValueError: another protocol; a tIoU that is not in 0..1, or none; a segment that ends before it starts; a
            number that is not finite.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol {protocol!r}: expected one of {', '.join(PROTOCOLS)}")
    if not len(tious) or not all(0 <= tiou <= 1 for tiou in tious):
        raise ValueError(f"tIoUs {list(tious)}: expected one or more numbers in 0..1")
    files = {file: number for number, file in enumerate({row[0] for row in truth} | {one[0] for one in found})}
    classes = match_classes(truth, found, tious, files, PROTOCOLS[protocol])
    every = np.ones(len(files), bool)
    per_class = {label: one.average_precisions(every) for label, one in classes.items()}
    per_tiou = np.mean(list(per_class.values()), 0) if per_class else np.full(len(tious), np.nan)
    return {
        "mAP": float(per_tiou.mean()),
        "per_tiou": per_tiou.tolist(),
        "per_class": {label: one.tolist() for label, one in per_class.items()},
    }


def precision_curves(truth: Sequence[Row], found: Sequence[Found], tiou: float) -> dict[str, np.ndarray]:
    """Recall and precision, (2, n), at each right segment of the n, by the class of the truth; as ActivityNet.

    The area under the steps, each reaching back to the recall before it, is the average precision.
    """
    files = {file: number for number, file in enumerate({row[0] for row in truth} | {one[0] for one in found})}
    every, curves = np.ones(len(files), bool), {}
    for label, one in match_classes(truth, found, [tiou], files, PROTOCOLS["activitynet"]).items():
        (right,), (precision,) = one.precisions(every)
        curves[label] = np.stack([np.arange(1, right.sum() + 1) / one.true.sum(), precision[right]])
    return curves


def highest_tious(rows: Sequence[Row | Found], others: Sequence[Row | Found]) -> np.ndarray:
    """(N,), for each of N segments the highest tIoU with another of its file and label; 0 where there is none."""
    spans, highest = spans_by_place(others), np.zeros(len(rows))
    for number, (file, start, end, label, *_) in enumerate(rows):
        if (file, label) in spans:
            highest[number] = overlaps(np.array([[start, end]]), spans[file, label]).max()
    return highest


@dataclass(frozen=True)
class Protocol:
    """match: true spans (M, 2), found ones (N, 2), the best first, and T tIoUs -> which are right, (T, N) bool.

    order: key by which found segments are sorted. envelope: whether precision is the best at that or a higher recall.
    unclear: label of segments that are no truth; found ones that meet them and are not right are not counted.
    """

    match: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    order: Callable[[Found], Any]
    envelope: bool
    unclear: str | None = None


@dataclass(frozen=True)
class Matched:
    """The found segments of one class, N, the best first; matched once, measured on any of the files.

    files: (N,), the number of each one's file. right, wrong: (T, N) bool, at each tIoU. true: (files,), how many true
    segments each file has. envelope: as in `Protocol`.
    """

    files: np.ndarray
    right: np.ndarray
    wrong: np.ndarray
    true: np.ndarray
    envelope: bool

    def average_precisions(self, kept: np.ndarray) -> np.ndarray:
        """Which files count, (files,) bool -> average precision at each tIoU, (T,); NaN without a true segment."""
        right, precision = self.precisions(kept)
        true = self.true[kept].sum()
        return (precision * right).sum(1) / true if true else np.full(len(right), np.nan)

    def precisions(self, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which files count -> which of the found segments in them are right, and the precision up to each, (T, n)."""
        right, wrong = (flags[:, kept[self.files]] for flags in (self.right, self.wrong))
        hits = right.cumsum(1)
        precision = hits / np.maximum(hits + wrong.cumsum(1), 1)
        if self.envelope:
            precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        return right, precision


def match_classes(
    truth: Sequence[Row], found: Sequence[Found], tious: Sequence[float], files: Mapping[str, int], protocol: Protocol
) -> dict[str, Matched]:
    """The matches of each class of the truth, by label; files: the number of each."""
    check_rows((*truth, *found))
    found_of: dict[str, list[Found]] = defaultdict(list)
    for one in sorted(found, key=protocol.order):
        found_of[one[3]].append(one)
    true, thresholds, classes = spans_by_place(truth), np.asarray(tious, float), {}
    unclear = {file: spans for (file, label), spans in true.items() if label == protocol.unclear}
    for label in sorted({row[3] for row in truth} - {protocol.unclear}):
        there = found_of[label]
        numbers = np.array([files[one[0]] for one in there], int)
        right, counted = np.zeros((len(thresholds), len(there)), bool), np.ones(len(there), bool)
        for (file, _), spans in spans_by_place(there).items():
            rows = numbers == files[file]
            if (file, label) in true:
                right[:, rows] = protocol.match(true[file, label], spans, thresholds)
            if file in unclear:
                counted[rows] = (shared_seconds(spans, unclear[file]) == 0).all(1)
        count = np.bincount([files[row[0]] for row in truth if row[3] == label], minlength=len(files))
        classes[label] = Matched(numbers, right, ~right & counted, count, protocol.envelope)
    return classes


def match_found(true: np.ndarray, found: np.ndarray, tious: np.ndarray) -> np.ndarray:
    """Found spans, in turn, take true ones, as in ActivityNet."""
    return take_in_turn(overlaps(found, true[::-1]), tious, np.greater_equal)[0]


def match_true(true: np.ndarray, found: np.ndarray, tious: np.ndarray) -> np.ndarray:
    """True spans, in turn, take found ones, as in THUMOS14."""
    hull = np.maximum(true[:, None, 1], found[:, 1]) - np.minimum(true[:, None, 0], found[:, 0])
    return take_in_turn(divide(shared_seconds(true, found), hull), tious, np.greater)[1]


PROTOCOLS = {
    "activitynet": Protocol(match_found, order=lambda one: -one[4], envelope=True),
    "thumos": Protocol(match_true, order=lambda one: (-one[4], one[0]), envelope=False, unclear=AMBIGUOUS),
}


def take_in_turn(tiou: np.ndarray, thresholds: np.ndarray, reaches: np.ufunc) -> tuple[np.ndarray, np.ndarray]:
    """Each row in turn takes the column with the highest tIoU that none took, where this `reaches` the threshold.

    tiou: (N, M), M > 0; T thresholds -> rows that took one, (T, N) bool, and columns that were taken, (T, M) bool.
    """
    took, free = np.zeros((len(thresholds), len(tiou)), bool), np.ones((len(thresholds), tiou.shape[1]), bool)
    for number, row in enumerate(tiou):
        left = np.where(free, row, -1.0)
        took[:, number] = hit = reaches(left.max(1), thresholds)
        free[hit, left.argmax(1)[hit]] = False
    return took, ~free


def point_f1(truth: Sequence[Row], found: Sequence[Found]) -> float:
    """F1 over all segments where one is right that `point_hits` counts; NaN without any segment."""
    hits, segments = sum(point_hits(truth, found).values()), len(truth) + len(found)
    return 2 * hits / segments if segments else math.nan


def point_hits(truth: Sequence[Row], found: Sequence[Found]) -> Counter[str]:
    """The number of found segments of each label that are right.

    The best score first, each takes a true segment of its file and label, of those that none took the one given first,
    in which its middle lies.
    """
    free: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in truth:
        free[row[0], row[3]].append(row)
    hits: Counter[str] = Counter()
    for file, start, end, label, _ in sorted(found, key=lambda one: -one[4]):
        middle, rows = (start + end) / 2, free[file, label]
        if (place := next((i for i, row in enumerate(rows) if row[1] <= middle <= row[2]), None)) is not None:
            del rows[place]
            hits[label] += 1
    return hits


def time_f1(truth: Sequence[Row], found: Sequence[Found]) -> float:
    """F1 of the seconds of all files and labels, to which frame F1 comes as frames get short; NaN where none lasts.

    Segments of one file and label that lie over each other are one.
    """
    true_spans, found_spans = spans_by_place(truth), spans_by_place(found)
    seconds: tuple[list[float], list[float], list[float]] = [], [], []  # true, found, both
    for place in true_spans | found_spans:
        true, said = (merge(spans.get(place, np.empty((0, 2)))) for spans in (true_spans, found_spans))
        for parts, new in zip(seconds, (lengths(true), lengths(said), shared_seconds(true, said)), strict=True):
            parts += new.ravel().tolist()
    true_sum, found_sum, both = map(math.fsum, seconds)  # exact: 1 where all is right
    return 2 * both / (true_sum + found_sum) if true_sum + found_sum else math.nan


def check_rows(rows: Sequence[Row | Found]) -> None:
    """Raises ValueError for segments that end before they start, and numbers that are not finite."""
    bad = [row for row in rows if not (all(map(math.isfinite, (*row[1:3], *row[4:]))) and row[1] <= row[2])]
    if bad:
        raise ValueError(
            f"{len(bad)} of {len(rows)} segments, the first {tuple(bad[0])}: expected (file, start_seconds, "
            "end_seconds, label) and a score of found ones, finite numbers and no end before its start"
        )


def spans_by_place(rows: Sequence[Row] | Sequence[Found] | Sequence[Row | Found]) -> dict[tuple[str, str], np.ndarray]:
    """Start and end in seconds, (N, 2), of the segments of each file and label, in the order given."""
    spans: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        spans[row[0], row[3]].append((row[1], row[2]))
    return {place: np.array(pairs, float) for place, pairs in spans.items()}


def merge(spans: np.ndarray) -> np.ndarray:
    """(N, 2) -> (M, 2), in order: the same seconds, none twice."""
    starts, ends = spans[spans[:, 0].argsort()].T
    ends = np.maximum.accumulate(ends)
    gaps = np.flatnonzero(starts[1:] > ends[:-1])
    return np.stack([np.r_[starts[:1], starts[gaps + 1]], np.r_[ends[gaps], ends[-1:]]], axis=1)


def lengths(spans: np.ndarray) -> np.ndarray:
    return spans[:, 1] - spans[:, 0]


def shared_seconds(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(N, 2), (M, 2) -> (N, M), how long both hold."""
    first, last = np.maximum(one[:, None, 0], other[:, 0]), np.minimum(one[:, None, 1], other[:, 1])
    return np.maximum(last - first, 0.0)


def overlaps(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(N, 2), (M, 2) -> (N, M), the tIoU of each with each."""
    both = shared_seconds(one, other)
    return divide(both, lengths(one)[:, None] + lengths(other) - both)


def divide(seconds: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """The share of the whole; 0 of nothing."""
    return np.divide(seconds, whole, out=np.zeros_like(whole), where=whole > 0)
