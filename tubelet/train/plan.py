"""Looks at the data and the machine and settles everything that the settings left open, before anything is trained."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from tubelet.data.augment import Augmentation
from tubelet.data.clips import load_frames
from tubelet.data.dataset import BadFile, Changes, kept_bytes
from tubelet.data.items import Item, Source, find_items, fingerprint
from tubelet.data.loader import processors
from tubelet.data.mirrors import as_indices, find_mirrors
from tubelet.data.spec import ClipSpec
from tubelet.data.splits import assign_splits
from tubelet.media.health import Health
from tubelet.nn import ModelConfig, SpaceTimeTransformer, create_model
from tubelet.precision import has_bfloat16
from tubelet.train.config import TrainConfig
from tubelet.train.look import look_at_files
from tubelet.train.start import Start, choose_rates, find_start

KEEP_SHARE = 0.4  # of the free memory that decoded frames may take
WIDEST_ASPECT = 2.0
SOUND_HOP_SECONDS = 0.01


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything a training needs to know, settled; `notes` say why."""

    config: TrainConfig
    source: Source
    fingerprint: str
    start: Start | None
    spec: ClipSpec
    model: ModelConfig
    model_name: str
    changes: Changes
    lr: float
    layer_decay: float
    bfloat16: bool
    keep: bool
    workers: int
    kept_bytes: int
    clip_seconds: float  # median duration of the items
    notes: tuple[str, ...]
    bad: tuple[BadFile, ...] = ()  # files that cannot be read: those of train are in no item any more

    def items(self, split: str) -> list[Item]:
        return [item for item in self.source.items if item.split == split]

    @property
    def held_out(self) -> str:
        """The split that the result is measured on."""
        return "test" if self.items("test") else "val"

    def counts(self) -> dict[str, dict[str, int]]:
        return {
            split: dict(sorted(Counter(item.label for item in self.items(split)).items()))
            for split in ("train", "val", "test")
            if self.items(split)
        }


def make_plan(config: TrainConfig, device: torch.device, *, show: bool = False) -> Plan:
    """show: a bar where there are many files to look at.

    Raises ValueError for data or settings that cannot work; MediaError is one.
    """
    source = assign_splits(find_items(config.data), val_share=config.val_share, seed=config.seed)
    start = find_start(config, source.kind)
    workers = config.workers or min(8, processors())
    look = look_at_files(source, most_bad=config.most_bad, workers=workers, show=show)
    source, healths, notes = look.source, look.healths, list(look.notes)
    spec = choose_spec(config, source, healths, device, start)
    name, model, model_notes = choose_model(config, spec, len(source.classes), device, start)
    changes, change_notes = choose_changes(config, source)
    durations = [duration_of(item, healths[item.path]) for item in source.items if item.path in healths]
    size = kept_bytes(spec, durations)
    lr, layer_decay = choose_rates(config, model)
    bfloat16, why = has_bfloat16(device)
    if config.dtype != "auto":
        bfloat16, why = config.dtype == "bfloat16", "as told"
    notes += [*model_notes, *change_notes, f"products in {'bfloat16' if bfloat16 else 'float32'}: {why}"]
    return Plan(
        config=config,
        source=source,
        fingerprint=fingerprint(source),
        start=start,
        spec=spec,
        model=model,
        model_name=name,
        changes=changes,
        lr=lr,
        layer_decay=layer_decay,
        bfloat16=bfloat16,
        keep=size < KEEP_SHARE * free_memory() and not config.freeze,
        workers=workers,
        kept_bytes=size,
        clip_seconds=float(np.median(durations)) if durations else 0.0,
        notes=(*source.notes, *notes),
        bad=look.bad,
    )


def duration_of(item: Item, health: Health) -> float:
    end = item.end_seconds if item.end_seconds is not None else health.duration_seconds
    return max(end - (item.start_seconds or 0.0), 0.0)


