"""prefetch: a map done by threads, in order, with a bound on what is under way."""

import threading
import time
from collections.abc import Iterator
from itertools import count

import pytest
import torch
from naming import naming

from tubelet.data.prefetch import prefetch


def _square_slowly(number: int) -> int:
    time.sleep(0.002 * (number % 3))
    return number * number


@pytest.mark.parametrize(("threads", "ahead"), [(1, 1), (1, 5), (4, 1), (4, 8), (3, 100)])
def test_results_come_in_order(threads: int, ahead: int) -> None:
    results = list(prefetch(_square_slowly, range(40), threads=threads, ahead=ahead))
    assert results == [number * number for number in range(40)]


def test_nothing_to_do() -> None:
    assert list(prefetch(_square_slowly, [], threads=2, ahead=2)) == []


@pytest.mark.parametrize("ahead", [1, 3, 6])
def test_no_more_than_ahead_are_begun_and_not_handed_over(ahead: int) -> None:
    asked: list[int] = []

    def requests() -> Iterator[int]:
        for number in range(20):
            asked.append(number)
            yield number

    for handed_over, _ in enumerate(prefetch(lambda number: number, requests(), threads=2, ahead=ahead)):
        assert len(asked) - handed_over <= ahead


def test_work_is_done_at_the_same_time() -> None:
    both_here = threading.Barrier(3, timeout=100)  # breaks, and raises, unless three calls meet in it
    assert sorted(prefetch(lambda _: both_here.wait(), range(3), threads=3, ahead=3)) == [0, 1, 2]


def test_an_exception_comes_in_its_place() -> None:
    def make(number: int) -> int:
        if number == 3:
            raise OSError("clip 3 is broken")
        time.sleep(0.01)
        return number

    results = prefetch(make, range(10), threads=4, ahead=8)
    assert [next(results), next(results), next(results)] == [0, 1, 2]
    with pytest.raises(OSError, match="clip 3 is broken"):
        next(results)
    assert list(results) == []
    assert not _threads_at_work()


def test_closing_early_stops_the_threads() -> None:
    results = prefetch(_square_slowly, count(), threads=4, ahead=8)
    assert next(results) == 0
    assert _threads_at_work()
    results.close()  # type: ignore[attr-defined]
    assert not _threads_at_work()


def test_closing_early_drops_what_has_not_begun() -> None:
    made: list[int] = []

    def make(number: int) -> None:
        time.sleep(0.01)
        made.append(number)

    results = prefetch(make, range(30), threads=1, ahead=20)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert len(made) < 20


@pytest.mark.parametrize(("threads", "ahead"), [(0, 1), (1, 0)])
def test_numbers_below_one_are_refused(threads: int, ahead: int) -> None:
    with pytest.raises(ValueError, match=naming(f"threads={threads}", f"ahead={ahead}")):
        next(prefetch(_square_slowly, [1], threads=threads, ahead=ahead))


def _threads_at_work() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("tubelet-prefetch")]


def test_each_thread_computes_by_itself_and_the_others_as_before() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert list(prefetch(lambda _: torch.get_num_threads(), range(4), threads=2, ahead=2)) == [1, 1, 1, 1]
        later: list[int] = []
        thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert (torch.get_num_threads(), later) == (2, [2])
    finally:
        torch.set_num_threads(before)
