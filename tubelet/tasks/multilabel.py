"""Several classes at once: a cell names all that hold in a clip, as in "walk;wave", or "(none)"."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tubelet.system.device import hand_over
from tubelet.system.text import list_names, percent, plural
from tubelet.tasks.calibration import (
    Calibration,
    calibrate_each,
    calibration_facts,
    cross_calibrate,
    find_shortage,
    fit_each,
    measure_each,
    pair,
)
from tubelet.tasks.intervals import group_interval
from tubelet.tasks.task import Results, Task, check_names, check_numbers, mean_known, none_if_unknown

NONE = "(none)"
THRESHOLD = 0.5  # of the probability from which on a class holds, where validation clips chose no other
LEAST_EXAMPLES = 5  # of a class among validation clips that may choose its threshold
MOST_WEIGHT = 20.0  # of the clips in which a rare class holds


@dataclass(frozen=True)
class MultiLabel(Task):
    """names: the classes. A target is 1 where a class holds, 0 where not, an answer the probability of each.

    weights: of each class's examples in the loss, 1 where left out. thresholds: probabilities from which on a class
    is said to hold. calibration: what held-out clips made of the probabilities, None where they were too few. A clip
    with an empty cell is unlabelled: its target is NaN.
    """

    names: tuple[str, ...]
    weights: tuple[float, ...] = ()
    thresholds: tuple[float, ...] = ()
    calibration: Calibration | None = None
    kind: ClassVar[str] = "multilabel"
    figure_name: ClassVar[str] = "overlap"  # of the classes said and those that hold: Jaccard's index
    fewest_classes: ClassVar[int] = 1
    settles: ClassVar[bool] = True
    calibrates: ClassVar[bool] = True

    @staticmethod
    def classes_in(cell: str) -> tuple[str, ...]:
        return () if cell in ("", NONE) else tuple(name.strip() for name in cell.split(";"))

    @classmethod
    def find_fault(cls, cell: str, columns: Sequence[str]) -> str:
        classes = cls.classes_in(cell)
        if not all(classes):
            return f"an empty class in {cell!r}: write a;b, {NONE} where none holds, or nothing where that is not known"
        return f"a class twice in {cell!r}: name it once" if len(set(classes)) < len(classes) else ""

    @classmethod
    def from_cells(cls, cells: Sequence[str], columns: Sequence[str] = ()) -> "MultiLabel":
        return cls(tuple(sorted({name for cell in cells for name in cls.classes_in(cell)})))

    def learn_from(self, targets: Tensor) -> "MultiLabel":
        known = targets[~targets.isnan().any(1)]
        examples = known.sum(0)
        weights = ((len(known) - examples) / examples.clamp(min=1)).clamp(1, MOST_WEIGHT)
        return replace(self, weights=tuple(weights.tolist()))

    def settle(
        self, targets: Tensor, answers: np.ndarray, groups: Sequence[str], *, measured: bool = False
    ) -> "MultiLabel":
        """The task with a calibration, where the clips are enough, and thresholds of the calibrated probabilities.

        Thresholds have the best F1, for the classes with enough examples; none are chosen where F1 is measured on the
        same clips.
        """
        known = find_known(targets)
        truth, raw = targets.numpy()[known], self.uncalibrate(answers[known])
        members = choose(groups, known)
        calibration = None if find_shortage(members) else fit_each(self.even_out(raw), truth > 0, members)
        settled = replace(self, thresholds=(), calibration=calibration)
        if measured:
            return settled
        chosen = np.array([best_threshold(t, s) for t, s in zip(truth.T, raw.T, strict=True)])
        return replace(settled, thresholds=tuple(settled.calibrate(chosen).tolist()))

    def even_out(self, answers: np.ndarray) -> np.ndarray:
        """Answers (..., K) of the model -> those that it would give if examples of all classes weighed the same."""
        return weigh(answers, 1 / self.all_weights)

    @property
    def all_weights(self) -> np.ndarray:
        return np.array(self.weights or [1.0] * len(self.names))

    @property
    def limits(self) -> np.ndarray:
        """(K,), the thresholds; where none were chosen, that of the model's own probabilities, calibrated."""
        return np.asarray(self.thresholds or self.calibrate(np.full(len(self.names), THRESHOLD)))

    def uncalibrate(self, answers: np.ndarray) -> np.ndarray:
        """Answers (..., K) as they are without calibration."""
        if self.calibration is None:
            return answers
        return weigh(self.calibration.undo(pair(answers))[..., 1], self.all_weights)

    def calibrate(self, answers: np.ndarray) -> np.ndarray:
        if self.calibration is None:
            return answers
        return calibrate_each(self.calibration, self.even_out(answers)).answers.astype(np.float32)

    def likely(self, answer: np.ndarray) -> list[str] | None:
        """The classes that cannot be ruled out; `NONE` where all can."""
        if self.calibration is None:
            return None
        inside = [self.names[i] for i in (-answer).argsort(kind="stable") if answer[i] >= self.calibration.least]
        return inside or [NONE]

    def targets(self, cells: Sequence[str]) -> Tensor:
        numbers = {name: number for number, name in enumerate(self.names)}
        found = torch.zeros(len(cells), len(self.names))
        for row, cell in zip(found, cells, strict=True):
            row[[numbers[name] for name in self.classes_in(cell)]] = 1
            if not cell:
                row.fill_(torch.nan)
        return found

    def swap(self, cell: str, partners: Mapping[str, str]) -> str:
        return ";".join(partners.get(name, name) for name in self.classes_in(cell)) or cell

    def soften(self, targets: Tensor, smoothing: float) -> Tensor:
        return targets * (1 - smoothing) + smoothing / 2

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        known = ~targets.isnan()
        weights = hand_over(torch.tensor(self.weights or [1.0] * len(self.names)), logits.device)
        each = F.binary_cross_entropy_with_logits(
            logits, targets.nan_to_num(), pos_weight=weights, reduction="none", weight=known.float()
        )
        return each.sum() / known.sum().clamp(min=1)

    def score(self, logits: Tensor, targets: Tensor) -> Tensor:
        said, holds = logits > 0, targets.nan_to_num() > 0
        either, both = (said | holds).sum(1), (said & holds).sum(1)
        return torch.where(either == 0, 1.0, both / either.clamp(min=1))

    def answer(self, logits: Tensor) -> np.ndarray:
        if self.calibration is None:
            return logits.sigmoid().numpy()
        even = logits - torch.from_numpy(self.all_weights).log()
        return (even / self.calibration.temperature).sigmoid().float().numpy()

    def holds(self, answers: np.ndarray) -> np.ndarray:
        """Answers (..., classes) -> bool, which classes are said to hold."""
        return answers >= self.limits.astype(np.float32)

    def word(self, answer: np.ndarray) -> str:
        return ";".join(self.names[number] for number in np.flatnonzero(self.holds(answer))) or NONE

    def errors(self, targets: Tensor, answers: np.ndarray) -> np.ndarray:
        truth, said = targets.nan_to_num().numpy() > 0, self.holds(answers)
        either = (truth | said).sum(1)
        return np.where(find_known(targets), (truth ^ said).sum(1) / np.maximum(either, 1), 0.0)

    def measure(
        self, targets: Tensor, answers: np.ndarray, *, groups: Sequence[str], failed: int = 0, settled_by: bool = False
    ) -> "MultiLabelResults":
        known = find_known(targets)
        if not known.any():
            raise ValueError(f"none of {len(known)} clips has a label: nothing can be measured")
        truth, scores = targets.numpy()[known] > 0, np.asarray(answers, np.float64)[known]
        ranking, said = Ranking(truth, scores), self.holds(answers[known])
        members, raw = choose(groups, known), self.uncalibrate(scores)
        how: dict[str, Any] = {"fit": fit_each, "calibrate": calibrate_each}
        even, others = self.even_out(raw), members if settled_by else None
        calibrated = cross_calibrate(self.calibration, even, truth, others, **how)

        def mean_precision(rows: np.ndarray) -> float:
            return mean_known(ranking.precisions(np.bincount(rows, minlength=len(truth))))

        def macro_f1(rows: np.ndarray) -> float:
            return mean_known(f1_scores(truth[rows], said[rows]))

        every = np.arange(len(truth))
        precisions, f1 = ranking.precisions(np.ones(len(truth))), f1_scores(truth, said)
        hits, answered, support = (truth & said).sum(0), said.sum(0), truth.sum(0)
        rows = [
            {
                "label": name,
                "average_precision": none_if_unknown(precisions[i]),
                "f1": none_if_unknown(f1[i]),
                "precision": float(hits[i] / answered[i]) if answered[i] else None,
                "recall": float(hits[i] / support[i]) if support[i] else None,
                "threshold": float(self.limits[i]),
                "support": int(support[i]),
            }
            for i, name in enumerate(self.names)
        ]
        return MultiLabelResults(
            clips=len(truth),
            failed=failed,
            unlabelled=int((~known).sum()),
            mean_average_precision=mean_precision(every),
            interval=group_interval(members, mean_precision),
            macro_f1=macro_f1(every),
            macro_f1_interval=group_interval(members, macro_f1),
            micro_f1=float(2 * hits.sum() / max(1, answered.sum() + support.sum())),
            at_random=mean_known(np.where(support, support / len(truth), np.nan)),
            chosen_thresholds=bool(self.thresholds),
            calibration=measure_each(raw, calibrated, truth) if calibrated and truth.any() else None,
            per_class=rows,
        )

    def describe(self) -> str:
        return f"names all that hold of {plural(len(self.names), 'class')}"

    def to_json(self) -> dict[str, Any]:
        calibration = {"calibration": self.calibration.to_json()} if self.calibration else {}
        lists = {name: list(getattr(self, name)) for name in ("names", "weights", "thresholds")}
        return {"kind": self.kind, **lists, **calibration}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "MultiLabel":
        names, found = check_names(values.get("names")), values.get("calibration")
        weights, thresholds = (check_numbers(values.get(key), len(names)) for key in ("weights", "thresholds"))
        if min(weights, default=1.0) <= 0:
            raise ValueError(f"its task has a weight of {min(weights)}, expected above 0: copy or train it again")
        return cls(names, weights, thresholds, None if found is None else Calibration.from_json(found))


