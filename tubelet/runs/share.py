"""Who makes what of which items: this process all of it, or the processes of a team a share each.

`tubelet.runs.parts` has the jobs of a cluster, which make a part each and write it down.
"""

from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from tubelet.system.console import bar
from tubelet.system.team import Team

Result = TypeVar("Result")
Value = TypeVar("Value")
Key = tuple[str, float | None, float | None]  # of an item: its path, start and end in seconds
Keep = Callable[[int, Result], None]  # takes the number of an item, and what was made of it
HERE = Path()
Make = Callable[[list[int], Keep[Result]], None]  # of items of these numbers, and hands each over once it is made


def ignore(result: object) -> None:
    """Nothing is done with a result as it comes."""


def nothing() -> dict[str, Any]:
    """Results depend on no more than what was typed."""
    return {}


@dataclass(frozen=True)
class Form(Generic[Result]):
    """How a result becomes plain JSON, and, with the number of its item, a result again: the same to the bit."""

    pack: Callable[[Result], Any]
    unpack: Callable[[int, Any], Result]


@dataclass(frozen=True)
class Work(Generic[Result]):
    """What is to be made of items. keys: which; make: by what; form: how results are written down. root: the folder
    that paths start from. about: what results depend on beside what was typed, such as the model."""

    keys: Sequence[Key]
    make: Make[Result]
    form: Form[Result]
    root: Path = HERE
    about: Callable[[], dict[str, Any]] = nothing


@contextmanager
def count_in_order(
    title: str, noun: str, numbers: Sequence[int], keep: Keep[Result], *, show: bool
) -> Iterator[Callable[[Result], None]]:
    """Inside, a function that hands over the results of these numbers, which come in their order, with a bar."""
    left = iter(numbers)
    with bar(title, len(numbers), show=show) as progress:

        def count(one: Result) -> None:
            keep(next(left), one)
            progress.advance(f"{progress.done + 1}/{progress.total} {noun}")

        yield count


def pack_array(values: np.ndarray) -> list[Any]:
    """An array as JSON: its type, its shape, its bytes."""
    plain = np.ascontiguousarray(values)
    return [plain.dtype.str, list(values.shape), b64encode(plain.tobytes()).decode()]


def unpack_array(packed: list[Any]) -> np.ndarray:
    kind, shape, text = packed
    return np.frombuffer(b64decode(text), kind).reshape(shape).copy()


class HandedOver(Exception):
    """This process of a team has made its share: the first one has all results, and goes on alone."""


class Share(Protocol):
    """Makes the results of items, here or elsewhere.

    whole: whether this process has all results in the end, and shows and writes what becomes of them.
    """

    @property
    def whole(self) -> bool: ...

    def begin(self, prepare: Callable[[], Value]) -> Value:
        """What `prepare` returns; where it is wrong in one process, none goes on."""
        return prepare()

    def make(self, work: Work[Result], *, after: Callable[[Result], None] = ignore) -> list[Result]:
        """The result of each item, in order; `HandedOver` or `PartWritten` where another process has them all. `after`
        gets each as soon as it is known."""
        ...


class Alone(Share):
    """One process makes all."""

    whole = True

    def make(self, work: Work[Result], *, after: Callable[[Result], None] = ignore) -> list[Result]:
        made: dict[int, Result] = {}

        def keep(number: int, result: Result) -> None:
            made[number] = result
            after(result)

        numbers = list(range(len(work.keys)))
        work.make(numbers, keep)
        return [made[number] for number in numbers]


ALONE = Alone()


@dataclass(frozen=True)
class Together(Share):
    """The processes of a team make a share each; the first one has all results in the end."""

    team: Team

    @property
    def whole(self) -> bool:
        return self.team.first

    def begin(self, prepare: Callable[[], Value]) -> Value:
        return self.team.run_together(prepare)

    def make(self, work: Work[Result], *, after: Callable[[Result], None] = ignore) -> list[Result]:
        """Raises as `share_out`; HandedOver in all but the first process."""
        results = share_out(self.team, len(work.keys), work.make)
        if not self.team.first:
            raise HandedOver
        for result in results:
            after(result)
        return results


def share_out(team: Team, items: int, make: Make[Result]) -> list[Result]:
    """The result of each of so many items, in order, in every process of a team; each makes every so manieth.

    Raises as `Team.run_together`: what is wrong in one process ends all.
    """
    mine: dict[int, Result] = {}
    team.run_together(lambda: make(list(range(team.rank, items, team.size)), mine.__setitem__))
    made = {number: one for some in team.gather(mine) for number, one in some.items()}
    return [made[number] for number in range(items)]
