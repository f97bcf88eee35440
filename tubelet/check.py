"""The health of every file of a folder: damaged files and their losses, known before a training starts."""

import os
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

from tubelet.data.health_cache import HealthCache
from tubelet.data.labels import LABELS, check_labels
from tubelet.data.prefetch import processors
from tubelet.data.problems import DataProblems
from tubelet.data.sources import find_source
from tubelet.data.table import TABLES
from tubelet.data.walk import Listing, list_media
from tubelet.media.address import is_remote, join
from tubelet.media.health import Health, parse_health
from tubelet.runs.share import ALONE, Form, Keep, Key, Share, Work
from tubelet.system.console import bar, clock, console, say
from tubelet.system.text import list_names, plural

SHOWN = 20  # bad files that are told of in full
CLOSED = Health("", False, False, "unreadable", "you may not look into this folder. Check the permissions.")


def check(
    data: str | Path,
    *,
    task: str = "classification",
    labels: Sequence[str] = LABELS,
    quick: bool = False,
    workers: int = 0,
    show: bool = True,
    after: Callable[[Health], None] | None = None,
    share: Share = ALONE,
) -> list[Health]:
    """The health of every media file of a data set, of any folder, or of one file; by path, as the user could open it.

    `tubelet.data.health_cache` keeps it, for the next call and for training: files that have not changed are not read
    again. Nothing is written into the folder.

    task, labels: as for `find_source`, for what is said of the data set. quick: only the start of each file, and its
    first picture. workers: threads; 0: one for each processor. after: gets each health as soon as it is known; bad
    files are not listed in the end then. share: who looks.

    Raises: ValueError where there is no such folder or file, or no media in it.
    """
    data = join("", data)
    check_labels(task, labels)
    if workers < 0:
        raise ValueError(f"--workers {workers}: expected 1 or more, or 0 for one for each processor")
    listing = list_media(data)
    base, checked = data if os.path.isdir(data) else os.path.dirname(data), HealthCache.open(listing.root)
    found: dict[str, Health] = {}

    def take(health: Health) -> None:
        path = health.path
        found[path] = replace(health, path=path if is_remote(path) else os.path.join(base, path))
        if after:
            after(found[health.path])

    def look(numbers: list[int], keep: Keep[Health]) -> None:
        number_of = {listing.files[number]: number for number in numbers}
        known = {path: health for path in number_of if (health := checked.get(path, full=not quick))}
        unknown = [path for path in number_of if path not in known]
        for path, health in known.items():
            keep(number_of[path], replace(health, path=path))
        if known and show:
            say("known", f"{len(known)} of {len(number_of)} files, not changed since")
        bad = len(listing.closed) + sum(not health.ok for health in known.values())
        new = checked.scan(unknown, quick=quick, threads=workers or processors())
        try:
            with closing(new), bar("checking", len(unknown), show=show) as progress:
                for path, health in new:
                    keep(number_of[path], replace(health, path=path))
                    bad += not health.ok
                    progress.advance(f"{progress.done + 1}/{progress.total} files  {bad} bad  left {progress.left}")
        except KeyboardInterrupt:
            remembered = sum(checked.get(path, full=not quick) is not None for path in number_of)
            say("stopped", f"{remembered} of {len(number_of)} files are known; the same command goes on")
            raise

    for path in listing.closed:
        take(replace(CLOSED, path=path))
    keys: list[Key] = [(path, None, None) for path in listing.files]
    form = Form(asdict, lambda number, packed: parse_health(listing.files[number], packed))
    try:
        share.make(Work(keys, look, form, root=listing.root), after=take)
    finally:
        trouble = checked.save()
    healths = [found[path] for path in sorted(found)]
    if show:
        index = f"{trouble}: nothing is remembered" if trouble else str(checked.file)
        report(data, listing, healths, task=task, labels=labels, index=index, name_them=after is None)
    return healths


