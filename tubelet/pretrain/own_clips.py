"""Clips of one's own to learn from, without labels: those that a training is tested on are kept out."""

import os
import shlex
from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tubelet.data.augment import Augmentation
from tubelet.data.bad_files import find_fault
from tubelet.data.clip_spec import ClipSpec, Kind
from tubelet.data.dataset import Changes, Clips, kept_bytes
from tubelet.data.duplicates import mark_content, same_contents
from tubelet.data.epochs import Epochs
from tubelet.data.folder import KIND_OF_SUFFIX
from tubelet.data.health_cache import MANY, find_healths
from tubelet.data.items import Item, Source, find_items, fingerprint, is_labelled
from tubelet.data.prefetch import prefetch, processors
from tubelet.data.problems import DataProblems, some
from tubelet.data.segments import read_segments, split_recordings
from tubelet.data.splits import assign_splits
from tubelet.data.walk import list_media
from tubelet.media.address import is_remote, join, name_from, suffix
from tubelet.media.reader import MediaError
from tubelet.nn.embed import normalise
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.pretrain import masked
from tubelet.pretrain.config import PretrainConfig
from tubelet.pretrain.masked import HIDDEN_SHARE, Masked, MaskedHead, draw_hidden
from tubelet.system.device import free_memory
from tubelet.system.text import plural, visible
from tubelet.tasks import Classification, find_task
from tubelet.train.clip_size import choose_spec
from tubelet.train.config import TrainConfig
from tubelet.train.init import CONTENTS, FRESH, Start
from tubelet.train.plan import KEEP_SHARE, choose_model, choose_start, find_patch
from tubelet.train.preflight import Data
from tubelet.weights.terms import Terms

CLIPS = 32  # of a step
LOOKED_AT = (0.05, 64)  # share of the files, and how many at most, that are looked at and never learned from
LABEL = "clip"  # of all of them
AHEAD = 4  # batches that are prepared while one is learned from


@dataclass(frozen=True, kw_only=True)
class Found:
    """The files of a pre-training, all of the split train. kept_out: how many are kept out, for a training is tested on
    what they show."""

    data: Data
    kept_out: int


def find_clips(config: PretrainConfig, *, show: bool) -> Found:
    """All files of the data, each content once, without those that are held out of a training with any of it.

    Raises ValueError where nothing is left to learn from, files are of several kinds, or a table is wrong.
    """
    files, held, notes = set[str](), set[str](), list[str]()
    for one in config.data:
        listing = list_media(one)
        out, why = find_held_out(one, config)
        files |= {str(join(listing.root, file)) for file in listing.files}
        held |= out
        notes += why
    data, kind = ", ".join(map(str, config.data)), find_kind(config, files | held)
    local = [os.path.dirname(path) for path in files | held if not is_remote(path)]
    root = Path(os.path.commonpath(local) if local else os.getcwd())
    paths, copied = tell_apart(root, files | held, held)
    if not paths:
        raise ValueError(f"{data}: no files to learn from: all {len(files | held)} are held out to test on")
    notes += [f"{plural(copied, 'file')} left out: copies of others"] if copied else []
    threads = config.workers or processors()
    healths, trouble = find_healths(root, paths, workers=threads, show=show and len(paths) >= MANY)
    items = [Item(path, LABEL, split="train") for path in paths]
    faults = {item: fault for item in items if (fault := find_fault(item, healths[item.path], kind))}
    bad = [f"{item.name}: {message}" for item, (_, message) in faults.items()]
    if len(bad) == len(items):
        raise ValueError(f"{data}: none of {plural(len(items), 'file')} can be read, the first: {visible(bad[0])}")
    notes += [f"{plural(len(bad), 'file')} left out, the first: {visible(bad[0])}"] if bad else []
    notes += [trouble] if trouble else []
    source = Source(root, kind, tuple(item for item in items if item not in faults), Classification((LABEL,)))
    usable = {path: health for path, health in healths.items() if health.usable}
    kept_out = len(files | held) - len(paths) - copied
    return Found(data=Data(source=source, healths=usable, bad=(), notes=tuple(notes)), kept_out=kept_out)


