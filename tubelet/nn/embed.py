"""Tokenisers: from a clip to tokens on a grid, (B, C, T, H, W) -> (B, N, D), Grid.

Each is a module with `patch` and `stride` (frames, px, px), the `grid` of a clip of (T, H, W), and the same `forward`,
so any of them fits any model.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tubelet.nn.grid import Grid, grid_of, triple
from tubelet.nn.kernels import linear


def check_clip(clip: Tensor, channels: int) -> None:
    """Raises ValueError unless `clip` is (B, channels, T, H, W)."""
    if clip.ndim != 5 or clip.shape[1] != channels:
        hint = "add the missing axis with unsqueeze" if clip.ndim == 4 else "move the channels to the second place"
        raise ValueError(
            f"got a tensor of shape {tuple(clip.shape)}, expected a clip (B, C, T, H, W) with C = {channels}: {hint}"
        )


class TubeletEmbed(nn.Module):
    """Linear projection of each tubelet, (B, C, T, H, W) -> (B, N, D), Grid.

    A patch of one frame gives ViT's patch embedding. `stride` may differ from `patch` on any axis: overlapping
    tubelets, or a coarser step in time. The kernel `proj.weight` is (D, C, t, h, w); without overlap it is applied
    as one matrix product, which no build of a convolution library can make slow.

    Source: arXiv 2103.15691, section 3.2, "tubelet embedding"; arXiv 2010.11929, eq. 1.
    """

    def __init__(self, channels: int, dim: int, patch: Sequence[int], stride: Sequence[int] | None = None):
        super().__init__()
        self.patch, self.stride = triple(patch, "patch"), triple(stride or patch, "stride")
        self.proj = nn.Conv3d(channels, dim, self.patch, self.stride)

    def grid(self, size: Sequence[int]) -> Grid:
        return grid_of(size, self.patch, self.stride)

    def forward(self, clip: Tensor) -> tuple[Tensor, Grid]:
        check_clip(clip, self.proj.in_channels)
        grid = self.grid(clip.shape[2:])
        if self.stride != self.patch:
            return self.proj(clip).flatten(2).transpose(1, 2), grid
        return self.project(clip, self.proj.weight, self.proj.bias), grid

    def embed_bytes(self, clip: Tensor, mean: Tensor, std: Tensor) -> tuple[Tensor, Grid]:
        """uint8 pixels as they are: `mean` and `std`, (C,) for pixels in [0, 1], are folded into kernel and bias.

        The bytes are counted from 128, which is near any mean: bfloat16 holds them exactly, and the bias stays small.
        """
        check_clip(clip, self.proj.in_channels)
        grid = self.grid(clip.shape[2:])
        kernel, dtype = self.proj.weight, self.proj.weight.dtype
        fine = torch.promote_types(dtype, torch.float32)  # rounded once, after folding
        mean, std = mean.to(fine), std.to(fine)
        weight = kernel.to(fine) / (255 * std.view(-1, 1, 1, 1))
        bias = weight.sum((2, 3, 4)) @ (128 - 255 * mean).expand(kernel.shape[1])
        bias = bias if self.proj.bias is None else bias + self.proj.bias
        return self.project((clip ^ 128).view(torch.int8), weight.to(dtype), bias.to(dtype)), grid

    def project(self, clip: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """One matrix product over all tubelets, which lie in memory as the clip's pixels do: channels first or last."""
        kernel = self.patch
        pixels = clip.unflatten(4, (-1, kernel[2])).unflatten(3, (-1, kernel[1])).unflatten(2, (-1, kernel[0]))
        last = clip.stride(1) == 1 and clip.shape[1] > 1
        order = (0, 2, 4, 6, 3, 5, 7, 1) if last else (0, 2, 4, 6, 1, 3, 5, 7)
        device = clip.device.type
        autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)  # not on "meta"
        dtype = torch.get_autocast_dtype(device) if autocast else weight.dtype
        pixels = pixels.permute(order).to(dtype, memory_format=torch.contiguous_format).contiguous()
        weight = weight.permute(0, 2, 3, 4, 1) if last else weight
        return linear(pixels.flatten(4).flatten(1, 3), weight.flatten(1), bias)


class UniformFrames(nn.Module):
    """Uniform frame sampling: embeds `frames` frames of the clip, evenly spread, each in patches of one frame.

    Source: arXiv 2103.15691, section 3.2, "uniform frame sampling".
    """

    def __init__(self, channels: int, dim: int, patch: Sequence[int], *, frames: int):
        super().__init__()
        if patch[0] != 1:
            raise ValueError(
                f"uniform frame sampling embeds single frames, got a tubelet of {patch[0]}: name it /{patch[1]}"
            )
        self.frames = frames
        self.embed = TubeletEmbed(channels, dim, patch)
        self.patch, self.stride = self.embed.patch, self.embed.stride

    def grid(self, size: Sequence[int]) -> Grid:
        return self.embed.grid((min(size[0], self.frames), *size[1:]))

    def forward(self, clip: Tensor) -> tuple[Tensor, Grid]:
        check_clip(clip, self.embed.proj.in_channels)
        return self.embed(clip[:, :, uniform_frames(clip.shape[2], self.frames)])


