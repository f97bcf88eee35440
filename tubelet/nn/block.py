"""The transformer block, and what it is made of."""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tubelet.nn.attention import Attention, Linear, Turns
from tubelet.nn.compile import run_block
from tubelet.nn.config import Stage
from tubelet.nn.grid import Grid

MLPS = ("plain", "gated")


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

    def __init__(self, dim: int, hidden: int, *, gelu: str = "erf", bias: bool = True):
        super().__init__()
        self.fc1, self.fc2 = Linear(dim, hidden, gelu=gelu, bias=bias), Linear(hidden, dim, bias=bias)
        self.dropout = nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.fc2(self.dropout(self.fc1(x))))


class GatedMlp(nn.Module):
    """(..., D) -> (..., D) through a hidden layer, each channel of which a second one lets through: silu(gate) * value.

    Source: arXiv 2002.05202, eq. 6 (SwiGLU).
    """

    def __init__(self, dim: int, hidden: int, *, bias: bool = True):
        super().__init__()
        self.gate, self.fc1 = Linear(dim, hidden, bias=bias), Linear(dim, hidden, bias=bias)
        self.fc2 = Linear(hidden, dim, bias=bias)
        self.dropout = nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.multiply(F.silu(self.gate(x)), self.fc1(x))  # by its name, as `relevance` looks for it
        return self.dropout(self.fc2(self.dropout(hidden)))


def make_mlp(stage: Stage) -> Mlp | GatedMlp:
    """The MLP of the blocks of a stage. Raises ValueError for an unknown kind."""
    if stage.mlp not in MLPS:
        raise ValueError(f"unknown mlp {stage.mlp!r}: expected one of {', '.join(MLPS)}")
    if stage.mlp == "gated":
        return GatedMlp(stage.dim, stage.mlp_dim, bias=stage.bias)
    return Mlp(stage.dim, stage.mlp_dim, gelu=stage.gelu, bias=stage.bias)


class RmsNorm(nn.RMSNorm):
    """(..., D) -> same: tokens divided by the root of the mean of their squares, in their own dtype, also in autocast.

    Source: arXiv 1910.07467, eq. 4.
    """

    def forward(self, x: Tensor) -> Tensor:
        assert self.weight is not None
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


NORM_KINDS = {"layer": nn.LayerNorm, "rms": RmsNorm}


def make_norm(stage: Stage, dim: int | None = None, *, eps: float | None = None) -> nn.LayerNorm | RmsNorm:
    """A norm of the kind of a stage, of as many channels as its tokens unless `dim` says otherwise.

    Raises ValueError for an unknown kind.
    """
    if stage.norm_kind not in NORM_KINDS:
        raise ValueError(f"unknown norm_kind {stage.norm_kind!r}: expected one of {', '.join(NORM_KINDS)}")
    return NORM_KINDS[stage.norm_kind](dim or stage.dim, eps=stage.eps if eps is None else eps)


class Block(nn.Module):
    """Pre-norm transformer block of a stage, (B, P + N, D) -> same: one residual attention for each step of `attend`,
    then an MLP.

    "thw": joint attention. "hw,t": space, then time (ViViT 3). "t,hw": TimeSformer. "t|hw": shared-out heads (ViViT 4).
    """

    dynamic: bool | None = None  # compiled anew, for all sizes, when a second one is met

    def __init__(self, stage: Stage):
        super().__init__()
        steps = stage.attend.split(",")
        self.checkpointing, self.program = False, None
        self.attn_norms = nn.ModuleList(make_norm(stage) for _ in steps)
        how: dict[str, Any] = {name: getattr(stage, name) for name in ("head_dim", "qkv_bias", "bias", "cap")}
        how |= {"norm": partial(make_norm, stage) if stage.qk_norm else None}
        self.attns = nn.ModuleList(Attention(stage.dim, stage.heads, axes, **how) for axes in steps)
        self.mlp_norm = make_norm(stage)
        self.mlp = make_mlp(stage)
        self.dropout, self.drop_path = nn.Dropout(0.0), DropPath()

    def forward(self, x: Tensor, grid: Grid, turns: Turns | None = None) -> Tensor:
        return run_block(self, x, grid, turns)

    def run(self, x: Tensor, grid: Grid, turns: Turns | None = None) -> Tensor:
        for norm, attn in zip(self.attn_norms, self.attns, strict=True):
            x = x + self.drop_path(self.dropout(attn(norm(x), grid, turns)))
        return x + self.drop_path(self.mlp(self.mlp_norm(x)))
