"""How the tokens of a sequence become one."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tubelet.nn.block import Block, BlockConfig, Mlp
from tubelet.nn.grid import Grid
from tubelet.nn.kernels import Linear, linear

PREFIXES = {"cls": 1, "mean": 0, "cls+dist": 2, "cls,dist": 2, "attentive": 0}


class Pool(nn.Module):
    """(B, P + N, D) -> (B, 1, D), by `kind`, then a layer norm if asked for.

    "cls": the first prefix token. "mean": the mean over the grid, without the prefix. "cls+dist": the mean of the first
    two prefix tokens (AST); "cls,dist": the two side by side, (B, 1, 2 D), for the two heads of a distilled DeiT.
    """

    def __init__(self, config: BlockConfig, kind: str, *, prefix: int, norm: bool, eps: float):
        super().__init__()
        if kind not in PREFIXES:
            raise ValueError(f"unknown pooling {kind!r}: expected one of {', '.join(PREFIXES)}")
        if prefix < PREFIXES[kind]:
            raise ValueError(
                f"pool={kind!r} needs {PREFIXES[kind]} prefix tokens, got prefix={prefix}: leave prefix out"
            )
        self.kind, self.prefix = kind, prefix
        self.out_dim = config.dim * (2 if kind == "cls,dist" else 1)
        self.norm = nn.LayerNorm(self.out_dim, eps=eps) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "cls":
            x = x[:, :1]
        elif self.kind == "mean":
            x = x[:, self.prefix :].mean(1, keepdim=True)
        elif self.kind == "cls+dist":
            x = x[:, :2].mean(1, keepdim=True)
        else:
            x = x[:, :2].flatten(1).unsqueeze(1)
        return self.norm(x)

    def extra_repr(self) -> str:
        return f"kind={self.kind!r}"


class AttentivePool(nn.Module):
    """Blocks of joint attention, then one learned query that attends to all tokens: (B, P + N, D) -> (B, 1, D).

    Its MLPs are four times as wide as its tokens, also where those of the encoder (`config`) are not.
    Source: arXiv 2506.09985, section 4 (V-JEPA 2); its attention of the query has no projection of its output.
    """

    def __init__(self, config: BlockConfig, *, depth: int, checkpointing: bool = False):
        super().__init__()
        config = replace(config, mlp_dim=4 * config.dim)
        self.heads, self.out_dim, self.checkpointing = config.heads, config.dim, checkpointing
        self.blocks = nn.ModuleList(Block(config) for _ in range(depth))
        self.query = nn.Parameter(torch.zeros(1, 1, config.dim))
        self.norm = nn.LayerNorm(config.dim, eps=config.eps)
        self.qkv = Linear(config.dim, 3 * config.dim)
        self.mlp_norm = nn.LayerNorm(config.dim, eps=config.eps)
        self.mlp = Mlp(config.dim, config.mlp_dim, gelu=config.gelu, dropout=config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        grid = Grid(1, 1, x.shape[1])
        for block in self.blocks:
            if self.checkpointing and self.training:
                x = checkpoint(block, x, grid, use_reentrant=False)
            else:
                x = block(x, grid)
        weights, biases = self.qkv.weight.chunk(3), self.qkv.bias.chunk(3)
        query, seen = self.query.expand(x.shape[0], -1, -1), self.norm(x)
        q, k, v = (
            linear(y, w, b).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for y, w, b in zip((query, seen, seen), weights, biases, strict=True)
        )
        out = query + F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return out + self.mlp(self.mlp_norm(out))
