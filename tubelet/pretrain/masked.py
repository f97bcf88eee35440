"""What is asked about a clip of which places are hidden: what was there, and how it changed."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tubelet.nn.create import format_name
from tubelet.nn.grid import Grid, Size3
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.pretrain.lesson import one_encoder

WEIGHTS = {"pixels": 1.0, "changes": 1.0}  # of the losses
HIDDEN_SHARE = 0.75  # of the places in a frame
FLAT = 1e-2  # variance below which a tubelet is about flat, in units of the normalised clip


@dataclass(frozen=True)
class Masked:
    """clips: (B, C, T, H, W), normalised. hidden: (B, t, h, w) bool, which tubelets are not shown."""

    clips: Tensor
    hidden: Tensor

    def to(self, device: torch.device) -> "Masked":
        return Masked(self.clips.to(device), self.hidden.to(device))


def draw_hidden(count: int, grid: Grid, rng: np.random.Generator) -> Tensor:
    """Places to hide in so many clips, (B, t, h, w) bool: in each other ones, and the same at all times, for what is
    hidden at one time alone is told by the times beside it.

    Source: arXiv 2203.12602, section 3.2, "tube masking".
    """
    places = grid.h * grid.w
    many = min(max(1, round(HIDDEN_SHARE * places)), places - 1)
    ranks = rng.random((count, places)).argsort(1).argsort(1)
    hidden = torch.from_numpy(ranks < many).view(count, 1, grid.h, grid.w)
    return hidden.expand(-1, grid.t, -1, -1)


class MaskedHead(nn.Module):
    """Asks each token for the pixels of its tubelet, and for how they change; thrown away after pre-training.

    The model sees the whole clip, with the mean colour where it is hidden, so any tokeniser and any attention will do.
    Source: arXiv 2111.09886 (a linear head, what is hidden stays in its place).

    Raises ValueError for a model of several encoders, or whose tokens do not lie side by side.
    """

    def __init__(self, model: SpaceTimeTransformer):
        super().__init__()
        self.prefix = one_encoder(model, "vivit1-N/12x4, or vit-N/12 for images").prefix_size
        self.patch: Size3 = model.embed.patch
        size = model.input_size
        if tuple(model.grid(size)) != tuple(all_px // px for all_px, px in zip(size, self.patch, strict=True)):
            raise ValueError(f"{format_name(model.config)}: expected tubelets that lie side by side, without overlap")
        if model.grid(size).h * model.grid(size).w < 2:
            raise ValueError(f"a clip of {size} has one place only, so nothing can be hidden: choose a larger --size")
        self.asked = 2 if size[0] > 1 else 1
        t, h, w = self.patch
        self.values = nn.Linear(model.config.stages[0].dim, self.asked * model.config.channels * t * h * w)

    def forward(self, model: SpaceTimeTransformer, batch: Masked) -> Tensor:
        """Pixels, and changes where clips have several frames, of each tubelet, (B, t, h, w, asked, C * px)."""
        t, h, w = self.patch
        px = batch.hidden.repeat_interleave(t, 1).repeat_interleave(h, 2).repeat_interleave(w, 3)
        tokens, grid = model.tokens(batch.clips.masked_fill(px.unsqueeze(1), 0.0))
        return self.values(tokens[:, self.prefix :]).unflatten(-1, (self.asked, -1)).unflatten(1, tuple(grid))


def measure(batch: Masked, answers: Tensor, *, patch: Size3) -> dict[str, Tensor]:
    """The mean squared errors of answers, as a MaskedHead gives them, about what is hidden."""
    truths = {"pixels": stand_out(cut(batch.clips, patch))}
    if answers.shape[4] > 1:
        truths["changes"] = cut(find_changes(batch.clips), patch)
    return {
        name: F.mse_loss(answers[:, :, :, :, number][batch.hidden], truth[batch.hidden])
        for number, (name, truth) in enumerate(truths.items())
    }


def know_nothing(batch: Masked, *, patch: Size3) -> Tensor:
    """The answers of one who says the mean colour of each tubelet, and copies the frame before."""
    clips = batch.clips
    asked = 2 if clips.shape[2] > 1 else 1
    return torch.zeros(*batch.hidden.shape, asked, clips.shape[1] * patch[0] * patch[1] * patch[2], device=clips.device)


def cut(clips: Tensor, patch: Size3) -> Tensor:
    """(B, C, T, H, W) -> the values of each tubelet, (B, t, h, w, C * px)."""
    for axis, size in zip((2, 4, 6), patch, strict=True):
        clips = clips.unflatten(axis, (-1, size))
    return clips.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)


def stand_out(tubelets: Tensor) -> Tensor:
    """(..., px) around the mean of each tubelet, in units of how much it varies: arXiv 2111.06377, section 4.1."""
    mean, variance = tubelets.mean(-1, keepdim=True), tubelets.var(-1, keepdim=True)
    return (tubelets - mean) / (variance + FLAT).sqrt()


def find_changes(clips: Tensor) -> Tensor:
    """(B, C, T, H, W) -> the same: from each frame to the next, in units of how much the clip changes."""
    changes = F.pad(clips.diff(dim=2), (0, 0, 0, 0, 1, 0))
    return changes / (changes.square().mean((1, 2, 3, 4), keepdim=True) + FLAT**2).sqrt()
