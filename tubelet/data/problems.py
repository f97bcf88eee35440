"""Faults of a data set: all in one error, so that they can be repaired in one go."""

import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count

from tubelet.system.text import visible

SHOWN = 20

KINDS = (  # these names stay
    *("missing", "unreadable", "layout"),
    *("empty-class", "few-classes", "few-clips", "alike-classes", "class-name", "unseen-class"),
    *("mixed-kinds", "header", "broken-row", "cells", "empty-path", "missing-file", "not-media"),
    *("empty-label", "label", "times", "overlap", "split", "repeated", "two-labels", "leak"),
)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. kind: one of KINDS. where: the file, folder, class or line.

    message: what is wrong, and what to do.
    """

    kind: str
    where: str
    message: str

    def __str__(self) -> str:
        return visible(f"{self.where}: {self.message}")  # here, for it becomes one line of several


class DataProblems(ValueError):
    """The faults of a data set, in `problems`; `origin` is its path.

    As text: how many of each kind, and the first 20 (`most`) in full, those of rare kinds before the many of one.
    """

    def __init__(self, origin: str, problems: Iterable[Problem], most: int = SHOWN) -> None:
        self.origin, self.problems, self.most = origin, tuple(problems), most
        super().__init__(self.origin, self.problems, most)

    def __str__(self) -> str:
        origin = visible(self.origin)
        lines = [str(problem).removeprefix(f"{origin}: ") for problem in _first(self.problems, self.most)]
        if len(lines) == 1:
            return f"{origin}: {lines[0]}"
        counts = Counter(problem.kind for problem in self.problems)
        by_kind = ", ".join(f"{many} {kind}" for kind, many in counts.items())
        if len(self.problems) > len(lines):
            command = f"tubelet check {shlex.quote(origin)} --json"
            lines.append(f"and {len(self.problems) - len(lines)} more, which `{command}` lists")
        return "\n  ".join([f"{origin}: {len(self.problems)} problems ({by_kind}):", *lines])


def _first(problems: tuple[Problem, ...], most: int) -> list[Problem]:
    """The first `most` in their order, but the first of a kind goes before the second of any."""
    nth: dict[str, Iterator[int]] = defaultdict(count)
    ranks = sorted((next(nth[problem.kind]), place) for place, problem in enumerate(problems))
    return [problems[place] for place in sorted(place for _, place in ranks[:most])]


def some(names: Iterable[str], *, most: int = 5) -> str:
    """'a', 'b' and 7 more: names for a message."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more
