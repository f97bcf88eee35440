"""A model and its pyramid: from a video to the segments in it, as they become certain."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tubelet.data.clip_spec import ClipSpec
from tubelet.features.store import hash_encoder
from tubelet.media.reader import MediaError
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.nn.pyramid import Pyramid, PyramidConfig
from tubelet.nn.segment_streamer import SegmentStreamer, StepSegment
from tubelet.nn.step_streamer import StepStreamer
from tubelet.predict.exported import is_exported
from tubelet.predict.predictor import Predictor
from tubelet.stream.segments import Segment
from tubelet.stream.source import from_file
from tubelet.tasks.segments import Usual
from tubelet.weights.store import open_model

ABOUT, BESIDE = "segments", "pyramid."  # where a checkpoint holds what a segmenter is, and its tensors
BLOCK_STEPS = 64  # read and seen at a time


@dataclass(frozen=True)
class Segmenter:
    """Finds segments of the classes `names`. threshold: the score from which on they are shown. usual: what they were
    like in training.

    Steps are tubelets. A step stands for the middle of the time that its tubelet spans.
    """

    model: SpaceTimeTransformer
    pyramid: Pyramid
    spec: ClipSpec
    names: tuple[str, ...]
    threshold: float
    usual: Usual = field(default_factory=dict)
    device: torch.device = field(default=torch.device("cpu"))

    @classmethod
    def load(cls, run: str | os.PathLike[str], *, device: str = "auto") -> "Segmenter":
        """That of a run directory or model.safetensors. Raises ValueError where it finds no segments."""
        return cls.read(Predictor.load(run, device=device))

    @classmethod
    def read(cls, predictor: Predictor) -> "Segmenter":
        """The segmenter beside a model that is loaded already. Raises ValueError as `load`."""
        file, names = predictor.file, predictor.task.names
        about = file.about.get(ABOUT) if file else None
        if file is None or about is None:
            raise ValueError(f"{predictor.run}: finds no segments: train it with --task segments")
        try:
            pyramid, threshold = Pyramid(PyramidConfig(**about["pyramid"])), float(about["threshold"])
            pyramid.load_state_dict(file.beside(BESIDE))
            usual = {str(name): (float(length), float(rate)) for name, (length, rate) in about["usual"].items()}
            if len(names) != pyramid.config.num_classes or not 0 < threshold <= 1:
                raise ValueError(f"{len(names)} names, threshold {threshold}")
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise ValueError(
                f"{file.file}: what finds segments in it is damaged ({error}): copy or train it again"
            ) from error
        return cls(predictor.model, pyramid.eval(), predictor.spec, names, threshold, usual, predictor.device)

    @classmethod
    def untrained(cls, predictor: Predictor, threshold: float) -> "Segmenter":
        """One that sees as the model does, and has not learned to find anything."""
        pyramid = Pyramid(PyramidConfig(inputs=1, num_classes=len(predictor.task.names)))
        return cls(predictor.model, pyramid, predictor.spec, predictor.task.names, threshold, device=predictor.device)

    def to_json(self) -> dict[str, Any]:
        """The JSON of a checkpoint, beside the tensors of the pyramid."""
        return {"pyramid": self.pyramid.config.to_json(), "threshold": self.threshold, "usual": dict(self.usual)}

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of a checkpoint beside the weights of the model."""
        return {f"{BESIDE}{name}": tensor for name, tensor in self.pyramid.state_dict().items()}

    @property
    def step_seconds(self) -> float:
        """From one step to the next."""
        return self.model.embed.stride[0] * self.spec.seconds_between_frames

    @property
    def middle_seconds(self) -> float:
        """The middle of the first step."""
        return self.model.embed.patch[0] * self.spec.seconds_between_frames / 2

    @property
    def delay_seconds(self) -> float:
        """The time, at most, from the end of a segment to its answer."""
        steps = SegmentStreamer(self.pyramid, least_score=self.threshold).delay + self.step_streamer().delay
        return steps * self.step_seconds

    @property
    def key(self) -> str:
        """That of the features of steps, seen by the whole model in windows of its clips."""
        return hash_encoder(self.model, encoders=len(self.model.encoders), clip_spec=self.spec.to_json(), seen="steps")

    def step_streamer(self) -> StepStreamer:
        return StepStreamer(self.model, window=self.spec.frames)

    def find(self, steps: Tensor, *, seconds: float | None = None, least_score: float | None = None) -> list[Segment]:
        """Steps (S, D) of a whole video -> its segments, in order.

        seconds: the length of the video, which no segment outlasts. least_score: `threshold`, if left out.
        """
        streamer = SegmentStreamer(self.pyramid, least_score=least_score or self.threshold)
        found = [*streamer.push(steps), *streamer.finish()]
        return sorted((self.in_seconds(one, seconds) for one in found), key=lambda one: one.start_seconds)

    def steps(self, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Blocks of frames -> what the model sees at their steps, (t, D) each time, t > 0."""
        streamer = self.step_streamer()
        for block in blocks:
            if len(steps := streamer.push(block.to(self.device))):
                yield steps.float().cpu()
        if len(steps := streamer.finish()):
            yield steps.float().cpu()

    def see(self, path: str | Path, *, change: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """A video -> what the model sees at its steps, (S, D).

        change: of blocks of frames (C, T, H', W'), scaled and not yet cropped, to (C, T, H, W).

        Raises:
            MediaError: the video cannot be read to its end.
        """
        frames, spec = BLOCK_STEPS * self.model.embed.stride[0], self.spec
        if change:
            spec = replace(spec, crop=spec.resize)
        blocks = from_file(path, spec, block_frames=frames, threads=1).blocks
        pieces = [*self.steps(map(change, blocks) if change else blocks)]
        if not pieces:
            shortest = f"shorter than one step of {2 * self.middle_seconds:.3g} s"
            raise MediaError(str(path), "no-frames", shortest, "Leave it out")
        return torch.cat(pieces)

    def in_seconds(self, one: StepSegment, seconds: float | None = None) -> Segment:
        start, end = (step * self.step_seconds + self.middle_seconds for step in (one.start, one.end))
        end = end if seconds is None else min(end, seconds)
        return Segment(max(0.0, min(start, end)), end, self.names[one.number], one.score)

    def in_steps(self, seconds: Tensor) -> Tensor:
        """Seconds -> steps, 0 at the middle of the first."""
        return (seconds - self.middle_seconds) / self.step_seconds


def finds_segments(run: str | os.PathLike[str]) -> bool:
    """Whether the model of a run has a pyramid beside it."""
    return not is_exported(run) and ABOUT in open_model(run).about
