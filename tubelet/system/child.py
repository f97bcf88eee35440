"""A process of our own Python beside this one, asked in lines of JSON: where it dies, this one goes on.

this process    a question  ->    child, `work()` of a module
                an answer   <-     or a question back, as often as it has some
"""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# What this process can import, and nothing from the folder in which it happens to be.
START = (
    "import json, sys; from importlib import import_module; "
    "sys.path[:] = json.loads(sys.argv[2]); import_module(sys.argv[1]).work()"
)

Child = subprocess.Popen[str]
AskBack = Callable[[Any], Any]


def child_command(module: str) -> list[str]:
    """The command line of a child that runs `work()` of a module."""
    return [sys.executable, "-P", "-c", START, module, json.dumps([*map(str, sys.path)])]


def start_child(command: Sequence[str], *, environment: Mapping[str, str] | None = None) -> Child:
    """A child that is ready. In a session of its own: Ctrl-C is not for it.

    Raises: OSError: it cannot be started.
    """
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
            encoding="ascii",
        )
    except OSError as error:
        raise OSError(errno.ENOMEM, f"no process of its own can be started, {error.strerror}") from error
    assert child.stdout
    if not child.stdout.readline():
        raise OSError(errno.ENOMEM, f"the process of its own ended at its start, {describe_end(child)}")
    return child


def ask(child: Child, question: list[Any]) -> Any:
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


def end(child: Child) -> str:
    """Ends a child; in words, what ended it."""
    child.kill()
    return describe_end(child)


def describe_end(child: Child) -> str:
    """Waits for the end of a child; in words, what ended it."""
    with contextlib.suppress(BrokenPipeError), child:
        pass
    code = child.returncode
    return f"{signal.strsignal(-code)}" if code < 0 else f"exit code {code}"


def answer_lines(answer: Callable[[Any, AskBack], Any]) -> None:
    """The program of a child: answers one question after the other, until its input ends. Before it answers, it may
    ask back: the next line is the answer to that."""
    with os.fdopen(os.dup(1), "w", encoding="ascii") as answers:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whatever else is printed is no answer
        print("ready", file=answers, flush=True)

        def ask_back(question: Any) -> Any:
            print(json.dumps(question), file=answers, flush=True)
            return json.loads(sys.stdin.readline())

        while line := sys.stdin.readline():
            print(json.dumps(answer(json.loads(line), ask_back)), file=answers, flush=True)
