"""ELAN: an XML file (.eaf) for each recording, its annotations in tiers.

TIME_ORDER   TIME_SLOT ts1 = 1200 ms, ts2 = 3400 ms, ...
TIER "action"   ALIGNABLE_ANNOTATION a1 from ts1 to ts2: "wave"
TIER "hand"     REF_ANNOTATION a2 of a1: "left"                    has the times of a1

The label is the text of an annotation. The file is the first video of MEDIA_DESCRIPTOR, whose TIME_ORIGIN (ms) is where
in it the clock of the annotations begins. Slots without a time (of tiers that divide others in time) are faults.

Source: EAF Annotation Format 2.7 to 3.0, mpi.nl/tools/elan/EAF_Annotation_Format_3.0_and_ELAN.pdf.
"""

from xml.etree.ElementTree import Element

from tubelet.data.annotations.document import Document
from tubelet.data.annotations.labels import Labels, number

EXPECTED = "XML with the root ANNOTATION_DOCUMENT"


def recognises(document: Document) -> bool:
    return isinstance(document.content, Element) and document.content.tag == "ANNOTATION_DOCUMENT"


def read(document: Document, labels: Labels) -> None:
    root = document.root
    units = next((header.get("TIME_UNITS", "milliseconds") for header in root.iter("HEADER")), "milliseconds")
    if units != "milliseconds":
        labels.fault("times", document.name, f"its times are in {units}; save it with a newer ELAN, in milliseconds")
        return
    file, origin_ms = _media(document, labels)
    slots_ms = {slot.get("TIME_SLOT_ID"): number(slot.get("TIME_VALUE")) for slot in root.iter("TIME_SLOT")}
    everything = {one.get("ANNOTATION_ID"): one for holder in root.iter("ANNOTATION") for one in holder}
    for tier in root.iter("TIER"):
        name = tier.get("TIER_ID", "")
        if not labels.wants(name):
            continue
        for one in (child for holder in tier.iter("ANNOTATION") for child in holder):
            where = f"{document.name} tier {name!r} annotation {one.get('ANNOTATION_ID')}"
            aligned = _find_aligned(one, everything)
            if aligned is None:
                labels.fault("times", where, f"refers to {one.get('ANNOTATION_REF')!r}, which has no times")
                continue
            times_ms = [slots_ms.get(aligned.get(f"TIME_SLOT_REF{end}")) for end in (1, 2)]
            start, end = (None if ms is None else (ms + origin_ms) / 1000 for ms in times_ms)
            labels.add(where, file, one.findtext("ANNOTATION_VALUE", ""), start, end)


def _find_aligned(one: Element, everything: dict[str | None, Element]) -> Element | None:
    """The annotation with times that an annotation is, or refers to, over others or directly; None: there is none."""
    passed: set[str | None] = set()
    while one.tag != "ALIGNABLE_ANNOTATION":
        parent = one.get("ANNOTATION_REF")
        if parent in passed or parent not in everything:
            return None
        passed.add(parent)
        one = everything[parent]
    return one


def _media(document: Document, labels: Labels) -> tuple[str, float]:
    """The file that is annotated, "" for none, and where in it, in ms, the clock begins."""
    media = list(document.root.iter("MEDIA_DESCRIPTOR"))
    videos = [one for one in media if one.get("MIME_TYPE", "").startswith("video")]
    if not media:
        return "", 0.0
    one = (videos or media)[0]
    file = one.get("RELATIVE_MEDIA_URL") or one.get("MEDIA_URL") or ""
    if len(media) > 1:
        labels.notes.add("of several media of one file of annotations, the first video is taken")
    return file.removeprefix("./"), number(one.get("TIME_ORIGIN")) or 0.0
