"""Features of labelled clips for a frozen encoder: computed once, kept on disk, drawn from as clips are.

A folder holds the features of one encoder under one way of cutting and varying clips; its name is their key. A feature
file in it holds those of one clip, and appears whole or not at all: a run that was stopped goes on, and new clips are
added to what is there.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tubelet.data.bad_files import BadFile, BadFiles
from tubelet.data.clips import item_range
from tubelet.data.dataset import FINER, Changes, Clips, Drawn
from tubelet.data.items import Item
from tubelet.data.prefetch import prefetch
from tubelet.features.store import FORMAT, feature_file, feature_folder, hash_encoder, read_features, write_features
from tubelet.media.address import join
from tubelet.media.bytes import stat
from tubelet.media.reader import MediaError
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.nn.split import count_first, encode
from tubelet.runs.run import FEATURES, Run
from tubelet.system.console import bar, clock, say, size
from tubelet.system.exits import Stopped
from tubelet.system.signals import signals
from tubelet.system.team import Team
from tubelet.train.plan import Plan

Views = tuple[Tensor, list[str]]  # of one clip, the centre first: clips (V, C, T, H, W) or codes (V, t, D); labels


@dataclass(frozen=True)
class Features:
    """The features of clips, in the place of `Clips`, by their numbers; a clip that cannot be read has none."""

    found: dict[int, Views]
    targets: Tensor  # (N, ...)
    bad: BadFiles

    def __len__(self) -> int:
        return len(self.targets)

    def draw(
        self, number: int, changes: Changes, rng: np.random.Generator, *, single_frame: bool = False
    ) -> Drawn | None:
        """One view of a clip, drawn at random: codes (t, D) and its label. It was changed when it was computed."""
        if self.is_bad(number):
            return None
        codes, labels = self.found[number]
        view = int(rng.integers(len(labels)))
        return Drawn(codes[view].float(), None, [labels[view]])

    def centre(self, number: int) -> Tensor:
        """Codes (t, D) of the middle clip."""
        return self.found[number][0][0].float()

    def is_bad(self, number: int) -> bool:
        return number not in self.found

    def all(self) -> Tensor:
        """Codes (N, t, D) of all views that there are, in the order of the clips."""
        return torch.cat([self.found[number][0].float() for number in sorted(self.found)])


class Cache:
    """The features of the frozen encoder of `model`, on disk. Raises ValueError where a run was begun with others."""

    def __init__(self, model: SpaceTimeTransformer, plan: Plan, run: Run, team: Team, bad: BadFiles):
        self.model, self.plan, self.run, self.bad = model.eval().to(team.device), plan, run, bad
        self.device = team.device
        inputs = input_settings(model, plan)
        self.key = hash_encoder(model, encoders=count_first(model), **inputs)
        self.folder = feature_folder(plan.config.cache, run.path, self.key)
        check_same_key(run, self.folder.name, plan)
        self.folder.mkdir(parents=True, exist_ok=True)
        about = {"encoder": model.config.encoder_settings(), **inputs}
        (self.folder / "settings.json").write_text(json.dumps(about, indent=2))  # for people
        self.seconds = 0.0
        self.note()

    def note(self) -> None:
        """Writes down where the features of the run are, and how long it took to have them."""
        about = {"folder": str(self.folder), "key": self.folder.name, "format": FORMAT, "seconds": self.seconds}
        self.run.write_json(FEATURES, about)

    def load(self, items: Sequence[Item], *, views: int, title: str, show: bool) -> Features:
        """Features of the centre and of `views` varied views of each item: read where they are there, else computed.

        Items that are known to be bad are passed over; `bad` gets those that prove so.

        Raises:
            Stopped: on a signal; what was computed stays.
            ValueError: more training files than `--max-bad` allows cannot be read.
        """
        begun, plan, bad = time.monotonic(), self.plan, self.bad
        good = [number for number, item in enumerate(items) if item.name not in bad]
        found = {number: kept for number in good if (kept := self.read(items[number], views))}
        todo = [number for number in good if number not in found]
        making = partial(make_views, plan=plan, views=views)
        clips = prefetch(making, (items[n] for n in todo), threads=plan.workers, ahead=2 * plan.workers)
        with signals(show=show) as caught, bar(title, len(todo), show=show) as progress, closing(clips):
            for number, given in zip(todo, clips, strict=True):
                if isinstance(given, BadFile):
                    bad.add(given)
                    bad.check()
                else:
                    found[number] = self.compute(items[number], views, given)
                rate = (progress.done + 1) / (time.monotonic() - begun)
                progress.advance(f"{progress.done + 1}/{progress.total} clips {rate:.1f}/s left {progress.left}")
                if caught:
                    raise Stopped(self.run.path, caught[0])
        features = Features(found, plan.data.source.task.targets([item.label for item in items]), bad)
        seconds = time.monotonic() - begun
        self.seconds += seconds
        self.note()
        if show:
            say(title, self.account(features, computed=len(todo), seconds=seconds))
        return features

    def read(self, item: Item, views: int) -> Views | None:
        """The features of an item from the disk; None where they are not there, or not whole."""
        try:
            codes, about = read_features(self.file(item, views), key=self.key)
            return codes, [str(label) for label in about["labels"]]
        except (ValueError, KeyError, TypeError, OSError):
            return None

    def compute(self, item: Item, views: int, varied: Views) -> Views:
        """All views of a clip at once, so that their codes do not depend on which clips are computed together."""
        (clips, labels), half = varied, self.plan.bfloat16
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            codes = encode(self.model, clips.to(self.device)).cpu()
        codes = codes.to(torch.bfloat16 if half else torch.float32)
        write_features(
            self.file(item, views),
            codes,
            key=self.key,
            path=item.path,
            seconds=(item.start_seconds, item.end_seconds),
            labels=labels,
        )
        return codes, labels

    def file(self, item: Item, views: int) -> Path:
        """The file of an item's features: its name changes with the clip, its labels and the number of views."""
        plan, task = self.plan, self.plan.data.source.task
        swaps = (plan.changes.flipped, plan.changes.reversed) if views else ()
        labels = [item.label, *(None if swap is None else task.swap(item.label, swap) for swap in swaps)]
        try:
            state = stat(join(plan.data.source.root, item.path))
        except MediaError:  # reading it says why
            return self.folder / "missing"
        clip = [item.path, item.start_seconds, item.end_seconds, state.size, state.changed, views, labels]
        return feature_file(self.folder, clip)

    def account(self, features: Features, *, computed: int, seconds: float) -> str:
        whole = [codes for codes, _ in features.found.values()]
        views, steps, dim = whole[0].shape if whole else (0, 0, 0)
        taken = sum(codes.numel() * codes.element_size() for codes in whole)
        pace = f", {computed} of them computed in {clock(seconds)}" if computed else ", all there already"
        many = f"{views} view{'s' * (views > 1)} x {steps} code{'s' * (steps > 1)} of {dim}"
        return f"{len(whole)} clips x {many}: {size(taken)} in {self.folder}{pace}"


