"""From a folder or a table to the labelled items of a data set, with every fault said before any clip is read."""

import hashlib
import json
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import astuple, dataclass, replace
from pathlib import Path

from tubelet.data.spec import Kind
from tubelet.data.table import SPLITS, Item, read_table, write_table
from tubelet.media.reader import IMAGE_SUFFIXES, SOUND_SUFFIXES, VIDEO_SUFFIXES

_KIND_OF_SUFFIX: dict[str, Kind] = {
    **dict.fromkeys(VIDEO_SUFFIXES, "video"),
    **dict.fromkeys(IMAGE_SUFFIXES, "image"),
    **dict.fromkeys(SOUND_SUFFIXES, "sound"),
}
_SEEN = "folders met a second time through a link"
_LAYOUT = (
    "expected a folder for each class with its clips in it (walk/a.mp4, run/b.mp4), or such folders in train/, val/ "
    "and test/, or a CSV file with the header path,label[,start,end,split,group]"
)


@dataclass(frozen=True)
class Source:
    """A data set: items sorted by path, classes sorted, notes on what was ignored or decided, a sentence each."""

    root: Path
    kind: Kind
    items: tuple[Item, ...]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()


def find_items(path: str | Path, *, minimum_classes: int = 2, minimum_clips: int = 2) -> Source:
    """Class folders, train/val/test folders of class folders, or a CSV file -> the items in it.

    Files may lie deeper inside a class folder. Hidden files and files that are no media are passed over, with a note.
    minimum_classes, minimum_clips: how many classes, and clips in each, the use at hand needs; training needs two.

    Raises: ValueError that says which folders, files or lines are at fault and what was expected.
    """
    path = Path(path).absolute()
    if not path.exists():
        raise ValueError(f"{path} does not exist; {_LAYOUT}")
    if path.is_dir():
        source = _from_folder(path)
    elif path.suffix.lower() in (".csv", ".tsv", ".txt"):
        source = read_split(path, path.parent)
    else:
        raise ValueError(f"{path} is a single file; {_LAYOUT}")
    _check_counts(source, path, minimum_classes, minimum_clips)
    return source


def write_split(source: Source, path: str | Path) -> None:
    """Write the items as a CSV file; `read_split` with the same root gives the same items back."""
    write_table(Path(path), source.items)


def read_split(path: str | Path, root: str | Path) -> Source:
    """The items of a CSV file whose paths are relative to `root`. Raises ValueError as `find_items` does."""
    table, root = Path(path), Path(root).absolute()
    items, notes = read_table(table, root=root)
    _check_names(table, {item.label for item in items})
    return _source(table, root, [_normal(item, root) for item in items], notes)


