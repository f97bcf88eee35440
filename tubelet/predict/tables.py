"""Tables of answers as CSV files. Cells that a spreadsheet would compute are marked, see `tubelet.system.text`."""

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tubelet.features.distance import Distance
from tubelet.predict.answer import Answer, Prediction, predict_item
from tubelet.system.files import write_whole
from tubelet.system.text import path_cell, text_cell
from tubelet.tasks import Task
from tubelet.tasks.detection import Found

# Of files and of labelled clips; the columns of the task follow.
COLUMNS = ("path", "predicted", "probability", "status", "code", "seconds", "seconds_seen")
CALIBRATED = ("likely", "distance", "known")  # of probabilities, before those of the task
SEGMENTS = ("path", "start", "end", "label", "score")  # a row for each that was found


def check_table(file: Path | None) -> None:
    """Raises ValueError, before the work is done, where a table could not be written after it, or would replace
    something else: `--csv *.mp4` names a video."""
    if file is None:
        return
    if (file.exists() and not file.is_file()) or not file.parent.is_dir():  # nor a device: a file would replace it
        raise ValueError(f"{file}: cannot be written: name a file in a folder that exists")
    if file.is_file() and file.stat().st_size:
        with open(file, "rb") as handle:
            if not re.match(rb"path,((label,)?predicted,|start,end,label,score)", handle.read(30)):
                raise ValueError(f"{file}: is there, and no table of predictions: name another file for --csv")


@contextmanager
def keep_rows(task: Task, file: Path | None) -> Iterator[Callable[[Prediction], None]]:
    """Writes rows of a table as they come to FILE.part, which is left where the whole table never is written."""
    if file is None:
        yield lambda prediction: None
        return
    part = file.with_name(f"{file.name}.part")
    check_table(part)
    with open(part, "w", encoding="utf-8", errors="surrogateescape", newline="") as rows:
        table = csv.writer(rows)
        table.writerow(columns(task))

        def keep(one: Prediction) -> None:
            table.writerow(row(one, task))
            rows.flush()  # what the process still held would die with it

        yield keep
    part.unlink()


def write_table(predictions: Iterable[Prediction], task: Task, file: Path) -> None:
    write_rows(columns(task), (row(one, task) for one in predictions), file)


def write_labelled(answers: Iterable[Answer], task: Task, file: Path, *, distance: Distance | None = None) -> None:
    """Writes the same with the label of each clip after its path."""
    rows = ((text_cell(one.item.label), row(predict_item(one, task, distance), task)) for one in answers)
    path, *others = columns(task)
    write_rows([path, "label", *others], ([cells[0], label, *cells[1:]] for label, cells in rows), file)


def columns(task: Task) -> list[str]:
    return [*COLUMNS, *(CALIBRATED if task.calibrates else ()), *task.columns()]


def write_segments(found: Iterable[Found], file: Path) -> None:
    """A table of SEGMENTS, in the order given."""
    rows = (
        [path_cell(path), f"{start:.3f}", f"{end:.3f}", text_cell(label), f"{score:.6f}"]
        for path, start, end, label, score in found
    )
    write_rows(SEGMENTS, rows, file)


def write_rows(header: Sequence[str], rows: Iterable[Sequence[str]], file: Path) -> None:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([header, *rows])
    write_whole(file, text.getvalue())


def row(one: Prediction, task: Task) -> list[str]:
    probability = "" if one.probability is None else f"{one.probability:.6f}"
    numbers = one.probabilities or one.values
    values = [f"{numbers[name]:.6f}" if numbers else "" for name in task.names]
    seconds = ["" if value is None else f"{value:.3f}" for value in (one.seconds, one.seconds_seen)]
    names = path_cell(one.path), text_cell(one.label or "")
    known = {None: "", True: "yes", False: "no"}[one.known]
    calibrated = [text_cell(";".join(one.likely)), "" if one.distance is None else f"{one.distance:.4f}", known]
    return [
        *(*names, probability, text_cell(one.status), one.code, *seconds),
        *(calibrated if task.calibrates else ()),
        *values,
    ]
