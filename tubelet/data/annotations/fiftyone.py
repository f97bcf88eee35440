"""FiftyOne: a data set as JSON, both ways.

samples.json of a FiftyOneDataset, beside its metadata.json: labels stand in fields, which have names.

{"samples": [{"filepath": "data/a.mp4", "tags": ["train"], "metadata": {"_cls": "VideoMetadata", "frame_rate": 25},
    "label": {"_cls": "Classification", "label": "wave"},
    "segments": {"_cls": "TemporalDetections", "detections": [
        {"_cls": "TemporalDetection", "label": "wave", "support": [1, 25]}]}}]}

labels.json of a FiftyOneImageClassificationDataset or a FiftyOneTemporalDetectionDataset: files are named without their
suffix, and a label is a text, its number in classes, or a record.

{"classes": ["rest", "wave"], "labels": {"a": 1, "b": [{"label": "wave", "timestamps": [0.5, "00:00:02.5"]}]}}

Support is the first and the last frame, counted from 1; timestamps are seconds or a clock. Tags that name a subset are
the split. Labels with a confidence are a model's: they are read only where their field is asked for.

What is written is a FiftyOneDataset without a version, whose fields any FiftyOne since 0.8 tells by the samples.

Source: FiftyOne 1.22, docs.voxel51.com/user_guide/import_datasets.html; FiftyOneDatasetImporter,
LegacyFiftyOneDatasetImporter and FiftyOneTemporalDetectionDatasetImporter of fiftyone/utils/data/importers.py.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tubelet.data.annotations.document import Document
from tubelet.data.annotations.labelled_files import Label, LabelledFile, list_classes, split_answers
from tubelet.data.annotations.labels import SUBSETS, Labels, inside, number, shorten
from tubelet.data.problems import Problem
from tubelet.system.text import dumps

EXPECTED = 'JSON of a data set: samples.json with "samples", or labels.json with "classes" and "labels"'
LABEL, SEGMENTS = "label", "segments"  # fields that are written: of whole files, of parts
PREDICTED, PREDICTED_SEGMENTS = "predicted", "predicted_segments"
_LISTS = {"Classifications": "classifications", "TemporalDetections": "detections"}
_SINGLE = ("Classification", "TemporalDetection")


def recognises(document: Document) -> bool:
    content = document.content
    if not isinstance(content, dict):
        return False
    samples = content.get("samples")
    if isinstance(samples, list) and any(inside(one, "filepath") is not None for one in samples):
        return True
    return _is_about(document) or (isinstance(content.get("labels"), dict) and "classes" in content)


def _is_about(document: Document) -> bool:
    """Whether a file stands beside the samples and holds none."""
    content, name = document.record, document.path.name
    return (name == "metadata.json" and ("sample_fields" in content or "info" in content)) or (
        name == "frames.json" and "frames" in content
    )


def read(document: Document, labels: Labels) -> None:
    content = document.record
    if _is_about(document):
        return
    if "samples" in content:
        for place, sample in labels.records(content["samples"], f"{document.name} sample"):
            _read_sample(f"{document.name} sample {place}", sample, labels)
        return
    classes, files = content.get("classes"), content.get("labels")
    if not isinstance(files, dict):
        labels.fault("layout", document.name, f"{shorten(files)} as labels, expected {EXPECTED}")
        return
    for file, target in files.items():
        _read_target(f"{document.name} {file}", file, target, classes if isinstance(classes, list) else [], labels)


# ---- samples.json


def _read_sample(where: str, sample: dict[str, Any], labels: Labels) -> None:
    found = sample.get("tags")
    tags = [tag for tag in found if isinstance(tag, str)] if isinstance(found, list) else []
    subsets = [tag for tag in tags if SUBSETS.get(tag.lower())]
    if len({SUBSETS[tag.lower()] for tag in subsets}) > 1:
        labels.fault("split", where, f"tags of more than one subset, {', '.join(subsets)}; leave only one")
        return
    rate = number(inside(sample, "metadata", "frame_rate"))
    rate = rate if rate and 0 < rate < math.inf else None
    rest = {"subset": subsets[0] if subsets else "", "group": sample.get("group")}
    for name, field in sample.items():
        kind = str(inside(field, "_cls"))
        if kind in _SINGLE:
            found = [field]
        elif kind in _LISTS:
            found = [one for _, one in labels.records(field.get(_LISTS[kind]) or [], f"{where} {name}")]
        else:
            if isinstance(field, dict) and "_cls" in field and not kind.endswith("Metadata"):
                labels.left_out[f"fields of type {kind}"] += 1
            continue
        if found := [one for one in found if _is_wanted(name, one, labels)]:
            _read_field(f"{where} {name}", sample.get("filepath"), found, rate, rest, labels)


def _is_wanted(name: str, label: dict[str, Any], labels: Labels) -> bool:
    wanted, is_told = labels.wants(name), name in labels.tiers
    if wanted and not is_told and (label.get("confidence") is not None or name in (PREDICTED, PREDICTED_SEGMENTS)):
        labels.left_out["answers of a model"] += 1
        return False
    return wanted


def _read_field(
    where: str, file: Any, found: Sequence[dict[str, Any]], rate: float | None, rest: dict[str, Any], labels: Labels
) -> None:
    """A row for each segment; of labels of the whole file, one for all."""
    parts = [one for one in found if "support" in one or one.get("_cls") == "TemporalDetection"]
    if whole := [one.get("label") for one in found if one not in parts]:
        labels.add_whole(where, file, _join(whole), **rest)
    for one in parts:
        _add_support(where, file, one, rate, rest, labels)


def _add_support(
    where: str, file: Any, one: dict[str, Any], rate: float | None, rest: dict[str, Any], labels: Labels
) -> None:
    support = one.get("support")
    first, last = support if isinstance(support, list) and len(support) == 2 else (None, None)
    first = number(first)
    start = None if first is None else first - 1  # from 1 to 0
    labels.add(where, file, one.get("label"), start, last, in_frames=True, frame_rate=rate, **rest)


def _join(names: Sequence[Any]) -> str:
    return ";".join(names) if all(isinstance(name, str) and name.strip() for name in names) else ""


# ---- labels.json


def _read_target(where: str, file: str, target: Any, classes: list[Any], labels: Labels) -> None:
    if target is None or target == []:
        labels.left_out["files without labels"] += 1
        return
    found = [
        {**one, "label": _name(one.get("label"), classes)} if isinstance(one, dict) else {"label": _name(one, classes)}
        for one in (target if isinstance(target, list) else [target])
    ]
    if whole := [one["label"] for one in found if not {"support", "timestamps"} & {*one}]:
        labels.add_whole(where, file, _join(whole))
    for one in found:
        if "support" in one:
            _add_support(where, file, one, None, {}, labels)
        elif "timestamps" in one:
            times = one["timestamps"]
            start, end = map(_seconds, times) if isinstance(times, list) and len(times) == 2 else (None, None)
            labels.add(where, file, one["label"], start, end)


def _name(label: Any, classes: list[Any]) -> Any:
    """A label, or the class of that number."""
    is_number = isinstance(label, int) and not isinstance(label, bool)
    return classes[label] if is_number and 0 <= label < len(classes) else label


def _seconds(time: Any) -> float | None:
    """Seconds of 2.5 and of "00:01:02.5"."""
    parts = [number(part) for part in time.split(":")] if isinstance(time, str) else [number(time)]
    if len(parts) > 3 or None in parts:
        return None
    return sum(part * 60**place for place, part in enumerate(reversed(parts)) if part is not None)


# ---- writing


def places(out: Path) -> tuple[Path, ...]:
    return (out,)


def find_faults(files: Sequence[LabelledFile]) -> Iterator[Problem]:
    for file in files:
        if file.kind == "sound" and file.parts:
            yield Problem("times", file.where, "a part of a sound, and FiftyOne counts frames; take Label Studio")


def texts(files: Sequence[LabelledFile], out: Path) -> dict[Path, str]:
    several = any(len(labels) > 1 for file in files for labels in split_answers(file.whole))
    samples = [_sample(file, several=several) for file in files]
    classes = sorted({name for names in list_classes(files) for name in names})
    about = {"info": {"classes": classes, "written_by": "tubelet"}}
    return {out / "samples.json": dumps({"samples": samples}, indent=1), out / "metadata.json": dumps(about, indent=1)}


def advice(files: Sequence[LabelledFile], out: Path) -> str:
    return f"fo.Dataset.from_dir({str(out)!r}, fo.types.FiftyOneDataset)"


def _sample(file: LabelledFile, *, several: bool) -> dict[str, Any]:
    sample: dict[str, Any] = {"filepath": file.path.as_posix(), "tags": [file.split] if file.split else []}
    if file.group:
        sample["group"] = file.group
    if file.kind == "video" and file.frames:
        sizes = {"frame_width": file.width, "frame_height": file.height}
        counts = {"total_frame_count": file.frames, "frame_rate": file.frame_rate, "duration": file.seconds}
        sample["metadata"] = {"_cls": "VideoMetadata", **sizes, **counts}
    for field, labels in zip((LABEL, PREDICTED), split_answers(file.whole), strict=True):
        if records := [_record(label) for label in labels]:
            sample[field] = {"_cls": "Classifications", "classifications": records} if several else records[0]
    for field, labels in zip((SEGMENTS, PREDICTED_SEGMENTS), split_answers(file.parts), strict=True):
        if records := [_record(label) for label in labels]:
            sample[field] = {"_cls": "TemporalDetections", "detections": records}
    return sample


def _record(label: Label) -> dict[str, Any]:
    record: dict[str, Any] = {"_cls": "Classification", "label": label.name}
    if label.frames:
        record |= {"_cls": "TemporalDetection", "support": list(label.frames)}
    return record if label.score is None else {**record, "confidence": label.score}
