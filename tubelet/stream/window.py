"""A window that slides over a video: how long it is for a model, and what the model says along the way."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from tubelet.media.reader import MediaError
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.nn.streamer import TOGETHER, Answer, Streamer
from tubelet.predict.predictor import Predictor
from tubelet.stream.segments import Window
from tubelet.stream.source import Footage
from tubelet.tasks import Task


@dataclass(frozen=True)
class Slide:
    """A window and its hop, in frames that lie `seconds_between_frames` apart; both are whole steps of the model.

    A step is what one tubelet spans: `length` frames, each `step` frames after the one before.
    """

    window: int
    hop: int
    length: int
    step: int
    seconds_between_frames: float

    @property
    def window_seconds(self) -> float:
        return self.window * self.seconds_between_frames

    @property
    def hop_seconds(self) -> float:
        return self.hop * self.seconds_between_frames

    @property
    def length_seconds(self) -> float:
        return self.length * self.seconds_between_frames

    @property
    def step_seconds(self) -> float:
        return self.step * self.seconds_between_frames

    def block(self, *, live: bool) -> int:
        """Frames to be pushed at once: many, but live no more than the next answer waits for."""
        many = TOGETHER * self.step
        return min(self.hop, many) if live else many


def slide_of(
    model: SpaceTimeTransformer,
    *,
    frames: int,
    seconds_between_frames: float,
    window_seconds: float | None = None,
    hop_seconds: float | None = None,
) -> Slide:
    """The nearest whole steps to what is asked for; left out, a window is `frames` long and a hop a quarter of it."""
    length, step = model.embed.patch[0], model.embed.stride[0]
    wanted = frames if window_seconds is None else window_seconds / seconds_between_frames
    window = length + step * max(0, round((wanted - length) / step))
    wanted = window / 4 if hop_seconds is None else hop_seconds / seconds_between_frames
    return Slide(window, step * max(1, round(wanted / step)), length, step, seconds_between_frames)


def windows_of(
    predictor: Predictor, footage: Footage, slide: Slide, *, codes: list[Tensor] | None = None
) -> Iterator[Window]:
    """What the model says of each window, as soon as it is whole. New codes are added to `codes`.

    Raises:
        MediaError: the video cannot be read to its end; comes after all windows of what could be read.
    """
    streamer = Streamer(predictor.model, window=slide.window, hop=slide.hop)
    trouble: MediaError | None = None
    try:
        for block in footage.blocks:
            block = block.to(predictor.device)
            answers = streamer.push_codes(block) if footage.encoded else streamer.push(block)
            if codes is not None:
                codes.append(streamer.fresh.cpu())
            yield from _windows(answers, streamer, slide, predictor.task)
    except MediaError as error:
        trouble = error
    yield from _windows(streamer.finish(), streamer, slide, predictor.task)
    if trouble:
        raise trouble


def _windows(answers: list[Answer], streamer: Streamer, slide: Slide, task: Task) -> list[Window]:
    if not answers:
        return []
    chances = task.answer(torch.stack([logits for _, logits in answers]).float().cpu())
    whole = (streamer.steps - 1) * slide.step + slide.length  # frames; a video may be shorter than the window
    spacing = slide.seconds_between_frames
    return [
        Window(first * spacing, min(first + slide.window, whole) * spacing, row)
        for (first, _), row in zip(answers, chances, strict=True)
    ]
