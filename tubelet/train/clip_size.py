"""The clip that suits the data, the device and the time: how many frames, how far apart, of what size."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from math import sqrt
from operator import attrgetter
from pathlib import Path

import numpy as np
import torch

from tubelet.data.clip_spec import ClipSpec
from tubelet.data.clips import load_frames
from tubelet.data.items import Item, Source
from tubelet.data.prefetch import processors
from tubelet.media.address import join
from tubelet.system.spread import Spread, alone
from tubelet.train.config import TrainConfig
from tubelet.train.init import Start
from tubelet.train.preflight import Data

WIDEST_ASPECT = 2.0
SOUND_HOP_SECONDS = 0.01
MOST_SPACING_SECONDS = 0.25  # between two frames: what moves is lost from sight beyond that
SMALLEST_PX, LARGEST_PX = 48, 96  # short side of clips for the default model on a processor
PASSES = 100  # over the training clips, that a size must leave time for
# Of clips, that a processor learns from with the default model. Not measured here: a size must not hang on a moment.
PIXELS_A_SECOND = 1.5e6
MUCH_SMALLER = 4  # times that frames are shrunk before it is said


def choose_spec(
    config: TrainConfig,
    data: Data,
    device: torch.device,
    start: Start | None,
    *,
    patch: tuple[int, int],
    spread: Spread = alone,
) -> tuple[ClipSpec, list[str]]:
    """The ClipSpec of the weights to start from; else one for this data: a clip spans the median item, as far as motion
    allows, in the shape of the median frame. And notes on what that loses.

    patch: tubelet length and patch side of the model.
    """
    if start and start.spec:
        return like(start.spec, config), []
    if start and start.is_pretrained:
        start = None  # it leaves the clips to the data, as fresh weights do
    if start and start.model and not start.still:
        t, h, w = start.model.clip
        config = replace(config, frames=config.frames or t, size=config.size or (h, w))
    source, train = data.source, data.items("train")
    seconds = float(np.median(data.durations("train")))
    length, side = patch
    if source.kind == "sound":
        return sound_spec(config, source, train, seconds, side=side, spread=spread), []
    shapes = [(data.healths[item.path].width, data.healths[item.path].height) for item in train]
    aspect = float(np.median([width / height for width, height in shapes]))
    frames = 1 if source.kind == "image" else config.frames or multiple_near(usual_frames(start), length)
    on_gpu, on_others = (224, 112) if start else (112, SMALLEST_PX)  # px that are trained on within minutes
    short = multiple_near(on_gpu if device.type == "cuda" else on_others, side)
    native = float(np.median([min(shape) for shape in shapes]))
    if short == SMALLEST_PX and not (start or config.model):
        short = affordable_side(config, aspect, native_px=native, clips=len(train), frames=frames, side=side)
    height, width = config.size or rectangle(aspect, short=short, multiple=side)
    between = config.seconds_between_frames or min(max(seconds, 0.04) / frames, MOST_SPACING_SECONDS)
    notes = []
    if native > MUCH_SMALLER * min(height, width) and not config.size:
        lost = f"frames are shrunk {native / min(height, width):.0f} times, to {height}x{width} px, to learn in time"
        notes.append(f"{lost}: where what matters is small, crop the files or give a larger --size and more --minutes")
    if source.kind == "video" and frames * between < 0.5 * seconds:
        part = f"a clip is {frames * between:.3g} s of items of {seconds:.3g} s"
        notes.append(f"{part}: frames further apart would not show motion. Training and evaluation take several clips")
    grow = 1.1 if config.augment else 1.0
    spec = ClipSpec(
        kind=source.kind,
        frames=frames,
        seconds_between_frames=0.0 if source.kind == "image" else between,
        resize=(round(height * grow), round(width * grow)),
        crop=(height, width),
        mean=start.mean if start else (0.5, 0.5, 0.5),
        std=start.std if start else (0.25, 0.25, 0.25),
    )
    return spec, notes


def usual_frames(start: Start | None) -> int:
    """Frames of a clip, where no other number is asked for, but for whole tubelets."""
    return 8 if start and not start.is_pretrained else 16


def like(spec: ClipSpec, config: TrainConfig) -> ClipSpec:
    """The spec of a model that learned before, but for the frames and the size asked for now."""
    height, width = config.size or spec.crop
    return replace(
        spec,
        frames=config.frames or spec.frames,
        seconds_between_frames=config.seconds_between_frames or spec.seconds_between_frames,
        crop=(height, width),
        resize=(round(height * spec.resize[0] / spec.crop[0]), round(width * spec.resize[1] / spec.crop[1])),
    )


def affordable_side(config: TrainConfig, aspect: float, *, native_px: float, clips: int, frames: int, side: int) -> int:
    """Short side of a clip in px, a multiple of the patch: the largest that leaves time for `PASSES` over the data, by
    what processors usually learn from in a second. Never larger than the files."""
    if config.epochs is not None:
        return SMALLEST_PX
    seconds = 60 * config.minutes * processors()
    pixels = seconds * PIXELS_A_SECOND / (PASSES * clips * frames)
    short = sqrt(pixels / min(max(aspect, 1 / aspect), WIDEST_ASPECT))
    return max(SMALLEST_PX, side * int(min(short, native_px, LARGEST_PX) // side))


def multiple_near(number: float, step: int) -> int:
    return step * max(1, round(number / step))


def rectangle(aspect: float, *, short: int, multiple: int) -> tuple[int, int]:
    """(H, W) in px near the aspect ratio W / H, its short side `short`, filled by whole patches."""
    long = min(max(aspect, 1 / aspect), WIDEST_ASPECT) * short
    long = max(short, multiple_near(long, multiple))
    return (short, long) if aspect >= 1 else (long, short)


def sound_spec(
    config: TrainConfig, source: Source, train: Sequence[Item], seconds: float, *, side: int, spread: Spread
) -> ClipSpec:
    """Mel bins x columns of 10 ms that span the median item, normalised by the training data's own statistics."""
    hop = config.seconds_between_frames or SOUND_HOP_SECONDS
    columns = min(max(seconds / hop, 4 * side), 1024)
    mel, columns = config.size or (multiple_near(64, side), multiple_near(columns, side))
    spec = ClipSpec(
        kind="sound",
        frames=1,
        seconds_between_frames=hop,
        resize=(mel, columns),
        crop=(mel, columns),
        mean=(0.0,),
        std=(1.0,),
        channels="mel",
    )
    chosen = [train[i] for i in np.random.default_rng(config.seed).permutation(len(train))[:64]]
    values = torch.cat([*spread(partial(load_values, source.root, spec), chosen, file=attrgetter("path"))])
    return replace(spec, mean=(round(values.mean().item(), 4),), std=(round(max(values.std().item(), 1e-3), 4),))


def load_values(root: Path, spec: ClipSpec, items: Sequence[Item]) -> Iterator[torch.Tensor]:
    """All values of the first clip of each item, (N,)."""
    for item in items:
        yield load_frames(join(root, item.path), spec, start_seconds=item.start_seconds or 0.0).flatten()
