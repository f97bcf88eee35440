"""Folders of class folders: which files are clips of which class, what is passed over, what is wrong."""

import os
import unicodedata
from collections import defaultdict
from pathlib import Path

from tubelet.data.clip_spec import Kind
from tubelet.data.problems import Problem, some
from tubelet.data.table import SPLITS, Found, Item
from tubelet.data.walk import HIDDEN, SEEN, identity, is_hidden, list_folder, look_through
from tubelet.media.reader import IMAGE_SUFFIXES, SOUND_SUFFIXES, VIDEO_SUFFIXES
from tubelet.system.text import plural

KIND_OF_SUFFIX: dict[str, Kind] = {
    **dict.fromkeys(VIDEO_SUFFIXES, "video"),
    **dict.fromkeys(IMAGE_SUFFIXES, "image"),
    **dict.fromkeys(SOUND_SUFFIXES, "sound"),
}
LAYOUT = (
    "expected a folder for each class with its clips in it (walk/a.mp4, run/b.mp4), or such folders in train/, val/ "
    "and test/, or a CSV file with the header path,label[,start,end,split,group]"
)
_OUTSIDE = "files outside class folders"


def read_folder(root: Path) -> Found:
    """The files in class folders, or in class folders in train, val and test, at any depth, as items.

    Hidden files and files that are no media are passed over, with a note. Links are followed, but no folder is entered
    twice.
    """
    walk = _Walk(root)
    for split, folder in walk.class_folders():
        # A link back up must not bring the other classes in, so the way down to here counts as seen.
        seen = {identity(root), identity(folder.parent)}
        if identity(folder) in seen:
            walk.ignored[SEEN].append(folder.name)
            continue
        files = walk.media_files(folder, seen)
        label = unicodedata.normalize("NFC", folder.name).strip()
        walk.found.names.add(folder.name)
        walk.found.items += [Item(file.relative_to(root).as_posix(), label, split=split) for file in files]
        if not files and folder not in walk.unreadable:
            message = "no video, image or sound in it; fill or remove this folder"
            walk.found.problems.append(Problem("empty-class", walk.where(folder), message))
        if not files:
            walk.found.faulty.append(Item("", label, split=split))
    walk.found.notes += [
        f"ignored {what} ({len(paths)}): {some(paths)}" for what, paths in sorted(walk.ignored.items())
    ]
    return walk.found


class _Walk:
    """A way through the folders below a root, and what comes up on it."""

    def __init__(self, root: Path) -> None:
        self.root, self.found = root, Found()
        self.ignored: dict[str, list[str]] = defaultdict(list)
        self.unreadable: set[Path] = set()

    def class_folders(self) -> list[tuple[str, Path]]:
        """(split, class folder) of every class; "" where the root has no train, val or test folders."""
        folders = self.subfolders(self.root)
        splits = [folder for folder in folders if folder.name.lower() in SPLITS]
        if not splits or (len(splits) < len(folders) and not any(map(self.subfolders, splits))):
            classes = [("", folder) for folder in folders]
        else:
            classes = [(SPLITS[split.name.lower()], folder) for split in splits for folder in self.subfolders(split)]
            self.check_splits(splits, [folder for folder in folders if folder not in splits])
        if not classes and not self.found.problems:
            loose = sum(not is_hidden(file.name) for file in self.entries(self.root))
            what = f"{plural(loose, 'file')} but no class folders" if loose else "the folder is empty"
            self.found.problems.append(Problem("layout", str(self.root), f"{what}; {LAYOUT}"))
        for folder in sorted({self.root, *(folder.parent for _, folder in classes)}):
            for entry in self.entries(folder):
                if is_hidden(entry.name) or not os.path.isdir(entry):
                    what = HIDDEN if is_hidden(entry.name) else _OUTSIDE
                    self.ignored[what].append(Path(entry).relative_to(self.root).as_posix())
        return classes

    def check_splits(self, splits: list[Path], beside: list[Path]) -> None:
        for split in splits:
            if not self.subfolders(split) and split not in self.unreadable:
                self.found.problems.append(Problem("layout", self.where(split), f"no class folders in it; {LAYOUT}"))
        filled = [folder for folder in beside if self.media_files(folder, {identity(self.root)})]
        if filled:
            both = f"{some(folder.name for folder in splits)} and {some(folder.name for folder in filled)}"
            message = f"holds both split folders and other folders of clips, {both}; {LAYOUT}"
            self.found.problems.append(Problem("layout", str(self.root), message))

    def subfolders(self, folder: Path) -> list[Path]:
        return [Path(entry) for entry in self.entries(folder) if os.path.isdir(entry) and not is_hidden(entry.name)]

    def media_files(self, folder: Path, seen: set[tuple[int, int]]) -> list[Path]:
        """All media files in a folder, at any depth; `seen` folders are left out, and those entered are added to it."""
        files = []
        for path, reason in look_through(folder, seen, self.entries):
            if reason:
                self.ignored[reason].append(f"{path.parent.name}/{path.name}")
            else:
                files.append(path)
        return files

    def entries(self, folder: Path) -> list[os.DirEntry[str]]:
        """The entries of a folder, sorted; one that cannot be looked into is a problem, once."""
        try:
            return list_folder(folder)
        except OSError as error:
            if folder not in self.unreadable:
                self.unreadable.add(folder)
                reason = error.strerror or type(error).__name__
                message = f"cannot be looked into ({reason}); check its permissions or remove it"
                self.found.problems.append(Problem("unreadable", self.where(folder), message))
            return []

    def where(self, folder: Path) -> str:
        return str(folder) if folder == self.root else folder.relative_to(self.root).as_posix()
