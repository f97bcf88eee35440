"""Parts of a command that jobs of a cluster share: each job makes the items that the hash of their path gives it.

FOLDER/3-of-100/
    manifest.json    what was typed, all that results depend on, and, once the part is whole, how many items there are,
                     the mark of their list and of the results
    journal.jsonl    until then: a result a line, as they come
    results.jsonl    the same in the order of the items; appears whole or not at all

A job that was killed goes on with what its journal has. One whose part is whole does nothing, unless items were added
or removed since: then it makes those that are new. Where an item belongs depends on its path alone.
"""

import hashlib
import json
import os
import re
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tubelet.media.address import join
from tubelet.media.workers import Workers
from tubelet.runs.lock import hold
from tubelet.runs.run import holds_others, list_changes, remove_leftovers
from tubelet.runs.share import Keep, Key, Result, Share, Work, ignore
from tubelet.system.files import write_whole
from tubelet.system.text import dumps, list_names, plural

MANIFEST, JOURNAL, RESULTS = "manifest.json", "journal.jsonl", "results.jsonl"
FORMAT = 1  # raised whenever parts are cut or written in another way
SAVE_SECONDS = 15.0  # a power cut loses no more than that; what only ends a process loses nothing
SUSPECTS = 64  # files that a job may have begun when it was ended
OF_THE_MACHINE = ("precision",)  # settings that the process which merges need not share


class PartWritten(Exception):
    """A job is done: its part is written, the rest is for `tubelet merge`. known: results from before."""

    def __init__(self, part: "Part", items: int, known: int):
        super().__init__(f"part {part.number} of {part.count} is whole: {plural(items, 'item')}")
        self.part, self.items, self.known = part, items, known


class PartsMissing(ValueError):
    """Parts that are not there, or no longer of the same items; `numbers` says which."""

    def __init__(self, folder: Path, wrong: dict[int, str], count: int):
        self.numbers = sorted(wrong)
        few = [f"{number} ({wrong[number]})" for number in self.numbers]
        super().__init__(
            f"{folder}: {len(wrong)} of {plural(count, 'part')} cannot be merged yet: {list_names(few)}. Run the same "
            f"command again with --shard I/{count} for these: {','.join(map(str, self.numbers))}"
        )


@dataclass(frozen=True)
class Part:
    """The folder of one part, number 1 to count."""

    folder: Path
    number: int
    count: int

    @classmethod
    def parse(cls, folder: Path, text: str) -> "Part":
        """The part of "3/100". Raises ValueError: it reads otherwise, or there is no such part."""
        match = re.fullmatch(r"(\d{1,7})/(\d{1,7})", text, re.ASCII)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise ValueError(f"--shard {text}: expected I/N, from 1/N to N/N, such as 3/100")
        return cls(folder, int(match[1]), int(match[2]))

    @property
    def path(self) -> Path:
        return self.folder / f"{self.number}-of-{self.count}"

    def cut(self, keys: Sequence[Key]) -> list[int]:
        """The numbers of the items of this part, each item once."""
        return sorted(number for key, number in first_numbers(keys).items() if place(key[0], self.count) == self.number)

    def read_manifest(self) -> dict[str, Any]:
        """The manifest, empty where there is none. Raises ValueError: it is damaged, or of another version."""
        file = self.path / MANIFEST
        try:
            found = json.loads(file.read_text())
            if found["format"] != FORMAT:
                raise ValueError(f"format {found['format']}, expected {FORMAT}")
            return {**found, "settings": dict(found["settings"]), "typed": [str(word) for word in found["typed"]]}
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file}: damaged ({error}): remove {self.path}, and run its job again") from error

    def write_manifest(self, values: dict[str, Any]) -> None:
        write_whole(self.path / MANIFEST, dumps({"format": FORMAT, **values}, indent=2) + "\n")

    def read_results(self, manifest: dict[str, Any]) -> dict[Key, Any] | None:
        """What was made of each item, packed; None where the part is not whole."""
        if "items" not in manifest:
            return None
        try:
            text = (self.path / RESULTS).read_bytes()
        except FileNotFoundError:
            return None
        return dict(read_lines(text)) if hashlib.sha256(text).hexdigest() == manifest["results"] else None


