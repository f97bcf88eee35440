"""Training: `train_fn(TrainConfig(data=...))`. Importing this room imports no torch before it is used."""

from tubelet.train.config import TrainConfig

__all__ = ["TrainConfig", "train_fn"]


def __getattr__(name: str) -> object:
    if name == "train_fn":
        from tubelet.train.train import train_fn

        return train_fn
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
