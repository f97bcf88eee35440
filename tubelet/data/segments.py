"""From a table of segments to the recordings that they lie in, with every fault said before any is decoded.

path,start,end,label
a.mp4,3.5,9,walk            what happens from second 3.5 to 9
a.mp4,8,12.25,wave          segments of different labels may overlap
b.mp4,,,                    a recording in which nothing happens
c.mp4,,,walk                one in which somebody walks, nobody says when
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from tubelet.data.class_checks import count_problems, fold_name, name_problems
from tubelet.data.duplicates import same_contents
from tubelet.data.folder import KIND_OF_SUFFIX
from tubelet.data.health_cache import find_healths
from tubelet.data.items import Source
from tubelet.data.problems import DataProblems, Problem
from tubelet.data.splits import assign_splits, with_groups
from tubelet.data.table import TABLES, Item, read_table
from tubelet.media.address import suffix
from tubelet.media.health import Health
from tubelet.system.text import plural
from tubelet.tasks import MultiLabel
from tubelet.tasks.detection import shared_seconds
from tubelet.tasks.multilabel import NONE

LAYOUT = "expected a table (.csv) whose rows are path,start,end,label, several for each file"
BEYOND_SECONDS = 0.5  # that a segment may end after its file does: tables round, containers too
HOLDS_SHARE = 0.7  # of a window that a segment covers, or of a segment that a window covers, from which on it holds
SHORTEST_SHARE = 0.2  # of a window: what is shorter cannot be seen in it
MARGIN_SHARE = 0.125  # of a window, on each side
WINDOW_SECONDS = 0.8, 3.2  # at least and at most
USUAL_SECONDS = 1.6  # where no segment has times

Span = tuple[float, float, str]  # start_seconds, end_seconds, label


@dataclass(frozen=True)
class Recording:
    """A long file and what happens in it. path: posix, relative to the root of its table. split and group: as of an
    `Item`. untimed: labels of things that happen in it, nobody says when. unknown: the time of which nothing is known,
    from second to second."""

    path: str
    seconds: float
    segments: tuple[Span, ...]
    split: str = ""
    group: str = ""
    untimed: tuple[str, ...] = ()
    unknown: tuple[tuple[float, float], ...] = ()

    @property
    def spans(self) -> tuple[Span, ...]:
        """What is known of every moment: segments, labels without times from start to end, "" where nothing is."""
        everywhere = ((0.0, self.seconds, label) for label in self.untimed)
        return (*self.segments, *everywhere, *((start, end, "") for start, end in self.unknown))

    def named(self, label: str) -> list[tuple[float, float]]:
        return [(start, end) for start, end, other in self.segments if other == label]


@dataclass(frozen=True)
class Recordings:
    """A data set of recordings, sorted by path. names: the labels, sorted. copies: sets of paths that hold the same
    content. unreadable: files that cannot be opened, by path, and why; they are no recordings."""

    root: Path
    recordings: tuple[Recording, ...]
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    copies: tuple[tuple[str, ...], ...] = ()
    unreadable: Mapping[str, str] = field(default_factory=dict)

    def of_split(self, split: str) -> list[Recording]:
        return [one for one in self.recordings if one.split == split]

    @property
    def held_out(self) -> str:
        """The split that results are measured on."""
        return "test" if self.of_split("test") else "val"

    @property
    def is_weak(self) -> bool:
        """Whether there are labels without times."""
        return any(one.untimed for one in self.recordings)

    def lengths(self, split: str = "train") -> np.ndarray:
        """Seconds of all segments of a split, (N,)."""
        return np.array([end - start for one in self.of_split(split) for start, end, _ in one.segments])


def read_segments(path: str | Path, *, workers: int = 2, minimum: int = 2, show: bool = False) -> Recordings:
    """The recordings of a table; splits are as it has them, and groups never empty.

    minimum: segments that each label needs.

    Raises:
        DataProblems: `problems` holds all faults of the table, and of its times against the files.
    """
    table = Path(path).absolute()
    if not (table.is_file() and table.suffix.lower() in TABLES):
        kind = "layout" if table.exists() else "missing"
        raise DataProblems(str(table), [Problem(kind, str(table), f"is no table of segments; {LAYOUT}")])
    found = read_table(table, root=table.parent, task=MultiLabel)
    problems = [*found.problems, *name_problems(found.names)]
    problems += count_problems([*found.items, *found.faulty], MultiLabel.classes_in, minimum_clips=minimum)
    rows: dict[str, list[Item]] = defaultdict(list)
    for item in found.items:
        rows[item.path].append(item)
    healths, trouble = find_healths(table.parent, sorted(rows), workers=workers, show=show)
    recordings = []
    for name, items in sorted(rows.items()):
        problems += find_faults(name, items, healths[name])
        recordings.append(make_recording(name, items, healths[name].duration_seconds))
    if problems:
        raise DataProblems(str(table), problems)
    names = tuple(sorted(found.names - {NONE}))
    unreadable = {path: health.message for path, health in healths.items() if not health.usable}
    readable = tuple(one for one in recordings if healths[one.path].usable)
    copies = same_contents(table.parent, (one.path for one in readable))
    data = Recordings(table.parent, readable, names, copies=copies, unreadable=unreadable)
    grouped, notes = with_groups(as_source(data))
    homes = {item.path: item.group for item in grouped}
    readable = tuple(replace(one, group=homes[one.path]) for one in readable)
    return replace(data, recordings=readable, notes=(*found.notes, *notes, *[trouble] * bool(trouble)))


def split_recordings(data: Recordings, *, val_share: float, seed: int) -> Recordings:
    """Recordings with a split for each, in whole groups: see `assign_splits`. Labels without times are never held out.

    Raises:
        ValueError: none of the recordings has times, so that nothing could be measured.
    """
    given = any(one.split in ("val", "test") for one in data.recordings)
    timed = tuple(one for one in data.recordings if given or not one.untimed)
    if not any(one.segments for one in timed):
        raise ValueError(f"{data.root}: no segment has times: give those of some recordings, to measure on")
    source = assign_splits(as_source(replace(data, recordings=timed)), val_share=val_share, seed=seed)
    splits = {item.path: item.split for item in source.items}
    recordings = tuple(replace(one, split=splits.get(one.path, "train")) for one in data.recordings)
    return replace(data, recordings=recordings, notes=(*data.notes, *source.notes))


def as_source(data: Recordings) -> Source:
    """Recordings as clips with all the labels that occur in them."""
    items = [Item(one.path, label_cell(one), split=one.split, group=one.group) for one in data.recordings]
    there = {item.path for item in items}
    copies = tuple(same for paths in data.copies if len(same := tuple(path for path in paths if path in there)) > 1)
    return Source(data.root, "video", tuple(items), MultiLabel(data.names), copies=copies)


def label_cell(one: Recording) -> str:
    """The labels that occur in a recording, as a cell of a table has them."""
    return ";".join(sorted({label for *_, label in one.segments} | {*one.untimed})) or NONE


def find_faults(path: str, items: Sequence[Item], health: Health) -> list[Problem]:
    """The faults of the rows of one file."""
    problems = []
    if KIND_OF_SUFFIX[suffix(path)] != "video":
        problems.append(Problem("not-media", path, "no video: segments lie in long videos"))
    for what, values in (("split", {item.split for item in items}), ("group", {item.group for item in items})):
        if len(values - {""}) > 1:
            listed = " and ".join(sorted(values - {""}))
            problems.append(Problem("split", path, f"its rows name more than one {what} ({listed}): give all the same"))
    for item in items:
        if is_timed(item) and not MultiLabel.classes_in(item.label) and item.label != NONE:
            problems.append(Problem("empty-label", item.name, "times without a label: name what happens then"))
        end = item.end_seconds or 0.0
        if health.usable and max(item.start_seconds or 0.0, end - BEYOND_SECONDS) >= health.duration_seconds > 0:
            message = f"outside of the file, which ends at {health.duration_seconds:.2f} s: mend the times"
            problems.append(Problem("times", item.name, message))
    timed = {is_timed(item) for item in items if MultiLabel.classes_in(item.label)}
    if len(timed) > 1:
        problems.append(Problem("times", path, "some of its labels have times and some have none: give all or none"))
    if False in timed and items[0].split in ("val", "test"):
        problems.append(Problem("times", path, f"is in {items[0].split} without times: nothing can be measured on it"))
    return problems + find_overlaps(path, [item for item in items if is_timed(item)])


def is_timed(item: Item) -> bool:
    return item.start_seconds is not None or item.end_seconds is not None


def find_overlaps(path: str, items: Sequence[Item]) -> list[Problem]:
    """Rows of one label that share some of their time."""
    spans: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for item in items:
        for name in MultiLabel.classes_in(item.label):
            end = float("inf") if item.end_seconds is None else item.end_seconds
            spans[fold_name(name)].append((item.start_seconds or 0.0, end))
    problems = []
    for name, ranges in spans.items():
        ranges.sort()
        for (start, end), (then, until) in pairwise(ranges):
            if then < end:
                message = (
                    f"{name!r} from {start:g} to {end:g} s and from {then:g} to {until:g} s overlap: make them one"
                )
                problems.append(Problem("overlap", path, message))
    return problems


def make_recording(path: str, items: Sequence[Item], seconds: float) -> Recording:
    segments, untimed = [], set[str]()
    for item in items:
        if not is_timed(item):
            untimed |= {*MultiLabel.classes_in(item.label)}
            continue
        start, end = item.start_seconds or 0.0, seconds if item.end_seconds is None else min(item.end_seconds, seconds)
        segments += [(start, end, name) for name in MultiLabel.classes_in(item.label)]
    split, group = (max(getattr(item, name) for item in items) for name in ("split", "group"))
    return Recording(path, seconds, tuple(sorted(segments)), split, group, tuple(sorted(untimed)))


@dataclass(frozen=True)
class StepLabels:
    """The labels that hold at each step of a clip.

    spans: what happens when in a file, by its path. frames, stride: of a step, and from one to the next, in frames.
    """

    spans: Mapping[str | Path, Sequence[Span]]
    frames: int
    stride: int

    def cells(self, path: str | Path, times: np.ndarray, seconds_between_frames: float) -> list[str]:
        """times (T,): of the frames of a clip of a file -> the cell of each step, which names the labels that hold for
        most of it; "" where nothing is known."""
        seconds, spans = self.frames * seconds_between_frames, self.spans[path]
        starts = times[: len(times) - self.frames + 1 : self.stride]
        ranges = np.array([(start, end) for start, end, _ in spans]).reshape(-1, 2)
        most = 2 * shared_seconds(np.stack([starts, starts + seconds], axis=1), ranges) >= seconds  # (steps, spans)
        held = [[label for (*_, label), holds in zip(spans, row, strict=True) if holds] for row in most]
        return ["" if "" in labels else ";".join(labels) or NONE for labels in held]


def choose_window(data: Recordings) -> float:
    """Seconds of the windows that an encoder learns from: as long as the shorter segments, so that they fill one."""
    lengths = data.lengths()
    return float(np.clip(np.quantile(lengths, 0.25), *WINDOW_SECONDS)) if len(lengths) else USUAL_SECONDS


def cut_windows(data: Recordings, window_seconds: float, *, seed: int, borders: bool = False) -> list[Item]:
    """Windows of recordings, one after the other, each with the labels that hold in it, and an eighth more on each side
    from which training draws a clip at random.

    A label holds where its segment covers most of the window, or the window most of its segment, and, where nobody says
    when, everywhere. Windows at a border, in which one holds in part, are left out; not so those to train on, with
    `borders`, in which it counts. Those of which little is known are left out, too. Of those in which nothing happens
    no more are kept, drawn by the seed, than there are others, in each split.
    """
    items = []
    for one in data.recordings:
        for number in range(max(1, int(one.seconds / window_seconds))):
            start = number * window_seconds
            held = [hold(start, start + window_seconds, one.named(name)) for name in data.names]
            if None in held and not (borders and one.split == "train"):
                continue
            window = np.array([[start, start + window_seconds]])
            unknown = shared_seconds(window, np.reshape(one.unknown, (-1, 2))).sum()
            if unknown > (1 - SHORTEST_SHARE) * window_seconds or (unknown and not borders):
                continue
            names = [name for name, holds in zip(data.names, held, strict=True) if holds is not False]
            names = names or sorted(one.untimed)
            margin = MARGIN_SHARE * window_seconds
            bounds = max(0.0, start - margin), min(start + window_seconds + margin, one.seconds)
            items.append(Item(one.path, ";".join(names) or NONE, *bounds, one.split, one.group))
    kept = []
    for split in ("train", "val", "test"):
        busy = [item for item in items if item.split == split and item.label != NONE]
        idle = [item for item in items if item.split == split and item.label == NONE]
        order = np.random.default_rng(seed).permutation(len(idle))[: max(1, len(busy))]
        kept += busy + [idle[number] for number in order]
    return sorted(kept, key=lambda item: (item.path, item.start_seconds or 0.0))


def hold(start: float, end: float, segments: Sequence[tuple[float, float]]) -> bool | None:
    """Whether a label holds in [start, end), by its segments, in seconds; None where it does in part."""
    shares = [0.0]
    for begin, stop in segments:
        shared = min(end, stop) - max(start, begin)
        if shared >= SHORTEST_SHARE * (end - start):
            shares.append(shared / min(end - start, stop - begin))
    most = max(shares)
    return True if most >= HOLDS_SHARE else None if most > 1 - HOLDS_SHARE else False


def say_counts(data: Recordings) -> str:
    """ "24 recordings, 72 minutes: 310 segments of 6 labels"."""
    segments = sum(len(one.segments) for one in data.recordings)
    minutes = sum(one.seconds for one in data.recordings) / 60
    return (
        f"{plural(len(data.recordings), 'recording')}, {minutes:.3g} minutes: {plural(segments, 'segment')} of "
        f"{plural(len(data.names), 'label')}"
    )