def place(path: str, count: int) -> int:
    """The number, from 1, of the part that a path belongs to: the same on any machine, whatever else there is."""
    name = unicodedata.normalize("NFC", path.replace(os.sep, "/"))
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") % count + 1


def first_numbers(keys: Sequence[Key]) -> dict[Key, int]:
    """The number of each item; of one that is named twice, which is made once, the first."""
    return {key: number for number, key in reversed(list(enumerate(keys)))}


def mark_keys(keys: Sequence[Key]) -> str:
    """sha256 of a list of items, in whatever order."""
    return hashlib.sha256("\n".join(sorted(json.dumps(key) for key in keys)).encode()).hexdigest()


def write_line(key: Key, result: Any) -> str:
    return json.dumps([*key, result]) + "\n"  # a number that is not finite must come back, too


def read_lines(text: bytes) -> Iterator[tuple[Key, Any]]:
    """Items and results of a journal; nothing of a line that was cut short."""
    for line in text.split(b"\n"):
        with suppress(ValueError):  # also what a power cut leaves
            path, start, end, result = json.loads(line)
            yield (path, start, end), result


@dataclass(frozen=True)
class Shard(Share):
    """A job that makes one part. typed: the command line; settings: what of it the results depend on."""

    part: Part
    typed: tuple[str, ...]
    settings: dict[str, Any]
    whole = False

    def make(self, work: Work[Result], *, after: Callable[[Result], None] = ignore) -> list[Result]:
        """Returns never.

        Raises:
            PartWritten: the part is whole.
            ValueError: the folder holds something else, or parts that were made otherwise.
            EnvironmentTrouble: another process makes this part.
        """
        part, keys, numbers = self.part, work.keys, self.part.cut(work.keys)
        settings = json.loads(dumps({**self.settings, **work.about()}))
        self.check_folder(settings)
        part.path.mkdir(parents=True, exist_ok=True)
        with hold(part.path):
            remove_leftovers(part.path)
            manifest = part.read_manifest()
            check_settings(part, manifest, settings)
            mine = [keys[number] for number in numbers]
            mark, known = mark_keys(mine), part.read_results(manifest)
            if known is not None and manifest["mark"] == mark:
                (part.path / JOURNAL).unlink(missing_ok=True)
                raise PartWritten(part, len(mine), len(mine))
            begun = {"settings": settings, "typed": self.typed}
            with open_journal(part, known or {}, set(mine)) as (journal, known):
                before = len(known)
                part.write_manifest({**begun, "known": before})  # not whole from here on: the journal has what it held
                todo = [number for number in numbers if keys[number] not in known]

                def keep(number: int, result: Result) -> None:
                    known[keys[number]] = work.form.pack(result)
                    journal(write_line(keys[number], known[keys[number]]))

                suspects = todo[:SUSPECTS] if manifest.get("known") == before else []
                make_with_care(suspects, work, keep)
                if left := todo[len(suspects) :]:
                    work.make(left, keep)
            text = "".join(write_line(key, known[key]) for key in mine)
            write_whole(part.path / RESULTS, text)
            sums = {"items": len(mine), "mark": mark, "results": hashlib.sha256(text.encode()).hexdigest()}
            part.write_manifest({**begun, **sums})
            (part.path / JOURNAL).unlink()
        raise PartWritten(part, len(mine), before)

    def check_folder(self, settings: dict[str, Any]) -> None:
        """Raises ValueError where a folder holds something else than parts, or one that was cut or made otherwise."""
        strange = holds_others(self.part.folder)  # before the parts are listed: other jobs begin at the same moment
        others = list_parts(self.part.folder)
        if strange and not others:
            raise ValueError(f"{self.part.folder} holds something that are no parts: choose another --parts")
        if others:
            check_settings(others[0], others[0].read_manifest(), settings)
            if others[0].count != self.part.count:
                raise ValueError(
                    f"{self.part.folder} holds parts of {others[0].count}, not of {self.part.count}: choose another "
                    "--parts"
                )


