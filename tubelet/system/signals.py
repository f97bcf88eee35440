"""Signals that stop a training, with everything saved."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tubelet.system.console import console, say
from tubelet.system.exits import handle

# torchrun passes a signal on that its processes got too, as from Ctrl-C: what comes so soon is no second one.
PASSED_ON_SECONDS = 2.0


@contextmanager
def signals(*, show: bool) -> Iterator[list[int]]:
    """The signals caught while inside, the first alone: a second one ends the process at once."""
    caught: list[int] = []
    first = 0.0

    def catch(number: int, frame: object) -> None:
        nonlocal first
        if caught and "TORCHELASTIC_RUN_ID" in os.environ and time.monotonic() - first < PASSED_ON_SECONDS:
            return
        if caught:  # without waiting for threads that read
            if hasattr(sys, "ps1") or "ipykernel" in sys.modules:  # a notebook, whose process is not to end
                raise KeyboardInterrupt
            with suppress(RuntimeError, OSError):
                console.show_cursor(True)
            os._exit(128 + number)
        first = time.monotonic()
        caught.append(number)
        if show:
            with suppress(RuntimeError):  # the signal came in the midst of a line that is being printed
                say("\nstopping", "after this step")

    with handle(catch, signal.SIGINT, signal.SIGTERM):
        yield caught
