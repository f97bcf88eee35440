"""Memory that is freed and asked for again, batch by batch: kept in the process instead of handed back each time.

GNU's allocator returns large blocks to the system, which has to clear each page anew: where small clips are answered
that is a sixth of the processor's time. `benchmarks/predict_many.py` prints the share of the system.
"""

import ctypes
import os

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # names in <malloc.h>
KEPT_BYTES, LARGEST_BYTES = 256 << 20, 32 << 20  # what is free at most, and of one block: the most that is allowed
CHOSEN_BY_USERS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_memory() -> bool:
    """Lets this process keep what it freed, where its allocator can be asked to and its user has not chosen."""
    try:
        ask = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another allocator, another system
        return False
    if any(name in os.environ for name in CHOSEN_BY_USERS):
        return False
    return bool(ask(TRIM_THRESHOLD, KEPT_BYTES) and ask(MMAP_THRESHOLD, LARGEST_BYTES))
