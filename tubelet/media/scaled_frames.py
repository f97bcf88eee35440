"""Frames in memory, scaled as those of a file are."""

import numpy as np

from tubelet.media.decoder import MAX_PIXELS, VideoReformatter, av, upright_rgb
from tubelet.media.geometry import cover_size


def scale_frames(frames: np.ndarray, cover: tuple[int, int]) -> np.ndarray:
    """uint8 RGB `(T, H, W, 3)` -> `(T, H', W', 3)`, that just cover a (height, width) box; their aspect is kept.

    Raises: ValueError: they are so long and narrow that they would become too large.
    """
    _, tall, wide, _ = frames.shape
    height, width = size = cover_size(tall, wide, cover)
    if height * width > MAX_PIXELS:
        raise ValueError(
            f"frames of {wide}x{tall} px are so long that they would become {width}x{height}: crop them first"
        )
    reformatter = VideoReformatter()
    pictures = (av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24") for frame in frames)
    return np.stack([upright_rgb(picture, reformatter, size) for picture in pictures])
