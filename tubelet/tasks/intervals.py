"""How far a figure that was measured on a few clips can be from that of all clips."""

import math
from collections.abc import Callable, Sequence

import numpy as np

DRAWS = 1000


def wilson_interval(right: int, n: int) -> list[float]:
    """[low, high], the 95 % interval of the share `right` of `n` > 0. Unlike p ± 2 sd it stays inside 0..1, at any n.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    z = 1.959963984540054
    share, spread = right / n, z * z / n
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    return [centre - half if right else 0.0, centre + half if right < n else 1.0]  # exact where rounding would not be


def group_interval(groups: Sequence[str], measure: Callable[[np.ndarray], float]) -> list[float]:
    """[low, high], the 95 % interval of `measure(rows)` over clips of which those of one group belong together.

    Whole groups are drawn with replacement, 1,000 times, and `measure` gets the numbers of their clips. NaN, where a
    draw leaves nothing to measure, is passed over; [NaN, NaN] where all do.
    Source: Davison and Hinkley 1997, "Bootstrap Methods and their Application", section 3.8.
    """
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    members = [np.flatnonzero(group == number) for number in range(group.max() + 1)]
    rng = np.random.default_rng(0)
    drawn = (rng.integers(len(members), size=len(members)) for _ in range(DRAWS))
    found = np.array([measure(np.concatenate([members[number] for number in numbers])) for numbers in drawn])
    found = found[~np.isnan(found)]
    return [float(end) for end in np.quantile(found, (0.025, 0.975))] if len(found) else [math.nan, math.nan]
