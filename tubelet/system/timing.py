"""Fair times on a machine that is not ours alone: in turns, medians."""

import time
from collections.abc import Callable, Mapping

import torch

Jobs = Mapping[str, Callable[[], object]]

now = time.perf_counter  # seconds; a benchmark on a machine that others use, too, may take `time.thread_time` instead


def time_in_turns(
    jobs: Jobs, *, runs: int = 7, seconds: float = 0.0, after: Callable[[str, float], None] = lambda name, took: None
) -> dict[str, list[float]]:
    """Seconds that each of some jobs takes, in turns, so that whatever else the machine does hits all of them alike.

    After a first time to warm up each runs at least `runs` times, then for as long as another turn of all would end
    before `seconds` have passed. `after` is called with each run, the first ones too.
    """
    took: dict[str, list[float]] = {name: [] for name in jobs}
    begun, turn = now(), -1
    while turn < runs or (now() - begun) * (turn + 2) / (turn + 1) < seconds:
        for name, job in jobs.items():
            start = now()
            job()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            passed = now() - start
            if turn >= 0:
                took[name].append(passed)
            after(name, passed)
        turn += 1
    return took
