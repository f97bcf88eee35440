"""The tokeniser of hybrid models: a ResNet sees each frame by itself, then tubelets of its feature map are projected.

Source: arXiv 2010.11929, section 3.1, "hybrid architecture"; the ResNet is that of arXiv 1912.11370, post-activated.
"""

from collections import OrderedDict
from collections.abc import Sequence
from math import ceil

import torch.nn.functional as F
from torch import Tensor, nn

from tubelet.nn.embed import Tokeniser
from tubelet.nn.grid import Grid

GROUPS = 32  # of every group norm
BOTTLENECK = 4  # a block works on a quarter of its width

# blocks of each stage; widths of the stem and of each stage
RESNETS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "resnet-stem": ((), (64,)),
    "resnet26": ((2, 2, 2, 2), (64, 256, 512, 1024, 2048)),
    "resnet50": ((3, 4, 9), (64, 256, 512, 1024)),
    "resnet50-32": ((3, 4, 6, 3), (64, 256, 512, 1024, 2048)),
}


def pad_same(maps: Tensor, kernel: int, stride: int) -> Tensor:
    """(B, C, H, W), padded with zeros so that windows `stride` apart number ceil(H / stride) x ceil(W / stride).

    An odd pixel of padding goes below and to the right: TensorFlow's "same", which moves with the parity of the size.
    """
    height, width = maps.shape[-2:]
    rows, columns = (max((ceil(size / stride) - 1) * stride + kernel - size, 0) for size in (height, width))
    return F.pad(maps, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))


