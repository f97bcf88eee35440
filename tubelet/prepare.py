"""A copy of videos that is quick to read: each shrunk once, under the same name, label, split and group."""

import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from tubelet.data.clips import check_kind
from tubelet.data.folder import KIND_OF_SUFFIX
from tubelet.data.items import Source, is_labelled
from tubelet.data.labels import LABELS
from tubelet.data.prefetch import prefetch, processors
from tubelet.data.problems import DataProblems, some
from tubelet.data.sources import find_source
from tubelet.data.splits import with_groups
from tubelet.data.table import Item, write_table
from tubelet.data.walk import list_media
from tubelet.media.address import is_remote, join, suffix
from tubelet.media.bytes import size_of, stat
from tubelet.media.reader import MediaError, index, read_frames
from tubelet.media.sampling import clip_times, view_starts
from tubelet.media.transcode import read_comment, shrink
from tubelet.runs.share import ALONE, Form, Keep, Key, Share, Work
from tubelet.system.console import bar, console, say, size
from tubelet.system.text import plural
from tubelet.tasks import Classification

MP4_SUFFIXES = (".mp4", ".m4v", ".mov", ".3gp")  # keep their names; they are of one family
NOT_LAID_OUT = {"layout", "header", "empty-class"}  # kinds of problems that files without labels have
TIMED_FILES = 8
TIMED_FRAMES, TIMED_SPAN_SECONDS = 16, 2.5


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The way that videos are copied. Raises ValueError for values out of range.

    short_side_px: even. gop_frames: from key frame to key frame. quality: x264's crf, 0 best to 51 worst.
    """

    short_side_px: int = 256
    gop_frames: int = 12
    quality: int = 16

    def __post_init__(self) -> None:
        if self.short_side_px < 16 or self.short_side_px % 2:
            raise ValueError(f"--short-side {self.short_side_px}: expected an even number of pixels from 16 up")
        if self.gop_frames < 1:
            raise ValueError(f"--gop {self.gop_frames}: expected 1 frame or more from one key frame to the next")
        if not 0 <= self.quality <= 51:
            raise ValueError(f"--quality {self.quality}: expected 0 (best) to 51 (worst); 16 can hardly be told apart")

    def mark(self, original: str | Path) -> str:
        """The comment of a copy: its settings and its original, to know it again."""
        state = stat(original)
        return (
            f"tubelet prepare: short side {self.short_side_px} px, gop {self.gop_frames}, quality {self.quality}, "
            f"of {state.size} bytes changed at {state.changed} ns"
        )


@dataclass(frozen=True)
class Prepared:
    """The outcome of `prepare`: path of each file that was copied -> path of its copy below `out`, those that cannot be
    read, and what to train on: `out` itself, a table in it, or None where nothing is labelled."""

    out: Path
    copies: dict[str, str]
    failed: list[MediaError]
    train_on: Path | None

    def to_json(self) -> dict[str, Any]:
        failed = [{"path": error.path, "code": error.code, "message": str(error)} for error in self.failed]
        return {"out": self.out, "train_on": self.train_on, "copies": self.copies, "failed": failed}


def prepare(
    data: str | Path,
    out: str | Path,
    *,
    task: str = "classification",
    labels: Sequence[str] = LABELS,
    settings: Settings | None = None,
    workers: int = 0,
    show: bool = True,
    share: Share = ALONE,
) -> Prepared:
    """Copies the videos of a data set, any other folder or table of videos, or one file, into `out`, and says why those
    are missing that cannot be read.

    Copies that are there already are kept, so that the same call goes on where it stopped. Where files change their
    names, or the data are a table, a table in `out` keeps labels, times, splits and groups as they were.

    task, labels: as for `find_source`. workers: threads that copy a file each; 0: one for each processor.
    share: who copies.

    Raises: ValueError for data that are no videos, folders within each other, or files in the way that are no copies.
    """
    settings = settings or Settings()
    data, out = Path(data), Path(out).absolute()
    source, closed = find_videos(data, task, labels)
    _check_apart(source, data, out)
    names = copy_names(source)

    def copy(path: str) -> MediaError | None:
        try:
            _copy(join(source.root, path), out / names[path], settings)
        except MediaError as error:
            return error
        return None

    paths, threads = list(names), workers or processors()

    def copy_these(numbers: list[int], keep: Keep[MediaError | None]) -> None:
        mine = [paths[number] for number in numbers]
        with bar("preparing", len(mine), show=show) as progress:
            copies = prefetch(copy, mine, threads=threads, ahead=2 * threads)
            for number, error in zip(numbers, copies, strict=True):
                keep(number, error)
                progress.advance(f"{progress.done + 1}/{progress.total} files left {progress.left}")

    keys: list[Key] = [(path, None, None) for path in paths]
    errors = share.make(Work(keys, copy_these, Form(_pack, _unpack), root=source.root))
    failed = {path: error for path, error in zip(paths, errors, strict=True) if error}
    good = {path: name for path, name in names.items() if path not in failed}
    made = Prepared(out, good, [*closed, *failed.values()], _write_table(source, good, data, out, labels))
    if show:
        _report(source, made)
    return made


def _pack(error: MediaError | None) -> list[str] | None:
    return [error.path, error.code, error.problem, error.remedy, error.stage] if error else None


def _unpack(number: int, packed: list[str] | None) -> MediaError | None:
    return MediaError(*packed[:4], stage=packed[4]) if packed else None


def find_videos(data: Path, task: str, labels: Sequence[str]) -> tuple[Source, list[MediaError]]:
    """The data set; where nothing in it is labelled, all videos at any depth, without labels. Beside it, folders that
    cannot be looked into.

    Raises: ValueError for faulty data sets, and where there are no videos.
    """
    try:
        source = find_source(data, task, labels, minimum=1)
    except DataProblems as error:
        asked = task != "classification" or tuple(labels) != LABELS
        if asked or {problem.kind for problem in error.problems} - NOT_LAID_OUT or is_labelled(data):
            raise
        try:
            listing = list_media(data)
        except ValueError:
            raise error from None
        videos = [path for path in listing.files if KIND_OF_SUFFIX.get(suffix(path)) == "video"]
        others = sorted(set(listing.files) - set(videos))
        notes = [f"left out, as no videos ({len(others)}): {some(others)}"] if others else []
        if not videos and others:
            raise ValueError(f"{data}: holds no videos, prepare copies videos; {notes[0]}") from error
        why = ("unreadable", "you may not look into this folder", "Check the permissions")
        closed = [MediaError(str(listing.root / folder), *why) for folder in listing.closed]
        items = tuple(Item(path, "") for path in videos)
        return Source(listing.root, "video", items, Classification(()), tuple(notes)), closed
    if source.kind != "video":
        raise ValueError(f"{data}: holds files of kind {source.kind!r}, prepare copies videos; train on it as it is")
    return source, []


def copy_names(source: Source) -> dict[str, str]:
    """Path of each file of a source -> path of its copy, below another root.

    Raises: ValueError where two files would have one copy.
    """
    names = {item.path: _copy_name(item.path, source.root) for item in source.items}
    twice = [name for name, count in Counter(names.values()).items() if count > 1]
    if twice:
        which = [path for path, name in names.items() if name == twice[0]]
        raise ValueError(f"{source.root}: {some(which)} would all become {twice[0]!r}; rename all but one")
    return names


def _copy_name(path: str, root: Path) -> str:
    if is_remote(path):
        parts = urlsplit(path)
        inside = os.path.normpath(f"/{parts.netloc}/{parts.path}").lstrip("/")
    else:
        inside = os.path.relpath(os.path.normpath(root / path), root)
    if inside.startswith(".."):  # a table may name files anywhere
        inside = os.path.abspath(root / path).lstrip(os.sep)
    name = PurePosixPath(Path(inside).as_posix())
    return str(name if name.suffix.lower() in MP4_SUFFIXES else name.with_suffix(".mp4"))


def _check_apart(source: Source, data: Path, out: Path) -> None:
    here, there = source.root.resolve(), out.resolve()
    if data.is_dir() and (here.is_relative_to(there) or there.is_relative_to(here)):
        raise ValueError(f"{out}: lies in {source.root}, or the other way round; name a folder beside the data")
    local = (item.path for item in source.items if not is_remote(item.path))
    inside = [path for path in local if (here / path).resolve().is_relative_to(there)]
    if inside:
        raise ValueError(f"{out}: holds {some(inside)} of {data}; name a folder of its own for the copies")


def _copy(original: str | Path, copy: Path, settings: Settings) -> None:
    check_kind(original, "video")
    mark = settings.mark(original)
    if copy.exists():
        comment = ""
        with suppress(MediaError):
            comment = read_comment(copy)
        if comment == mark:
            return
        if not comment.startswith("tubelet prepare: "):
            raise ValueError(f"{copy}: is in the way and no copy that prepare made; move it, or name another folder")
    copy.parent.mkdir(parents=True, exist_ok=True)
    side, gop = settings.short_side_px, settings.gop_frames
    shrink(original, copy, short_side_px=side, gop_frames=gop, crf=settings.quality, comment=mark)


def _write_table(source: Source, good: dict[str, str], data: Path, out: Path, labels: Sequence[str]) -> Path | None:
    """The data set to train on: `out` itself where its folders say all that the original said, else a table in it."""
    if not any(item.label for item in source.items):
        return None
    if data.is_dir() and not source.copies and all(path == name for path, name in good.items()):
        return out
    items, _ = with_groups(source)  # by the old names and contents, on which the split depends
    table = out / ("clips.csv" if data.is_dir() else f"{data.stem}.csv")
    out.mkdir(parents=True, exist_ok=True)
    write_table(table, (replace(item, path=good[item.path]) for item in items if item.path in good), labels=labels)
    return table


def _report(source: Source, made: Prepared) -> None:
    root, out, good = source.root, made.out, made.copies
    for note in source.notes:
        say("note", note)
    for error in made.failed:
        console.print(str(error), soft_wrap=True)
    missing = f"; missing, as they cannot be read: {len(made.failed)}" if made.failed else ""
    say("prepared", f"{plural(len(good), 'file')} in {out}{missing}")
    if good:
        sides = ((root, good.keys()), (out, good.values()))
        before, after = (sum(size_of(join(folder, name)) for name in names) for folder, names in sides)
        say("size", f"{size(before)} before, {size(after)} now")
        slow, fast = (1000 * seconds for seconds in reading_seconds(root, out, good))
        say("reading", f"{slow:.0f} ms a clip before, {fast:.1f} ms now: {slow / fast:.1f} times as fast")
        nothing = "nothing yet: no file has a label; sort the copies into a folder for each class"
        say("train on", made.train_on or nothing)


def reading_seconds(root: Path, out: Path, good: dict[str, str]) -> tuple[float, float]:
    """Mean seconds that a clip from the middle of a file takes, of the originals and of their copies: 16 frames, scaled
    to the copy's size, of a few files, one after the other."""
    chosen = sorted(good)[:: -(-len(good) // TIMED_FILES)]
    taken = np.zeros((len(chosen), 2))
    for number, path in enumerate(chosen):
        box = (index(out / good[path]).height, index(out / good[path]).width)
        for side, file in enumerate((join(root, path), out / good[path])):
            span = min(TIMED_SPAN_SECONDS, index(file).duration_seconds)
            (start,) = view_starts(index(file).duration_seconds, span, 1)
            times = clip_times(start, frames=TIMED_FRAMES, seconds_between_frames=span / TIMED_FRAMES)
            begun = perf_counter()
            read_frames(file, times, cover=box)
            taken[number, side] = perf_counter() - begun
    before, after = taken.mean(axis=0).tolist()
    return before, after
