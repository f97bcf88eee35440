"""The files of a data set that cannot be read: counted, listed, never too many."""

import json
import shlex
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from threading import Lock

from tubelet.data.items import Item
from tubelet.media.health import Health
from tubelet.system.console import say
from tubelet.system.files import write_whole
from tubelet.system.text import visible

SHOWN = 8
ROUNDING = 1e-9  # 0.07 * 100 is a little more than 7


@dataclass(frozen=True)
class BadFile:
    """A file of a data set that cannot be used: its name as in `Item`, why (a code and a sentence), and its split."""

    path: str
    code: str
    message: str
    split: str

    def __str__(self) -> str:
        return visible(f"{self.path}: {self.message} [{self.code}]")


class BadFiles:
    """The bad files of a data set, by name.

    Threads that read ahead `add` a file as soon as they meet it. `announce` names and lists those that all processes
    of a training know of, at the same step in each.

    data: the data set, for messages. train_files: how many it has to train on, of which a share `most` in [0, 1] may be
    bad, and never all. known: found before, and in the list already. file: the list, a JSON object a line; None for
    none. show: each file is named when it is announced.
    """

    def __init__(
        self,
        data: Path,
        *,
        train_files: int,
        most: float = 1.0,
        known: Iterable[BadFile] = (),
        file: Path | None = None,
        show: bool = False,
    ):
        self.data, self.train_files, self.most, self.file, self.show = data, train_files, most, file, show
        self.files: dict[str, BadFile] = {}
        self.announced: set[str] = set()
        self.lock = Lock()
        for one in known:
            self.add(one)
        self.announced |= self.files.keys()
        self.save()

    def __contains__(self, name: str) -> bool:
        return name in self.files

    def get(self, name: str) -> BadFile | None:
        return self.files.get(name)

    def add(self, one: BadFile) -> None:
        """Takes a file up, once; any thread may call it."""
        with self.lock:
            self.files.setdefault(one.path, one)

    def unannounced(self) -> list[BadFile]:
        """The files that were met and not announced yet."""
        with self.lock:
            return [one for name, one in self.files.items() if name not in self.announced]

    def announce(self, found: Iterable[BadFile]) -> None:
        """Names and lists the files that are new."""
        new = {one.path: one for one in found if one.path not in self.announced}
        for one in new.values():
            self.add(one)
        self.announced |= new.keys()
        for _, one in sorted(new.items()) if self.show else ():
            say("skipped" if one.split == "train" else "unreadable", str(one))
        if new:
            self.save()

    def save(self) -> None:
        if self.file and self.announced:
            lines = [json.dumps(asdict(self.files[name])) for name in sorted(self.announced)]
            write_whole(self.file, "\n".join(lines) + "\n")

    @property
    def skipped(self) -> int:
        """Training files that are left out, of those announced."""
        return sum(self.files[name].split == "train" for name in self.announced)

    def check(self) -> None:
        """Raises ValueError where more training files than allowed are bad, or all."""
        with self.lock:
            bad = sorted((one for one in self.files.values() if one.split == "train"), key=lambda one: one.path)
        if len(bad) <= min(count_share(self.most, self.train_files), self.train_files - 1):
            return
        total = self.train_files
        limit = "not one is left" if len(bad) == total else f"more than the {100 * self.most:g}% of --max-bad"
        table = [f"  {one}" for one in bad[:SHOWN]]
        table += [f"  and {len(bad) - SHOWN} more"] if len(bad) > SHOWN else []
        codes = ", ".join(f"{count} {code}" for code, count in Counter(one.code for one in bad).most_common())
        advice = (
            f"bad_files.jsonl in the run has those found while training, `tubelet check {shlex.quote(str(self.data))}` "
            "finds all. Repair or remove them and train anew, or let them be skipped with a higher --max-bad: the last "
            "checkpoint is kept"
        )
        share = f"{len(bad)} of {total} training files ({len(bad) / total:.1%})"
        raise ValueError("\n".join([f"{share} cannot be read, {limit}:", *table, f"  by code: {codes}", f"  {advice}"]))


def count_share(share: float, files: int) -> int:
    """The number of files that a share of them is."""
    return int(share * files + ROUNDING)


def read_list(file: Path) -> list[BadFile]:
    """The files in a list; none where there is no list. Raises ValueError where it is damaged."""
    try:
        found = [BadFile(**json.loads(line)) for line in file.read_text().splitlines()]
        if any(type(value) is not str for one in found for value in astuple(one)):
            raise TypeError("expected texts")
        return found
    except FileNotFoundError:
        return []
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{file}: damaged ({error}): restore it; without it, files that were mended since count as good again"
        ) from error


def find_fault(item: Item, health: Health, kind: str) -> tuple[str, str] | None:
    """Code and message of an item's fault; None for an item that can be used."""
    if not health.usable:
        return health.code, health.message
    if kind != "sound" and health.kind != kind:  # sound may come from a video
        message = f"the file is of kind {health.kind!r}, the model takes {kind!r}. Leave it out or convert it."
        return "other-kind", message
    start, duration = item.start_seconds or 0.0, health.duration_seconds
    end = duration if item.end_seconds is None else min(item.end_seconds, duration)
    if start > 0 and start >= end:
        message = f"nothing lies between {start} s and {end} s of a file of {duration} s. Mend the times."
        return "no-frames", message
    return None
