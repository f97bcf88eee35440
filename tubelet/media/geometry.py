"""The scaling of a picture to cover a box, and its turn for display: whole numbers only, so every machine agrees."""

from typing import NamedTuple

import numpy as np


class Turn(NamedTuple):
    """A quarter turn, mirrored or not: rows become columns, then each axis runs forward (1) or backward (-1)."""

    swapped: bool = False
    rows: int = 1
    columns: int = 1

    def turn_size(self, height: int, width: int) -> tuple[int, int]:
        return (width, height) if self.swapped else (height, width)

    def turn_picture(self, picture: np.ndarray) -> np.ndarray:
        """`(H, W, 3)` -> the same picture as displayed, `(H, W, 3)` or `(W, H, 3)`; a view."""
        return (picture.swapaxes(0, 1) if self.swapped else picture)[:: self.rows, :: self.columns]


def turn(matrix: np.ndarray) -> Turn:
    """Reads a display matrix, nine integers: a b u, c d v, x y w; angles between are rounded to a quarter turn.

    A pixel at column x, row y is displayed at column a x + c y, row b x + d y (then moved back into view).
    """
    a, b, _, c, d = (int(entry) for entry in matrix[:5])
    swapped = abs(b) + abs(c) > abs(a) + abs(d)
    along_columns, along_rows = (c, b) if swapped else (a, d)
    return Turn(swapped, -1 if along_rows < 0 else 1, -1 if along_columns < 0 else 1)


def cover_size(height: int, width: int, box: tuple[int, int]) -> tuple[int, int]:
    """Returns the (height, width) in the same aspect that just covers the box: one side equal, the other not less.

        +--+------+--+
        |  | box  |  |    a wide picture: the height is the box's, the width sticks out
        +--+------+--+

    Raises: ValueError: a side below one pixel.
    """
    tall, wide = box
    if min(height, width, tall, wide) < 1:
        raise ValueError(f"cannot cover {tall}x{wide} with {height}x{width}: every side must be at least one pixel")
    if tall * width >= wide * height:
        return tall, (2 * width * tall + height) // (2 * height)  # rounded half up
    return (2 * height * wide + width) // (2 * width), wide
