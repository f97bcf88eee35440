"""Candidates that answered the same clips, two by two: differences with intervals over groups, and exact tests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import comb

import numpy as np

from tubelet.tasks.intervals import group_interval

Right = Mapping[int, np.ndarray]  # number of a candidate -> (clips,) bool, whether its answer was right
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Difference:
    """The leader against another candidate, on the same clips after as long a training, in round `round` of all.

    share: how much more of the clips the leader had right, in -1 to 1; interval: of 95 %, over groups. only_leader and
    only_other: the clips that one alone had right. p: of the exact McNemar test, two-sided, after Holm's correction for
    all others.
    """

    other: int
    round: int
    share: float
    interval: list[float]
    only_leader: int
    only_other: int
    p: float

    @property
    def clear(self) -> bool:
        """Whether both say that the leader is ahead: the test of clips, and the interval over groups."""
        return self.p < SIGNIFICANT and self.interval[0] > 0


@dataclass(frozen=True)
class Verdict:
    """The order of the candidates by their numbers, best first, and how the first is told from each other one."""

    order: list[int]
    differences: list[Difference]

    @property
    def leader(self) -> int:
        return self.order[0]

    @property
    def winner(self) -> int | None:
        """The leader, where it is clearly ahead of every other; else None."""
        return self.leader if self.differences and all(one.clear for one in self.differences) else None


def judge(rounds: Sequence[Right], groups: Sequence[str]) -> Verdict:
    """The verdict on candidates of which those left out of a round are not in the next either.

    Each is held against the leader as they were in the last round that it took part in. To name no winner where there
    is none, the leader must be ahead of every one.
    """
    last = {number: index for index, right in enumerate(rounds) for number in right}
    order = sorted(last, key=lambda number: (-last[number], -rounds[last[number]][number].mean(), number))
    leader, *others = order
    found = [compare_pair(rounds[last[other]], leader, other, groups, round=last[other] + 1) for other in others]
    corrected = correct_holm([one.p for one in found])
    return Verdict(order, [replace(one, p=p) for one, p in zip(found, corrected, strict=True)])


def compare_pair(right: Right, leader: int, other: int, groups: Sequence[str], *, round: int) -> Difference:
    """The difference of two, its p not corrected."""
    ours, theirs = right[leader], right[other]
    only_leader, only_other = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    return Difference(
        other=other,
        round=round,
        share=float(ours.mean() - theirs.mean()),
        interval=difference_interval(ours, theirs, groups),
        only_leader=only_leader,
        only_other=only_other,
        p=mcnemar(only_leader, only_other),
    )


def difference_interval(ours: np.ndarray, theirs: np.ndarray, groups: Sequence[str]) -> list[float]:
    """[low, high], the 95 % interval over groups of how much more of the clips, (clips,) bool, are right."""
    apart = ours.astype(float) - theirs
    low, high = group_interval(groups, lambda rows: float(apart[rows].mean()))
    return [max(low, -1.0), high]


def mcnemar(only_first: int, only_second: int) -> float:
    """The probability, where both are right equally often, that clips which one alone has right fall so unevenly.

    Source: McNemar 1947, Psychometrika 12(2); the exact form, a two-sided binomial test.
    """
    count, fewer = only_first + only_second, min(only_first, only_second)
    return min(1.0, 2 * sum(comb(count, k) for k in range(fewer + 1)) / 2**count)


def correct_holm(p: Sequence[float]) -> list[float]:
    """Probabilities of several tests, so corrected that any is below 0.05 by chance one time in twenty at most.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6.
    """
    corrected, most = [0.0] * len(p), 0.0
    for rank, number in enumerate(sorted(range(len(p)), key=lambda number: p[number])):
        most = max(most, min(1.0, (len(p) - rank) * p[number]))
        corrected[number] = most
    return corrected
