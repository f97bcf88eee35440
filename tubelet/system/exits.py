"""The end of a command: its exit code, and the line that says why."""

import contextlib
import dis
import errno
import os
import shlex
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tubelet.system.text import visible_lines
from tubelet.version import __version__

BUG, WRONG, SOME_FAILED, ENVIRONMENT, PARTS_MISSING = 1, 2, 3, 4, 5
INTERRUPTED, PIPE_CLOSED, TERMINATED = 130, 141, 143
OF_A_NAME = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EEXIST, errno.ENOTEMPTY)


class Terminated(KeyboardInterrupt):
    """SIGTERM, handled like Ctrl-C."""


class Stopped(Exception):
    """Training was stopped by a signal, with everything saved; `signal` says which."""

    def __init__(self, run: Path, number: int):
        super().__init__(f"stopped; the same command goes on from {run}")
        self.run, self.signal = run, number


@contextmanager
def catch_sigterm() -> Iterator[None]:
    """Raises Terminated on SIGTERM while inside; a training catches the signal by itself."""

    def catch(number: int, frame: object) -> None:
        raise Terminated

    with handle(catch, signal.SIGTERM):
        yield


@contextmanager
def handle(catch: Callable[[int, object], None], *numbers: int) -> Iterator[None]:
    """Hands these signals to `catch` while inside; in the main thread alone, where Python allows it."""
    if threading.current_thread() is not threading.main_thread():
        numbers = ()
    before = {number: signal.signal(number, catch) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def exit_code(stop: KeyboardInterrupt) -> int:
    return TERMINATED if isinstance(stop, Terminated) else INTERRUPTED


def report_error(error: BaseException, *, debug: bool) -> int:
    """Says on stderr, in a line, why a command ends; returns its exit code. With `debug`, the traceback comes first."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if isinstance(error, BrokenPipeError):  # as in `tubelet predict ... --json | head`
        drop_stdout()
        return PIPE_CLOSED
    if debug and not isinstance(error, Stopped):
        traceback.print_exception(error)
    code, words = describe_error(error, debug=debug)
    print(f"tubelet: {visible_lines(words)}", file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:  # a full disk: the interpreter would complain of it once more
        drop_stdout()
    return code


def describe_error(error: BaseException, *, debug: bool) -> tuple[int, str]:
    from tubelet.system.errors import environment_error

    if isinstance(error, KeyboardInterrupt):
        return exit_code(error), "terminated" if isinstance(error, Terminated) else "interrupted"
    if isinstance(error, Stopped):
        return 128 + error.signal, str(error)
    if isinstance(error, ValueError) and is_ours(error):
        return WRONG, str(error)
    if found := environment_error(error):
        return ENVIRONMENT, str(found)
    if isinstance(error, OSError) and error.errno in OF_A_NAME and isinstance(error.filename, str | bytes):
        return WRONG, f"{os.fsdecode(error.filename)}: {error.strerror}: check the name"
    words = f"a bug: {''.join(traceback.format_exception_only(error)).strip().splitlines()[0][:300]}"
    where = "" if debug else f" {keep_traceback(error)}; --debug shows it."
    return BUG, f"{words}.{where} Please report it."


def keep_traceback(error: BaseException) -> str:
    """Writes what a report of a bug needs into a file, and says where that is."""
    text = [f"tubelet {__version__}, Python {sys.version}, {sys.platform}\n", f"{shlex.join(sys.argv)}\n\n"]
    text += traceback.format_exception(error)
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="tubelet-bug-", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            file.writelines(text)
    except OSError as full:
        return f"The traceback could not be written ({full.strerror})"
    return f"The traceback is in {file.name}"


def is_ours(error: BaseException) -> bool:
    """Whether tubelet itself raised an error: then it is written for the user; any other is a bug.

    A ValueError of int(), say, or of torch, that was called with something wrong, is a bug: no `raise` of ours made it.
    """
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    if trace is None or not str(trace.tb_frame.f_globals.get("__name__", "")).startswith("tubelet."):
        return False
    return dis.opname[trace.tb_frame.f_code.co_code[trace.tb_lasti]] == "RAISE_VARARGS"


def drop_stdout() -> None:
    """Forgets the text that stdout did not take, without a complaint at the interpreter's end."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
