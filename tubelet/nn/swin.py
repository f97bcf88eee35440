"""Swin Transformer v2, variant "CR": attention in shifted windows of the token grid, in space or in space and time."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tubelet.nn.block import DropPath, Mlp
from tubelet.nn.cache import Cache
from tubelet.nn.compile import run_block
from tubelet.nn.config import WindowStage
from tubelet.nn.grid import Grid, Size3

META_DIM, META_DROPOUT = 384, 0.125  # of the MLP that makes the position bias; fixed for all models
START_SCALE, MAX_SCALE = math.log(10), math.log(100)  # of cosine attention, as logarithms


class Windows(NamedTuple):
    """A token grid cut into windows of `size` = (t, h, w) tokens: token i of an axis is in window (i - shift) // size.

    The grid is padded to whole windows, then rolled. The first `shift` tokens come to lie beside the last ones then,
    and beside padding: `Layout.visible` keeps them apart.
    """

    grid: Grid
    size: Size3
    shift: Size3

    @property
    def padded(self) -> Grid:
        """The grid, filled up to whole windows."""
        return Grid(*(-(-n // size) * size for n, size in zip(self.grid, self.size, strict=True)))

    def cut(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, windows, L, D), the L = t*h*w tokens of each window; padding is 0."""
        x = x.unflatten(1, self.grid)
        t, h, w = (full - n for full, n in zip(self.padded, self.grid, strict=True))
        if t or h or w:
            x = F.pad(x, (0, 0, 0, w, 0, h, 0, t))
        if any(self.shift):
            x = x.roll([-s for s in self.shift], (1, 2, 3))
        (wt, wh, ww), (t, h, w) = self.size, self.padded
        x = x.reshape(-1, t // wt, wt, h // wh, wh, w // ww, ww, x.shape[4])
        return x.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4, 6).flatten(1, 3)

    def join(self, x: Tensor) -> Tensor:
        """(B, windows, L, D) -> (B, N, D), the inverse of `cut`; padding is left out."""
        (wt, wh, ww), (t, h, w) = self.size, self.padded
        x = x.reshape(-1, t // wt, h // wh, w // ww, wt, wh, ww, x.shape[3])
        x = x.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(-1, t, h, w, x.shape[7])
        if any(self.shift):
            x = x.roll(self.shift, (1, 2, 3))
        return x[:, : self.grid.t, : self.grid.h, : self.grid.w].flatten(1, 3)


class Layout(NamedTuple):
    """The masks and offsets of windows for attention. Depends on sizes alone, so it is never part of a state dict.

    offsets: (M, 3), each distinct offset (t, h, w) from key to query in a window, as sign * log(1 + |tokens|);
    between: (L, L), which of them lies between a query (row) and a key;
    visible: (windows, 1, L, L), True where the query may see the key; None where it always may.
    """

    offsets: Tensor
    between: Tensor
    visible: Tensor | None


def lay_out(windows: Windows, device: torch.device) -> Layout:
    _, wh, ww = windows.size
    offsets = torch.cartesian_prod(*(torch.arange(1 - size, size, device=device) for size in windows.size))
    offsets = offsets.sign() * offsets.abs().float().log1p()
    places = torch.cartesian_prod(*(torch.arange(size, device=device) for size in windows.size))
    t, h, w = (places[:, None] - places + places[-1]).unbind(2)  # counted from the lowest offset on
    between = (t * (2 * wh - 1) + h) * (2 * ww - 1) + w
    if windows.padded == windows.grid and not any(windows.shift):
        return Layout(offsets, between, None)
    axes = zip(windows.grid, windows.size, windows.shift, strict=True)
    # the number of each token's window along each axis: 1 is the lowest there can be, 0 is left to the padding
    numbers = torch.cartesian_prod(*((torch.arange(n, device=device) - shift) // size + 2 for n, size, shift in axes))
    number = windows.cut(numbers[None])[0]
    return Layout(offsets, between, (number[:, :, None] == number[:, None]).all(-1)[:, None])


LAYOUTS: Cache[Layout] = Cache(32)


def window_layout(windows: Windows, device: torch.device) -> Layout:
    """The layout of windows on a device, remembered: every block of every clip of one size asks for the same."""
    return LAYOUTS.get((windows, device), lambda: lay_out(windows, device))


class PositionMlp(nn.Module):
    """Log-spaced offsets -> position bias of each head, (M, 2 or 3) -> (M, heads)."""

    def __init__(self, coordinates: int, heads: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(coordinates, META_DIM), nn.Linear(META_DIM, heads)
        self.rate = META_DROPOUT

    def forward(self, offsets: Tensor) -> Tensor:
        return self.fc2(F.dropout(F.relu(self.fc1(offsets)), self.rate, self.training))


class WindowAttention(nn.Module):
    """Cosine attention inside windows, (B, N, D) -> same, with a bias that an MLP makes from relative positions.

    `coordinates` is 2, (h, w), for windows of one time step, else 3, (t, h, w). The MLP sees each distinct offset
    once, not each pair of tokens: a space-time window has dozens of times more pairs.
    Source: arXiv 2111.09883, section 3.2 (cosine attention) and 3.3 (the bias).
    """

    def __init__(self, dim: int, heads: int, *, coordinates: int):
        super().__init__()
        if dim % heads:
            raise ValueError(f"{heads} heads do not divide the width {dim}: choose a divisor of {dim}")
        self.heads, self.coordinates = heads, coordinates
        self.p = 0.0  # dropout of the scores, named as in nn.Dropout
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.logit_scale = nn.Parameter(torch.full((heads,), START_SCALE))
        self.meta = PositionMlp(coordinates, heads)

    def forward(self, x: Tensor, windows: Windows, layout: Layout) -> Tensor:
        q, k, v = self.qkv(windows.cut(x)).unflatten(3, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)
        # each (B, windows, heads, L, d)
        scale = self.logit_scale.clamp(max=MAX_SCALE).exp()
        q, k = F.normalize(q, dim=-1) * scale.view(-1, 1, 1), F.normalize(k, dim=-1)
        bias, joined = self.bias(layout), (0, 1)
        if layout.visible is not None:  # a mask of its own for each window: windows join the heads, not the batch
            bias, joined = bias.masked_fill(~layout.visible, -torch.inf).flatten(0, 1), (1, 2)
        rows, columns, values = (y.to(v.dtype).flatten(*joined) for y in (q, k, v))
        dropout = self.p if self.training else 0.0
        out = F.scaled_dot_product_attention(rows, columns, values, bias[None].to(v.dtype), dropout, scale=1.0)
        return windows.join(self.proj(out.reshape(v.shape).transpose(2, 3).flatten(3)))

    def bias(self, layout: Layout) -> Tensor:
        """Position bias, (heads, L, L): the places of a query and a key add it to their logit."""
        offsets = layout.offsets[:, 3 - self.coordinates :].to(self.meta.fc1.weight.dtype)
        return self.meta(offsets).T[:, layout.between]

    def extra_repr(self) -> str:
        return f"heads={self.heads}, coordinates={self.coordinates}"


class SwinBlock(nn.Module):
    """Residual post-norm block, (B, N, D) -> same. Its norms start at weight 0: a new block changes nothing."""

    dynamic: bool | None = False  # a program for all sizes of windows would take a minute to compile

    def __init__(self, dim: int, heads: int, mlp_dim: int, *, coordinates: int, eps: float):
        super().__init__()
        self.checkpointing, self.program = False, None
        self.attn = WindowAttention(dim, heads, coordinates=coordinates)
        self.attn_norm = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, mlp_dim)
        self.mlp_norm = nn.LayerNorm(dim, eps=eps)
        self.dropout, self.drop_path = nn.Dropout(0.0), DropPath()
        nn.init.zeros_(self.attn_norm.weight)
        nn.init.zeros_(self.mlp_norm.weight)

    def forward(self, x: Tensor, windows: Windows) -> Tensor:
        return run_block(self, x, windows, window_layout(windows, x.device))

    def run(self, x: Tensor, windows: Windows, layout: Layout) -> Tensor:
        x = x + self.drop_path(self.attn_norm(self.dropout(self.attn(x, windows, layout))))
        return x + self.drop_path(self.mlp_norm(self.mlp(x)))


class PatchMerging(nn.Module):
    """2 x 2 neighbours in space become one token of twice the width, (B, N, D), Grid -> (B, N', 2 D), Grid.

    An odd side is padded with zeros; time is never merged.
    """

    def __init__(self, dim: int, *, eps: float):
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim, eps=eps)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        x = F.pad(x.unflatten(1, grid), (0, 0, 0, grid.w % 2, 0, grid.h % 2))
        t, h, w = merged = Grid(grid.t, (grid.h + 1) // 2, (grid.w + 1) // 2)
        x = x.reshape(-1, t, h, 2, w, 2, x.shape[4]).permute(0, 1, 2, 4, 5, 3, 6)  # columns before rows, as in timm
        return self.reduction(self.norm(x.reshape(x.shape[0], merged.size, -1))), merged


class SwinLevel(nn.Module):
    """Blocks at one resolution, which `merge` halves first; every second one shifts the windows."""

    def __init__(self, stage: WindowStage, level: int):
        super().__init__()
        dim, eps = stage.dim * 2**level, stage.eps
        numbers = {"heads": stage.heads[level], "mlp_dim": stage.mlp_dim * 2**level}
        coordinates = 2 if stage.window[0] == 1 else 3
        self.merge = PatchMerging(dim // 2, eps=eps) if level else None
        self.blocks = nn.ModuleList(
            SwinBlock(dim, **numbers, coordinates=coordinates, eps=eps) for _ in range(stage.depths[level])
        )
        normed = stage.level_norms or level == len(stage.depths) - 1
        self.norm = nn.LayerNorm(dim, eps=eps) if normed else nn.Identity()

    def forward(self, x: Tensor, grid: Grid, window: Size3) -> tuple[Tensor, Grid]:
        if self.merge is not None:
            x, grid = self.merge(x, grid)
        still, shifted = cuts(grid, window)
        for i, block in enumerate(self.blocks):
            x = block(x, shifted if i % 2 else still)
        return self.norm(x), grid


def cuts(grid: Grid, window: Size3) -> tuple[Windows, Windows]:
    """The windows of even and of odd blocks: at the edge, and shifted by half a window.

    A window is never larger than the grid; it is not shifted along an axis that it covers.
    """
    t, h, w = (min(size, n) for size, n in zip(window, grid, strict=True))
    st, sh, sw = (size // 2 if size < n else 0 for size, n in zip((t, h, w), grid, strict=True))
    return Windows(grid, (t, h, w), (0, 0, 0)), Windows(grid, (t, h, w), (st, sh, sw))


class SwinEncoder(nn.Module):
    """Swin Transformer v2 CR, (B, N, D), Grid -> (B, 1, D * 2 ** (levels - 1)), Grid(1, 1, 1).

    Norm of the embedded patches, levels, norm, mean. Any grid will do, at every call another: no parameter depends on
    it. The stage's `window` is made for the token grid `grid`. At another grid each level keeps its ratio of window to
    grid: along each axis max(1, round(window * grid now / grid made for)), at most the level's own grid. A window of
    one time step stays one, whatever the clip's length: its position bias knows no time.

    Raises:
        ValueError: sizes that do not fit together.

    Source: arXiv 2111.09883; where the paper leaves a choice, as timm's swin_transformer_v2_cr.
    """

    def __init__(self, stage: WindowStage, grid: Grid):
        super().__init__()
        check_levels(stage)
        self.dim, self.window, self.grid = stage.dim, stage.window, grid
        self.over, self.prefix_size, self.pools = "thw", 0, True
        self.out_dim = stage.dim * 2 ** (len(stage.depths) - 1)
        self.embed_norm = nn.LayerNorm(stage.dim, eps=stage.eps)
        self.stages = nn.ModuleList(SwinLevel(stage, level) for level in range(len(stage.depths)))

    @property
    def blocks(self) -> tuple[nn.Module, ...]:
        return tuple(block for level in self.stages for block in level.blocks)  # type: ignore[union-attr]  # a list

    layers = blocks

    def window_at(self, grid: Grid) -> Size3:
        """The window (t, h, w) at a token grid, before levels whose own grid is smaller cap it."""
        sizes = zip(self.window, grid, self.grid, strict=True)
        t, h, w = (max(1, round(window * now / source)) for window, now, source in sizes)
        return (1 if self.window[0] == 1 else t), h, w

    def tokens(self, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        """The tokens of the last level, (B, N, D) -> (B, N', D * 2 ** (levels - 1)), and its grid."""
        if x.ndim != 3 or x.shape[1:] != (grid.size, self.dim):
            raise ValueError(
                f"got tokens of shape {tuple(x.shape)} for the grid {tuple(grid)}, "
                f"expected (B, {grid.size}, {self.dim}): windows have no place for prefix tokens"
            )
        x, window = self.embed_norm(x), self.window_at(grid)
        for level in self.stages:
            x, grid = level(x, grid, window)
        return x, grid

    def forward(self, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        x, _ = self.tokens(x, grid)
        return x.mean(1, keepdim=True), Grid(1, 1, 1)


def check_levels(stage: WindowStage) -> None:
    """Raises ValueError unless each level has blocks and heads, and the window three sizes."""
    depths, heads, window = stage.depths, stage.heads, stage.window
    if not depths or min(depths) < 1:
        raise ValueError(f"got depths={tuple(depths)}, expected at least one level, each of at least one block")
    if len(heads) != len(depths):
        raise ValueError(f"got {len(heads)} numbers of heads for {len(depths)} levels: give one for each level")
    if min(heads) < 1:
        raise ValueError(f"got heads={tuple(heads)}, expected at least one for each level")
    if len(window) != 3 or min(window) < 1:
        raise ValueError(f"got window={tuple(window)}, expected (t, h, w) in tokens, each at least 1")
