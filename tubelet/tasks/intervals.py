"""Confidence intervals: the distance of a figure measured on a few clips from that of all clips."""

import math
from collections.abc import Callable, Sequence

import numpy as np

Z = 1.959963984540054  # of the normal distribution, 95 % of which lies within as many deviations
MOST_BLOCKS = 50


def wilson_interval(right: int, n: int) -> list[float]:
    """[low, high], the 95 % interval of the share `right` of `n` > 0. Unlike p ± 2 sd it stays inside 0..1, at any n.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    share, spread = right / n, Z * Z / n
    centre = (share + spread / 2) / (1 + spread)
    half = Z / (1 + spread) * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    return [centre - half if right else 0.0, centre + half if right < n else 1.0]  # exact where rounding would not be


def group_interval(groups: Sequence[str], measure: Callable[[np.ndarray], float]) -> list[float]:
    """[low, high], the 95 % interval of `measure(rows)` over clips of which those of one group belong together.

    `measure` is asked for all clips, and for all but those of one group in turn, or, where groups are many, of one of
    50 blocks of groups: a jackknife, with Student's t. [-inf, 1] for a single group, which tells nothing of others.
    Source: Kott 2001, "The delete-a-group jackknife", Journal of Official Statistics 17(4).
    """
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    blocks = min(len(names), MOST_BLOCKS) if len(names) > 1 else 0
    block = np.random.default_rng(0).permutation(len(names))[group] % max(blocks, 1)
    whole = measure(np.arange(len(block)))
    left = np.array([measure(np.flatnonzero(block != number)) for number in range(blocks)])
    left = left[~np.isnan(left)]
    if len(left) < 2:
        return [-math.inf, 1.0]
    half = student_t(len(left) - 1) * math.sqrt((len(left) - 1) * float(left.var()))
    return [whole - half, min(1.0, whole + half)]


def student_t(freedom: int) -> float:
    """The number of deviations within which 95 % of Student's t distribution lies.

    Source: Abramowitz and Stegun 1964, 26.7.5; exact for 1 and 2, elsewhere within 1 %.
    """
    if freedom < 3:
        return (12.7062, 4.3027)[freedom - 1]
    z, n = Z, freedom
    terms = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + sum(term / n**power for power, term in enumerate(terms, start=1))
