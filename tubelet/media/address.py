"""How bytes are named, wherever they are. A file elsewhere has an address; all else is a path.

clips/walk/a.mp4                a file
https://host/clips/a.mp4        a file elsewhere
shards/000000.tar/walk/a.mp4    a member of a tar, named as if the tar were a folder
s3://bucket/000000.tar/a.mp4    a member of a tar elsewhere
"""

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

SCHEMES = ("https", "http", "s3", "gs", "hf", "memory")
TAR = ".tar"
_REMOTE = re.compile(rf"({'|'.join(SCHEMES)})://", re.IGNORECASE)
_MEMBER = re.compile(rf"(.+?\.tar)[/{re.escape(os.sep)}](.+)", re.IGNORECASE | re.DOTALL)


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether the name is that of a file elsewhere. A Path never is one: it would have lost a slash."""
    return isinstance(path, str) and bool(_REMOTE.match(path))


def join(root: str | os.PathLike[str], path: str | os.PathLike[str]) -> str | Path:
    """The file that `path` names as seen from the folder `root`; an address is the same from everywhere."""
    if is_remote(path):
        return os.fspath(path)
    return f"{os.fspath(root).rstrip('/')}/{os.fspath(path)}" if is_remote(root) else Path(root) / path


def absolute(path: str | os.PathLike[str]) -> str:
    return os.fspath(path) if is_remote(path) else os.path.abspath(path)


def name_from(root: Path, path: str | os.PathLike[str]) -> str:
    """A file as tables in the folder `root` have it: relative to that where it lies below it."""
    if is_remote(path):
        return os.fspath(path)
    whole = root / path
    return (whole.relative_to(root) if whole.is_relative_to(root) else whole).as_posix()


def as_posix(path: str | Path) -> str:
    return path if isinstance(path, str) else path.as_posix()


def real(path: str | os.PathLike[str]) -> str:
    """The one name of what may have several, through links."""
    return os.fspath(path) if is_remote(path) else os.path.realpath(path)


def without_query(path: str | os.PathLike[str]) -> str:
    """A path as it is; of an address the path on its host."""
    return urlsplit(os.fspath(path)).path if is_remote(path) else os.fspath(path)


def suffix(path: str | os.PathLike[str]) -> str:
    """ ".mp4", in small letters; of an address without what a query adds."""
    return os.path.splitext(without_query(path))[1].lower()


def split_member(path: str | os.PathLike[str]) -> tuple[str, str] | None:
    """The tar and the name of a member in it; None for what is none, such as a file in a folder called x.tar."""
    found = _MEMBER.fullmatch(os.fspath(path))
    if found and (is_remote(found[1]) or os.path.isfile(found[1])):
        return found[1], found[2].replace(os.sep, "/")
    return None
