"""How clips were made for published models, as a ClipSpec: what the weights of others do not say of their input."""

from collections.abc import Sequence
from dataclasses import dataclass

from tubelet.data.clip_spec import ClipSpec

HOP_SECONDS = 0.010
SAMPLE_RATE = 16_000
SOUND = ("hf-ast", "audiomae")
IMAGES = ("timm",)

Statistics = tuple[float, ...]


@dataclass(frozen=True)
class Video:
    """A published video model took every `step`-th frame of files of so many frames a second, short side resized to
    `box_px` for a crop of 224 px. `why`: where these numbers are from."""

    step: int
    frames_per_second: int
    box_px: int
    why: str


VIVIT = Video(2, 25, 256, "as ViViT on Kinetics")
VIDEOMAE = Video(4, 30, 224, "as VideoMAE on Kinetics, if its files have 30 frames a second")
VJEPA2 = Video(1, 4, 256, "a guess: V-JEPA 2 was pretrained so, its classifiers differ")
TIMESFORMER_STEPS = {8: 32, 16: 16, 96: 4}  # by frames of a clip: the models called base, HR and L


def video_origin(dialect: str, frames: int) -> Video | None:
    """How the model of a dialect saw its files; None for one that is not known by its dialect."""
    if dialect in ("timesformer", "hf-timesformer"):
        step = TIMESFORMER_STEPS.get(frames, max(1, 256 // frames))
        return Video(step, 30, 256, "as TimeSformer on Kinetics, if its files have 30 frames a second")
    return {"scenic": VIVIT, "hf-vivit": VIVIT, "hf-videomae": VIDEOMAE, "hf-vjepa2": VJEPA2}.get(dialect)


def clip_spec(
    dialect: str,
    clip: tuple[int, int, int],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    channels: int,
    seconds_between_frames: float | None = None,
    crop_share: float | None = None,
    sample_rate: int | None = None,
) -> tuple[ClipSpec | None, list[str]]:
    """The ClipSpec for weights in `dialect`, and notes on what in it is a convention; None where too little is known.

    Args:
        clip: (T, H, W), (1, mel, columns) for sound.
        mean, std: one number, or one for each channel; sound: for log-mel values.
        seconds_between_frames: instead of the convention.
        crop_share: images: side of the crop for each side of the resized picture.
        sample_rate: sound: samples per second.
    """
    frames, crop = clip[0], clip[1:]
    mean, std = (tuple(values) * (channels if len(values) == 1 else 1) for values in (mean, std))
    if dialect in SOUND:
        hop_seconds = HOP_SECONDS if seconds_between_frames is None else seconds_between_frames
        return sound_spec(crop, mean, std, hop_seconds, sample_rate or SAMPLE_RATE), []
    origin = video_origin(dialect, frames)
    if channels == 3 and dialect in IMAGES:
        return image_spec(crop, mean, std, crop_share or 1.0), []
    if channels != 3 or origin is None:
        return None, [f"no ClipSpec: how clips of {channels} channels were made for {dialect} is not known"]
    usual = origin.step / origin.frames_per_second
    spec = ClipSpec(
        frames=frames,
        seconds_between_frames=usual if seconds_between_frames is None else seconds_between_frames,
        resize=(crop[0] * origin.box_px // 224, crop[1] * origin.box_px // 224),
        crop=crop,
        mean=mean,
        std=std,
    )
    return spec, [f"frames {usual:.3g} s apart, {origin.why}"] if seconds_between_frames is None else []


def image_spec(crop: tuple[int, int], mean: Statistics, std: Statistics, crop_share: float) -> ClipSpec:
    box = (int(crop[0] / crop_share), int(crop[1] / crop_share))
    return ClipSpec(kind="image", frames=1, seconds_between_frames=0.0, resize=box, crop=crop, mean=mean, std=std)


def sound_spec(
    crop: tuple[int, int], mean: Statistics, std: Statistics, hop_seconds: float, sample_rate: int
) -> ClipSpec:
    return ClipSpec(
        kind="sound",
        frames=1,
        seconds_between_frames=hop_seconds,
        resize=crop,
        crop=crop,
        mean=mean,
        std=std,
        channels="mel",
        sample_rate=sample_rate,
    )
