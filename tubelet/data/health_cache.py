"""The health of the files of a data set, kept on disk between commands: no file is looked through twice."""

import json
import os
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from operator import itemgetter
from pathlib import Path
from time import monotonic
from typing import Any

from tubelet.data.prefetch import prefetch
from tubelet.media.address import is_remote, join
from tubelet.media.bytes import stat
from tubelet.media.errors import MediaError
from tubelet.media.health import Health, parse_health
from tubelet.media.workers import DEADLY, Workers, refuse_deadly
from tubelet.system.console import bar
from tubelet.system.files import cache_folder, write_whole
from tubelet.system.spread import Spread, alone

# What was found is found again only by the same rules and the same decoder: raise the number when the rules change.
RULES = f"4, av {version('av')}"
# Codes that say more of the moment (permissions, a disk that failed) than of the content: looked at again each time.
PASSING = frozenset({"missing", "not-a-file", "unreadable", "too-slow", "no-answer", "refused", "changed"})

MANY = 500  # files; to look at so many takes long enough to be worth remembering
QUICK_FILES = 32  # are looked at quickly in the time that a process takes to start
SAVE_SECONDS = 15.0  # a crash loses no more than that


Stamp = dict[str, int]  # size, mtime_ns and inode of a file: as long as they stay, so does its content


class HealthCache:
    """The health of the files below a root, by their paths: relative to it (as in `Item`), or absolute.

    Files that have changed since are unknown. `save` writes what was put in to a file in the user's cache folder.

    entries: by path, a `Stamp`, whether the look was `quick`, the `rules`, and the fields of its `health`.
    """

    def __init__(self, root: str | Path, entries: dict[str, dict[str, Any]]) -> None:
        self.root, self.entries, self.changed = os.path.abspath(root), entries, False

    @classmethod
    def open(cls, root: str | Path) -> "HealthCache":
        """The entries saved for this root, if any. Lines that are damaged, or of other rules, are passed over."""
        entries = {}
        try:
            lines = index_file(root).read_text(errors="replace").splitlines()
        except OSError:
            lines = []
        for line in lines:
            try:
                entry = json.loads(line)
                path = str(entry.pop("path"))
                parse_health(path, entry["health"])  # whether it can be
                if (entry["rules"], type(entry["quick"])) == (RULES, bool):
                    entries[path] = entry
            except (ValueError, TypeError, KeyError, AttributeError):
                continue
        return cls(root, entries)

    @classmethod
    def open_above(cls, files: Sequence[str]) -> "HealthCache":
        """The entries saved last for any of the folders that hold all of these files; there is at least one."""
        folders = [os.path.dirname(os.path.abspath(file)) for file in files if not is_remote(file)] or [os.getcwd()]
        folder = Path(os.path.commonpath(folders))

        def saved(folder: Path) -> float:
            try:
                return index_file(folder).stat().st_mtime
            except OSError:
                return 0.0

        return cls.open(max((folder, *folder.parents), key=saved))

    @property
    def file(self) -> Path:
        return index_file(self.root)

    def stamp(self, path: str) -> Stamp | None:
        """The state of a file, taken before the file is looked at, so that a change is noticed. None: no such file."""
        return read_stamp(join(self.root, path))

    def get(self, path: str, *, full: bool = False) -> Health | None:
        """The health of a file that has not changed since. One of which a decoder died is not opened any more.

        full: only if all of it was looked through, and no decoder died: the system may have ended that process.
        """
        entry = self.entries.get(path)
        if entry is None or (full and entry["quick"]):  # no server is asked for what is not known
            return None
        stamp = self.stamp(path)
        if stamp is None or not entry.items() >= stamp.items():
            return None
        health = parse_health(str(join(self.root, path)), entry["health"])
        if health.code == DEADLY:
            if full:
                return None
            refuse_deadly(health.path, health.message)
        return health

    def put(self, path: str, health: Health, *, stamp: Stamp | None, quick: bool) -> None:
        """Remembers a file's health, unless that may pass by itself."""
        self.changed = True
        if stamp is None or health.code in PASSING:
            self.entries.pop(path, None)
            return
        fields = asdict(replace(health, path=""))
        self.entries[path] = {**stamp, "quick": quick, "rules": RULES, "health": fields}

    def look(self, paths: Sequence[str], *, threads: int, spread: Spread = alone) -> Generator[Health, None, None]:
        """The health of each file, in order, as soon as it is known: from before, or by a quick `scan`."""
        known = {path: health for path in paths if (health := self.get(path))}
        unknown = [path for path in dict.fromkeys(paths) if path not in known]
        deadly = [(path, health) for path, health in known.items() if health.code == DEADLY]
        for _ in spread(refuse_all, deadly, file=itemgetter(0)):  # by those that would open them
            pass
        with closing(self.scan(unknown, quick=True, threads=threads, spread=spread)) as looks:
            for path in paths:
                if path not in known:
                    known.update([next(looks)])
                yield known[path]

    def scan(
        self, paths: Sequence[str], *, quick: bool, threads: int, spread: Spread = alone
    ) -> Generator[tuple[str, Health], None, None]:
        """Looks at files in parallel, in child processes: the health of each, in order, remembered and saved now and
        then."""
        saved = monotonic()
        examine = partial(examine_files, self.root, quick=quick, threads=threads)
        with closing(spread(examine, paths, at_once=MANY)) as looks:
            for path, (stamp, health) in zip(paths, looks, strict=True):
                self.put(path, health, stamp=stamp, quick=quick)
                yield path, health
                if monotonic() - saved > SAVE_SECONDS:
                    self.save()
                    saved = monotonic()

    def save(self) -> str:
        """Writes the file anew, whole or not at all. Returns "", or why it could not be written."""
        if not self.changed:
            return ""
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            lines = [json.dumps({"path": path, **self.entries[path]}) + "\n" for path in sorted(self.entries)]
            write_whole(self.file, "".join(lines))
        except OSError as error:
            return f"{error.filename or self.file} cannot be written ({error.strerror})"
        self.changed = False
        return ""