@dataclass(frozen=True)
class MultiLabelResults(Results):
    """Shares in 0..1; means run over the classes that hold in at least one clip. `unlabelled` clips are in no figure.

    at_random: the mean average precision of answers in any order. chosen_thresholds: by validation clips.
    calibration: as `measure_each` has it, None for probabilities as the model gives them.
    """

    clips: int
    failed: int
    unlabelled: int
    mean_average_precision: float
    interval: list[float]
    macro_f1: float
    macro_f1_interval: list[float]
    micro_f1: float
    at_random: float
    chosen_thresholds: bool
    calibration: dict[str, Any] | None
    per_class: list[dict[str, Any]]
    confusion = None
    figure_name: ClassVar[str] = "mean_average_precision"

    def say(self, figure: float) -> str:
        return f"{percent(figure)} mean average precision"

    def baseline(self) -> tuple[str, float]:
        return "ranking at random", self.at_random

    def facts(self) -> list[tuple[str, str]]:
        low, high = (percent(end) for end in self.macro_f1_interval)
        plain = f"all thresholds {THRESHOLD:g}{' before calibration' if self.calibration else ''}"
        how = "thresholds chosen by validation clips" if self.chosen_thresholds else plain
        facts = [(f"macro F1, {how}", f"{percent(self.macro_f1)} ({low} to {high})")]
        facts.append(("micro F1", percent(self.micro_f1)))
        if self.calibration:
            facts += calibration_facts(self.calibration, "all that hold")
        return [*facts, ("clips without a label, not counted", str(self.unlabelled))] if self.unlabelled else facts

    def table(self) -> tuple[list[str], list[list[Any]]]:
        keys = ("average_precision", "recall", "precision", "f1")
        rows = [[row["label"], *(row[key] for key in keys), row["support"]] for row in self.per_class]
        return ["class", "average precision", "recall", "precision", "F1", "clips"], rows

    def warnings(self) -> list[str]:
        absent = [row["label"] for row in self.per_class if not row["support"]]
        return [f"Not tested, for they hold in no clip that could be read: {list_names(absent)}."] if absent else []


