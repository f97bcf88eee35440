"""The training of the head that finds segments, from the features of recordings that were made once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tubelet.nn.pyramid import Pyramid, PyramidConfig, assign, levels_for, pyramid_loss
from tubelet.train.optim import learning_rate

STEPS, CROPS, CROP_STEPS = 1200, 2, 384  # of the optimizer; pieces in each; steps of a recording in a piece
RATE, WEIGHT_DECAY, WARMUP, AVERAGE = 1e-3, 0.05, 0.05, 0.995
HIDDEN = 0.1  # of the steps' channels, in training


@dataclass(frozen=True)
class Lesson:
    """What a recording teaches: features (S, D) of its steps, segments (N, 3) of start and end, in steps, and class."""

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
    lengths = torch.cat([one.segments[:, 1] - one.segments[:, 0] for one in lessons])
    config = PyramidConfig(
        inputs=lessons[0].steps.shape[1], num_classes=num_classes, levels=levels_for(float(lengths.max()))
    )
    pyramid = Pyramid(config)
    pyramid.standardise(torch.cat([one.steps for one in lessons]))
    averaged = AveragedModel(pyramid, multi_avg_fn=get_ema_multi_avg_fn(AVERAGE))
    matrices = [p for p in pyramid.parameters() if p.ndim > 1]
    others = [p for p in pyramid.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.0, fused=True)
    shares = np.array([len(one.steps) for one in lessons], dtype=float)
    for step in range(count):
        rng = np.random.default_rng([seed, step])
        rate = learning_rate(step / count, (step + 1) / count, peak=RATE, warmup=WARMUP)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = torch.zeros(())
        held = 0
        for _ in range(CROPS):
            lesson = lessons[rng.choice(len(lessons), p=shares / shares.sum())]
            piece = cut(lesson, rng)
            targets = assign(piece.segments, num_classes=num_classes, steps=len(piece.steps), levels=config.levels)
            steps = torch.nn.functional.dropout1d(piece.steps.T[None], HIDDEN)[0].T
            focal, apart = pyramid_loss(pyramid(steps[None]), targets)
            loss = loss + focal + apart
            held += sum(int(one.held.sum()) for one in targets)
        loss = loss / max(1, held)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(pyramid.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        averaged.update_parameters(pyramid)
        after(loss.item())
    pyramid.load_state_dict(averaged.module.state_dict())
    return pyramid.eval()


def cut(lesson: Lesson, rng: np.random.Generator) -> Lesson:
    """A piece of a recording, with the segments of which half or more lies in it, ended where the piece ends."""
    count = len(lesson.steps)
    first = int(rng.integers(max(1, count - CROP_STEPS + 1)))
    last = min(first + CROP_STEPS, count)
    starts, ends, classes = lesson.segments.unbind(1)
    inside = torch.minimum(ends, torch.tensor(last - 0.5)) - torch.maximum(starts, torch.tensor(first - 0.5))
    kept = inside >= 0.5 * (ends - starts)
    bounds = torch.stack([starts, ends], 1)[kept].clamp(first - 0.5, last - 0.5) - first
    return Lesson(lesson.steps[first:last], torch.cat([bounds, classes[kept, None]], 1))
