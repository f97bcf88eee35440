"""The weights that a training starts from, with the model and the input that they are for."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import tubelet.weights
from tubelet.convert.once import convert_once
from tubelet.data.clip_spec import ClipSpec
from tubelet.data.duplicates import mark_contents
from tubelet.data.items import Source
from tubelet.data.problems import some
from tubelet.nn.config import ModelConfig, Stage, WindowStage
from tubelet.nn.create import format_name
from tubelet.nn.families import FAMILIES, SIZES
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.system.spread import Spread
from tubelet.system.text import plural
from tubelet.train.config import TrainConfig
from tubelet.weights.init.from_image import init_from_image
from tubelet.weights.init.from_model import init_from_model
from tubelet.weights.init.grow import add_probe, see_frames
from tubelet.weights.init.image_weights import image_config, image_shape
from tubelet.weights.published import find_published
from tubelet.weights.store import PRETRAINING, open_model
from tubelet.weights.terms import Terms, read_terms

FRESH = "none"  # of --init
CONTENTS = "contents"  # marks of the files that a pre-training has seen, in what is said of its weights
STARTS = Path(tubelet.weights.__file__).parent / "starts"  # weights in the package


@dataclass(frozen=True, kw_only=True)
class Start:
    """Weights to start from: of an image ViT, or of a model of ours (`model`), whose input may be known (`spec`).

    name: of the model that they start. mean, std: of the pixels that they know. pretraining: what is said of weights of
    `tubelet pretrain`, which are for clips of any size and learn as quickly as fresh ones; nothing of others. terms:
    under which they were published, where they are known. grown: what their model is the first part of, in words.
    file: of weights of ours, where these were made of them. still: their model sees the frames of a video one by one.
    """

    init: str
    name: str
    model: ModelConfig | None = None
    spec: ClipSpec | None = None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pretraining: Mapping[str, Any] = field(default_factory=dict)
    terms: tuple[Terms, ...] = ()
    grown: tuple[str, ...] = ()
    file: str = ""
    still: bool = False

    def __str__(self) -> str:
        """In a few words: a file name, or that they are the package's."""
        return f"{Path(self.init).stem} of the package" if self.in_package else self.init

    @property
    def in_package(self) -> bool:
        return STARTS in Path(self.init).parents

    @property
    def is_pretrained(self) -> bool:
        return bool(self.pretraining)

    @property
    def knows_motion(self) -> bool:
        """Whether they learned from made-up worlds, be it before they learned from clips."""
        return "worlds" in self.pretraining

    def fill(self, model: SpaceTimeTransformer) -> list[str]:
        """Gives the weights to a model and says what was done, a line for each piece.

        Raises:
            ValueError: they do not fit; the model is then unchanged.
        """
        file = self.file or self.init
        return init_from_model(model, file) if self.model else init_from_image(model, file)


def find_shipped(config: TrainConfig, kind: str, *, name: str, embed: str | None) -> Start | None:
    """The weights in the package for a model and its tokeniser; None where there are none, or others are asked for."""
    family = FAMILIES.get(name.split("-")[0])
    embed = embed or (family.embed if family else None)
    file = STARTS / f"{name.replace('/', '-')}-{embed}.safetensors"
    if config.init or config.pool or kind != "video" or not file.is_file():
        return None
    return find_start(replace(config, init=str(file)), kind)


