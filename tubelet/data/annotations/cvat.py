"""CVAT: XML of "CVAT for video 1.1" with tracks, or of "CVAT for images 1.1" with the tags of frames.

video   <track label="jump"> <box frame="4" outside="0" .../> ... <box frame="9" outside="1" .../> </track>
images  <image id="4"> <tag label="jump"/> </image> <image id="5"> ...

A track is a segment from a frame that shows its shape to the first that does not (outside), or to the end of the last
shape; one that comes and goes is several. Tags of frames in a row are one segment. CVAT leaves tags out of exports for
video, so they come as "for images". Frames are those of the video itself, also where a task has every fifth
(frame_filter), so their times are the video's. The video is the <source> of the task.

Source: docs.cvat.ai/docs/other/xml_format, version 1.1; CVAT 2, cvat/apps/dataset_manager/formats/cvat.py, bindings.py.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from tubelet.data.annotations.document import Document
from tubelet.data.annotations.labels import SUBSETS, Labels

EXPECTED = "XML with the root annotations, exported as CVAT for video 1.1 or CVAT for images 1.1"


@dataclass(frozen=True)
class Task:
    """The video of a task, in which half of the data it is, and how many frames lie between two that were shown."""

    file: str
    split: str
    step: int


def recognises(document: Document) -> bool:
    root = document.content
    return isinstance(root, Element) and root.tag == "annotations" and root.find("meta") is not None


def read(document: Document, labels: Labels) -> None:
    root, name = document.root, document.name
    found = list(root.iter("task"))
    tasks = {one.findtext("id"): _task(one) for one in found} if len(found) > 1 else {}
    only = Task("", "", 1) if tasks else _task(root)
    for place, track in enumerate(root.iter("track"), 1):
        task, where = tasks.get(track.get("task_id"), only), f"{name} track {track.get('id', place)}"
        shapes = [(frame, _is_shown(one)) for one in track if (frame := _frame(one, "frame")) is not None]
        if len(shapes) < len(track):
            labels.fault("layout", where, "a shape without a frame; export it as CVAT for video 1.1")
        for start, end in _spans(sorted(shapes)):
            labels.add(where, task.file, track.get("label"), start, end, subset=task.split, in_frames=True)
    tagged: defaultdict[tuple[Task, str], list[int]] = defaultdict(list)
    for image in root.iter("image"):
        task, frame = tasks.get(image.get("task_id"), only), _frame(image, "id")
        labels.left_out["shapes of single images, which are in no track"] += sum(shape.tag != "tag" for shape in image)
        for tag in image.iter("tag"):
            if frame is None:
                labels.fault("layout", f"{name} image {image.get('name')!r}", f"id {image.get('id')!r} is no frame")
            else:
                tagged[task, tag.get("label", "")].append(frame)
    for (task, label), frames in tagged.items():
        for start, end in _runs(frames, task.step):
            where = f"{name} tag {label!r} of image {start}"
            labels.add(where, task.file, label, start, end, subset=task.split, in_frames=True)


def _task(one: Element) -> Task:
    sources = (found.text for found in one.iter("source") if found.text)
    step = re.search(r"step\s*=\s*(\d+)", next((found.text or "" for found in one.iter("frame_filter")), ""))
    subset = next((found.text or "" for found in one.iter("subset")), "")  # may be any word of a project
    return Task(next(sources, ""), SUBSETS.get(subset.strip().lower(), ""), int(step[1]) if step else 1)


def _frame(one: Element, attribute: str) -> int | None:
    text = one.get(attribute, "")
    return int(text) if text.isascii() and text.isdecimal() else None


def _is_shown(shape: Element) -> bool:
    """Whether a shape, or any part of a skeleton, is not outside."""
    return any(part.get("outside") != "1" for part in shape.findall("*[@outside]") or [shape])


def _spans(shapes: Iterable[tuple[int, bool]]) -> Iterator[tuple[int, int]]:
    """(first frame, frame after the last) of each time that a track is on screen."""
    start, last = None, 0
    for frame, is_shown in shapes:
        if is_shown:
            start, last = frame if start is None else start, frame
        elif start is not None:
            yield start, frame
            start = None
    if start is not None:
        yield start, last + 1


def _runs(frames: Iterable[int], step: int) -> Iterator[tuple[int, int]]:
    """(first frame, frame after the last) of frames that follow each other."""
    start, last = None, 0
    for frame in sorted(frames):
        if start is not None and frame > last + step:
            yield start, last + 1
            start = None
        start, last = frame if start is None else start, frame
    if start is not None:
        yield start, last + 1