def check_same_key(run: Run, key: str, plan: Plan) -> None:
    """Raises ValueError where a run that goes on was begun with another encoder, or by another version."""
    file = run.path / FEATURES
    try:
        about = json.loads(file.read_text()) if file.is_file() else {"key": key, "format": FORMAT}
        begun, form = about["key"], about.get("format")
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ValueError(
            f"{file}: damaged ({error}): remove it if --init is as it was, or choose another --out"
        ) from error
    if form != FORMAT:
        raise ValueError(
            f"{run.path} was begun with features of another version of tubelet (format {form}, this one makes "
            f"{FORMAT}): end it with that version, or choose another --out"
        )
    if begun != key:
        raise ValueError(
            f"{plan.config.init}: not the weights that {run.path} was begun with: use those, or choose another --out"
        )


def input_settings(model: SpaceTimeTransformer, plan: Plan) -> dict[str, Any]:
    """The settings by which clips become features, besides the encoder: part of their key."""
    augmentation = plan.changes.augmentation
    return {
        "clip_spec": plan.spec.to_json(),
        "augmentation": asdict(augmentation) if augmentation else None,
        "dtype": "bfloat16" if plan.bfloat16 else "float32",
        "seed": plan.config.seed,
        "steps": len(model.encoders) > count_first(model),  # see `encode`: several codes, or one
    }


def make_views(item: Item, plan: Plan, views: int) -> Views | BadFile:
    """The centre of an item and `views` varied views of it, (1 + views, C, T, H, W), and the label of each.

    The draws depend on the seed, the item and the number of the view alone.
    """
    where = {"start_seconds": item.start_seconds, "end_seconds": item.end_seconds}
    name = hashlib.sha256(json.dumps([item.path, *where.values()]).encode()).digest()
    try:
        start, end = item_range(join(plan.data.source.root, item.path), **where)
        # one pass over the item for all its views, unless it is so long that they leave most of it out
        once = FINER * (end - start) <= (1 + views) * plan.spec.span_seconds
        clips = Clips(plan.data.source.root, [item], plan.data.source.task, plan.spec, keep=once)
        if once:
            clips.timeline(0)
        found = [(clips.centre(0), item.label)]
        for view in range(views):
            rng = np.random.default_rng([plan.config.seed, int.from_bytes(name[:8]), view])
            varied = clips.random(0, plan.changes, rng)
            if varied is None:
                return clips.bad.files[item.name]
            found.append((varied[0], varied[1][0]))
    except MediaError as error:
        return BadFile(item.name, error.code, error.message, item.split)
    return torch.stack([clip for clip, _ in found]), [label for _, label in found]
