"""How a training is stopped: by a signal, with everything saved."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tubelet.screen import say


class Stopped(Exception):
    """Training was stopped by a signal, with everything saved; `signal` says which."""

    def __init__(self, run: Path, number: int):
        super().__init__(f"stopped; the same command goes on from {run}")
        self.run, self.signal = run, number


@contextmanager
def signals(*, show: bool) -> Iterator[list[int]]:
    """Signals caught while inside; a second Ctrl-C ends at once."""
    caught: list[int] = []

    def catch(number: int, frame: object) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(number)
        if show:
            say("\nstopping", "after this step")

    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before = {number: signal.signal(number, catch) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
