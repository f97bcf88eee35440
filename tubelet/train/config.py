"""Settings of a training run: the only definition, from which flags and the stored JSON derive."""

import math
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from tubelet.data.labels import LABELS, check_labels
from tubelet.system.options import NamesOf, Positional


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of a training run. What is left at None is chosen by looking at the data and the machine; the plan,
    printed first, says what was chosen."""

    data: Positional[Path]
    """Folder of class folders, folder with train/ val/ test/, or CSV file (path, label[, start, end, split, group])."""
    task: Annotated[str, NamesOf("tubelet.tasks", "NAMES")] = "classification"
    """What is learned: classification (one class of several), multilabel (all that hold, cells a;b), regression
    (numbers), or segments (what happens when in long videos: a row path,start,end,label for each)."""
    labels: tuple[str, ...] = LABELS
    """Columns of the table that hold it; several only where they hold numbers."""
    out: Path | None = None
    """Run directory; runs/NAME-OF-THE-DATA if left out."""
    model: str | None = None
    """family-size/patch[xtubelet], such as vivit2-S/16x2."""
    embed: Annotated[str, NamesOf("tubelet.nn.create", "TOKENISERS")] | None = None
    """Tokeniser: tubelet, space-time, depthwise, conv, similarity, or a ResNet such as resnet50."""
    pool: Annotated[str, NamesOf("tubelet.nn.pool", "KINDS")] | None = None
    """What becomes of the tokens: cls, mean, attentive, ...; the family's own if left out."""
    init: str | None = None
    """Weights to start from: a run of tubelet or its model.safetensors; those of another program, by a file or folder,
    or by a name on Hugging Face's hub, as `tubelet weights` lists them. auto: those that serve most people best; none:
    fresh ones; left out: those of the package that know motion, where there are some for the model."""
    freeze: bool = False
    """Leave the encoder of --init as it is: its features are computed once and kept, the rest learns from them."""
    freeze_views: int = 4
    """Randomly varied views of each clip that features are kept of, besides its centre."""
    cache: Path | None = None
    """Folder to keep features in; cached-features, beside the run, if left out."""
    compare: bool = False
    """After --freeze, also train all weights, and report what freezing costs."""
    frames: int | None = None
    """Frames of a clip."""
    seconds_between_frames: float | None = None
    """Time between two frames of a clip; sound: between two columns of the spectrogram."""
    size: Annotated[tuple[int, int], "HEIGHT WIDTH"] | None = None
    """Height and width of a clip in px; sound: mel bins and columns."""
    minutes: float = 15.0
    """Time for the whole command: start, training and evaluation."""
    epochs: float | None = None
    """Passes over the training clips, instead of a time budget."""
    batch: int = 16
    """Clips in one optimizer step, over all processes."""
    accumulate: int = 1
    """Parts in which each process works through its share of a batch, to save memory."""
    lr: float | None = None
    """Peak learning rate."""
    weight_decay: float = 0.05
    """AdamW's weight decay, for matrices only."""
    warmup: float = 0.05
    """Share of the steps in which the learning rate rises; a half cosine follows."""
    layer_decay: float | None = None
    """Factor on the learning rate from each layer to the one below it; 0.75 with most weights to start from."""
    label_smoothing: float | None = None
    """Probability given to all classes alike; 0.1 where each clip has one class, else 0, if left out."""
    mixup: float = 0.0
    """Beta parameter of mixup; 0 is off."""
    stills: float | None = None
    """Greatest share of a still frame of another clip that each is mixed with, so that scenes tell less; if left out,
    0.5 for segments (0.7 where labels have no times), else 0, which is off."""
    ema: float = 0.0
    """Decay of the averaged weights that are evaluated and saved; 0 is off."""
    clip_grad: float = 1.0
    """Largest norm of the gradient; 0 is off."""
    drop_path: float = 0.0
    """Stochastic depth of the last block."""
    dropout: float = 0.0
    """Dropout in attention and MLP."""
    checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more work."""
    augment: bool = True
    """Random crops, flips and colours, one draw for all frames of a clip."""
    label_swaps: Path | None = None
    """CSV or JSON of label, mirrored, reversed: what each class becomes when its clip is changed so."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the products; auto: bfloat16 only where the processor really has it."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Let torch compile the blocks of the model; auto: on a GPU, where five minutes or more repay it."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""
    shard: Literal["none", "fsdp2"] = "none"
    """fsdp2: spread weights and optimizer over the processes, for models that do not fit."""
    baseline: bool = False
    """Also train a model that is given a single frame, and report it beside this one."""
    balance: bool = False
    """Learn from all classes alike, however few clips some have."""
    patience: int | None = None
    """End training after so many looks at validation clips, one after another, that were no better than the best."""
    val_share: float = 0.2
    """Share of the clips held out, where the data has no split of its own."""
    views: str = "auto"
    """Temporal x spatial views of each clip in the final evaluation."""
    max_bad: str = "5%"
    """Most training files that may be unreadable and skipped; more stop the training."""
    save_minutes: float = 2.0
    """Time between two checkpoints to resume from."""
    workers: int | None = None
    """Threads of each process that read files."""
    tensorboard: bool = False
    """Also write curves for TensorBoard (extra: tubelet[tensorboard])."""
    seed: int = 0
    """Seed of the split, the weights, the order of the clips and every random draw."""

    def __post_init__(self) -> None:
        check_labels(self.task, self.labels)
        if self.compare and not self.freeze:
            raise ValueError("--compare compares --freeze with training all weights: give both")
        for name, value in vars(self).items():
            if not isinstance(value, int | float):
                continue
            if name in POSITIVE and not 0 < value < math.inf:
                raise ValueError(f"{name} = {value}: expected more than 0")
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} = {value}: expected 0 or more")
            if name in SHARES and value >= 1:
                raise ValueError(f"{name} = {value}: expected less than 1")
        if self.seed > MOST_SEED:
            raise ValueError(f"seed = {self.seed}: expected at most {MOST_SEED}")
        if not re.fullmatch(r"(100|\d{1,2}(\.\d+)?)%", self.max_bad):
            raise ValueError(f"max_bad = {self.max_bad!r}: expected a percentage from 0% to 100%, such as 5%")

    @property
    def most_bad(self) -> float:
        """`max_bad` as a share in [0, 1]."""
        return float(self.max_bad.removesuffix("%")) / 100

    @property
    def regularisation(self) -> dict[str, Any]:
        """The settings of `tubelet.nn.regularise`."""
        return {"drop_path": self.drop_path, "dropout": self.dropout, "checkpointing": self.checkpointing}

    def to_json(self) -> dict[str, Any]:
        return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "TrainConfig":
        """Settings missing in JSON of an older version are at their default. Raises ValueError for unknown keys."""
        if wrong := sorted(set(values) - {field.name for field in fields(cls)}) or {"data"} - set(values):
            raise ValueError(f"training settings that are unknown or missing: {', '.join(wrong)}")
        settings: dict[str, Any] = dict(values)
        settings["data"] = Path(settings["data"])
        for name in ("out", "cache", "label_swaps"):
            settings[name] = None if settings.get(name) is None else Path(settings[name])
        settings |= {name: tuple(settings[name]) for name in ("size", "labels") if settings.get(name)}
        return cls(**settings)


MOST_SEED = 2**32 - 1  # the seed of a step, a million times it and more, has 64 bits
# Of the numbers, none of which is below 0.
POSITIVE = (
    *("minutes", "epochs", "batch", "accumulate", "lr", "frames", "seconds_between_frames", "layer_decay"),
    *("val_share", "workers", "patience"),
)
SHARES = ("ema", "drop_path", "dropout", "label_smoothing", "stills", "val_share")

# May differ between the run that stopped and the one that goes on: they change where or how fast it runs, not what.
MAY_CHANGE = (
    "label_swaps",  # what is in it is compared
    *("data", "out", "cache", "minutes", "epochs", "accumulate", "checkpointing", "compile", "device", "shard"),
    *("save_minutes", "max_bad", "workers", "tensorboard", "baseline", "compare", "views"),
)

# Left open or not, these end up in the model and the ClipSpec, which are compared instead.
CHOSEN = ("model", "embed", "frames", "seconds_between_frames", "size")
