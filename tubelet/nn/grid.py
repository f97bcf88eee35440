"""The token grid: the one value that travels beside the tokens."""

from collections.abc import Sequence
from typing import NamedTuple


class Grid(NamedTuple):
    """Size of a token grid. Tokens lie in t, then h, then w order.

    For an image t is 1; for a spectrogram t is 1, h counts mel bins and w time steps, both in patches.
    """

    t: int
    h: int
    w: int

    @property
    def size(self) -> int:
        """Number of tokens, N."""
        return self.t * self.h * self.w

    def along(self, axes: str) -> "Grid":
        """The grid of one sequence that spans `axes` ("thw", "hw" or "t"): the other axes become 1."""
        return Grid(*(size if axis in axes else 1 for axis, size in zip("thw", self, strict=True)))

    def across(self, axes: str) -> "Grid":
        """The grid of the sequences that span `axes`, one beside another: those axes become 1."""
        return self.along("".join(axis for axis in "thw" if axis not in axes))


AXES = ("thw", "hw", "t")

Size3 = tuple[int, int, int]


def triple(size: Sequence[int], what: str) -> Size3:
    """Three sizes along T, H, W. Raises ValueError, with `what` they are, unless they are three of at least 1."""
    if len(size) != 3 or min(size) < 1:
        raise ValueError(
            f"got {what}={tuple(size)}, expected (T, H, W): frames, height and width in px, each at least 1"
        )
    t, h, w = size
    return int(t), int(h), int(w)


def token_grid(clip: Sequence[int], patch: Sequence[int], stride: Sequence[int]) -> Grid:
    """Grid of the tubelets of size `patch`, `stride` apart, in a clip of `clip` = (T, H, W) frames and pixels.

    Overlapping tubelets (stride < patch) may leave less than one stride uncovered at the end, as in AST;
    others must fill the clip exactly.

    Raises:
        ValueError: an axis is smaller than one tubelet, or is not filled by whole tubelets.
    """
    for axis, size, p, s in zip("THW", clip, patch, stride, strict=True):
        if size < p:
            raise ValueError(
                f"{axis} = {size} of the clip {tuple(clip)} (T, H, W) is smaller than the tubelet {tuple(patch)}: "
                f"give at least {p}, or choose a model with a smaller patch"
            )
        if s >= p and (size - p) % s:
            below = p + (size - p) // s * s
            raise ValueError(
                f"{axis} = {size} of the clip {tuple(clip)} (T, H, W) is not filled by tubelets {tuple(patch)} "
                f"{tuple(stride)} apart: crop or resize it to {below} or {below + s}"
            )
    return Grid(*((size - p) // s + 1 for size, p, s in zip(clip, patch, stride, strict=True)))


def fill(clip: Sequence[int], patch: Sequence[int], stride: Sequence[int]) -> Size3:
    """The (T, H, W), at least `clip`, that tubelets of size `patch`, `stride` apart, fill to the end.

    No tubelet lies wholly beyond the clip. So where tubelets stand apart (stride > patch) and the clip ends in the gap
    after one, the size is that up to the gap: no tubelet sees what is left out.
    """
    axes = zip(clip, patch, stride, strict=True)
    t, h, w = (p + max(0, -(-(size - max(p, s)) // s)) * s for size, p, s in axes)
    return t, h, w
