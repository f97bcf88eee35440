"""VIA 3, the VGG Image Annotator for video: a project (JSON), or its export (CSV).

project  "attribute": {"1": {"aname": "action", "type": 4, "options": {"0": "wave", ...}}},
         "file": {"1": {"fname": "a.mp4", "src": ""}}, "view": {"1": {"fid_list": ["1"]}},
         "metadata": {"1_a": {"vid": "1", "z": [1.2, 3.4], "xy": [], "av": {"1": "0"}}}
table    # ATTRIBUTE = {...}
         # CSV_HEADER = metadata_id,file_list,flags,temporal_coordinates,spatial_coordinates,metadata
         "1_a","[""a.mp4""]",0,"[1.2,3.4]","[]","{""1"":""0""}"
    or   # CSV_HEADER = metadata_id,file_list,temporal_segment_start,temporal_segment_end,metadata

Each value of an attribute is a label, and attributes are tiers. Options are told by their ids, whose names the second
table does not have; a checkbox has several, with commas between. Regions, still frames and what is said of a whole file
are left out, with a note.

Source: VIA 3.0.13, robots.ox.ac.uk/~vgg/software/via, _via_data.js and _via_import_export.js.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from tubelet.data.annotations.document import Document
from tubelet.data.annotations.labels import Labels, inside

EXPECTED = 'a project in JSON with "attribute", "file" and "metadata", or its CSV export with a line # CSV_HEADER'
PARTS = ("attribute", "file", "view", "metadata")
CHECKBOX = 2
_HEADER = re.compile(r"^# CSV_HEADER = (.*?),*\s*$", re.M)
_ATTRIBUTE = re.compile(r"^# ATTRIBUTE = (.*?)\s*$", re.M)
Attributes = dict[str, dict[str, Any]]


def recognises(document: Document) -> bool:
    content = document.content
    if isinstance(content, str):
        return bool(_HEADER.search(content))
    return isinstance(content, dict) and {"attribute", "file", "metadata"} <= content.keys()


def read(document: Document, labels: Labels) -> None:
    if isinstance(document.content, str):
        _read_table(document.name, document.content, labels)
    else:
        _read_project(document.name, document.record, labels)


def _read_project(name: str, project: dict[str, Any], labels: Labels) -> None:
    parts = {part: dict(labels.records(project.get(part, {}), f"{name} {part}")) for part in PARTS}
    for key, one in parts["metadata"].items():
        where = f"{name} metadata {key}"
        shown = inside(parts["view"], str(one.get("vid")), "fid_list")
        files = [parts["file"].get(str(file), {}) for file in (shown if isinstance(shown, list) else [one.get("vid")])]
        names = [file.get("src") or file.get("fname") for file in files]
        _add(where, names, one.get("z"), one.get("xy"), one.get("av"), parts["attribute"], labels)


def _read_table(name: str, text: str, labels: Labels) -> None:
    header, attribute = _HEADER.search(text), _ATTRIBUTE.search(text)
    columns = header[1].split(",") if header else []
    attributes = dict(labels.records(_value(attribute[1]) if attribute else {}, f"{name} ATTRIBUTE"))
    if not attribute:
        labels.notes.add(
            "options of attributes are told by their ids here; the full CSV and the project have their names"
        )
    lines = re.sub(r"^#.*$", "", text, flags=re.M)  # blank ones, so that others keep their numbers
    for where, row in labels.rows(name, lines, columns=columns):
        ends = (row.get(f"temporal_segment_{end}") for end in ("start", "end"))
        times: Any = [end for end in ends if end != "undefined"]  # of a still frame
        if "temporal_coordinates" in row:
            times = _value(row["temporal_coordinates"])
        files, region, values = (_value(row.get(one, "")) for one in ("file_list", "spatial_coordinates", "metadata"))
        _add(where, files, times, region, values, attributes, labels)


def _add(where: str, files: Any, times: Any, region: Any, values: Any, attributes: Attributes, labels: Labels) -> None:
    """A segment for each value of an attribute, of the first file of a view."""
    if not isinstance(times, list) or len(times) != 2 or region:
        labels.left_out["regions, still frames and words on whole files"] += 1
        return
    file = files[0] if isinstance(files, list) and files else None
    pairs = values.items() if isinstance(values, dict) else ()
    said = [one for key, value in pairs for one in _tier_labels(key, value, attributes.get(key, {}))]
    if not said and not labels.tiers:
        labels.add(where, file, "", *times)
    for tier, label in said:
        if labels.wants(tier):
            labels.add(where, file, label, *times)


def _tier_labels(key: str, value: Any, attribute: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(tier, label) of the value of an attribute; none where it was left empty."""
    text = value if isinstance(value, str) else ""
    for one in text.split(",") if attribute.get("type") == CHECKBOX else [text]:
        if one.strip():
            yield str(attribute.get("aname", key)), inside(attribute, "options", one) or one


def _value(cell: str) -> Any:
    try:
        return json.loads(cell)
    except ValueError:
        return None
