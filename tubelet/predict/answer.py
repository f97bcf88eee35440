"""Answers for files: the one path of evaluation, prediction and the end of training."""

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
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
from tubelet.features.distance import Distance
from tubelet.media.address import join
from tubelet.media.reader import MediaError, index
from tubelet.media.sampling import MOST_VIEWS
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.predict.frames import Frames
from tubelet.runs.share import Form, pack_array, unpack_array
from tubelet.tasks import Task

IN_MEMORY = Item("", "")  # stands for frames, which have no name
CLIPS = 16  # that the model answers at once, of one file or of several


@dataclass(frozen=True)
class Answer:
    """The model's answer for one item: `values` (outputs,), None where the file could not be read; `status` says why.

    code: "ok" or that of the MediaError. note: what is wrong with the file, without its name; of a file that ends
    early but could be read, that it does. seconds, seconds_seen: how long the item is and how much of that was looked
    at, None where it could not be read; 0 for an image. features: (D,), the mean over its views, where asked for.
    """

    item: Item
    values: np.ndarray | None
    status: str = "ok"
    code: str = "ok"
    note: str = ""
    seconds: float | None = None
    seconds_seen: float | None = None
    features: np.ndarray | None = None

    @property
    def path(self) -> str:
        return self.item.name


@dataclass(frozen=True)
class Prediction:
    """The answer for one file: the label, its probability, and those of all classes, the likeliest first.

    likely: the classes, the likeliest first, among which is all that is right nine times in ten. distance: how far the
    features are from those of the training clips, 1 where they are too far; known: whether they are not. Empty and None
    where the checkpoint has nothing to tell them by.

    status to seconds_seen: as in `Answer`; the others are None and empty where the file could not be read. Of several
    classes that hold at once `label` is "a;b", and of numbers "1.5;2", with `values` by name in the place of
    probabilities; both have no `probability`. `path` is empty for frames in the place of a file.
    """

    path: str
    label: str | None
    probability: float | None
    probabilities: dict[str, float]
    status: str = "ok"
    code: str = "ok"
    note: str = ""
    seconds: float | None = None
    seconds_seen: float | None = None
    values: dict[str, float] = field(default_factory=dict)
    likely: list[str] = field(default_factory=list)
    distance: float | None = None
    known: bool | None = None


