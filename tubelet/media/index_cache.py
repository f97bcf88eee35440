"""Indexes of files, kept until the files change: a little memory, whatever their number and length."""

import os
import time
from collections import OrderedDict
from contextlib import suppress
from threading import Lock

from tubelet.media.address import absolute
from tubelet.media.formats import MediaError, regular_file
from tubelet.media.index import list_frames
from tubelet.media.timeline import Index

MOST_BYTES = 32 << 20
_JUST_WRITTEN_SECONDS = 0.02  # file systems count time in steps; a second change within one would not be seen
_BYTES_BESIDE_ARRAYS = 2000

_known: OrderedDict[str, tuple[tuple[int, int], Index]] = OrderedDict()
_deadly: dict[str, tuple[tuple[int, int], MediaError]] = {}
_bytes = 0
_lock = Lock()


def index(path: str | os.PathLike[str]) -> Index:
    """Lists the frames of a file without decoding more than the first; remembered until the file changes.

    Raises: MediaError: the file is not one that can be read.
    """
    file = absolute(path)
    size, changed_ns = openable_file(file)
    with _lock:
        known = _known.get(file)
        if known and known[0] == (size, changed_ns):
            _known.move_to_end(file)
            return known[1]
    found = list_frames(file)
    if abs(time.time_ns() - changed_ns) > _JUST_WRITTEN_SECONDS * 1e9:
        _remember(file, (size, changed_ns), found)
    return found


def openable_file(path: str) -> tuple[int, int]:
    """`regular_file` of what may be opened.

    Raises: MediaError: there is no such file, or it was refused.
    """
    version = regular_file(path)
    if path in _deadly and _deadly[path][0] == version:
        raise _deadly[path][1].again()
    return version


def refuse(error: MediaError) -> None:
    """Opens the file no more in this process until it changes: the decoder would end the process."""
    with suppress(MediaError):  # it is gone
        _deadly[error.path] = (regular_file(error.path), error)


def forget() -> None:
    """Forgets all that is listed, to measure what listing takes."""
    global _bytes
    with _lock:
        _known.clear()
        _bytes = 0


def _remember(path: str, version: tuple[int, int], found: Index) -> None:
    global _bytes
    with _lock:
        old = _known.pop(path, None)
        _known[path] = (version, found)
        _bytes += count_bytes(found) - (count_bytes(old[1]) if old else 0)
        while _bytes > MOST_BYTES:
            _, (_, oldest) = _known.popitem(last=False)
            _bytes -= count_bytes(oldest)


def count_bytes(found: Index) -> int:
    """About what an index takes."""
    return _BYTES_BESIDE_ARRAYS + sum(getattr(value, "nbytes", 0) for value in vars(found).values())
