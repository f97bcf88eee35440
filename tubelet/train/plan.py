"""The plan of a training: all that the settings left open, settled by the data and the machine."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tubelet.data.augment import STRONG, Augmentation
from tubelet.data.clip_spec import ClipSpec
from tubelet.data.dataset import Changes, kept_bytes
from tubelet.data.items import Item, Source, find_items, fingerprint
from tubelet.data.label_swaps import find_swaps, read_swaps
from tubelet.data.near_duplicates import MOST_SECONDS, near_duplicate_notes
from tubelet.data.prefetch import processors
from tubelet.data.segments import Span
from tubelet.data.splits import assign_splits
from tubelet.media.sampling import views_to_cover
from tubelet.nn import ModelConfig, SpaceTimeTransformer, create_model
from tubelet.nn.compile import worth_compiling
from tubelet.predict.answer import parse_views
from tubelet.predict.precision import has_bfloat16
from tubelet.system.device import free_memory
from tubelet.system.spread import Spread, alone
from tubelet.system.text import plural
from tubelet.tasks import MultiLabel, find_task
from tubelet.train.clip_size import choose_spec
from tubelet.train.config import TrainConfig
from tubelet.train.init import (
    Start,
    choose_rates,
    find_shipped,
    find_start,
    note_seen,
    pools_as,
)
from tubelet.train.preflight import Data, look_at_files
from tubelet.train.published_start import settle_auto, suggest_start

NEAR_SHARE = 0.05  # of the time budget, in which held-out clips are compared with training clips
UNEVEN = 3  # times as many clips as another class has, from which on it is said
MUCH_LONGER = 5  # times as long as its rows is a file, from which on segments are suggested
MOST_REMEMBERED = 1000  # training items
KEEP_SHARE = 0.4  # of the free memory that decoded frames may take


@dataclass(frozen=True, kw_only=True)
class Processes:
    """The processes that share a training: how many in all, how many on each machine, and how often a machine holds the
    clips that are kept."""

    team: int = 1
    node: int = 1
    copies: int = 1


ONE_PROCESS = Processes()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything a training needs to know, settled; `notes` say why."""

    config: TrainConfig
    data: Data
    fingerprint: str
    start: Start | None
    spec: ClipSpec
    model: ModelConfig
    model_name: str
    changes: Changes
    lr: float
    layer_decay: float
    bfloat16: bool
    compiled: bool
    keep: bool
    workers: int
    notes: tuple[str, ...]
    processes: Processes = ONE_PROCESS
    spans: Mapping[str | Path, Sequence[Span]] | None = None  # what happens when in the files, where steps learn it

    def learn_steps(self, spans: Mapping[str | Path, Sequence[Span]]) -> "Plan":
        """The plan of a training in which steps learn what holds: classes weigh alike, as many steps show each."""
        source = self.data.source
        assert isinstance(source.task, MultiLabel)
        source = replace(source, task=replace(source.task, weights=()))
        return replace(self, spans=spans, data=replace(self.data, source=source))

    @property
    def clips_an_item(self) -> float:
        """The number of clips, in the mean, that show a training item whole."""
        span, durations = self.spec.span_seconds, self.data.durations("train")
        return float(np.mean([max(1.0, seconds / span) for seconds in durations])) if span and durations else 1.0

    @property
    def settled_by(self) -> str | None:
        """The split that settles the task: val, or the measured one, where there is no other and the task allows it."""
        task = self.data.source.task
        if self.data.chooses:
            return "val" if task.settles else None
        return self.data.held_out if task.calibrates else None

    @property
    def remembered(self) -> list[Item]:
        """The training items, at most 1000 of them, that others are compared with: how far away they are."""
        items = self.data.items("train") if self.settled_by and self.data.source.task.calibrates else []
        few = min(len(items), MOST_REMEMBERED)
        return [items[number * len(items) // few] for number in range(few)]

    @property
    def answered_splits(self) -> list[str]:
        return sorted({self.data.held_out, self.settled_by or self.data.held_out})

    @property
    def answered_clips(self) -> int:
        """Views of all items that are answered after the last step."""
        temporal, spatial = parse_views(self.config.views, self.spec.kind)
        durations = [seconds for split in self.answered_splits for seconds in self.data.durations(split)]
        views = sum(temporal or views_to_cover(seconds, self.spec.span_seconds) for seconds in durations)
        return spatial * views + len(self.remembered)


def look_at_data(
    config: TrainConfig, device: torch.device, *, show: bool = False, workers: int | None = None, spread: Spread = alone
) -> tuple[TrainConfig, Data, Start | None, ClipSpec, list[str]]:
    """The settings, with weights in the place of --init auto; the data of a training, the weights to start from, and
    the clips that suit both, with notes on these.

    Raises as `make_plan`.
    """
    found = find_items(config.data, task=find_task(config.task), labels=config.labels, spread=spread)
    source = assign_splits(found, val_share=config.val_share, seed=config.seed)
    learned = source.task.targets([item.label for item in source.items if item.split == "train"])
    source = replace(source, task=source.task.learn_from(learned))
    config, notes = settle_auto(config, source.kind)
    start = choose_start(config, source.kind, device)
    workers = workers or count_workers(config)
    data = look_at_files(source, most_bad=config.most_bad, workers=workers, show=show, spread=spread)
    patch = find_patch(config, source.kind, device, start)
    spec, more = choose_spec(config, data, device, start, patch=patch, spread=spread)
    return config, data, start, spec, [*notes, *more]


def choose_start(config: TrainConfig, kind: str, device: torch.device) -> Start | None:
    """The weights that --init names, else those of the package for the model, where there are some."""
    if named := find_start(config, kind):
        return named
    return find_shipped(config, kind, name=choose_name(config, kind, device, None), embed=choose_embed(config, None))


def count_workers(config: TrainConfig, processes: int = 1) -> int:
    """The number of threads that read files in each of the processes on a machine."""
    return config.workers or max(1, min(8, processors() // processes))


def make_plan(
    config: TrainConfig,
    device: torch.device,
    *,
    show: bool = False,
    spread: Spread = alone,
    processes: Processes = ONE_PROCESS,
) -> Plan:
    """show: a bar where there are many files to look at. spread: of the looks at files.

    Raises ValueError for data or settings that cannot work; MediaError is one.
    """
    asked = config
    workers = count_workers(config, processes.node)
    config, data, start, spec, spec_notes = look_at_data(config, device, show=show, workers=workers, spread=spread)
    source = data.source
    parse_views(config.views, spec.kind)  # raises for views that the kind does not have
    name, model, model_notes = choose_model(config, spec, len(source.task.names), device, start)
    changes, change_notes = choose_changes(config, source, start)
    uneven = balance_note(source, config)  # before what takes long: it may refuse the settings
    lr, layer_decay = choose_rates(config, model, start)
    bfloat16, why = has_bfloat16(device)
    if config.dtype != "auto":
        bfloat16, why = config.dtype == "bfloat16", "as told"
    seconds = 60 * config.minutes if config.epochs is None else 0.0  # how long epochs take is not known
    worth_it = worth_compiling(device, seconds) and not config.freeze
    compiled = worth_it if config.compile == "auto" else config.compile == "on"
    seconds_to_compare = NEAR_SHARE * 60 * config.minutes if config.epochs is None else MOST_SECONDS
    seconds = min(MOST_SECONDS, seconds_to_compare)
    spec_notes += near_duplicate_notes(source, workers=workers, seconds=seconds, spread=spread)
    notes = [
        *model_notes,
        *note_seen(start, source, spread),
        *spec_notes,
        *uneven,
        *note_cuts(data),
        *suggest_start(asked, source.kind, str(config.data), len(data.items("train"))),
        *change_notes,
        f"products in {'bfloat16' if bfloat16 else 'float32'}: {why}",
        *["torch compiles the blocks as they first run; --compile off does not"] * compiled,
    ]
    kept = kept_bytes(spec, data.durations())
    return Plan(
        config=config,
        data=data,
        fingerprint=fingerprint(source),
        start=start,
        spec=spec,
        model=model,
        model_name=name,
        changes=changes,
        lr=lr,
        layer_decay=layer_decay,
        bfloat16=bfloat16,
        compiled=compiled,
        keep=processes.copies * kept < KEEP_SHARE * free_memory() and not config.freeze,
        workers=workers,
        notes=(*data.notes, *notes),
        processes=processes,
    )


def balance_note(source: Source, config: TrainConfig) -> list[str]:
    """A note on training classes that are uneven. Raises ValueError where --balance has no classes to draw."""
    if not source.task.exclusive:
        if config.balance:
            raise ValueError(f"--balance draws clips by their one class, got {source.task.kind}: leave it out")
        return []
    counts = Counter(item.label for item in source.items if item.split == "train").most_common()
    (most, many), (least, few) = counts[0], counts[-1]
    if config.balance or many < UNEVEN * few:
        return []
    return [f"{most!r} has {many} clips to train on, {least!r} {few}: --balance draws all classes equally often"]


def note_cuts(data: Data) -> list[str]:
    """A note on rows that are short parts of long files: they may be meant as segments."""
    cuts = [item for item in data.source.items if item.end_seconds is not None and item.path in data.healths]
    files = {item.path for item in cuts}
    if data.source.kind != "video" or not data.source.task.exclusive or len(cuts) < 2 * len(files) or not files:
        return []
    whole = float(np.median([data.healths[path].duration_seconds for path in files]))
    part = float(np.median([(item.end_seconds or 0.0) - (item.start_seconds or 0.0) for item in cuts]))
    if whole < MUCH_LONGER * part:
        return []
    what = f"{plural(len(cuts), 'row')} are cuts of {part:.3g} s, to be told apart, from files of {whole:.3g} s"
    return [f"{what}: --task segments learns when in a file they happen"]


def find_patch(config: TrainConfig, kind: str, device: torch.device, start: Start | None) -> tuple[int, int]:
    """Tubelet length and patch side of a model, from its name or from the weights that it starts from."""
    if start and start.model:
        t, h, w = start.model.embed.patch
        return t, math.lcm(h, w)
    match = re.search(r"/(\d+)(?:x(\d+))?$", choose_name(config, kind, device, start))
    return (max(1, int(match[2] or 1)), max(1, int(match[1]))) if match else (1, 1)  # create_model refuses the others


def choose_name(config: TrainConfig, kind: str, device: torch.device, start: Start | None) -> str:
    if start or config.model:
        return start.name if start else str(config.model)
    if kind == "video":
        return "vivit2-S/16x2" if device.type == "cuda" else "vivit1-N/12x4"
    return "vit-S/16" if device.type == "cuda" else "vit-N/12"


def choose_embed(config: TrainConfig, start: Start | None) -> str | None:
    return config.embed or (None if start or config.model else "conv")


def choose_model(
    config: TrainConfig, spec: ClipSpec, num_classes: int, device: torch.device, start: Start | None
) -> tuple[str, ModelConfig, list[str]]:
    """Name, settings and notes. Raises ValueError for a model that there is not, or that clips do not fit."""
    name = choose_name(config, spec.kind, device, start)
    settings: dict[str, Any] = {"clip": spec.clip_size, "num_classes": num_classes}
    settings |= {"mean": spec.mean, "std": spec.std}
    if start and start.model:
        if not pools_as(start.model, config.pool):
            raise ValueError(f"--pool {config.pool}: the model is as in --init {config.init}: leave --pool out")
        note = f"model {name} as in --init" + "".join(f", {more}" for more in start.grown)
        if start.in_package:
            note = f"model {name} starts from weights of the package that know motion; --init none starts fresh"
        with torch.device("meta"):
            return name, SpaceTimeTransformer(replace(start.model, **settings)).config, [note]
    embed = choose_embed(config, start)
    with torch.device("meta"):
        model = create_model(name, channels=spec.num_channels, embed=embed, pool=config.pool, **settings)
    why = "is the image model's size" if start else f"is the default for {device.type}"
    notes = [] if config.model else [f"model {name} with {model.config.embed.kind} tokens {why}; choose with --model"]
    return name, model.config, notes


def choose_changes(config: TrainConfig, source: Source, start: Start | None) -> tuple[Changes, list[str]]:
    if config.label_swaps and (not config.augment or source.kind == "sound"):
        raise ValueError("--label-swaps is for clips that are mirrored or reversed, and these are not: leave it out")
    if not config.augment:
        return Changes(augmentation=None), ["clips are not varied (--no-augment)"]
    if source.kind == "sound":
        return Changes(augmentation=Augmentation()), ["spectrograms are rolled in time, bands of them masked"]
    file, classes = config.label_swaps, source.classes
    if not classes and not file:
        note = "clips are neither mirrored nor played backwards: what becomes of a number then is not known"
        return Changes(augmentation=Augmentation()), [note]
    swaps = read_swaps(file, classes) if file else find_swaps(classes)
    reverse = swaps.reversed if source.kind == "video" else None
    usual = STRONG if start and start.knows_motion else Augmentation()
    changes = Changes(
        augmentation=replace(usual, flip=swaps.mirrored is not None, reverse=reverse is not None),
        flipped=swaps.mirrored,
        reversed=reverse,
    )
    return changes, [note for note in swaps.notes if source.kind == "video" or "backwards" not in note]
