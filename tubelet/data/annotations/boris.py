"""BORIS: a project (.boris, JSON), or its export of aggregated events (CSV or TSV).

project   "observations": {"day 1": {"type": "MEDIA", "time offset": 0.0, "file": {"1": ["a.mp4", "b.mp4"], "2": []},
              "media_info": {"length": {"a.mp4": 60.0}}, "events": [[time, subject, code, modifiers, comment], ...]}}
          "behaviors_conf": {"0": {"code": "rest", "type": "State event"}, ...}
table     Observation id, Source, Time offset (s), Media duration (s), Subject, Behavior, Behavior type, Start (s),
          Stop (s), Media file name, ...; before version 8, Media file stands for Source and Media file name

The label is the behaviour. A state begins and ends with events of one subject, code and modifiers. Point events have no
length: they are left out, with a note, as are observations without media. Files of player 1 are shown one after another
and share one clock; other players show the same time from elsewhere. The time offset is part of all times.

Source: BORIS 9.12.3, boris/export_observation.py and boris/observation_operations.py; projects of format 7 and 1.6.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from tubelet.data.annotations.document import Document
from tubelet.data.annotations.labels import Labels, inside, number, shorten
from tubelet.data.table import records

EXPECTED = (
    'a project in JSON with "observations" and "behaviors_conf", or a table with Behavior, Start (s) and Stop (s)'
)
COLUMNS = {"Observation id", "Behavior", "Behavior type", "Start (s)", "Stop (s)"}
PLAYER = "player #1:"
POINTS, NO_MEDIA = "point events, which have no length", "observations without media"
Clock = list[tuple[str, float, float]]  # file, and from when to when it is on screen


def recognises(document: Document) -> bool:
    content = document.content
    if isinstance(content, str):
        _, header = next(records(content), (1, ""))
        return set(header) >= COLUMNS
    return isinstance(content, dict) and {"observations", "behaviors_conf"} <= content.keys()


def read(document: Document, labels: Labels) -> None:
    if isinstance(document.content, str):
        _read_table(document.name, document.content, labels)
    else:
        _read_project(document.name, document.record, labels)


def _read_project(name: str, project: dict[str, Any], labels: Labels) -> None:
    behaviours = labels.records(project.get("behaviors_conf"), f"{name} behaviors_conf")
    kinds = {str(one.get("code")): str(one.get("type")).lower() for _, one in behaviours}
    for observation, about in labels.records(project.get("observations"), f"{name} observations"):
        where = f"{name} observation {observation!r}"
        players = about.get("file") if about.get("type", "MEDIA") == "MEDIA" else None
        files = inside(players, "1")
        if not isinstance(players, dict) or not isinstance(files, list) or not files:
            labels.left_out[NO_MEDIA] += 1
            continue
        if any(others for player, others in players.items() if player != "1"):
            labels.notes.add("of observations with several players, the files of the first are taken")
        files = [str(file) for file in files]
        lengths = [number(inside(about, "media_info", "length", file)) for file in files]
        clock = _clock(where, files, lengths, labels)
        offset = number(about.get("time offset")) or 0.0
        for at, label, start, stop in _states(where, about.get("events"), kinds, labels):
            _add(at, clock, label, start - offset, stop - offset, labels)


def _states(where: str, events: Any, kinds: dict[str, str], labels: Labels) -> Iterator[tuple[str, str, float, float]]:
    """(where, behaviour, start, stop) of each state of an observation."""
    begun: dict[tuple[str, str, str], tuple[str, float]] = {}
    for place, event in enumerate(events if isinstance(events, list) else (), 1):
        at = f"{where} event {place}"
        seconds = number(event[0]) if isinstance(event, list) and len(event) >= 4 else None
        if seconds is None:
            labels.fault("times", at, f"{shorten(event)}, expected a time, a subject, a behaviour and modifiers")
            continue
        subject, behaviour, modifiers = map(str, event[1:4])
        kind = kinds.get(behaviour, "")
        if kind.startswith("point"):
            labels.left_out[POINTS] += 1
        elif not kind.startswith("state"):
            labels.fault(
                "label", at, f"behaviour {behaviour!r} is none of the project's: {', '.join(map(repr, kinds))}"
            )
        elif (subject, behaviour, modifiers) in begun:
            first, start = begun.pop((subject, behaviour, modifiers))
            yield first, behaviour, start, seconds
        else:
            begun[subject, behaviour, modifiers] = at, seconds
    for (_, behaviour, _), (at, start) in begun.items():
        labels.fault("times", at, f"{behaviour!r} begins at {start} and never ends; end it in BORIS")


def _read_table(name: str, text: str, labels: Labels) -> None:
    named: dict[str, str] = {}  # observation -> its file, where rows do not tell how long those before it were
    for where, row in labels.rows(name, text, needed=COLUMNS):
        file, behaviour = row.get("Media file name", row.get("Media file", "")), row["Behavior"]
        start, stop = number(row["Start (s)"]), number(row["Stop (s)"])
        if row["Behavior type"] == "POINT":
            labels.left_out[POINTS] += 1
        elif file in ("", "NA", "LIVE", "Not found"):
            labels.left_out["segments without media"] += 1
        elif start is None or stop is None:
            labels.add(where, file, behaviour, row["Start (s)"], row["Stop (s)"])
        elif row.get("Source", "").startswith(PLAYER):
            files, lengths = (
                row.get(column, "").split("|")[0].removeprefix(PLAYER).split(";")
                for column in ("Source", "Media duration (s)")
            )
            offset = number(row.get("Time offset (s)")) or 0.0
            clock = _clock(where, files, [number(length) for length in lengths], labels)
            _add(where, clock, behaviour, start - offset, stop - offset, labels)
        elif named.setdefault(row["Observation id"], file) == file:
            labels.add(where, file, behaviour, start, stop)
        else:
            both = f"{named[row['Observation id']]!r} and {file!r}"
            labels.fault("times", where, f"times in {both} share one clock; give the project (.boris) instead")


def _clock(where: str, files: Sequence[str], lengths: Sequence[float | None], labels: Labels) -> Clock:
    """Files shown one after another; empty, and a fault, where the length of one before the last is not known."""
    clock, begin = [], 0.0
    for place, file in enumerate(files):
        length = math.inf if place == len(files) - 1 else lengths[place] if place < len(lengths) else None
        if length is None:
            labels.fault("times", where, f"{file!r} has no length, so times in files after it cannot be told")
            return []
        clock.append((file, begin, begin + length))
        begin += length
    return clock


def _add(where: str, clock: Clock, label: str, start: float, stop: float, labels: Labels) -> None:
    """A segment on the clock of several files: a row for each file that it lies in."""
    if clock and (start < 0 or stop <= start):  # a fault, told with its own times
        labels.add(where, clock[0][0], label, start, stop)
        return
    for file, begin, end in clock:
        if start < end and stop > begin:
            since, to = max(start, begin) - begin, min(stop, end) - begin
            labels.add(where, file, label, round(since, 6), round(to, 6))  # as decimal as the times it is made of
