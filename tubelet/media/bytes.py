"""The bytes of a file wherever it is: on a disk, elsewhere, in a tar on either; and what tells that it has changed."""

import json
import os
import posixpath
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from stat import S_ISREG
from threading import Lock
from typing import Any, BinaryIO, NamedTuple, cast

from tubelet.media.address import TAR, absolute, is_remote, split_member, suffix, without_query
from tubelet.media.blocks import BLOCK_BYTES, Held, hold
from tubelet.media.errors import MediaError
from tubelet.media.remote import changed
from tubelet.media.sniff import boxes, is_mp4, read_at
from tubelet.media.tar import PACKED_SUFFIXES, Member, list_members, packed
from tubelet.system.files import cache_folder, write_whole

TAIL_BYTES = 8 << 20  # of an MP4: what stands behind its pictures is its table of contents, and comes at once
_MOST_TABLE_BYTES = 64 << 20
_AHEAD = 4  # of what was read in a row, a quarter is fetched ahead: so much is in vain at most
_MOST_AHEAD_BYTES = 8 << 20
_MOST_TARS = 64  # whose members are held in memory
_INDEX_RULES = 1

Span = tuple[int, int]  # bytes, the second one not in it


class Stat(NamedTuple):
    """The state of a file: while it stays, so does the content. size: in bytes. changed: ns since 1970 on a disk, and
    elsewhere a number that is drawn from what the server tells. identity: the inode of a file on a disk."""

    size: int
    changed: int
    identity: int


def stat(path: str | os.PathLike[str]) -> Stat:
    """Raises MediaError: missing, not-a-file (opening a pipe would wait for ever), unreadable, or what a server says;
    ValueError where there is no driver for an address."""
    path = os.fspath(path)
    if member := split_member(path):
        whole, found = stat(member[0]), find_member(*member)
        return Stat(found.size, whole.changed, whole.identity)
    if is_remote(path):
        version = hold(path, 0, 0).version
        return Stat(version.size, int(sha256(repr(version).encode()).hexdigest()[:15], 16), 0)
    try:
        status = os.stat(path)
    except PermissionError as error:
        raise MediaError(path, "unreadable", "you may not look into its folder", "Check the permissions") from error
    except (OSError, ValueError) as error:
        reason = "the link leads nowhere" if os.path.islink(path) else getattr(error, "strerror", error)
        raise MediaError(path, "missing", f"it cannot be found ({reason})", "Check the path") from error
    if not S_ISREG(status.st_mode):
        raise MediaError(path, "not-a-file", "it is a folder, a pipe or a device, not a file", "Pass a media file")
    return Stat(status.st_size, status.st_mtime_ns, status.st_ino)


def size_of(path: str | os.PathLike[str]) -> int:
    """In bytes; 0 for what is elsewhere and cannot be read, which a reading of it tells."""
    try:
        return stat(path).size
    except MediaError:
        if is_plain(os.fspath(path)):
            raise
        return 0


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file is there; what is elsewhere is taken to be, until it is read."""
    if is_remote(path):
        return True
    if member := split_member(path):
        with suppress(MediaError):
            return bool(find_member(*member))
        return False
    return os.path.isfile(path)


def is_plain(path: str) -> bool:
    """Whether the system's own calls can open it."""
    return not is_remote(path) and split_member(path) is None


def open_bytes(path: str | os.PathLike[str]) -> BinaryIO:
    """A file to be read from anywhere in it. Raises OSError on a disk, MediaError elsewhere."""
    path = os.fspath(path)
    if is_plain(path):
        return open(path, "rb")
    return cast(BinaryIO, open_parts(path))


def open_parts(path: str, *, hollow: bool = False) -> "Part":
    """A file elsewhere, or a member of a tar. hollow: of an MP4 elsewhere, all but the pictures and the sound."""
    member = split_member(path)
    outer, first, size = path, 0, stat(path).size
    if member:
        outer, first = member[0], find_member(*member).offset
    whole: Any = _Elsewhere(outer) if is_remote(outer) else open(outer, "rb")  # noqa: SIM115
    part = Part(whole, path, first, size)
    if isinstance(whole, _Elsewhere):
        spans = fetch_tables(part)
        part.seek(0)
        if hollow:
            whole.hollow = [(first + start, first + end) for start, end in spans]
    return part


