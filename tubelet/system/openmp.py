"""The waiting of OpenMP's threads for each other: awake for a moment, then asleep, so that no core is taken twice.

By default they stay awake for long. On a core that another program also uses, a thread that is waited for then stands
still for as long as the one that waits is awake, and a step takes many times as long instead of twice. The setting is
read when torch is loaded, so it comes before. docs/performance.md has the measurement, by `benchmarks/waiting.py`.
"""

import os

SPIN_COUNT = "2000"  # GNU's runtime, of torch's Linux wheels: turns of an empty loop
BLOCK_MILLISECONDS = "1"  # LLVM's and Intel's, of its macOS and Windows wheels
CHOSEN_BY_USERS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def wait_briefly() -> None:
    """Sets how long threads of this process wait awake, unless its user has."""
    if not any(name in os.environ for name in CHOSEN_BY_USERS):
        os.environ |= {"GOMP_SPINCOUNT": SPIN_COUNT, "KMP_BLOCKTIME": BLOCK_MILLISECONDS}
