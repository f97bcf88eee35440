"""Label Studio: JSON, a list of tasks with their annotations, both ways.

[{"id": 1, "data": {"video": "/data/upload/1/0a1b2c3d-a.mp4"}, "annotations": [{"was_cancelled": false, "result": [
    {"type": "timelinelabels", "value": {"ranges": [{"start": 3, "end": 5}], "timelinelabels": ["wave"]}},
    {"type": "labels", "value": {"start": 1.2, "end": 3.4, "labels": ["speech"]}},
    {"type": "choices", "value": {"choices": ["good"]}}]}]}]

Ranges are frames, counted from 1, the last included; start and end alone are seconds; choices are of the whole file.
The file is data/video, data/audio or data/image, or the only medium that data names; data/split and data/group are
ours. Label Studio puts eight letters and a dash before the name of an uploaded file: they are taken off. Cancelled
annotations and predictions are not read, nor are labels of text and of time series, whose start and end are no seconds.

What is written are tasks, with a model's answers as predictions, and beside them the labelling configuration that they
are made for. It takes the frame rate of each video from its task.

Source: Label Studio 1.20, labelstud.io/tags/timelinelabels, /tags/video, /guide/predictions and /guide/storage;
web/libs/editor/src/regions/TimelineRegion.js and tags/object/Video/Video.js.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from statistics import mean
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from tubelet.data.annotations.document import Document
from tubelet.data.annotations.labelled_files import Label, LabelledFile, list_classes, split_answers
from tubelet.data.annotations.labels import SUBSETS, Labels, inside, number
from tubelet.data.annotations.videos import LOCAL_FILES
from tubelet.data.problems import Problem
from tubelet.media.formats import MEDIA_SUFFIXES
from tubelet.system.text import dumps

EXPECTED = 'JSON, not JSON-MIN: a list of tasks with "data" and "annotations"'
RATE_NOTE = (
    "Label Studio counts frames by the frameRate of its configuration, 24 if nothing is said there: times are right "
    "where that is the rate of the video"
)
LABEL, SEGMENTS = "label", "segments"  # controls that are written: of whole files, of parts
MEDIA = {"video": "Video", "image": "Image", "sound": "Audio"}  # tags of the configuration
CONTROLS = {"video": "TimelineLabels", "sound": "Labels"}  # of parts
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
    if not labels.wants(str(result.get("from_name", ""))):
        return
    split = inside(data, "split")
    rest = {"subset": split if str(split).lower() in SUBSETS else "", "group": inside(data, "group")}
    if kind == "choices":
        names = words if isinstance(words, list) and all(isinstance(word, str) for word in words) else []
        labels.add_whole(where, _file(data), ";".join(names), **rest)
        return
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
            labels.add(where, _file(data), label, start, end, in_frames=in_frames, **rest)


def _file(data: Any) -> str | None:
    named = inside(data, "video") or inside(data, "audio") or inside(data, "image")
    if not named and isinstance(data, dict):
        media = [one for one in data.values() if isinstance(one, str) and _is_media(one)]
        named = media[0] if len(media) == 1 else None
    return _UPLOADED.sub(r"\1", named) if isinstance(named, str) else None


def _is_media(address: str) -> bool:
    return PurePosixPath(address.split("?")[0]).suffix.lower() in MEDIA_SUFFIXES


# ---- writing


def places(out: Path) -> tuple[Path, ...]:
    if out.suffix.lower() != ".json":
        raise ValueError(f"{out}: name a file that ends with .json; the labelling configuration is written beside it")
    return out, out.with_suffix(".xml")


def find_faults(files: Sequence[LabelledFile]) -> Iterator[Problem]:
    return iter(())


def texts(files: Sequence[LabelledFile], out: Path) -> dict[Path, str]:
    root = _folder(files).parent
    tasks = [_task(place, file, root) for place, file in enumerate(files, 1)]
    return {out: dumps(tasks, indent=1), out.with_suffix(".xml"): configuration(files)}


def advice(files: Sequence[LabelledFile], out: Path) -> str:
    folder = _folder(files)
    return (
        f"start Label Studio with LOCAL_FILES_SERVING_ENABLED=true LOCAL_FILES_DOCUMENT_ROOT={folder.parent}; "
        f"in a project with the labelling interface {out.with_suffix('.xml')}, "
        f"add the local files of {folder}, then import {out}"
    )


def configuration(files: Sequence[LabelledFile]) -> str:
    """The labelling interface, in XML, that the tasks are made for."""
    kind = files[0].kind
    medium, (whole, parts) = MEDIA[kind], list_classes(files)
    name, several = medium.lower(), any(len(labels) > 1 for file in files for labels in split_answers(file.whole))
    rate = ' frameRate="$fps"' if kind == "video" and files[0].frames else ""
    lines = [f'  <{medium} name="{name}" value="${name}"{rate}/>']
    if parts:
        lines += [f'  <{CONTROLS[kind]} name="{SEGMENTS}" toName="{name}">']
        lines += [*(f"    <Label value={quoteattr(label)}/>" for label in parts), f"  </{CONTROLS[kind]}>"]
    if whole:
        choice = "multiple" if several else "single"
        lines += [f'  <Choices name="{LABEL}" toName="{name}" choice="{choice}">']
        lines += [*(f"    <Choice value={quoteattr(label)}/>" for label in whole), "  </Choices>"]
    return "\n".join(["<View>", *lines, "</View>", ""])


def _folder(files: Sequence[LabelledFile]) -> Path:
    """The folder that all files are in, at some depth."""
    return Path(os.path.commonpath([file.path.parent for file in files]))


def _task(place: int, file: LabelledFile, root: Path) -> dict[str, Any]:
    name = MEDIA[file.kind].lower()
    data: dict[str, Any] = {name: LOCAL_FILES + quote(file.path.relative_to(root).as_posix())}
    data |= {"fps": file.frame_rate} if file.frames else {}
    data |= {key: said for key, said in (("split", file.split), ("group", file.group)) if said}
    (labelled, predicted), (found, answered) = split_answers(file.whole), split_answers(file.parts)
    task: dict[str, Any] = {"data": data}
    if labelled or found:
        task["annotations"] = [{"result": _results(f"task{place}-label", file, labelled, found)}]
    if predicted or answered:
        results = _results(f"task{place}-answer", file, predicted, answered)
        score = _score([*predicted, *answered])
        task["predictions"] = [{"model_version": "tubelet", **score, "result": results}]
    return task


def _results(name: str, file: LabelledFile, whole: Sequence[Label], parts: Sequence[Label]) -> list[dict[str, Any]]:
    """The regions of one annotation or prediction. name: begins their ids, which differ everywhere."""
    medium = MEDIA[file.kind].lower()
    results: list[dict[str, Any]] = []
    if whole:
        choices = {"choices": [label.name for label in whole]}
        results += [{"type": "choices", "from_name": LABEL, "value": choices, **_score(whole)}]
    for label in parts:
        kind = CONTROLS[file.kind].lower()
        length = {} if label.frames else {"original_length": file.seconds}
        value = {**_span(label), kind: [label.name]}
        results += [{"type": kind, "from_name": SEGMENTS, "value": value, **length, **_score([label])}]
    return [{"id": f"{name}-{place}", "to_name": medium, **one} for place, one in enumerate(results, 1)]


def _score(labels: Sequence[Label]) -> dict[str, float]:
    """The mean of the scores, where there are any."""
    scores = [label.score for label in labels if label.score is not None]
    return {"score": mean(scores)} if scores else {}


def _span(label: Label) -> dict[str, Any]:
    if label.frames:
        return {"ranges": [dict(zip(("start", "end"), label.frames, strict=True))]}
    start, end = label.seconds or (0.0, 0.0)
    return {"start": start, "end": end, "channel": 0}