def uniform_frames(total: int, frames: int) -> list[int]:
    """Indices of `frames` frames, evenly spread inside a clip of `total`; all of them where there are not more."""
    if frames >= total:
        return list(range(total))
    step = total / (frames + 1)
    return [min(round(step * (i + 1)), total - 1) for i in range(frames)]


class SpaceThenTimeEmbed(nn.Module):
    """Embeds the patches of each frame, then mixes `t` successive frames of a patch: two small kernels for one large.

    The pair equals one tubelet kernel, the product of the two.
    """

    def __init__(self, channels: int, dim: int, patch: Sequence[int], stride: Sequence[int] | None = None):
        super().__init__()
        self.patch, self.stride = triple(patch, "patch"), triple(stride or patch, "stride")
        (kt, kh, kw), (st, sh, sw) = self.patch, self.stride
        self.space = nn.Conv3d(channels, dim, (1, kh, kw), (1, sh, sw))
        self.time = nn.Conv3d(dim, dim, (kt, 1, 1), (st, 1, 1))

    def grid(self, size: Sequence[int]) -> Grid:
        return grid_of(size, self.patch, self.stride)

    def forward(self, clip: Tensor) -> tuple[Tensor, Grid]:
        check_clip(clip, self.space.in_channels)
        grid = self.grid(clip.shape[2:])
        return self.time(self.space(clip)).flatten(2).transpose(1, 2), grid


class DepthwiseSeparableEmbed(nn.Module):
    """A light 3-D convolution: `filters` tubelet filters for each channel by itself, then a mix of their outputs."""

    def __init__(
        self, channels: int, dim: int, patch: Sequence[int], stride: Sequence[int] | None = None, *, filters: int = 8
    ):
        super().__init__()
        self.patch, self.stride = triple(patch, "patch"), triple(stride or patch, "stride")
        self.depthwise = nn.Conv3d(channels, channels * filters, self.patch, self.stride, groups=channels)
        self.pointwise = nn.Conv3d(channels * filters, dim, 1)

    def grid(self, size: Sequence[int]) -> Grid:
        return grid_of(size, self.patch, self.stride)

    def forward(self, clip: Tensor) -> tuple[Tensor, Grid]:
        check_clip(clip, self.depthwise.in_channels)
        grid = self.grid(clip.shape[2:])
        return self.pointwise(self.depthwise(clip)).flatten(2).transpose(1, 2), grid


class ConvStemEmbed(nn.Module):
    """Three 3-D convolutions whose strides multiply to the patch: overlapping, non-linear tubelets on the same grid.

    It learns motion from few clips sooner than one linear kernel does (docs/results.md has the measurement). For clips
    of one frame (`still`) its kernels have no depth in time.
    Source: arXiv 2106.14881 (early convolutions), in space and time.
    """

    def __init__(self, channels: int, dim: int, patch: Sequence[int], *, still: bool = False):
        super().__init__()
        self.patch = self.stride = triple(patch, "patch")
        widths = [channels if still else 2 * channels, max(dim // 4, 16), max(dim // 2, 32), dim]
        strides = list(zip(*(three_factors(size) for size in self.patch), strict=True))
        layers: list[nn.Module] = []
        for i, stride in enumerate(strides):
            kernel = [max(3, 2 * s - 1) for s in stride]
            kernel[0] = 1 if still else kernel[0]
            padding = tuple(k // 2 for k in kernel)
            layers += [nn.Conv3d(widths[i], widths[i + 1], triple(kernel, "kernel"), stride, padding)]
            layers += [nn.GroupNorm(1, widths[i + 1]), nn.GELU()] if i < 2 else []
        self.layers = nn.Sequential(*layers)
        self.channels, self.still = channels, still

    def grid(self, size: Sequence[int]) -> Grid:
        return grid_of(size, self.patch, self.stride)

    def forward(self, clip: Tensor) -> tuple[Tensor, Grid]:
        check_clip(clip, self.channels)
        grid = self.grid(clip.shape[2:])
        # Motion is a small change on a large and varying brightness: both are standardised, each channel by itself.
        pixels = F.group_norm(clip, self.channels)
        if not self.still:
            change = F.pad(clip[:, :, 1:] - clip[:, :, :-1], (0, 0, 0, 0, 1, 0))
            pixels = torch.cat([pixels, F.group_norm(change, self.channels)], 1)
        return self.layers(pixels).flatten(2).transpose(1, 2), grid


def three_factors(number: int) -> list[int]:
    """Three strides whose product is `number`, as even as its prime factors allow, the largest first."""
    factors, rest, prime = [1, 1, 1], number, 2
    primes = []
    while rest > 1:
        while rest % prime == 0:
            primes.append(prime)
            rest //= prime
        prime += 1
    for p in reversed(primes):
        factors[factors.index(min(factors))] *= p
    return sorted(factors, reverse=True)


def normalise(clip: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(B, C, T, H, W) uint8 -> float in units of `std` around `mean`, both (C,) for pixels in [0, 1]."""
    shape = (-1, 1, 1, 1)
    return clip.to(mean.dtype).sub(mean.view(shape) * 255).div(std.view(shape) * 255)
