"""A head that finds segments: from what is seen at each step of a long video to ranges of time, class by class.

Level l has a place on every 2 ** l-th step, which gives, for each class, a logit and the distances to the start and the
end of a segment around it. Level 0 learns those that end within 4 steps of the place, level 1 within 4 to 8, level 2
within 8 to 16, and so on; the last all longer ones.

steps    . . . . . . . . . . . . . . . .
level 0  x x x x x x x x x x x x x x x x
level 1  x   x   x   x   x   x   x   x
level 2  x       x       x       x

Sources: max-pooling between levels, arXiv 2303.09055; places, ranges and losses, arXiv 2202.07925.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

REACH = 4.0  # longest distance to an end that level 0 learns, in steps; twice as far with each level
FURTHEST = 1.5 * REACH  # distance that a place can give, in places of its level
CENTRE = 1.5  # places that learn to find a segment lie so near to its middle, in places of their level
GAMMA, ALPHA = 2.0, 0.25  # of the focal loss: arXiv 1708.02002
RARE = 0.01  # probability that a place gives to each class before it has learned
LEAST_STD = 1e-3


@dataclass(frozen=True, kw_only=True)
class PyramidConfig:
    """The settings that a pyramid is made from."""

    inputs: int  # channels of a step
    num_classes: int
    levels: int = 5
    dim: int = 128

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if type(value) is not int or not 1 <= value <= 2**20:
                raise ValueError(f"got {name}={value!r}, expected a whole number above 0")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Level(NamedTuple):
    """The answers of a level: logits (B, K, P), distances to start and end (B, K, 2, P), in steps."""

    logits: Tensor
    distances: Tensor


class StepNorm(nn.LayerNorm):
    """Layer norm over the channels of each place: (B, D, P) -> same. A norm over time would see the future."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


def neighbours(inputs: int, outputs: int) -> nn.Conv1d:
    """A convolution over a place and the two beside it."""
    return nn.Conv1d(inputs, outputs, 3, padding=1)


