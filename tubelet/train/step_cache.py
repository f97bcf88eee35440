"""Recordings as a model sees them, step by step: made once, kept on disk, a file for each recording and view."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from tubelet.data.augment import augment
from tubelet.data.dataset import Changes
from tubelet.data.segments import Recording
from tubelet.features.store import feature_file, feature_folder, read_features, write_features
from tubelet.media.address import join, real
from tubelet.media.bytes import stat
from tubelet.media.reader import MediaError
from tubelet.predict.predictor import Predictor
from tubelet.stream.segmenter import Segmenter
from tubelet.system.console import Bar, bar, clock

Seen = tuple[Recording, Tensor]  # and its steps, (S, D)


class StepCache:
    """The steps of the recordings of `root`, as the model of a predictor sees them, in a folder of `cache`, or, left
    out, beside a run."""

    def __init__(self, predictor: Predictor, root: Path, cache: Path | None, run: Path, *, show: bool):
        self.segmenter, self.root, self.show = Segmenter.untrained(predictor, 1.0), root, show
        self.key = self.segmenter.key
        self.folder = feature_folder(cache, run, self.key)
        self.folder.mkdir(parents=True, exist_ok=True)

    def see(self, recordings: Sequence[Recording]) -> tuple[list[Seen], dict[str, str]]:
        """Recordings as they are; and why others cannot be read."""
        found, failed = list[Seen](), dict[str, str]()
        with bar("seeing", total_seconds(recordings), show=self.show) as progress:
            for one in recordings:
                try:
                    found.append((one, self.load(one)))
                except MediaError as error:
                    failed[one.path] = str(error)
                advance(progress, one)
        return found, failed

    def vary(self, recordings: Sequence[Recording], changes: Changes, *, views: int, seed: int) -> list[Seen]:
        """Each recording in so many views, changed at random, one draw for all of its frames; mirrored ones have the
        labels that `changes` says. Raises MediaError where one cannot be read."""
        found = list[Seen]()
        with bar("varying", views * total_seconds(recordings), show=self.show) as progress:
            for one in recordings:
                for view in range(views):
                    varied = View(changes, [seed, view, *hashlib.sha256(one.path.encode(errors="replace")).digest()])
                    found.append((varied.relabel(one), self.load(one, varied)))
                    advance(progress, one)
        return found

    def load(self, one: Recording, view: "View | None" = None) -> Tensor:
        """The steps of a recording, (S, D), from the disk or the video. Raises MediaError where it cannot be read."""
        path = join(self.root, one.path)
        try:
            state = stat(path)
        except MediaError:  # reading it says why
            return self.segmenter.see(path)
        identity = [real(path), state.size, state.changed, view and view.to_json()]
        file = feature_file(self.folder, identity)
        try:
            return read_features(file, key=self.key)[0]
        except (ValueError, OSError):  # not there, or not whole
            change = partial(view.change, size=self.segmenter.spec.crop) if view else None
            steps = self.segmenter.see(path, change=change)
            write_features(file, steps, key=self.key, path=str(path), seconds=(None, None))
            return steps


class View:
    """One way of changing a recording at random; the draws follow from `seeds`."""

    def __init__(self, changes: Changes, seeds: list[int]):
        self.changes, self.seeds = changes, seeds
        self.flip = changes.flipped is not None

    @property
    def mirrored(self) -> bool:
        return self.flip and bool(np.random.default_rng(self.seeds).random() < 0.5)  # as `augment` draws it

    def change(self, block: Tensor, *, size: tuple[int, int]) -> Tensor:
        """Frames uint8 (C, T, H', W') -> (C, T, H, W), all blocks of a video alike."""
        assert self.changes.augmentation
        rng, flip = np.random.default_rng(self.seeds), self.flip
        return augment(block, size=size, augmentation=self.changes.augmentation, flip=flip, reverse=False, rng=rng)[0]

    def relabel(self, one: Recording) -> Recording:
        partners = self.changes.flipped if self.mirrored else None
        if not partners:
            return one
        segments = tuple((start, end, partners.get(label, label)) for start, end, label in one.segments)
        return replace(one, segments=segments)

    def to_json(self) -> list[object]:
        return [self.seeds, self.flip, asdict(self.changes.augmentation) if self.changes.augmentation else None]


def total_seconds(recordings: Sequence[Recording]) -> int:
    return round(sum(one.seconds for one in recordings))


def advance(progress: Bar, one: Recording) -> None:
    speed = (progress.done + one.seconds) / max(time.monotonic() - progress.begun, 1e-9)
    whole = clock(progress.total or 0)
    progress.advance(f"{clock(progress.done)} of {whole}  {speed:.3g}x real time", by=round(one.seconds))
