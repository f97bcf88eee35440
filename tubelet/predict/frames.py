"""Frames, a picture or sound in memory, in the place of a file: what they may be, and the views of them.

| a model of | takes arrays of numpy, as readers give them | tensors of torch, as models take them |
|---|---|---|
| video | (T, H, W, 3) uint8, RGB | (3, T, H, W) uint8, RGB |
| images | (H, W, 3) uint8, RGB | (3, H, W) uint8, RGB |
| sound | (samples,) float in [-1, 1] | (samples,) float in [-1, 1] |

A batch has one axis more, before the others. Nothing is guessed: what does not look like this is an error.
"""

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor

from tubelet.data.clip_spec import ClipSpec
from tubelet.data.clips import Views, make_spectrogram, make_views, samples_within, to_channels
from tubelet.data.items import Item
from tubelet.media.sampling import clip_times, displayed_frames
from tubelet.media.scaled_frames import scale_frames

Clip = str | os.PathLike[str] | np.ndarray | Tensor  # a file, or what stands in its place

AXES = {"video": "THW", "image": "HW", "sound": ""}  # of a clip, without that of channels or samples


@dataclass(frozen=True, eq=False)
class Frames:
    """A clip in memory. values: uint8 RGB (T, H, W, 3), T = 1 of a picture, or of sound float32 (samples,)."""

    values: np.ndarray
    spec: ClipSpec
    seconds_between_frames: float

    def load_views(self, *, temporal: int | None, spatial: int) -> Views:
        """As those of a file that holds the same; see `load_views` of `tubelet.data.clips`."""
        rate = self.spec.sample_rate
        of_kind = {"video": len(self.values) * self.seconds_between_frames, "sound": len(self.values) / rate}
        load = self.load_sound if self.spec.kind == "sound" else self.load_frames
        return make_views(load, self.spec, 0.0, of_kind.get(self.spec.kind, 0.0), temporal=temporal, spatial=spatial)

    def load_frames(self, starts_seconds: list[float]) -> list[Tensor]:
        spec, spacing = self.spec, self.spec.seconds_between_frames or 1.0  # a picture is there at any time
        times = [clip_times(start, frames=spec.frames, seconds_between_frames=spacing) for start in starts_seconds]
        shown = displayed_frames(np.arange(len(self.values)) * self.seconds_between_frames, np.concatenate(times))
        wanted, places = np.unique(shown, return_inverse=True)
        frames = torch.from_numpy(scale_frames(self.values[wanted], spec.resize)[places])
        return [to_channels(clip.permute(3, 0, 1, 2), spec) for clip in frames.split(spec.frames)]

    def load_sound(self, starts_seconds: list[float]) -> list[Tensor]:
        spec, columns = self.spec, self.spec.crop[1]
        firsts = [round(start * spec.sample_rate) for start in starts_seconds]
        pieces = [self.values[first : first + samples_within(spec, columns)] for first in firsts]
        return [make_spectrogram(piece, spec, columns) for piece in pieces]


def is_path(clip: object) -> TypeGuard[str | os.PathLike[str]]:
    return isinstance(clip, str | os.PathLike)


def is_one(clip: object, spec: ClipSpec) -> bool:
    """Whether this is one clip, or none at all; not a batch, nor an iterable of clips."""
    if isinstance(clip, np.ndarray | Tensor):
        return clip.ndim != axes_of(spec) + 1
    return is_path(clip) or not isinstance(clip, Iterable)


def axes_of(spec: ClipSpec) -> int:
    return len(AXES[spec.kind]) + 1


