"""Tokens that see motion: where each square of a frame was in the frame before, beside pixels."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tubelet.nn.embed import ConvStemEmbed, Tokeniser

RADIUS = 3  # squares, around each, that are looked at in the frame before
LEAST_PX = 4  # from one square to the next
SHARPNESS = 10.0  # on cosines, before their softmax
LEAST_STD = 1e-3  # of a clip that is all but black
FLAT = 0.05  # the contrast below which squares are hardly told apart, in units of the clip's own
HIDDEN = 32  # channels of a frame of a token


class SelfSimilarityEmbed(Tokeniser):
    """A convolutional stem and, added to its tokens, what self-similarity tells: (B, C, T, H, W) -> (B, N, D), Grid.

    A square has about a quarter of a patch's side. It is known by the brightness in and around it, and compared with
    those around it in the frame before, by cosine; a softmax makes of that the chances of where it came from. Nothing
    up to here is learned, so nothing is computed backwards. Where tubelets are whole pairs of frames, every second
    frame is looked at: what moves is further apart there, and it is half the work. The b x b squares of one token and
    the (b + 2r) x (b + 2r) squares around them are one matrix product:

        frame before  . . . . . . .      this frame
                      . . . . . . .
                      . . + + + . .        + + +         b = 3, r = 2
                      . . + + + . .        + + +
                      . . + + + . .        + + +
                      . . . . . . .
                      . . . . . . .

    Source: arXiv 2102.07092 (self-similarity represents motion), arXiv 2007.09933 (from one frame to the next).
    """

    steps_apart = False

    def __init__(self, channels: int, dim: int, patch: Sequence[int]):
        super().__init__(channels, patch)
        self.stem = ConvStemEmbed(channels, dim, patch)
        self.cell = square_px(self.patch[1]), square_px(self.patch[2])
        squares = [patch // cell for patch, cell in zip(self.patch[1:], self.cell, strict=True)]
        around = [count + 2 * RADIUS for count in squares]
        self.squares, self.around = (squares[0], squares[1]), (around[0], around[1])
        self.read = nn.Linear(squares[0] * squares[1] * around[0] * around[1], HIDDEN)
        self.apart = 2 if self.patch[0] % 2 == 0 else 1
        self.mix = nn.Linear(HIDDEN * (self.patch[0] // self.apart), dim)

    def tokens(self, clip: Tensor) -> Tensor:
        motion = F.gelu(self.read(self.origins(clip[:, :, self.apart - 1 :: self.apart])))  # (B, T', h, w, HIDDEN)
        motion = motion.unflatten(1, (-1, self.patch[0] // self.apart)).movedim(2, -2).flatten(-2)
        return self.stem.tokens(clip) + self.mix(motion).flatten(1, 3)

    def origins(self, clip: Tensor) -> Tensor:
        """(B, C, T, H, W) -> the chances of where each square came from, (B, T, h, w, squares x those around)."""
        now = self.describe(clip)  # (B, T, d, h b, w b)
        before = torch.cat([now[:, :1], now[:, :-1]], 1)
        (bh, bw), (kh, kw) = self.squares, self.around
        ours = now.unflatten(-1, (-1, bw)).unflatten(-3, (-1, bh))  # (B, T, d, h, b, w, b)
        ours = ours.permute(0, 1, 3, 5, 4, 6, 2).flatten(4, 5)
        theirs = F.pad(before.flatten(0, 1), (RADIUS,) * 4).unfold(2, kh, bh).unfold(3, kw, bw)  # (B T, d, h, w, k, k)
        theirs = theirs.permute(0, 2, 3, 1, 4, 5).flatten(4).unflatten(0, (len(clip), -1))
        return (SHARPNESS * (ours @ theirs)).softmax(-1).flatten(-2)

    def describe(self, clip: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, T, d, H', W'): each square by the differences in brightness in and around it."""
        grey = clip.mean(1)  # (B, T, H, W)
        grey = (grey / grey.std((1, 2, 3), keepdim=True).clamp_min(LEAST_STD)).flatten(0, 1).unsqueeze(1)
        halves = [2 if cell % 2 == 0 else 1 for cell in self.cell]  # points along a square
        points = F.avg_pool2d(grey, [cell // half for cell, half in zip(self.cell, halves, strict=True)])
        rows = [size // half for size, half in zip(points.shape[2:], halves, strict=True)]
        points = F.pad(points, (1, 1, 1, 1), mode="replicate")
        around = F.unfold(points, (halves[0] + 2, halves[1] + 2), stride=(halves[0], halves[1]))  # (B T, d, squares)
        around = around - around.mean(1, keepdim=True)
        around = around / (around.square().sum(1, keepdim=True) + FLAT**2 * around.shape[1]).sqrt()
        return around.unflatten(2, rows).unflatten(0, (len(clip), -1))


def square_px(patch: int) -> int:
    """The side of a square: the smallest divisor of a patch's side that is 4 px or more, even where it can be."""
    divisors = [px for px in range(LEAST_PX, patch + 1) if patch % px == 0]
    return next((px for px in divisors if px % 2 == 0), divisors[0] if divisors else patch)
