"""Blocks and encoders: what a transformer does to the tokens of a grid."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tubelet.nn.attention import Attention
from tubelet.nn.grid import Grid
from tubelet.nn.position import LearnedPosition


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
        if gelu not in ("erf", "tanh"):
            raise ValueError(f"unknown gelu {gelu!r}: expected 'erf' (exact) or 'tanh' (approximate)")
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.gelu = nn.GELU(approximate={"erf": "none", "tanh": "tanh"}[gelu])
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.fc2(self.dropout(self.gelu(self.fc1(x)))))


@dataclass(frozen=True, kw_only=True)
class BlockConfig:
    """The numbers of a block, the same in every block of a model."""

    dim: int
    heads: int
    mlp_dim: int
    eps: float = 1e-6
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

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        for norm, attn in zip(self.attn_norms, self.attns, strict=True):
            x = x + self.drop_path(self.dropout(attn(norm(x), grid)))
        return x + self.drop_path(self.mlp(self.mlp_norm(x)))


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One encoder of a model, as data.

    tables: position tables, each by the axes it varies along ("thw", "hw", "t"); attend: the steps of a block;
    over: the axes one sequence spans, the others join the batch; pool: "cls" or "mean"; temporal: this encoder works
    on frame tokens and has its own depth.
    """

    tables: tuple[str, ...]
    attend: str = "thw"
    over: str = "thw"
    pool: str = "cls"
    temporal: bool = False


class Encoder(nn.Module):
    """Positions, class token, blocks, norm and pooling over the axes that a stage spans.

    (B, N, D), Grid(t, h, w) -> over "thw": (B, 1, D), Grid(1, 1, 1); over "hw": (B, t, D), Grid(t, 1, 1).
    """

    def __init__(self, config: BlockConfig, stage: Stage, grid: Grid, *, drop_paths: list[float], checkpointing: bool):
        super().__init__()
        if stage.pool not in ("cls", "mean"):
            raise ValueError(f"unknown pooling {stage.pool!r}: expected 'cls' or 'mean'")
        self.over, self.pool, self.checkpointing = stage.over, stage.pool, checkpointing
        self.position = LearnedPosition(config.dim, [grid.along(axes) for axes in stage.tables])
        self.prefix = nn.Parameter(torch.zeros(1, 1, config.dim)) if stage.pool == "cls" else None
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, stage.attend, drop_path=rate) for rate in drop_paths)
        self.norm = nn.LayerNorm(config.dim, eps=config.eps)

    def encode(self, x: Tensor, grid: Grid) -> Tensor:
        """All tokens of one sequence after the last norm: (B, N, D) -> (B, P + N, D)."""
        x = self.position(x, grid)
        if self.prefix is not None:
            x = torch.cat([self.prefix.expand(x.shape[0], -1, -1), x], 1)
        x = self.dropout(x)
        for block in self.blocks:
            if self.checkpointing and self.training:
                x = checkpoint(block, x, grid, use_reentrant=False)
            else:
                x = block(x, grid)
        return self.norm(x)

    def tokens(self, x: Tensor, grid: Grid) -> Tensor:
        """All tokens of the grid: (B, N, D) -> (B, P + N, D); a prefix of several sequences is their mean."""
        if self.over == "thw":
            return self.encode(x, grid)
        b, prefix = x.shape[0], 0 if self.prefix is None else 1
        frames = self.encode(x.reshape(b * grid.t, -1, x.shape[2]), grid.along("hw")).unflatten(0, (b, grid.t))
        return torch.cat([frames[:, :, :prefix].mean(1), frames[:, :, prefix:].flatten(1, 2)], 1)

    def forward(self, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        if self.over == "thw":
            return self.pooled(self.encode(x, grid)), Grid(1, 1, 1)
        b = x.shape[0]
        frames = self.encode(x.reshape(b * grid.t, -1, x.shape[2]), grid.along("hw"))
        return self.pooled(frames).reshape(b, grid.t, -1), grid.along("t")

    def pooled(self, x: Tensor) -> Tensor:
        return x[:, :1] if self.pool == "cls" else x.mean(1, keepdim=True)