def report(
    data: str | Path,
    listing: Listing,
    found: list[Health],
    *,
    task: str,
    labels: Sequence[str],
    index: str,
    name_them: bool,
) -> None:
    bad = [health for health in found if not health.ok]
    shown = bad[:SHOWN] if name_them else []
    for health in shown:
        console.print(row(health, width=max(len(one.path) for one in shown)), soft_wrap=True)
    command = f"tubelet check {shlex.quote(str(data))}"
    if name_them and len(bad) > SHOWN:
        say("and", f"{len(bad) - SHOWN} more: `{command} --json` tells of all, and so does the index")
    codes = ", ".join(f"{count} {code}" for code, count in Counter(health.code for health in bad).most_common())
    files = plural(len(found), "file")
    say("bad", f"{len(bad)} of {files}: {codes}" if bad else f"none of {files}")
    say("in them", totals(found))
    if notes := Counter(note for health in found for note in health.notes):
        say("notes", ", ".join(f"{count} {note}" for note, count in notes.most_common()))
    if listing.passed_over:
        say("passed over", listing.passed_over)
    layout, trains = describe_layout(data, listing, task, labels, in_full=not name_them)
    say("as data", layout)
    say("index", index)
    say("next", next_step(data, bad, task=task, labels=labels, trains=trains))


def row(health: Health, *, width: int) -> str:
    return f"{health.path:<{width}}  {health.code:<10}  {lost(health)}: {health.message}"


def lost(health: Health) -> str:
    if not health.usable:
        return "all is lost"
    spans = [f"{begin:.2f} to {end:.2f} s" for begin, end in health.bad_spans]
    more = f" and {len(spans) - 3} more spans" if len(spans) > 3 else ""
    frames = f"{health.bad_frames} of {health.frames + health.bad_frames} frames" if health.bad_frames else "some"
    return f"{frames} lost" + (f", {', '.join(spans[:3])}{more}" if spans else "")


def totals(found: list[Health]) -> str:
    kinds = []
    for kind, noun in (("video", "video"), ("image", "image"), ("sound", "recording")):
        of_kind = [health for health in found if health.usable and health.kind == kind]
        seconds = clock(sum(health.duration_seconds for health in of_kind))
        frames = f"{plural(sum(health.frames for health in of_kind), 'frame')}, " if kind == "video" else ""
        if of_kind:
            kinds.append(plural(len(of_kind), noun) + (f" of {frames}{seconds}" if kind != "image" else ""))
    return "; ".join(kinds) or "nothing that can be used"


def describe_layout(
    data: str | Path, listing: Listing, task: str, labels: Sequence[str], *, in_full: bool
) -> tuple[str, bool]:
    """The data set as training sees it, in words, and whether it can be trained on. in_full: all problems."""
    if isinstance(data, str):
        return "elsewhere: training wants a table that names the files", False
    if data.is_dir() and not any("/" in path for path in listing.files):
        return "a plain folder: training wants one for each class", False
    if data.is_file() and data.suffix.lower() not in TABLES:
        return "a single file", False
    try:
        source = find_source(data, task, labels)
    except DataProblems as error:
        lines = map(str, error.problems)
        return "not to be trained on: " + ("\n  ".join(lines) if in_full else str(error)), False
    noun = "row" if task == "segments" else "clip"
    what = f"with {list_names(labels)}" if task == "regression" else f"of {plural(len(source.classes), 'class')}"
    return f"{plural(len(source.items), noun)} {what}, {source.kind}", True


def next_step(data: str | Path, bad: list[Health], *, task: str, labels: Sequence[str], trains: bool) -> str:
    name = shlex.quote(str(data))
    flags = "" if task == "classification" else f" --task {task}"
    flags += "" if tuple(labels) == LABELS else f" --labels {shlex.join(labels)}"
    step = f"tubelet train {name}{flags}" if trains else f"tubelet predict RUN {name}"
    if not bad:
        return step
    unusable = sum(not health.usable for health in bad)
    counts = ((unusable, "cannot be used"), (len(bad) - unusable, "can in part"))
    which = ", ".join(f"{count} {what}" for count, what in counts if count)
    return f"copy or download the bad files again, or remove them ({which}); then {step}"
