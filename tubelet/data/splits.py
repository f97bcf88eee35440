"""The split into training and held-out clips: by class, in whole groups, the same on every machine."""

import hashlib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import PurePosixPath

from tubelet.data.items import Item, Source
from tubelet.data.problems import some
from tubelet.system.text import plural

Strata = Callable[[Item], tuple[str, ...]]  # the classes whose shares are kept when clips are held out

# UCF101 and its kin name a clip v_<class>_g<recording>_c<cut>: cuts of one recording look nearly alike.
_CUT_OF_RECORDING = re.compile(r"v_(.+)_(g\d+)_c\d+")


def assign_splits(source: Source, *, val_share: float = 0.2, seed: int = 0) -> Source:
    """The source with a split and a group for every item.

    Where a val or test split is given, it stays, and items without one are train. Otherwise val is cut from all items:
    `val_share` of each class, as near as whole groups allow, and at least one group of each class on either side where
    it has two. Groups whose clips hold the same content are one group. Groups are taken in an order drawn from `seed`
    and their names alone, so neither the order of the items nor the machine matters.

    Raises: ValueError for a share outside (0, 1), or a class without train items.
    """
    if not 0 < val_share < 1:
        raise ValueError(f"val_share={val_share}, expected a share between 0 and 1")
    items, notes = with_groups(source)
    strata = strata_of(source)
    if any(item.split in ("val", "test") for item in items):
        rest = sum(item.split == "" for item in items)
        items = [replace(item, split=item.split or "train") for item in items]
        notes += [f"{plural(rest, 'clip')} without a split, taken for train"] if rest else []
        notes += _straddling_groups(items)
    else:
        val = _groups_for_val(items, strata, val_share, seed)
        items = [replace(item, split="val" if item.group in val else "train") for item in items]
    notes += _uncovered_classes(source, items, strata)
    return replace(source, items=tuple(items), notes=source.notes + tuple(notes))


def make_folds(source: Source, *, folds: int, seed: int = 0) -> list[Source]:
    """The source as often as there are folds, with a split for every item: in each, other whole groups are val.

    Every item is val once, but for those of a group that is the only one of a class: without it, nothing would be
    learned of the class. Groups are dealt out so that each fold has as much of each class as can be, in an order drawn
    from `seed` and their names; there are as many folds as groups at most. Where the items have a split val, it is the
    one fold. Those of the split test are left out: they are for what is chosen in the end.

    Raises: ValueError for fewer than two groups, and for a class without train items.
    """
    items, notes = with_groups(source)
    items = [replace(item, split=item.split or "train") for item in items if item.split != "test"]
    source, strata = replace(source, items=tuple(items), notes=source.notes + tuple(notes)), strata_of(source)
    if any(item.split == "val" for item in items):
        _uncovered_classes(source, items, strata)
        return [source]
    home = _deal_groups(items, strata, folds, seed)
    found = []
    for fold in sorted({*home.values()}):
        split = [replace(item, split="val" if home.get(item.group) == fold else "train") for item in items]
        _uncovered_classes(source, split, strata)
        found.append(replace(source, items=tuple(split)))
    if len(found) < 2:
        raise ValueError(f"{source.root}: {plural(len(found), 'group')} could be held out, at least two are needed")
    return found


def strata_of(source: Source) -> Strata:
    """The classes of an item; numbers are held out as one class would be."""
    return lambda item: source.task.classes_in(item.label) or ("",)


def _count_groups(items: list[Item], strata: Strata) -> tuple[dict[str, Counter[str]], Counter[str], Counter[str]]:
    """The clips of each class in each group, those of each class in all, and the groups that have some."""
    sizes: dict[str, Counter[str]] = defaultdict(Counter)
    for item in items:
        sizes[item.group].update(strata(item))
    totals = Counter(name for item in items for name in strata(item))
    return sizes, totals, Counter(name for counts in sizes.values() for name in counts)


def _deal_groups(items: list[Item], strata: Strata, folds: int, seed: int) -> dict[str, int]:
    """Group -> number of its fold. The largest groups come first, each goes where there is least of its classes."""
    sizes, totals, num_groups = _count_groups(items, strata)
    dealt = [group for group, counts in sizes.items() if all(num_groups[name] > 1 for name in counts)]
    held: list[Counter[str]] = [Counter() for _ in range(min(folds, len(dealt)))]
    home: dict[str, int] = {}
    for group in sorted(dealt, key=lambda group: (-sizes[group].total(), _draw(group, seed))):
        there = [sum(one[name] * count / totals[name] for name, count in sizes[group].items()) for one in held]
        home[group] = min(range(len(held)), key=lambda fold: (there[fold], held[fold].total(), fold))
        held[home[group]].update(sizes[group])
    return home


