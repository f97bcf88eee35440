"""Google Vertex AI and AutoML Video Intelligence, classification: CSV without a header.

training,gs://bucket/a.mp4,wave,1.2,3.4        or without the first cell; inf as end: to the end of the video
TRAIN,gs://bucket/train.csv                    a first table that lists others, which lie beside it here

A video without label and times is left out, with a note.

Source: cloud.google.com/vertex-ai/docs/video-data/classification/prepare-data and
cloud.google.com/video-intelligence/automl/docs/prepare.
"""

from pathlib import PurePosixPath

from tubelet.data.annotations.document import Document, read_document
from tubelet.data.annotations.labels import SUBSETS, Labels
from tubelet.data.table import records

EXPECTED = "CSV with lines [ml_use,]gs://bucket/video.mp4,label,start,end, or [ml_use,]gs://bucket/table.csv"


def recognises(document: Document) -> bool:
    if not isinstance(document.content, str):
        return False
    _, cells = next(records(document.content), (1, []))
    return not isinstance(cells, str) and any(cell.startswith("gs://") for cell in cells[:2])


def read(document: Document, labels: Labels) -> None:
    _read(document, labels, subset="", is_listed=False)


def _read(document: Document, labels: Labels, *, subset: str, is_listed: bool) -> None:
    """subset: of all lines that do not say their own. is_listed: by another table, so that it lists none itself."""
    for line, cells in records(document.text):
        where = f"{document.name} line {line}"
        if isinstance(cells, str):
            labels.fault("broken-row", where, cells)
            continue
        cells = [cell.strip() for cell in cells]
        if len(cells) in (2, 5) and cells[0].lower() in SUBSETS:
            use, cells = cells[0] or subset, cells[1:]
        else:
            use = subset
        while len(cells) > 1 and not cells[-1]:
            cells.pop()
        file, *rest = cells
        if not rest and PurePosixPath(file).suffix == ".csv" and not is_listed:
            _read_listed(document, where, file, use, labels)
        elif not rest:
            labels.left_out["videos without segments"] += 1
        elif len(rest) == 3:
            labels.add(where, file, *rest, subset=use)
        else:
            labels.fault("cells", where, f"{','.join(cells)!r}; expected [ml_use,]video,label,start,end")


def _read_listed(document: Document, where: str, address: str, subset: str, labels: Labels) -> None:
    path = document.path.parent / PurePosixPath(address).name
    try:
        _read(read_document(path, path.name), labels, subset=subset, is_listed=True)
    except ValueError as error:
        labels.fault("unreadable", where, f"lists {address!r}, and {path} {error}")
