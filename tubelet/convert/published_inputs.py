"""Inputs of published models as a ClipSpec, which the weights of others do not say."""

from functools import partial

from tubelet.data.clip_spec import ClipSpec
from tubelet.nn.config import ModelConfig
from tubelet.weights.dialects.reference import Source
from tubelet.weights.dialects.vit import IMAGENET_MEAN

HOP_SECONDS = 0.010
SAMPLE_RATE = 16_000
MULTI_LABEL = 527  # classes of AudioSet, of which several hold at once


def clip_spec(
    source: Source, config: ModelConfig, *, seconds_between_frames: float | None = None
) -> tuple[ClipSpec | None, list[str]]:
    """The ClipSpec for a model of `config` made from `source`, and notes on it; None where too little is known.

    seconds_between_frames: instead of the convention; of sound, between columns.
    """
    dialect, settings, channels = source.dialect.piece(config.family), source.settings, config.channels
    frames, crop = config.clip[0], config.clip[1:]
    mean, std = (tuple(values) * (channels if len(values) == 1 else 1) for values in (config.mean, config.std))
    notes = [dialect.note] if dialect.note else []
    video, seconds = dialect.video(frames), seconds_between_frames
    make = partial(ClipSpec, kind="video" if video else dialect.kind, crop=crop, mean=mean, std=std)
    if dialect.kind == "sound":
        if config.num_classes == MULTI_LABEL:
            notes.append("several of AudioSet's classes hold at once: read the probabilities as an order only")
        hop, rate = HOP_SECONDS if seconds is None else seconds, settings.sample_rate or SAMPLE_RATE
        return make(frames=1, seconds_between_frames=hop, resize=crop, channels="mel", sample_rate=rate), notes
    if channels != 3 or (dialect.kind == "video" and not video):
        unknown = f"no ClipSpec: how clips of {channels} channels were made for {dialect.name} is not known"
        return None, [unknown, *notes]
    if not video:
        if not settings.mean and config.mean == IMAGENET_MEAN:
            notes.append("mean and std are ImageNet's, for nothing beside the weights says others")
        share = settings.crop_share or 1.0
        return make(frames=1, seconds_between_frames=0.0, resize=(int(crop[0] / share), int(crop[1] / share))), notes
    if seconds is None:
        seconds = video.step / video.frames_per_second
        notes.insert(0, f"frames {seconds:.3g} s apart, {video.why}")
    box = (crop[0] * video.box_px // 224, crop[1] * video.box_px // 224)
    return make(frames=frames, seconds_between_frames=seconds, resize=box), notes
