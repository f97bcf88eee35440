"""Files that appear whole or not at all, and are on the disk once they are there."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def write_aside(file: Path) -> Iterator[Path]:
    """Yields a temporary name to write to: a crash, a full disk or a power cut leave the old file or the new.

    Raises OSError; the old file is as it was then.
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "r+b") as handle:  # Windows syncs only what may be written
            os.fsync(handle.fileno())
        os.replace(temporary, file)
        flush_folder(file.parent)
    finally:
        with suppress(OSError):  # what went wrong before is what has to be told
            temporary.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Writes a text file by way of `write_aside`. Raises OSError."""
    if path.is_symlink() or (path.exists() and not path.is_file()):  # such as /dev/stdout, which must stay what it is
        path.write_text(text, encoding="utf-8", errors="surrogateescape", newline="")
        return
    with write_aside(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape", newline="")


def flush_folder(folder: Path) -> None:
    """Brings the names in a folder to the disk, where the system can."""
    if os.name != "posix":
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network drives know files only
            raise
    finally:
        os.close(number)


def cache_folder() -> Path:
    """The folder of what can be made again. Raises OSError where the user has no home."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tubelet"
    except RuntimeError as error:
        raise FileNotFoundError(errno.ENOENT, "there is no home folder: set XDG_CACHE_HOME", "~/.cache") from error
