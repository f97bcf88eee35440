"""What a pre-training learns from, and what is asked about it."""

from collections.abc import Generator, Mapping
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from tubelet.nn.create import format_name
from tubelet.nn.encoder import Encoder
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.weights.terms import Terms


class Movable(Protocol):
    def to(self, device: torch.device) -> Any: ...


Batch = TypeVar("Batch", bound=Movable)


class Lesson(Protocol[Batch]):
    """Batches for a pre-training, and what is asked of a model about each. Every draw is a function of the seed and the
    step, never of a state.

    head: gives the answers, and is thrown away in the end. weights: of the losses by name. explained: of which losses
    it is told what share is explained. know_little: the answers that explain nothing, in words.
    """

    head: nn.Module
    weights: Mapping[str, float]
    explained: tuple[str, ...]
    know_little: str

    def open(self, *, show: bool) -> list[Batch]:
        """Makes ready; returns the batches that are looked at meanwhile and never learned from."""

    def batches(self, first: int, steps: int) -> Generator[Batch, None, None]:
        """A batch for each step from `first` on."""

    def answer(self, model: SpaceTimeTransformer, batch: Batch) -> tuple[Tensor, ...]: ...

    def know_nothing(self, batch: Batch) -> tuple[Tensor, ...]:
        """Answers that explain nothing."""

    def measure(self, batch: Batch, *answers: Tensor) -> dict[str, Tensor]:
        """The losses of answers, by name."""

    def begun_with(self) -> dict[str, Any]:
        """What must be the same where a pre-training goes on, beside its settings, as JSON."""

    @property
    def terms(self) -> tuple[Terms, ...]:
        """Under which the weights that it begins with were published, where they are known."""

    def about(self) -> dict[str, Any]:
        """What else is to be said of the weights, as JSON."""

    def write_card(self, about: dict[str, Any]) -> str:
        """The card, from all that is said of the weights: settings, `begun_with`, `about`, and what is explained."""


def one_encoder(model: SpaceTimeTransformer, example: str) -> Encoder:
    """The encoder of a model whose tokens can be asked. Raises ValueError where there are several, or no such one."""
    encoder = model.encoders[0]
    if len(model.encoders) > 1 or not isinstance(encoder, Encoder):
        raise ValueError(f"{format_name(model.config)}: expected a model of one encoder, such as {example}")
    return encoder
