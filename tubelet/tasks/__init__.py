"""Tasks, the piece between logits and people: loss, answers, metrics, columns, words. One file for each task."""

from typing import Any

from tubelet.tasks.classification import Classification
from tubelet.tasks.multilabel import MultiLabel
from tubelet.tasks.regression import Regression
from tubelet.tasks.task import Results, Task

__all__ = ["TASKS", "Classification", "MultiLabel", "Regression", "Results", "Task", "find_task", "task_from_json"]

TASKS: dict[str, type[Task]] = {task.kind: task for task in (Classification, MultiLabel, Regression)}

NAMES = (*TASKS, "segments")  # of all that a model can be trained for; segments are found by a pyramid beside it


def find_task(kind: object) -> type[Task]:
    """Raises ValueError for a kind of task that this version does not know."""
    if not (isinstance(kind, str) and kind in TASKS):
        raise ValueError(f"a task {kind!r}, expected one of {', '.join(TASKS)}: made by another version?")
    return TASKS[kind]


def task_from_json(values: Any) -> Task:
    """The task of a checkpoint.

    Raises:
        ValueError: one that this version does not know, or values that it cannot have.
    """
    return find_task(values.get("kind") if isinstance(values, dict) else None).from_json(values)
