"""The clips that a training learns from, one epoch after the other, each in its own order."""

from collections.abc import Callable
from functools import lru_cache
from itertools import count
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from tubelet.data.augment import change_clips
from tubelet.data.bad_files import BadFiles
from tubelet.data.dataset import Changes, Drawn
from tubelet.system.device import hand_over

EPOCHS_REMEMBERED = 4
CPU = torch.device("cpu")

Order = Callable[..., np.ndarray]  # (targets, *, seed, epoch) -> the clips of an epoch by number


class Pool(Protocol):
    """What clips are drawn from, by number: `Clips`, or their features."""

    @property
    def targets(self) -> Tensor: ...  # (N, ...)

    @property
    def bad(self) -> BadFiles: ...

    def __len__(self) -> int: ...

    def is_bad(self, number: int) -> bool: ...

    def draw(
        self, number: int, changes: Changes, rng: np.random.Generator, *, single_frame: bool = False
    ) -> Drawn | None: ...


def shuffled_order(targets: Tensor, *, seed: int, epoch: int) -> np.ndarray:
    """Every clip once, (N,); targets (N, ...)."""
    return np.random.default_rng([seed, epoch]).permutation(len(targets))


def balanced_order(targets: Tensor, *, seed: int, epoch: int) -> np.ndarray:
    """Classes (N,) -> clips (N,), every class as often as the others: the clips of each are gone through in turn, those
    of rare ones several times in an epoch, those of frequent ones over several epochs."""
    by_clip, chosen = targets.numpy(), []
    classes = np.unique(by_clip)
    for number, label in enumerate(classes.tolist()):
        own = np.flatnonzero(by_clip == label)
        # visits before this epoch and with it; over all classes they add up to whole epochs
        before, after = ((one * len(by_clip) + number) // len(classes) for one in (epoch, epoch + 1))
        turns, places = np.divmod(np.arange(before, after), len(own))
        for turn in np.unique(turns).tolist():
            order = np.random.default_rng([seed, turn, label]).permutation(own)
            chosen.append(order[places[turns == turn]])
    return np.random.default_rng([seed, epoch]).permutation(np.concatenate(chosen))


class Epochs:
    """Clips by their position in endless epochs.

    Every draw is a function of the seed and the position, never of a state: a training that was stopped goes on bit for
    bit, and the clips do not depend on how many processes share the work.

    device: where batches are changed, and stay.
    """

    def __init__(
        self,
        clips: Pool,
        changes: Changes,
        *,
        seed: int,
        order: Order = shuffled_order,
        single_frame: bool = False,
        device: torch.device = CPU,
    ):
        self.clips, self.changes, self.seed, self.single_frame = clips, changes, seed, single_frame
        self.device = device
        targets = clips.targets
        self.order = lru_cache(EPOCHS_REMEMBERED)(lambda epoch: order(targets, seed=seed, epoch=epoch))

    def draw(self, position: int) -> Drawn:
        """The clip at a position and its label, or that of each step.

        The place of one that cannot be read is taken by the next of the epoch that can, varied otherwise than in its
        own turn. This follows from the position and from which files are bad alone: neither from who met them first
        nor from when.

        Raises:
            ValueError: more clips than `--max-bad` allows, or all, cannot be read.
        """
        skips = 0
        while True:
            self.clips.bad.check()
            number, epoch = self.find(position, skips=skips)
            rng = np.random.default_rng([self.seed, epoch, number] + ([skips] if skips else []))
            found = self.clips.draw(number, self.changes, rng, single_frame=self.single_frame)
            if found is not None:
                return found
            skips += 1

    def draw_batch(self, first: int, size: int) -> tuple[Tensor, list[str]]:
        """The clips from a position on, (size, C, T, H, W), changed, and their labels, or those of all their steps."""
        drawn = [self.draw(position) for position in range(first, first + size)]
        clips, changes = [one.clip for one in drawn], [one.change for one in drawn if one.change]
        labels = [label for one in drawn for label in one.labels]
        if changes:
            return change_clips(clips, changes, self.device), labels
        return hand_over(torch.stack(clips), self.device), labels

    def find(self, position: int, *, skips: int = 0) -> tuple[int, int]:
        """The clip at a position by number, and its epoch; or the clip `skips` places further in the order of that
        epoch, whose end its beginning follows."""
        epoch, place = divmod(position, len(self.clips))
        order = self.order(epoch)
        return int(order[(place + skips) % len(order)]), epoch

    def find_readable(self, position: int) -> int:
        """The clip that is learned from at a position, once the bad ones are known."""
        numbers = (self.find(position, skips=skips)[0] for skips in count())
        return next(number for number in numbers if not self.clips.is_bad(number))
