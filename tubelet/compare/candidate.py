"""A candidate: one way to train, as the settings in which it differs from what `tubelet train` does by itself."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, product
from pathlib import Path

from tubelet.system.options import read_command
from tubelet.train.config import TrainConfig

DEFAULT = "default"
# what all candidates share, or what the comparison itself decides
SHARED = (
    *("data", "task", "labels", "out", "minutes", "epochs", "val_share", "seed", "baseline", "compare", "device"),
    *("workers", "tensorboard", "save_minutes", "shard"),
)
# by the device, as `tubelet train` chooses: a small and the usual size, patch, frames of a tubelet
USUAL = {"cpu": ("P", "N", 12, 4), "cuda": ("Ti", "S", 16, 2)}


@dataclass(frozen=True)
class Candidate:
    """Settings as they are typed, such as ("model=vivit2-N/12x4", "embed=conv"); none for the default."""

    settings: tuple[str, ...]

    @property
    def name(self) -> str:
        return " ".join(self.settings) or DEFAULT

    @property
    def flags(self) -> list[str]:
        """The same for `tubelet train`."""
        return [word for one in self.settings for word in read_setting(one)]

    @property
    def folder(self) -> str:
        """The name in letters that every disk knows."""
        return re.sub(r"[^A-Za-z0-9.]+", "-", self.name).strip("-.")[:60]

    def command(self, data: Path) -> str:
        """What trains it on all that is not test."""
        return f"tubelet train {shlex.join([str(data), *self.flags])}"

    def read(self, data: Path) -> TrainConfig:
        """Its settings for the data. Raises ValueError for those that there are not, and for those that all share."""
        for one in self.settings:
            name = one.partition("=")[0].removeprefix("no-").replace("-", "_")
            if name in SHARED:
                raise ValueError(f"{one!r}: {name} is the same for all candidates, or decided by the budget: leave it")
        return read_command(TrainConfig, [*self.flags, "--", str(data)], name="tubelet train")


def read_setting(setting: str) -> list[str]:
    """ "stills=0.5" -> ["--stills", "0.5"]; "size=48,64" -> ["--size", "48", "64"]; "balance" -> ["--balance"]."""
    name, equals, value = setting.partition("=")
    return [f"--{name.removeprefix('--')}", *(value.split(",") if equals else ())]


def list_candidates(
    models: Sequence[str], starts: Sequence[str], variants: Sequence[str], *, kind: str, device: str
) -> list[Candidate]:
    """Every model with every start and every variant; a few that make sense for the kind of data where none is given.

    starts: weights to start from, as --init has them. variants: settings with spaces between. "default" for none.

    Raises ValueError: fewer than two, or one twice.
    """
    if not (models or starts or variants):
        return [Candidate(tuple(settings.split())) for settings in usual_settings(kind, device)]
    choices = (
        [[f"model={model}"] for model in models],
        [[] if start == DEFAULT else [f"init={start}"] for start in starts],
        [[] if variant == DEFAULT else variant.split() for variant in variants],
    )
    found = [Candidate(tuple(chain(*one))) for one in product(*(choice or [[]] for choice in choices))]
    twice = sorted({one.name for one in found if found.count(one) > 1})
    if twice:
        raise ValueError(f"the same candidate twice: {', '.join(twice)}: leave one out")
    if len(found) < 2:
        raise ValueError(
            f"one candidate, {found[0].name}: name another to compare it with; --variants default is what `tubelet "
            "train` does by itself"
        )
    return found


def usual_settings(kind: str, device: str) -> list[str]:
    """Candidates that are worth a first comparison, by their settings."""
    small, usual, patch, frames = USUAL.get(device, USUAL["cpu"])
    if kind != "video":
        return ["", f"model=vit-{small}/{patch} embed=conv", f"model=vit-{usual}/{patch}", "ema=0.99", "mixup=0.2"]
    families = [("vivit1", small), ("vivit1" if device == "cuda" else "vivit2", usual), ("timesformer", usual)]
    return [
        "",
        *(["init=none"] if device == "cpu" else []),  # where the package has a start
        "stills=0.5",
        "embed=similarity",
        *(f"model={family}-{size}/{patch}x{frames} embed=conv" for family, size in families),
    ]