def take(clip: object, spec: ClipSpec, *, frames_per_second: float | None) -> Item | Frames:
    """The item of a file, or the frames in its place; without a rate, frames are spaced as the ClipSpec says.

    Raises ValueError: what no file and no clip is, or a rate that it cannot have.
    """
    if frames_per_second is not None and (spec.kind != "video" or is_path(clip)):
        what = "files know their own rate" if is_path(clip) else f"{spec.kind} has no frames a second"
        raise ValueError(f"got frames_per_second={frames_per_second}, but {what}: leave it out")
    if frames_per_second is not None and not 0 < frames_per_second < math.inf:
        raise ValueError(f"got frames_per_second={frames_per_second}, expected a number above 0")
    if is_path(clip):
        return Item(os.fspath(clip), "")
    if not isinstance(clip, np.ndarray | Tensor):
        raise ValueError(
            f"got a {type(clip).__name__}, expected a path, {expected(spec, np.ndarray)}, or {expected(spec, Tensor)}: "
            "np.asarray makes an array of a picture, np.stack one of a list of frames"
        )
    values = take_sound(clip, spec) if spec.kind == "sound" else take_pixels(clip, spec)
    return Frames(values, spec, float(1 / frames_per_second) if frames_per_second else spec.seconds_between_frames)


def take_pixels(clip: np.ndarray | Tensor, spec: ClipSpec) -> np.ndarray:
    """uint8 RGB (T, H, W, 3), of a picture T = 1. Raises ValueError for another layout or another dtype."""
    refuse = partial(refuse_clip, clip, spec)
    if str(clip.dtype) not in ("uint8", "torch.uint8"):
        refuse("give pixels from 0 to 255, as they were read; resizing and normalising follow by the ClipSpec")
    threes = [axis for axis, size in enumerate(clip.shape) if size == 3]
    channels = 0 if isinstance(clip, Tensor) else axes_of(spec) - 1
    if clip.ndim != axes_of(spec):
        refuse("a clip of one frame has T = 1" if clip.ndim == axes_of(spec) - 1 else "one axis more is a batch")
    if channels not in threes:
        move = "clip.movedim({}, 0)" if isinstance(clip, Tensor) else "np.moveaxis(clip, {}, -1)"
        refuse(f"move the channels there: {move.format(threes[-1])}" if threes else "repeat a grey channel three times")
    if isinstance(clip, Tensor) and len(threes) > 1:  # of three frames, or with the channels at the end: who knows
        array = f"({', '.join([*AXES[spec.kind], '3'])})"
        refuse(f"axes {threes} could all be the channels: give an array of numpy, {array}, whose last they are")
    if 0 in clip.shape:
        refuse("there is nothing in it")
    pixels = clip.detach().cpu().movedim(0, -1).numpy() if isinstance(clip, Tensor) else clip
    return pixels if spec.kind == "video" else pixels[None]


def take_sound(clip: np.ndarray | Tensor, spec: ClipSpec) -> np.ndarray:
    """float32 (samples,). Raises ValueError for another layout, or for samples that are not in [-1, 1]."""
    sound = clip.detach().cpu().float().numpy() if isinstance(clip, Tensor) else clip
    refuse = partial(refuse_clip, clip, spec)
    if clip.ndim != 1 or not len(clip):
        refuse("one channel alone, the mean of all; one axis more is a batch")
    if not (clip.is_floating_point() if isinstance(clip, Tensor) else np.issubdtype(clip.dtype, np.floating)):
        refuse("divide whole numbers by their largest, as 32768 for int16")
    if not (np.abs(sound) <= 1).all():
        refuse(f"a sample is {sound[~(np.abs(sound) <= 1)][0]:g}: scale it, or cut it off with np.clip")
    return np.asarray(sound, np.float32)


def refuse_clip(clip: np.ndarray | Tensor, spec: ClipSpec, remedy: str) -> None:
    what = "a tensor" if isinstance(clip, Tensor) else "an array"
    raise ValueError(
        f"got {what} of {clip.dtype} {tuple(clip.shape)}, the model takes {expected(spec, type(clip))}: {remedy}"
    )


def expected(spec: ClipSpec, container: Any) -> str:
    """What a clip looks like, in words, as an array or as a tensor."""
    is_tensor = issubclass(container, Tensor)
    name = "a tensor" if is_tensor else "an array"
    if spec.kind == "sound":
        return f"{name} of float (samples,) from -1 to 1, {spec.sample_rate} a second"
    axes = ["3", *AXES[spec.kind]] if is_tensor else [*AXES[spec.kind], "3"]
    return f"{name} of uint8 ({', '.join(axes)}), RGB"
