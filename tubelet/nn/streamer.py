"""Answers over a window that slides along an endless clip; where the model allows it, each step is encoded once."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from tubelet.nn.model import SpaceTimeTransformer
from tubelet.nn.split import classify_steps, encode_steps, encodes_steps_apart, see_encoded_steps, see_steps

TOGETHER = 16  # steps encoded, or windows of steps classified, at a time: bounds memory, whatever is pushed

Answer = tuple[int, Tensor]  # first frame of the window, logits (classes,)
ReadWindows = Callable[[SpaceTimeTransformer, Tensor], Tensor]  # clips or encoded steps (B, ...) -> answers (B, ...)


class Streamer:
    """Slides a window along frames that are pushed in pieces of any length.

    With a factorised encoder (vivit2) each step is encoded once and only the temporal encoder runs on a window; other
    models run on each window anew (`recomputes`). Either way the answers are those of the model on the windows cut out
    of the whole clip, and memory does not grow. The model is put in eval mode.

    >>> streamer = Streamer(model, window=32, hop=8)
    >>> for first_frame, logits in streamer.push(frames): ...

    Args:
        window: frames that one answer sees; hop: frames from one window to the next. Both in whole steps of the
            tokeniser.
        each_step: answers are what is seen at each step of a window, (steps, D), in the place of its logits.

    Raises:
        ValueError: a window or hop that is not whole steps.
    """

    def __init__(self, model: SpaceTimeTransformer, *, window: int, hop: int, each_step: bool = False):
        self.length, self.step = model.embed.patch[0], model.embed.stride[0]  # frames
        for name, frames, least in (("window", window, self.length), ("hop", hop, self.step)):
            if frames < least or (frames - least) % self.step:
                raise ValueError(
                    f"got {name}={frames} frames, but tubelets of {self.length} frames, {self.step} apart, allow "
                    f"{least}, {least + self.step}, {least + 2 * self.step} and so on"
                )
        self.model, self.recomputes = model.eval(), not encodes_steps_apart(model)
        classify: ReadWindows = SpaceTimeTransformer.__call__ if self.recomputes else classify_steps
        see: ReadWindows = see_steps if self.recomputes else see_encoded_steps
        self.read = see if each_step else classify
        self.window, self.hop = (window - self.length) // self.step + 1, hop // self.step  # steps
        self.seen = 0  # frames pushed
        self.next = 0  # step at which the next window begins
        self.last: int | None = None  # step at which the last answer's window began
        self.frames, self.first_frame = torch.empty(0, 0), 0  # those still needed, and the number of the first
        self.codes, self.first_code = torch.empty(0), 0  # encoded steps likewise
        self.fresh = torch.empty(0)  # steps that the last push encoded, (t, D): to be kept for `push_codes`

    @property
    def steps(self) -> int:
        """Whole steps in the frames pushed so far."""
        return max(0, (self.seen - self.length) // self.step + 1)

    def push(self, frames: Tensor) -> list[Answer]:
        """Takes the next frames (C, T, H, W), float or uint8, and answers for the windows that are now whole.

        Raises:
            ValueError: no such frames, or of another size or kind than before.
        """
        self.hold(frames)
        if not self.recomputes:
            self.encode()
        return self.whole_windows()

    def push_codes(self, codes: Tensor) -> list[Answer]:
        """Takes codes (t, D) of the next steps from another stream (`fresh`) instead of their frames; see `push`.

        Raises:
            ValueError: a model that recomputes has no codes; codes of another width.
        """
        if self.recomputes:
            raise ValueError(f"this {self.model.config.family} model does not encode its steps one by one: push frames")
        dim = self.model.stack[0].out_dim
        if codes.ndim != 2 or codes.shape[1] != dim:
            raise ValueError(f"got codes of shape {tuple(codes.shape)}, expected (t, {dim})")
        steps = self.steps + len(codes)
        self.codes = torch.cat([self.codes, codes]) if len(self.codes) else codes
        self.seen = (steps - 1) * self.step + self.length if steps else 0
        return self.whole_windows()

    def whole_windows(self) -> list[Answer]:
        """Answers for the windows that are whole and have not had one; forgets what no later one needs."""
        starts = range(self.next, self.steps - self.window + 1, self.hop)
        self.next += len(starts) * self.hop
        answers = list(self.answers(starts, self.window))
        self.forget()
        return answers

    def finish(self) -> list[Answer]:
        """The answer for the last whole window, where the hops end before it; for all there is, if that is shorter."""
        start = max(0, self.steps - self.window)
        if not self.steps or (self.last is not None and self.last >= start):
            return []
        return list(self.answers([start], self.steps - start))

    def hold(self, frames: Tensor) -> None:
        if frames.ndim != 4:
            raise ValueError(f"got frames of shape {tuple(frames.shape)}, expected (C, T, H, W)")
        if self.seen:
            was, now = ((*x.shape[:1], *x.shape[2:], x.dtype, x.device) for x in (self.frames, frames))
            if was != now:
                raise ValueError(f"got frames (C, H, W) {now} after {was}: a stream keeps its size, begin another one")
        self.frames = torch.cat([self.frames, frames], 1) if self.seen else frames
        self.seen += frames.shape[1]

    def encode(self) -> None:
        """Encodes the steps that are now whole."""
        starts = range(self.first_code + len(self.codes), self.steps, TOGETHER)
        clips = [self.cut(start, min(start + TOGETHER, self.steps)) for start in starts]
        self.fresh = torch.cat([encode_steps(self.model, clip) for clip in clips]) if clips else self.fresh[:0]
        self.codes = torch.cat([self.codes, self.fresh]) if len(self.codes) else self.fresh

    def cut(self, start: int, stop: int) -> Tensor:
        """The frames of steps from `start` to before `stop`."""
        first, last = start * self.step, (stop - 1) * self.step + self.length
        return self.frames[:, first - self.first_frame : last - self.first_frame]

    @torch.no_grad()
    def answers(self, starts: Sequence[int], length: int) -> Iterator[Answer]:
        """The answers for windows of `length` steps."""
        together = max(1, TOGETHER // length) if self.recomputes else TOGETHER
        for i in range(0, len(starts), together):
            some = starts[i : i + together]
            if self.recomputes:
                windows = [self.cut(start, start + length) for start in some]
            else:
                windows = [self.codes[start - self.first_code :][:length] for start in some]
            self.last = some[-1]
            yield from zip([start * self.step for start in some], self.read(self.model, torch.stack(windows)))

    def forget(self) -> None:
        """Drops what neither the next window nor the last whole one needs."""
        needed = min(self.next, max(0, self.steps - self.window))
        frame = (needed if self.recomputes else self.steps) * self.step
        drop = max(0, min(frame, self.seen) - self.first_frame)
        self.frames, self.first_frame = self.frames[:, drop:].clone(), self.first_frame + drop
        if not self.recomputes and needed > self.first_code:
            self.codes, self.first_code = self.codes[needed - self.first_code :].clone(), needed