def free_memory() -> int:
    """Bytes of memory that are free, as far as the system tells."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 4 * 2**30


def choose_spec(
    config: TrainConfig, source: Source, healths: dict[str, Health], device: torch.device, start: Start | None
) -> ClipSpec:
    """The ClipSpec of the weights to start from; else one for this data: a clip spans the median item, in the shape of
    the median frame."""
    if start and start.spec:
        return like(start.spec, config)
    if start and start.model:
        t, h, w = start.model.clip
        config = replace(config, frames=config.frames or t, size=config.size or (h, w))
    train = [item for item in source.items if item.split == "train"]
    seconds = float(np.median([duration_of(item, healths[item.path]) for item in train]))
    length, side = patch_of(config, source.kind, device, start)
    if source.kind == "sound":
        return sound_spec(config, source, train, seconds, side=side)
    aspect = float(np.median([healths[item.path].width / healths[item.path].height for item in train]))
    height, width = config.size or rectangle(aspect, short=short_side(config, device, side), multiple=side)
    frames = 1 if source.kind == "image" else config.frames or multiple_near(8 if config.init else 16, length)
    between = config.seconds_between_frames or max(seconds, 0.04) / frames
    grow = 1.1 if config.augment else 1.0
    return ClipSpec(
        kind=source.kind,
        frames=frames,
        seconds_between_frames=0.0 if source.kind == "image" else between,
        resize=(round(height * grow), round(width * grow)),
        crop=(height, width),
        mean=start.mean if start else (0.5, 0.5, 0.5),
        std=start.std if start else (0.25, 0.25, 0.25),
    )


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


def short_side(config: TrainConfig, device: torch.device, side: int) -> int:
    """Short side of a clip in px, a multiple of the patch: what the device can train on within minutes."""
    if config.init:
        return multiple_near(224 if device.type == "cuda" else 112, side)
    return multiple_near(112 if device.type == "cuda" else 48, side)


def multiple_near(number: float, of: int) -> int:
    return of * max(1, round(number / of))


def rectangle(aspect: float, *, short: int, multiple: int) -> tuple[int, int]:
    """(H, W) in px near the aspect ratio W / H, its short side `short`, filled by whole patches."""
    long = min(max(aspect, 1 / aspect), WIDEST_ASPECT) * short
    long = max(short, multiple_near(long, multiple))
    return (short, long) if aspect >= 1 else (long, short)


def sound_spec(config: TrainConfig, source: Source, train: Sequence[Item], seconds: float, *, side: int) -> ClipSpec:
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
    chosen = np.random.default_rng(config.seed).permutation(len(train))[:64]
    values = torch.cat(
        [
            load_frames(source.root / item.path, spec, start_seconds=item.start_seconds or 0.0).flatten()
            for item in (train[i] for i in chosen)
        ]
    )
    return replace(spec, mean=(round(values.mean().item(), 4),), std=(round(max(values.std().item(), 1e-3), 4),))


def patch_of(config: TrainConfig, kind: str, device: torch.device, start: Start | None) -> tuple[int, int]:
    """Tubelet length and patch side, from the model's name."""
    match = re.search(r"/(\d+)(?:x(\d+))?$", name_for(config, kind, device, start))
    return (max(1, int(match[2] or 1)), max(1, int(match[1]))) if match else (1, 1)  # create_model refuses the others


def name_for(config: TrainConfig, kind: str, device: torch.device, start: Start | None) -> str:
    if start or config.model:
        return start.name if start else str(config.model)
    if kind == "video":
        return "vivit2-S/16x2" if device.type == "cuda" else "vivit1-N/12x4"
    return "vit-S/16" if device.type == "cuda" else "vit-N/12"


def choose_model(
    config: TrainConfig, spec: ClipSpec, num_classes: int, device: torch.device, start: Start | None
) -> tuple[str, ModelConfig, list[str]]:
    """Name, settings and notes. Raises ValueError for a model that there is not, or that clips do not fit."""
    name = name_for(config, spec.kind, device, start)
    embed = config.embed or ("tubelet" if config.init or config.model else "conv")
    rates = {"drop_path": config.drop_path, "dropout": config.dropout, "checkpointing": config.checkpointing}
    settings: dict[str, Any] = {"clip": spec.clip_size, "num_classes": num_classes, **rates}
    settings |= {"mean": spec.mean, "std": spec.std}
    if start and start.model:
        with torch.device("meta"):
            return name, SpaceTimeTransformer(replace(start.model, **settings)).config, [f"model {name} as in --init"]
    with torch.device("meta"):
        model = create_model(name, channels=spec.num_channels, embed=embed, **settings)
    why = "is the image model's size" if config.init else f"is the default for {device.type}"
    notes = [] if config.model else [f"model {name} with {embed} tokens {why}; choose with --model"]
    return name, model.config, notes


def choose_changes(config: TrainConfig, source: Source) -> tuple[Changes, list[str]]:
    if not config.augment:
        return Changes(augmentation=None), ["clips are not varied (--no-augment)"]
    if source.kind == "sound":
        return Changes(augmentation=Augmentation()), ["spectrograms are rolled in time, bands of them masked"]
    mirrors = find_mirrors(source.classes)
    reverse = mirrors.reverse if source.kind == "video" else None
    changes = Changes(
        augmentation=Augmentation(flip=mirrors.flip is not None, reverse=reverse is not None),
        flip_labels=as_indices(mirrors.flip, source.classes),
        reverse_labels=as_indices(reverse, source.classes),
    )
    return changes, [note for note in mirrors.notes if source.kind == "video" or "backwards" not in note]
