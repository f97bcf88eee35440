"""From a file to the tensors a model sees, by its ClipSpec: the one way for training, evaluation and prediction."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tubelet.data.clip_spec import ClipSpec, Kind
from tubelet.media.reader import MediaError, index, read_frames, read_sounds
from tubelet.media.sampling import TIME_ROUNDING_SECONDS, clip_times, grid_times, view_starts, views_to_cover
from tubelet.media.spectrogram import SMALLEST_POWER, log_mel

# The windows of a spectrogram overlap: 25 ms every 10 ms is the usual for speech and general sound.
_WINDOW_HOPS = 2.5
_LUMA = (299, 587, 114)  # thousandths; ITU-R BT.601


@dataclass(frozen=True)
class Views:
    """The views of an item. clips: (V, C, T, H, W), uint8 or for sound float32. seconds: how long the item is;
    seconds_seen: how much of it the clips stand for, each frame for the time until the next. Both are 0 for an image.
    starts_seconds: in the file, of each time that is viewed.
    """

    clips: torch.Tensor
    seconds: float
    seconds_seen: float
    starts_seconds: tuple[float, ...]


def load_frames(
    path: str | Path, spec: ClipSpec, *, start_seconds: float, end_seconds: float | None = None
) -> torch.Tensor:
    """uint8 (C, T, H', W') from start_seconds on, resized to cover spec.resize, not cropped, not normalised.

    Sound: float32 (1, 1, mel, columns), normalised, ready for the model. Where the file or the item (end_seconds) ends
    before the clip does, its last frame is held; missing sound is silence.

    Raises: MediaError where the file cannot be read or is not of the spec's kind.
    """
    return load_clips(path, spec, starts_seconds=[start_seconds], end_seconds=end_seconds)[0]


def load_clips(
    path: str | Path, spec: ClipSpec, *, starts_seconds: Sequence[float], end_seconds: float | None = None
) -> list[torch.Tensor]:
    """`load_frames` from each start; the clips of a file are read in one pass, what they share is decoded once."""
    if spec.kind == "sound":
        return _load_spectrograms(path, spec, starts_seconds, end_seconds, columns=spec.crop[1])
    spacing = spec.seconds_between_frames or 1.0  # an image is on screen at any time
    times = [clip_times(start, frames=spec.frames, seconds_between_frames=spacing) for start in starts_seconds]
    frames = _read_times(path, spec, np.concatenate(times), end_seconds)
    return [to_channels(clip.permute(3, 0, 1, 2), spec) for clip in frames.split(spec.frames)]


def load_times(
    path: str | Path, spec: ClipSpec, times_seconds: np.ndarray, *, end_seconds: float | None = None
) -> torch.Tensor:
    """`load_frames` with frames at any times (T,) instead of those of a clip; sound: T columns from the first on."""
    if spec.kind == "sound":
        return _load_spectrograms(path, spec, times_seconds[:1].tolist(), end_seconds, columns=len(times_seconds))[0]
    return to_channels(_read_times(path, spec, times_seconds, end_seconds).permute(3, 0, 1, 2), spec)


def fine_times(spec: ClipSpec, start_seconds: float, end_seconds: float) -> np.ndarray:
    """Times (N,) of all that the clips of an item are made of in training: of frames, or of columns of sound.

    Which clips these are, `sampling.grid_clip` says.
    """
    if spec.kind == "image":
        return np.zeros(1)
    if spec.kind == "video":
        spacing = spec.seconds_between_frames
        return grid_times(start_seconds, end_seconds, frames=spec.frames, seconds_between_frames=spacing)
    columns = max(round((end_seconds - start_seconds) / spec.seconds_between_frames), spec.crop[1])
    hop = int(spec.sample_rate * spec.seconds_between_frames)  # columns are whole samples apart, see `log_mel`
    return (round(start_seconds * spec.sample_rate) + hop * np.arange(columns)) / spec.sample_rate


def views(path: str | Path, spec: ClipSpec, **settings: Any) -> torch.Tensor:
    """The clips of `load_views`, which takes the same settings: (temporal * spatial, C, T, H, W), uint8 or for sound
    float32."""
    return load_views(path, spec, **settings).clips


def load_views(
    path: str | Path,
    spec: ClipSpec,
    *,
    temporal: int | None = 1,
    spatial: int = 1,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
) -> Views:
    """(temporal * spatial, C, T, H, W) of an item, the views of one time together, and how much of it they show.

    temporal: clips spread evenly over the item, or over the file; None: as many as `views_to_cover` takes. spatial: 1
    (centre) or 3 (left, centre, right, or top, centre, bottom, along the side that stands out further).

    Raises: MediaError where the file cannot be read; ValueError for numbers of views that the kind does not have.
    """
    if (temporal is not None and temporal < 1) or spatial not in (1, 3):
        raise ValueError(f"views: temporal={temporal}, spatial={spatial}; expected temporal >= 1 and spatial 1 or 3")
    if (spec.kind == "image" and temporal not in (None, 1)) or (spec.kind == "sound" and spatial > 1):
        raise ValueError(
            f"views: temporal={temporal}, spatial={spatial} for {spec.kind}; images have one time, sound one place"
        )
    start, end = item_range(path, start_seconds=start_seconds, end_seconds=end_seconds)

    def load(starts_seconds: list[float]) -> list[torch.Tensor]:
        return load_clips(path, spec, starts_seconds=starts_seconds, end_seconds=end_seconds)

    return make_views(load, spec, start, end, temporal=temporal, spatial=spatial)


def make_views(
    load: Callable[[list[float]], list[torch.Tensor]],
    spec: ClipSpec,
    start_seconds: float,
    end_seconds: float,
    *,
    temporal: int | None,
    spatial: int,
) -> Views:
    """The views of what lies between two times, as `load_views` has them; `load` gives the clips from their starts on,
    not cropped."""
    seconds = end_seconds - start_seconds
    count = views_to_cover(seconds, spec.span_seconds) if temporal is None else temporal
    positions = (0.5,) if spatial == 1 else (0.0, 0.5, 1.0)
    starts = (start_seconds + view_starts(seconds, spec.span_seconds, count)).tolist()
    found = torch.stack([crop(clip, spec.crop, position=position) for clip in load(starts) for position in positions])
    return Views(found, seconds, min(seconds, count * spec.span_seconds), tuple(starts))


def crop(clip: torch.Tensor, size: tuple[int, int], *, position: float = 0.5) -> torch.Tensor:
    """(..., H', W') -> a view (..., H, W), (H, W) = size, from the centre, or moved along the side with more to spare.

    position: 0 is the left or top end of that side, 1 its right or bottom end.

    Raises: ValueError where the clip is smaller than size, or the position is outside [0, 1].
    """
    height, width = clip.shape[-2:]
    top, left = place_crop((height, width), size, position=position)
    return clip[..., top : top + size[0], left : left + size[1]]


def place_crop(frame: tuple[int, int], size: tuple[int, int], *, position: float = 0.5) -> tuple[int, int]:
    """Top and left in px of the view that `crop` takes of frames of (H', W'). Raises ValueError as it does."""
    spare_h, spare_w = frame[0] - size[0], frame[1] - size[1]
    if min(spare_h, spare_w) < 0 or not 0 <= position <= 1:
        raise ValueError(
            f"crop: size={size}, position={position} from frames of {frame}; "
            "expected a size that fits in and a position from 0 to 1"
        )
    top = int(spare_h * (position if spare_h > spare_w else 0.5))
    left = int(spare_w * (0.5 if spare_h > spare_w else position))
    return top, left


def check_kind(path: str | Path, kind: Kind) -> None:
    """Raises MediaError where a file holds something else than its suffix or its place among others promise."""
    if (found := index(path).kind) != kind:
        problem = f"the file is of kind {found!r}, the model takes {kind!r}"
        raise MediaError(str(path), "other-kind", problem, "Leave it out or convert it")


def item_range(path: str | Path, *, start_seconds: float | None, end_seconds: float | None) -> tuple[float, float]:
    """Start and end of an item, in seconds; None is the file's own start or end.

    Raises: MediaError where nothing lies between the two.
    """
    duration = index(path).duration_seconds
    start, end = start_seconds or 0.0, duration if end_seconds is None else min(end_seconds, duration)
    if start > 0 and start >= end:
        problem = f"nothing lies between {start} s and {end} s of a file of {duration} s"
        raise MediaError(str(path), "no-frames", problem, "Mend the times")
    return start, end


def _read_times(path: str | Path, spec: ClipSpec, times: np.ndarray, end_seconds: float | None) -> torch.Tensor:
    """uint8 rgb (T, H', W', 3); none later than the last frame that appears before end_seconds."""
    check_kind(path, spec.kind)
    if end_seconds is not None and spec.kind == "video":
        appear = index(path).times
        inside = appear[appear < end_seconds - TIME_ROUNDING_SECONDS]
        times = np.minimum(times, max(times.min(), inside[-1] if len(inside) else 0.0))
    return torch.from_numpy(read_frames(path, times, cover=spec.resize))


def to_channels(rgb: torch.Tensor, spec: ClipSpec) -> torch.Tensor:
    """uint8 (3, T, H, W) rgb -> (C, T, H, W) in the spec's channels, contiguous."""
    if spec.channels == "bgr":
        return rgb.flip(0)
    if spec.channels == "gray":
        weights = torch.tensor(_LUMA, dtype=torch.int32).view(3, 1, 1, 1)
        return ((rgb * weights).sum(0, keepdim=True) + 500).div(1000, rounding_mode="floor").to(torch.uint8)
    return rgb.contiguous()


