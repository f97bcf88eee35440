"""From our tables to files that other programs import."""

import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from tubelet.data.annotations import fiftyone, label_studio
from tubelet.data.annotations.labelled_files import LabelledFile, LabelledFiles, list_classes, read_labelled_files
from tubelet.data.problems import DataProblems, Problem
from tubelet.system.files import write_whole


class Format(Protocol):
    """The files that one program imports."""

    def places(self, out: Path) -> tuple[Path, ...]:
        """What is written, of which nothing may be there. Raises: ValueError for a name that cannot be."""
        ...

    def find_faults(self, files: Sequence[LabelledFile]) -> Iterator[Problem]:
        """What the program has no form for."""
        ...

    def texts(self, files: Sequence[LabelledFile], out: Path) -> dict[Path, str]:
        """The contents of the files that are written."""
        ...

    def advice(self, files: Sequence[LabelledFile], out: Path) -> str:
        """What to do in the program."""
        ...


FORMATS: dict[str, Format] = {"fiftyone": fiftyone, "label-studio": label_studio}


def write_labelled_files(table: Path, out: Path, *, to: str, videos: Path | None = None) -> tuple[LabelledFiles, str]:
    """Writes the rows of a table for another program: what they are, and what to do there.

    to: a name in FORMATS. videos: as of `read_labelled_files`.

    Raises: DataProblems with all that is wrong; ValueError where `out` is there, or cannot be. Nothing is written then.
    """
    form = FORMATS[to]
    for place in form.places(out):
        if not place.absolute().parent.is_dir():
            raise ValueError(f"{place}: name a place in a folder that exists")
        if place.exists() or place.is_symlink():
            raise ValueError(f"{place}: is there, and may hold what people corrected; name another place")
    labelled = read_labelled_files(table, videos=videos)
    labelled.problems += [*_unwritable(labelled.files), *form.find_faults(labelled.files)]
    if not (labelled.files or labelled.problems):
        labelled.fault("layout", str(table), "no labels and no answers in it")
    if labelled.problems:
        raise DataProblems(str(table), labelled.problems, most=len(labelled.problems))
    for place, text in form.texts(labelled.files, out).items():
        place.parent.mkdir(exist_ok=True)
        write_whole(place, text)
    return labelled, form.advice(labelled.files, out)


def _unwritable(files: Sequence[LabelledFile]) -> Iterator[Problem]:
    """Names with bytes that are no UTF-8, or with controls, which JSON of other programs and XML have no form for."""
    for file in files:
        if _is_unwritable(file.path.as_posix()):
            yield Problem("unreadable", file.where, f"{str(file.path)!r} is no name in UTF-8; rename the file")
    for name in dict.fromkeys(name for names in list_classes(files) for name in names):
        if _is_unwritable(name):
            yield Problem("class-name", repr(name), "a label with a control character, or no UTF-8; rename it")


def _is_unwritable(text: str) -> bool:
    return any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text)
