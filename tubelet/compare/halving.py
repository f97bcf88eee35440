"""Successive halving: all candidates learn for a short time, the better ones for longer, with a place for a slow one.

round 1   a a a a a a   all, a short time each
round 2   A     A   A   the better third, and the one that may overtake them
...                     until three are left

Source: Jamieson and Talwalkar 2016, arXiv 1502.07943; a third goes on, as in arXiv 1603.06560.
"""

import math
from collections.abc import Mapping

FINALISTS = 3
KEPT = 3  # one of so many goes on


def count_rounds(candidates: int) -> int:
    """The number of rounds, until three candidates are left."""
    rounds = 1
    while candidates > FINALISTS:
        candidates, rounds = count_kept(candidates), rounds + 1
    return rounds


def count_kept(candidates: int) -> int:
    """The number that goes on: a third, and one that starts slowly."""
    return math.ceil(candidates / KEPT) + 1


def choose_kept(shares: Mapping[int, float], growths: Mapping[int, float]) -> list[int]:
    """The candidates that go on, by number: those that are right most often, and the one that may overtake them.

    shares: of clips that are right at the end of the round, by candidate. growths: by how much that share grew in the
    second half of the training, as looks on the way saw it; one that starts slowly is still getting better then. The
    place beside is that of the candidate which would be the best if it grew as much with each doubling of its time.
    """
    order = sorted(shares, key=lambda number: (-shares[number], number))
    third = count_kept(len(order)) - 1
    late = sorted(order[third:], key=lambda number: (-shares[number] - math.log2(KEPT) * growths[number], number))
    return sorted([*order[:third], *late[:1]])
