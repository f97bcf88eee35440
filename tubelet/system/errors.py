"""Trouble that is no fault of data, settings or tubelet: a full disk, too little memory, a run held elsewhere."""

import errno
import os
import re
import shutil
from pathlib import Path

from tubelet.system.console import size

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)
FAILING = (errno.EIO, errno.ESTALE, errno.ENXIO, errno.ENODEV, errno.ENOTCONN, errno.ETIMEDOUT, errno.EBUSY)
TOO_MANY = (errno.EMFILE, errno.ENFILE)
NO_MEMORY = re.compile(r"DefaultCPUAllocator: (can't|not enough)|out of memory|_ALLOC_FAILED|Cannot allocate memory")
LESS_MEMORY = (
    "close other programs, or use less: `tubelet train` takes --accumulate 2 or more (same result), --checkpointing "
    "(same result), a smaller --size or fewer --frames; all commands take fewer --workers"
)


class EnvironmentTrouble(Exception):
    """The machine does not let the work go on; the message says what failed and what to do. Exit code 4."""


def environment_error(error: BaseException) -> EnvironmentTrouble | None:
    """The trouble of the machine that an exception stands for; None where it is something else, such as a bug."""
    if isinstance(error, EnvironmentTrouble):
        return error
    words = without_stack(error)
    number = number_of(error, words)
    if is_memory(error, words) or number == errno.ENOMEM:
        return EnvironmentTrouble(f"memory is full ({words}): {LESS_MEMORY}")
    where = where_of(error)
    if number in FULL:
        return EnvironmentTrouble(f"{where}{words}: {room_at(error)}make room, or choose another place")
    if number in NOT_ALLOWED:
        return EnvironmentTrouble(f"{where}{words}: make it writable for you, or choose another place")
    if number in FAILING:
        return EnvironmentTrouble(f"{where}{words}: look at the disk, or choose another place")
    if number in TOO_MANY:
        return EnvironmentTrouble(f"{where}{words}: fewer --workers, or raise the limit with `ulimit -n`")
    return None


def without_stack(error: BaseException) -> str:
    """What an exception says, in one line; torch adds a stack of its own to some."""
    words = str(getattr(error, "strerror", None) or error).strip() or type(error).__name__
    return words.splitlines()[0][:300]


def number_of(error: BaseException, words: str) -> int | None:
    """The errno of a failed system call; safetensors, written in Rust, tells of it in its text only."""
    if isinstance(error, OSError):
        return error.errno
    told = re.search(r"\(os error (\d+)\)", words)
    return int(told[1]) if told and type(error).__name__ == "SafetensorError" else None


def is_memory(error: BaseException, words: str) -> bool:
    # by name, for torch takes a second to import and may not be needed here
    if isinstance(error, MemoryError) or any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and bool(NO_MEMORY.search(words))


def where_of(error: BaseException) -> str:
    name = getattr(error, "filename", None)
    return "" if name is None or isinstance(name, int) else f"{os.fsdecode(name)}: "


def room_at(error: BaseException) -> str:
    name = getattr(error, "filename", None)
    free = None if name is None or isinstance(name, int) else free_bytes(Path(os.fsdecode(name)))
    return "" if free is None else f"{size(free)} are free there: "


def free_bytes(path: Path) -> int | None:
    """What may still be written where `path` is, or will be; None where the system does not tell."""
    for place in (path, *path.absolute().parents):
        try:
            return shutil.disk_usage(place).free
        except OSError:
            continue
    return None
