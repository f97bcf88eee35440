"""Maps of files, written where people look: a video, a picture, and the numbers."""

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from tubelet.media.address import without_query
from tubelet.media.reader import MediaError
from tubelet.predict.predictor import Predictor
from tubelet.relevance.draw import write_overlay, write_picture
from tubelet.relevance.maps import FileMap, explain_file, find_output, save_map
from tubelet.system.console import bar, console, say


@dataclass(frozen=True)
class Written:
    """What was written for one file: its map, or None and why it could not be read; the files. status, code: as in an
    `Answer`."""

    path: str | Path
    found: FileMap | None
    files: tuple[Path, ...] = ()
    status: str = "ok"
    code: str = "ok"

    def to_json(self) -> dict[str, Any]:
        words: dict[str, Any] = {"path": str(self.path), "status": self.status, "code": self.code}
        if self.found:
            names = ("label", "answer", "without", "without_others")
            words |= {name: getattr(self.found, name) for name in names}
            words |= {"most_relevant_seconds": [round(one, 3) for one in find_peak(self.found)]}
            words |= {"files": [*map(str, self.files)]}
        return words


def explain_files(
    predictor: Predictor,
    files: Sequence[str | Path],
    out: Path,
    *,
    label: str | None = None,
    views: str = "auto",
    show: bool = True,
    after: Callable[[Written], None] = lambda written: None,
) -> list[Written]:
    """Writes NAME.png, NAME.npz and, of a video, NAME.mp4 for each file into the folder `out`.

    A file that cannot be read is told, and the others go on.

    Raises ValueError for a label that the model does not know, or an exported model.
    """
    if label is not None:
        find_output(predictor.task, label)  # before anything is written
    _ = predictor.model  # an exported one cannot be explained
    out.mkdir(parents=True, exist_ok=True)
    done = []
    with bar("explaining", len(files), show=show) as progress:
        for path, name in zip(files, choose_names(files), strict=True):
            done.append(write_one(predictor, path, out / name, label=label, views=views))
            after(done[-1])
            progress.advance(f"{progress.done + 1}/{progress.total} files left {progress.left}")
    return done


def write_one(predictor: Predictor, path: str | Path, name: Path, *, label: str | None, views: str) -> Written:
    try:
        found = explain_file(predictor, path, label=label, views=views)
        numbers, picture, video = (name.with_name(name.name + suffix) for suffix in (".npz", ".png", ".mp4"))
        save_map(found, numbers)
        write_picture(found, predictor.spec, picture)
        if found.kind == "video":
            write_overlay(found, video)
    except MediaError as error:
        return Written(path, None, status=str(error), code=error.code)
    return Written(path, found, (picture, numbers, *[video] * (found.kind == "video")))


def choose_names(given: Sequence[str | Path]) -> list[str]:
    """A name for what is written of each file: its own, with those of its folders before it where two are alike."""
    files = [Path(without_query(file)) for file in given]
    alike = defaultdict[str, list[Path]](list)
    for path in files:
        alike[path.stem].append(path.absolute())
    names = []
    for path in files:
        same = alike[path.stem]
        root = os.path.commonpath([other.parent for other in same])
        names.append(path.stem if len(same) == 1 else "-".join(path.absolute().relative_to(root).parts))
    return names


def find_peak(found: FileMap) -> tuple[float, float]:
    """The seconds of the step that speaks for the answer most."""
    step = found.span_seconds / found.relevance.shape[1]
    best = int(found.relevance.clip(0).sum((2, 3)).ravel().argmax())
    start = float(found.times_seconds.ravel()[best])
    return start, start + step


def show_table(written: Sequence[Written], out: Path) -> None:
    """The answers, and what they fall to without what they rest on."""
    table = Table(box=None, pad_edge=False)
    for title in ("file", "label", "answer", "without top fifth", "without another", "most at"):
        table.add_column(title, justify="right" if title not in ("file", "label") else "left")
    for one in written:
        if one.found is None:
            table.add_row(str(one.path), one.status)
            continue
        found = one.found
        start, end = find_peak(found)
        when = f"{start:.1f} to {end:.1f} s" if found.kind == "video" else ""
        answers = (found.say(value) for value in (found.answer, found.without, found.without_others))
        table.add_row(str(one.path), found.label, *answers, when)
    console.print(table)
    if good := [one.found for one in written if one.found]:
        there = sum(one.answer - one.without for one in good) / len(good)
        elsewhere = sum(one.answer - one.without_others for one in good) / len(good)
        say_fall = (lambda fall: f"{100 * fall:.1f} points") if good[0].is_probability else "{:.3g}".format
        words = f"the answer falls by {say_fall(there)} in the mean; as much elsewhere: by {say_fall(elsewhere)}"
        say("hidden", f"what the maps show: {words}")
    say("maps", f"{out}: a picture of each file, the numbers (.npz), and the video with its map")
