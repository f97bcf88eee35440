"""One of several classes for each clip."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tubelet.system.text import list_names, percent, plural
from tubelet.tasks.calibration import (
    Calibration,
    calibration_error,
    calibration_facts,
    cross_calibrate,
    find_shortage,
    fit_calibration,
    measure_calibration,
)
from tubelet.tasks.intervals import wilson_interval
from tubelet.tasks.task import Results, Task, check_names


@dataclass(frozen=True)
class Classification(Task):
    """names: the classes. A target is the number of the class, int64, an answer the probability of each.

    calibration: what held-out clips made of the probabilities, None where they were too few.
    """

    names: tuple[str, ...]
    calibration: Calibration | None = None
    kind: ClassVar[str] = "classification"
    figure_name: ClassVar[str] = "accuracy"
    smoothing: ClassVar[float] = 0.1
    fewest_classes: ClassVar[int] = 2
    exclusive: ClassVar[bool] = True
    settles: ClassVar[bool] = True
    calibrates: ClassVar[bool] = True

    @staticmethod
    def classes_in(cell: str) -> tuple[str, ...]:
        return (cell,)

    @classmethod
    def find_fault(cls, cell: str, columns: Sequence[str]) -> str:
        return "" if cell else "the label is empty"

    @classmethod
    def from_cells(cls, cells: Sequence[str], columns: Sequence[str] = ()) -> "Classification":
        return cls(tuple(sorted(set(cells))))

    def settle(
        self, targets: Tensor, answers: np.ndarray, groups: Sequence[str], *, measured: bool = False
    ) -> "Classification":
        """The task with a calibration, where the clips are enough."""
        if find_shortage(groups):
            return self
        return replace(self, calibration=fit_calibration(self.uncalibrate(answers), targets.numpy(), groups))

    def uncalibrate(self, answers: np.ndarray) -> np.ndarray:
        """Answers (..., K) as they are without calibration."""
        return self.calibration.undo(answers) if self.calibration else answers

    def calibrate(self, answers: np.ndarray) -> np.ndarray:
        return self.calibration.temper(answers).astype(np.float32) if self.calibration else answers

    def likely(self, answer: np.ndarray) -> list[str] | None:
        if self.calibration is None:
            return None
        inside = self.calibration.sets(answer)
        return [self.names[i] for i in (-answer).argsort(kind="stable") if inside[i]]

    def targets(self, cells: Sequence[str]) -> Tensor:
        numbers = {name: number for number, name in enumerate(self.names)}
        return torch.tensor([numbers[cell] for cell in cells], dtype=torch.int64)

    def swap(self, cell: str, partners: Mapping[str, str]) -> str:
        return partners.get(cell, cell)

    def soften(self, targets: Tensor, smoothing: float) -> Tensor:
        classes = len(self.names)
        chosen = targets.unsqueeze(-1) == torch.arange(classes, device=targets.device)
        return chosen.float() * (1 - smoothing) + smoothing / classes

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits, targets)

    def score(self, logits: Tensor, targets: Tensor) -> Tensor:
        return (logits.argmax(1) == targets).float()

    def answer(self, logits: Tensor) -> np.ndarray:
        return (logits / (self.calibration.temperature if self.calibration else 1.0)).softmax(1).numpy()

    def word(self, answer: np.ndarray) -> str:
        return self.names[int(answer.argmax())]

    def certainty(self, answer: np.ndarray) -> float:
        return float(answer.max())

    def errors(self, targets: Tensor, answers: np.ndarray) -> np.ndarray:
        return np.where(answers.argmax(1) == targets.numpy(), 0.0, answers.max(1))

    def measure(
        self,
        targets: Tensor,
        answers: np.ndarray,
        *,
        groups: Sequence[str] = (),
        failed: int = 0,
        settled_by: bool = False,
    ) -> "ClassificationResults":
        """The figures of N > 0 answers; those of a class without a clip, or never answered, are None.

        Raises:
            ValueError: rows that are no probabilities, as of a model whose weights are not finite.
        """
        labels, probabilities = targets.numpy(), np.asarray(answers, dtype=np.float64)
        n, k = len(labels), len(self.names)
        if not (np.isfinite(probabilities).all() and np.allclose(probabilities.sum(axis=1), 1, atol=1e-2)):
            raise ValueError("the rows of probabilities do not sum to 1; pass the softmax of the logits")
        labels, raw = labels.astype(np.int64), self.uncalibrate(probabilities)
        calibrated = cross_calibrate(self.calibration, raw, labels, groups if settled_by else None)
        probabilities = calibrated.answers if calibrated else raw
        predicted = probabilities.argmax(axis=1)
        right = labels == predicted
        confusion = np.bincount(labels * k + predicted, minlength=k * k).reshape(k, k)  # row: label, column: answer
        support = confusion.sum(axis=1)
        majority = int(support.argmax())
        rows = measure_classes(self.names, confusion)
        confidence = probabilities[np.arange(n), predicted]
        ranking = np.argsort(-probabilities, axis=1, kind="stable")
        return ClassificationResults(
            clips=n,
            failed=failed,
            accuracy=float(right.mean()),
            interval=wilson_interval(int(right.sum()), n),
            accuracy_all=float(right.sum() / (n + failed)),
            top5=float((ranking[:, :5] == labels[:, None]).any(axis=1).mean()) if k > 5 else None,
            macro={
                name: float(np.mean([row[name] or 0.0 for row in rows if row["support"]]))
                for name in ("precision", "recall", "f1")
            },
            majority={"label": self.names[majority], "accuracy": float(support[majority] / n)},
            mean_confidence=float(confidence.mean()),
            calibration_error=calibration_error(confidence, right),
            calibration=measure_calibration(raw, calibrated, labels) if calibrated else None,
            per_class=rows,
            confusion=confusion.tolist(),
        )

    def describe(self) -> str:
        return f"names one of {plural(len(self.names), 'class')}"

    def to_json(self) -> dict[str, Any]:
        calibration = {"calibration": self.calibration.to_json()} if self.calibration else {}
        return {"kind": self.kind, "names": list(self.names), **calibration}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Classification":
        found = values.get("calibration")
        return cls(check_names(values.get("names")), None if found is None else Calibration.from_json(found))


@dataclass(frozen=True)
class ClassificationResults(Results):
    """Shares in 0..1; the macro averages run over the classes that have at least one clip.

    accuracy_all: files that could not be read count as wrong. top5: right among the five likeliest, of more than five.
    calibration: as `measure_calibration` has it, None for probabilities as the model gives them.
    """

    clips: int
    failed: int
    accuracy: float
    interval: list[float]
    accuracy_all: float
    top5: float | None
    macro: dict[str, float]
    majority: dict[str, Any]
    mean_confidence: float
    calibration_error: float
    calibration: dict[str, Any] | None
    per_class: list[dict[str, Any]]
    confusion: list[list[int]]
    figure_name: ClassVar[str] = "accuracy"

    def say(self, figure: float) -> str:
        return f"{percent(figure)} right"

    def baseline(self) -> tuple[str, float]:
        return f"always answering “{self.majority['label']}”", self.majority["accuracy"]

    def facts(self) -> list[tuple[str, str]]:
        facts = [("macro F1", percent(self.macro["f1"]))]
        if self.failed:
            facts.append(("unreadable as wrong", percent(self.accuracy_all)))
        if self.top5 is not None:
            facts.append(("right among the first five", percent(self.top5)))
        facts.append(("mean confidence", percent(self.mean_confidence)))
        if self.calibration is None:
            return [*facts, ("calibration error", percent(self.calibration_error))]
        return [*facts, *calibration_facts(self.calibration, "the right class")]

    def table(self) -> tuple[list[str], list[list[Any]]]:
        keys = ("recall", "precision", "f1")
        rows = [[row["label"], *(row[key] for key in keys), row["support"]] for row in self.per_class]
        return ["class", "recall", "precision", "F1", "clips"], rows

    def warnings(self) -> list[str]:
        absent = [row["label"] for row in self.per_class if not row["support"]]
        return [f"Not tested, for want of clips that could be read: {list_names(absent)}."] if absent else []


def measure_classes(classes: Sequence[str], confusion: np.ndarray) -> list[dict[str, Any]]:
    """Counts (K, K), row label, column answer -> precision, recall and F1 of each class, None where undefined."""
    rows = []
    for i, label in enumerate(classes):
        right, support, answered = int(confusion[i, i]), int(confusion[i].sum()), int(confusion[:, i].sum())
        rows.append(
            {
                "label": label,
                "precision": right / answered if answered else None,
                "recall": right / support if support else None,
                "f1": 2 * right / (answered + support) if answered or support else None,
                "support": support,
            }
        )
    return rows