def find_start(config: TrainConfig, kind: str) -> Start | None:
    """The weights that --init names; None without it, or where it is "none".

    Raises:
        ValueError: weights that cannot be had, or made for another kind of files; --freeze without weights.
    """
    if config.init in (None, FRESH):
        if config.freeze:
            raise ValueError(
                "--freeze learns from the features of an encoder that was trained before: name it with --init, a run, "
                "weights of another program, or what `tubelet weights` lists"
            )
        return None
    try:
        file = open_model(config.init)
    except ValueError:  # no weights of ours
        place = convert_once(config.init, plain=config.pool == "attentive")
        if place is None:
            return start_from_image(config, config.init, kind)
        file = open_model(place)
    theirs, said = file.config(), file.about.get("clip_spec")
    spec = ClipSpec.from_json(said) if said else None
    pictures = spec.kind == "image" if spec else theirs.clip[0] == theirs.embed.patch[0] == 1 and theirs.channels == 3
    model, grown = theirs, []
    if kind == "video" and pictures:
        model = see_frames(model)
        grown.append("frame by frame, and a fresh encoder along time")
    if config.pool == "attentive" and not is_probe(model.stages[-1]):
        model = add_probe(model)
        grown.append("a fresh attentive probe looks at all its tokens")
    start = Start(
        init=config.init,
        file=str(file.file),
        still=kind == "video" and pictures,
        name=format_name(theirs),
        model=model,
        spec=None if kind == "video" and pictures else spec,
        mean=model.mean * (model.channels // len(model.mean)),
        std=model.std * (model.channels // len(model.std)),
        pretraining=file.about.get(PRETRAINING, {}),
        terms=read_terms(file.about),
        grown=tuple(grown),
    )
    check_fits(start, config, kind)
    return start


def start_from_image(config: TrainConfig, init: str, kind: str) -> Start:
    """The start from a plain image ViT in timm's names."""
    image, line = image_config(init), find_published(init)
    mean, std = (tuple(image.get(key, (0.5, 0.5, 0.5))) for key in ("mean", "std"))
    name = config.model or image_model(init, kind)
    return Start(init=init, name=name, mean=mean, std=std, terms=(line.terms,) if line else ())


def is_probe(stage: Stage | WindowStage) -> bool:
    """Whether a stage only pools, by attention."""
    return stage.kind == "blocks" and not stage.depth and stage.pool == "attentive"


def pools_as(model: ModelConfig, pool: str | None) -> bool:
    """Whether a model pools in the way that is asked for, be it in the first of its stages or in the last; None: any.
    Windows are pooled by their mean."""
    return pool in (None, *(stage.pool if stage.kind == "blocks" else "mean" for stage in model.stages))


def note_seen(start: Start | None, source: Source, spread: Spread) -> list[str]:
    """A note where a pre-training has seen, without labels, what the training is tested on."""
    seen = {*start.pretraining.get(CONTENTS, ())} if start else {*()}
    held = sorted({item.path for item in source.items if item.split != "train"}) if seen else []
    marks = spread(partial(mark_contents, source.root), held)
    found = [path for path, mark in zip(held, marks, strict=True) if mark in seen]
    if not start or not found:
        return []
    what = f"{start} has seen {len(found)} of {plural(len(held), 'held-out file')}, without labels: {some(found)}"
    return [f"{what}. What is measured flatters: tubelet pretrain keeps out what is held out of data that it is given"]


def check_fits(start: Start, config: TrainConfig, kind: str) -> None:
    """Raises ValueError where the weights of a model of ours are for other files, or another model is asked for."""
    assert start.model is not None
    takes = start.spec.kind if start.spec else "image" if start.model.clip[0] == 1 else "video"
    if takes != kind and (start.spec or kind == "video"):
        raise ValueError(f"{start.init}: its model takes files of kind {takes!r}, the data are of kind {kind!r}")
    if start.spec is None and start.model.channels != (channels := 1 if kind == "sound" else 3):
        raise ValueError(
            f"{start.init}: its model takes clips of {start.model.channels} channels, data of kind {kind!r} give "
            f"{channels}: choose other weights"
        )
    if config.model not in (None, start.name) or config.embed not in (None, start.model.embed.kind):
        raise ValueError(
            f"{start.init}: weights of {start.name} with {start.model.embed.kind} tokens: leave --model and --embed out"
        )


def image_name(name: str, kind: str) -> str:
    """The model that starts from an image ViT, by its name: "vit-S/14" -> "vivit2-S/14x2" for videos."""
    return f"{name.replace('vit-', 'vivit2-')}x2" if kind == "video" else name


def image_model(init: str, kind: str) -> str:
    """The name of the model that starts from an image ViT: its size, its patch, a factorised encoder for video."""
    dim, depth, patch = image_shape(init)
    size = next((name for name, (d, layers, _) in SIZES.items() if (d, layers) == (dim, depth)), None)
    if size is None:
        known = ", ".join(f"{name} {d} x {layers}" for name, (d, layers, _) in SIZES.items())
        raise ValueError(
            f"{init}: width {dim}, {depth} layers is none of our sizes ({known}): choose another image ViT"
        )
    return image_name(f"vit-{size}/{patch}", kind)


def choose_rates(config: TrainConfig, model: ModelConfig, start: Start | None) -> tuple[float, float]:
    """Peak learning rate, lower for what has learned before and higher for a head alone, and its layer-wise decay."""
    if start and not start.is_pretrained and not config.freeze:
        lr, decay = 3e-4, 0.75
    else:
        lr, decay = 3e-3 if config.freeze and len(model.stages) == 1 else 1e-3, 1.0
    return config.lr or lr * (config.batch / 16) ** 0.5, config.layer_decay or decay
