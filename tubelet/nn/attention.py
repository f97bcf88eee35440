"""Attention over named axes of the token grid. `attend` is the only place where tokens are regrouped."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tubelet.nn.grid import AXES, Grid
from tubelet.nn.kernels import GELUS, attention, can_fuse, linear


class Turns(NamedTuple):
    """Cosines and sines (N, d) that turn pairs of channels; `alike`: both channels of a pair by the same angle."""

    cos: Tensor
    sin: Tensor
    alike: bool = True


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    grid: Grid,
    axes: str,
    *,
    prefix: int = 0,
    dropout: float = 0.0,
    cap: float = 0.0,
) -> Tensor:
    """Attention among the tokens that share every grid position outside `axes`. All (B, P + N, n, d).

    Prefix tokens take part in every group that spans space, their output is the mean over those groups; they sit
    out attention along time alone, where their output is zero.
    Source: arXiv 2103.15691, section 3.3 (the groups); arXiv 2102.05095, section 3.2 (the class token).
    """
    if axes == "thw" or (axes == "hw" and grid.t == 1):
        return attention(q, k, v, dropout=dropout, cap=cap)
    b, cells, (n, d) = q.shape[0], grid.h * grid.w, q.shape[2:]
    if axes == "t":  # the cells of a frame join the heads: a view, no copy
        rows = [x[:, prefix:].reshape(b, grid.t, cells * n, d) for x in (q, k, v)]
        out = attention(*rows, dropout=dropout, cap=cap).reshape(b, grid.size, n, d)
        return F.pad(out, (0, 0, 0, 0, prefix, 0)) if prefix else out
    frames = [x[:, prefix:].reshape(b * grid.t, cells, n, d) for x in (q, k, v)]
    if prefix:
        shared = (x[:, :prefix].repeat_interleave(grid.t, 0) for x in (q, k, v))
        frames = [torch.cat(pair, 1) for pair in zip(shared, frames, strict=True)]
    out = attention(*frames, dropout=dropout, cap=cap).unflatten(0, (b, grid.t))
    if not prefix:
        return out.flatten(1, 2)
    return torch.cat([out[:, :, :prefix].mean(1), out[:, :, prefix:].flatten(1, 2)], 1)


def turn(x: Tensor, turns: Turns, *, prefix: int = 0) -> Tensor:
    """Turns the pairs of neighbouring channels of grid tokens, (B, P + N, n, d) -> same. Source: arXiv 2104.09864."""
    pairs = x[:, prefix:].unflatten(-1, (-1, 2))
    if turns.alike and x.dtype in (torch.float32, torch.float64) and can_fuse(x, turns.cos):  # one pass
        numbers = torch.complex(turns.cos[:, None, ::2], turns.sin[:, None, ::2])
        turned = torch.view_as_real(torch.view_as_complex(pairs) * numbers)
    else:
        cos, sin = (angle[:, None].unflatten(-1, (-1, 2)) for angle in turns[:2])
        turned = pairs * cos + torch.stack([-pairs[..., 1], pairs[..., 0]], -1) * sin
    return torch.cat([x[:, :prefix], turned.flatten(-2)], 1) if prefix else turned.flatten(-2)


def project_heads(layer: nn.Linear, heads: int, *seen: Tensor) -> list[Tensor]:
    """Queries, keys and values of three (B, L, D), by the packed `layer`: each (B, L, heads, d).

    Three products, not one: each result lies in memory by itself, so that regrouping it by `attend` is a view where it
    can be one, and a kernel of attention reads it without gaps.
    """
    biases = [None] * 3 if layer.bias is None else layer.bias.chunk(3)
    parts = zip(seen, layer.weight.chunk(3), biases, strict=True)
    return [linear(x, weight, bias).unflatten(2, (heads, -1)) for x, weight, bias in parts]


class Attention(nn.Module):
    """Multi-head self-attention over `axes`, (B, P + N, D) -> same.

    `axes` is "thw" (joint), "hw" (space) or "t" (time); "t|hw" shares the heads out equally, the first half along
    time, the second in space. `norm` makes those of queries and keys; `cap`: see `kernels.attention`.

    Source: arXiv 2103.15691, section 3.3, eq. 7 for the shared-out heads.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        axes: str = "thw",
        *,
        head_dim: int | None = None,
        qkv_bias: bool = True,
        bias: bool = True,
        norm: Callable[[int], nn.Module] | None = None,
        cap: float = 0.0,
    ):
        super().__init__()
        self.cap = cap
        self.axes, self.heads, self.groups = axes, heads, axes.split("|")
        self.p = 0.0  # dropout of the scores, named as in nn.Dropout
        if not set(self.groups) <= set(AXES):
            raise ValueError(f"unknown attention axes {axes!r}: expected {', '.join(AXES)}, or some joined by '|'")
        if head_dim is None and dim % heads:
            raise ValueError(f"{heads} heads do not divide the width {dim}: choose a divisor of {dim}")
        if heads % len(self.groups):
            raise ValueError(
                f"{heads} heads cannot be shared out equally among {axes!r}: choose a multiple of {len(self.groups)}"
            )
        inner = heads * (head_dim or dim // heads)
        self.qkv = nn.Linear(dim, 3 * inner, bias=qkv_bias)
        self.q_norm, self.k_norm = (norm(inner // heads) if norm else nn.Identity() for _ in range(2))
        self.proj = Linear(inner, dim, bias=bias)

    def forward(self, x: Tensor, grid: Grid, turns: Turns | None = None) -> Tensor:
        """`turns` are the cosines and sines of rotary positions, (N, d) each; prefix tokens are not turned."""
        prefix = x.shape[1] - grid.size
        if prefix and len(self.groups) > 1:
            raise ValueError(f"heads shared out over {self.axes!r} have no place for prefix tokens: use pool='mean'")
        q, k, v = project_heads(self.qkv, self.heads, x, x, x)
        q, k = self.q_norm(q), self.k_norm(k)
        if turns is not None:
            q, k = (turn(y, turns, prefix=prefix) for y in (q, k))
        dropout = self.p if self.training else 0.0
        shares = zip(*(y.chunk(len(self.groups), 2) for y in (q, k, v)), self.groups, strict=True)
        along = partial(attend, grid=grid, prefix=prefix, dropout=dropout, cap=self.cap)
        parts = [along(q, k, v, axes=axes) for q, k, v, axes in shares]
        out = self.proj((torch.cat(parts, 2) if len(parts) > 1 else parts[0]).flatten(2))
        if prefix and self.groups == ["t"]:  # the projection's bias must not reach the prefix either
            out = F.pad(out[:, prefix:], (0, 0, prefix, 0))
        return out

    def extra_repr(self) -> str:
        return f"axes={self.axes!r}, heads={self.heads}"


class Linear(nn.Linear):
    """(..., D) -> (..., E), then the GELU, if any: "erf" (exact) or "tanh" (the approximation of JAX)."""

    def __init__(self, dim: int, out: int, *, gelu: str | None = None, bias: bool = True):
        super().__init__(dim, out, bias=bias)
        if gelu not in (None, *GELUS):
            raise ValueError(f"unknown gelu {gelu!r}: expected one of {', '.join(GELUS)}")
        self.gelu = gelu

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias, gelu=self.gelu)
