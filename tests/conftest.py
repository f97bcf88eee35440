"""What holds for every test: no disk is waited for, Ctrl-C comes through, nothing is done hundreds of times over."""

import gc
import os
import signal
from types import CodeType

from jinja2 import Environment


def told_to_the_disk(file: int) -> None:
    """In place of fsync, which costs a fifth of a short training: while tests run, the power stays on."""
    os.fstat(file)  # what is not open is an error all the same


compile_anew = Environment.compile
compiled: dict[tuple[object, ...], CodeType] = {}


def compile_once(environment: Environment, source: str, name: str | None = None, file: str | None = None) -> CodeType:
    """The templates of reports and cards, a tenth of a short training; their settings are always the same."""
    key = (source, name, file, environment.autoescape)
    compiled[key] = compiled.get(key) or compile_anew(environment, source, name, file)
    return compiled[key]


def pytest_configure() -> None:
    os.fsync = told_to_the_disk  # type: ignore[assignment]
    Environment.compile = compile_once  # type: ignore[method-assign, assignment]
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background; children would inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()  # the tests themselves and torch: most of what each full collection would walk through
