"""The training of the head that finds segments, from the features of recordings that were made once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tubelet.nn.pyramid import Pyramid, PyramidConfig, Targets, assign, levels_for, pyramid_loss
from tubelet.train.optim import learning_rate

STEPS, PIECES, PIECE_STEPS = 1200, 2, 384  # of the optimizer; pieces of recordings in each; steps of a piece
RATE, WEIGHT_DECAY, WARMUP, CLIP_GRAD = 1e-3, 0.05, 0.05, 1.0
AVERAGE = 0.995  # decay of the averaged weights, which are kept
DROPPED = 0.3  # share of the channels of a piece


@dataclass(frozen=True)
class Lesson:
    """A recording to learn from: features (S, D) of its steps, segments (N, 3): start and end, in steps, and class."""

    steps: Tensor
    segments: Tensor


def fit_pyramid(
    lessons: Sequence[Lesson],
    *,
    num_classes: int,
    seed: int,
    count: int = STEPS,
    after: Callable[[float], None] = lambda loss: None,
) -> Pyramid:
    """A pyramid that has learned from recordings in so many steps of the optimizer; `after` gets the loss of each.

    All draws follow from the seed.
    """
    torch.manual_seed(seed)
    longest = max(
        (float((one.segments[:, 1] - one.segments[:, 0]).max()) for one in lessons if len(one.segments)), default=1.0
    )
    config = PyramidConfig(inputs=lessons[0].steps.shape[1], num_classes=num_classes, levels=levels_for(longest))
    pyramid = Pyramid(config)
    pyramid.standardise(torch.cat([one.steps for one in lessons]))
    average = {name: value.clone() for name, value in pyramid.state_dict().items()}
    optimizer = make_optimizer(pyramid)
    targets = [
        assign(one.segments, num_classes=num_classes, steps=len(one.steps), levels=config.levels) for one in lessons
    ]
    shares = np.array([len(one.steps) for one in lessons], dtype=float)
    for step in range(count):
        rng = np.random.default_rng([seed, step])
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step / count, (step + 1) / count, peak=RATE, warmup=WARMUP)
        total, held = torch.zeros(()), 0
        for number in rng.choice(len(lessons), PIECES, p=shares / shares.sum()):
            steps, wanted = cut(lessons[number].steps, targets[number], rng)
            focal, apart = pyramid_loss(pyramid(F.dropout1d(steps.T[None], DROPPED).transpose(1, 2)), wanted)
            total = total + focal + apart
            held += sum(int(one.held.sum()) for one in wanted)
        loss = total / max(1, held)
        loss.backward()
        nn.utils.clip_grad_norm_(pyramid.parameters(), CLIP_GRAD)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        decay = min(AVERAGE, (step + 1) / (step + 10))  # a short memory at first
        for name, value in pyramid.state_dict().items():
            average[name].lerp_(value, 1 - decay)
        after(loss.item())
    pyramid.load_state_dict(average)
    return pyramid.eval()


def make_optimizer(pyramid: Pyramid) -> torch.optim.AdamW:
    matrices, others = ([p for p in pyramid.parameters() if (p.ndim > 1) == many] for many in (True, False))
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, fused=True)


def cut(steps: Tensor, targets: Sequence[Targets], rng: np.random.Generator) -> tuple[Tensor, list[Targets]]:
    """A piece of a recording, which begins where a place of every level stands, and what its places learn."""
    coarsest = 2 ** (len(targets) - 1)
    first = coarsest * int(rng.integers(max(0, len(steps) - PIECE_STEPS) // coarsest + 1))
    stop = first + max(PIECE_STEPS, coarsest)
    return steps[first:stop], [
        Targets(one.held[:, first // 2**n : -(-stop // 2**n)], one.distances[:, :, first // 2**n : -(-stop // 2**n)])
        for n, one in enumerate(targets)
    ]
