"""From files to answers: the one path of evaluation, prediction and the end of training."""

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tubelet.cells import path_cell, text_cell
from tubelet.data.clips import views
from tubelet.data.items import Item
from tubelet.data.loader import prefetch
from tubelet.data.spec import ClipSpec, Kind
from tubelet.media.reader import MediaError, index
from tubelet.metrics import summarise
from tubelet.run_files import PREDICTION_COLUMNS
from tubelet.whole import write_whole


@dataclass(frozen=True)
class Answer:
    """What the model says of one item; `probabilities` is None where the file could not be read, `status` says why.

    code: "ok" or that of the MediaError. note: what is wrong with the file, without its name; of a file that ends
    early but could be read, that it does.
    """

    path: str
    label: str
    status: str
    probabilities: np.ndarray | None
    code: str = "ok"
    note: str = ""


def parse_views(text: str, kind: Kind) -> tuple[int, int]:
    """ "4x3" -> 4 temporal, 3 spatial views.

    Raises:
        ValueError: it does not read so, or files of this kind have no such views.
    """
    match = re.fullmatch(r"([1-9]\d*)x([13])", text, re.ASCII)
    if not match:
        raise ValueError(f"views = {text!r}: expected TEMPORALxSPATIAL such as 1x1 or 4x3, with 1 or 3 spatial views")
    temporal, spatial = int(match[1]), int(match[2])
    if (kind == "image" and temporal > 1) or (kind == "sound" and spatial > 1):
        raise ValueError(f"views = {text!r}: an image has one time (1x1, 1x3), a sound has one place (1x1, 4x1)")
    return temporal, spatial


@torch.inference_mode()
def answer(
    model: nn.Module,
    spec: ClipSpec,
    root: Path,
    items: Sequence[Item],
    *,
    views_text: str = "1x1",
    single_frame: bool = False,
    workers: int = 2,
    device: torch.device | None = None,
    after: Callable[[Answer], None] = lambda answer: None,
) -> list[Answer]:
    """Answers for items, in their order: the mean of the logits over the views of each, as probabilities.

    A file that cannot be read keeps its place, without probabilities: nothing is replaced by another clip.
    """
    temporal, spatial = parse_views(views_text, spec.kind)
    device = device or torch.device("cpu")
    model.eval()

    def read(item: Item) -> torch.Tensor | MediaError:
        try:
            return views(
                root / item.path,
                spec,
                temporal=temporal,
                spatial=spatial,
                start_seconds=item.start_seconds,
                end_seconds=item.end_seconds,
            )
        except MediaError as error:
            return error

    answers = []
    for item, clips in zip(items, prefetch(read, items, threads=workers, ahead=2 * workers), strict=True):
        if isinstance(clips, MediaError):
            given = Answer(item.name, item.label, str(clips), None, clips.code, clips.message)
        else:
            if single_frame:
                clips = clips[:, :, [clips.shape[2] // 2]]
            logits = model(clips.to(device)).mean(0)  # in float32, also after a training in bfloat16: the same anywhere
            chances = logits.softmax(0).cpu().numpy()
            given = Answer(item.name, item.label, "ok", chances, note=cut_note(root / item.path))
        answers.append(given)
        after(given)
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
    """Metrics over the items that could be read; those that could not count as wrong in `accuracy_all`."""
    read = [a for a in answers if a.probabilities is not None]
    if not read:
        raise ValueError(
            f"none of {len(answers)} files could be read:\n  " + "\n  ".join(a.status for a in answers[:5])
        )
    labels = np.array([classes.index(a.label) for a in read])
    probabilities = np.stack([a.probabilities for a in read if a.probabilities is not None])
    return summarise(classes, labels, probabilities, failed=len(answers) - len(read))


def write_predictions(answers: Sequence[Answer], classes: Sequence[str], file: Path) -> None:
    """A CSV table: path, label, predicted, probability, status, code, then one column for each class. Cells that a
    spreadsheet would compute are marked, see `tubelet.cells`."""
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
