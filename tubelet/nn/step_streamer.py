"""The steps of an endless clip as a model sees them, each in the light of one window around it."""

import torch
from torch import Tensor

from tubelet.nn.model import SpaceTimeTransformer
from tubelet.nn.streamer import Answer, Streamer


class StepStreamer:
    """Features of the steps of frames that are pushed in pieces of any length.

    Windows overlap by half. The middle of each is kept, of the first its beginning too, of the last its end: what is
    seen at a step depends on the video alone, never on the pieces, and memory does not grow.

    windows  |---===---|
                  |---===---|
                       |---===---|           = kept
    given    |-------===---===---|

    >>> streamer = StepStreamer(model, window=16)
    >>> steps = torch.cat([*map(streamer.push, pieces), streamer.finish()])

    Raises:
        ValueError: a window that is not whole steps of the tokeniser, in frames.
    """

    def __init__(self, model: SpaceTimeTransformer, *, window: int):
        length, step = model.embed.patch[0], model.embed.stride[0]
        steps = (window - length) // step + 1
        hop = max(1, steps // 2)
        self.kept_until = (steps + hop) // 2  # step of a window
        self.streamer = Streamer(model, window=window, hop=hop * step, each_step=True)
        self.given = 0
        self.latest = torch.empty(0, 0)  # all steps of the last window

    @property
    def delay(self) -> int:
        """Steps, at most, that must follow a step before it is given."""
        return self.streamer.window - 1

    def push(self, frames: Tensor) -> Tensor:
        """The next frames (C, T, H, W), float or uint8 -> the steps that are now seen, (t, D), t >= 0."""
        return self.keep(self.streamer.push(frames))

    def finish(self) -> Tensor:
        """The steps (t, D) to the end."""
        kept = self.keep(self.streamer.finish(), whole=True)
        left = self.latest[len(self.latest) - (self.streamer.steps - self.given) :]
        self.given += len(left)
        return torch.cat([kept, left])

    def keep(self, answers: list[Answer], *, whole: bool = False) -> Tensor:
        pieces = [self.latest[:0]]
        for frame, steps in answers:
            first = frame // self.streamer.step
            stop = first + (len(steps) if whole else self.kept_until)
            pieces.append(steps[self.given - first : stop - first])
            self.given, self.latest = stop, steps
        return torch.cat(pieces[1:] or pieces)
