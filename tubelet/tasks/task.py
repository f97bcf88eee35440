"""The interface of a task, the piece between a model's logits and people.

cell of a table -> target -> loss            in training
logits -> answer -> words, columns           of each clip
targets and answers -> Results -> figures    of all clips
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from torch import Tensor

from tubelet.system.text import percent


class Results(Protocol):
    """The figures of clips that were answered, of which `clips` could be read and `failed` could not.

    figure: the number that stands for all, 1 where all is right; figure_name: as `to_json` calls it. interval: its
    [low, high] of 95 %. confusion: counts, row label, column answer, where every clip has one of several classes.
    calibration: as `measure_calibration` has it, where probabilities were calibrated.
    """

    figure_name: ClassVar[str]
    clips: int
    failed: int
    interval: list[float]
    confusion: list[list[int]] | None
    calibration: dict[str, Any] | None

    @property
    def figure(self) -> float:
        return float(getattr(self, self.figure_name))

    def number(self, figure: float) -> str:
        """A figure as it is written."""
        return percent(figure)

    def say(self, figure: float) -> str:
        """A figure in words, as in "93.1 % right"."""

    def baseline(self) -> tuple[str, float]:
        """The best answer without a model, in words, and the figure that it reaches."""

    def interval_above(self, name: str, figure: float) -> list[float]:
        """The interval of how far the figure is above that of a baseline, known by its name."""
        return [bound - figure for bound in self.interval]

    def facts(self) -> list[tuple[str, str]]:
        """Further figures, name and value."""

    def table(self) -> tuple[list[str], list[list[Any]]]:
        """Columns, the first of names, and a row for each output of the model; shares are floats, None unknown."""

    def warnings(self) -> list[str]:
        """Warnings to read before the figures are relied on."""
        return []

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


class Task(Protocol):
    """One kind of answer with what it needs; it travels in the checkpoint, beside the weights.

    names: of the model's outputs, in their order. A target is a row of a tensor; where it is NaN nothing is known.
    """

    kind: ClassVar[str]
    figure_name: ClassVar[str]  # of the mean of `score`, as training shows and keeps it
    smoothing: ClassVar[float] = 0.0  # of labels, where no other is asked for
    fewest_classes: ClassVar[int]  # that a training needs
    exclusive: ClassVar[bool] = False  # whether each clip has one class, and no other
    gives_probabilities: ClassVar[bool] = True
    settles: ClassVar[bool] = False  # whether `settle` chooses something
    calibrates: ClassVar[bool] = False  # whether the measured clips may settle it, where there are no others
    names: tuple[str, ...]

    @staticmethod
    def classes_in(cell: str) -> tuple[str, ...]:
        """The classes that a cell of a table names; none where its clips are not told apart by class."""

    @classmethod
    def find_fault(cls, cell: str, columns: Sequence[str]) -> str:
        """The fault of a cell and its remedy; "" where there is none."""

    @classmethod
    def from_cells(cls, cells: Sequence[str], columns: Sequence[str]) -> Self:
        """The task that the cells of a data set ask for; columns: the names of those that were read."""

    def learn_from(self, targets: Tensor) -> Self:
        """The task with what its loss and answers take from the training targets."""
        return self

    def settle(self, targets: Tensor, answers: np.ndarray, groups: Sequence[str], *, measured: bool = False) -> Self:
        """The task with what is chosen by held-out clips, such as thresholds; groups: of the clips.

        measured: the result is measured on these clips, too: nothing is chosen that would flatter it.
        """
        return self

    def calibrate(self, answers: np.ndarray) -> np.ndarray:
        """Answers (..., outputs) of the task before `settle` -> the same of this one."""
        return answers

    def targets(self, cells: Sequence[str]) -> Tensor:
        """Cells -> targets (N, ...)."""

    def swap(self, cell: str, partners: Mapping[str, str]) -> str:
        """The cell of a clip that was mirrored or reversed, which turns each class into its partner."""
        return cell

    def soften(self, targets: Tensor, smoothing: float) -> Tensor:
        """Targets (B, ...) -> (B, outputs) float, which can be mixed; `smoothing` in [0, 1) of them is spread out."""

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Logits and softened targets, (B, outputs) each -> the mean loss."""

    def score(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Logits (B, outputs) and targets (B, ...) -> (B,), 1 where all is right."""

    def answer(self, logits: Tensor) -> np.ndarray:
        """Logits (N, outputs) -> what they mean, (N, outputs) float32: probabilities, or numbers."""

    def word(self, answer: np.ndarray) -> str:
        """An answer (outputs,) as a cell of a table would have it."""

    def certainty(self, answer: np.ndarray) -> float | None:
        """The probability of `word`; None where there is none."""
        return None

    def likely(self, answer: np.ndarray) -> list[str] | None:
        """The likeliest classes, first the first, with all that is right nine times in ten; None where not known."""
        return None

    def errors(self, targets: Tensor, answers: np.ndarray) -> np.ndarray:
        """Errors (N,) of N answers: 0 is right, the most misleading has the most."""

    def columns(self) -> list[str]:
        """Names of the columns of a table that hold an answer."""
        return [f"p:{name}" for name in self.names]

    def measure(
        self, targets: Tensor, answers: np.ndarray, *, groups: Sequence[str], failed: int, settled_by: bool = False
    ) -> Results:
        """The figures of N > 0 answers; clips of one group, such as one recording, are not independent.

        settled_by: these very clips settled the task: what that would flatter is measured by fits on other groups.
        """

    def describe(self) -> str:
        """The task in a few words, for a plan and a card."""

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, **{name: list(values) for name, values in vars(self).items()}}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Raises ValueError for values that this task cannot have."""


def check_names(names: object) -> tuple[str, ...]:
    """Raises ValueError unless the names of a model's outputs, from a file, are different texts."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        raise ValueError("its class names are not a list of different texts: copy or train it again")
    return tuple(names)


def check_numbers(numbers: object, count: int) -> tuple[float, ...]:
    """Raises ValueError unless there is a number, from a file, for each output of a model, or none at all."""
    if not isinstance(numbers, list) or not all(isinstance(one, float | int) and abs(one) < 1e30 for one in numbers):
        raise ValueError("its task has settings that are no list of numbers: copy or train it again")
    if len(numbers) not in (0, count):
        raise ValueError(f"its task has {len(numbers)} numbers for {count} outputs: copy or train it again")
    return tuple(map(float, numbers))


def mean_known(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def none_if_unknown(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
