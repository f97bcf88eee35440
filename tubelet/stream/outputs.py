"""The files of a stream: tables that grow while it runs, subtitles and a picture at its end."""

import csv
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from tubelet.stream.config import StreamConfig
from tubelet.stream.lanes import draw_lanes
from tubelet.stream.plot import draw
from tubelet.stream.segments import Segment, Window, srt
from tubelet.system.text import dumps, text_cell

# In --out.
FILES = {
    "csv": "windows.csv",
    "jsonl": "windows.jsonl",
    "srt": "segments.srt",
    "segments": "segments.csv",
    "picture": "timeline.svg",
}


SEGMENT = ("start_seconds", "end_seconds", "label", "probability")  # columns

Places = dict[str, Path]


def choose_places(config: StreamConfig, files: Mapping[str, str] = FILES) -> Places:
    """The files that were asked for, one by one or with --out, by what is in them. files: those in --out.

    Raises:
        ValueError: one of them exists, or its folder does not: said before any work is done.
    """
    out = config.out
    asked = {"csv": config.csv, "srt": config.srt, "picture": config.picture, "codes": config.save}
    places = {name: out / file for name, file in files.items()} if out else {}
    places |= {name: file for name, file in asked.items() if file}
    if out is not None and out.exists() and not out.is_dir():
        raise ValueError(f"{out}: is no folder: give --out the name of a folder")
    for place in places.values():
        if place.is_dir() or not (place.parent.is_dir() or place.parent == out):
            raise ValueError(f"{place}: cannot be written: name a file in a folder that exists")
        if place.exists() and config.file.exists() and place.samefile(config.file):
            raise ValueError(f"{place}: is the video itself: choose another name")
        if place.exists() and not config.overwrite:
            raise ValueError(f"{place}: exists: choose another name, or --overwrite")
    if len(set(places.values())) < len(places):
        raise ValueError("two files of the same name: give each a name of its own")
    return places


def window_object(window: Window, classes: Sequence[str]) -> dict[str, Any]:
    best = int(window.probabilities.argmax())
    return {
        "kind": "window",
        "start_seconds": round(window.start_seconds, 6),
        "end_seconds": round(window.end_seconds, 6),
        "label": classes[best],
        "probability": float(window.probabilities[best]),
        "probabilities": dict(zip(classes, window.probabilities.tolist(), strict=True)),
    }


def segment_object(segment: Segment) -> dict[str, Any]:
    return {"kind": "segment", **asdict(segment)}


def open_lines(stack: ExitStack, places: Places, name: str) -> TextIO | None:
    """A file that is written line by line, so that it can be looked at, and a crash leaves what is there; until the
    stack is closed. None where it was not asked for."""
    if name not in places:
        return None
    return stack.enter_context(
        open(places[name], "w", newline="", encoding="utf-8", errors="surrogateescape", buffering=1)
    )


def open_tables(stack: ExitStack, places: Places) -> tuple[TextIO | None, TextIO | None]:
    """The table and the JSON lines, those that were asked for, in folders that are there now."""
    for place in places.values():
        place.parent.mkdir(exist_ok=True, parents=True)
    return open_lines(stack, places, "csv"), open_lines(stack, places, "jsonl")


def segment_row(one: Segment) -> list[str]:
    """The cells of SEGMENT."""
    return [
        f"{one.start_seconds:.3f}",
        f"{one.end_seconds:.3f}",
        text_cell(one.label),
        f"{one.probability:.6f}",
    ]


def write_subtitles(places: Places, segments: Sequence[Segment]) -> None:
    if "srt" in places:
        places["srt"].write_text(srt(segments), encoding="utf-8", errors="surrogateescape")


class Files:
    """The files of a stream of windows: a context that opens the tables; each window is written when it comes."""

    def __init__(self, places: Places, classes: Sequence[str], **words: str):
        """words: of the picture, `title` and `model`."""
        self.places, self.classes, self.words, self.stack = places, list(classes), words, ExitStack()

    def __enter__(self) -> "Files":
        self.table, self.lines = open_tables(self.stack, self.places)
        if self.table:
            csv.writer(self.table).writerow([*SEGMENT, *(f"p:{name}" for name in self.classes)])
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def add(self, window: Window) -> None:
        if self.lines:
            self.lines.write(dumps(window_object(window, self.classes)) + "\n")
        if self.table:
            best = int(window.probabilities.argmax())
            times = [f"{window.start_seconds:.3f}", f"{window.end_seconds:.3f}"]
            chances = [f"{p:.6f}" for p in window.probabilities]
            csv.writer(self.table).writerow([*times, text_cell(self.classes[best]), chances[best], *chances])

    def finish(self, windows: Sequence[Window], segments: Sequence[Segment], *, on: float) -> None:
        if self.lines:
            self.lines.writelines(dumps(segment_object(one)) + "\n" for one in segments)
        write_subtitles(self.places, segments)
        if file := open_lines(self.stack, self.places, "segments"):
            csv.writer(file).writerows([SEGMENT, *map(segment_row, segments)])
        if "picture" in self.places and windows:
            draw(self.places["picture"], windows, segments, self.classes, on=on, **self.words)


class SegmentFiles:
    """The files of a stream of segments: a context that opens the tables; each segment is written when it comes."""

    def __init__(self, places: Places):
        self.places, self.stack = places, ExitStack()

    def __enter__(self) -> "SegmentFiles":
        self.table, self.lines = open_tables(self.stack, self.places)
        if self.table:
            csv.writer(self.table).writerow(SEGMENT)
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def add(self, one: Segment) -> None:
        if self.lines:
            self.lines.write(dumps(segment_object(one)) + "\n")
        if self.table:
            csv.writer(self.table).writerow(segment_row(one))

    def finish(self, found: Sequence[Segment], names: Sequence[str], seconds: float, *, title: str) -> None:
        ordered = sorted(found, key=lambda one: one.start_seconds)
        write_subtitles(self.places, ordered)
        if "picture" in self.places and seconds:
            draw_lanes(self.places["picture"], ordered, names, seconds=seconds, title=title)
