"""The media files of a folder or a table: all of them, whether or not they make a data set."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tubelet.data.table import TABLES, rows
from tubelet.media.address import TAR, join, name_from, suffix
from tubelet.media.bytes import is_tar, members
from tubelet.media.formats import MEDIA_SUFFIXES

HIDDEN, SEEN = "hidden files and folders", "folders met a second time through a link"
IRREGULAR, OTHER = "entries that are no regular files", "files that are no video, image or sound by their suffix"


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Media files below `root`, sorted: paths relative to it (absolute where a table names files elsewhere).

    passed_over: how many entries of what kind were. closed: folders that cannot be entered.
    """

    root: Path
    files: tuple[str, ...]
    passed_over: str = ""
    closed: tuple[str, ...] = ()


def list_media(data: str | Path) -> Listing:
    """Raises ValueError where there is nothing to check."""
    if isinstance(data, str):  # elsewhere
        return Listing(root=Path.cwd(), files=tuple(list_tar(Path.cwd(), data)) if is_tar(data) else (data,))
    if not os.path.exists(data):
        raise ValueError(f"{data} does not exist: name a folder of media, a CSV file or a single file")
    if data.is_dir():
        listing = walk(data)
    elif data.suffix.lower() in TABLES:
        listing = read_paths(data)
    elif is_tar(data):
        listing = Listing(root=data.parent.absolute(), files=tuple(list_tar(data.parent.absolute(), data.name)))
    else:
        listing = Listing(root=data.parent.absolute(), files=(data.name,))
    if not listing.files and not listing.closed:
        over = f", only {listing.passed_over}" if listing.passed_over else ""
        expected = "name a folder that holds some, or a table with a column `path`"
        raise ValueError(f"{data}: no video, image or sound files in it{over}: {expected}")
    return listing


def walk(root: Path) -> Listing:
    """All files with the suffix of a medium, at any depth, by `look_through`; where there are none, those in tars.

    Raises: MediaError, a ValueError: a tar cannot be read.
    """
    files, closed, tars = list[str](), list[str](), list[str]()
    passed: Counter[str] = Counter()

    def entries(folder: Path) -> list[os.DirEntry[str]]:
        try:
            return list_folder(folder)
        except OSError:
            closed.append("" if folder == root else f"{folder.relative_to(root).as_posix()}/")
            return []

    for path, reason in look_through(root, set(), entries):
        ending = path.suffix.lower()
        if reason in (HIDDEN, SEEN):
            passed["hidden" if reason == HIDDEN else SEEN] += 1
        elif ending in MEDIA_SUFFIXES:  # a pipe and a link to nowhere too: a reading of the file tells
            files.append(path.relative_to(root).as_posix())
        else:
            passed[ending or "without a suffix"] += 1
            tars += [path.relative_to(root).as_posix()] * (ending == TAR)
    if not files:
        files = [file for tar in tars for file in list_tar(root, tar)]
        del passed[TAR]
    over = ", ".join(f"{count} {what}" for what, count in passed.most_common())
    return Listing(root=root.absolute(), files=tuple(sorted(files)), passed_over=over, closed=tuple(closed))


def look_through(
    folder: Path, seen: set[tuple[int, int]], entries: Callable[[Path], list[os.DirEntry[str]]]
) -> Iterator[tuple[Path, str]]:
    """Yields what is in a folder, at any depth, and why it is passed over: HIDDEN ... OTHER, or "" for a media file.

    Links are followed, but no `seen` folder is entered; those that are entered are added to it. entries: lists one.
    """
    left = [folder]
    while left:
        here = left.pop()
        if identity(here) in seen:
            yield here, SEEN
            continue
        seen.add(identity(here))
        folders = []
        for entry in entries(here):
            path, link = Path(entry), entry.is_symlink()  # what is no link is known from its folder
            if is_hidden(entry.name):
                yield path, HIDDEN
            elif os.path.isdir(path) if link else entry.is_dir():
                folders.append(path)
            elif not (os.path.isfile(path) if link else entry.is_file()):
                yield path, IRREGULAR
            else:
                yield path, "" if path.suffix.lower() in MEDIA_SUFFIXES else OTHER
        left += folders[::-1]


def list_folder(folder: Path) -> list[os.DirEntry[str]]:
    return sorted(os.scandir(folder), key=lambda entry: entry.name)


def is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def identity(path: str | Path) -> tuple[int, int]:
    """Device and inode, the same for every name of one folder."""
    status = os.stat(path)
    return status.st_dev, status.st_ino


def read_paths(table: Path) -> Listing:
    """The files that a table names, whatever else may be wrong with it."""
    root, (names, *lines) = table.parent.absolute(), rows(table)
    cells = (dict(zip(names, cells)).get("path", "") for cells in lines)
    paths = {name_from(root, cell) for cell in cells if cell.strip()}
    for tar in [path for path in paths if suffix(path) == TAR]:
        paths.remove(tar)
        paths.update(list_tar(root, tar))
    return Listing(root=root, files=tuple(sorted(paths)))


def list_clips(tar: str | Path) -> list[str]:
    """The names of the media files in a tar, sorted. Raises MediaError where it cannot be read."""
    is_tar(tar)
    parts = ((name, name.split("/")) for name in members(tar) if suffix(name) in MEDIA_SUFFIXES)
    return sorted(name for name, names in parts if not any(map(is_hidden, names)))


def list_tar(root: Path, tar: str) -> list[str]:
    """The media files in a tar as tables in the folder `root` have them. Raises ValueError where it cannot be read."""
    return [f"{name_from(root, tar)}/{name}" for name in list_clips(join(root, tar))]
