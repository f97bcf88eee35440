"""A model cut in two: its encoder, which is only run, and the rest, which learns from what the encoder gives."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from tubelet.nn.encoder import AnyEncoder, make_features, run_encoders, step_tokens
from tubelet.nn.grid import Grid
from tubelet.nn.model import SpaceTimeTransformer

LEAST_STD = 0.01  # of the mean deviation: a channel that hardly varies is not blown up


@torch.no_grad()
def encode(model: SpaceTimeTransformer, clip: Tensor) -> Tensor:
    """The codes of clips, (B, C, T, H, W) -> (B, t, D): those of each step in time where a second encoder follows that
    puts them together (vivit2), all tokens where a probe does, else one, t = 1: what the head classifies."""
    first = count_first(model)
    codes, _ = run_encoders(model.stack[:first], *model.embed_clip(clip))
    return codes if first < len(model.encoders) else codes.mean(1, keepdim=True)


def count_first(model: SpaceTimeTransformer) -> int:
    """The number of encoders that make the codes of a clip: up to the first that pools, but for one without blocks
    after others, which is a probe and learns."""
    pools = model.first_pooled
    return pools if pools and not model.stack[pools].blocks else pools + 1


class Rest(nn.Module):
    """The model after those encoders that make codes: (B, t, D) -> logits (B, classes).

    Its parameters are those of the model, under the same names. The head sees features standardised, once they were
    measured (`standardise`); `fold_statistics` gives its weights for features as they are.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: SpaceTimeTransformer):
        super().__init__()
        self.config = model.config
        after = count_first(model)
        # of codes that are all tokens of a clip; else one of each step in time
        self.grid = None if model.stack[after - 1].pools else model.grid(model.config.clip)
        self.encoders = nn.ModuleDict({str(after + i): one for i, one in enumerate(model.encoders[after:])})
        self.head = model.head
        self.register_buffer("mean", torch.zeros(1), persistent=False)
        self.register_buffer("std", torch.ones(1), persistent=False)

    @property
    def stack(self) -> Sequence[AnyEncoder]:
        """The encoders in order, typed."""
        return cast(Sequence[AnyEncoder], list(self.encoders.values()))

    @property
    def what(self) -> str:
        """The layers that learn, in words."""
        names = ["the temporal encoder" if encoder.blocks else "the attentive probe" for encoder in self.stack]
        return ", ".join([*names, "the head"]) if len(names) > 1 else " and ".join([*names, "the head"])

    def forward(self, codes: Tensor) -> Tensor:
        features = make_features(self.stack, codes, self.grid or Grid(codes.shape[1], 1, 1))
        return self.head((features - self.mean) / self.std)

    def standardise(self, features: Tensor) -> None:
        """Takes mean and deviation of each channel from features (N, t, D): a head alone learns sooner from such. Not
        for codes that another encoder sees, whose layers have norms of their own."""
        self.mean, std = features.mean((0, 1)), features.std((0, 1))
        self.std = std.clamp(min=LEAST_STD * std.mean().item())

    def fold_statistics(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights that learned on standardised features -> those that give the same on features as they are."""
        weight, bias = weights["head.weight"], weights["head.bias"]
        weight = weight / self.std.to(weight)
        return {**weights, "head.weight": weight, "head.bias": bias - (weight * self.mean.to(weight)).sum(1)}

    def normalise(self, codes: Tensor) -> Tensor:
        """Codes (B, t, D) as they are: the clips were normalised before they were encoded."""
        return codes


def encodes_steps_apart(model: SpaceTimeTransformer) -> bool:
    """Whether the first encoder sees each step in time by itself, so that a step's code is right in every window."""
    first = model.stack[0]
    return first.over == "hw" and first.pools and model.embed.steps_apart


@torch.no_grad()
def encode_steps(model: SpaceTimeTransformer, clip: Tensor) -> Tensor:
    """The code of each tubelet step of a clip by the first encoder, (C, T, H, W) -> (t, D).

    Raises:
        ValueError: the model does not see its steps one by one, or tubelets do not fill the clip.
    """
    if not encodes_steps_apart(model):
        raise ValueError(f"this {model.config.family} model does not encode its steps one by one: use a vivit2 model")
    codes, _ = model.encoders[0](*model.embed_clip(clip[None]))
    return codes[0]


@torch.no_grad()
def classify_steps(model: SpaceTimeTransformer, steps: Tensor) -> Tensor:
    """The rest of the model on windows of encoded steps, (B, t, D) -> (B, classes)."""
    return Rest(model)(steps)


@torch.no_grad()
def see_steps(model: SpaceTimeTransformer, clip: Tensor) -> Tensor:
    """Steps of clips as a model sees them, in the light of the whole clip: (B, C, T, H, W) -> (B, t, 2 D).

    Mean and maximum, over height and width, of the last encoder's tokens. The first half, averaged over the steps too,
    is the features of a model that pools by the mean; the second keeps what is seen in one place alone.
    """
    return pool_steps(model.stack, *model.embed_clip(clip))


@torch.no_grad()
def see_encoded_steps(model: SpaceTimeTransformer, steps: Tensor) -> Tensor:
    """Encoded steps as the rest of a model sees them, (B, t, D) -> (B, t, 2 D'): see `see_steps`."""
    return pool_steps(model.stack[1:], steps, Grid(steps.shape[1], 1, 1))


def pool_steps(encoders: Sequence[AnyEncoder], x: Tensor, grid: Grid) -> Tensor:
    """Tokens (B, N, D) on a grid -> mean and maximum (B, t, 2 D') of those of each step after all encoders."""
    x = step_tokens(encoders, x, grid)
    return torch.cat([x.mean((2, 3)), x.amax((2, 3))], 2)