def with_groups(source: Source) -> tuple[list[Item], list[str]]:
    """Items with no empty group: the recording a UCF101-style name tells, else the file itself; copies in one group."""
    grouped, recordings = [], 0
    for item in source.items:
        cut = _CUT_OF_RECORDING.fullmatch(PurePosixPath(item.path).stem)
        if item.group == "" and cut:
            item = replace(item, group=f"{item.label if source.task.exclusive else cut[1]}/{cut[2]}")
            recordings += 1
        grouped.append(replace(item, group=item.group or item.path))
    named = f"{plural(recordings, 'clip')} named as in UCF101; those of one recording (g01, g02 ...) stay together"
    home = _homes(grouped, source.copies)
    copied = f"{plural(len(home), 'group')} with copies of clips of others; they stay together"
    notes = [named] * bool(recordings) + [copied] * bool(home)
    return [replace(item, group=home.get(item.group, item.group)) for item in grouped], notes


def _homes(items: list[Item], copies: Iterable[tuple[str, ...]]) -> dict[str, str]:
    """Group -> the group it goes into, for groups that share a content with another, directly or through a third."""
    groups: dict[str, set[str]] = defaultdict(set)
    for item in items:
        groups[item.path].add(item.group)
    into: dict[str, str] = {}

    def home(group: str) -> str:
        while group in into:
            group = into[group]
        return group

    for paths in copies:
        first, *others = sorted({home(group) for path in paths for group in groups[path]})
        into |= dict.fromkeys(others, first)
    return {group: home(group) for group in into}


def _groups_for_val(items: list[Item], strata: Strata, val_share: float, seed: int) -> set[str]:
    """Greedy: take groups, in a drawn order, while that brings the classes' val counts nearer to their targets."""
    sizes, totals, num_groups = _count_groups(items, strata)
    target = {n: min(max(1.0, val_share * totals[n]), totals[n] - 1.0) if num_groups[n] > 1 else 0.0 for n in totals}
    order = sorted(sizes, key=lambda group: _draw(group, seed))
    val: Counter[str] = Counter()
    taken: set[str] = set()

    def gain(group: str) -> float:
        counts = sizes[group].items()
        return sum(abs(val[label] - target[label]) - abs(val[label] + n - target[label]) for label, n in counts)

    def fits(group: str, ceiling: dict[str, float]) -> bool:
        return group not in taken and all(val[label] + n <= ceiling[label] for label, n in sizes[group].items())

    def take(group: str) -> None:
        taken.add(group)
        val.update(sizes[group])

    all_but_one = {label: totals[label] - 1.0 for label in totals}
    for ceiling in (target, all_but_one):  # groups that overshoot come last, so that they do not crowd out better ones
        for group in order:
            if fits(group, ceiling) and gain(group) > 0:
                take(group)
    for label in sorted(label for label in totals if num_groups[label] > 1):
        candidates = [group for group in order if label in sizes[group] and fits(group, all_but_one)]
        if val[label] == 0 and candidates:
            take(max(candidates, key=gain))
    return taken


def _draw(group: str, seed: int) -> bytes:
    name = unicodedata.normalize("NFC", group).encode("utf-8", errors="surrogateescape")
    return hashlib.sha256(b"%d/" % seed + name).digest()


def _straddling_groups(items: list[Item]) -> list[str]:
    splits = defaultdict(set)
    for item in items:
        splits[item.group].add(item.split)
    torn = sorted(group for group, found in splits.items() if "train" in found and len(found) > 1)
    where = "both in train and in val or test, which flatters the result"
    return [f"{plural(len(torn), 'group')} with clips {where}: {some(torn)}"] * bool(torn)


def _uncovered_classes(source: Source, items: list[Item], strata: Strata) -> list[str]:
    covered = {
        split: {name for item in items if item.split == split for name in strata(item)} for split in ("train", "val")
    }
    if not covered["train"]:
        raise ValueError(f"{source.root}: no train clips; add some, or give some the split train")
    untrained = [label for label in source.classes if label not in covered["train"]]
    if untrained:
        raise ValueError(
            f"{source.root}: no train clips for {some(untrained, most=20)}; add some or remove these classes"
        )
    unseen = [label for label in source.classes if covered["val"] and label not in covered["val"]]
    alone = [name for name in unseen if len({item.group for item in items if name in strata(item)}) == 1]
    others = [name for name in unseen if name not in alone]
    notes = [f"all clips of {some(alone)} are in one group, so none can be held out for val"] * bool(alone)
    return notes + [f"no val clips for {some(others)}"] * bool(others)
