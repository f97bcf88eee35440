"""Child processes that look through files: where a decoder dies of a file, only a child dies with it.

this process    [path, quick]                    ->    child      one line of JSON each way, for each file
                ["fetch", address, first, end]   <-               as often as bytes of a file elsewhere are missing
                [file, version] or an error      ->               it touches no network itself
                [kind, what]                     <-
"""

import traceback
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tubelet.media import blocks
from tubelet.media.address import absolute
from tubelet.media.blocks import Held, ask_instead
from tubelet.media.errors import MediaError
from tubelet.media.health import Health, examine, parse_health
from tubelet.media.index_cache import refuse
from tubelet.media.remote import Version
from tubelet.system.child import AskBack, Child, answer_lines, ask, child_command, describe_end, end, start_child

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

DEADLY, FETCH = "decoder-crash", "fetch"


class Workers:
    """Child processes, as many as threads ask at once, started when needed; the end of a `with` ends them.

    command: what a child runs, by default `work`.
    """

    def __init__(self, command: Sequence[str] = ()) -> None:
        self.command = [*command] or child_command(__name__)
        self.idle: list[Child] = []

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *error: object) -> None:
        while self.idle:
            end(self.idle.pop())

    def examine(self, path: str, *, quick: bool) -> Health:
        """`health.examine` in a child; decoder-crash where two die of the file, the second one fresh.

        The first may have died of what the file before did to its memory. This process opens such a file no more.

        Raises: OSError: no child can be started. RuntimeError: a bug. MemoryError.
        """
        how = ""
        for is_fresh in (False, True):
            child = self._start() if is_fresh else self._idle()
            try:
                answer = ask(child, [path, quick])
                while answer is not None and answer[0] == FETCH:
                    answer = ask(child, fetch(*answer[1:]))
            except BaseException:  # it would answer the next question with what was asked now
                end(child)
                raise
            if answer is not None:
                self.idle.append(child)
                return read_answer(path, *answer)
            how = describe_end(child)
        message = f"the decoder dies of it ({how}). Leave it out, or convert it."
        refuse_deadly(path, message)
        return Health(path, False, False, DEADLY, message)

    def _idle(self) -> Child:
        try:
            return self.idle.pop()
        except IndexError:
            return self._start()

    def _start(self) -> Child:
        return start_child(self.command, environment=ONE_THREAD)


def refuse_deadly(path: str, message: str) -> None:
    """Opens a file no more in this process, as children died of it. message: that of its Health."""
    problem, _, remedy = message.removesuffix(".").partition(". ")
    refuse(MediaError(absolute(path), DEADLY, problem, remedy))


def read_answer(path: str, kind: str, what: Any) -> Health:
    if kind == "health":
        return parse_health(path, what)
    raise MemoryError(what) if kind == "memory" else RuntimeError(f"while looking at {path!r}: {what}")


def work() -> None:
    """The program of a child: answers about one file after the other, until its input ends."""
    answer_lines(answer)


def answer(question: list[Any], ask_back: AskBack) -> list[Any]:
    def hold(address: str, first: int, end: int) -> Held:
        file, told = ask_back([FETCH, address, first, end])
        if not file:
            raise MediaError(*told)
        return Held(file, Version(*told))

    ask_instead(hold)
    return look(*question)


def fetch(address: str, first: int, end: int) -> list[Any]:
    """What is told to a child that needs bytes: a file that has them, and the version; or "" and a MediaError."""
    try:
        return [*blocks.hold(address, first, end)]
    except MediaError as error:
        return ["", [error.path, error.code, error.problem, error.remedy]]


def look(path: str, quick: bool) -> list[Any]:
    """Kind and content of the answer about a file."""
    try:
        return ["health", asdict(examine(path, quick=quick))]
    except MemoryError as error:
        return ["memory", str(error)]
    except Exception:
        return ["bug", traceback.format_exc()]
