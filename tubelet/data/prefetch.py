"""Work done ahead by threads: decoding and resizing release the interpreter, so nothing is pickled or forked."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import torch

Request = TypeVar("Request")
Result = TypeVar("Result")


def processors() -> int:
    """The number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prefetch(
    make: Callable[[Request], Result], requests: Iterable[Request], *, threads: int, ahead: int
) -> Generator[Result, None, None]:
    """`map(make, requests)`, in order, with at most `ahead` results begun and not yet handed over.

    An exception of `make` is raised where its result would have stood. Closing the iterator, or that exception, waits
    for the calls that have begun and drops the others; endless `requests` are fine.

    Raises: ValueError where threads or ahead is below 1.
    """
    if threads < 1 or ahead < 1:
        raise ValueError(f"prefetch: threads={threads}, ahead={ahead}; both must be 1 or more")
    # Each thread computes by itself: threads of threads would fight with the model's over the same cores.
    alone, before = partial(torch.set_num_threads, 1), torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="tubelet-prefetch", initializer=alone)
    begun: deque[Future[Result]] = deque()
    try:
        for request in requests:
            begun.append(pool.submit(make, request))
            if len(begun) == ahead:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(before)  # for threads that the user may start later; this one never changed
