"""From a folder or a table to the labelled items of a data set, with every fault said before any clip is read."""

import hashlib
import json
import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path

from tubelet.data.class_checks import count_problems, fold_name, name_problems, uneven_note
from tubelet.data.clip_spec import Kind
from tubelet.data.duplicates import repeats, same_contents
from tubelet.data.folder import KIND_OF_SUFFIX, LAYOUT, read_folder
from tubelet.data.labels import LABELS
from tubelet.data.problems import DataProblems, Problem, some
from tubelet.data.shards import find_tars, open_tars, read_shards
from tubelet.data.table import TABLES, Found, Item, column_names, read_table
from tubelet.media.address import join, name_from, suffix
from tubelet.media.bytes import size_of
from tubelet.system.spread import Spread, alone
from tubelet.system.text import plural
from tubelet.tasks import Classification, Task


@dataclass(frozen=True)
class Source:
    """A data set: items sorted by path, what is to be learned from their labels, notes on what was ignored or decided.

    copies: sets of paths that hold the same content.
    """

    root: Path
    kind: Kind
    items: tuple[Item, ...]
    task: Task
    notes: tuple[str, ...] = ()
    copies: tuple[tuple[str, ...], ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that clips are labelled with, sorted; none where labels are numbers."""
        return tuple(sorted({name for item in self.items for name in self.task.classes_in(item.label)} - {""}))


def find_items(
    path: str | Path,
    *,
    task: type[Task] = Classification,
    labels: Sequence[str] = LABELS,
    minimum_classes: int = 2,
    minimum_clips: int = 2,
    spread: Spread = alone,
) -> Source:
    """Class folders, train/val/test folders of class folders, or a CSV file -> the items in it; see `read_folder`.

    task: what the cells of the columns `labels` of a table mean. minimum_classes, minimum_clips: how many classes, and
    clips in each, the use at hand needs; training needs two, where it tells classes apart. spread: of the
    looks at files that may be copies.

    Raises: DataProblems, a ValueError: `problems` holds all that is wrong with the folders, lines, classes and copies,
        each with its kind, where it is and what to do. Whether a file can be read is not looked at here.
    """
    path, labels = Path(path).absolute(), [name.strip().lower() for name in labels]  # as names of columns are read
    found = _look(path, task, labels)
    source, problems = _gather(path, path if os.path.isdir(path) else path.parent, found, task, labels, spread)
    num_classes = len({fold_name(name) for name in found.names})
    needed = min(minimum_classes, task.fewest_classes)
    if num_classes < needed and (found.names or found.items):
        listed = some(sorted(found.names))
        message = f"{plural(num_classes, 'class')} ({listed}), at least {needed} are needed; {LAYOUT}"
        problems.append(Problem("few-classes", str(path), message))
    problems += count_problems([*source.items, *found.faulty], task.classes_in, minimum_clips=minimum_clips)
    if problems:
        raise DataProblems(str(path), problems)
    return source


def is_labelled(path: str | Path) -> bool:
    """Whether there are clips in class folders, or a column of labels in a table, whatever else may be wrong."""
    path = Path(path).absolute()
    if path.is_dir():
        return bool(read_folder(path).items or find_tars(path))
    return path.suffix.lower() in TABLES and "label" in column_names(path)


def fingerprint(source: Source) -> str:
    """sha256 over each item's relative path, file size, label, times, split and group.

    The same on every machine, in any order and under any root, for files below the root.
    """
    lines = sorted(
        json.dumps([unicodedata.normalize("NFC", item.path), size_of(join(source.root, item.path)), *astuple(item)[1:]])
        for item in source.items
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _look(path: Path, task: type[Task], labels: Sequence[str]) -> Found:
    if os.path.isdir(path):
        found = read_folder(path)
        if not found.items and (tars := find_tars(path)):
            return read_shards(path, [Item(tar, "") for tar in tars], task, labels)
        faults = {label: fault for label in sorted(found.names) if (fault := task.find_fault(label, labels))}
        found.names = {name for label in found.names - faults.keys() for name in task.classes_in(label)}
        found.problems += [Problem("label", f"class {label!r}", fault) for label, fault in faults.items()]
        return found
    if os.path.isfile(path) and path.suffix.lower() in TABLES:
        return open_tars(read_table(path, root=path.parent, task=task, labels=labels), path.parent, task, labels)
    what = "is a single file" if os.path.isfile(path) else "is neither a folder nor a file"
    kind, what = ("layout", what) if os.path.exists(path) else ("missing", "does not exist")
    return Found(problems=[Problem(kind, str(path), f"{what}; {LAYOUT}")])


def _gather(
    origin: Path, root: Path, found: Found, task: type[Task], labels: Sequence[str], spread: Spread
) -> tuple[Source, list[Problem]]:
    """The items in order, whatever is wrong with them, and all that is wrong."""
    readable = (item for item in found.items if item.label.strip("; ") and not task.find_fault(item.label, labels))
    items = sorted((_normal(item, root) for item in readable), key=_place)
    left = sum(not item.label.strip("; ") for item in found.items)
    problems = [*found.problems, *name_problems(found.names)]
    if not items and not problems:
        problems.append(Problem("layout", str(origin), f"no clips; {LAYOUT}"))
    kind_of = {item.path: KIND_OF_SUFFIX[suffix(item.path)] for item in items}
    kinds = Counter(kind_of.values())
    kind = kinds.most_common(1)[0][0] if kinds else "video"
    if len(kinds) > 1:
        counts = ", ".join(plural(count, f"{kind} file") for kind, count in sorted(kinds.items()))
        others = some(path for path in kind_of if kind_of[path] != kind)
        message = f"a mix of kinds ({counts}); keep one kind, move the others away: {others}"
        problems.append(Problem("mixed-kinds", str(origin), message))
    copies = same_contents(root, (item.path for item in items), spread=spread)
    wrong, notes = repeats(items, copies, root)
    notes = [f"{plural(left, 'clip')} without a label, left out"] * bool(left) + notes
    notes = [*found.notes, *notes, *uneven_note(items, task.classes_in)]
    asked = task.from_cells([item.label for item in items], labels)
    return Source(root, kind, tuple(items), asked, tuple(notes), copies), [*problems, *wrong]


def _normal(item: Item, root: Path) -> Item:
    """The item with a posix path, relative if it can be, and one Unicode form of its label."""
    return replace(item, path=name_from(root, item.path), label=unicodedata.normalize("NFC", item.label))


def _place(item: Item) -> tuple[str, float, float, str]:
    start, end = (-1.0 if seconds is None else seconds for seconds in (item.start_seconds, item.end_seconds))
    return item.path, start, end, item.label
