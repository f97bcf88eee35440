"""Convolutions over a sequence of tokens."""

import torch.nn.functional as F
from torch import Tensor, nn


class ConvMix(nn.Module):
    """Adds to each token what two convolutions make of it and its neighbours in the sequence, (B, N, D) -> same.

    Before each a group norm, of one group over the whole sequence, and SiLU.
    Source: the video encoder of transformers' pe_video.
    """

    def __init__(self, dim: int, *, eps: float):
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(1, dim, eps=eps) for _ in range(2))
        self.convs = nn.ModuleList(nn.Conv1d(dim, dim, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = x.transpose(1, 2)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            y = conv(F.silu(norm(y)))
        return x + y.transpose(1, 2)