class StandardisedConv(nn.Conv2d):
    """Convolution without bias whose filters are brought to mean 0 and variance 1; "same" padding.

    All frames of a batch pass together, so each filter is standardised once in a forward pass.
    Source: arXiv 1903.10520.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1):
        # At stride 1 "same" is symmetric and the convolution pads by itself, without a padded copy of its input.
        super().__init__(inputs, outputs, kernel, stride, padding=kernel // 2 if stride == 1 else 0, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        weight = F.layer_norm(self.weight, self.weight.shape[1:], eps=1e-8)
        if stride > 1 and kernel > 1:
            maps = pad_same(maps, kernel, stride)
        return F.conv2d(maps, weight, None, self.stride, self.padding)


def conv_norm(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    layers = {"conv": StandardisedConv(inputs, outputs, kernel, stride), "norm": nn.GroupNorm(GROUPS, outputs)}
    return nn.Sequential(OrderedDict(layers))


class Bottleneck(nn.Module):
    """Residual block, activated after its sum: (B, C, H, W) -> (B, width, ceil(H / stride), ceil(W / stride)).

    The `first` of a stage brings its shortcut to the new width and size.
    """

    def __init__(self, inputs: int, width: int, stride: int, *, first: bool):
        super().__init__()
        narrow = width // BOTTLENECK
        self.conv1, self.norm1 = StandardisedConv(inputs, narrow, 1), nn.GroupNorm(GROUPS, narrow)
        self.conv2, self.norm2 = StandardisedConv(narrow, narrow, 3, stride), nn.GroupNorm(GROUPS, narrow)
        self.conv3, self.norm3 = StandardisedConv(narrow, width, 1), nn.GroupNorm(GROUPS, width)
        self.downsample = conv_norm(inputs, width, 1, stride) if first else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(maps)))
        x = F.relu(self.norm2(self.conv2(x)))
        return F.relu(self.norm3(self.conv3(x)) + self.downsample(maps))


class ResNet(nn.Module):
    """Frames (B, C, H, W) -> maps (B, widths[-1], ceil(H / ratio), ceil(W / ratio)).

    The stem steps by 4 px; each stage but the first doubles that. `ratio`: px that a cell of the map steps over.
    """

    def __init__(self, channels: int, layers: Sequence[int], widths: Sequence[int]):
        super().__init__()
        self.stem = conv_norm(channels, widths[0], 7, 2)
        self.stages = nn.Sequential()
        self.ratio = 4
        for i, depth in enumerate(layers):
            stride = 1 if i == 0 else 2
            blocks = [Bottleneck(widths[i], widths[i + 1], stride, first=True)]
            blocks += [Bottleneck(widths[i + 1], widths[i + 1], 1, first=False) for _ in range(depth - 1)]
            self.stages.append(nn.Sequential(OrderedDict(blocks=nn.Sequential(*blocks))))
            self.ratio *= stride

    def forward(self, frames: Tensor) -> Tensor:
        x = F.relu(self.stem(frames))
        # Nothing lies below zero here, so padding with zeros never wins the maximum.
        return self.stages(F.max_pool2d(pad_same(x, 3, 2), 3, 2))


class ResNetEmbed(Tokeniser):
    """A ResNet on each frame, then a linear projection of each tubelet of its map, (B, C, T, H, W) -> (B, N, D), Grid.

    `patch` is what a token steps over, (frames, px, px): a multiple of the ResNet's own stride, `backbone.ratio`. A
    patch of just that stride takes frames of any height and width; the map then reaches beyond the frame's edge.
    The kernel `proj.weight` is (D, C', t, h, w), in cells of the map.

    Args:
        layers: blocks of each stage; () leaves the stem alone.
        widths: channels of the stem, then of each stage. `RESNETS` has both, by name.

    Raises:
        ValueError: layers, widths or a patch that make no such network.
    """

    def __init__(self, channels: int, dim: int, patch: Sequence[int], *, layers: Sequence[int], widths: Sequence[int]):
        super().__init__(channels, patch)
        check_resnet(layers, widths)
        self.backbone = ResNet(channels, layers, widths)
        ratio = self.backbone.ratio
        t, h, w = self.patch
        if h % ratio or w % ratio:
            raise ValueError(
                f"got patch={self.patch}, but a ResNet of {len(layers)} stages steps by {ratio} px: "
                f"give a height and a width that are multiples of {ratio}"
            )
        kernel = t, h // ratio, w // ratio
        self.proj = nn.Conv3d(widths[-1], dim, kernel, kernel)

    def grid(self, size: Sequence[int]) -> Grid:
        """The token grid of a clip of `size` = (T, H, W) frames and px.

        Raises:
            ValueError: the frames, or the cells of the map, are not filled by whole tokens.
        """
        tokens = []
        axes = zip("THW", self.filled_size(size), self.patch, self.proj.kernel_size, strict=True)
        for axis, length, patch, kernel in axes:
            cells = ceil(length * kernel / patch)  # a cell is patch / kernel frames or px
            if cells < kernel or cells % kernel:
                below = cells // kernel * patch
                sizes = f"{below} or {below + patch}" if below else f"{patch}"
                raise ValueError(
                    f"{axis} = {length} of the clip {tuple(size)} (T, H, W) is not filled by tokens of {self.patch} "
                    f"(frames, px, px): crop or resize it to {sizes}"
                )
            tokens.append(cells // kernel)
        return Grid(*tokens)

    def tokens(self, clip: Tensor) -> Tensor:
        maps = self.backbone(clip.transpose(1, 2).flatten(0, 1))
        maps = maps.unflatten(0, (clip.shape[0], clip.shape[2])).transpose(1, 2)
        return self.proj(maps).flatten(2).transpose(1, 2)


def check_resnet(layers: Sequence[int], widths: Sequence[int]) -> None:
    """Raises ValueError unless the widths fit the layers, and the groups of the norms fit the widths."""
    if len(widths) != len(layers) + 1 or min(layers, default=1) < 1:
        raise ValueError(
            f"got layers={tuple(layers)} and widths={tuple(widths)}, expected a width for the stem and one for each "
            "stage, and at least 1 block in a stage"
        )
    least = [GROUPS] + [GROUPS * BOTTLENECK] * len(layers)
    if any(width < 1 or width % multiple for width, multiple in zip(widths, least, strict=True)):
        raise ValueError(
            f"got widths={tuple(widths)}, expected a multiple of {GROUPS} for the stem and of {GROUPS * BOTTLENECK} "
            f"for a stage: each norm has {GROUPS} groups"
        )
