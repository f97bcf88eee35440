"""What lies between logits and what people read: loss, answers, metrics, columns, words. One file for each task."""

from typing import Any

from tubelet.tasks.classification import Classification
from tubelet.tasks.multilabel import MultiLabel
from tubelet.tasks.regression import Regression
from tubelet.tasks.task import Results, Task

__all__ = ["TASKS", "Classification", "MultiLabel", "Regression", "Results", "Task", "task_from_json"]

TASKS: dict[str, type[Task]] = {task.kind: task for task in (Classification, MultiLabel, Regression)}


def task_from_json(values: Any) -> Task:
    """The task of a checkpoint.

    Raises:
        ValueError: one that this version does not know, or values that it cannot have.
    """
    kind = values.get("kind") if isinstance(values, dict) else None
    if not (isinstance(kind, str) and kind in TASKS):
        raise ValueError(f"a task {kind!r}, expected one of {', '.join(TASKS)}: made by another version?")
    return TASKS[kind].from_json(values)
