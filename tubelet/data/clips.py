"""From a file to the tensors a model sees, by its ClipSpec: the one way for training, evaluation and prediction."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from tubelet.data.spec import ClipSpec, Kind
from tubelet.media.reader import MediaError, index, read_frames, read_sound
from tubelet.media.sampling import TIME_ROUNDING_SECONDS, clip_times, random_start, view_starts
from tubelet.media.sound import SMALLEST_POWER, log_mel

# The windows of a spectrogram overlap: 25 ms every 10 ms is the usual for speech and general sound.
_WINDOW_HOPS = 2.5
_LUMA = (299, 587, 114)  # thousandths; ITU-R BT.601


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
    """`load_frames` from each start; the clips of a video are read in one pass, what they share is decoded once."""
    if spec.kind == "sound":
        return [_load_spectrogram(path, spec, start, end_seconds) for start in starts_seconds]
    check_kind(path, spec.kind)
    times = [_times(path, spec, start, end_seconds) for start in starts_seconds]
    frames = torch.from_numpy(read_frames(path, np.concatenate(times), cover=spec.resize))
    return [to_channels(clip.permute(3, 0, 1, 2), spec) for clip in frames.split(spec.frames)]


def load_random(
    path: str | Path,
    spec: ClipSpec,
    *,
    draw: float,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
) -> torch.Tensor:
    """`load_frames` from a start that `draw`, evenly distributed in [0, 1), picks within the item."""
    start, end = item_range(path, start_seconds=start_seconds, end_seconds=end_seconds)
    begin = start + random_start(end - start, spec.span_seconds, draw)
    return load_frames(path, spec, start_seconds=begin, end_seconds=end_seconds)


def views(
    path: str | Path,
    spec: ClipSpec,
    *,
    temporal: int = 1,
    spatial: int = 1,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
) -> torch.Tensor:
    """(temporal * spatial, C, T, H, W), uint8 or for sound float32; the views of one time stand together.

    temporal: clips spread evenly over the item, or over the file. spatial: 1 (centre) or 3 (left, centre, right, or
    top, centre, bottom, along the side that stands out further).

    Raises: MediaError where the file cannot be read; ValueError for numbers of views that the kind does not have.
    """
    if temporal < 1 or spatial not in (1, 3):
        raise ValueError(f"views: temporal={temporal}, spatial={spatial}; expected temporal >= 1 and spatial 1 or 3")
    if (spec.kind == "image" and temporal > 1) or (spec.kind == "sound" and spatial > 1):
        raise ValueError(
            f"views: temporal={temporal}, spatial={spatial} for {spec.kind}; images have one time, sound one place"
        )
    start, end = item_range(path, start_seconds=start_seconds, end_seconds=end_seconds)
    positions = (0.5,) if spatial == 1 else (0.0, 0.5, 1.0)
    starts = (start + view_starts(end - start, spec.span_seconds, temporal)).tolist()
    clips = load_clips(path, spec, starts_seconds=starts, end_seconds=end_seconds)
    return torch.stack([crop(clip, spec.crop, position=position) for clip in clips for position in positions])


def crop(clip: torch.Tensor, size: tuple[int, int], *, position: float = 0.5) -> torch.Tensor:
    """(..., H', W') -> a view (..., H, W), (H, W) = size, from the centre, or moved along the side with more to spare.

    position: 0 is the left or top end of that side, 1 its right or bottom end.

    Raises: ValueError where the clip is smaller than size, or the position is outside [0, 1].
    """
    spare_h, spare_w = clip.shape[-2] - size[0], clip.shape[-1] - size[1]
    if min(spare_h, spare_w) < 0 or not 0 <= position <= 1:
        raise ValueError(
            f"crop: size={size}, position={position} from frames of {tuple(clip.shape[-2:])}; "
            "expected a size that fits in and a position from 0 to 1"
        )
    top = int(spare_h * (position if spare_h > spare_w else 0.5))
    left = int(spare_w * (0.5 if spare_h > spare_w else position))
    return clip[..., top : top + size[0], left : left + size[1]]


def normalise(clip: torch.Tensor, spec: ClipSpec) -> torch.Tensor:
    """uint8 (..., C, T, H, W) -> float32, pixels in [0, 1] less spec.mean, over spec.std, as the model does inside.

    Raises: ValueError where the clip is not uint8 with the channels of the spec.
    """
    if clip.dtype != torch.uint8 or clip.ndim < 4 or clip.shape[-4] != spec.num_channels:
        raise ValueError(
            f"normalise: got {clip.dtype} {tuple(clip.shape)}, expected torch.uint8 (..., {spec.num_channels}, T, H, W)"
        )
    mean, std = (torch.tensor(values).view(-1, 1, 1, 1) for values in (spec.mean, spec.std))
    return (clip / 255 - mean) / std


def check_kind(path: str | Path, kind: Kind) -> None:
    """Raises MediaError where a file holds something else than its suffix or its place among others promise."""
    if (found := index(path).kind) != kind:
        problem = f"the file is of kind {found!r}, the model takes {kind!r}"
        raise MediaError(str(path), "other-kind", problem, "Leave it out or convert it")


def item_range(path: str | Path, *, start_seconds: float | None, end_seconds: float | None) -> tuple[float, float]:
    """Where an item starts and ends, in seconds; None is the file's own start or end.

    Raises: MediaError where nothing lies between the two.
    """
    duration = index(path).duration_seconds
    start, end = start_seconds or 0.0, duration if end_seconds is None else min(end_seconds, duration)
    if start > 0 and start >= end:
        problem = f"nothing lies between {start} s and {end} s of a file of {duration} s"
        raise MediaError(str(path), "no-frames", problem, "Mend the times")
    return start, end


def _times(path: str | Path, spec: ClipSpec, start_seconds: float, end_seconds: float | None) -> np.ndarray:
    """When the frames of the clip are on screen; none later than the last frame that appears before end_seconds."""
    if spec.kind == "image":
        return np.zeros(1)
    times = clip_times(start_seconds, frames=spec.frames, seconds_between_frames=spec.seconds_between_frames)
    if end_seconds is None:
        return times
    appear = index(path).times
    inside = appear[appear < end_seconds - TIME_ROUNDING_SECONDS]
    return np.minimum(times, max(start_seconds, inside[-1] if len(inside) else 0.0))


def to_channels(rgb: torch.Tensor, spec: ClipSpec) -> torch.Tensor:
    """uint8 (3, T, H, W) rgb -> (C, T, H, W) in the spec's channels, contiguous."""
    if spec.channels == "bgr":
        return rgb.flip(0)
    if spec.channels == "gray":
        weights = torch.tensor(_LUMA, dtype=torch.int32).view(3, 1, 1, 1)
        return ((rgb * weights).sum(0, keepdim=True) + 500).div(1000, rounding_mode="floor").to(torch.uint8)
    return rgb.contiguous()


def _load_spectrogram(
    path: str | Path, spec: ClipSpec, start_seconds: float, end_seconds: float | None
) -> torch.Tensor:
    """float32 (1, 1, mel, columns), normalised; columns past the end hold the value of silence."""
    mel_bins, columns = spec.crop
    hop_seconds, window_seconds = spec.seconds_between_frames, _WINDOW_HOPS * spec.seconds_between_frames
    seconds = (columns - 1) * hop_seconds + window_seconds  # whole windows: the last one reaches past the last hop
    if end_seconds is not None:
        seconds = min(seconds, end_seconds - start_seconds)
    samples = read_sound(path, sample_rate=spec.sample_rate, start_seconds=start_seconds, seconds=seconds)
    found = log_mel(
        samples if samples.size else np.zeros(1, np.float32),
        sample_rate=spec.sample_rate,
        mel_bins=mel_bins,
        window_seconds=window_seconds,
        hop_seconds=hop_seconds,
    )[:, :columns]
    silence = np.log(SMALLEST_POWER)
    spectrogram = np.pad(found, ((0, 0), (0, columns - found.shape[1])), constant_values=silence)
    return (torch.from_numpy(spectrogram).view(1, 1, mel_bins, columns) - spec.mean[0]) / spec.std[0]
