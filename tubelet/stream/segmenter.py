"""A model and its pyramid: from a video to the segments in it, as they become certain."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tubelet.data.clip_spec import ClipSpec
from tubelet.features.store import hash_encoder
from tubelet.media.reader import index
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.nn.pyramid import Pyramid, PyramidConfig
from tubelet.nn.segment_streamer import SegmentStreamer, StepSegment
from tubelet.nn.step_streamer import StepStreamer
from tubelet.stream.segments import Segment
from tubelet.stream.source import from_file
from tubelet.weights.store import ModelFile

ABOUT, BESIDE = "segments", "pyramid."  # where a checkpoint holds what a segmenter is, and its tensors
BLOCK_STEPS = 64  # read and seen at a time


@dataclass(frozen=True)
class Segmenter:
    """Finds segments of the classes `names`. threshold: the score from which on they are shown.

    Steps are tubelets. A step stands for the middle of the time that its tubelet spans.
    """

    model: SpaceTimeTransformer
    pyramid: Pyramid
    spec: ClipSpec
    names: tuple[str, ...]
    threshold: float
    device: torch.device = field(default=torch.device("cpu"))

    @classmethod
    def read(cls, file: ModelFile, model: SpaceTimeTransformer, device: torch.device) -> "Segmenter | None":
        """That of a checkpoint; None where it has none. Raises ValueError where it is damaged."""
        about = file.about.get(ABOUT)
        if about is None:
            return None
        try:
            pyramid = Pyramid(PyramidConfig(**about["pyramid"]))
            pyramid.load_state_dict(file.beside(BESIDE))
            names, threshold = tuple(file.about["task"]["names"]), float(about["threshold"])
            if len(names) != pyramid.config.num_classes or not 0 < threshold <= 1:
                raise ValueError(f"{len(names)} names, threshold {threshold}")
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"{file.file}: what finds segments in it is damaged ({error}): copy or train it again"
            ) from error
        return cls(model, pyramid, ClipSpec.from_json(file.about["clip_spec"]), names, threshold, device)

    def to_json(self) -> dict[str, Any]:
        """What a checkpoint says of it, beside the tensors of the pyramid."""
        return {"pyramid": self.pyramid.config.to_json(), "threshold": self.threshold}

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds of it beside the weights of the model."""
        return {f"{BESIDE}{name}": tensor for name, tensor in self.pyramid.state_dict().items()}

    @property
    def delay_seconds(self) -> float:
        """The time, at most, from the end of a segment to its answer."""
        ahead = SegmentStreamer(self.pyramid, least_score=self.threshold).delay + step_streamer(self).delay
        return ahead * step_seconds(self.model, self.spec)

    def stream(
        self, blocks: Iterable[Tensor], *, seconds: float | None = None, least_score: float | None = None
    ) -> Iterator[Segment]:
        """Blocks of frames (C, T, H, W), uint8 -> the segments, as soon as nothing can change them any more.

        seconds: the length of the video, where it is known: no segment ends later. least_score: `threshold`, if left
        out.
        """
        streamer = SegmentStreamer(self.pyramid, least_score=least_score or self.threshold)
        for steps in self.steps(blocks):
            yield from (self.in_seconds(one, seconds) for one in streamer.push(steps))
        yield from (self.in_seconds(one, seconds) for one in streamer.finish())

    def steps(self, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Blocks of frames -> what the model sees at their steps, (t, D) each time."""
        streamer = step_streamer(self)
        for block in blocks:
            yield streamer.push(block.to(self.device)).float().cpu()
        yield streamer.finish().float().cpu()

    def find(self, steps: Tensor, *, seconds: float | None = None, least_score: float | None = None) -> list[Segment]:
        """Steps (t, D) of a whole video -> its segments, in order."""
        streamer = SegmentStreamer(self.pyramid, least_score=least_score or self.threshold)
        found = [*streamer.push(steps), *streamer.finish()]
        return sorted((self.in_seconds(one, seconds) for one in found), key=lambda one: one.start_seconds)

    def in_seconds(self, one: StepSegment, seconds: float | None) -> Segment:
        start, end = (step_time(self.model, self.spec, at) for at in (one.start, one.end))
        end = end if seconds is None else min(end, seconds)
        return Segment(max(0.0, min(start, end)), end, self.names[one.number], one.score)


def step_streamer(found: Segmenter) -> StepStreamer:
    return StepStreamer(found.model, window=found.spec.frames)


def step_seconds(model: SpaceTimeTransformer, spec: ClipSpec) -> float:
    """From one step to the next."""
    return model.embed.stride[0] * spec.seconds_between_frames


def step_time(model: SpaceTimeTransformer, spec: ClipSpec, step: float) -> float:
    """Steps, 0 at the middle of the first -> seconds."""
    return step * step_seconds(model, spec) + model.embed.patch[0] * spec.seconds_between_frames / 2


def time_step(model: SpaceTimeTransformer, spec: ClipSpec, seconds: Tensor) -> Tensor:
    """Seconds -> steps, 0 at the middle of the first."""
    return (seconds - model.embed.patch[0] * spec.seconds_between_frames / 2) / step_seconds(model, spec)


def hash_seen(model: SpaceTimeTransformer, spec: ClipSpec) -> str:
    """The key of the features of steps that a whole model sees in windows of its clips."""
    return hash_encoder(model, encoders=len(model.encoders), clip_spec=spec.to_json(), windows="half")


def read_blocks(path: Path, model: SpaceTimeTransformer, spec: ClipSpec) -> tuple[Iterable[Tensor], float]:
    """The frames of a video, block by block, and its seconds. Raises MediaError where it cannot be opened; reading it
    on may, too."""
    footage = from_file(path, spec, block_frames=BLOCK_STEPS * model.embed.stride[0], threads=1)
    return footage.blocks, index(path).duration_seconds
