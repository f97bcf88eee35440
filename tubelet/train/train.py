"""One training, from its settings to a finished run directory."""

from pathlib import Path

from tubelet.data.dataset import UserAugmentation
from tubelet.system.exits import Stopped
from tubelet.train.clips import train_clips
from tubelet.train.config import TrainConfig
from tubelet.train.segments import train_segments

__all__ = ["Stopped", "train_fn"]


def train_fn(
    config: TrainConfig,
    *,
    user_augmentation: UserAugmentation | None = None,
    show: bool = True,
    begun: float | None = None,
) -> Path:
    """Trains, evaluates and reports; returns the run directory. Call it under torchrun to train with several processes;
    all but the first return when the held-out clips are answered, before the report.

    user_augmentation: any callable from a clip (C, T, H, W), uint8 or for sound float, to the same, after ours.
    begun: `time.monotonic()` from which on the time budget counts; now, if left out.

    Raises:
        ValueError: data or settings that cannot work.
        Stopped: Ctrl-C or SIGTERM; call again with the same settings to go on.
        EnvironmentTrouble: a full disk, too little memory, or another process that trains in the same directory.
    """
    train = train_segments if config.task == "segments" else train_clips
    return train(config, user_augmentation=user_augmentation, show=show, begun=begun)
