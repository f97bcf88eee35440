"""Looks at many files, shared out among the processes of a team: each file is opened by one, the same at every look.

first    work ── look, files ──┬─> its files ─────┬─> what was found, in the order of the files ─> work goes on
others         wait for it     └─> their files ───┘
"""

import hashlib
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from tubelet.system.team import Elsewhere, Team

Request = TypeVar("Request")
Found = TypeVar("Found")
Value = TypeVar("Value")


class Spread(Protocol):
    """What `look` finds for each request, in order.

    look: from several requests to what is found for each; a function that can be pickled, as all processes call it.
    file: of a request, as all looks name it. at_once: requests for each process, before more are shared out; all of
    them if left out.
    """

    def __call__(
        self,
        look: Callable[[Sequence[Request]], Iterable[Found]],
        requests: Sequence[Request],
        *,
        file: Callable[[Request], str] = str,
        at_once: int = 0,
    ) -> Generator[Found, None, None]: ...


def alone(
    look: Callable[[Sequence[Request]], Iterable[Found]],
    requests: Sequence[Request],
    *,
    file: Callable[[Request], str] = str,
    at_once: int = 0,
) -> Generator[Found, None, None]:
    """The `Spread` of a process that is alone: it looks at all files, and hands over each as soon as it is done."""
    yield from look(requests)


def choose_owner(file: str, processes: int) -> int:
    """The number of the process that opens a file."""
    mark = hashlib.blake2b(file.encode(errors="surrogateescape"), digest_size=8).digest()
    return int.from_bytes(mark) % processes


def lead(team: Team, work: Callable[[Spread], Value]) -> Value:
    """Runs `work` in the first process, which may share out looks at files, and returns its value in every process.

    Raises: as `Team.run_together`.
    """
    if team.size == 1:
        return work(alone)
    failures: list[Exception] = []

    def take_part(look: Callable[[Sequence[Any]], Iterable[Any]], parts: Sequence[Sequence[Any]]) -> list[list[Any]]:
        """What each process found, by rank. Raises Elsewhere, in all, where one could not; `failures` say why there."""
        found: list[Any] | None = None
        try:
            found = [*look(parts[team.rank])]
        except Exception as error:
            failures.append(error)
        everything = team.gather(found)
        if None in everything:
            raise Elsewhere(f"process {everything.index(None)} of {team.size} cannot go on: see what it says")
        return everything  # type: ignore[return-value]  # none is None

    def spread(
        look: Callable[[Sequence[Request]], Iterable[Found]],
        requests: Sequence[Request],
        *,
        file: Callable[[Request], str] = str,
        at_once: int = 0,
    ) -> Generator[Found, None, None]:
        step = at_once * team.size or len(requests)
        for start in range(0, len(requests), step or 1):
            some = requests[start : start + step]
            owners = [choose_owner(file(request), team.size) for request in some]
            parts = [[one for one, owner in zip(some, owners) if owner == rank] for rank in range(team.size)]
            team.hear_first((look, parts))
            found = [iter(part) for part in take_part(look, parts)]
            yield from (next(found[owner]) for owner in owners)

    def work_or_take_part() -> Value | None:
        value: Value | None = None
        if team.first:
            try:
                value = work(spread)
            except Exception as error:
                failures.append(error)
            team.hear_first(None)  # nothing more to do
        else:
            while asked := team.hear_first(NOTHING):
                with suppress(Elsewhere):  # the first process then ends this
                    take_part(*asked)
        if failures:
            raise failures[0]
        return value

    return team.hear_first(team.run_together(work_or_take_part))  # type: ignore[return-value]  # the first one's


NOTHING: Any = None
