"""Tokenisers: from a clip to tokens on a grid, (B, C, T, H, W) -> (B, N, D), Grid."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tubelet.nn.grid import Grid, Size3, fill, token_grid, triple
from tubelet.nn.kernels import linear


def check_clip(clip: Tensor, channels: int) -> None:
    """Raises ValueError unless `clip` is (B, channels, T, H, W)."""
    if clip.ndim != 5 or clip.shape[1] != channels:
        hint = "add the missing axis with unsqueeze" if clip.ndim == 4 else "move the channels to the second place"
        raise ValueError(
            f"got a tensor of shape {tuple(clip.shape)}, expected a clip (B, C, T, H, W) with C = {channels}: {hint}"
        )


def normalise(clip: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(B, C, T, H, W) uint8 -> float in units of `std` around `mean`, both (C,) for pixels in [0, 1]."""
    shape = (-1, 1, 1, 1)
    return clip.to(mean.dtype).sub(mean.view(shape) * 255).div(std.view(shape) * 255)


class Tokeniser(nn.Module):
    """Base of all tokenisers, (B, C, T, H, W) -> (B, N, D), Grid. Some have their own `tokens`.

    patch, stride: what a token sees, and from one token to the next, in (frames, px, px)
    pad: clips that whole tubelets do not fill get the mean colour, 0, at the end of each axis; else they are an error
    steps_apart: a step of the grid is made of its own frames alone, whatever the other frames of the clip are
    all_used: each clip needs all the weights, whatever its size
    """

    steps_apart = True
    all_used = True

    def __init__(self, channels: int, patch: Sequence[int], stride: Sequence[int] | None = None):
        super().__init__()
        self.channels, self.pad = channels, False
        self.patch, self.stride = triple(patch, "patch"), triple(stride or patch, "stride")

    def filled_size(self, size: Sequence[int]) -> Size3:
        """The (T, H, W) that a clip of `size` is filled up to."""
        t, h, w = size
        return fill(size, self.patch, self.stride) if self.pad else (t, h, w)

    def grid(self, size: Sequence[int]) -> Grid:
        """The grid of a clip of (T, H, W). Raises ValueError where whole tubelets do not fill it."""
        return token_grid(self.filled_size(size), self.patch, self.stride)

    def forward(self, clip: Tensor) -> tuple[Tensor, Grid]:
        check_clip(clip, self.channels)
        size, full = clip.shape[2:], self.filled_size(clip.shape[2:])
        grid = self.grid(size)
        if full != size:
            t, h, w = (to - now for to, now in zip(full, size, strict=True))
            clip = F.pad(clip, (0, w, 0, h, 0, t))
        return self.tokens(clip), grid

    def embed_bytes(self, clip: Tensor, mean: Tensor, std: Tensor) -> tuple[Tensor, Grid]:
        """Tokens of uint8 clips, (B, C, T, H, W) -> (B, N, D), Grid; (C,) `mean` and `std` are for pixels in [0, 1]."""
        return self(normalise(clip, mean, std))

    def tokens(self, clip: Tensor) -> Tensor:
        """Tokens (B, N, D) of a clip that whole tubelets fill: by default, the layers in turn."""
        for layer in self.children():
            clip = layer(clip)
        return clip.flatten(2).transpose(1, 2)


class TubeletEmbed(Tokeniser):
    """Linear projection of each tubelet, (B, C, T, H, W) -> (B, N, D), Grid.

    A patch of one frame gives ViT's patch embedding. `stride` may differ from `patch` on any axis: overlapping
    tubelets, or a coarser step in time. The kernel `proj.weight` is (D, C, t, h, w); without overlap it is applied
    as one matrix product, which no build of a convolution library can make slow.

    Source: arXiv 2103.15691, section 3.2, "tubelet embedding"; arXiv 2010.11929, eq. 1.
    """

    def __init__(self, channels: int, dim: int, patch: Sequence[int], stride: Sequence[int] | None = None):
        super().__init__(channels, patch, stride)
        self.proj = nn.Conv3d(channels, dim, self.patch, self.stride)

    def tokens(self, clip: Tensor) -> Tensor:
        if self.stride != self.patch:
            return super().tokens(clip)
        return self.project(clip, self.proj.weight, self.proj.bias)

    def embed_bytes(self, clip: Tensor, mean: Tensor, std: Tensor) -> tuple[Tensor, Grid]:
        """uint8 pixels as they are: `mean` and `std`, (C,) for pixels in [0, 1], are folded into kernel and bias.

        The bytes are counted from 128, which is near any mean: bfloat16 holds them exactly, and the bias stays small.
        """
        grid = self.grid(clip.shape[2:])
        if self.stride != self.patch or self.filled_size(clip.shape[2:]) != clip.shape[2:]:
            return super().embed_bytes(clip, mean, std)
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


