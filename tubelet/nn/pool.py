"""Pooling: the tokens of a sequence become one, (B, P + N, D) -> (B, 1, D)."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tubelet.nn.attention import project_heads
from tubelet.nn.block import Block, Mlp, make_norm
from tubelet.nn.config import Stage
from tubelet.nn.grid import Grid

# (B, P + N, D) -> (B, 1, D), or (B, 1, 2 D); the prefix tokens that it needs; channels of its token, in D
POOLS = {
    "cls": (lambda x, prefix: x[:, :1], 1, 1),
    "mean": (lambda x, prefix: x[:, prefix:].mean(1, keepdim=True), 0, 1),
    "cls+dist": (lambda x, prefix: x[:, :2].mean(1, keepdim=True), 2, 1),
    "cls,dist": (lambda x, prefix: x[:, :2].flatten(1).unsqueeze(1), 2, 2),
}
QUERIES = ("attentive", "map", "query")  # by one learned query
KINDS = (*POOLS, *QUERIES, "none")


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
        self.norm = make_norm(stage, self.out_dim, eps=stage.pool_eps) if normed else nn.Identity()

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
        self.norm = make_norm(stage)
        self.qkv = nn.Linear(stage.dim, 3 * stage.dim)
        self.mlp_norm = make_norm(stage)
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


class QueryPool(nn.Module):
    """One learned query attends to all tokens, prefix and all: (B, P + N, D) -> (B, 1, D).

    "map": then an MLP is added, as in SigLIP and Perception Encoder. "query": then a norm, as in VideoPrism. The
    attention may have heads and a width of its own: `pool_heads`, `pool_dim`.
    Source: arXiv 2205.01917, section 3.2, for the query; arXiv 2106.04560, section 3.3, for the MLP.
    """

    layers: tuple[Block, ...] = ()

    def __init__(self, stage: Stage):
        super().__init__()
        self.heads, self.out_dim, inner = stage.pool_heads or stage.heads, stage.dim, stage.pool_dim or stage.dim
        if inner % self.heads:
            raise ValueError(f"{self.heads} heads do not divide the width {inner} of pooling: choose a divisor")
        self.query = nn.Parameter(torch.zeros(1, 1, stage.dim))
        self.qkv = nn.Linear(stage.dim, 3 * inner)
        self.proj = nn.Linear(inner, stage.dim)
        self.norm = make_norm(stage)
        hidden = stage.pool_mlp_dim or 4 * stage.dim
        self.mlp = Mlp(stage.dim, hidden, gelu=stage.gelu) if stage.pool == "map" else None

    def forward(self, x: Tensor) -> Tensor:
        query = self.query.expand(x.shape[0], -1, -1)
        q, k, v = (x.transpose(1, 2) for x in project_heads(self.qkv, self.heads, query, x, x))
        out = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return self.norm(out) if self.mlp is None else out + self.mlp(self.norm(out))


class NoPool(nn.Module):
    """No pooling: the encoder gives all its tokens, for one that comes after it."""

    layers: tuple[Block, ...] = ()

    def __init__(self, stage: Stage):
        super().__init__()
        self.out_dim = stage.dim


class ProjectedPool(nn.Module):
    """What a pooling gives, through a last linear layer and, if the stage says so, brought to length 1."""

    def __init__(self, stage: Stage, pool: Pool | AttentivePool | QueryPool, out_dim: int):
        super().__init__()
        self.pool, self.proj = pool, nn.Linear(pool.out_dim, out_dim)
        self.unit, self.out_dim = stage.unit, out_dim

    @property
    def layers(self) -> tuple[nn.Module, ...]:
        return tuple(self.pool.layers)

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(self.pool(x))
        return F.normalize(x, dim=-1) if self.unit else x


def make_pool(stage: Stage) -> Pool | AttentivePool | QueryPool | NoPool | ProjectedPool:
    """The pooling of a stage. Raises ValueError for an unknown kind, or too few prefix tokens for it."""
    if stage.pool not in KINDS:
        raise ValueError(f"unknown pooling {stage.pool!r}: expected one of {', '.join(KINDS)}")
    if (stage.unit and not stage.gives) or (stage.gives and stage.pool == "none"):
        raise ValueError(
            f"got gives={stage.gives}, unit={stage.unit} with pool={stage.pool!r}: only a pooled token goes through a "
            f"last layer, and only what this gives is brought to length 1"
        )
    if stage.pool == "none":
        return NoPool(stage)
    pool = make_one_token(stage)
    return ProjectedPool(stage, pool, stage.gives) if stage.gives else pool


def make_one_token(stage: Stage) -> Pool | AttentivePool | QueryPool:
    if stage.pool in ("map", "query"):
        return QueryPool(stage)
    return AttentivePool(stage) if stage.pool == "attentive" else Pool(stage)
