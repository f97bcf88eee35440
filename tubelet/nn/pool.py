"""Pooling: the tokens of a sequence become one, (B, P + N, D) -> (B, 1, D)."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tubelet.nn.attention import project_heads
from tubelet.nn.block import Block, Mlp
from tubelet.nn.config import Stage
from tubelet.nn.grid import Grid

# (B, P + N, D) -> (B, 1, D), or (B, 1, 2 D); the prefix tokens that it needs; channels of its token, in D
POOLS = {
    "cls": (lambda x, prefix: x[:, :1], 1, 1),
    "mean": (lambda x, prefix: x[:, prefix:].mean(1, keepdim=True), 0, 1),
    "cls+dist": (lambda x, prefix: x[:, :2].mean(1, keepdim=True), 2, 1),
    "cls,dist": (lambda x, prefix: x[:, :2].flatten(1).unsqueeze(1), 2, 2),
}
KINDS = (*POOLS, "attentive")


def count_prefix(kind: str) -> int:
    """The prefix tokens that a kind of pooling needs."""
    return POOLS[kind][1] if kind in POOLS else 0


class Pool(nn.Module):
    """(B, P + N, D) -> (B, 1, D), by the kind of a stage, then a layer norm if the stage has one here.

    "cls": the first prefix token. "mean": the mean over the grid, without the prefix. "cls+dist": the mean of the first
    two prefix tokens (AST); "cls,dist": the two side by side, (B, 1, 2 D), for the two heads of a distilled DeiT.
    """

    layers: tuple[Block, ...] = ()

    def __init__(self, stage: Stage):
        super().__init__()
        self.kind, self.prefix_size = stage.pool, stage.prefix
        _, needed, times = POOLS[stage.pool]
        if stage.prefix < needed:
            raise ValueError(
                f"pool={stage.pool!r} needs {needed} prefix tokens, got prefix={stage.prefix}: give prefix={needed}"
            )
        self.out_dim = stage.dim * times
        normed = stage.norm in ("pooled", "both")
        self.norm = nn.LayerNorm(self.out_dim, eps=stage.pool_eps) if normed else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        pick, _, _ = POOLS[self.kind]  # not kept: a function without a name cannot be pickled
        return self.norm(pick(x, self.prefix_size))

    def extra_repr(self) -> str:
        return f"kind={self.kind!r}"


class AttentivePool(nn.Module):
    """Blocks of joint attention, then one learned query that attends to all tokens: (B, P + N, D) -> (B, 1, D).

    Its MLPs are four times as wide as its tokens, also where those of the encoder are not.
    Source: arXiv 2506.09985, section 4 (V-JEPA 2); its attention of the query has no projection of its output.
    """

    def __init__(self, stage: Stage):
        super().__init__()
        stage = replace(stage, mlp_dim=4 * stage.dim, attend="thw")
        self.heads, self.out_dim = stage.heads, stage.dim
        self.blocks = nn.ModuleList(Block(stage) for _ in range(stage.pool_depth))
        self.query = nn.Parameter(torch.zeros(1, 1, stage.dim))
        self.norm = nn.LayerNorm(stage.dim, eps=stage.eps)
        self.qkv = nn.Linear(stage.dim, 3 * stage.dim)
        self.mlp_norm = nn.LayerNorm(stage.dim, eps=stage.eps)
        self.mlp = Mlp(stage.dim, stage.mlp_dim, gelu=stage.gelu)

    @property
    def layers(self) -> tuple[nn.Module, ...]:
        return tuple(self.blocks)

    def forward(self, x: Tensor) -> Tensor:
        grid = Grid(1, 1, x.shape[1])
        for block in self.blocks:
            x = block(x, grid)
        query, seen = self.query.expand(x.shape[0], -1, -1), self.norm(x)
        q, k, v = (x.transpose(1, 2) for x in project_heads(self.qkv, self.heads, query, seen, seen))
        out = query + F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return out + self.mlp(self.mlp_norm(out))


def make_pool(stage: Stage) -> Pool | AttentivePool:
    """The pooling of a stage. Raises ValueError for an unknown kind, or too few prefix tokens for it."""
    if stage.pool not in KINDS:
        raise ValueError(f"unknown pooling {stage.pool!r}: expected one of {', '.join(KINDS)}")
    return AttentivePool(stage) if stage.pool == "attentive" else Pool(stage)