def find_known(targets: Tensor) -> np.ndarray:
    """Targets (N, K) -> bool (N,), whether a clip has a label."""
    return ~targets.isnan().any(1).numpy()


def weigh(answers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Probabilities (..., K) -> those that a loss leads to in which examples of each class weigh (K,) times as much.

    Source: Elkan 2001, "The foundations of cost-sensitive learning", theorem 2.
    """
    holds = np.asarray(answers, np.float64)
    return weights * holds / (weights * holds + 1 - holds)


def choose(groups: Sequence[str], known: np.ndarray) -> list[str]:
    return [group for group, one in zip(groups, known, strict=True) if one]


class Ranking:
    """Clips in the order of their scores, class by class; made once, measured with any weights of the clips."""

    def __init__(self, truth: np.ndarray, scores: np.ndarray) -> None:
        """truth: bool (N, K); scores: (N, K)."""
        self.order = np.argsort(-scores, axis=0, kind="stable")
        ranked = np.take_along_axis(scores, self.order, 0)
        self.truth = np.take_along_axis(truth, self.order, 0)
        ends = np.vstack([ranked[1:] != ranked[:-1], np.ones((1, scores.shape[1]), bool)])
        places = np.where(ends, np.arange(len(scores))[:, None], len(scores))
        self.last = np.minimum.accumulate(places[::-1], axis=0)[::-1]  # of the clips with the same score

    def precisions(self, weights: np.ndarray) -> np.ndarray:
        """Average precision of each class, (K,), NaN without an example; clips of equal scores count as one step.

        weights: (N,), how often each clip counts. Source: Zhu 2004, "Recall, Precision and Average Precision".
        """
        share = weights[self.order].astype(float)
        hits, seen = (share * self.truth).cumsum(0), share.cumsum(0)
        with np.errstate(invalid="ignore", divide="ignore"):
            precision = np.take_along_axis(hits, self.last, 0) / np.take_along_axis(seen, self.last, 0)
            return np.where(share * self.truth > 0, share * precision, 0.0).sum(0) / hits[-1]


def f1_scores(truth: np.ndarray, said: np.ndarray) -> np.ndarray:
    """bool (N, K) each -> F1 of each class, (K,), NaN where it holds nowhere."""
    both, either, support = (truth & said).sum(0), truth.sum(0) + said.sum(0), truth.sum(0)
    return np.where(support > 0, 2 * both / np.maximum(either, 1), np.nan)


def best_threshold(truth: np.ndarray, scores: np.ndarray) -> float:
    """The threshold of one class with the best F1, midway between two scores; truth (N,) 0 or 1, scores (N,)."""
    if truth.sum() < LEAST_EXAMPLES:
        return THRESHOLD
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], truth[order].cumsum()
    f1 = 2 * hits / (np.arange(1, len(ranked) + 1) + truth.sum())
    after = np.append(ranked[1:], 0.0)
    best = int(np.where(ranked > after, f1, -1.0).argmax())
    return float((ranked[best] + after[best]) / 2)
