"""Probabilities that are right as often as they say, and sets of classes that hold the right one nine times in ten.

Both are fitted on answers for clips that the model did not learn from; a figure of them is never measured on clips, or
on groups of clips, that they were fitted on.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from tubelet.system.text import is_count, is_number, plural
from tubelet.tasks.intervals import wilson_interval

COVERAGE = 0.9  # of the sets
FEWEST_CLIPS, FEWEST_GROUPS = 30, 5  # that are enough to fit on
FOLDS = 5  # of groups, each measured by a fit on the others
EXTREME = 20.0  # a temperature lies between this and its inverse
SLACK = 1e-4  # of the least probability, so that rounding does not put out the one that chose it
BINS = 15  # of confidences


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


class Calibrated(NamedTuple):
    """Answers for N clips: calibrated probabilities (N, K), and the classes in the sets, bool (N, K)."""

    answers: np.ndarray
    sets: np.ndarray


def find_shortage(groups: Sequence[str]) -> str:
    """The shortage of clips of these groups to fit on, in words; "" where there is none."""
    clips, number = len(groups), len(set(groups))
    if clips >= FEWEST_CLIPS and number >= FEWEST_GROUPS:
        return ""
    needed = f"at least {FEWEST_CLIPS} of {FEWEST_GROUPS} are needed"
    return f"{plural(clips, 'held-out clip')} of {plural(number, 'group')}, {needed}"


def fit_calibration(answers: np.ndarray, labels: np.ndarray, groups: Sequence[str]) -> Calibration:
    """The calibration of probabilities (N, K), whose right classes are (N,).

    `least` is the probability that the right class has at least in nine of ten clips, a new one counted among them:
    split conformal sets with the simplest score, 1 - p of the right class, which makes them smallest in the mean.
    Source: arXiv 1609.00451.
    """
    found = Calibration(fit_temperature(answers, labels), 0.0, len(labels), len(set(groups)))
    right = found.temper(answers)[np.arange(len(labels)), labels]
    rank = math.ceil((len(labels) + 1) * COVERAGE)
    least = (1 - SLACK) * float(np.sort(right)[-rank]) if rank <= len(labels) else 0.0
    return Calibration(found.temperature, least, found.clips, found.groups)


def cross_fit(answers: np.ndarray, labels: np.ndarray, groups: Sequence[str]) -> Calibrated:
    """Probabilities (N, K) calibrated by fits on other groups: five folds of groups, each by a fit on the rest."""
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    fold = (np.random.default_rng(0).permutation(len(names)) % FOLDS)[group]
    found = Calibrated(np.zeros(answers.shape), np.zeros(answers.shape, bool))
    for number in np.unique(fold):
        here, others = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        fit = fit_calibration(answers[others], labels[others], [groups[i] for i in others.tolist()])
        found.answers[here] = fit.temper(answers[here])
        found.sets[here] = fit.sets(found.answers[here])
    return found


def fit_temperature(answers: np.ndarray, labels: np.ndarray) -> float:
    """The temperature with the least mean negative log likelihood of (N,) labels, for N > 0.

    It is convex in 1/T, so that halving an interval by the sign of its slope ends at the one minimum. One
    clip more, of all classes in equal parts, keeps clips that all are answered right from a temperature of 0.
    Source: arXiv 1706.04599, section 4.2; the further clip as in Platt 1999, "Probabilistic outputs for support vector
    machines".
    """
    logits = log(answers)
    n, classes = logits.shape
    targets = np.full((n, classes), 1 / (classes * (n + 1)))
    targets[np.arange(n), labels] += n / (n + 1)
    low, high = 1 / EXTREME, EXTREME
    for _ in range(60):
        middle = math.sqrt(low * high)
        slope = ((raise_to(answers, middle) - targets) * logits).sum()
        low, high = (low, middle) if slope > 0 else (middle, high)
    return 1 / math.sqrt(low * high)


def measure_calibration(before: np.ndarray, after: Calibrated, labels: np.ndarray) -> dict[str, Any]:
    """Figures of N > 0 answers, (N, K) before and after their calibration, and labels (N,).

    error, error_before: expected calibration errors. coverage: share of the sets that hold the right class, with an
    interval of 95 %. set_size: the mean number of classes in a set. bins, bins_before: see `reliability`.
    """
    every = np.arange(len(labels))
    held = after.sets[every, labels]
    found: dict[str, Any] = {}
    for name, answers in (("", after.answers), ("_before", before)):
        confidence, right = answers.max(1), answers.argmax(1) == labels
        found |= {f"error{name}": calibration_error(confidence, right), f"bins{name}": reliability(confidence, right)}
    found |= {"coverage": float(held.mean()), "coverage_interval": wilson_interval(int(held.sum()), len(held))}
    return found | {"set_size": float(after.sets.sum(1).mean())}


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
