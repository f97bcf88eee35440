"""A dialect: what a program calls its tensors, and all that goes with its names."""

from dataclasses import asdict, dataclass
from typing import Literal

from tubelet.nn.config import LATER, ModelConfig
from tubelet.weights.dialects.rename import ForeignState, Link
from tubelet.weights.dialects.settings import Given, Json, Settings

Allowed = dict[str, tuple[object, ...]]
Kind = Literal["video", "image", "sound"]


@dataclass(frozen=True)
class Video:
    """The input of a published video model: every `step`-th frame of files of so many frames a second, short side
    resized to `box_px` for a crop of 224 px. `why`: where these numbers are from."""

    step: int
    frames_per_second: int
    box_px: int
    why: str


class Dialect:
    """One program's names for its tensors, and what its models are.

    fingerprint: one of these names is among the weights', and none of the dialects before it; () if to be asked for.
    kind: what its models look at.
    fresh: beginnings of the names of our tensors that its weights do not have.
    note: what must be said of the input of its models.
    gives: what the head of its published models gives, where that is not a class each.
    licence: of its published weights, where it is one; commercial: it allows commercial use; gated: who wants them
        must ask for them.
    """

    name: str
    fingerprint: tuple[str, ...] = ()
    kind: Kind = "video"
    fresh: tuple[str, ...] = ()
    note: str = ""
    gives: str = ""
    licence: str = ""
    commercial: bool = True
    gated: bool = False

    def config(self, theirs: ForeignState, given: Given) -> ModelConfig:
        """The model that weights are for."""
        raise NotImplementedError

    def allowed(self, config: ModelConfig) -> Allowed:
        """The values of settings that the program has words for, where they are not those of ViT."""
        raise NotImplementedError

    def map_tensors(self, link: Link, config: ModelConfig) -> None:
        """Moves every tensor, in both directions."""
        raise NotImplementedError

    def read_settings(self, config: Json, preprocessor: Json) -> Settings:
        """The settings that config.json and preprocessor_config.json beside the weights say."""
        return Settings()

    def piece(self, family: str) -> "Dialect":
        """What is so of models of one family: a part of this dialect where it has parts."""
        return self

    def published(self, theirs: ForeignState) -> Settings:
        """The settings of the published weights of exactly these sizes, where no file beside them says any."""
        return Settings()

    def video(self, frames: int) -> Video | None:
        """The frame rate and size at which models of so many frames saw their files, where that is known."""
        return None

    def check_supported(self, config: ModelConfig) -> None:
        """Raises ValueError for a model that the program has no words for."""
        require(config, self.name, self.allowed(config))


def require(config: ModelConfig, dialect: str, allowed: Allowed) -> None:
    """Raises ValueError where the model has settings that a dialect cannot say; those not named must be ViT's."""
    vit: Allowed = {
        "embed": ("tubelet",),
        "stride": (config.embed.patch,),
        "frames": (None,),
        "position": ("learned",),
        "attend": ("thw",),
        "gelu": ("erf",),
        "eps": (1e-6,),
        "stages": (1,),
        **{name: (value,) for name, value in LATER.items()},
    }
    found = asdict(config) | asdict(config.embed) | asdict(config.stages[0])
    found |= {"embed": config.embed.kind, "stages": len(config.stages)}
    wrong = [
        f"{name}={found[name]!r} (it knows {', '.join(map(repr, values))})"
        for name, values in (vit | allowed).items()
        if name in found and found[name] not in values
    ]
    if wrong:
        raise ValueError(f"the dialect {dialect!r} cannot say a model with {'; '.join(wrong)}: choose another")
