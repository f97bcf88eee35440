"""One training at a time in a run directory. The system takes the lock back when its holder ends, however it ends."""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tubelet.system.console import say
from tubelet.system.errors import EnvironmentTrouble

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """While inside, no other process trains in `folder`, wherever its disk knows locks.

    Raises:
        EnvironmentTrouble: another process does; it says which.
        ValueError: there is another file of the lock's name.
    """
    file = folder / LOCK
    number = take(file) if fcntl else None
    try:
        yield
    finally:
        if number is not None:
            with suppress(OSError):
                file.unlink(missing_ok=True)
            os.close(number)


def take(file: Path) -> int | None:
    """An open file that holds the lock; None where the disk has no locks, as some network drives."""
    with ExitStack() as closing:
        number = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        closing.callback(os.close, number)
        content = os.pread(number, 200, 0).decode(errors="replace").strip()
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EnvironmentTrouble(
                f"{file.parent} is in use by {content or 'another process'}: wait until it ends, stop it, or choose "
                "another --out"
            ) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            say("note", f"{file.parent} has no locks: see to it that one process alone trains there")
            return None
        still = False
        with suppress(FileNotFoundError):
            still = os.path.samestat(os.stat(file), os.fstat(number))
        if not still:  # the process that held it removed it just now
            return take(file)
        if content and not content.startswith("process "):
            raise ValueError(f"{file} is no lock of a training: choose another --out")
        with suppress(OSError):  # a full disk: the lock counts, not what is written in it
            os.ftruncate(number, 0)
            os.pwrite(number, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        closing.pop_all()
        return number
