"""The clips of a training: decoded once and kept where memory allows, cut and changed at random from there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tubelet.data.augment import Augmentation, augment, augment_sound
from tubelet.data.clips import crop, item_range, load_frames, load_random
from tubelet.data.items import Item
from tubelet.data.spec import ClipSpec
from tubelet.media.reader import MediaError

# A kept item is sampled this many times finer than a clip, so that clips may begin between two frames of another.
FINER = 2
PARTLY = frozenset({"damaged", "truncated"})  # codes of files that may have parts that can be read
ELSEWHERE = (0.5, 0.0, float(np.nextafter(1, 0)))  # draws of the middle, the first and the last clip of an item


@dataclass(frozen=True)
class BadFile:
    """A file of a data set that cannot be used: its name as in `Item`, why (a code and a sentence), and its split."""

    path: str
    code: str
    message: str
    split: str

    @classmethod
    def of(cls, item: Item, error: MediaError) -> "BadFile":
        return cls(item.name, error.code, error.message, item.split)


UserAugmentation = Callable[[Tensor], Tensor]  # (C, T, H, W), uint8 or for sound float -> same


@dataclass(frozen=True, kw_only=True)
class Changes:
    """How training clips are varied; None for `augmentation` takes them as they are.

    flip_labels, reverse_labels: the label that each label becomes when a clip is mirrored or played backwards; None
    where that must not happen. user: any callable, after ours.
    """

    augmentation: Augmentation | None
    flip_labels: tuple[int, ...] | None = None
    reverse_labels: tuple[int, ...] | None = None
    user: UserAugmentation | None = None


class Clips:
    """Labelled clips of a data set, by number.

    keep: hold each item's frames in memory, resized, after the first use. `bad`: the items that cannot be read, as
    `random` meets them; threads may share it.
    """

    def __init__(self, root: Path, items: Sequence[Item], classes: Sequence[str], spec: ClipSpec, *, keep: bool):
        self.root, self.items, self.spec, self.keep = root, list(items), spec, keep
        self.labels = [classes.index(item.label) for item in items]
        self.kept: dict[int, Tensor] = {}
        self.bad: dict[int, BadFile] = {}

    def __len__(self) -> int:
        return len(self.items)

    def path(self, number: int) -> Path:
        return self.root / self.items[number].path

    def random(
        self, number: int, changes: Changes, rng: np.random.Generator, *, single_frame: bool = False
    ) -> tuple[Tensor, int] | None:
        """One clip of an item, its start drawn at random, changed: (C, T, H, W) and its label; or one frame of it.
        None where it cannot be read; `bad` says why."""
        clip, label = self.readable(number, rng.random()), self.labels[number]
        if clip is None:
            return None
        if single_frame:
            clip = clip[:, [rng.integers(clip.shape[1])]]
        if self.spec.kind == "sound":
            clip = augment_sound(clip, rng=rng) if changes.augmentation else clip
        elif changes.augmentation is None:
            clip = crop(clip, self.spec.crop)
        else:
            clip, label = augment(
                clip,
                label,
                size=self.spec.crop,
                augmentation=changes.augmentation,
                flip_labels=changes.flip_labels,
                reverse_labels=changes.reverse_labels,
                rng=rng,
            )
        return (changes.user(clip) if changes.user else clip), label

    def centre(self, number: int) -> Tensor:
        """The middle clip of an item, cut from the centre: (C, T, H, W)."""
        clip = self.cut(number, 0.5)
        return clip if self.spec.kind == "sound" else crop(clip, self.spec.crop)

    def cut(self, number: int, draw: float) -> Tensor:
        """Frames (C, T, H', W') of a clip that starts at a share `draw` in [0, 1) of where it may start."""
        item, spec = self.items[number], self.spec
        if not self.keep:
            where = {"start_seconds": item.start_seconds, "end_seconds": item.end_seconds}
            return load_random(self.path(number), spec, draw=draw, **where)
        frames = self.timeline(number)
        axis, length = (3, spec.crop[1]) if spec.kind == "sound" else (1, spec.frames)
        finer = FINER if spec.kind == "video" else 1
        choices = frames.shape[axis] - (length - 1) * finer
        first = min(int(draw * choices), choices - 1)
        return frames.index_select(axis, torch.arange(first, first + (length - 1) * finer + 1, finer))

    def readable(self, number: int, draw: float) -> Tensor | None:
        """`cut`, or where that part is damaged the first of a few others that is not; None where there is none, and
        the item is among `bad` then.

        What comes of a draw depends on the draw and the file alone: an item that was bad at one draw is tried again at
        another, unless no part of it can be better.
        """
        known = self.bad.get(number)
        if known and (self.keep or known.code not in PARTLY):
            return None
        for place in [draw] if known or self.keep else [draw, *ELSEWHERE]:
            try:
                return self.cut(number, place)
            except MediaError as error:
                fault = BadFile.of(self.items[number], error)
            if fault.code not in PARTLY:
                break
        self.bad.setdefault(number, fault)
        return None

    def timeline(self, number: int) -> Tensor:
        """All frames of an item, finer than a clip's, from memory after the first time."""
        if number not in self.kept:
            item, path = self.items[number], self.path(number)
            start, end = item_range(path, start_seconds=item.start_seconds, end_seconds=item.end_seconds)
            spec = fine_spec(self.spec, end - start)
            self.kept[number] = load_frames(path, spec, start_seconds=start, end_seconds=item.end_seconds)
        return self.kept[number]


def fine_spec(spec: ClipSpec, duration_seconds: float) -> ClipSpec:
    """The spec that reads a whole item at once: a clip's frames and those between them."""
    if spec.kind == "video":
        step = spec.seconds_between_frames / FINER
        frames = max(int(duration_seconds / step), FINER * (spec.frames - 1) + 1)
        return replace(spec, frames=frames, seconds_between_frames=step)
    if spec.kind == "sound":
        columns = max(round(duration_seconds / spec.seconds_between_frames), spec.crop[1])
        return replace(spec, resize=(spec.resize[0], columns), crop=(spec.crop[0], columns))
    return spec


def kept_bytes(spec: ClipSpec, durations_seconds: Sequence[float]) -> int:
    """Memory that `Clips(keep=True)` will fill, near enough: frames that stand out of the box are not counted."""
    total = 0
    for duration in durations_seconds:
        fine = fine_spec(spec, duration)
        total += fine.frames * fine.resize[0] * fine.resize[1] * fine.num_channels * (4 if spec.kind == "sound" else 1)
    return total
