"""THUMOS14: a folder of text files, one for each class and half of the data: BaseballPitch_val.txt, Diving_test.txt.

video_validation_0000266  72.8 76.4
video_validation_0000681  44.0 50.9

Times are seconds, files have no suffix. What lies in Ambiguous_val.txt and Ambiguous_test.txt is of no class.

Source: crcv.ucf.edu/THUMOS14, TH14_Temporal_annotations_validation and _test. Its training set, UCF101, has no
segments, so everybody trains on the validation videos: their split is train.
"""

import re

from tubelet.data.annotations.document import Document
from tubelet.data.annotations.labels import Labels

EXPECTED = "text files CLASS_val.txt and CLASS_test.txt with lines of a video, a start and an end"
SPLIT_OF = {"val": "train", "test": "test"}
_NAME, _LINE = re.compile(r"(.+)_(val|test)"), re.compile(r"\S+\s+[\d.]+\s+[\d.]+\s*")


def recognises(document: Document) -> bool:
    lines = (
        [line for line in document.content.splitlines() if line.strip()] if isinstance(document.content, str) else []
    )
    return bool(lines and _NAME.fullmatch(document.path.stem) and all(map(_LINE.fullmatch, lines)))


def read(document: Document, labels: Labels) -> None:
    name = _NAME.fullmatch(document.path.stem)
    if not name:
        labels.fault("layout", document.name, f"the name of the file says no class; expected {EXPECTED}")
        return
    lines = [(number, line.split()) for number, line in enumerate(document.text.splitlines(), 1) if line.strip()]
    if name[1] == "Ambiguous":
        labels.left_out["ambiguous segments"] += len(lines)
        return
    if name[2] == "val":
        labels.notes.add("validation videos of THUMOS14 are trained on: their split is train")
    for number, cells in lines:
        where = f"{document.name} line {number}"
        if len(cells) != 3:
            labels.fault("cells", where, f"{' '.join(cells)!r}, expected a video, a start and an end")
            continue
        labels.add(where, cells[0], name[1], cells[1], cells[2], subset=SPLIT_OF[name[2]])
