"""Files that hold the same, and what that does to a data set: one clip under two labels, or in train and in test."""

import hashlib
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

from tubelet.data.class_checks import fold_name
from tubelet.data.prefetch import prefetch
from tubelet.data.problems import Problem, some
from tubelet.data.table import Item
from tubelet.media.address import is_remote, join
from tubelet.media.bytes import is_plain, open_bytes, stat
from tubelet.media.reader import MediaError, index
from tubelet.media.sniff import read_at
from tubelet.system.spread import Spread, alone

# Only files of one size are opened, and of these only those that begin and end alike are read further.
_ENDS_BYTES = (4096, 2**20)
_ENDS_BYTES_ELSEWHERE = 2**16  # about what is fetched anyway
_HELD_OUT = ("val", "test")
AT_ONCE = 16  # files elsewhere that are asked for: a server takes long to answer and little to do so

File = tuple[str, int, int]  # what names one file under all its names: its system and inode, or its address; its size


def same_contents(root: Path, paths: Iterable[str], *, spread: Spread = alone) -> tuple[tuple[str, ...], ...]:
    """Sets of two paths or more whose files hold the same: links to one file, and files of one size that agree in their
    first and last MB; of files elsewhere, the first and last 64 kB. Contents that are no media are left out:
    a reading of the file tells better what is wrong.
    """
    names: dict[File, list[str]] = defaultdict(list)
    paths = sorted(set(paths))
    for path, file in zip(paths, _identify_all(root, paths), strict=True):
        if file:
            names[file].append(path)
    sets = _part([list(names)], lambda file: file[2] or None)
    for ends_bytes in _ENDS_BYTES:
        files = [file for some in sets for file in some]
        ends = spread(partial(_all_ends, root, ends_bytes), [names[file][0] for file in files])
        sets = _part(sets, dict(zip(files, ends, strict=True)).__getitem__)
    media = spread(partial(_are_media, root), [names[files[0]][0] for files in sets])
    sets = [files for files, one in zip(sets, media, strict=True) if one]
    copied = {file for files in sets for file in files}
    sets += [[file] for file in names if file not in copied and len(names[file]) > 1]
    return tuple(sorted(tuple(sorted(path for file in files for path in names[file])) for files in sets))


def _identify_all(root: Path, paths: list[str]) -> Iterator[File | None]:
    if not any(map(is_remote, paths)):
        yield from (_identify(join(root, path)) for path in paths)
        return
    with closing(prefetch(lambda path: _identify(join(root, path)), paths, threads=AT_ONCE, ahead=AT_ONCE)) as found:
        yield from found


def _identify(path: str | Path) -> File | None:
    """None for what cannot be read: a reading of the file tells."""
    if not is_plain(os.fspath(path)):
        with suppress(MediaError):
            return os.fspath(path), 0, stat(path).size
        return None
    with suppress(OSError):
        status = os.stat(path)
        return str(status.st_dev), status.st_ino, status.st_size
    return None


def repeats(items: Sequence[Item], copies: Iterable[tuple[str, ...]], root: Path) -> tuple[list[Problem], list[str]]:
    """Problems of clips that are there twice, and notes on harmless ones. copies: `same_contents`."""
    content = {path: paths[0] for paths in copies for path in paths}
    clips: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        clips[content.get(item.path, item.path)].append(item)
    problems: list[Problem] = []
    copied: list[str] = []
    tuned: list[str] = []
    for same in clips.values():
        for one, other in _pairs(same):
            problem = _problem(one, other, root)
            if problem:
                problems.append(problem)
            else:
                (copied if one.split == other.split or not _is_held_out(one) else tuned).append(other.name)
        problems += _overlaps(same)
    notes = [f"copies of other clips of their class ({len(copied)}): {some(copied)}"] if copied else []
    notes += [f"clips both in val and in test ({len(tuned)}): {some(tuned)}"] if tuned else []
    return problems, notes


