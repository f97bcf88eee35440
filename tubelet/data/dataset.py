"""The clips of a training: decoded once and kept where memory allows, cut and changed at random from there."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tubelet.data.augment import Augmentation, Change, augment_sound, change_clip, draw_change
from tubelet.data.bad_files import BadFile, BadFiles
from tubelet.data.clip_spec import ClipSpec
from tubelet.data.clips import crop, fine_times, item_range, load_times, views
from tubelet.data.items import Item
from tubelet.data.kept import Kept
from tubelet.data.segments import StepLabels
from tubelet.media.address import join
from tubelet.media.reader import MediaError
from tubelet.media.sampling import FINER, grid_clip
from tubelet.tasks import Task

__all__ = ["FINER", "Changes", "Clips", "UserAugmentation", "kept_bytes"]
PARTLY = frozenset({"damaged", "truncated"})  # codes of files that may have parts that can be read
ELSEWHERE = (None, 0.0, float(np.nextafter(1, 0)))  # draws of the middle, the first and the last clip of an item


UserAugmentation = Callable[[Tensor], Tensor]  # (C, T, H, W), uint8 or for sound float -> same


@dataclass(frozen=True, kw_only=True)
class Changes:
    """The changes of training clips; None for `augmentation` takes them as they are.

    flipped, reversed: the class that each class becomes when a clip is mirrored or played backwards; None where that
    must not happen. user: any callable, after ours.
    """

    augmentation: Augmentation | None
    flipped: Mapping[str, str] | None = None
    reversed: Mapping[str, str] | None = None
    user: UserAugmentation | None = None


class Drawn(NamedTuple):
    """A clip, (C, T, H', W') where there is a change still to be made of it, else (C, T, H, W), and its label, or that
    of each step."""

    clip: Tensor
    change: Change | None
    labels: list[str]


class Clips:
    """Labelled clips of a data set, by number.

    steps: the labels of each step in time, where they are known. keep: hold each item's frames in memory, resized,
    after the first use; the clips are the same either way. kept: where they are held, of items by number, of middle
    clips by the number of items and theirs; a dictionary if left out. bad: told of the items that cannot be read, as
    `random` meets them; one of its own if left out.
    """

    def __init__(
        self,
        root: Path,
        items: Sequence[Item],
        task: Task,
        spec: ClipSpec,
        *,
        keep: bool,
        kept: Kept | None = None,
        bad: BadFiles | None = None,
        steps: StepLabels | None = None,
    ):
        self.root, self.items, self.task, self.spec, self.keep = root, list(items), task, spec, keep
        self.steps = steps
        self.targets = task.targets([item.label for item in items])
        self.kept: Kept = {} if kept is None else kept
        self.bad = BadFiles(root, train_files=len(self.items)) if bad is None else bad

    def __len__(self) -> int:
        return len(self.items)

    def is_bad(self, number: int) -> bool:
        """Whether an item is known to be one that cannot be read."""
        return self.items[number].name in self.bad

    def path(self, number: int) -> str | Path:
        return join(self.root, self.items[number].path)

    def random(
        self, number: int, changes: Changes, rng: np.random.Generator, *, single_frame: bool = False
    ) -> tuple[Tensor, list[str]] | None:
        """One clip of an item, its start drawn at random, changed: (C, T, H, W), or one frame of it; and its label, or
        that of each step. None where it cannot be read; `bad` says why."""
        drawn = self.draw(number, changes, rng, single_frame=single_frame)
        return drawn and (drawn.clip if drawn.change is None else change_clip(drawn.clip, drawn.change), drawn.labels)

    def draw(
        self, number: int, changes: Changes, rng: np.random.Generator, *, single_frame: bool = False
    ) -> Drawn | None:
        """`random` of which what a batch has in common is still to be done: the change that it says."""
        readable = self.readable(number, rng.random())
        if readable is None:
            return None
        (clip, draw), labels = readable, [self.items[number].label]
        if self.steps and not single_frame:
            times, spacing = self.times(number), self.spec.seconds_between_frames
            labels = self.steps.cells(self.path(number), times[self.choose_places(len(times), draw)], spacing)
        if single_frame:
            clip = clip[:, [rng.integers(clip.shape[1])]]
        if self.spec.kind == "sound":
            clip = augment_sound(clip, rng=rng) if changes.augmentation else clip
        elif changes.augmentation is None:
            clip = crop(clip, self.spec.crop)
        else:
            flipped, reversed = changes.flipped, changes.reversed
            change = draw_change(
                clip.shape,
                size=self.spec.crop,
                augmentation=changes.augmentation,
                flip=flipped is not None,
                reverse=reversed is not None,
                rng=rng,
            )
            for partners in (flipped if change.mirrored else None, reversed if change.backwards else None):
                labels = [self.task.swap(label, partners) for label in labels] if partners else labels
            labels = labels[::-1] if change.backwards else labels
            if not changes.user:
                return Drawn(clip, change, labels)
            clip = change_clip(clip, change)
        return Drawn(changes.user(clip) if changes.user else clip, None, labels)

    def centre(self, number: int) -> Tensor:
        """The middle clip of an item, cut from the centre: (C, T, H, W), bit for bit the one that evaluation takes."""
        if number in self.kept and self.spec.kind != "sound":  # of all sound, a window's values are rounded otherwise
            return crop(self.cut(number, None), self.spec.crop)
        middle = len(self.items) + number
        if middle in self.kept:
            return self.kept[middle]
        item, path = self.items[number], self.path(number)
        clip = views(path, self.spec, start_seconds=item.start_seconds, end_seconds=item.end_seconds)[0]
        if self.keep:
            self.kept[middle] = clip
        return clip

    def cut(self, number: int, draw: float | None) -> Tensor:
        """Frames (C, T, H', W') of the clip at a share `draw` in [0, 1) of the places where one may start, or, where it
        is None, of the one in the middle."""
        if self.keep:
            frames = self.timeline(number)
            axis = 3 if self.spec.kind == "sound" else 1
            return frames.index_select(axis, torch.from_numpy(self.choose_places(frames.shape[axis], draw)))
        times = self.times(number)
        chosen = times[self.choose_places(len(times), draw)]
        return load_times(self.path(number), self.spec, chosen, end_seconds=self.items[number].end_seconds)

    def choose_places(self, times: int, draw: float | None) -> np.ndarray:
        """Places in the `fine_times` of an item of the frames of a clip."""
        if self.spec.kind == "video":
            return grid_clip(times, draw, frames=self.spec.frames)
        return grid_clip(times, draw, frames=self.spec.crop[1] if self.spec.kind == "sound" else 1, finer=1)

    def times(self, number: int) -> np.ndarray:
        """The `fine_times` of an item."""
        item, path = self.items[number], self.path(number)
        return fine_times(self.spec, *item_range(path, start_seconds=item.start_seconds, end_seconds=item.end_seconds))

    def readable(self, number: int, draw: float | None) -> tuple[Tensor, float | None] | None:
        """`cut` and its draw, or where that part is damaged those of the first of a few others that is not; None where
        there is none, and the item is among `bad` then.

        What comes of a draw depends on the draw and the file alone: an item that was bad at one draw is tried again at
        another, unless no part of it can be better.
        """
        item = self.items[number]
        known = self.bad.get(item.name)
        if known and (self.keep or known.code not in PARTLY):
            return None
        for place in [draw] if known or self.keep else [draw, *ELSEWHERE]:
            try:
                return self.cut(number, place), place
            except MediaError as error:
                fault = BadFile(item.name, error.code, error.message, item.split)
            if fault.code not in PARTLY:
                break
        self.bad.add(fault)
        return None

    def timeline(self, number: int) -> Tensor:
        """All frames of an item, finer than a clip's, from memory after the first time."""
        if number not in self.kept:
            end = self.items[number].end_seconds
            self.kept[number] = load_times(self.path(number), self.spec, self.times(number), end_seconds=end)
        return self.kept[number]


def kept_bytes(spec: ClipSpec, durations_seconds: Sequence[float]) -> int:
    """Memory that `Clips(keep=True)` will fill, near enough: frames that stand out of the box are not counted."""
    height, width = (spec.resize[0], 1) if spec.kind == "sound" else spec.resize
    times = sum(len(fine_times(spec, 0.0, duration)) for duration in durations_seconds)
    return times * height * width * spec.num_channels * (4 if spec.kind == "sound" else 1)