def read_stamp(file: str | Path) -> Stamp | None:
    """The state of a file; None where there is no such file."""
    try:
        state = stat(file)
    except MediaError:
        return None
    return {"size": state.size, "mtime_ns": state.changed, "inode": state.identity}


def examine_files(
    root: str, paths: Sequence[str], *, quick: bool, threads: int
) -> Generator[tuple[Stamp | None, Health], None, None]:
    """The state of each file before a look at it in a child process, and its health, in order."""

    def look(path: str) -> tuple[Stamp | None, Health]:
        file = join(root, path)
        return read_stamp(file), workers.examine(str(file), quick=quick)

    threads = min(threads, 1 + len(paths) // (QUICK_FILES if quick else 1))
    with Workers() as workers, closing(prefetch(look, paths, threads=threads, ahead=4 * threads)) as looks:
        yield from looks


def refuse_all(deadly: Iterable[tuple[str, Health]]) -> Generator[None, None, None]:
    """Opens files of which decoders died no more in this process."""
    for _, health in deadly:
        refuse_deadly(health.path, health.message)
        yield


def find_healths(
    root: Path, paths: Sequence[str], *, workers: int, show: bool, spread: Spread = alone
) -> tuple[dict[str, Health], str]:
    """Health by path, in their order; and why those of many files could not be saved, or ""."""
    checked, healths = HealthCache.open(root), dict[str, Health]()
    with bar("looking at files", len(paths), show=show) as progress:
        for path, health in zip(paths, checked.look(paths, threads=workers, spread=spread), strict=True):
            healths[path] = health
            progress.advance(f"{progress.done + 1}/{progress.total} files left {progress.left}")
    return healths, checked.save() if len(paths) >= MANY else ""


def index_file(root: str | Path) -> Path:
    """The file that keeps the index of a root: outside of it, as data may be read-only or belong to somebody else.

    Raises: OSError where the user has no home.
    """
    name = sha256(os.fsencode(os.path.abspath(root))).hexdigest()[:16]
    return cache_folder() / "checked" / f"{name}.jsonl"
