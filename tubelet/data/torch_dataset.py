"""A torch Dataset of labelled clips, for a training loop of one's own."""

import os
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from tubelet.data.augment import Augmentation
from tubelet.data.bad_files import BadFile, find_fault
from tubelet.data.clip_spec import ClipSpec
from tubelet.data.dataset import Changes, Clips
from tubelet.data.health_cache import MANY, find_healths
from tubelet.data.items import Source
from tubelet.data.label_swaps import find_swaps, read_swaps
from tubelet.data.labels import LABELS
from tubelet.data.prefetch import processors
from tubelet.data.problems import some
from tubelet.data.sources import find_source
from tubelet.data.splits import assign_splits
from tubelet.media.reader import MediaError
from tubelet.tasks import Task, find_task

USUAL = Augmentation(reverse=True)  # where the names of the classes allow it
SPARE = 1.1  # sides of a frame over those of a clip, for crops


class ClipDataset(Dataset[tuple[Any, Any]]):
    """Labelled clips of a folder or a table, by number: clip (C, T, H, W) and label.

    >>> train = ClipDataset("clips/", frames=16, size=112, seconds_between_frames=0.1)
    >>> val = ClipDataset("clips/", split="val", spec=train.spec)

    A clip is uint8, as models of tubelet take it; of sound float32, normalised. A label is the number of a class, int;
    or float32 (outputs,): 1 or 0 for each class (multilabel), or the numbers (regression), NaN where nobody knows.
    In training, a clip is cut and varied at random by (seed, epoch, number) alone, however many processes read and in
    whatever order; else it is the middle one, bit for bit that of `tubelet eval --views 1x1`.

    task, spec, items: what is learned, the way from a file to a clip, and what was found, by number. bad: the files
    that `skip_bad` left out, each with the reason. notes: what was ignored or decided, a sentence each.
    """

    def __init__(
        self,
        data: str | os.PathLike[str],
        *,
        split: str | None = "train",
        spec: ClipSpec | None = None,
        frames: int | None = None,
        size: int | tuple[int, int] | None = None,
        seconds_between_frames: float | None = None,
        task: str | Task = "classification",
        labels: str | Sequence[str] | None = None,
        train: bool | None = None,
        augmentation: Augmentation | None = USUAL,
        label_swaps: str | os.PathLike[str] | None = None,
        transform: Callable[[Tensor], Any] | None = None,
        skip_bad: bool = False,
        val_share: float = 0.2,
        seed: int = 0,
    ) -> None:
        """Finds the clips and their labels; decodes nothing, but for a look with `skip_bad`.

        Args:
            data: folder of class folders, folder with train/ val/ test/, or table (path, label[, start, end, split,
                group]), as `tubelet train` takes them.
            split: "train", "val" or "test": the clips that `tubelet train` puts there. None: all there are.
            spec: the way from a file to a clip, such as `Predictor.spec`; or, for videos and images, the next three.
            frames, size, seconds_between_frames: T; H and W in px, or one number for both. Of images, size alone.
            task: "classification", "multilabel" or "regression"; or the task of a model, such as `Predictor.task`, so
                that labels are numbers of its classes.
            labels: column of the table that holds what is learned, or several; "label", or those of the model's task.
            train: whether clips are random and varied; if left out, those of the split "train" are.
            augmentation: the random changes; None takes random clips as they are.
            label_swaps: table of what each class becomes when its clip is mirrored or reversed, as `tubelet train`
                takes it; if left out, the names of the classes tell.
            transform: what is made of each clip last.
            skip_bad: look at all files first, and leave out those that cannot be read.
            val_share: share of the clips held out, where the data has no split of its own.
            seed: of the split and of every random draw.

        Raises:
            ValueError: data that `tubelet train` would refuse, with all that is wrong with them; no clips in the
                split; or a spec or a task that does not fit.
        """
        kind, given = (find_task(task), None) if isinstance(task, str) else (type(task), task)
        labels = labels or (given.names if given and not kind.gives_probabilities else LABELS)
        labels = (labels,) if isinstance(labels, str) else labels
        source = find_source(Path(data), kind.kind, labels, minimum=1 if given or split is None else 2)
        source = source if split is None else assign_splits(source, val_share=val_share, seed=seed)
        self.root, self.notes, self.seed, self.transform = source.root, source.notes, seed, transform
        self.task = choose_task(source, given)
        self.spec = choose_spec(source, spec, frames, size, seconds_between_frames)
        self.train = split == "train" if train is None else train
        self.changes = choose_changes(source, self.spec, augmentation, label_swaps)
        items = [item for item in source.items if split in (None, item.split)]
        self.bad = find_bad(Clips(self.root, items, self.task, self.spec, keep=False)) if skip_bad else ()
        left_out = {one.path for one in self.bad}
        self.items = [item for item in items if item.name not in left_out]
        if not self.items:
            found = f"{len(self.bad)} that cannot be read" if items else "none"
            there = ", ".join(sorted({item.split for item in source.items}))
            raise ValueError(f"{data}: clips of the split {split!r}: {found}; choose one of: {there}")
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # with workers that outlive an epoch

    @property
    def classes(self) -> list[str]:
        """Names of the outputs that a model needs."""
        return list(self.task.names)

    @cached_property
    def clips(self) -> Clips:
        return Clips(self.root, self.items, self.task, self.spec, keep=False)

    def set_epoch(self, epoch: int) -> None:
        """Makes the random clips those of an epoch, from 0 on; before its first clip is read. Workers hear of it."""
        self.epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, number: int) -> tuple[Any, Any]:
        """Clip and label. Raises MediaError for a file that cannot be read; in a worker, a ValueError with its text."""
        number = range(len(self))[number]
        try:
            clip, cell = self.draw(number) if self.train else (self.clips.centre(number), self.items[number].label)
        except MediaError as error:
            if get_worker_info() is None:
                raise
            raise ValueError(str(error)) from error  # DataLoader makes it anew, which a text must be enough for
        target = self.task.targets([cell])[0]
        return self.transform(clip) if self.transform else clip, target if target.ndim else target.item()

    def draw(self, number: int) -> tuple[Tensor, str]:
        """The clip of this epoch (C, T, H, W), as a training would draw it, and its cell, which may change with it."""
        found = self.clips.random(number, self.changes, np.random.default_rng([self.seed, int(self.epoch), number]))
        if found is None:
            fault = self.clips.bad.files[self.items[number].name]
            advice = "`tubelet check` names all such files"
            raise MediaError(str(self.clips.path(number)), fault.code, fault.message.removesuffix("."), advice)
        clip, (cell,) = found
        return clip, cell

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "clips"}  # there is a lock in them

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.epoch.share_memory_()