def predict_item(answer: Answer, task: Task, distance: Distance | None = None) -> Prediction:
    """An answer in words."""
    values, rest = answer.values, (answer.status, answer.code, answer.note, answer.seconds, answer.seconds_seen)
    if values is None:
        return Prediction(answer.path, None, None, {}, answer.status, answer.code)
    word, probability = task.word(values), task.certainty(values)
    if not task.gives_probabilities:
        return Prediction(answer.path, word, probability, {}, *rest, values=dict(zip(task.names, values.tolist())))
    likeliest = {task.names[i]: float(values[i]) for i in (-values).argsort(kind="stable")}
    found = Prediction(answer.path, word, probability, likeliest, *rest, likely=task.likely(values) or [])
    if distance is None or answer.features is None:
        return found
    far = float(distance.measure(answer.features)) / distance.limit
    return replace(found, distance=far, known=far <= 1)


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
    task: Task,
    root: Path,
    items: Iterable[Item | Frames],
    *,
    views_text: str = "auto",
    single_frame: bool = False,
    features: bool = False,
    among: int = 1,
    workers: int = 2,
    after: Callable[[Answer], None] = lambda answer: None,
) -> list[Answer]:
    """Answers for items, in their order: the mean of the logits over the views of each, as the task reads them.

    items: taken a few ahead of the answers. features: also those, which a model that was exported does not have.
    among: how many items are answered in all, here and elsewhere. A processor multiplies one vector in another order
    than several, and a GPU matrices of each size in their own: where there are others, the last batch is made as large
    as it takes for the answer to an item to be the same, to the bit, whichever stand beside it.

    A file that cannot be read keeps its place, without values: nothing is replaced by another clip. `after` gets
    each answer as soon as the clips it is made of are answered, `CLIPS` of them at once.
    """
    temporal, spatial = parse_views(views_text, spec.kind)
    device = next((weights.device for weights in model.parameters()), torch.device("cpu"))  # none where exported
    model.eval()
    least = min(among, CLIPS if device.type == "cuda" else 2)

    def read(given: Item | Frames) -> tuple[Item, Views | MediaError, str]:
        item = given if isinstance(given, Item) else IN_MEMORY
        try:
            found = read_views(given, spec, root=root, temporal=temporal, spatial=spatial)
        except MediaError as error:
            return item, error, ""
        found = replace(found, clips=found.clips[:, :, [spec.frames // 2]]) if single_frame else found
        return item, found, cut_note(join(root, item.path)) if given is item else ""

    # as many files as fill two batches, if they are short; few where each may have many clips
    ahead = max(2 * workers, 2 * CLIPS // ((temporal or MOST_VIEWS) * spatial))
    files = prefetch(read, items, threads=workers, ahead=ahead)
    waiting: deque[tuple[Item, Views | MediaError, str, int]] = deque()  # files whose clips are not all answered
    logits: deque[torch.Tensor] = deque()  # (classes,) of each clip, of files that wait
    codes: deque[torch.Tensor] = deque()  # (D,) of the same, where features are asked for
    answers: list[Answer] = []

    def clips() -> Iterator[torch.Tensor]:
        for item, found, note in files:
            seen = () if isinstance(found, MediaError) else found.clips
            waiting.append((item, found, note, len(seen)))
            yield from seen

    def answer_files() -> None:
        while waiting and len(logits) >= waiting[0][3]:
            item, found, note, count = waiting.popleft()
            if isinstance(found, MediaError):
                given = Answer(item, None, str(found), found.code, found.message)
            else:
                mean = torch.stack([logits.popleft() for _ in range(count)]).mean(0)
                code = torch.stack([codes.popleft() for _ in range(count)]).mean(0).numpy() if features else None
                seconds = found.seconds, found.seconds_seen
                given = Answer(item, task.answer(mean[None])[0], "ok", "ok", note, *seconds, code)
            answers.append(given)
            after(given)

    stream = clips()
    while batch := list(islice(stream, CLIPS)):
        # in float32, also after a training in bfloat16: the same anywhere
        count = len(batch)
        clip = torch.stack(batch + batch[-1:] * (least - count)).to(device)
        if features:
            assert isinstance(model, SpaceTimeTransformer)
            made = model.features(clip)
            codes.extend(made[:count].cpu())
            logits.extend(model.head(made)[:count].cpu())
        else:
            logits.extend(model(clip)[:count].cpu())
        answer_files()
    answer_files()  # of the last files, those that could not be read
    return answers


def answer_form(items: Sequence[Item]) -> Form[Answer]:
    """Answers for items as JSON: all but the item, which is told by its number; arrays by type and bytes."""

    def pack(one: Answer) -> dict[str, Any]:
        arrays = {name: pack_array(value) for name, value in vars(one).items() if isinstance(value, np.ndarray)}
        return {**{name: value for name, value in vars(one).items() if name != "item"}, **arrays}

    def unpack(number: int, packed: dict[str, Any]) -> Answer:
        arrays = {name: unpack_array(packed[name]) for name in ("values", "features") if packed[name] is not None}
        return Answer(items[number], **{**packed, **arrays})

    return Form(pack, unpack)


def read_views(
    given: Item | Frames, spec: ClipSpec, *, root: Path | None = None, temporal: int | None, spatial: int
) -> Views:
    """The views of an item, or of frames in its place. Raises MediaError where a file cannot be read."""
    if isinstance(given, Frames):
        return given.load_views(temporal=temporal, spatial=spatial)
    where = {"start_seconds": given.start_seconds, "end_seconds": given.end_seconds}
    return load_views(join(root or Path(), given.path), spec, temporal=temporal, spatial=spatial, **where)


def mean_features(see: Callable[[torch.Tensor], torch.Tensor], clips: torch.Tensor) -> torch.Tensor:
    """The features (D,) of one item, float32: the mean over its views (V, ...), of which `see` makes features (V, D).

    No view of another item is seen with them: they are the same to the bit whatever else is asked for.
    """
    return torch.cat([see(piece).float().cpu() for piece in clips.split(CLIPS)]).mean(0)


def cut_note(path: str | Path) -> str:
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
