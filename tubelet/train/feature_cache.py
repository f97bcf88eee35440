"""What a frozen encoder makes of labelled clips: computed once, kept on disk, drawn from as clips are.

A folder holds the features of one encoder under one way of cutting and varying clips; its name is their key. A file in
it holds those of one clip, and appears whole or not at all: what was stopped goes on, and new clips are added to what
is there.
"""

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from tubelet.data.clips import item_range
from tubelet.data.dataset import FINER, BadFile, Changes, Clips
from tubelet.data.items import Item
from tubelet.data.prefetch import prefetch
from tubelet.media.reader import MediaError
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.nn.split import Rest, encode
from tubelet.runs.run import Run
from tubelet.system.console import bar, clock, say, size
from tubelet.system.signals import Stopped, signals
from tubelet.train.bad_files import spare, too_many
from tubelet.train.distributed import Team
from tubelet.train.plan import Plan
from tubelet.weights.store import read_tensors, write_tensors

FORMAT = 2  # raised whenever the same settings give other features
KEY_LENGTH = 16


Views = tuple[Tensor, list[str]]  # of one clip, the centre first: clips (V, C, T, H, W) or codes (V, t, D); labels


@dataclass(frozen=True)
class Features:
    """The features of clips, in the place of `Clips`. A clip that cannot be read, one of `bad`, keeps its place."""

    found: list[Views | None]
    targets: Tensor  # (N, ...)
    bad: dict[int, BadFile]

    def __len__(self) -> int:
        return len(self.found)

    def random(
        self, number: int, changes: Changes, rng: np.random.Generator, *, single_frame: bool = False
    ) -> tuple[Tensor, str] | None:
        """One view of a clip, drawn at random: codes (t, D) and the label. It was changed when it was computed."""
        if number in self.bad:
            return None
        codes, labels = self.of(number)
        view = int(rng.integers(len(labels)))
        return codes[view].float(), labels[view]

    def centre(self, number: int) -> Tensor:
        """Codes (t, D) of the middle clip."""
        return self.of(number)[0][0].float()

    def all(self) -> Tensor:
        """Codes (N, t, D) of all views that there are."""
        return torch.cat([codes.float() for codes, _ in filter(None, self.found)])

    def of(self, number: int) -> Views:
        found = self.found[number]
        assert found is not None, "nobody asks for a clip that could not be read"
        return found


class Cache:
    """The features of the frozen encoder of `model`, on disk. Raises ValueError where a run was begun with others."""

    def __init__(self, model: SpaceTimeTransformer, plan: Plan, run: Run, team: Team):
        self.model, self.plan, self.run, self.device = model.eval().to(team.device), plan, run, team.device
        about = settings_of(model, plan)
        key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:KEY_LENGTH]
        self.folder = (plan.config.cache or run.path.parent / "cached-features") / key
        check_same_key(run, key, plan)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "settings.json").write_text(json.dumps(about, indent=2))  # for people
        self.seconds = 0.0
        self.note()

    def note(self) -> None:
        """Where the features of the run are, and how long it took to have them."""
        about = {"folder": str(self.folder), "key": self.folder.name, "seconds": self.seconds}
        self.run.write_json("features.json", about)

    def of(
        self, items: Sequence[Item], *, views: int, title: str, show: bool, known: Mapping[int, BadFile] | None = None
    ) -> Features:
        """Features of the centre and of `views` varied views of each item: read where they are there, else computed.

        known: the items, by number, that cannot be read and are not tried.

        Raises:
            Stopped: on a signal; what was computed stays.
            ValueError: more training files than `--max-bad` allows cannot be read.
        """
        begun, plan, bad = time.monotonic(), self.plan, dict(known or {})
        found = [None if number in bad else self.read(item, views) for number, item in enumerate(items)]
        todo = [number for number, codes in enumerate(found) if codes is None and number not in bad]
        making = partial(views_of, plan=plan, views=views)
        clips = prefetch(making, (items[n] for n in todo), threads=plan.workers, ahead=2 * plan.workers)
        with signals(show=show) as caught, bar(title, len(todo), show=show) as progress, closing(clips):
            for number, given in zip(todo, clips, strict=True):
                if isinstance(given, BadFile):
                    bad[number] = given
                    if given.split == "train" and len(bad) > spare(plan):
                        raise too_many(plan, bad)
                else:
                    found[number] = self.compute(items[number], views, given)
                rate = (progress.done + 1) / (time.monotonic() - begun)
                progress.advance(f"{progress.done + 1}/{progress.total} clips {rate:.1f}/s left {progress.left}")
                if caught:
                    raise Stopped(self.run.path, caught[0])
        features = Features(found, plan.source.task.targets([item.label for item in items]), bad)
        seconds = time.monotonic() - begun
        self.seconds += seconds
        self.note()
        if show:
            say(title, self.account(features, computed=len(todo), seconds=seconds))
        return features

    def read(self, item: Item, views: int) -> Views | None:
        """None where they are not there, or not whole."""
        try:
            tensors, about = read_tensors(self.file(item, views))
            return tensors["codes"], [str(label) for label in about["labels"]]
        except (ValueError, KeyError, OSError, SafetensorError):
            return None

    def compute(self, item: Item, views: int, varied: Views) -> Views:
        """All views of a clip at once, so that their codes do not depend on which clips are computed together."""
        (clips, labels), half = varied, self.plan.bfloat16
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            codes = encode(self.model, clips.to(self.device)).cpu()
        codes = codes.to(torch.bfloat16 if half else torch.float32).contiguous()
        write_tensors(self.file(item, views), {"codes": codes}, {"labels": labels})
        return codes, labels

    def file(self, item: Item, views: int) -> Path:
        """Where the features of an item are: its name changes with the clip, its labels and the number of views."""
        plan, task = self.plan, self.plan.source.task
        swaps = (plan.changes.flipped, plan.changes.reversed) if views else ()
        labels = [item.label, *(None if swap is None else task.swap(item.label, swap) for swap in swaps)]
        try:
            stat = os.stat(plan.source.root / item.path)
        except OSError:  # will be said when it is read
            return self.folder / "missing"
        told = [item.path, item.start_seconds, item.end_seconds, stat.st_size, stat.st_mtime_ns, views, labels]
        return self.folder / (hashlib.sha256(json.dumps(told).encode()).hexdigest()[:KEY_LENGTH] + ".safetensors")

    def account(self, features: Features, *, computed: int, seconds: float) -> str:
        whole = [codes for codes, _ in filter(None, features.found)]
        views, steps, dim = whole[0].shape if whole else (0, 0, 0)
        taken = sum(codes.numel() * codes.element_size() for codes in whole)
        pace = f", {computed} of them computed in {clock(seconds)}" if computed else ", all there already"
        many = f"{views} view{'s' * (views > 1)} x {steps} code{'s' * (steps > 1)} of {dim}"
        return f"{len(whole)} clips x {many}: {size(taken)} in {self.folder}{pace}"