def layer(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(neighbours(inputs, outputs), StepNorm(outputs), nn.GELU())


class Pyramid(nn.Module):
    """(B, S, D) -> a `Level` for each level, of ceil(S / 2 ** l) places.

    Steps are standardised by `mean` and `std` (D,), which `standardise` takes from those that are learned from.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: PyramidConfig):
        super().__init__()
        self.config, dim, classes = config, config.dim, config.num_classes
        self.register_buffer("mean", torch.zeros(config.inputs))
        self.register_buffer("std", torch.ones(config.inputs))
        self.stem = nn.Sequential(layer(config.inputs, dim), layer(dim, dim))
        self.classify = nn.Sequential(layer(dim, dim), neighbours(dim, classes))
        self.measure = nn.Sequential(layer(dim, dim), neighbours(dim, 2 * classes))
        nn.init.constant_(self.classify.get_parameter("1.bias"), math.log(RARE / (1 - RARE)))

    def standardise(self, steps: Tensor) -> None:
        """Takes mean and deviation of each channel from steps (N, D), N > 1."""
        self.mean.copy_(steps.mean(0))
        self.std.copy_(steps.std(0).clamp(min=LEAST_STD))

    def forward(self, steps: Tensor) -> list[Level]:
        if steps.ndim != 3 or steps.shape[1] < 1 or steps.shape[2] != self.config.inputs:
            raise ValueError(f"got steps of shape {tuple(steps.shape)}, expected (B, S, {self.config.inputs}), S > 0")
        x = self.stem(((steps - self.mean) / self.std).transpose(1, 2))
        levels = []
        for number in range(self.config.levels):
            if number:
                x = F.max_pool1d(x, 3, stride=2, padding=1)
            distances = F.softplus(self.measure(x)).unflatten(1, (self.config.num_classes, 2))
            levels.append(Level(self.classify(x), distances.clamp(max=FURTHEST) * 2**number))
        return levels

    def sight(self, level: int) -> int:
        """Steps before and after a place of a level that it sees."""
        return 2 + (2**level - 1) + 2 * 2**level  # the stem, the pools, two convolutions


def levels_for(longest_steps: float) -> int:
    """The number of levels of which the last reaches from the middle to the ends of segments of so many steps."""
    return 1 + max(0, math.ceil(math.log2(longest_steps / 2 / REACH)))


class Targets(NamedTuple):
    """The targets of the places of a level: held (K, P) bool, distances (K, 2, P) in steps, of use where held."""

    held: Tensor
    distances: Tensor


def assign(segments: Tensor, *, num_classes: int, steps: int, levels: int) -> list[Targets]:
    """Segments (N, 3) of start and end, in steps, and class -> the targets of each level.

    A place learns to find a segment that it lies in, near the middle, if the further end is in the reach of its level;
    of several of one class the shortest. A segment that no place would learn is learned by the nearest of level 0.
    """
    starts, ends, classes = segments[:, 0], segments[:, 1], segments[:, 2].long()
    order = torch.argsort(starts - ends)  # the shortest last, so that it stays
    found = []
    missed = torch.ones(len(segments), dtype=torch.bool)
    for level in range(levels):
        places = torch.arange(0, steps, 2**level, dtype=torch.float32)
        before, after = places - starts[:, None], ends[:, None] - places
        near = (places - (starts + ends)[:, None] / 2).abs() <= CENTRE * 2**level
        furthest = torch.maximum(before, after)
        least = REACH * 2 ** (level - 1) if level else 0.0
        most = REACH * 2**level if level + 1 < levels else torch.inf
        fits = near & (before >= 0) & (after >= 0) & (furthest >= least) & (furthest < most)
        missed &= ~fits.any(1)
        held = torch.zeros(num_classes, len(places), dtype=torch.bool)
        distances = torch.zeros(num_classes, 2, len(places))
        for number in order.tolist():
            held[classes[number]] |= fits[number]
            ends_there = torch.stack([before[number], after[number]])
            distances[classes[number]] = torch.where(fits[number], ends_there, distances[classes[number]])
        found.append(Targets(held, distances))
    for number in torch.nonzero(missed).flatten().tolist():
        place = int(((starts + ends)[number] / 2).round().clamp(0, steps - 1))
        found[0].held[classes[number], place] = True
        around = torch.stack([place - starts[number], ends[number] - place])
        found[0].distances[classes[number], :, place] = around.clamp(min=0.05)
    return found


def pyramid_loss(levels: list[Level], targets: list[Targets]) -> tuple[Tensor, Tensor]:
    """Answers for one video, B = 1, and their targets -> the focal loss of the logits, summed over places and classes,
    and the loss of the distances, summed over the places that hold a segment.

    Sources: focal loss, arXiv 1708.02002; distance-IoU in one dimension, arXiv 1911.08287.
    """
    logits = torch.cat([level.logits[0] for level in levels], 1)
    given = torch.cat([level.distances[0] for level in levels], 2)
    held = torch.cat([one.held for one in targets], 1)
    wanted = torch.cat([one.distances for one in targets], 2)
    truth = held.to(logits.dtype)
    each = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    chance = logits.sigmoid()
    wrong = chance * (1 - truth) + (1 - chance) * truth
    weight = ALPHA * truth + (1 - ALPHA) * (1 - truth)
    focal = (weight * wrong**GAMMA * each).sum()
    (before, after), (start, end) = given.unbind(1), wanted.unbind(1)
    overlap = torch.minimum(before, start) + torch.minimum(after, end)
    hull = torch.maximum(before, start) + torch.maximum(after, end)
    iou = overlap / hull.clamp(min=1e-6)  # both hold the place itself, so that their union is their hull
    centres = ((after - before) - (end - start)) / 2
    apart = 1 - iou + (centres / hull.clamp(min=1e-6)) ** 2
    return focal, apart[held].sum()
