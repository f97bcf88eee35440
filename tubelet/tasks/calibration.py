"""Probabilities that are right as often as they say, and sets of classes that hold what is right nine times in ten.

Both are fitted on answers for clips that the model did not learn from; a figure of them is never measured on clips, or
on groups of clips, that they were fitted on. `fit_each`, `calibrate_each` and `measure_each` are of classes of which
each holds or not by itself, the others of one class of several.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from tubelet.system.text import is_count, is_number, percent, plural
from tubelet.tasks.intervals import wilson_interval

COVERAGE = 0.9  # of the sets
FEWEST_CLIPS, FEWEST_GROUPS = 30, 5  # that are enough to fit on
FOLDS = 5  # of groups, each measured by a fit on the others
EXTREME = 20.0  # a temperature lies between this and its inverse
SLACK = 1e-4  # of the least probability, so that rounding does not put out the one that chose it
BINS = 15  # of confidences
NEAREST = 2.0**-25  # of a float32 probability to 1, nearer than any but 1 itself


class Calibrated(NamedTuple):
    """Answers for N clips: calibrated probabilities (N, K), and the classes in the sets, bool (N, K)."""

    answers: np.ndarray
    sets: np.ndarray


@dataclass(frozen=True)
class Calibration:
    """A temperature and a least probability, fitted on `clips` answers of `groups` groups.

    temperature: T, a probability p becomes p^(1/T), scaled to a sum of 1
    least: the probability, after that, from which on a class is in the set
    """

    temperature: float
    least: float
    clips: int
    groups: int

    def temper(self, answers: np.ndarray) -> np.ndarray:
        """(..., K) probabilities -> calibrated ones, which are those of the logits divided by the temperature.

        Source: arXiv 1706.04599, section 4.2.
        """
        return raise_to(answers, 1 / self.temperature)

    def undo(self, answers: np.ndarray) -> np.ndarray:
        """(..., K) calibrated probabilities -> those of the model."""
        return raise_to(answers, self.temperature)

    def sets(self, answers: np.ndarray) -> np.ndarray:
        """(..., K) calibrated probabilities -> bool (..., K), the classes in the set; the likeliest always is."""
        return answers >= np.minimum(answers.max(-1, keepdims=True), self.least)

    def calibrate(self, answers: np.ndarray) -> Calibrated:
        """(..., K) probabilities -> calibrated ones, and their sets."""
        tempered = self.temper(answers)
        return Calibrated(tempered, self.sets(tempered))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: object) -> "Calibration":
        """Raises ValueError for values that no fit gives."""
        match values:
            case {"temperature": t, "least": least, "clips": clips, "groups": groups} if (
                is_number(t) and 1 / EXTREME <= t <= EXTREME and is_number(least) and 0 <= least <= 1
            ) and (is_count(clips) and is_count(groups)):
                return cls(float(t), float(least), clips, groups)
        raise ValueError(f"its calibration {str(values)[:200]} is none: copy or train it again")


Fit = Callable[[np.ndarray, np.ndarray, Sequence[str]], Calibration]  # to answers, to what is right, of groups
Calibrate = Callable[[Calibration, np.ndarray], Calibrated]


def find_shortage(groups: Sequence[str]) -> str:
    """The shortage of clips of these groups to fit on, in words; "" where there is none."""
    clips, number = len(groups), len(set(groups))
    if clips >= FEWEST_CLIPS and number >= FEWEST_GROUPS:
        return ""
    needed = f"at least {FEWEST_CLIPS} of {FEWEST_GROUPS} are needed"
    return f"{plural(clips, 'held-out clip')} of {plural(number, 'group')}, {needed}"


def fit_calibration(answers: np.ndarray, labels: np.ndarray, groups: Sequence[str]) -> Calibration:
    """The calibration of probabilities (N, K), whose right classes are (N,).

    `least` is the probability that the right class has at least in nine of ten clips: split conformal sets with the
    simplest score, 1 - p of the right class, which makes them smallest in the mean. Source: arXiv 1609.00451.
    """
    temperature = fit_temperature(answers, labels)
    right = raise_to(answers, 1 / temperature)[np.arange(len(labels)), labels]
    return Calibration(temperature, choose_least(right), len(labels), len(set(groups)))


def fit_each(answers: np.ndarray, truth: np.ndarray, groups: Sequence[str]) -> Calibration:
    """The calibration of probabilities (N, K) of classes that hold or not, each by itself, by bool truth (N, K).

    The temperature is one for all classes: logit(p) / T has the best likelihood over all N K of them. `least` is the
    probability that all classes of a clip have at least in nine of ten clips in which any holds.
    """
    pairs = pair(answers)
    temperature = fit_temperature(pairs, truth.astype(int))
    lowest = np.where(truth, raise_to(pairs, 1 / temperature)[..., 1], 1.0).min(1)
    return Calibration(temperature, choose_least(lowest[truth.any(1)]), len(truth), len(set(groups)))


def calibrate_each(calibration: Calibration, answers: np.ndarray) -> Calibrated:
    """(..., K) probabilities of classes each by itself -> calibrated ones, and the sets, in which there may be none."""
    tempered = calibration.temper(pair(answers))[..., 1]
    return Calibrated(tempered, tempered >= calibration.least)


def pair(answers: np.ndarray) -> np.ndarray:
    """(..., K) probabilities -> (..., K, 2): that a class does not hold, and that it does."""
    holds = np.asarray(answers, np.float64)
    return np.stack([np.maximum(1 - holds, NEAREST), holds], -1)


def choose_least(right: np.ndarray) -> float:
    """The probability that nine of ten clips reach, a new one counted among them, by those of N others; 0: too few."""
    rank = math.ceil((len(right) + 1) * COVERAGE)
    return (1 - SLACK) * float(np.sort(right)[-rank]) if rank <= len(right) else 0.0


def cross_calibrate(
    calibration: Calibration | None,
    answers: np.ndarray,
    right: np.ndarray,
    groups: Sequence[str] | None,
    *,
    fit: Fit = fit_calibration,
    calibrate: Calibrate = Calibration.calibrate,
) -> Calibrated | None:
    """Probabilities (N, K) calibrated, as figures of them need them; None where there is no calibration for that.

    right: (N, ...), as `fit` takes it. groups: of the clips, where the calibration was fitted on them: they are
    calibrated by fits on other groups.
    """
    if calibration is None or (groups is not None and find_shortage(groups)):
        return None
    if groups is None:
        return calibrate(calibration, answers)
    return cross_fit(answers, right, groups, fit=fit, calibrate=calibrate)


def cross_fit(
    answers: np.ndarray,
    right: np.ndarray,
    groups: Sequence[str],
    *,
    fit: Fit = fit_calibration,
    calibrate: Calibrate = Calibration.calibrate,
) -> Calibrated:
    """Probabilities (N, K) calibrated by fits on other groups: five folds of groups, each by a fit on the rest."""
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    fold = (np.random.default_rng(0).permutation(len(names)) % FOLDS)[group]
    found = Calibrated(np.zeros(answers.shape), np.zeros(answers.shape, bool))
    for number in np.unique(fold):
        here, others = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        by_others = fit(answers[others], right[others], [groups[i] for i in others.tolist()])
        found.answers[here], found.sets[here] = calibrate(by_others, answers[here])
    return found


def fit_temperature(answers: np.ndarray, labels: np.ndarray) -> float:
    """The temperature at which labels (N, ...), N > 0, are likeliest by probabilities (N, ..., K).

    The mean negative log likelihood is convex in 1/T, so that halving an interval by the sign of its slope ends at the
    one minimum. One clip more, of all classes in equal parts, keeps clips that all are answered right from a
    temperature of 0. Source: arXiv 1706.04599, section 4.2; the further clip as in Platt 1999, "Probabilistic outputs
    for support vector machines".
    """
    logits = log(answers)
    clips, classes = len(logits), logits.shape[-1]
    targets = (clips * (labels[..., None] == np.arange(classes)) + 1 / classes) / (clips + 1)
    low, high = 1 / EXTREME, EXTREME
    for _ in range(60):
        middle = math.sqrt(low * high)
        slope = ((raise_to(answers, middle) - targets) * logits).sum()
        low, high = (low, middle) if slope > 0 else (middle, high)
    return 1 / math.sqrt(low * high)


def measure_calibration(before: np.ndarray, after: Calibrated, labels: np.ndarray) -> dict[str, Any]:
    """Figures of N > 0 answers, (N, K) before and after their calibration, and labels (N,); see `list_figures`."""
    sure, surely = ((answers.max(1), answers.argmax(1) == labels) for answers in (before, after.answers))
    return list_figures(sure, surely, after.sets[np.arange(len(labels)), labels], after.sets)


def measure_each(before: np.ndarray, after: Calibrated, truth: np.ndarray) -> dict[str, Any]:
    """The same of classes each by itself, bool truth (N, K), in some clip true.

    Errors are over all N K of them; the coverage is of all classes of a clip, over the clips in which any holds.
    """
    sure, surely = ((answers.ravel(), truth.ravel()) for answers in (before, after.answers))
    return list_figures(sure, surely, (after.sets | ~truth).all(1)[truth.any(1)], after.sets)


def list_figures(
    before: tuple[np.ndarray, np.ndarray], after: tuple[np.ndarray, np.ndarray], held: np.ndarray, sets: np.ndarray
) -> dict[str, Any]:
    """Figures of confidences (M,) and whether these were right, before and after calibration, and of sets (N, K).

    error, error_before: expected calibration errors. coverage: share of the sets that hold what is right, of those of
    `held`, with an interval of 95 %. set_size: the mean number of classes in a set. bins, bins_before: `reliability`.
    """
    found: dict[str, Any] = {}
    for name, sure in (("", after), ("_before", before)):
        found |= {f"error{name}": calibration_error(*sure), f"bins{name}": reliability(*sure)}
    found |= {"coverage": float(held.mean()), "coverage_interval": wilson_interval(int(held.sum()), len(held))}
    return found | {"set_size": float(sets.sum(1).mean())}


def calibration_facts(found: dict[str, Any], right: str) -> list[tuple[str, str]]:
    """The figures in words; right: what a set holds, such as "the right class"."""
    error, before, holds = (percent(found[name]) for name in ("error", "error_before", "coverage"))
    low, high = map(percent, found["coverage_interval"])
    size = f"{found['set_size']:.2f} classes in the mean"
    return [
        ("calibration error", f"{error} ({before} before calibration)"),
        (f"90 % sets hold {right}", f"{holds} ({low} to {high}), {size}"),
    ]


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error of confidences (N,) in 0..1: mean |confidence - accuracy| of 15 equal bins, by size.

    Source: arXiv 1706.04599, eq. 3.
    """
    return sum(abs(sure - share) * clips for sure, share, clips in reliability(confidence, right)) / len(right)


def reliability(confidence: np.ndarray, right: np.ndarray) -> list[list[float]]:
    """Mean confidence, share that is right, and clips of each of 15 equal bins of confidence (N,) but empty ones."""
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    inside = [bins == number for number in np.unique(bins)]
    return [[float(confidence[one].mean()), float(right[one].mean()), int(one.sum())] for one in inside]


def raise_to(answers: np.ndarray, power: float) -> np.ndarray:
    """(..., K) probabilities, raised to a power and scaled to a sum of 1, float64."""
    logits = power * log(answers)
    raised = np.exp(logits - logits.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)


def log(answers: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(np.asarray(answers, np.float64), np.finfo(np.float32).tiny))
