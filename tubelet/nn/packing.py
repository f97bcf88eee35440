"""Clips of several sizes in one batch."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def each_size(run: Callable[[Tensor], Tensor], clips: Sequence[Tensor]) -> Tensor:
    """Runs clips (C, T, H, W) of several sizes, those of one size together: nothing is padded, so nothing is masked."""
    places: dict[torch.Size, list[int]] = {}
    for i, clip in enumerate(clips):
        places.setdefault(clip.shape, []).append(i)
    rows: dict[int, Tensor] = {}
    for same in places.values():
        rows |= dict(zip(same, run(torch.stack([clips[i] for i in same])), strict=True))
    if not rows:
        raise ValueError("got no clips, expected a tensor (B, C, T, H, W) or a list of at least one clip (C, T, H, W)")
    return torch.stack([rows[i] for i in range(len(clips))])