def choose_task(source: Source, given: Task | None) -> Task:
    """The task given, or the one of the data with what it takes from the training clips.

    Raises: ValueError for classes that the task given does not have, or another number of columns than it has.
    """
    if given is None:
        cells = [item.label for item in source.items if item.split in ("", "train")]
        return source.task.learn_from(source.task.targets(cells))
    if not given.gives_probabilities and len(source.task.names) != len(given.names):
        raise ValueError(f"labels={source.task.names}, expected as many columns as the task has: {some(given.names)}")
    if strangers := sorted(set(source.classes) - set(given.names)):
        known = some(given.names, most=20)
        raise ValueError(f"{source.root}: no classes of the task: {some(strangers)}; rename them to some of {known}")
    return given


def choose_spec(
    source: Source,
    spec: ClipSpec | None,
    frames: int | None,
    size: int | tuple[int, int] | None,
    seconds_between_frames: float | None,
) -> ClipSpec:
    """The spec given, or one of these numbers, for weights that have none.

    Raises: ValueError for too few numbers or too many, or a spec for files of another kind.
    """
    kind, numbers = source.kind, f"frames={frames}, size={size}, seconds_between_frames={seconds_between_frames}"
    if spec:
        if not (frames is size is seconds_between_frames is None):
            raise ValueError(f"a spec and {numbers}: give one of both; dataclasses.replace changes a spec")
        if spec.kind not in (kind, "sound"):  # videos have sound
            raise ValueError(f"{source.root}: files of kind {kind!r}, the spec is of kind {spec.kind!r}")
        return spec
    if kind == "image":
        frames, seconds_between_frames = frames or 1, seconds_between_frames or 0.0
    if kind == "sound" or frames is None or size is None or seconds_between_frames is None:
        wanted = "a spec" if kind == "sound" else "all three, or a spec"
        raise ValueError(f"{numbers} for files of kind {kind!r}; expected {wanted}")
    height, width = (size, size) if isinstance(size, int) else size
    return ClipSpec(
        kind=kind,
        frames=frames,
        seconds_between_frames=seconds_between_frames,
        resize=(round(height * SPARE), round(width * SPARE)),
        crop=(height, width),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
    )


def choose_changes(
    source: Source, spec: ClipSpec, augmentation: Augmentation | None, label_swaps: str | os.PathLike[str] | None
) -> Changes:
    """The changes of training clips, mirrored and reversed only where it is known what the labels become.

    Raises: ValueError as `read_swaps`, and for swaps of what is neither mirrored nor reversed.
    """
    plain = augmentation is None or spec.kind == "sound"
    if label_swaps and plain:
        raise ValueError(f"label_swaps={str(label_swaps)!r} for clips that are not mirrored or reversed: leave it out")
    if plain or not (source.classes or label_swaps):
        return Changes(augmentation=augmentation)
    swaps = read_swaps(Path(label_swaps), source.classes) if label_swaps else find_swaps(source.classes)
    reversed = swaps.reversed if spec.kind == "video" else None
    return Changes(augmentation=augmentation, flipped=swaps.mirrored, reversed=reversed)


def find_bad(clips: Clips) -> tuple[BadFile, ...]:
    """The items that cannot be read, by a quick look in processes of its own: a decoder may die of a file."""
    paths = [*dict.fromkeys(item.path for item in clips.items)]
    healths, _ = find_healths(clips.root, paths, workers=processors(), show=len(paths) >= MANY)
    kind = clips.spec.kind
    faults = ((item, find_fault(item, healths[item.path], kind)) for item in clips.items)
    return tuple(BadFile(item.name, *fault, item.split) for item, fault in faults if fault)
