"""Label Studio: JSON, a list of tasks with their annotations.

[{"id": 1, "data": {"video": "/data/upload/1/0a1b2c3d-a.mp4"}, "annotations": [{"was_cancelled": false, "result": [
    {"type": "timelinelabels", "value": {"ranges": [{"start": 3, "end": 5}], "timelinelabels": ["wave"]}},
    {"type": "labels", "value": {"start": 1.2, "end": 3.4, "labels": ["speech"]}}]}]}]

Ranges are frames, counted from 1, the last included; start and end alone are seconds. The file is data/video or
data/audio, or the only medium that data names. Label Studio puts eight letters and a dash before the name of an
uploaded file: they are taken off. Cancelled annotations and predictions are not read, nor are
labels of text and of time series, whose start and end are no seconds.

Source: Label Studio 1.20, labelstud.io/tags/timelinelabels and /tags/video; web/libs/editor/src/regions/
TimelineRegion.js and tags/object/Video/Video.js.
"""

import re
from pathlib import PurePosixPath
from typing import Any

from tubelet.data.annotations.document import Document
from tubelet.data.annotations.labels import Labels, inside, number
from tubelet.media.formats import MEDIA_SUFFIXES

EXPECTED = 'JSON, not JSON-MIN: a list of tasks with "data" and "annotations"'
RATE_NOTE = (
    "Label Studio counts frames by the frameRate of its configuration, 24 if nothing is said there: times are right "
    "where that is the rate of the video"
)
_UPLOADED = re.compile(r"(/data/upload/(?:\d+/)?)[0-9a-f]{8}-")


def recognises(document: Document) -> bool:
    tasks = document.content
    return isinstance(tasks, list) and bool(tasks) and all(inside(task, "data") is not None for task in tasks)


def read(document: Document, labels: Labels) -> None:
    for _, task in labels.records(document.content, f"{document.name} task"):
        where = f"{document.name} task {task.get('id')}"
        kept = [
            one
            for _, one in labels.records(task.get("annotations", []), f"{where} annotation")
            if not one.get("was_cancelled")
        ]
        if len(kept) > 1:
            labels.notes.add("tasks that several people annotated: the segments of all are taken")
        for annotation in kept:
            for place, result in labels.records(annotation.get("result", []), f"{where} result"):
                _read_result(f"{where} result {result.get('id', place)}", task.get("data"), result, labels)


def _read_result(where: str, data: Any, result: dict[str, Any], labels: Labels) -> None:
    kind, value = str(result.get("type")), result.get("value")
    words = inside(value, kind) or inside(value, "timelinelabels")
    ranges = inside(value, "ranges")
    in_frames = isinstance(ranges, list)
    if not in_frames and (kind != "labels" or inside(value, "start") is None or inside(value, "text")):
        labels.left_out[f"results of type {kind}"] += 1
        return
    if in_frames:
        labels.notes.add(RATE_NOTE)
    for _, one in labels.records(ranges if in_frames else [value], f"{where} ranges"):
        start, end = one.get("start"), one.get("end")
        if in_frames:  # from 1 to 0
            first = number(start)
            start = None if first is None else first - 1
        for label in words if isinstance(words, list) and words else [""]:
            labels.add(where, _file(data), label, start, end, in_frames=in_frames)


def _file(data: Any) -> str | None:
    named = inside(data, "video") or inside(data, "audio")
    if not named and isinstance(data, dict):
        media = [one for one in data.values() if isinstance(one, str) and _is_media(one)]
        named = media[0] if len(media) == 1 else None
    return _UPLOADED.sub(r"\1", named) if isinstance(named, str) else None


def _is_media(address: str) -> bool:
    return PurePosixPath(address.split("?")[0]).suffix.lower() in MEDIA_SUFFIXES
