"""Faults of the classes of a data set, by the labels of its clips alone."""

import difflib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

from tubelet.data.problems import Problem, some
from tubelet.data.table import Item
from tubelet.system.text import plural

ClassesIn = Callable[[str], tuple[str, ...]]  # of a label

MOST_UNEVEN = 20


def fold_name(name: str) -> str:
    """A name without case, outer spaces and Unicode form: a person would take equal ones for one name."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()).strip()


def name_problems(names: Iterable[str]) -> list[Problem]:
    """Names that cannot be printed, such as those of bytes that are not UTF-8, and names that are alike."""
    problems, alike = [], defaultdict(list)
    for name in sorted(names):
        if not (name.isprintable() and name.strip()):
            message = "its name has signs that cannot be printed; rename it (in UTF-8)"
            problems.append(Problem("class-name", f"class {name!r}", message))
        alike[fold_name(name)].append(name)
    for same in alike.values():
        if len(same) > 1:
            listed = " and ".join(map(ascii, same))
            message = "differ only in case, spaces or Unicode form; merge them"
            problems.append(Problem("alike-classes", f"classes {listed}", message))
    return problems


def count_problems(items: Sequence[Item], classes_in: ClassesIn, *, minimum_clips: int) -> list[Problem]:
    """Classes with too few clips, and classes of val or test that train lacks where there is a train split."""
    by_class: dict[str, list[tuple[str, Item]]] = defaultdict(list)
    for item in items:
        for name in classes_in(item.label):
            by_class[fold_name(name)].append((name, item))
    trained = {name for item in items if item.split in ("", "train") for name in classes_in(item.label)}
    problems = []
    for named in by_class.values():
        name, clips = named[0][0], [item for _, item in named]
        where = f"class {name!r}"
        splits = {item.split for item in clips}
        if trained and not splits & {"", "train"}:
            near = difflib.get_close_matches(name, sorted(trained), n=1)
            mend = f"did you mean {near[0]!r}?" if near else "add some or remove the class"
            message = f"has {plural(len(clips), 'clip')} in {' and '.join(sorted(splits))} but none in train; {mend}"
            problems.append(Problem("unseen-class", where, message))
        elif len(clips) < minimum_clips and any(item.path for item in clips):
            few = plural(len(clips), "clip")
            message = f"{few}, at least {minimum_clips} are needed; add clips or remove the class"
            problems.append(Problem("few-clips", where, message))
    return problems


def uneven_note(items: Iterable[Item], classes_in: ClassesIn) -> list[str]:
    """A note where one class has more than 20 times the clips of another."""
    counts = Counter(name for item in items for name in classes_in(item.label)).most_common()
    if not counts or counts[0][1] <= MOST_UNEVEN * counts[-1][1]:
        return []
    (most, many), few = counts[0], counts[-1][1]
    rare = [label for label, count in counts if many > MOST_UNEVEN * count]
    note = f"classes are uneven, more than {MOST_UNEVEN} to 1: {most!r} has {many} clips, {some(rare)} as few as {few}"
    return [f"{note}; look at the figures of each class, not at the overall accuracy alone"]
