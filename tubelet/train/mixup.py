"""Mixup: clips and targets of a batch, mixed in pairs."""

import numpy as np
import torch
from torch import Tensor


def mix_pairs(clips: Tensor, targets: Tensor, shares: np.ndarray) -> tuple[Tensor, Tensor]:
    """Mixup within neighbouring pairs of the batch, (B, ...), (B, outputs) -> same; shares (B / 2,) in [0, 1]: what
    the two clips of each pair keep of themselves.

    Pairs, unlike a shuffled batch, stay together however a batch is spread over processes and parts, so the result
    does not depend on that. Source: arXiv 1710.09412.
    """
    kept = torch.from_numpy(shares.astype(np.float32)).repeat_interleave(2).to(clips.device)

    def mix(x: Tensor) -> Tensor:
        own = kept.view(-1, *[1] * (x.ndim - 1))
        return own * x + (1 - own) * x.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)

    return mix(clips), mix(targets)
