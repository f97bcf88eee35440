"""A number for each clip, or several under names, one column of the table each."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tubelet.system.device import hand_over
from tubelet.system.text import decimal, list_names
from tubelet.tasks.intervals import group_interval
from tubelet.tasks.task import Results, Task, check_names, check_numbers, mean_known, none_if_unknown


@dataclass(frozen=True)
class Regression(Task):
    """names: the columns. Targets and answers are the numbers as the table has them, NaN where a cell is empty.

    A model learns them less their `means`, divided by their `deviations`, over the training clips.
    """

    names: tuple[str, ...]
    means: tuple[float, ...] = ()
    deviations: tuple[float, ...] = ()
    kind: ClassVar[str] = "regression"
    figure_name: ClassVar[str] = "r2"
    fewest_classes: ClassVar[int] = 0
    gives_probabilities: ClassVar[bool] = False

    @staticmethod
    def classes_in(cell: str) -> tuple[str, ...]:
        return ()

    @classmethod
    def find_fault(cls, cell: str, columns: Sequence[str]) -> str:
        parts = cell.split(";")
        if len(parts) != len(columns):
            return f"{len(parts)} numbers in {cell!r}, expected {len(columns)}: {', '.join(columns)}"
        wrong = [f"{name} {part!r}" for name, part in zip(columns, parts, strict=True) if not is_number(part)]
        return f"{', '.join(wrong)}: expected a number such as 1.5, or nothing where it is not known" if wrong else ""

    @classmethod
    def from_cells(cls, cells: Sequence[str], columns: Sequence[str]) -> "Regression":
        return cls(tuple(columns))

    def learn_from(self, targets: Tensor) -> "Regression":
        """Raises ValueError for a column that is the same number in every training clip, or is empty in all."""
        values = targets.double()
        means = values.nanmean(0)
        deviations = (values - means).square().nanmean(0).sqrt()
        if flat := [name for name, one in zip(self.names, deviations.tolist(), strict=True) if not one > 0]:
            raise ValueError(f"{list_names(flat)}: the same number, or none, in all training clips; leave it out")
        return replace(self, means=tuple(means.tolist()), deviations=tuple(deviations.tolist()))

    def targets(self, cells: Sequence[str]) -> Tensor:
        rows = [[float(part) if part.strip() else math.nan for part in cell.split(";")] for cell in cells]
        return torch.tensor(rows).reshape(len(rows), len(self.names))

    def soften(self, targets: Tensor, smoothing: float) -> Tensor:
        return (targets - self.constant(self.means, targets)) / self.constant(self.deviations, targets)

    def constant(self, values: tuple[float, ...], like: Tensor) -> Tensor:
        return hand_over(torch.tensor(values, dtype=torch.float32), like.device)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        known = ~targets.isnan()
        each = F.smooth_l1_loss(logits, torch.where(known, targets, logits.detach()), reduction="sum")
        return each / known.sum().clamp(min=1)

    def score(self, logits: Tensor, targets: Tensor) -> Tensor:
        """1 less the squared error in deviations: the mean over clips is R2, with the training mean for a baseline."""
        return 1 - (logits - self.soften(targets, 0.0)).square().nanmean(1).nan_to_num()

    def answer(self, logits: Tensor) -> np.ndarray:
        return (logits * self.constant(self.deviations, logits) + self.constant(self.means, logits)).numpy()

    def word(self, answer: np.ndarray) -> str:
        return ";".join(f"{value:.4g}" for value in answer.tolist())

    def errors(self, targets: Tensor, answers: np.ndarray) -> np.ndarray:
        off = (targets - torch.from_numpy(answers)).abs() / self.constant(self.deviations, targets)
        return off.nanmean(1).nan_to_num().numpy()

    def columns(self) -> list[str]:
        return [f"value:{name}" for name in self.names]

    def measure(
        self, targets: Tensor, answers: np.ndarray, *, groups: Sequence[str], failed: int = 0, settled_by: bool = False
    ) -> "RegressionResults":
        truth, given = targets.double().numpy(), np.asarray(answers, np.float64)
        if np.isnan(truth).all():
            raise ValueError(f"none of {len(truth)} clips has a number: nothing can be measured")
        flat = np.broadcast_to(np.array(self.means), truth.shape)

        def mean_r2(rows: np.ndarray) -> float:
            return mean_known(explained_variance(truth[rows], given[rows]))

        r2 = explained_variance(truth, given)
        rows = [
            {
                "label": name,
                "mae": none_if_unknown(mean_known(np.abs(truth - given)[:, i])),
                "mae_of_mean": none_if_unknown(mean_known(np.abs(truth - flat)[:, i])),
                "r2": none_if_unknown(r2[i]),
                "spearman": spearman(truth[:, i], given[:, i]),
                "support": int((~np.isnan(truth[:, i])).sum()),
            }
            for i, name in enumerate(self.names)
        ]
        return RegressionResults(
            clips=len(truth),
            failed=failed,
            r2=mean_known(r2),
            interval=group_interval(groups, mean_r2),
            r2_of_mean=mean_known(explained_variance(truth, flat)),
            per_output=rows,
        )

    def describe(self) -> str:
        return f"estimates {list_names(self.names)}"

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Regression":
        names = check_names(values.get("names"))
        means, deviations = (check_numbers(values.get(key), len(names)) for key in ("means", "deviations"))
        if not (len(means) == len(deviations) == len(names) and all(one > 0 for one in deviations)):
            raise ValueError("its task has no mean, or no deviation above 0, for some output: copy or train it again")
        return cls(names, means, deviations)


@dataclass(frozen=True)
class RegressionResults(Results):
    """r2: mean over the outputs of the share of variance that the answers explain; r2_of_mean: that of always
    answering the mean of the training clips. MAE is in the units of the table."""

    clips: int
    failed: int
    r2: float
    interval: list[float]
    r2_of_mean: float
    per_output: list[dict[str, Any]]
    confusion = None
    calibration = None
    figure_name: ClassVar[str] = "r2"

    def number(self, figure: float) -> str:
        return decimal(figure)

    def say(self, figure: float) -> str:
        return f"R2 {self.number(figure)}"

    def baseline(self) -> tuple[str, float]:
        return "always answering the mean", self.r2_of_mean

    def facts(self) -> list[tuple[str, str]]:
        return [
            (f"mean error of {row['label']}", f"{row['mae']:.4g} (of the mean {row['mae_of_mean']:.4g})")
            for row in self.per_output
            if row["support"]
        ]

    def table(self) -> tuple[list[str], list[list[Any]]]:
        def number(value: float | None) -> str:
            return "–" if value is None else f"{value:.4g}"

        keys = ("mae", "mae_of_mean", "r2", "spearman")
        rows = [[row["label"], *(number(row[key]) for key in keys), row["support"]] for row in self.per_output]
        return ["output", "MAE", "MAE of the mean", "R2", "Spearman", "clips"], rows


def is_number(text: str) -> bool:
    """Whether a cell is empty or a finite number."""
    try:
        return not text.strip() or math.isfinite(float(text))
    except ValueError:
        return False


def explained_variance(truth: np.ndarray, given: np.ndarray) -> np.ndarray:
    """(N, K) each, NaN unknown -> the share of variance explained, R2, (K,); NaN where the truth does not vary."""
    known = ~np.isnan(truth)
    count = known.sum(0)
    values = np.where(known, truth, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.where(known, values - values.sum(0) / count, 0.0)
        left = np.where(known, values - given, 0.0)
        total = (spread**2).sum(0)
        return np.where(total > 0, 1 - (left**2).sum(0) / total, np.nan)


def spearman(truth: np.ndarray, given: np.ndarray) -> float | None:
    """The correlation of ranks, in -1..1, (N,) each; None where one side does not vary."""
    known = ~np.isnan(truth)
    one, other = (rank_values(values[known]) for values in (truth, given))
    if not (one.size and one.std() and other.std()):
        return None
    return float(np.corrcoef(one, other)[0, 1])


def rank_values(values: np.ndarray) -> np.ndarray:
    """Ranks from 0; equal values share the mean of theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts + 1) / 2)[places]
