"""The transformer block, and what it is made of."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tubelet.nn.attention import Attention, Turns
from tubelet.nn.grid import Grid
from tubelet.nn.kernels import Linear


class DropPath(nn.Module):
    """Stochastic depth: in training, drops a residual branch of a sample with probability `rate`, rescales the rest.

    Source: arXiv 1603.09382.
    """

    def __init__(self, rate: float):
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"got a drop path rate of {rate}, expected at least 0 and below 1")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        keep = torch.rand(x.shape[0], *[1] * (x.ndim - 1), device=x.device) >= self.rate
        return x * keep / (1 - self.rate)

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3g}"


class Mlp(nn.Module):
    """(..., D) -> (..., D) through a hidden layer; `gelu` is "erf" (exact) or "tanh" (the approximation of JAX)."""

    def __init__(self, dim: int, hidden: int, *, gelu: str = "erf", dropout: float = 0.0):
        super().__init__()
        self.fc1, self.fc2 = Linear(dim, hidden, gelu=gelu), Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.fc2(self.dropout(self.fc1(x))))


@dataclass(frozen=True, kw_only=True)
class BlockConfig:
    """The numbers of a block, the same in every block of a model."""

    dim: int
    heads: int
    mlp_dim: int
    eps: float = 1e-6  # of the layer norms
    gelu: str = "erf"
    dropout: float = 0.0


class Block(nn.Module):
    """Pre-norm transformer block, (B, P + N, D) -> same: one residual attention for each step of `attend`, then an MLP.

    "thw": joint attention. "hw,t": space, then time (ViViT 3). "t,hw": TimeSformer. "t|hw": shared-out heads (ViViT 4).
    """

    def __init__(self, config: BlockConfig, attend: str = "thw", *, drop_path: float = 0.0):
        super().__init__()
        c, steps = config, attend.split(",")
        self.attn_norms = nn.ModuleList(nn.LayerNorm(c.dim, eps=c.eps) for _ in steps)
        self.attns = nn.ModuleList(Attention(c.dim, c.heads, axes, dropout=c.dropout) for axes in steps)
        self.mlp_norm = nn.LayerNorm(c.dim, eps=c.eps)
        self.mlp = Mlp(c.dim, c.mlp_dim, gelu=c.gelu, dropout=c.dropout)
        self.dropout, self.drop_path = nn.Dropout(c.dropout), DropPath(drop_path)

    def forward(self, x: Tensor, grid: Grid, turns: Turns | None = None) -> Tensor:
        for norm, attn in zip(self.attn_norms, self.attns, strict=True):
            x = x + self.drop_path(self.dropout(attn(norm(x), grid, turns)))
        return x + self.drop_path(self.mlp(self.mlp_norm(x)))