def fingerprint(source: Source) -> str:
    """sha256 over each item's relative path, file size, label, times, split and group.

    The same on every machine, in any order and under any root, for files below the root.
    """
    lines = sorted(
        json.dumps(
            [unicodedata.normalize("NFC", item.path), os.stat(source.root / item.path).st_size, *astuple(item)[1:]]
        )
        for item in source.items
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def some(names: Iterable[str], *, most: int = 5) -> str:
    """'a', 'b' and 7 more: names for a message."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more


def _normal(item: Item, root: Path) -> Item:
    """The item with a posix path, relative if it can be, and one Unicode form of its label."""
    path = root / item.path
    path = path.relative_to(root) if path.is_relative_to(root) else path
    return replace(item, path=path.as_posix(), label=unicodedata.normalize("NFC", item.label))


def _from_folder(root: Path) -> Source:
    ignored: dict[str, list[str]] = defaultdict(list)
    items, empty, names = [], [], set()
    for split, folder in _class_folders(root, ignored):
        # A link back up must not bring the other classes in, so the way down to here counts as seen.
        seen = {_identity(root), _identity(folder.parent)}
        if _identity(folder) in seen:
            ignored[_SEEN].append(folder.name)
            continue
        seen.add(_identity(folder))
        files = _media_files(folder, seen, ignored)
        label = unicodedata.normalize("NFC", folder.name).strip()
        items += [Item(file.relative_to(root).as_posix(), label, split=split) for file in files]
        names.add(folder.name)
        if not files:
            empty.append(folder.relative_to(root).as_posix())
    if empty:
        raise ValueError(f"{root}: no video, image or sound in {some(empty, most=20)}; fill or remove these folders")
    _check_names(root, names)
    notes = [f"ignored {len(paths)} {what}: {some(paths)}" for what, paths in sorted(ignored.items())]
    return _source(root, root, items, tuple(notes))


def _class_folders(root: Path, ignored: dict[str, list[str]]) -> list[tuple[str, Path]]:
    """(split, class folder) of every class; "" where the root has no train, val or test folders."""
    folders = _subfolders(root)
    splits = [folder for folder in folders if folder.name.lower() in SPLITS]
    if not splits or (len(splits) < len(folders) and not any(map(_subfolders, splits))):
        classes = [("", folder) for folder in folders]
    else:
        classes = [(SPLITS[split.name.lower()], folder) for split in splits for folder in _subfolders(split)]
        bare = [split.name for split in splits if not _subfolders(split)]
        if bare:
            raise ValueError(f"{root}: no class folders in {some(bare)}; {_LAYOUT}")
        beside = [folder for folder in folders if folder not in splits]
        if any(_media_files(folder, {_identity(root)}, ignored) for folder in beside):
            both = f"{some(folder.name for folder in splits)} and {some(folder.name for folder in beside)}"
            raise ValueError(f"{root}: holds both split folders and other folders of clips, {both}; {_LAYOUT}")
    if not classes:
        loose = sum(not _is_hidden(file) for file in root.iterdir())
        raise ValueError(
            f"{root}: {f'{loose} files but no class folders' if loose else 'the folder is empty'}; {_LAYOUT}"
        )
    for folder in sorted({root, *(folder.parent for _, folder in classes)}):
        for file in sorted(folder.iterdir()):
            if not file.is_dir():
                ignored["files outside class folders"].append(file.relative_to(root).as_posix())
    return classes


def _subfolders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not _is_hidden(entry))


def _media_files(folder: Path, seen: set[tuple[int, int]], ignored: dict[str, list[str]]) -> list[Path]:
    """All media files in a folder, at any depth, sorted. Links are followed, but no folder is entered twice."""
    files = []
    for entry in sorted(folder.iterdir()):
        name = f"{folder.name}/{entry.name}"
        if _is_hidden(entry):
            ignored["hidden files and folders"].append(name)
        elif entry.is_dir():
            if _identity(entry) in seen:
                ignored[_SEEN].append(name)
            else:
                seen.add(_identity(entry))
                files += _media_files(entry, seen, ignored)
        elif not entry.is_file():
            ignored["entries that are no regular files"].append(name)
        elif entry.suffix.lower() not in _KIND_OF_SUFFIX:
            ignored["files that are no video, image or sound by their suffix"].append(name)
        else:
            files.append(entry)
    return files


def _is_hidden(entry: Path) -> bool:
    return entry.name.startswith(".") or entry.name == "__MACOSX"


def _identity(path: Path) -> tuple[int, int]:
    """The same for every name of one file or folder."""
    status = path.stat()
    return status.st_dev, status.st_ino


def _source(origin: Path, root: Path, items: list[Item], notes: tuple[str, ...]) -> Source:
    if not items:
        raise ValueError(f"{origin}: no clips; {_LAYOUT}")
    items = sorted(items, key=_place)
    kinds = Counter(_KIND_OF_SUFFIX[Path(item.path).suffix.lower()] for item in items)
    if len(kinds) > 1:
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        raise ValueError(f"{origin}: a mix of kinds ({counts} files); keep one kind, move the others away")
    _check_repeats(origin, root, items)
    return Source(root, next(iter(kinds)), tuple(items), tuple(sorted({item.label for item in items})), notes)


def _place(item: Item) -> tuple[str, float, float, str]:
    start, end = (-1.0 if seconds is None else seconds for seconds in (item.start_seconds, item.end_seconds))
    return item.path, start, end, item.label


def _check_names(origin: Path, names: set[str]) -> None:
    alike = defaultdict(list)
    for name in sorted(names):
        if not name.isprintable():  # also the stand-ins for bytes that are not UTF-8
            raise ValueError(f"{origin}: class name {name!r} has signs that cannot be printed; rename it (in UTF-8)")
        alike[unicodedata.normalize("NFC", name).casefold().strip()].append(name)
    for same in alike.values():
        if len(same) > 1:
            listed = " and ".join(map(ascii, same))
            raise ValueError(f"{origin}: classes {listed} differ only in case, spaces or Unicode form; merge them")


def _check_repeats(origin: Path, root: Path, items: list[Item]) -> None:
    """The same seconds of the same file twice: under two labels, in two splits, or for nothing."""
    first: dict[tuple[object, ...], Item] = {}
    problems = []
    for item in items:
        key = (*_identity(root / item.path), item.start_seconds, item.end_seconds)
        other = first.setdefault(key, item)
        if other is not item:
            labels = " and ".join(repr(one.label) for one in (other, item))
            under = f"labelled {labels}" if other.label != item.label else "listed twice"
            files = item.path if item.path == other.path else f"{other.path} and {item.path} are one file,"
            problems.append(f"{files} {under}")
    if problems:
        more = "; the first 20" if len(problems) > 20 else ""
        raise ValueError("\n  ".join([f"{origin}: {len(problems)} repeated clips{more}:", *problems[:20]]))


def _check_counts(source: Source, path: Path, minimum_classes: int, minimum_clips: int) -> None:
    if len(source.classes) < minimum_classes:
        raise ValueError(
            f"{path}: {len(source.classes)} class ({some(source.classes)}), at least {minimum_classes} are needed; "
            f"{_LAYOUT}"
        )
    counts = Counter(item.label for item in source.items)
    scarce = [f"{label} ({counts[label]})" for label in source.classes if counts[label] < minimum_clips]
    if scarce:
        raise ValueError(
            f"{path}: fewer than {minimum_clips} clips in {some(scarce, most=20)}; add clips or remove them"
        )
