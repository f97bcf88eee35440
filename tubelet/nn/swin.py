"""Swin Transformer v2, variant "CR": attention in shifted windows of the token grid, in space or in space and time."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tubelet.nn.block import BlockConfig, DropPath, Mlp
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
    """What attention needs to know of windows. Depends on sizes alone, so it is never part of a state dict.

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


remembered = lru_cache(maxsize=32)(lay_out)


def layout_of(windows: Windows, device: torch.device) -> Layout:
    """The layout of windows on a device, remembered: every block of every clip of one size asks for the same."""
    if torch.compiler.is_compiling():  # a tracer's tensors must not outlive it
        return lay_out(windows, device)
    with torch.inference_mode(False):  # or training could not use what prediction had made
        return remembered(windows, device)


class PositionMlp(nn.Module):
    """Log-spaced offsets -> position bias of each head, (M, 2 or 3) -> (M, heads)."""

    def __init__(self, coordinates: int, heads: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(coordinates, META_DIM), nn.Linear(META_DIM, heads)
        self.dropout = nn.Dropout(META_DROPOUT)

    def forward(self, offsets: Tensor) -> Tensor:
        return self.fc2(self.dropout(F.relu(self.fc1(offsets))))


class WindowAttention(nn.Module):
    """Cosine attention inside windows, (B, N, D) -> same, with a bias that an MLP makes from relative positions.

    `coordinates` is 2, (h, w), for windows of one time step, else 3, (t, h, w). The MLP sees each distinct offset
    once, not each pair of tokens: a space-time window has dozens of times more pairs.
    Source: arXiv 2111.09883, section 3.2 (cosine attention) and 3.3 (the bias).
    """

    def __init__(self, dim: int, heads: int, *, coordinates: int, dropout: float = 0.0):
        super().__init__()
        if dim % heads:
            raise ValueError(f"{heads} heads do not divide the width {dim}: choose a divisor of {dim}")
        self.heads, self.coordinates, self.dropout = heads, coordinates, dropout
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.logit_scale = nn.Parameter(torch.full((heads,), START_SCALE))
        self.meta = PositionMlp(coordinates, heads)

    def forward(self, x: Tensor, windows: Windows) -> Tensor:
        q, k, v = self.qkv(windows.cut(x)).unflatten(3, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)
        # each (B, windows, heads, L, d)
        scale = self.logit_scale.clamp(max=MAX_SCALE).exp()
        q, k = F.normalize(q, dim=-1) * scale.view(-1, 1, 1), F.normalize(k, dim=-1)
        layout = layout_of(windows, x.device)
        bias, joined = self.bias(layout), (0, 1)
        if layout.visible is not None:  # a mask of its own for each window: windows join the heads, not the batch
            bias, joined = bias.masked_fill(~layout.visible, -torch.inf).flatten(0, 1), (1, 2)
        rows, columns, values = (y.to(v.dtype).flatten(*joined) for y in (q, k, v))
        dropout = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(rows, columns, values, bias[None].to(v.dtype), dropout, scale=1.0)
        return windows.join(self.proj(out.reshape(v.shape).transpose(2, 3).flatten(3)))

    def bias(self, layout: Layout) -> Tensor:
        """What the places of a query and a key add to their logit, (heads, L, L)."""
        offsets = layout.offsets[:, 3 - self.coordinates :].to(self.meta.fc1.weight.dtype)
        return self.meta(offsets).T[:, layout.between]

    def extra_repr(self) -> str:
        return f"heads={self.heads}, coordinates={self.coordinates}"


class SwinBlock(nn.Module):
    """Residual post-norm block, (B, N, D) -> same. Its norms start at weight 0: a new block changes nothing."""

    def __init__(self, config: BlockConfig, *, coordinates: int, drop_path: float = 0.0):
        super().__init__()
        c = config
        self.attn = WindowAttention(c.dim, c.heads, coordinates=coordinates, dropout=c.dropout)
        self.attn_norm = nn.LayerNorm(c.dim, eps=c.eps)
        self.mlp = Mlp(c.dim, c.mlp_dim, gelu=c.gelu, dropout=c.dropout)
        self.mlp_norm = nn.LayerNorm(c.dim, eps=c.eps)
        self.dropout, self.drop_path = nn.Dropout(c.dropout), DropPath(drop_path)
        nn.init.zeros_(self.attn_norm.weight)
        nn.init.zeros_(self.mlp_norm.weight)

    def forward(self, x: Tensor, windows: Windows) -> Tensor:
        x = x + self.drop_path(self.attn_norm(self.dropout(self.attn(x, windows))))
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


class SwinStage(nn.Module):
    """Blocks at one resolution, which `merge` halves first; every second one shifts the windows."""

    def __init__(self, config: BlockConfig, *, coordinates: int, drop_paths: list[float], merge: bool, norm: bool):
        super().__init__()
        self.merge = PatchMerging(config.dim // 2, eps=config.eps) if merge else None
        self.blocks = nn.ModuleList(SwinBlock(config, coordinates=coordinates, drop_path=rate) for rate in drop_paths)
        self.norm = nn.LayerNorm(config.dim, eps=config.eps) if norm else nn.Identity()

    def forward(self, x: Tensor, grid: Grid, window: Size3, *, checkpointing: bool = False) -> tuple[Tensor, Grid]:
        if self.merge is not None:
            x, grid = self.merge(x, grid)
        still, shifted = cuts(grid, window)
        for i, block in enumerate(self.blocks):
            windows = shifted if i % 2 else still
            x = checkpoint(block, x, windows, use_reentrant=False) if checkpointing else block(x, windows)
        return self.norm(x), grid


def cuts(grid: Grid, window: Size3) -> tuple[Windows, Windows]:
    """The windows of even and of odd blocks: at the edge, and shifted by half a window.

    A window is never larger than the grid; it is not shifted along an axis that it covers.
    """
    t, h, w = (min(size, n) for size, n in zip(window, grid, strict=True))
    st, sh, sw = (size // 2 if size < n else 0 for size, n in zip((t, h, w), grid, strict=True))
    return Windows(grid, (t, h, w), (0, 0, 0)), Windows(grid, (t, h, w), (st, sh, sw))


class SwinEncoder(nn.Module):
    """Swin Transformer v2 CR, (B, N, D), Grid -> (B, N', D * 2 ** (stages - 1)), Grid of the last stage.

    Norm of the embedded patches, stages, norm. Any grid will do, at every call another: no parameter depends on it.
    `window` = (t, h, w) tokens is made for the token grid `grid`. At another grid each stage keeps its ratio of
    window to grid: along each axis max(1, round(window * grid now / grid made for)), at most the stage's own grid.
    A window of one time step stays one, whatever the clip's length: its position bias knows no time.

    Args:
        depths, heads: one for each stage; each stage halves h and w (odd sizes are padded) and doubles the width.
        mlp_ratio: hidden width of an MLP, in widths of its stage.
        drop_paths: stochastic depth rates, one for each block over all stages.
        dropout: in attention and MLP. The MLP of the position bias has a fixed one of its own.
        stage_norms: a norm after every stage, not after the last alone (timm's models with "_ns" in their names).

    Raises:
        ValueError: sizes that do not fit together.

    Source: arXiv 2111.09883; where the paper leaves a choice, as timm's swin_transformer_v2_cr.
    """

    def __init__(
        self,
        dim: int,
        *,
        depths: Sequence[int],
        heads: Sequence[int],
        window: Sequence[int],
        grid: Grid,
        mlp_ratio: float = 4.0,
        eps: float = 1e-5,
        drop_paths: list[float],
        dropout: float = 0.0,
        stage_norms: bool = False,
        checkpointing: bool = False,
    ):
        super().__init__()
        check_stages(depths, heads, drop_paths)
        if len(window) != 3 or min(window) < 1:
            raise ValueError(f"got window={tuple(window)}, expected (t, h, w) in tokens, each at least 1")
        self.dim, self.window, self.grid, self.checkpointing = dim, tuple(window), grid, checkpointing
        self.out_dim = dim * 2 ** (len(depths) - 1)
        self.embed_norm = nn.LayerNorm(dim, eps=eps)
        self.stages = nn.ModuleList()
        for i, depth in enumerate(depths):
            width, first = dim * 2**i, sum(depths[:i])
            self.stages.append(
                SwinStage(
                    BlockConfig(dim=width, heads=heads[i], mlp_dim=int(width * mlp_ratio), eps=eps, dropout=dropout),
                    coordinates=2 if window[0] == 1 else 3,
                    drop_paths=drop_paths[first : first + depth],
                    merge=i > 0,
                    norm=stage_norms or i == len(depths) - 1,
                )
            )

    def window_at(self, grid: Grid) -> Size3:
        """The window (t, h, w) at a token grid, before stages whose own grid is smaller cap it."""
        sizes = zip(self.window, grid, self.grid, strict=True)
        t, h, w = (max(1, round(window * now / source)) for window, now, source in sizes)
        return (1 if self.window[0] == 1 else t), h, w

    def forward(self, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        if x.ndim != 3 or x.shape[1:] != (grid.size, self.dim):
            raise ValueError(
                f"got tokens of shape {tuple(x.shape)} for the grid {tuple(grid)}, "
                f"expected (B, {grid.size}, {self.dim}): windows have no place for prefix tokens"
            )
        x, window = self.embed_norm(x), self.window_at(grid)
        for stage in self.stages:
            x, grid = stage(x, grid, window, checkpointing=self.checkpointing and self.training)
        return x, grid


def check_stages(depths: Sequence[int], heads: Sequence[int], drop_paths: Sequence[float]) -> None:
    """Raises ValueError unless each stage has blocks and heads, and each block a drop path rate."""
    if not depths or min(depths) < 1:
        raise ValueError(f"got depths={tuple(depths)}, expected at least one stage, each of at least one block")
    if len(heads) != len(depths):
        raise ValueError(f"got {len(heads)} numbers of heads for {len(depths)} stages: give one for each stage")
    if len(drop_paths) != sum(depths):
        raise ValueError(f"got {len(drop_paths)} drop path rates for {sum(depths)} blocks: give one for each block")
