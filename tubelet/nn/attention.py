"""Attention over named axes of the token grid. `attend` is the only place where tokens are regrouped."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tubelet.nn.grid import AXES, Grid
from tubelet.nn.kernels import Linear, linear, only_answers, products_beat_attention

Turns = tuple[Tensor, Tensor]

MOST_SEQUENCES = 65_535  # rows, or heads, of one launch of a fused kernel on CUDA; more crash it
MOST_SCORES = 2**20  # of queries and keys, computed at a time: they stay in the cache
MOST_KEPT = (
    1024  # keys up to which all scores, kept for the backward pass, take about as much memory as the rest of a block
)


def attend(q: Tensor, k: Tensor, v: Tensor, grid: Grid, axes: str, *, prefix: int = 0, dropout: float = 0.0) -> Tensor:
    """Attention among the tokens that share every grid position outside `axes`. All (B, P + N, n, d).

    Prefix tokens take part in every group that spans space, their output is the mean over those groups; they sit
    out attention along time alone, where their output is zero.
    Source: arXiv 2103.15691, section 3.3 (the groups); arXiv 2102.05095, section 3.2 (the class token).
    """

    def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # (rows, length, n, d)
        for axis in (0, 2):  # not while tracing: a program of any batch size would be bound to the limit
            if not torch.compiler.is_compiling() and q.shape[axis] > MOST_SEQUENCES:
                parts = zip(*(x.split(MOST_SEQUENCES, axis) for x in (q, k, v)), strict=True)
                return torch.cat([sdpa(*part) for part in parts], axis)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        eager = q.device.type == "cpu" and not torch.compiler.is_compiling()
        if eager and not dropout and products_beat_attention(q.dtype):
            if only_answers(q, k):
                return from_products(q, k, v).transpose(1, 2)
            if q.requires_grad and k.shape[2] <= MOST_KEPT:
                return kept_products(q, k, v).transpose(1, 2)
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout).transpose(1, 2)

    if axes == "thw" or (axes == "hw" and grid.t == 1):
        return sdpa(q, k, v)
    b, cells, (n, d) = q.shape[0], grid.h * grid.w, q.shape[2:]
    if axes == "t":  # the cells of a frame join the heads: a view, no copy
        rows = [x[:, prefix:].reshape(b, grid.t, cells * n, d) for x in (q, k, v)]
        out = sdpa(*rows).reshape(b, grid.size, n, d)
        return F.pad(out, (0, 0, 0, 0, prefix, 0)) if prefix else out
    frames = [x[:, prefix:].reshape(b * grid.t, cells, n, d) for x in (q, k, v)]
    if prefix:
        shared = (x[:, :prefix].repeat_interleave(grid.t, 0) for x in (q, k, v))
        frames = [torch.cat(pair, 1) for pair in zip(shared, frames, strict=True)]
    out = sdpa(*frames).unflatten(0, (b, grid.t))
    if not prefix:
        return out.flatten(1, 2)
    return torch.cat([out[:, :, :prefix].mean(1), out[:, :, prefix:].flatten(1, 2)], 1)


def from_products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention from plain matrix products, a cacheful of scores at a time. All (rows, n, length, d).

    Nothing is kept for a backward pass.
    """
    (rows, n, length, d), seen = q.shape, k.shape[2]
    queries = min(length, max(1, MOST_SCORES // seen))
    heads = min(n, max(1, MOST_SCORES // (seen * queries)))
    height = max(1, MOST_SCORES // (seen * queries * heads))
    q, k = q * d**-0.5, centred(k).transpose(2, 3).contiguous()
    out = q.new_empty(rows, length, n, d).transpose(1, 2)
    for row in range(0, rows, height):
        for head in range(0, n, heads):
            here = slice(row, row + height), slice(head, head + heads)
            for part, into in zip(q[here].split(queries, 2), out[here].split(queries, 2), strict=True):
                into.copy_((part @ k[here]).softmax(-1) @ v[here])
    return out


def kept_products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same, all scores at once, for learning."""
    with torch.autocast("cpu", enabled=False):  # it would have the softmax in float32
        return ((q * q.shape[-1] ** -0.5) @ centred(k).transpose(2, 3)).softmax(-1) @ v


def centred(k: Tensor) -> Tensor:
    """Keys counted from their mean, which no softmax sees: smaller scores lose less when they are rounded."""
    return k - k.mean(2, keepdim=True)


def turn(x: Tensor, turns: Turns, *, prefix: int = 0) -> Tensor:
    """Turns the pairs of neighbouring channels of grid tokens, (B, P + N, n, d) -> same. Source: arXiv 2104.09864."""
    cos, sin = (angle[:, None] for angle in turns)
    first, second = x[:, prefix:].unflatten(-1, (-1, 2)).unbind(-1)
    across = torch.stack([-second, first], -1).flatten(-2)
    return torch.cat([x[:, :prefix], x[:, prefix:] * cos + across * sin], 1)


class Attention(nn.Module):
    """Multi-head self-attention over `axes`, (B, P + N, D) -> same.

    `axes` is "thw" (joint), "hw" (space) or "t" (time); "t|hw" shares the heads out equally, the first half along
    time, the second in space.

    Source: arXiv 2103.15691, section 3.3, eq. 7 for the shared-out heads.
    """

    def __init__(self, dim: int, heads: int, axes: str = "thw", *, dropout: float = 0.0):
        super().__init__()
        self.axes, self.heads, self.dropout = axes, heads, dropout
        self.groups = axes.split("|")
        if not set(self.groups) <= set(AXES):
            raise ValueError(
                f"unknown attention axes {axes!r}: expected {', '.join(AXES)}, or some of them joined by '|'"
            )
        if dim % heads:
            raise ValueError(f"{heads} heads do not divide the width {dim}: choose a divisor of {dim}")
        if heads % len(self.groups):
            raise ValueError(
                f"{heads} heads cannot be shared out equally among {axes!r}: choose a multiple of {len(self.groups)}"
            )
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)

    def forward(self, x: Tensor, grid: Grid, turns: Turns | None = None) -> Tensor:
        """`turns` are the cosines and sines of rotary positions, (N, d) each; prefix tokens are not turned."""
        prefix = x.shape[1] - grid.size
        if prefix and len(self.groups) > 1:
            raise ValueError(f"heads shared out over {self.axes!r} have no place for prefix tokens: use pool='mean'")
        weights, biases = self.qkv.weight.chunk(3), self.qkv.bias.chunk(3)
        q, k, v = (linear(x, w, b).unflatten(2, (self.heads, -1)) for w, b in zip(weights, biases, strict=True))
        if turns is not None:
            q, k = (turn(y, turns, prefix=prefix) for y in (q, k))
        dropout = self.dropout if self.training else 0.0
        shares = zip(*(y.chunk(len(self.groups), 2) for y in (q, k, v)), self.groups, strict=True)
        parts = [attend(q, k, v, grid, axes, prefix=prefix, dropout=dropout) for q, k, v, axes in shares]
        out = self.proj((torch.cat(parts, 2) if len(parts) > 1 else parts[0]).flatten(2))
        if prefix and self.groups == ["t"]:  # the projection's bias must not reach the prefix either
            out = F.pad(out[:, prefix:], (0, 0, prefix, 0))
        return out

    def extra_repr(self) -> str:
        return f"axes={self.axes!r}, heads={self.heads}"
