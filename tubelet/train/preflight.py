"""The check of every file of a data set before training: known ones are not opened, unreadable ones are named."""

import math
from collections import Counter
from dataclasses import dataclass, replace

from tubelet.data.bad_files import BadFile, count_share, find_fault
from tubelet.data.health_cache import MANY, find_healths
from tubelet.data.items import Item, Source
from tubelet.media.address import join
from tubelet.media.health import Health
from tubelet.system.spread import Spread, alone
from tubelet.system.text import plural, visible

SHOWN = 8  # bad files that a message names


@dataclass(frozen=True, kw_only=True)
class Data:
    """The clips of a training: `source` without the training clips that cannot be read; `healths`, by `Item.path`, of
    all files that are of use; `bad`, by their names: those of train are left out, held-out ones will count as wrong."""

    source: Source
    healths: dict[str, Health]
    bad: tuple[BadFile, ...]
    notes: tuple[str, ...]

    def items(self, split: str) -> list[Item]:
        return [item for item in self.source.items if item.split == split]

    def durations(self, split: str | None = None) -> list[float]:
        """Seconds of the items that can be read, of a split or of all."""
        items = [item for item in self.source.items if item.path in self.healths and split in (None, item.split)]
        ends = [
            self.healths[one.path].duration_seconds if one.end_seconds is None else one.end_seconds for one in items
        ]
        return [max(end - (item.start_seconds or 0.0), 0.0) for item, end in zip(items, ends)]

    @property
    def held_out(self) -> str:
        """The split that the result is measured on."""
        return "test" if self.items("test") else "val"

    @property
    def chooses(self) -> bool:
        """Whether there are validation clips to choose weights by, beside those that the result is measured on."""
        return self.held_out == "test" and bool(self.items("val"))

    @property
    def validation_split(self) -> str:
        """The split that is looked at during training."""
        return "val" if self.items("val") else "test"

    def counts(self) -> dict[str, dict[str, int]]:
        """Clips of each class in each split that has any; none where labels are numbers."""
        classes_in = self.source.task.classes_in
        return {
            split: dict(sorted(Counter(name for item in items for name in classes_in(item.label)).items()))
            for split in ("train", "val", "test")
            if (items := self.items(split))
        }


def look_at_files(source: Source, *, most_bad: float, workers: int, show: bool = False, spread: Spread = alone) -> Data:
    """Training goes on without the few files that cannot be read, the held-out ones stay and count.

    most_bad: share of the training clips, in [0, 1], that may be left out.

    Raises:
        ValueError: too many training clips cannot be read, or all of a class, or nothing is left to be held out.
    """
    paths = [*dict.fromkeys(item.path for item in source.items)]
    show = show and len(paths) >= MANY
    healths, trouble = find_healths(source.root, paths, workers=workers, show=show, spread=spread)
    faults = {item: fault for item in source.items if (fault := find_fault(item, healths[item.path], source.kind))}
    check_train(source, faults, most_bad)
    check_held_out(source, faults)
    bad = sorted((BadFile(item.name, *fault, item.split) for item, fault in faults.items()), key=lambda one: one.path)
    left_out = sum(item.split == "train" for item in faults)
    notes = [trouble] if trouble else []
    if faults:
        without = f"{left_out} left out of training, held-out ones count as wrong"
        notes.append(f"{plural(len(faults), 'file')} cannot be read: {without}{list_faults(source, faults)}")
    usable = {path: health for path, health in healths.items() if health.usable}
    if damaged := [health for health in usable.values() if not health.ok]:
        lost, frames = sum(health.bad_frames for health in damaged), sum(health.frames for health in damaged)
        seconds = sum(end - begin for health in damaged for begin, end in health.bad_spans)
        losses = f"{lost} of {lost + frames} frames ({seconds:.1f} s) are lost"
        notes.append(f"{plural(len(damaged), 'file')} damaged but used: {losses}; `tubelet check` names them")
    items = tuple(item for item in source.items if item.split != "train" or item not in faults)
    kept = replace(source, items=items)
    return Data(source=kept, healths=usable, bad=tuple(bad), notes=(*source.notes, *notes))


def check_train(source: Source, faults: dict[Item, tuple[str, str]], most_bad: float) -> None:
    train = [item for item in source.items if item.split == "train"]
    bad = sum(item in faults for item in train)
    listing = list_faults(source, {item: fault for item, fault in faults.items() if item.split == "train"})
    what = f"{source.root}: {bad} of {len(train)} training files cannot be read"
    classes_in = source.task.classes_in
    whole = {name for item in train if item not in faults for name in classes_in(item.label)}
    if lost := {name for item in train for name in classes_in(item.label)} - whole:
        raise ValueError(f"{what}, all of {', '.join(sorted(lost))}: repair or remove them{listing}")
    if bad > count_share(most_bad, len(train)):
        share = bad / len(train)
        raise ValueError(
            f"{what}, {share:.1%}, more than the {100 * most_bad:g}% of --max-bad: repair or remove them, or have them "
            f"left out with --max-bad {math.ceil(100 * share)}%{listing}"
        )


def check_held_out(source: Source, faults: dict[Item, tuple[str, str]]) -> None:
    held_out = {item.split for item in source.items} - {"train"}
    if not held_out:
        raise ValueError(f"{source.root}: no clips are held out to test on: give some the split val or test")
    for split in sorted(held_out):
        if not any(item.split == split and item not in faults for item in source.items):
            raise ValueError(
                f"{source.root}: none of the {split} clips can be read: repair them{list_faults(source, faults)}"
            )


def list_faults(source: Source, faults: dict[Item, tuple[str, str]]) -> str:
    """The first faults, each on a line of its own, and how many more there are."""
    lines = [f"\n  {visible(f'{join(source.root, item.path)}: {message}')}" for item, (_, message) in faults.items()]
    more = f"\n  and {len(lines) - SHOWN} more; `tubelet check` names them all" if len(lines) > SHOWN else ""
    return "".join(lines[:SHOWN]) + more
