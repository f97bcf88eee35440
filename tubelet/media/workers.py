"""Child processes that look through files: where a decoder dies of a file, only a child dies with it.

this process    [path, quick]  ->    child      one line of JSON each way, as often as there are files
                [kind, what]   <-
"""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tubelet.media.formats import MediaError
from tubelet.media.health import Health, examine, parse_health
from tubelet.media.index_cache import refuse

# What this process can import, and nothing from the folder in which it happens to be.
START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from tubelet.media.workers import work; work()"
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

DEADLY = "decoder-crash"

Child = subprocess.Popen[str]


class Workers:
    """Child processes, as many as threads ask at once, started when needed; the end of a `with` ends them.

    command: what a child runs, by default `work`.
    """

    def __init__(self, command: Sequence[str] = ()) -> None:
        self.command = [*command] or [sys.executable, "-P", "-c", START, json.dumps([*map(str, sys.path)])]
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
        """A child that is ready. In a session of its own: Ctrl-C is not for it."""
        try:
            child = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **ONE_THREAD},
                start_new_session=True,
                encoding="ascii",
            )
        except OSError as error:
            raise OSError(errno.ENOMEM, f"no process to decode in can be started, {error.strerror}") from error
        assert child.stdout
        if not child.stdout.readline():
            raise OSError(errno.ENOMEM, f"the process to decode in ended at its start, {describe_end(child)}")
        return child


def refuse_deadly(path: str, message: str) -> None:
    """Opens a file no more in this process, as children died of it. message: that of its Health."""
    problem, _, remedy = message.removesuffix(".").partition(". ")
    refuse(MediaError(os.path.abspath(path), DEADLY, problem, remedy))


def ask(child: Child, question: list[Any]) -> list[Any] | None:
    """The answer of a child; None where it died."""
    assert child.stdin
    assert child.stdout
    try:
        child.stdin.write(json.dumps(question) + "\n")
        child.stdin.flush()
        line = child.stdout.readline()
    except BrokenPipeError:
        return None
    return json.loads(line) if line.endswith("\n") else None


def end(child: Child) -> None:
    child.kill()
    describe_end(child)


def describe_end(child: Child) -> str:
    """Waits for the end of a child; in words, what ended it."""
    with contextlib.suppress(BrokenPipeError), child:
        pass
    code = child.returncode
    return f"{signal.strsignal(-code)}" if code < 0 else f"exit code {code}"


def read_answer(path: str, kind: str, what: Any) -> Health:
    if kind == "health":
        return parse_health(path, what)
    raise MemoryError(what) if kind == "memory" else RuntimeError(f"while looking at {path!r}: {what}")


def work() -> None:
    """The program of a child: answers about one file after the other, until its input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whatever else is printed is no answer
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        path, quick = json.loads(line)
        try:
            answer = ["health", asdict(examine(path, quick=quick))]
        except MemoryError as error:
            answer = ["memory", str(error)]
        except Exception:
            answer = ["bug", traceback.format_exc()]
        print(json.dumps(answer), file=answers, flush=True)
