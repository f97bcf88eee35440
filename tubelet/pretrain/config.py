"""Settings of a pre-training."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tubelet.data.labels import LABELS, check_labels
from tubelet.system.options import NamesOf, Positional

MODELS = {"video": "vivit1-N/12x4", "image": "vit-N/12", "sound": "vit-N/12"}
WORLDS_STEPS, CLIPS_STEPS = 6000, 2000


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    data: Positional[tuple[Path, ...]] = ()
    """Folders or tables of videos, images or sounds, labelled or not; made-up worlds if left out. What a training with
    them is tested on is kept out, by content."""
    out: Path = Path("runs/start")
    """Folder for the weights; it goes on where it was stopped."""
    model: str | None = None
    """family-size/patch[xtubelet], of one encoder over space and time, such as vivit1 or vidtrans; vivit1-N/12x4, for
    images and sounds vit-N/12, if left out."""
    embed: Annotated[str, NamesOf("tubelet.nn.create", "TOKENISERS")] | None = None
    """Tokeniser, as for training; conv if left out."""
    init: str | None = None
    """Weights to begin from, as for training, where there are data; none: fresh ones; left out: those of the package,
    where there are some for the model."""
    steps: int | None = None
    """Steps of 32 worlds or clips each; 6000 of worlds, 2000 of clips, if left out."""
    lr: float = 1e-3
    """Peak learning rate."""
    frames: int | None = None
    """Frames of a clip of yours."""
    seconds_between_frames: float | None = None
    """Time between two frames of a clip of yours."""
    size: Annotated[tuple[int, int], "HEIGHT WIDTH"] | None = None
    """Height and width of a clip of yours in px."""
    task: Annotated[str, NamesOf("tubelet.tasks", "NAMES")] = "classification"
    """What labels of the data are, as for training, which decides what it would hold out."""
    labels: tuple[str, ...] = LABELS
    """Columns of a table that hold them."""
    val_share: float = 0.2
    """Share that a training would hold out, where the data has no split of its own."""
    seed: int = 0
    """Seed of the worlds, the weights, every random draw, and of what a training would hold out."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""
    workers: int = 0
    """Threads that render worlds or read files; 0: one for each processor."""
    save_minutes: float = 2.0
    """Minutes from one checkpoint to the next."""

    def __post_init__(self) -> None:
        check_labels(self.task, self.labels)
        given = {name: getattr(self, name) for name in ("steps", "lr", "save_minutes", "frames")}
        for name, value in {**given, "seconds_between_frames": self.seconds_between_frames}.items():
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name} = {value}: expected more than 0")
        for name in ("seed", "workers"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)}: expected 0 or more")
        for name in ("init", "frames", "seconds_between_frames", "size"):
            if not self.data and getattr(self, name) is not None:
                raise ValueError(f"{name} = {getattr(self, name)} is for clips of yours, not for worlds: leave it out")

    @property
    def count(self) -> int:
        """Steps."""
        return self.steps or (CLIPS_STEPS if self.data else WORLDS_STEPS)

    def model_name(self, kind: str) -> str:
        """The model for a kind of files; worlds are videos."""
        return self.model or MODELS[kind]

    @property
    def embed_name(self) -> str:
        return self.embed or "conv"
