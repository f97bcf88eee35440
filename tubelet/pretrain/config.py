"""Settings of a pre-training."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tubelet.system.options import NamesOf


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    out: Path = Path("runs/start")
    """Folder for the weights; it goes on where it was stopped."""
    model: str = "vivit1-N/12x4"
    """family-size/patch[xtubelet], of one encoder over space and time, such as vivit1 or vidtrans."""
    embed: Annotated[str, NamesOf("tubelet.nn.create", "TOKENISERS")] = "conv"
    """Tokeniser, as for training."""
    steps: int = 6000
    """Steps of 32 worlds each."""
    lr: float = 1e-3
    """Peak learning rate."""
    seed: int = 0
    """Seed of the worlds, the weights and every random draw."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""
    workers: int = 0
    """Threads that render worlds; 0: one for each processor."""
    save_minutes: float = 2.0
    """Minutes from one checkpoint to the next."""

    def __post_init__(self) -> None:
        for name in ("steps", "lr", "save_minutes"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} = {getattr(self, name)}: expected more than 0")
        for name in ("seed", "workers"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)}: expected 0 or more")