class VideoOrImageEmbed(Tokeniser):
    """Tubelets of a video; of a clip of one frame patches, by a kernel of their own.

    (B, C, T, H, W) -> (B, N, D), Grid(T / t, ...); (B, C, 1, H, W) -> the same with Grid(1, ...).
    Source: arXiv 2603.14482 (V-JEPA 2.1).
    """

    all_used = False

    def __init__(self, channels: int, dim: int, patch: Sequence[int]):
        super().__init__(channels, patch)
        self.video = TubeletEmbed(channels, dim, patch)
        self.image = TubeletEmbed(channels, dim, (1, *self.patch[1:]))

    def filled_size(self, size: Sequence[int]) -> Size3:
        return (1, *super().filled_size(size)[1:]) if size[0] == 1 else super().filled_size(size)

    def part(self, size: Sequence[int]) -> TubeletEmbed:
        """The tokeniser of clips of (T, H, W)."""
        return self.image if size[0] == 1 else self.video

    def grid(self, size: Sequence[int]) -> Grid:
        return self.part(size).grid(self.filled_size(size))

    def embed_bytes(self, clip: Tensor, mean: Tensor, std: Tensor) -> tuple[Tensor, Grid]:
        part, size = self.part(clip.shape[2:]), clip.shape[2:]
        whole = self.filled_size(size) == tuple(size)
        return part.embed_bytes(clip, mean, std) if whole else super().embed_bytes(clip, mean, std)

    def tokens(self, clip: Tensor) -> Tensor:
        return self.part(clip.shape[2:]).tokens(clip)


class UniformFrames(Tokeniser):
    """Uniform frame sampling: embeds `frames` frames of the clip, evenly spread, each in patches of one frame.

    Source: arXiv 2103.15691, section 3.2, "uniform frame sampling".
    """

    steps_apart = False

    def __init__(self, channels: int, dim: int, patch: Sequence[int], *, frames: int):
        super().__init__(channels, patch)
        if patch[0] != 1:
            raise ValueError(
                f"uniform frame sampling embeds single frames, got a tubelet of {patch[0]}: name it /{patch[1]}"
            )
        self.frames = frames
        self.embed = TubeletEmbed(channels, dim, patch)

    def grid(self, size: Sequence[int]) -> Grid:
        t, h, w = self.filled_size(size)
        return token_grid((min(t, self.frames), h, w), self.patch, self.stride)

    def tokens(self, clip: Tensor) -> Tensor:
        return self.embed.tokens(clip[:, :, uniform_frames(clip.shape[2], self.frames)])


def uniform_frames(total: int, frames: int) -> list[int]:
    """Indices of `frames` frames, evenly spread inside a clip of `total`; all of them where there are not more."""
    if frames >= total:
        return list(range(total))
    step = total / (frames + 1)
    return [min(round(step * (i + 1)), total - 1) for i in range(frames)]


class SpaceThenTimeEmbed(Tokeniser):
    """Embeds the patches of each frame, then mixes `t` successive frames of a patch: two small kernels for one large.

    The pair equals one tubelet kernel, the product of the two.
    """

    def __init__(self, channels: int, dim: int, patch: Sequence[int], stride: Sequence[int] | None = None):
        super().__init__(channels, patch, stride)
        (kt, kh, kw), (st, sh, sw) = self.patch, self.stride
        self.space = nn.Conv3d(channels, dim, (1, kh, kw), (1, sh, sw))
        self.time = nn.Conv3d(dim, dim, (kt, 1, 1), (st, 1, 1))


class DepthwiseSeparableEmbed(Tokeniser):
    """A light 3-D convolution: `filters` tubelet filters for each channel by itself, then a mix of their outputs."""

    def __init__(
        self, channels: int, dim: int, patch: Sequence[int], stride: Sequence[int] | None = None, *, filters: int = 8
    ):
        super().__init__(channels, patch, stride)
        self.depthwise = nn.Conv3d(channels, channels * filters, self.patch, self.stride, groups=channels)
        self.pointwise = nn.Conv3d(channels * filters, dim, 1)


class ConvStemEmbed(Tokeniser):
    """Three 3-D convolutions whose strides multiply to the patch: overlapping, non-linear tubelets on the same grid.

    It learns motion from few clips sooner than one linear kernel does (docs/results.md has the measurement). For clips
    of one frame (`still`) its kernels have no depth in time.
    Source: arXiv 2106.14881 (early convolutions), in space and time.
    """

    steps_apart = False

    def __init__(self, channels: int, dim: int, patch: Sequence[int], *, still: bool = False):
        super().__init__(channels, patch)
        widths = [channels if still else 2 * channels, max(dim // 4, 16), max(dim // 2, 32), dim]
        strides = list(zip(*(three_factors(size) for size in self.patch), strict=True))
        layers: list[nn.Module] = []
        for i, stride in enumerate(strides):
            kernel = [max(3, 2 * s - 1) for s in stride]
            kernel[0] = 1 if still else kernel[0]
            padding = tuple(k // 2 for k in kernel)
            layers += [nn.Conv3d(widths[i], widths[i + 1], triple(kernel, "kernel"), stride, padding)]
            layers += [nn.GroupNorm(1, widths[i + 1]), nn.GELU()] if i < 2 else []
        self.layers, self.still = nn.Sequential(*layers), still

    def tokens(self, clip: Tensor) -> Tensor:
        # Motion is a small change on a large and varying brightness: both are standardised, each channel by itself.
        pixels = F.group_norm(clip, self.channels)
        if not self.still:
            change = F.pad(clip[:, :, 1:] - clip[:, :, :-1], (0, 0, 0, 0, 1, 0))
            pixels = torch.cat([pixels, F.group_norm(change, self.channels)], 1)
        return super().tokens(pixels)


def three_factors(number: int) -> list[int]:
    """Three strides whose product is `number`, as even as its prime factors allow, the largest first."""
    factors, primes, prime = [1, 1, 1], list[int](), 2
    while number > 1:
        while number % prime:
            prime += 1
        primes.append(prime)
        number //= prime
    for prime in reversed(primes):
        factors[factors.index(min(factors))] *= prime
    return sorted(factors, reverse=True)