def _part(sets: list[list[File]], key: Callable[[File], int | bytes | None]) -> list[list[File]]:
    """Parts each set by a key; files of key None or alone with their key are left out."""
    parts: list[list[File]] = []
    for files in sets:
        alike: dict[int | bytes | None, list[File]] = defaultdict(list)
        for file in files:
            alike[key(file)].append(file)
        parts += [part for found, part in alike.items() if found is not None and len(part) > 1]
    return parts


def _ends(path: str | Path, ends_bytes: int) -> bytes | None:
    """sha256 of the first and last bytes of a file; None where it cannot be read: a reading of the file tells."""
    with suppress(OSError, MediaError), open_bytes(path) as file:
        size = file.seek(0, os.SEEK_END)
        if is_remote(os.fspath(path)):
            ends_bytes = min(ends_bytes, _ENDS_BYTES_ELSEWHERE)
        start = read_at(file, 0, ends_bytes)
        return hashlib.sha256(start + read_at(file, max(0, size - ends_bytes), ends_bytes)).digest()
    return None


def _all_ends(root: Path, ends_bytes: int, paths: Iterable[str]) -> list[bytes | None]:
    return [_ends(join(root, path), ends_bytes) for path in paths]


def mark_content(path: str | Path) -> str:
    """What tells a file's content from others, 16 digits: of its size and its first and last MB, or, of a file
    elsewhere, its first and last 64 kB; "" where it cannot be read."""
    try:
        size = stat(path).size
    except MediaError:
        return ""
    ends = _ends(path, _ENDS_BYTES[-1]) or b""
    return hashlib.sha256(str(size).encode() + ends).hexdigest()[:16]


def mark_contents(root: Path, paths: Iterable[str]) -> list[str]:
    return [mark_content(join(root, path)) for path in paths]


def _is_media(path: str | Path) -> bool:
    with suppress(MediaError):
        index(path)
        return True
    return False


def _are_media(root: Path, paths: Iterable[str]) -> list[bool]:
    return [_is_media(join(root, path)) for path in paths]


def _span(item: Item) -> tuple[float, float]:
    return item.start_seconds or 0.0, math.inf if item.end_seconds is None else item.end_seconds


def _pairs(clips: list[Item]) -> Iterator[tuple[Item, Item]]:
    """Each clip with the first one of the same seconds."""
    first: dict[tuple[float, float], Item] = {}
    for item in clips:
        one = first.setdefault(_span(item), item)
        if one is not item:
            yield one, item


def _problem(one: Item, other: Item, root: Path) -> Problem | None:
    """The problem of two clips of the same seconds of the same content, if there is one."""
    if fold_name(one.label) != fold_name(other.label):
        message = f"labelled {one.label!r} and {other.label!r}; keep the right one"
        return Problem("two-labels", *_name_both(one, other, message))
    if _is_held_out(one) != _is_held_out(other):
        return _leak(one, other)
    if _identify(join(root, one.path)) == _identify(join(root, other.path)):
        return Problem("repeated", *_name_both(one, other, "listed twice; keep one"))
    return None


def _overlaps(clips: list[Item]) -> Iterator[Problem]:
    """Parts of the same content, in train and held out, that share some of their seconds but not all."""
    latest: dict[bool, Item] = {}
    for item in sorted(clips, key=_span):
        held_out = _is_held_out(item)
        other = latest.get(not held_out)
        if other and _span(other) != _span(item) and _span(other)[1] > _span(item)[0]:
            yield _leak(other, item)
        if held_out not in latest or _span(latest[held_out])[1] < _span(item)[1]:
            latest[held_out] = item


def _leak(one: Item, other: Item) -> Problem:
    splits = " and ".join(f"in {item.split or 'train'}" for item in sorted((one, other), key=_is_held_out))
    return Problem("leak", *_name_both(one, other, f"{splits}, which flatters the result; keep one"))


def _is_held_out(item: Item) -> bool:
    return item.split in _HELD_OUT


def _name_both(one: Item, other: Item, message: str) -> tuple[str, str]:
    """Names of two clips, and a message on them. Parts of one file are named with their times."""
    if one.name == other.name:
        return one.name, message
    what = "parts of one file" if one.path == other.path else "the same content"
    return f"{one.name} and {other.name}", f"{what}, {message}"
