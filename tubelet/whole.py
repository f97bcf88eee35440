"""Files that appear whole or not at all, and are on the disk once they are there."""

import errno
import os
from contextlib import suppress
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Writes a text file under another name first: a crash, a full disk or a power cut leave the old file or the new.

    Raises OSError; the old file is as it was then.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):  # such as /dev/stdout, which must stay what it is
        path.write_text(text, encoding="utf-8", errors="surrogateescape", newline="")
        return
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(aside, "w", encoding="utf-8", errors="surrogateescape", newline="") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(aside, path)
        flush_folder(path.parent)
    finally:
        with suppress(OSError):  # what went wrong before is what has to be told
            aside.unlink(missing_ok=True)


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
