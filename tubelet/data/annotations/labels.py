"""Labelled segments as other programs have them, and what is wrong with them, gathered while files are read."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any

from tubelet.data.problems import Problem
from tubelet.data.table import SPLITS, records
from tubelet.system.text import plural

SUBSETS = {**SPLITS, "training": "train", "testing": "test", "validate": "val", "unassigned": ""}


@dataclass(frozen=True)
class Annotation:
    """A labelled segment [start, end) of a file, in seconds, or `in_frames`: frames of a video, counted from 0.

    where: its place in the source, for messages. file: a name, path or address. start: None for a label of the whole
    file. end: None is the end of the file. frame_rate: frames a second, where the source says so.
    """

    where: str
    file: str
    label: str
    start: float | None
    end: float | None
    split: str = ""
    group: str = ""
    in_frames: bool = False
    frame_rate: float | None = None


@dataclass
class Labels:
    """The segments of a source, what was left out, and all that is wrong.

    tiers: the only ones to read, of sources that keep labels in several; empty: all. tiers_met: those that there are.
    """

    tiers: tuple[str, ...] = ()
    tiers_met: set[str] = field(default_factory=set)
    annotations: list[Annotation] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    notes: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)

    def wants(self, tier: str) -> bool:
        self.tiers_met.add(tier)
        return not self.tiers or tier in self.tiers

    def fault(self, kind: str, where: str, message: str) -> None:
        self.problems.append(Problem(kind, where, message))

    def add(
        self,
        where: str,
        file: object,
        label: object,
        start: object,
        end: object,
        *,
        subset: object = "",
        group: object = "",
        in_frames: bool = False,
        frame_rate: float | None = None,
    ) -> None:
        """A segment as its source has it: an annotation, or all that is wrong with it. An infinite end is the file's.

        subset: in the words of the source.
        """
        before, since, to = len(self.problems), number(start), number(end)
        whole = self._whole(where, file, label, subset, group)
        if since is None or to is None or not 0 <= since < math.inf:
            self.fault("times", where, f"from {start!r} to {end!r}; expected two times from 0 up")
        elif since >= to:
            self.fault("times", where, f"its start {start} is not before its end {end}")
        elif len(self.problems) == before:
            last = None if to == math.inf else to
            part = replace(whole, start=since, end=last, in_frames=in_frames, frame_rate=frame_rate)
            self.annotations.append(part)

    def add_whole(self, where: str, file: object, label: object, *, subset: object = "", group: object = "") -> None:
        """A label of a whole file as its source has it: an annotation, or all that is wrong with it."""
        before = len(self.problems)
        whole = self._whole(where, file, label, subset, group)
        if len(self.problems) == before:
            self.annotations.append(whole)

    def _whole(self, where: str, file: object, label: object, subset: object, group: object) -> Annotation:
        texts = (one if isinstance(one, str) else "" for one in (file, label, subset, group))
        file, label, subset, group = texts
        split = SUBSETS.get(subset.strip().lower())
        if not file.strip():
            self.fault("empty-path", where, "names no file; say in its program which video it is of")
        if not label.strip():
            self.fault("empty-label", where, "a segment without a label; label it or remove it")
        if split is None:
            expected = ", ".join(name for name in SUBSETS if name)
            self.fault("split", where, f"subset {subset!r} is unknown; expected one of {expected}")
        return Annotation(where, file, label.strip(), None, None, split or "", group.strip())

    def records(self, value: object, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Key, or number from 1, and content of each record in a dict or a list of JSON; all else is a fault."""
        if not isinstance(value, dict | list):
            self.fault("layout", where, f"{shorten(value)}, expected records")
            return
        for key, record in value.items() if isinstance(value, dict) else enumerate(value, 1):
            if isinstance(record, dict):
                yield str(key), record
            else:
                self.fault("layout", f"{where} {key}", f"{shorten(record)}, expected a record")

    def rows(
        self, name: str, text: str, *, columns: Sequence[str] = (), needed: Set[str] = frozenset()
    ) -> Iterator[tuple[str, dict[str, str]]]:
        """Place and cells of each line of a table by its columns, which the first line names unless they are given."""
        for line, cells in records(text):
            where = f"{name} line {line}"
            if isinstance(cells, str):
                self.fault("broken-row", where, cells)
            elif not columns:
                columns = [cell.strip() for cell in cells]
                if missing := sorted(needed - {*columns}):
                    self.fault("header", where, f"names no {', '.join(missing)}")
                    return
            elif len(cells) < len(columns):
                self.fault("cells", where, f"{plural(len(cells), 'cell')}, the header has {len(columns)}")
            else:
                yield where, dict(zip(columns, cells))


def number(value: object) -> float | None:
    """The number that 1.5 and "1.5" are; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return None if math.isnan(found) else found


def inside(value: object, *keys: str) -> Any:
    """value[key][key]...; None where there is no such record."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def shorten(value: object) -> str:
    """A value of a source in a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