def check_same_key(run: Run, key: str, plan: Plan) -> None:
    """Raises ValueError where a run that goes on was begun with another encoder."""
    file = run.path / "features.json"
    try:
        begun = json.loads(file.read_text())["key"] if file.is_file() else key
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{file}: damaged ({error}): remove it if --init is as it was, or choose another --out"
        ) from error
    if begun != key:
        raise ValueError(
            f"{plan.config.init}: not the weights that {run.path} was begun with: use those, or choose another --out"
        )


def settings_of(model: SpaceTimeTransformer, plan: Plan) -> dict[str, Any]:
    """All that features depend on, but for the clip: the key is made of it."""
    augmentation = plan.changes.augmentation
    return {
        "format": FORMAT,
        "weights": encoder_sha256(model),
        "model": model.config.encoder_settings(),
        "clip_spec": plan.spec.to_json(),
        "augmentation": asdict(augmentation) if augmentation else None,
        "dtype": "bfloat16" if plan.bfloat16 else "float32",
        "seed": plan.config.seed,
    }


def encoder_sha256(model: SpaceTimeTransformer) -> str:
    """Of the names, shapes and values of all that stays as it is."""
    learned = {name for name, _ in Rest(model).named_parameters()}
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if name not in learned:
            digest.update(f"{name} {tuple(value.shape)}".encode())
            digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def views_of(item: Item, plan: Plan, views: int) -> Views | BadFile:
    """The centre of an item and `views` varied views of it, (1 + views, C, T, H, W), and the label of each.

    The draws depend on the seed, the item and the number of the view alone.
    """
    where = {"start_seconds": item.start_seconds, "end_seconds": item.end_seconds}
    name = hashlib.sha256(json.dumps([item.path, *where.values()]).encode()).digest()
    try:
        start, end = item_range(plan.source.root / item.path, **where)
        # one pass over the item for all its views, unless it is so long that they leave most of it out
        once = FINER * (end - start) <= (1 + views) * plan.spec.span_seconds
        clips = Clips(plan.source.root, [item], plan.source.task, plan.spec, keep=once)
        if once:
            clips.timeline(0)
        found = [(clips.centre(0), item.label)]
        for view in range(views):
            rng = np.random.default_rng([plan.config.seed, int.from_bytes(name[:8]), view])
            varied = clips.random(0, plan.changes, rng)
            if varied is None:
                return clips.bad[0]
            found.append(varied)
    except MediaError as error:
        return BadFile.of(item, error)
    return torch.stack([clip for clip, _ in found]), [label for _, label in found]
