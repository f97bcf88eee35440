"""A window that slides over a video: its length and hop for a model, and the probabilities along the way."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from tubelet.media.reader import MediaError
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

    def seconds(self, frames: int) -> float:
        return frames * self.seconds_between_frames

    def block(self, *, live: bool) -> int:
        """Frames to be pushed at once: many, but live no more than the next answer waits for."""
        many = TOGETHER * self.step
        return min(self.hop, many) if live else many


def choose_slide(predictor: Predictor, window_seconds: float | None, hop_seconds: float | None) -> Slide:
    """The nearest whole steps to the seconds asked for; left out, a window is as long as the model's clips and a hop a
    quarter of it. Raises ValueError for a model of images or sounds."""
    spec, embed = predictor.spec, predictor.model.embed
    if spec.kind != "video":
        raise ValueError(f"the model takes files of kind {spec.kind!r}: stream needs one that was trained on video")
    length, step, spacing = embed.patch[0], embed.stride[0], spec.seconds_between_frames
    wanted = spec.frames if window_seconds is None else window_seconds / spacing
    window = length + step * max(0, round((wanted - length) / step))
    wanted = window / 4 if hop_seconds is None else hop_seconds / spacing
    return Slide(window, step * max(1, round(wanted / step)), length, step, spacing)


def slide_window(
    predictor: Predictor, footage: Footage, slide: Slide, *, codes: list[Tensor] | None = None
) -> Iterator[Window]:
    """The probabilities of each window, as soon as it is whole. New codes are added to `codes`.

    Raises:
        MediaError: the video cannot be read to its end; comes after all windows of what could be read.
    """
    streamer = Streamer(predictor.model, window=slide.window, hop=slide.hop)
    try:
        for block in footage.blocks:
            block = block.to(predictor.device)
            answers = streamer.push_codes(block) if footage.encoded else streamer.push(block)
            if codes is not None:
                codes.append(streamer.fresh.cpu())
            yield from make_windows(answers, streamer, slide, predictor.task)
    except MediaError:
        yield from make_windows(streamer.finish(), streamer, slide, predictor.task)
        raise
    yield from make_windows(streamer.finish(), streamer, slide, predictor.task)


def make_windows(answers: list[Answer], streamer: Streamer, slide: Slide, task: Task) -> list[Window]:
    if not answers:
        return []
    chances = task.answer(torch.stack([logits for _, logits in answers]).float().cpu())
    whole = (streamer.steps - 1) * slide.step + slide.length  # frames; a video may be shorter than the window
    return [
        Window(slide.seconds(first), slide.seconds(min(first + slide.window, whole)), row)
        for (first, _), row in zip(answers, chances, strict=True)
    ]
