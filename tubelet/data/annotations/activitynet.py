"""ActivityNet: one JSON file for a whole data set, as THUMOS14, HACS, FineAction and others are handed on in, too.

{"database": {"sJ1abc": {"subset": "training", "duration": 83.2, "annotations": [
    {"label": "Long jump", "segment": [9.1, 20.4]}, ...]}, ...}}

Files are named by their ids, without a suffix. A subset "testing" has no annotations.

Source: activity-net.org, the ground truth of releases 1.2 and 1.3 (version "VERSION 1.3").
"""

from tubelet.data.annotations.document import Document
from tubelet.data.annotations.labels import Labels

EXPECTED = 'JSON with a "database" of ids, each with "annotations" of "label" and "segment"'


def recognises(document: Document) -> bool:
    content = document.content
    return isinstance(content, dict) and ("database" in content or "results" in content)


def read(document: Document, labels: Labels) -> None:
    content = document.record
    if "results" in content and "database" not in content:
        message = (
            'holds "results", segments that a model found, with scores, and no labels; give the file of "database"'
        )
        labels.fault("layout", document.name, message)
        return
    for video, record in labels.records(content.get("database"), f"{document.name} database"):
        where = f"{document.name} {video}"
        found = record.get("annotations", [])
        if not found:
            labels.left_out["videos without segments"] += 1
        for place, one in labels.records(found, where):
            segment = one.get("segment")
            start, end = segment if isinstance(segment, list) and len(segment) == 2 else (None, None)
            at = f"{where} annotation {place}"
            labels.add(at, video, one.get("label"), start, end, subset=record.get("subset", ""))
