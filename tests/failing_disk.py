"""Processes that are ended and disks that fail, on purpose: at any call that changes a disk, or at any moment."""

import errno
import os
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from safetensors.torch import save_file


def in_child(work: Callable[[], object]) -> int:
    """Does something in a forked child; returns how it ended, as subprocess does: -9 is a SIGKILL."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads in the parent: the child uses none of them
        child = os.fork()
    if not child:
        try:
            work()
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


CHANGES = (
    "fsync",
    "replace",
    "rename",
    "mkdir",
    "unlink",
    "rmdir",
    "ftruncate",
    "truncate",
    "write",
    "pwrite",
    "chmod",
)


class Disk:
    """Counts the calls that change the disk, and lets `fail` happen in place of one of them.

    Writing of a file is two calls, for it may fail or end when a part is there; so is that of tensors.
    """

    def __init__(self, patch: pytest.MonkeyPatch, *, at: int | None = None, fail: Callable[[], NoReturn] | None = None):
        self.at, self.fail, self.calls = at, fail, list[tuple[str, str]]()
        for name in CHANGES:
            patch.setattr(os, name, self.counted(name, getattr(os, name)))
        patch.setattr("builtins.open", self.opened(open))
        patch.setattr("io.open", self.opened(open))
        patch.setattr("tubelet.weights.store.save_file", self.saved)

    def call(self, name: str, what: object) -> None:
        self.calls.append((name, str(what)))
        if len(self.calls) - 1 == self.at and self.fail:
            self.fail()

    def counted(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def change(what: Any, *rest: Any, **more: Any) -> Any:
            self.call(name, os.readlink(f"/proc/self/fd/{what}") if isinstance(what, int) else what)
            return real(what, *rest, **more)

        return change

    def opened(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def look(file: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
            if not set(mode) & set("wax+"):
                return real(file, mode, *rest, **more)
            self.call("open", file)
            handle = real(file, mode, *rest, **more)
            write = handle.write

            def halves(data: Any) -> int:
                write(data[: len(data) // 2])
                handle.flush()
                self.call("write", file)
                write(data[len(data) // 2 :])
                return len(data)

            return Written(handle, halves)

        return look

    def saved(self, values: dict[str, torch.Tensor], file: Path, metadata: dict[str, str]) -> None:
        self.call("open", file)
        save_file(values, file, metadata=metadata)
        whole = file.read_bytes()
        with suppress(FileNotFoundError):
            os.truncate(file, len(whole) // 2)
        self.call("write", file)
        with io_open(file, "wb") as handle:
            handle.write(whole)


io_open = open


class Written:
    """An open file whose `write` is another."""

    def __init__(self, handle: Any, write: Callable[[Any], int]):
        self.handle, self.write = handle, write

    def __getattr__(self, name: str) -> Any:
        return getattr(self.handle, name)

    def __enter__(self) -> "Written":
        return self

    def __exit__(self, *_: object) -> None:
        self.handle.close()


def end() -> NoReturn:
    os._exit(9)


def refuse(number: int) -> Callable[[], NoReturn]:
    def fail() -> NoReturn:
        raise OSError(number, os.strerror(number))

    return fail


def full(*_: object, **__: object) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere")
