"""A data set of any task, by the name that people type for it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tubelet.data.items import Source, find_items
from tubelet.data.labels import LABELS, check_labels
from tubelet.data.segments import as_source, read_segments
from tubelet.data.table import read_table
from tubelet.tasks import MultiLabel, find_task


def find_source(data: Path, task: str, labels: Sequence[str] = LABELS, *, minimum: int = 2) -> Source:
    """The items of a data set; for segments, the rows of its table, several for each file.

    labels: the columns of a table that hold what is to be learned. minimum: how many classes there must be, and how
    many clips or segments of each.

    Raises: DataProblems, a ValueError, as `find_items` and `read_segments` do; ValueError as `check_labels` does.
    """
    check_labels(task, labels)
    if task != "segments":
        kind = find_task(task)
        return find_items(data, task=kind, labels=labels, minimum_classes=minimum, minimum_clips=minimum)
    recordings = read_segments(data, minimum=minimum)
    groups = {one.path: one.group for one in recordings.recordings}
    rows = read_table(data.absolute(), root=recordings.root, task=MultiLabel).items
    items = tuple(replace(row, group=groups.get(row.path, row.group)) for row in rows)
    return replace(as_source(recordings), items=items, notes=recordings.notes)
