"""What an answer for a file rests on: where, when, and how far the map can be trusted."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tubelet.data.clips import load_views, place_crop
from tubelet.media.address import join
from tubelet.media.geometry import cover_size
from tubelet.media.reader import index
from tubelet.media.sampling import TIME_ROUNDING_SECONDS
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.predict.answer import CLIPS, parse_views
from tubelet.predict.predictor import Predictor
from tubelet.relevance.explain import explain
from tubelet.relevance.hide import hide, highest, smooth
from tubelet.system.text import percent
from tubelet.tasks import Task

Box = tuple[float, float, float, float]  # top, left, height and width, as shares of a picture

TRIED_SHARE = 0.2  # of the tubelets, that are hidden to see whether the answer rests on them
DRAWS = 5  # of as many tubelets elsewhere


@dataclass(frozen=True)
class FileMap:
    """The relevance of a file's parts for one of the outputs of a model.

    label: the name of the output. answer: the model's: a probability (is_probability) or a number. without,
    without_others: the same without the most relevant fifth of the tubelets, and without others, in the mean.
    relevance: (V, t, h, w) float32, of each view, in units of the logit. starts_seconds: of the views, (V,).
    span_seconds: of one. box: what the views show of the picture, top, left, height and width as shares of it.
    """

    path: str | Path
    kind: str
    label: str
    is_probability: bool
    answer: float
    without: float
    without_others: float
    relevance: np.ndarray
    starts_seconds: np.ndarray
    span_seconds: float
    box: Box

    @property
    def times_seconds(self) -> np.ndarray:
        """The beginnings of the steps of all views, (V, t)."""
        steps = self.relevance.shape[1]
        return self.starts_seconds[:, None] + np.arange(steps) * self.span_seconds / steps

    def say(self, answer: float) -> str:
        """An answer in words: "93 %", or a number."""
        return percent(answer) if self.is_probability else f"{answer:.3g}"

    def at(self, seconds: float) -> np.ndarray:
        """The relevance on screen at a time, (h, w), between the steps of a view; zero where no view looked."""
        middles = self.starts_seconds + self.span_seconds / 2
        view = int(np.abs(middles - seconds).argmin())
        steps = self.relevance[view]
        if abs(middles[view] - seconds) > self.span_seconds / 2 + TIME_ROUNDING_SECONDS:
            return np.zeros_like(steps[0])
        place = (seconds - self.starts_seconds[view]) / max(self.span_seconds, 1e-9) * len(steps) - 0.5
        first = int(np.clip(np.floor(place), 0, len(steps) - 1))
        share = float(np.clip(place - first, 0, 1))
        return (1 - share) * steps[first] + share * steps[min(first + 1, len(steps) - 1)]


def explain_file(predictor: Predictor, path: str | Path, *, label: str | None = None, views: str = "auto") -> FileMap:
    """The map of one file for `label`, the model's own answer if left out.

    Raises:
        ValueError: the file cannot be read (a MediaError), a label that the model does not know, or an exported model.
    """
    model, spec, task = predictor.model, predictor.spec, predictor.task
    temporal, spatial = parse_views(views, spec.kind)
    if spatial > 1:
        raise ValueError(f"views = {views!r}: a map is of the middle of the picture, expected {temporal}x1")
    found = load_views(path, spec, temporal=temporal, spatial=1)
    with torch.inference_mode():
        logits = run(model, found.clips).mean(0)
    values = task.answer(logits[None])[0]
    likeliest = int(values.argmax()) if task.gives_probabilities else 0
    number = likeliest if label is None else find_output(task, label)
    parts = found.clips.split(CLIPS)
    relevance = torch.cat([explain(model, part.to(predictor.device), number).float().cpu() for part in parts])
    without, at_random = measure(predictor, found.clips, relevance, number)
    return FileMap(
        path=join("", path),
        kind=spec.kind,
        label=task.names[number],
        is_probability=task.gives_probabilities,
        answer=float(values[number]),
        without=without,
        without_others=at_random,
        relevance=relevance.numpy(),
        starts_seconds=np.array(found.starts_seconds),
        span_seconds=spec.span_seconds,
        box=find_box(path, spec.resize, spec.crop) if spec.kind != "sound" else (0.0, 0.0, 1.0, 1.0),
    )


def find_output(task: Task, label: str) -> int:
    """The number of the output of a label. Raises ValueError for one that the model does not know."""
    if label not in task.names:
        raise ValueError(f"no label {label!r}: the model knows {', '.join(task.names)}")
    return task.names.index(label)


def measure(predictor: Predictor, clips: Tensor, relevance: Tensor, number: int) -> tuple[float, float]:
    """The answer without the most relevant tubelets, and without as many elsewhere, of the same shape, in the mean.

    Places of a video are frozen, those of an image or a sound blurred. The same draws each time.
    """
    how = "frozen" if relevance.shape[1] > 1 else "blurred"
    chosen = highest(smooth(relevance), TRIED_SHARE)
    generator = torch.Generator().manual_seed(0)
    ways = [[int(torch.randint(side, (), generator=generator)) for side in chosen.shape] for _ in range(DRAWS)]
    sets = [chosen, *(chosen.roll(way, (0, 1, 2, 3)) for way in ways)]
    answers = []
    with torch.inference_mode():
        for hidden in sets:
            logits = run(predictor.model, hide(clips, hidden, how)).mean(0)
            answers.append(float(predictor.task.answer(logits[None])[0][number]))
    return answers[0], float(np.mean(answers[1:]))


def run(model: SpaceTimeTransformer, clips: Tensor) -> Tensor:
    """Logits of clips, (V, outputs), on the CPU."""
    device = next(model.parameters()).device
    return torch.cat([model(part.to(device)).float().cpu() for part in clips.split(CLIPS)])


def find_box(path: str | Path, resize: tuple[int, int], crop: tuple[int, int]) -> Box:
    """What the middle view shows of a file's picture: top, left, height and width as shares of it."""
    found = index(path)
    height, width = cover_size(found.height, found.width, resize)
    top, left = place_crop((height, width), crop)
    return top / height, left / width, crop[0] / height, crop[1] / width


def save_map(found: FileMap, file: Path) -> None:
    """Writes the numbers of a map as .npz."""
    about: dict[str, Any] = {name: value for name, value in vars(found).items() if name not in ("path", "kind")}
    np.savez_compressed(file, path=str(found.path), times_seconds=found.times_seconds, **about)
