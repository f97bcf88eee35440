"""A dialect: what a program calls its tensors, and all that goes with its names."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tubelet.nn.config import ModelConfig
from tubelet.weights.dialects.rename import ForeignState, Link
from tubelet.weights.dialects.settings import Given, Json, Settings


@dataclass(frozen=True)
class Video:
    """A published video model took every `step`-th frame of files of so many frames a second, short side resized to
    `box_px` for a crop of 224 px. `why`: where these numbers are from."""

    step: int
    frames_per_second: int
    box_px: int
    why: str


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """One program's names for its tensors, and what its models are.

    fingerprint: one of these names is among the weights', and none of the dialects before it; () if to be asked for.
    config: the model that weights are for.
    check_supported: raises ValueError for a model that the program has no words for.
    mapping: moves every tensor, in both directions.
    read_settings: config.json and preprocessor_config.json beside the weights.
    kind: what its models look at.
    video: how those of so many frames saw their files, where that is known.
    fresh: beginnings of the names of our tensors that its weights do not have.
    note: what must be said of the input of its models.
    """

    name: str
    fingerprint: tuple[str, ...]
    config: Callable[[ForeignState, Given], ModelConfig]
    check_supported: Callable[[ModelConfig], None]
    mapping: Callable[[Link, ModelConfig], None]
    read_settings: Callable[[Json, Json], Settings] = lambda config, preprocessor: Settings()
    kind: Literal["video", "image", "sound"] = "video"
    video: Callable[[int], Video | None] = lambda frames: None
    fresh: tuple[str, ...] = ()
    note: str = ""
