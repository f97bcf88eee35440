"""A clip without some of its tubelets: nothing new is drawn in their place, so nothing strange meets the model."""

import torch
import torch.nn.functional as F
from torch import Tensor

HOWS = ("frozen", "blurred")
BLUR = 1.5  # the reach of a blur, in tubelets


def hide(clips: Tensor, hidden: Tensor, how: str) -> Tensor:
    """Clips (B, C, T, H, W) without the tubelets in `hidden`, (B, t, h, w) bool.

    how: "frozen": a hidden place stands still, as it was last seen, or, where it was not seen before, as it is seen
    next; with nothing to be seen of it at all, as in the middle of the clip. "blurred": it is seen without its details.

    Raises ValueError for an unknown `how`.
    """
    if how not in HOWS:
        raise ValueError(f"got how={how!r}, expected one of {', '.join(HOWS)}")
    inside = spread(hidden, clips.shape[2:])
    if how == "blurred":
        return torch.where(inside.unsqueeze(1), blur(clips, hidden.shape[2:]), clips)
    return clips.gather(2, last_seen(~inside).unsqueeze(1).expand_as(clips))


def spread(values: Tensor, size: tuple[int, ...]) -> Tensor:
    """Values on a grid, (B, t, h, w), at each pixel of a clip of `size`: (B, T, H, W)."""
    for axis, (cells, length) in enumerate(zip(values.shape[1:], size, strict=True), 1):
        values = values.index_select(axis, torch.arange(length, device=values.device) * cells // length)
    return values


def last_seen(seen: Tensor) -> Tensor:
    """(B, T, H, W) bool -> the number of the frame in which each place was last seen, or is next, (B, T, H, W)."""
    count = seen.shape[1]
    frames = torch.arange(count, device=seen.device).view(1, -1, 1, 1).expand_as(seen)
    before = torch.where(seen, frames, -1).cummax(1).values
    after = torch.where(seen, frames, count).flip(1).cummin(1).values.flip(1)
    return torch.where(before >= 0, before, torch.where(after < count, after, count // 2))


def blur(clips: Tensor, cells: tuple[int, ...]) -> Tensor:
    """Each frame of clips (B, C, T, H, W) without details as small as the cells, of which a frame has (h, w)."""
    reach = [max(1, round(BLUR * length / count)) for length, count in zip(clips.shape[3:], cells, strict=True)]
    frames = clips.flatten(0, 2).unsqueeze(1).float()
    for axis, px in enumerate(reach):
        padding = [0, 0, 0, 0]
        padding[2 - 2 * axis : 4 - 2 * axis] = [px, px]
        window = (2 * px + 1, 1) if axis == 0 else (1, 2 * px + 1)
        for _ in range(2):
            frames = F.avg_pool2d(F.pad(frames, padding, mode="replicate"), window, stride=1)
    blurred = frames.view(clips.shape)
    return (blurred if clips.is_floating_point() else blurred.round()).to(clips.dtype)


def smooth(relevance: Tensor) -> Tensor:
    """What speaks for an answer in each tubelet and, half as much along each axis, beside it: (B, t, h, w) -> same.

    A model reads a thing with what is around it: shown or hidden alone, the most relevant tubelets tell less.
    """
    found = relevance.clamp(min=0).unsqueeze(1)
    for axis, padding in ((2, (0, 0, 0, 0, 1, 1)), (3, (0, 0, 1, 1, 0, 0)), (4, (1, 1, 0, 0, 0, 0))):
        wide, length = F.pad(found, padding, mode="replicate"), found.shape[axis]
        before, here, after = (wide.narrow(axis, first, length) for first in range(3))
        found = (before + 2 * here + after) / 4
    return found.squeeze(1)


def highest(relevance: Tensor, share: float) -> Tensor:
    """The tubelets that are most relevant, (..., t, h, w) bool: a share of all, at least one, counted over all axes."""
    many = max(1, round(share * relevance.numel()))
    ranks = relevance.flatten().argsort(descending=True, stable=True)
    chosen = torch.zeros(relevance.numel(), dtype=torch.bool, device=relevance.device)
    chosen[ranks[:many]] = True
    return chosen.view(relevance.shape)