def _load_spectrograms(
    path: str | Path, spec: ClipSpec, starts_seconds: Sequence[float], end_seconds: float | None, *, columns: int
) -> list[torch.Tensor]:
    """float32 (1, 1, mel, columns) from each start, normalised; columns past the end hold the value of silence."""
    rate, most = spec.sample_rate, samples_within(spec, columns)
    firsts = [round(start * rate) for start in starts_seconds]
    ends = [first + most if end_seconds is None else round(end_seconds * rate) for first in firsts]
    counts = [min(most, max(end - first, 1)) for first, end in zip(firsts, ends, strict=True)]
    spans = [(first / rate, count / rate) for first, count in zip(firsts, counts, strict=True)]
    return [make_spectrogram(samples, spec, columns) for samples in read_sounds(path, sample_rate=rate, spans=spans)]


def samples_within(spec: ClipSpec, columns: int) -> int:
    """The number of samples that so many columns are made of: whole windows, the last reaches past the last hop."""
    hop_seconds = spec.seconds_between_frames
    return round(((columns - 1) * hop_seconds + _WINDOW_HOPS * hop_seconds) * spec.sample_rate)


def make_spectrogram(samples: np.ndarray, spec: ClipSpec, columns: int) -> torch.Tensor:
    """(samples,) -> float32 (1, 1, mel, columns), normalised; columns past the end hold the value of silence."""
    mel_bins, hop_seconds = spec.crop[0], spec.seconds_between_frames
    found = log_mel(
        samples if samples.size else np.zeros(1, np.float32),
        sample_rate=spec.sample_rate,
        mel_bins=mel_bins,
        window_seconds=_WINDOW_HOPS * hop_seconds,
        hop_seconds=hop_seconds,
    )[:, :columns]
    silence = np.log(SMALLEST_POWER)
    spectrogram = np.pad(found, ((0, 0), (0, columns - found.shape[1])), constant_values=silence)
    return (torch.from_numpy(spectrogram).view(1, 1, mel_bins, columns) - spec.mean[0]) / spec.std[0]
