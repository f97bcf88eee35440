"""The files that annotations are of, found by the names that other programs have for them."""

import re
import unicodedata
from collections import defaultdict
from itertools import takewhile
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from tubelet.data.walk import list_media
from tubelet.media.formats import MEDIA_SUFFIXES, VIDEO_SUFFIXES

LOCAL_FILES = "/data/local-files/?d="  # before the paths of files that Label Studio serves from a folder


class Videos:
    """The media files of a folder, at any depth."""

    def __init__(self, folder: Path) -> None:
        """Raises: ValueError where there is no such folder, or nothing in it."""
        if not folder.is_dir():
            raise ValueError(f"--videos {folder}: no folder; name the one that the videos are in")
        self.folder, self.named = folder.absolute(), defaultdict[str, list[str]](list)
        self.stems = defaultdict[str, list[str]](list)  # of images and sounds
        for path in list_media(folder).files:
            name = PurePosixPath(unicodedata.normalize("NFC", path))
            known = {name.name}
            if name.suffix.lower() in VIDEO_SUFFIXES:  # a name without a suffix is none of its sound or its picture
                known |= {name.stem, name.stem.removeprefix("v_")}  # ActivityNet's files are v_ID.mp4
            else:
                self.stems[name.stem].append(path)
            for one in known:
                self.named[one].append(path)

    def find(self, name: str, *, any_kind: bool = False) -> Path:
        """The file that a source names by a path or an address on some machine; a video also without its suffix.

        any_kind: an image or a sound, too, where no video has that name.

        Of several files of that name, it is the one that lies in most of the folders that the source names, too.

        Raises: ValueError where there is none, or more than one.
        """
        parts = path_parts(name)
        found = self.named.get(parts[-1], []) if parts else []
        if any_kind and parts and not found:
            found = self.stems.get(parts[-1], [])
        if len(found) > 1:
            shared = [_count_shared(path_parts((self.folder / path).as_posix())[:-1], parts[:-1]) for path in found]
            likest = [path for path, count in zip(found, shared, strict=True) if count == max(shared)]
            found = likest if len(likest) == 1 else found
        if not found:
            suffix = "" if has_suffix(name) else ", with any suffix,"
            raise ValueError(f"no file {parts[-1] if parts else name!r}{suffix} in {self.folder}")
        if len(found) > 1:
            raise ValueError(f"{name!r} may be {' or '.join(map(repr, found))} in {self.folder}; leave only one there")
        return self.folder / found[0]


def _count_shared(parts: tuple[str, ...], others: tuple[str, ...]) -> int:
    """The number of last parts that are the same."""
    pairs = zip(reversed(parts), reversed(others))
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def path_parts(name: str) -> tuple[str, ...]:
    """ "file:///C:/day%201/a.mp4", "D:\\day 1\\a.mp4", "gs://bucket/day 1/a.mp4" -> its folders and its name."""
    if re.match(r"\w+://", name):
        name = unquote(name.split("://", 1)[1].partition("/")[2].split("?")[0])
    if name.startswith(LOCAL_FILES):
        name = unquote(name.removeprefix(LOCAL_FILES))
    path = PurePosixPath(unicodedata.normalize("NFC", re.sub(r"^[A-Za-z]:", "", name.replace("\\", "/"))))
    return tuple(part for part in path.parts if part not in ("/", ".", ".."))


def has_suffix(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in MEDIA_SUFFIXES