def find_kind(config: PretrainConfig, paths: set[str]) -> Kind:
    """The one kind of all files. Raises ValueError where there are several."""
    data, suffixes = ", ".join(map(str, config.data)), {path: suffix(path) for path in sorted(paths)}
    if strange := [path for path, ending in suffixes.items() if ending not in KIND_OF_SUFFIX]:
        raise ValueError(f"{data}: no video, image or sound by its suffix: {some(strange)}")
    kinds = Counter(KIND_OF_SUFFIX[ending] for ending in suffixes.values())
    if len(kinds) > 1:
        counts = ", ".join(plural(count, f"{kind} file") for kind, count in sorted(kinds.items()))
        raise ValueError(f"{data}: a mix of kinds ({counts}): pre-train on one kind")
    return next(iter(kinds))


def tell_apart(root: Path, files: set[str], held: set[str]) -> tuple[list[str], int]:
    """Paths below `root` to learn from, sorted, each content once and none that is held out under any name; and how
    many others are copies of these."""
    paths = {name_from(root, file): file in held for file in sorted(files)}
    out, copied = {path for path, is_held in paths.items() if is_held}, set[str]()
    for same in same_contents(root, paths):
        if out & {*same}:
            out |= {*same}
        else:
            copied |= {*same[1:]}
    return sorted({*paths} - out - copied), len(copied)


def find_held_out(data: Path, config: PretrainConfig) -> tuple[set[str], list[str]]:
    """The files that `tubelet train` would hold out of a data set, as it is set by default; none of a folder or a table
    without labels. And a note."""
    if not is_labelled(data):
        return set(), []
    root = data if data.is_dir() else data.parent
    try:
        if config.task == "segments":
            recordings = split_recordings(read_segments(data), val_share=config.val_share, seed=config.seed)
            splits = {one.path: one.split for one in recordings.recordings}
        else:
            found = find_items(data, task=find_task(config.task), labels=config.labels)
            source = assign_splits(found, val_share=config.val_share, seed=config.seed)
            splits = {}
            for item in source.items:  # a file is held out where any part of it is
                splits[item.path] = item.split if splits.get(item.path, "train") == "train" else splits[item.path]
    except DataProblems as error:
        if not data.is_dir():
            raise
        return set(), [f"{data}: no data set to train on ({error.problems[0].message}), so none of it is held out"]
    held = {str(join(root.absolute(), path)) for path, split in splits.items() if split != "train"}
    return held, [f"{data}: {len(held)} of {plural(len(splits), 'file')} are held out by tubelet train, and kept out"]


def as_training(config: PretrainConfig, kind: str) -> TrainConfig:
    """The settings of a training on the same clips, by which a start, a model and a size are chosen."""
    named = config.init not in (None, FRESH)
    return TrainConfig(
        data=config.data[0],
        model=config.model if named else config.model_name(kind),
        embed=config.embed if named else config.embed_name,
        init=config.init,
        frames=config.frames,
        seconds_between_frames=config.seconds_between_frames,
        size=config.size,
        epochs=1,
        seed=config.seed,
        device=config.device,
    )


def prepare(
    config: PretrainConfig, device: torch.device, *, show: bool
) -> tuple[SpaceTimeTransformer, "OwnClips", list[str]]:
    """The model, from its start or fresh, its lesson, and notes. Raises ValueError for clips or settings that cannot
    work."""
    found = find_clips(config, show=show)
    data, kind = found.data, found.data.source.kind
    training = as_training(config, kind)
    start = choose_start(training, kind, device)
    patch = find_patch(training, kind, device, start)
    spec, notes = choose_spec(training, data, device, start, patch=patch)
    name, settings, more = choose_model(training, spec, 1, device, start)
    torch.manual_seed(config.seed)
    model = SpaceTimeTransformer(settings)
    if start:
        start.fill(model)
        more = [f"model {name} starts from {start}"]
    return model, OwnClips(config, found, spec, model, start), [*data.notes, *more, *notes]


