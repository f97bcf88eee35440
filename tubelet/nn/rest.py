"""A model cut in two: its encoder, which is only run, and the rest, which learns from what the encoder gives."""

import torch
from torch import Tensor, nn

from tubelet.nn.grid import Grid
from tubelet.nn.model import SpaceTimeTransformer


@torch.no_grad()
def encode(model: SpaceTimeTransformer, clip: Tensor) -> Tensor:
    """The codes of clips, (B, C, T, H, W) -> (B, t, D): those of each step in time where a second encoder follows that
    puts them together (vivit2), else one, t = 1: what the head classifies."""
    codes, _ = model.encoders[0](*model.embedded(clip))
    return codes if len(model.encoders) > 1 else codes.mean(1, keepdim=True)


class Rest(nn.Module):
    """What comes after a model's first encoder: codes (B, t, D) -> logits (B, classes).

    Its parameters are those of the model, under the same names: what learns here has learned there.
    """

    def __init__(self, model: SpaceTimeTransformer):
        super().__init__()
        self.config = model.config
        self.encoders = nn.ModuleDict({str(i): encoder for i, encoder in enumerate(model.encoders) if i > 0})
        self.head = model.head

    @property
    def what(self) -> str:
        """In words."""
        return "the temporal encoder and the head" if self.encoders else "the head"

    def forward(self, codes: Tensor) -> Tensor:
        x, grid = codes, Grid(codes.shape[1], 1, 1)
        for encoder in self.encoders.values():
            x, grid = encoder(x, grid)
        return self.head(x.mean(1))

    def normalised(self, codes: Tensor) -> Tensor:
        """Codes are as they should be."""
        return codes
