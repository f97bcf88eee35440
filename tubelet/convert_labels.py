"""Labels of other programs, as a table in seconds, and our tables for other programs."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tubelet.data.annotations.labels import Annotation, Labels
from tubelet.data.annotations.reading import read_labels
from tubelet.data.annotations.videos import Videos
from tubelet.data.annotations.writing import write_labelled_files
from tubelet.data.problems import DataProblems, some
from tubelet.data.table import COLUMNS, TABLES, Item, column_names, write_table
from tubelet.media.reader import Index, MediaError, index
from tubelet.system.console import clock, say
from tubelet.system.text import list_names, plural


@dataclass(frozen=True)
class Converted:
    """The table that was written: its path, the format it comes from, and how much is in it.

    segments: or labels, of whole files. classes: segments of each, the most frequent first. seconds: of all segments
    whose end is told. notes: what was left out or decided.
    """

    out: Path
    format: str
    files: int
    segments: int
    seconds: float
    classes: dict[str, int]
    notes: tuple[str, ...]


def convert_labels(
    source: str | Path,
    out: str | Path,
    *,
    videos: str | Path | None = None,
    tiers: Sequence[str] = (),
    from_format: str | None = None,
    show: bool = True,
) -> Converted:
    """Writes the segments of a file of annotations, or of a folder of them, as a table `out` that `read_table` reads.

    videos: folder in which the files are looked for; None: paths are as the source has them. tiers: those that are
    read, of formats that have tiers; empty: all. from_format: a name in FORMATS of
    `tubelet/data/annotations/reading.py`; recognised if None.

    Raises: DataProblems, a ValueError, with all that is wrong with the labels and their files; nothing is written then.
        ValueError where no format fits, or `out` cannot be written.
    """
    source, out = Path(source), Path(out)
    _check_out(out)
    found, labels = read_labels(source, from_format=from_format, tiers=tiers)
    items = list(_place(labels, None if videos is None else Videos(Path(videos)), out.parent.absolute()))
    if not items and not labels.problems:
        labels.fault("layout", str(source), f"no labels in it; {', '.join(_notes(labels)) or 'empty'}")
    if labels.problems:
        raise DataProblems(str(source), labels.problems, most=len(labels.problems))
    kept = list(dict.fromkeys(items))
    labels.left_out["segments that stand there twice"] += len(items) - len(kept)
    if overlaps := _count_overlaps(kept):
        labels.notes.add(f"segments of one label that overlap in a file, to be made one before a training: {overlaps}")
    if apart := [item.label for item in kept if ";" in item.label]:
        labels.notes.add(f"labels with ';', read as several ({len(apart)}): {some(dict.fromkeys(apart))}")
    write_table(out, kept)
    lengths = [item.end_seconds - (item.start_seconds or 0.0) for item in kept if item.end_seconds is not None]
    classes = Counter(item.label for item in kept)
    files = len({item.path for item in kept})
    made = Converted(out, found, files, len(kept), sum(lengths), dict(classes.most_common()), tuple(_notes(labels)))
    if show:
        _report(made, "segment" if any(item.start_seconds is not None for item in kept) else "label")
    return made


@dataclass(frozen=True)
class WrittenLabels:
    """What was written for another program: the place, the format, and how much is in it.

    labels: of people. answers: of a model. notes: what was left out or decided. advice: what to do in the program.
    """

    out: Path
    format: str
    files: int
    labels: int
    answers: int
    notes: tuple[str, ...]
    advice: str


def convert_labels_back(
    table: str | Path, out: str | Path, *, to: str, videos: str | Path | None = None, show: bool = True
) -> WrittenLabels:
    """Writes a table of labels or of answers as another program imports it; `out` is new.

    to: a name in FORMATS of `tubelet/data/annotations/writing.py`. videos: folder that the paths of the table start
    from, its own if None; of a table that `tubelet stream` wrote, the video.

    Raises: DataProblems, a ValueError, with all that is wrong with the table and its files; nothing is written then.
        ValueError where `out` is there, or cannot be written.
    """
    labelled, advice = write_labelled_files(
        Path(table), Path(out), to=to, videos=None if videos is None else Path(videos)
    )
    every = [label for file in labelled.files for label in (*file.whole, *file.parts)]
    answers = sum(label.is_answer for label in every)
    notes = (*labelled.notes, *(f"left out: {what} ({many})" for what, many in labelled.left_out.items()))
    made = WrittenLabels(Path(out), to, len(labelled.files), len(every) - answers, answers, notes, advice)
    if show:
        for note in made.notes:
            say("note", note)
        counts = f"{plural(made.labels, 'label')} and {plural(answers, 'answer')}"
        say("labels", f"{counts} of {plural(made.files, 'file')}")
        say("written", f"{made.out}, for {to}")
        say("next", advice)
    return made


def _check_out(out: Path) -> None:
    if out.suffix.lower() not in TABLES or not out.parent.is_dir():
        raise ValueError(f"{out}: name a file in a folder that exists, ending with {' or '.join(TABLES)}")
    if out.exists() and not (out.is_file() and column_names(out) == list(COLUMNS)):
        raise ValueError(f"{out}: is there, and no table that tubelet wrote; name another file")


def _place(labels: Labels, videos: Videos | None, folder: Path) -> Iterator[Item]:
    """The segments in seconds, file by file; what cannot be placed is a fault of `labels`.

    Paths of files in `videos` are relative to `folder` where they lie below it; without, they are the source's.
    """
    framed = [one.where for one in labels.annotations if one.in_frames and not one.frame_rate]
    if framed and not videos:
        message = f"{plural(len(framed), 'segment')} in frames, whose times the videos tell: say --videos DIR"
        labels.fault("times", framed[0], message)
        return
    if not videos and any(one.in_frames for one in labels.annotations):
        labels.notes.add("frames become seconds by the frame rate of the source; --videos DIR takes their own times")
    of_file: defaultdict[str, list[Annotation]] = defaultdict(list)
    for one in labels.annotations:
        of_file[one.file].append(one)
    for name, segments in of_file.items():
        where = f"{segments[0].where} ({plural(len(segments), 'segment')})"
        try:
            is_whole = all(one.start is None for one in segments)
            file = videos.find(name, any_kind=is_whole) if videos else Path(name)
            found = index(file) if videos and any(one.in_frames for one in segments) else None
        except MediaError as error:
            labels.fault("unreadable", where, str(error))
            continue
        except ValueError as error:
            labels.fault("missing-file", where, str(error))
            continue
        path = file.relative_to(folder) if videos and file.is_relative_to(folder) else file
        for one in segments:
            try:
                yield Item(path.as_posix() if videos else name, one.label, *_seconds(one, found), one.split, one.group)
            except ValueError as error:
                labels.fault("times", one.where, str(error))


def _seconds(one: Annotation, found: Index | None) -> tuple[float | None, float | None]:
    """Start and end of a segment, None and None of a whole file.

    Raises: ValueError for frames that the file does not have.
    """
    if not one.in_frames:
        return one.start, one.end
    first = int(one.start or 0)
    if one.frame_rate and one.end and not found:
        return first / one.frame_rate, one.end / one.frame_rate
    if not found:
        raise ValueError(f"to frame {one.end}, and nothing says when that is")
    count = len(found.times) if found.kind == "video" else 0
    if one.end is None or one.end > count:
        raise ValueError(f"to frame {one.end}, and {found.path!r} has {count}")
    times = (*found.times.tolist(), found.duration_seconds)
    return times[first], times[int(one.end)]


def _count_overlaps(items: Sequence[Item]) -> int:
    """The number of segments that begin while another of their label lasts."""
    ends: dict[tuple[str, str], float] = {}
    count = 0
    for item in sorted(items, key=lambda item: item.start_seconds or 0.0):
        key, end = (item.path, item.label), math.inf if item.end_seconds is None else item.end_seconds
        count += (item.start_seconds or 0.0) < ends.get(key, 0.0)
        ends[key] = max(end, ends.get(key, 0.0))
    return count


def _notes(labels: Labels) -> list[str]:
    return [*sorted(labels.notes), *(f"left out: {what} ({many})" for what, many in labels.left_out.items() if many)]


def _report(made: Converted, noun: str) -> None:
    for note in made.notes:
        say("note", note)
    counts = [f"{count} {name}" for name, count in made.classes.items()]
    say("classes", f"{len(made.classes)}: {list_names(counts)}")
    lasting = f", {clock(made.seconds)} in all" if noun == "segment" else ""
    say(f"{noun}s", f"{plural(made.segments, noun)} of {plural(made.files, 'file')}{lasting}")
    say("table", f"{made.out}, from {made.format}")