@dataclass(frozen=True)
class Merged(Share):
    """Results of all parts, in the place of work."""

    folder: Path
    whole = True

    def read_typed(self) -> list[str]:
        """What was typed for the jobs, with the --shard of one. Raises ValueError: there are no parts."""
        for part in list_parts(self.folder):
            if manifest := part.read_manifest():
                return list(manifest["typed"])
        raise ValueError(f"{self.folder}: no parts in it: expected the --parts of a command with --shard")

    def make(self, work: Work[Result], *, after: Callable[[Result], None] = ignore) -> list[Result]:
        """Raises PartsMissing; ValueError where parts were made otherwise than each other, or by another model."""
        first, *others = list_parts(self.folder)
        count, wrong = first.count, dict[int, str]()
        if odd := [part.path.name for part in others if part.count != count]:
            raise ValueError(f"{self.folder}: holds {first.path.name} and {odd[0]}: move one kind away")
        settings = first.read_manifest().get("settings", {})
        model = {name: value for name, value in work.about().items() if name not in OF_THE_MACHINE}
        if changed := list_changes(settings, json.loads(dumps(model))):
            raise ValueError(f"{self.folder}: parts of something else than is there now ({changed}): run all jobs anew")
        numbers = first_numbers(work.keys)
        cut: dict[int, list[Key]] = {number: [] for number in range(1, count + 1)}
        for key in numbers:
            cut[place(key[0], count)].append(key)
        made: dict[Key, Result] = {}
        for number, mine in cut.items():
            part = Part(self.folder, number, count)
            manifest = part.read_manifest()
            check_settings(part, manifest, settings)
            found = part.read_results(manifest)
            if found is None:
                wrong[number] = "damaged" if "items" in manifest else "not done" if manifest else "not begun"
            elif manifest["mark"] != mark_keys(mine):
                wrong[number] = "items were added or removed since"
            else:
                made |= {key: work.form.unpack(numbers[key], packed) for key, packed in found.items()}
        if wrong:
            raise PartsMissing(self.folder, wrong, count)
        for key in work.keys:
            after(made[key])
        return [made[key] for key in work.keys]


def make_with_care(numbers: list[int], work: Work[Result], keep: Keep[Result]) -> None:
    """Makes items one by one, each when children have decoded its file; this process opens none of which they died.

    For where a job before this one came to its end without a single result: its decoder may have died of one of them.
    """
    with Workers() as children:
        for number in numbers:
            children.examine(str(join(work.root, work.keys[number][0])), quick=False)
            work.make([number], keep)


def list_parts(folder: Path) -> list[Part]:
    """The parts that were begun in a folder, by number."""
    inside = os.listdir(folder) if folder.is_dir() else []
    names = [re.fullmatch(r"([1-9]\d*)-of-([1-9]\d*)", name) for name in inside]
    return sorted((Part(folder, int(name[1]), int(name[2])) for name in names if name), key=lambda part: part.number)


def check_settings(part: Part, manifest: dict[str, Any], settings: dict[str, Any]) -> None:
    """Raises ValueError where a part was made otherwise than with these settings; says how."""
    if manifest and (changed := list_changes(manifest["settings"], settings)):
        raise ValueError(f"{part.path}: a part made otherwise ({changed}): choose another --parts, or remove this one")


@contextmanager
def open_journal(
    part: Part, known: dict[Key, Any], mine: set[Key]
) -> Iterator[tuple[Callable[[str], None], dict[Key, Any]]]:
    """A function that adds a line to the journal of a part, and all results that are known: from before, and from the
    journal of a job that did not end."""
    file = part.path / JOURNAL
    written = dict(read_lines(file.read_bytes())) if file.is_file() else {}
    known = {key: result for key, result in {**known, **written}.items() if key in mine}
    write_whole(file, "".join(write_line(key, result) for key, result in known.items()))  # without a line cut short
    with open(file, "a", encoding="utf-8", newline="") as handle:
        saved = time.monotonic()

        def add(line: str) -> None:
            nonlocal saved
            handle.write(line)
            handle.flush()  # what the process still held would die with it
            if time.monotonic() - saved > SAVE_SECONDS:
                os.fsync(handle.fileno())
                saved = time.monotonic()

        yield add, known
