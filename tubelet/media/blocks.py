"""The bytes of files elsewhere that are here already: each block is asked for once, by whatever needs it first.

file elsewhere   |--0--|--1--|--2--|--3--|--4--|--5--|
here             |--0--|                 |--4--|--5--|     blocks next to each other come with one request

They lie in a folder of the command's own in the system's folder for temporary files, which its child processes find by
the environment. It goes when the command ends; that of a command that was killed goes when the next one begins.
"""

import atexit
import json
import os
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from threading import Lock, RLock
from time import monotonic
from typing import IO, NamedTuple

from tubelet.media.errors import MediaError
from tubelet.media.remote import Version, fetch
from tubelet.system.files import write_aside

try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be removed
    fcntl = None  # type: ignore[assignment]

BLOCK_BYTES = 1 << 14
MOST_BYTES = 16 << 30  # and no more than half of what is free
_HEAD_BYTES = 4096
FOLDER = "TUBELET_BLOCKS"  # the variable that names the folder
_PREFIX, _LOCK = "tubelet-blocks-", "lock"
_TRIED_SECONDS = 60.0  # for so long, what failed is not asked for again

Hold = Callable[[str, int, int], "Held"]


class Held(NamedTuple):
    """A file elsewhere as far as it is here: `file` holds its version, a byte for each block, 1 where that is here, and
    the blocks at their places."""

    file: str
    version: Version

    @property
    def marks_at(self) -> int:
        return _HEAD_BYTES

    @property
    def data_at(self) -> int:
        return _HEAD_BYTES * (1 + -(-self.blocks // _HEAD_BYTES))

    @property
    def blocks(self) -> int:
        """How many blocks the file elsewhere has."""
        return -(-self.version.size // BLOCK_BYTES)


@dataclass
class _Entry:
    """What this process knows of an address. blocks: how many it has fetched. failed: when, and why."""

    lock: Lock = field(default_factory=Lock)
    version: Version | None = None
    blocks: int = 0
    failed: tuple[float, MediaError] | None = None


_entries: OrderedDict[str, _Entry] = OrderedDict()  # the one that was wanted last stands last
_lock = RLock()
_own: IO[bytes] | None = None  # the lock of a folder that this process has made
_asked: Hold | None = None


def hold(address: str, first: int, end: int) -> Held:
    """Sees to it that the bytes [first, end) of a file elsewhere are here.

    Raises: MediaError: the file cannot be read. ValueError: there is no driver for it.
    """
    return _asked(address, first, end) if _asked else hold_here(address, first, end)


def ask_instead(other: Hold | None) -> None:
    """Has another process do what `hold` does: a child that a decoder may kill touches no network."""
    global _asked
    _asked = other


def hold_here(address: str, first: int, end: int) -> Held:
    with _lock:
        entry = _entries.setdefault(address, _Entry())
        _entries.move_to_end(address)
    with entry.lock:
        if entry.failed and monotonic() - entry.failed[0] < _TRIED_SECONDS:
            raise entry.failed[1].again()
        try:
            held = _fill(address, first, end, entry)
        except MediaError as error:
            entry.failed = monotonic(), error
            if error.code == "changed":  # what is here is of the file that was
                _name(address).unlink(missing_ok=True)
            raise
    _make_room(address)
    return held


def _fill(address: str, first: int, end: int, entry: _Entry) -> Held:
    file = _name(address)
    if not file.exists():  # or not any more
        entry.version, entry.blocks = None, 0
        _fetch(file, address, 0, BLOCK_BYTES, entry)
    elif entry.version is None:  # another process was here
        with open(file, "rb") as known:
            entry.version = Version(*json.loads(known.read(_HEAD_BYTES).rstrip(b"\0")))
    assert entry.version
    held = Held(str(file), entry.version)
    last = min(-(-end // BLOCK_BYTES), held.blocks)
    with open(file, "rb") as marked:
        marked.seek(held.marks_at)
        is_here = marked.read(last)
    block = is_here.find(0, first // BLOCK_BYTES)
    while block >= 0:
        stop = is_here.find(1, block) if 1 in is_here[block:] else last
        _fetch(file, address, block * BLOCK_BYTES, min(stop * BLOCK_BYTES, entry.version.size), entry)
        block = is_here.find(0, stop)
    return held


def _fetch(file: Path, address: str, first: int, end: int, entry: _Entry) -> None:
    """Fetches [first, end), whole blocks, or all of a file whose server knows no ranges."""
    most, start, done, held, place = most_bytes(), -1, 0, None, 0
    with ExitStack() as closing:
        for version, place, piece in fetch(address, first, end, entry.version):
            if held is None:
                entry.version = version
                held = Held(str(file), version)
                _begin(held)
                opened = closing.enter_context(open(file, "r+b"))
                start = done = place // BLOCK_BYTES
            if place + len(piece) - start * BLOCK_BYTES > most:
                problem = f"more than {most} bytes of it would have to be kept here"
                raise MediaError(address, "too-big", problem, "Make room in the folder for temporary files")
            opened.seek(held.data_at + place)
            opened.write(piece)
            place += len(piece)
            whole = held.blocks if place == version.size else place // BLOCK_BYTES
            if whole > done:
                opened.flush()  # a block is here before it is said to be
                opened.seek(held.marks_at + done)
                opened.write(b"\1" * (whole - done))
                entry.blocks += whole - done
                done = whole


def _begin(held: Held) -> None:
    """Makes the file of an address, with no block in it, unless it is there."""
    if not os.path.exists(held.file):
        with write_aside(Path(held.file)) as temporary, open(temporary, "wb") as file:
            file.write(json.dumps(held.version).encode().ljust(_HEAD_BYTES, b"\0"))
            file.write(bytes(held.data_at - _HEAD_BYTES))


def most_bytes() -> int:
    """The most that is kept here."""
    return min(MOST_BYTES, shutil.disk_usage(folder()).free // 2)


def _make_room(address: str) -> None:
    """Lets go of what was wanted longest ago, of others than the address."""
    with _lock:
        most = most_bytes() // BLOCK_BYTES
        while sum(entry.blocks for entry in _entries.values()) > most and next(iter(_entries)) != address:
            _drop(next(iter(_entries)))


def _drop(address: str) -> None:
    with _lock, suppress(OSError):  # Windows, while it is read
        _entries.pop(address, None)
        _name(address).unlink(missing_ok=True)


def _name(address: str) -> Path:
    return folder() / sha256(address.encode(errors="surrogatepass")).hexdigest()[:24]


def folder() -> Path:
    """The folder of the blocks; made where neither this process nor the one that started it has one."""
    global _own
    with _lock:
        given = os.environ.get(FOLDER)
        if given and os.path.isdir(given):
            return Path(given)
        _sweep()
        made = Path(tempfile.mkdtemp(prefix=_PREFIX))
        _own = open(made / _LOCK, "wb")  # noqa: SIM115  # it is open as long as this process lives
        if fcntl:
            fcntl.flock(_own, fcntl.LOCK_EX)
        os.environ[FOLDER] = str(made)
        atexit.register(_remove, made, os.getpid())
        return made


def _remove(made: Path, process: int) -> None:
    if os.getpid() == process:  # not what was forked off it
        if _own:
            _own.close()
        shutil.rmtree(made, ignore_errors=True)
        os.environ.pop(FOLDER, None)


def _sweep() -> None:
    """Removes the folders of processes that ended without doing so themselves."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):  # somebody else's, or just going
            if fcntl:
                with open(left / _LOCK, "r+b") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            else:
                (left / _LOCK).unlink()
            shutil.rmtree(left, ignore_errors=True)
