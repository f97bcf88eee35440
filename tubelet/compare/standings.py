"""The result of a comparison: who is ahead, by how much, how surely, and at which cost."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tubelet.compare.candidate import Candidate
from tubelet.compare.cost import Cost
from tubelet.compare.difference import SIGNIFICANT, Difference, Verdict
from tubelet.system.text import list_names, percent
from tubelet.tasks.intervals import group_interval

CLEARLY = 0.95  # of the time of another: less may be the moment


@dataclass(frozen=True, kw_only=True)
class Standings:
    """Candidates by their numbers. right: (clips,) bool, of the last round that each took part in; groups: of the
    clips; seconds: of a training, by round; failed: why some could not be trained."""

    candidates: Sequence[Candidate]
    verdict: Verdict
    right: Mapping[int, np.ndarray]
    groups: Sequence[str]
    seconds: Sequence[float]
    costs: Mapping[int, Cost]
    failed: Mapping[int, str]

    def name(self, number: int) -> str:
        return self.candidates[number].name

    def share(self, number: int) -> float:
        """The share of the clips that a candidate answered right, in the last round that it took part in."""
        return float(self.right[number].mean())

    def interval(self, number: int) -> list[float]:
        """[low, high], the 95 % interval of that share over groups."""
        right = self.right[number]
        low, high = group_interval(self.groups, lambda rows: float(right[rows].mean()))
        return [max(low, 0.0), high]

    def difference(self, number: int) -> Difference | None:
        """How the leader is told from a candidate; None for the leader itself."""
        return next((one for one in self.verdict.differences if one.other == number), None)

    def trained_seconds(self, number: int) -> float:
        """Seconds of each training of a candidate in its last round."""
        found = self.difference(number)
        return self.seconds[found.round - 1 if found else -1]

    @property
    def front(self) -> list[int]:
        """The candidates that no other is better than in as little time, the best first."""
        nearest, found = self.nearest, list[int]()
        for count, one in enumerate(nearest):
            if all(self.quicker(one, better) for better in nearest[:count]):
                found.append(one)
        return found

    @property
    def nearest(self) -> list[int]:
        """The candidates by how far they are behind the leader."""
        return sorted(self.verdict.order, key=self.behind)

    def quicker(self, one: int, other: int) -> bool:
        """Whether a candidate takes clearly less time for a clip than another."""
        return self.costs[one].p50_ms < CLEARLY * self.costs[other].p50_ms

    def behind(self, number: int) -> float:
        """By which share of the clips a candidate is behind the leader, after as long a training of both."""
        found = self.difference(number)
        return found.share if found else 0.0

    @property
    def advice(self) -> str:
        """One sentence: which candidate to take, or that none is known to be better."""
        leader, told = self.name(self.verdict.leader), self.verdict.differences
        if self.verdict.winner is not None:
            least = min(told, key=lambda one: one.share)
            return (
                f"Take {leader}: it is ahead of every other, of {self.name(least.other)} by {percent(least.share)} "
                f"(95 % interval over groups {percent(least.interval[0])} to {percent(least.interval[1])})."
            )
        close = [one.other for one in told if not one.clear]
        words = (
            f"No winner: {leader} has the most right, but is not told apart from {list_names([*map(self.name, close)])}"
        )
        quicker = [one for one in close if self.quicker(one, self.verdict.leader)]
        if not quicker:
            return f"{words}, none of which is quicker; more clips or a larger budget may tell."
        if len(close) == 1:
            return f"{words}, which is quicker."
        quickest = min(quicker, key=lambda number: self.costs[number].p50_ms)
        return f"{words}, of which {self.name(quickest)} is the quickest."

    def to_json(self) -> dict[str, Any]:
        """For programs; candidates from the best to the last."""
        winner = self.verdict.winner
        return {
            "advice": self.advice,
            "winner": None if winner is None else self.name(winner),
            "leader": self.name(self.verdict.leader),
            "clips": len(self.groups),
            "groups": len(set(self.groups)),
            "significant": SIGNIFICANT,
            "standings": [self.row(number) for number in self.verdict.order],
        }

    def row(self, number: int) -> dict[str, Any]:
        found = self.difference(number)
        told = None if found is None else {**asdict(found), "other": self.name(number), "clear": found.clear}
        shown = {"candidate": self.name(number), "accuracy": self.share(number), "interval": self.interval(number)}
        shown |= {"seconds": self.trained_seconds(number), "behind": told, **asdict(self.costs[number])}
        return {**shown, "on_front": number in self.front}
