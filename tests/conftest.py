"""What holds for every test: no disk is waited for, Ctrl-C comes through, what stays is not looked through again."""

import gc
import os
import signal


def told_to_the_disk(file: int) -> None:
    """In place of fsync, which costs a third of a short training: while tests run, the power stays on."""
    os.fstat(file)  # what is not open is an error all the same


def pytest_configure() -> None:
    os.fsync = told_to_the_disk  # type: ignore[assignment]
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background; children would inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()  # the tests themselves and torch: most of what each full collection would walk through