class OwnClips:
    """A lesson of clips of one's own: what is hidden of each, and how that changes. See `Lesson`."""

    head: nn.Module
    weights: Mapping[str, float] = masked.WEIGHTS
    explained: tuple[str, ...]
    know_little = "the mean colour of each tubelet, and a copy of the frame before"

    def __init__(
        self, config: PretrainConfig, found: Found, spec: ClipSpec, model: SpaceTimeTransformer, start: Start | None
    ):
        self.config, self.found, self.spec, self.start = config, found, spec, start
        self.mean, self.std, self.grid, self.patch = model.mean, model.std, model.grid, model.embed.patch
        self.head = MaskedHead(model)
        self.explained = ("pixels", "changes")[: self.head.asked]
        source = found.data.source
        order = np.random.default_rng([config.seed, *b"looked at"]).permutation(len(source.items)).tolist()
        most = min(max(1, int(LOOKED_AT[0] * len(order))), LOOKED_AT[1])
        if len(order) <= most:
            raise ValueError(f"{source.root}: {plural(len(order), 'file')} to learn from, at least 2 are needed")
        self.items = [source.items[number] for number in sorted(order[most:])]
        self.looked_at = [source.items[number] for number in sorted(order[:most])]
        keep = kept_bytes(spec, found.data.durations()) < KEEP_SHARE * free_memory()
        self.clips = Clips(source.root, self.items, source.task, spec, keep=keep)
        vary = spec.kind != "sound"  # whose bands would be masked
        changes = Changes(augmentation=Augmentation(reverse=True) if vary else None, flipped={}, reversed={})
        self.epochs = Epochs(self.clips, changes, seed=config.seed)

    def open(self, *, show: bool) -> list[Masked]:
        source, seed = self.found.data.source, self.config.seed
        clips = Clips(source.root, self.looked_at, source.task, self.spec, keep=False)
        centres = []
        for number in range(len(clips)):
            with suppress(MediaError):
                centres.append(clips.centre(number))
        if not centres:
            raise ValueError(f"{source.root}: none of {plural(len(clips), 'file')} to look at can be decoded")
        parts = torch.stack(centres).split(CLIPS)
        return [self.mask(part, np.random.default_rng([seed, i, *b"look"])) for i, part in enumerate(parts)]

    def batches(self, first: int, steps: int) -> Generator[Masked, None, None]:
        def make(step: int) -> Masked:
            clips, _ = self.epochs.draw_batch(step * CLIPS, CLIPS)
            return self.mask(clips, np.random.default_rng([self.config.seed, step, *b"hidden"]))

        threads = self.config.workers or processors()
        return prefetch(make, range(first, steps), threads=threads, ahead=AHEAD)

    def mask(self, clips: Tensor, rng: np.random.Generator) -> Masked:
        """Clips (B, C, T, H, W), uint8, or of sound normalised, with places hidden at random."""
        hidden = draw_hidden(len(clips), self.grid(clips.shape[2:]), rng)
        return Masked(normalise(clips, self.mean, self.std) if clips.dtype == torch.uint8 else clips, hidden)

    def answer(self, model: SpaceTimeTransformer, batch: Masked) -> tuple[Tensor, ...]:
        return (self.head(model, batch),)

    def know_nothing(self, batch: Masked) -> tuple[Tensor, ...]:
        return (masked.know_nothing(batch, patch=self.patch),)

    def measure(self, batch: Masked, *answers: Tensor) -> dict[str, Tensor]:
        return masked.measure(batch, *answers, patch=self.patch)

    def begun_with(self) -> dict[str, Any]:
        source = self.found.data.source
        begun_from = str(self.start) if self.start else FRESH
        return {"files": len(source.items), "fingerprint": fingerprint(source), "begun_from": begun_from}

    @property
    def terms(self) -> tuple[Terms, ...]:
        return self.start.terms if self.start else ()

    def about(self) -> dict[str, Any]:
        source, before = self.found.data.source, self.start.pretraining if self.start else {}
        contents = {mark_content(join(source.root, item.path)) for item in source.items}
        seen = {CONTENTS: sorted(contents | {*before.get(CONTENTS, ())})}
        worlds = {name: before[name] for name in before if name == "worlds"}
        return {"kind": source.kind, "kept_out": self.found.kept_out, **worlds, **seen}

    def write_card(self, about: dict[str, Any]) -> str:
        known = about["explained"]
        data = " ".join(shlex.quote(one) for one in about["data"])
        changes = f"\n- {known['changes']:.0%} of how that changes from frame to frame" if "changes" in known else ""
        files, share = plural(about["files"], f"{about['kind']} file"), f"{HIDDEN_SHARE:.0%}"
        return f"""# Weights that know clips like these

Made by `tubelet pretrain {data} --steps {about["steps"]} --seed {about["seed"]}`
from {files}, without labels; begun from: {about["begun_from"]}. {share} of the places in each clip were hidden,
and asked about. What may be done with the files decides what may be done with these weights.

Explained in clips that it did not learn from, where 0 % is no better than {self.know_little}:

- {known["pixels"]:.0%} of what was hidden{changes}

{plural(about["kept_out"], "file")} kept out, copies included: a training with the same data and the same --seed is
tested on what they show. `tubelet train` says where it is tested on files that these weights have seen.
{"".join(f"{chr(10)}{one}.{chr(10)}" for one in self.terms)}"""
