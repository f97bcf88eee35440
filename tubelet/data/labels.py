"""The columns of a table that hold what is to be learned. Importing this file imports no torch."""

from collections.abc import Sequence

LABELS = ("label",)  # unless others are named


def check_labels(task: str, labels: Sequence[str]) -> None:
    """Raises ValueError for columns that a task does not read."""
    if len(set(labels)) != len(labels) or (len(labels) > 1 and task != "regression"):
        raise ValueError(f"--labels {' '.join(labels)}: expected one column, or several for --task regression")
    if task == "segments" and tuple(labels) != LABELS:
        raise ValueError(f"--labels {' '.join(labels)}: segments are read from the column label")
