"""The transformer block, and what it is made of."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tubelet.nn.attention import Attention, Linear, Turns
from tubelet.nn.config import Stage
from tubelet.nn.grid import Grid


class DropPath(nn.Module):
    """Stochastic depth: in training, drops a residual branch of a sample with probability `rate`, rescales the rest.

    Source: arXiv 1603.09382.
    """

    def __init__(self, rate: float = 0.0):
        super().__init__()
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

    def __init__(self, dim: int, hidden: int, *, gelu: str = "erf"):
        super().__init__()
        self.fc1, self.fc2 = Linear(dim, hidden, gelu=gelu), Linear(hidden, dim)
        self.dropout = nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.fc2(self.dropout(self.fc1(x))))


class Block(nn.Module):
    """Pre-norm transformer block of a stage, (B, P + N, D) -> same: one residual attention for each step of `attend`,
    then an MLP.

    "thw": joint attention. "hw,t": space, then time (ViViT 3). "t,hw": TimeSformer. "t|hw": shared-out heads (ViViT 4).
    """

    def __init__(self, stage: Stage):
        super().__init__()
        dim, steps = stage.dim, stage.attend.split(",")
        self.checkpointing = False
        self.attn_norms = nn.ModuleList(nn.LayerNorm(dim, eps=stage.eps) for _ in steps)
        self.attns = nn.ModuleList(Attention(dim, stage.heads, axes) for axes in steps)
        self.mlp_norm = nn.LayerNorm(dim, eps=stage.eps)
        self.mlp = Mlp(dim, stage.mlp_dim, gelu=stage.gelu)
        self.dropout, self.drop_path = nn.Dropout(0.0), DropPath()

    def forward(self, x: Tensor, grid: Grid, turns: Turns | None = None) -> Tensor:
        if self.checkpointing and self.training:
            return checkpoint(self.run, x, grid, turns, use_reentrant=False)
        return self.run(x, grid, turns)

    def run(self, x: Tensor, grid: Grid, turns: Turns | None = None) -> Tensor:
        for norm, attn in zip(self.attn_norms, self.attns, strict=True):
            x = x + self.drop_path(self.dropout(attn(norm(x), grid, turns)))
        return x + self.drop_path(self.mlp(self.mlp_norm(x)))
