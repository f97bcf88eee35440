"""Trouble that is no fault of data, settings or tubelet: a full disk, too little memory, a run held elsewhere."""

import errno
import os
import re
import shutil
from pathlib import Path

from tubelet.system.console import size

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FAILING = (errno.EIO, errno.ESTALE, errno.ENXIO, errno.ENODEV, errno.ENOTCONN, errno.ETIMEDOUT, errno.EBUSY)
ADVICE = (
    (FULL, "make room, or choose another place"),
    ((errno.EACCES, errno.EPERM, errno.EROFS), "make it writable for you, or choose another place"),
    (FAILING, "look at the disk, or choose another place"),
    ((errno.EMFILE, errno.ENFILE), "fewer --workers, or raise the limit with `ulimit -n`"),
)
NO_MEMORY = re.compile(r"DefaultCPUAllocator: (can't|not enough)|out of memory|_ALLOC_FAILED|Cannot allocate memory")
NO_TEAM = re.compile(r"gloo/transport|NCCL error|Connection (closed|reset) by peer")
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
    words = str(getattr(error, "strerror", None) or error).strip() or type(error).__name__
    words = words.splitlines()[0][:300]  # torch adds a stack of its own to some
    number = error.errno if isinstance(error, OSError) else None
    if type(error).__name__ == "SafetensorError" and (found := re.search(r"\(os error (\d+)\)", words)):
        number = int(found[1])  # its library, in Rust, has it in the text only
    if is_memory(error, words) or number == errno.ENOMEM:
        return EnvironmentTrouble(f"memory is full ({words}): {LESS_MEMORY}")
    if isinstance(error, RuntimeError) and NO_TEAM.search(words):  # what torch raises in the others
        return EnvironmentTrouble(
            f"another process of the team ended, or cannot be reached ({words}): see what it says, then start all anew"
        )
    advice = next((advice for numbers, advice in ADVICE if number in numbers), None)
    if advice is None:
        return None
    name = getattr(error, "filename", None)
    if name is None or isinstance(name, int):
        return EnvironmentTrouble(f"{words}: {advice}")
    name = os.fsdecode(name)
    free = free_bytes(Path(name)) if number in FULL else None
    room = "" if free is None else f"{size(free)} are free there: "
    return EnvironmentTrouble(f"{name}: {words}: {room}{advice}")


def is_memory(error: BaseException, words: str) -> bool:
    # by name, for torch takes a second to import and may not be needed here
    if isinstance(error, MemoryError) or any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and bool(NO_MEMORY.search(words))


def free_bytes(path: Path) -> int | None:
    """The free bytes of the disk that `path` is on, or will be; None where the system does not tell."""
    for place in (path, *path.absolute().parents):
        try:
            return shutil.disk_usage(place).free
        except OSError:
            continue
    return None
