"""Codes that `tubelet stream --save` wrote, in the place of the video that they were made of."""

from pathlib import Path

import torch
from torch import Tensor

from tubelet.data.clip_spec import ClipSpec
from tubelet.data.clips import Views
from tubelet.data.items import Item
from tubelet.media.reader import MediaError
from tubelet.media.sampling import view_starts, views_to_cover
from tubelet.nn.encoder import make_features
from tubelet.nn.grid import Grid
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.nn.split import encodes_steps_apart
from tubelet.stream.codes import read_steps


def holds_codes(path: str) -> bool:
    return Path(path).suffix == ".safetensors"


def check_codes(item: Item, model: SpaceTimeTransformer, key: str) -> Tensor:
    """The steps (t, D) in a file. Raises ValueError where they are of another model, or of no use to this one."""
    if not encodes_steps_apart(model):
        raise ValueError(f"{item.path}: codes are of no use to a {model.config.family} model: name the video")
    return read_steps(Path(item.path), key=key)


def step_seconds(model: SpaceTimeTransformer, spec: ClipSpec) -> float:
    return model.embed.stride[0] * spec.seconds_between_frames


def find_range(item: Item, steps: Tensor, seconds: float) -> tuple[float, float]:
    """Start and end of an item of steps, in seconds. Raises MediaError where nothing lies between."""
    start, end = item.start_seconds or 0.0, len(steps) * seconds
    end = end if item.end_seconds is None else min(item.end_seconds, end)
    if start >= end:
        problem = f"nothing lies between {start} s and {end} s of its steps"
        raise MediaError(item.path, "no-frames", problem, "Mend the times")
    return start, end


def cut_steps(item: Item, steps: Tensor, model: SpaceTimeTransformer, spec: ClipSpec, *, temporal: int | None) -> Views:
    """The steps of each view of an item, (V, t, D), which begin at the nearest whole steps to those of the video."""
    seconds, embed = step_seconds(model, spec), model.embed
    start, end = find_range(item, steps, seconds)
    count = views_to_cover(end - start, spec.span_seconds) if temporal is None else temporal
    length = min((spec.frames - embed.patch[0]) // embed.stride[0] + 1, len(steps))
    starts = (start + view_starts(end - start, spec.span_seconds, count)).tolist()
    clips = [steps[min(round(one / seconds), len(steps) - length) :][:length] for one in starts]
    return Views(torch.stack(clips), end - start, min(end - start, count * spec.span_seconds), tuple(starts))


def see_codes(model: SpaceTimeTransformer, steps: Tensor) -> Tensor:
    """The features of encoded steps, (V, t, D) -> (V, D'): those of the clips that they were made of."""
    steps = steps.to(next(model.encoders[-1].parameters()).dtype)
    return make_features(model.stack[1:], steps, Grid(steps.shape[1], 1, 1))
