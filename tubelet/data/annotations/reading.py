"""From a file of annotations, or a folder of them, to labels: the format is told by what is in the files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tubelet.data.annotations import (
    activitynet,
    boris,
    cvat,
    elan,
    fiftyone,
    google,
    label_studio,
    thumos14,
    via,
)
from tubelet.data.annotations.document import Document, find_documents, read_document
from tubelet.data.annotations.labels import Labels
from tubelet.data.problems import some


class Format(Protocol):
    """The label files of one program. EXPECTED: their layout, in a few words."""

    EXPECTED: str

    def recognises(self, document: Document) -> bool: ...

    def read(self, document: Document, labels: Labels) -> None:
        """Adds all segments of a document to labels, and all that is wrong with it."""
        ...


FORMATS: dict[str, Format] = {
    "activitynet": activitynet,
    "thumos14": thumos14,
    "elan": elan,
    "boris": boris,
    "via": via,
    "cvat": cvat,
    "label-studio": label_studio,
    "fiftyone": fiftyone,
    "google": google,
}


def read_labels(source: Path, *, from_format: str | None = None, tiers: Sequence[str] = ()) -> tuple[str, Labels]:
    """The name of the format, and the labels with all that is wrong with them.

    from_format: a name in FORMATS; recognised if None. tiers: those that are read, of formats that have tiers.

    Raises: ValueError where no format, or more than one, fits.
    """
    labels, documents = Labels(tiers=tuple(tiers)), list[Document]()
    for path in find_documents(source):
        name = path.name if source.is_file() else path.relative_to(source).as_posix()
        try:
            documents.append(read_document(path, name))
        except ValueError as error:
            labels.fault("unreadable", name, str(error))
    if from_format is None:
        from_format, documents = _recognise(source, documents, labels)
    for document in documents:
        FORMATS[from_format].read(document, labels)
    if not tiers:
        _leave_out_whole_files(labels)
    for tier in dict.fromkeys(tiers):
        if tier not in labels.tiers_met:
            there = f"there are {some(sorted(labels.tiers_met), most=20)}" if labels.tiers_met else "there are none"
            labels.fault("layout", str(source), f"no tier {tier!r}; {there}")
    return from_format, labels


def _leave_out_whole_files(labels: Labels) -> None:
    """Labels of whole files that stand beside segments are of another question, such as how good a video is."""
    segments = [one for one in labels.annotations if one.start is not None]
    if 0 < len(segments) < len(labels.annotations):
        labels.left_out["labels of whole files beside segments"] += len(labels.annotations) - len(segments)
        labels.annotations = segments


def _recognise(source: Path, documents: list[Document], labels: Labels) -> tuple[str, list[Document]]:
    """The one format of some documents, and those that are in it; others are noted."""
    fitting = {one.name: [name for name, form in FORMATS.items() if form.recognises(one)] for one in documents}
    forms = list(dict.fromkeys(form for names in fitting.values() for form in names))
    if len(forms) > 1:
        which = "; ".join(f"{name}: {' or '.join(names)}" for name, names in fitting.items() if names)
        raise ValueError(f"{source}: in more than one format ({which}); give them one by one, or say --from FORMAT")
    if not forms:
        expected = "\n  ".join(f"{name}: {form.EXPECTED}" for name, form in FORMATS.items())
        faults = "".join(f"\n  {problem}" for problem in labels.problems)
        raise ValueError(
            f"{source}: in no format that is known; say --from FORMAT if it is one of\n  {expected}{faults}"
        )
    others = [one.name for one in documents if not fitting[one.name]]
    if others:
        labels.notes.add(f"passed over, as they are not of {forms[0]}: {some(others)}")
    return forms[0], [one for one in documents if fitting[one.name]]
