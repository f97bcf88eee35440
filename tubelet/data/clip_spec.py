"""ClipSpec: all that lies between a file and the numbers a model sees; it travels with the model."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from tubelet.system.text import is_count, is_number

Kind = Literal["video", "image", "sound"]
Channels = Literal["rgb", "bgr", "gray", "mel"]

# What no clip comes near: a spec may come from anywhere, and clips of its size will be made.
_MOST = 2**20
_MOST_PIXELS = 2**30


@dataclass(frozen=True, kw_only=True)
class ClipSpec:
    """The way from a file to a clip (C, T, H, W). Raises ValueError where the fields contradict each other.

    kind: what the files are.
    frames: T; 1 for images and sound.
    seconds_between_frames: video: from one frame to the next; sound: from one column of the spectrogram to the next
        (the hop); image: 0.0.
    resize: (H, W) box, in px, that a resized frame just covers; its longer side may stand out.
    crop: (H, W) px given to the model, cut from the centre unless said otherwise. Sound: (mel bins, columns), and
        resize equals crop.
    mean, std: one number for each channel, for pixels in [0, 1]; sound: for log-mel values.
    channels: their order in the clip.
    sample_rate: samples per second; read for sound only.
    """

    kind: Kind = "video"
    frames: int
    seconds_between_frames: float
    resize: tuple[int, int]
    crop: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: Channels = "rgb"
    sample_rate: int = 16000

    def __post_init__(self) -> None:
        if fault := next(self._faults(), ""):
            raise ValueError(f"ClipSpec: {fault}")

    @property
    def clip_size(self) -> tuple[int, int, int]:
        """(T, H, W) of the clip given to the model."""
        return (self.frames, *self.crop)

    @property
    def num_channels(self) -> int:
        """C of the clip."""
        return 3 if self.channels in ("rgb", "bgr") else 1

    @property
    def span_seconds(self) -> float:
        """Time one clip stands for: each frame (sound: each column) lasts until the next; 0.0 for images."""
        steps = self.crop[1] if self.kind == "sound" else self.frames
        return steps * self.seconds_between_frames

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values; `from_json` takes them back without loss."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "ClipSpec":
        """Inverse of `to_json`. Raises ValueError that names each unknown or missing key."""
        if not isinstance(values, dict):
            raise ValueError(f"ClipSpec: a {type(values).__name__}, expected an object with its fields")
        names = {field.name for field in fields(cls)}
        unknown, missing = sorted(set(values) - names), sorted(names - set(values))
        if unknown or missing:
            raise ValueError(
                f"ClipSpec: unknown keys {unknown}, missing keys {missing}; expected exactly {sorted(names)}"
            )
        known: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**known)

    def _faults(self) -> Iterator[str]:
        """Faults of the fields, of which the first is raised: types before values, for later lines rely on them."""
        for name, words in (("kind", get_args(Kind)), ("channels", get_args(Channels))):
            if getattr(self, name) not in words:
                yield f"{name}={getattr(self, name)!r}, expected one of {', '.join(words)}"
        if (self.kind == "sound") != (self.channels == "mel"):
            yield (
                f"kind={self.kind!r} with channels={self.channels!r}; sound has channels='mel', video and images have "
                "'rgb', 'bgr' or 'gray'"
            )
        for name in ("resize", "crop"):
            size = getattr(self, name)
            if not (isinstance(size, tuple) and len(size) == 2 and all(is_count(side) for side in size)):
                yield f"{name}={size!r}, expected (H, W), two whole numbers from 1 up"
        if self.crop[0] > self.resize[0] or self.crop[1] > self.resize[1]:
            yield f"crop={self.crop} is larger than resize={self.resize}; enlarge resize"
        if self.kind == "sound" and self.crop != self.resize:
            yield f"crop={self.crop}, resize={self.resize}; sound is not resized, make them equal"
        for name in ("frames", "sample_rate"):
            if not is_count(getattr(self, name)):
                yield f"{name}={getattr(self, name)!r}, expected a whole number from 1 up"
        pixels = max(math.prod(self.resize), math.prod(self.clip_size))
        if max(*self.resize, *self.clip_size) > _MOST or pixels > _MOST_PIXELS:
            yield (
                f"frames={self.frames}, resize={self.resize}, crop={self.crop}; expected at most {_MOST} along an axis "
                f"and {_MOST_PIXELS} pixels in all"
            )
        if self.kind != "video" and self.frames != 1:
            yield f"frames={self.frames} with kind={self.kind!r}; expected frames=1"
        seconds = self.seconds_between_frames
        if not is_number(seconds):
            yield f"seconds_between_frames={seconds!r}, expected a finite number"
        if self.kind == "image" and seconds != 0:
            yield f"seconds_between_frames={seconds} with kind='image'; expected 0.0"
        if self.kind != "image" and seconds <= 0:
            yield f"seconds_between_frames={seconds}, expected more than 0 for {self.kind}"
        for name in ("mean", "std"):
            values = getattr(self, name)
            if not (isinstance(values, tuple) and all(is_number(value) for value in values)):
                yield f"{name}={values!r}, expected a tuple of finite numbers"
            if len(values) != self.num_channels:
                yield f"{name} has {len(values)} numbers, channels={self.channels!r} needs {self.num_channels}"
        if min(self.std) <= 0:
            yield f"std={self.std}, expected numbers above 0"
