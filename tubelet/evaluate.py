"""From files to answers: the one path of evaluation, prediction and the end of training."""

import csv
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tubelet.data.clip_spec import ClipSpec, Kind
from tubelet.data.clips import Views, load_views
from tubelet.data.items import Item
from tubelet.data.prefetch import prefetch
from tubelet.media.reader import MediaError, index
from tubelet.media.sampling import MOST_VIEWS
from tubelet.report.results import PREDICTION_COLUMNS
from tubelet.system.files import write_whole
from tubelet.system.text import path_cell, text_cell
from tubelet.tasks.classification import summarise

CLIPS = 16  # that the model answers at once, of one file or of several


@dataclass(frozen=True)
class Answer:
    """What the model says of one item; `probabilities` is None where the file could not be read, `status` says why.

    code: "ok" or that of the MediaError. note: what is wrong with the file, without its name; of a file that ends
    early but could be read, that it does. seconds, seconds_seen: how long the item is and how much of that was looked
    at, None where it could not be read; 0 for an image.
    """

    path: str
    label: str
    status: str
    probabilities: np.ndarray | None
    code: str = "ok"
    note: str = ""
    seconds: float | None = None
    seconds_seen: float | None = None


def parse_views(text: str, kind: Kind) -> tuple[int | None, int]:
    """ "4x3" -> 4 temporal, 3 spatial views; "auto" -> None, 1: as many temporal ones as each file needs.

    Raises:
        ValueError: it does not read so, or files of this kind have no such views.
    """
    if text == "auto":
        return None, 1
    match = re.fullmatch(r"([1-9]\d*)x([13])", text, re.ASCII)
    if not match:
        raise ValueError(
            f"views = {text!r}: expected auto, or TEMPORALxSPATIAL such as 1x1 or 4x3, with 1 or 3 spatial views"
        )
    temporal, spatial = int(match[1]), int(match[2])
    if (kind == "image" and temporal > 1) or (kind == "sound" and spatial > 1):
        raise ValueError(f"views = {text!r}: an image has one time (1x1, 1x3), a sound has one place (1x1, 4x1)")
    return temporal, spatial


@torch.inference_mode()
def answer(
    model: nn.Module,
    spec: ClipSpec,
    root: Path,
    items: Iterable[Item],
    *,
    views_text: str = "auto",
    single_frame: bool = False,
    workers: int = 2,
    device: torch.device | None = None,
    after: Callable[[Answer], None] = lambda answer: None,
) -> list[Answer]:
    """Answers for items, in their order: the mean of the logits over the views of each, as probabilities.

    A file that cannot be read keeps its place, without probabilities: nothing is replaced by another clip. `after` gets
    each answer as soon as the clips it is made of are answered, `CLIPS` of them at once.
    """
    temporal, spatial = parse_views(views_text, spec.kind)
    device = device or torch.device("cpu")
    model.eval()

    def read(item: Item) -> tuple[Item, Views | MediaError]:
        where = {"start_seconds": item.start_seconds, "end_seconds": item.end_seconds}
        try:
            found = load_views(root / item.path, spec, temporal=temporal, spatial=spatial, **where)
        except MediaError as error:
            return item, error
        return item, replace(found, clips=found.clips[:, :, [spec.frames // 2]]) if single_frame else found

    # as many files as fill two batches, if they are short; few where each may have many clips
    ahead = max(2 * workers, 2 * CLIPS // ((temporal or MOST_VIEWS) * spatial))
    files = prefetch(read, items, threads=workers, ahead=ahead)
    waiting: deque[tuple[Item, MediaError | Views, int]] = deque()  # files whose clips are not all answered
    logits: deque[torch.Tensor] = deque()  # (classes,) of each clip, of files that wait
    answers: list[Answer] = []

    def clips() -> Iterator[torch.Tensor]:
        for item, found in files:
            waiting.append((item, found, 0 if isinstance(found, MediaError) else len(found.clips)))
            yield from () if isinstance(found, MediaError) else found.clips

    def answer_files() -> None:
        while waiting and len(logits) >= waiting[0][2]:
            item, found, count = waiting.popleft()
            if isinstance(found, MediaError):
                given = Answer(item.name, item.label, str(found), None, found.code, found.message)
            else:
                mean = torch.stack([logits.popleft() for _ in range(count)]).mean(0)
                given = Answer(
                    item.name,
                    item.label,
                    "ok",
                    mean.softmax(0).numpy(),
                    note=cut_note(root / item.path),
                    seconds=found.seconds,
                    seconds_seen=found.seconds_seen,
                )
            answers.append(given)
            after(given)

    stream = clips()
    while batch := list(islice(stream, CLIPS)):
        # in float32, also after a training in bfloat16: the same anywhere
        logits.extend(model(torch.stack(batch).to(device)).cpu())
        answer_files()
    answer_files()  # of the last files, those that could not be read
    return answers


def cut_note(path: Path) -> str:
    """Says of a file that could be read that it was cut short, and where that is known."""
    try:
        found = index(path)
    except MediaError:  # gone since it was read
        return ""
    if not found.is_cut:
        return ""
    end, promised = found.duration_seconds, max((to for _, to in found.missing_spans), default=0.0)
    if found.kind == "image":
        return "truncated: a part of the picture is missing"
    return f"truncated: ends after {end:.1f}{f' of {promised:.1f}' if promised > end else ''} s"


def results_of(answers: Sequence[Answer], classes: Sequence[str]) -> dict[str, Any]:
    """Metrics over the items that could be read, and how many seconds of them there are and were looked at; items that
    could not be read count as wrong in `accuracy_all`."""
    read = [a for a in answers if a.probabilities is not None]
    if not read:
        raise ValueError(
            f"none of {len(answers)} files could be read:\n  " + "\n  ".join(a.status for a in answers[:5])
        )
    labels = np.array([classes.index(a.label) for a in read])
    probabilities = np.stack([a.probabilities for a in read if a.probabilities is not None])
    seconds, seen = (round(sum(getattr(a, name) or 0.0 for a in read), 3) for name in ("seconds", "seconds_seen"))
    return {
        **summarise(classes, labels, probabilities, failed=len(answers) - len(read)),
        "seconds": seconds,
        "seconds_seen": seen,
    }


def seen_words(seconds_seen: float | None, seconds: float | None) -> str:
    """ "12.0 of 139.0 s": how much of an item was looked at; nothing where that was all, or is not known."""
    if seconds is None or seconds_seen is None or round(seconds_seen, 1) >= round(seconds, 1):
        return ""
    return f"{seconds_seen:.1f} of {seconds:.1f} s"


def write_predictions(answers: Sequence[Answer], classes: Sequence[str], file: Path) -> None:
    """A CSV table: path, label, predicted, probability, status, code, then one column for each class. Cells that a
    spreadsheet would compute are marked, see `tubelet.system.text`."""
    text = StringIO(newline="")
    table = csv.writer(text)
    table.writerow([*PREDICTION_COLUMNS, *(f"p:{name}" for name in classes)])
    for a in answers:
        names = path_cell(a.path), text_cell(a.label)
        if a.probabilities is None:
            table.writerow([*names, "", "", text_cell(a.status), a.code, *[""] * len(classes)])
        else:
            best = int(a.probabilities.argmax())
            chances = [f"{p:.6f}" for p in a.probabilities]
            table.writerow([*names, text_cell(classes[best]), chances[best], a.status, a.code, *chances])
    write_whole(file, text.getvalue())
