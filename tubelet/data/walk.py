"""Which files of a folder, or of a table, are media: all of them, whether or not they make a data set."""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tubelet.data.table import TABLES, records
from tubelet.media.formats import MEDIA_SUFFIXES


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Media files below `root`, sorted: paths relative to it (absolute where a table names files elsewhere).

    passed: how many entries of what kind were passed over; closed: folders that cannot be entered.
    """

    root: Path
    files: tuple[str, ...]
    passed: tuple[tuple[str, int], ...] = ()
    closed: tuple[str, ...] = ()

    @property
    def passed_over(self) -> str:
        return ", ".join(f"{count} {what}" for what, count in self.passed)


def list_media(data: Path) -> Listing:
    """Raises ValueError where there is nothing to check."""
    if not os.path.exists(data):
        raise ValueError(f"{data} does not exist: name a folder of media, a CSV file or a single file")
    if data.is_dir():
        listing = walk(data)
    elif data.suffix.lower() in TABLES:
        listing = read_paths(data)
    else:
        listing = Listing(root=data.parent.absolute(), files=(data.name,))
    if not listing.files and not listing.closed:
        over = f", only {listing.passed_over}" if listing.passed else ""
        expected = "name a folder that holds some, or a table with a column `path`"
        raise ValueError(f"{data}: no video, image or sound files in it{over}: {expected}")
    return listing


def walk(root: Path) -> Listing:
    """All files with the suffix of a medium, at any depth. Links are followed, but no folder is entered twice."""
    files: list[str] = []
    passed: Counter[str] = Counter()
    closed: list[str] = []
    folders, seen = [""], {identity(root)}
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(root / folder) as entries:
                listed = list(entries)
        except OSError:
            closed.append(folder)
            continue
        for entry in listed:
            suffix = Path(entry.name).suffix.lower()
            if is_hidden(entry.name):
                passed["hidden"] += 1
            elif os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
                if identity(entry.path) in seen:
                    passed["folders met a second time through a link"] += 1
                else:
                    seen.add(identity(entry.path))
                    folders.append(f"{folder}{entry.name}/")
            elif suffix in MEDIA_SUFFIXES:
                files.append(folder + entry.name)
            else:
                passed[suffix or "without a suffix"] += 1
    return Listing(
        root=root.absolute(), files=tuple(sorted(files)), passed=tuple(passed.most_common()), closed=tuple(closed)
    )


def is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def identity(path: str | Path) -> tuple[int, int]:
    """The same for every name of one folder."""
    status = os.stat(path)
    return status.st_dev, status.st_ino


def read_paths(table: Path) -> Listing:
    """The files that a table names, whatever else may be wrong with it."""
    text = table.read_bytes().decode("utf-8-sig", errors="surrogateescape").replace("\0", "")
    root, paths, column = table.parent.absolute(), set(), None
    for _, cells in records(text):
        if isinstance(cells, str):  # what is wrong is said by `layout_of`
            continue
        if column is None:
            names = [cell.strip().lower() for cell in cells]
            column = names.index("path") if "path" in names else len(text)
        elif column < len(cells) and cells[column].strip():
            path = root / cells[column]
            paths.add((path.relative_to(root) if path.is_relative_to(root) else path).as_posix())
    return Listing(root=root, files=tuple(sorted(paths)))