class Part:
    """A stretch of a file, read as a file of its own.

    name: what the decoder knows it by; of an address it would take the server to be slow to seek, and read on instead.
    """

    def __init__(self, whole: Any, path: str, first: int, size: int) -> None:
        self.whole, self.path, self.first, self.size, self.place = whole, path, first, size, 0
        self.name = posixpath.basename(without_query(path))

    def read(self, size: int = -1) -> bytes:
        left = max(0, self.size - self.place)
        self.whole.seek(self.first + self.place)
        data: bytes = self.whole.read(left if size < 0 else min(size, left))
        self.place += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.place, os.SEEK_END: self.size}[whence]
        return self.place

    def tell(self) -> int:
        return self.place

    def want(self, first: int, end: int) -> None:
        """Fetches a stretch at once, where it has to be fetched."""
        if isinstance(self.whole, _Elsewhere):
            self.whole.want(self.first + first, self.first + min(end, self.size))

    def close(self) -> None:
        self.whole.close()

    def __enter__(self) -> "Part":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _Elsewhere:
    """A file elsewhere, by the blocks of it that are here; what is not is fetched when it is read.

    hollow: stretches that are read as zeros where they are not here. gives_less: a reading ends where what is here
    ends, as the decoder asks for more than it needs. trouble: why something could not be read; the decoder takes that
    for the end of a file.
    """

    def __init__(self, address: str) -> None:
        self.address, self.place, self.row = address, 0, 0
        self.hollow: Sequence[Span] = ()
        self.gives_less = False
        self.trouble: Exception | None = None
        self.file: BinaryIO | None = None
        self.held = self._open(0, 0)

    def read(self, size: int) -> bytes:
        end = min(self.place + size, self.held.version.size)
        first = self.place
        if end <= first:
            return b""
        if self.gives_less and not self._is_here(first, end) and self._is_here(first, first + 1):
            end = first // BLOCK_BYTES * BLOCK_BYTES + BLOCK_BYTES
        self.place = end
        empty = [(max(first, start), min(end, stop)) for start, stop in self.hollow if start < end and first < stop]
        if empty and not self._is_here(first, end):
            data, place = bytearray(end - first), first
            for start, stop in (*empty, (end, end)):
                data[place - first : start - first] = self._read(place, start)
                place = stop
            return bytes(data)
        return self._read(first, end)

    def _read(self, first: int, end: int) -> bytes:
        if end <= first:
            return b""
        if not self._is_here(first, end):
            ahead = min(self.row // _AHEAD, _MOST_AHEAD_BYTES)
            self.want(first, end + ahead)
        self.row += end - first
        assert self.file
        self.file.seek(self.held.data_at + first)
        return self.file.read(end - first)

    def seek(self, place: int) -> None:
        if abs(place - self.place) > BLOCK_BYTES:
            self.row = 0
        self.place = place

    def want(self, first: int, end: int) -> None:
        try:
            while not self._is_here(first, end):
                self.held = self._open(first, end)
        except Exception as error:
            self.trouble = error
            raise

    def _open(self, first: int, end: int) -> Held:
        """The same file, with these bytes; another process may have let go of it meanwhile."""
        held = hold(self.address, first, end)
        before = getattr(self, "held", held)
        if held.version != before.version:
            raise changed(self.address)
        self.close()
        with suppress(FileNotFoundError):
            self.file = open(held.file, "rb")  # noqa: SIM115
        return held if self.file else self._open(first, end)

    def _is_here(self, first: int, end: int) -> bool:
        begin, stop = first // BLOCK_BYTES, -(-min(end, self.held.version.size) // BLOCK_BYTES)
        assert self.file
        self.file.seek(self.held.marks_at + begin)
        return 0 not in self.file.read(max(0, stop - begin))

    def close(self) -> None:
        if self.file:
            self.file.close()
            self.file = None


def fetch_tables(file: Part) -> list[Span]:
    """Fetches what an MP4 elsewhere says of its packets, each table with one request; where its media lie.

    |ftyp|moov.....|mdat...............|        |ftyp|mdat...............|moov.....|
         |-------->|                                 a step over it ---->|-------->|
    """
    if not is_mp4(read_at(cast(BinaryIO, file), 0, 8)):
        return []
    media, place, has_table = [], 0, False
    for name, follows in boxes(cast(BinaryIO, file)):
        end = min(follows or file.size, file.size)
        if name == b"mdat":
            media.append((place + 16, end))  # what may be zeros is not the head of the box
            if not has_table and file.size - end <= TAIL_BYTES:
                file.want(end, file.size)
        elif name in (b"moov", b"moof") and end - place <= _MOST_TABLE_BYTES:
            has_table = True
            file.want(place, end)
        place = end
    return media


@contextmanager
def decoder_source(path: str, *, hollow: bool = False) -> Iterator[Any]:
    """What the decoder opens: the name of a file on a disk, else a file that it reads through.

    Raises: MediaError: something of it could not be fetched, whatever the decoder made of that.
    """
    if is_plain(path):
        yield f"file:{path}"
        return
    with open_parts(path, hollow=hollow) as part:
        if isinstance(part.whole, _Elsewhere):
            part.whole.gives_less = not hollow
        try:
            yield part
        finally:
            if trouble := getattr(part.whole, "trouble", None):
                raise trouble


_tars: OrderedDict[str, tuple[Stat, dict[str, Member]]] = OrderedDict()
_lock = Lock()


def find_member(tar: str, name: str) -> Member:
    """Raises MediaError: there is no such member, or the tar cannot be read."""
    found = members(tar).get(name)
    if found is None:
        raise MediaError(f"{tar}/{name}", "missing", f"no member {name!r} in the tar", "Check the path")
    return found


def members(tar: str | os.PathLike[str]) -> dict[str, Member]:
    """The regular files in a tar by their names, of two with one name the last. Kept, in memory and in the user's cache
    folder, until the tar changes.

    Raises: MediaError: it cannot be read.
    """
    tar = absolute(tar)
    now = stat(tar)
    with _lock:
        known = _tars.get(tar)
        if known and known[0] == now:
            _tars.move_to_end(tar)
            return known[1]
    found = _read_index(tar, now)
    if found is None:
        with open_bytes(tar) as file:
            found = {member.name: member for member in list_members(tar, file, now.size)}
        _write_index(tar, now, found)
    with _lock:
        _tars[tar] = now, found
        while len(_tars) > _MOST_TARS:
            _tars.popitem(last=False)
    return found


def is_tar(path: str | os.PathLike[str]) -> bool:
    """Whether its name is that of a tar. Raises MediaError for one that is compressed."""
    text = os.fspath(path).lower()
    if text.endswith(PACKED_SUFFIXES):
        raise packed(os.fspath(path), "")
    return suffix(path) == TAR


def _index_file(tar: str) -> Path:
    return cache_folder() / "shards" / f"{sha256(os.fsencode(tar)).hexdigest()[:16]}.json"


def _read_index(tar: str, now: Stat) -> dict[str, Member] | None:
    try:
        kept = json.loads(_index_file(tar).read_text())
        if kept["of"] == [_INDEX_RULES, tar, *now]:
            return {name: Member(name, int(offset), int(size)) for name, offset, size in kept["members"]}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _write_index(tar: str, now: Stat, found: dict[str, Member]) -> None:
    with suppress(OSError):  # a home that cannot be written to costs another reading of the headers
        file = _index_file(tar)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps({"of": [_INDEX_RULES, tar, *now], "members": [*found.values()]}))
