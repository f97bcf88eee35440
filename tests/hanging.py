"""A guard against work that hardly ends: twenty times what a slow machine needs for the slowest that is guarded."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

HANGS_SECONDS = 30.0  # of the processor; on a slow machine the slowest takes 1.6


@contextmanager
def ending() -> Iterator[None]:
    begun = time.process_time()
    yield
    assert time.process_time() - begun < HANGS_SECONDS
