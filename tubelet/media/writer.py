"""From frames to a file: for the demonstration and the tests, not a general encoder."""

import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from tubelet.media.reader import MediaError, av

_QUALITY = {
    # one thread, and rounding the same on all processors: x264 gives other bytes each time without
    "libx264": {"preset": "veryfast", "threads": "1", "x264-params": "cpu-independent=1"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
}


def write_video(
    path: str | os.PathLike[str],
    frames: Iterable[np.ndarray],
    *,
    frames_per_second: float = 25,
    codec: str = "libx264",
    crf: int = 18,
    gop: int = 12,
    rotation_degrees: int = 0,
) -> None:
    """Writes uint8 RGB frames, `(T, H, W, 3)` or one `(H, W, 3)` after another, as a video; the suffix of the path
    names the container.

    crf: quality of codecs that know it (x264, VP9), 0 best to 51 worst. gop: frames from one key frame to the next, at
    most. rotation_degrees: a mark in the file, by which players (and `read_frames`) turn the picture anticlockwise.

    Raises: ValueError: there are no frames, one is not uint8 `(H, W, 3)` or not of the size of the first, a side is
    odd, or FFmpeg refuses.
    """
    pictures = iter(frames)
    first = np.asarray(next(pictures, None))
    if first.dtype != np.uint8 or first.ndim != 3 or first.shape[2] != 3:
        found = f"frames are {first.dtype} {first.shape} each" if first.ndim else "there are no frames"
        raise ValueError(f"{found}: write_video wants uint8 (T, H, W, 3) with T > 0")
    height, width = first.shape[:2]
    with explain_errors(path):
        pixel_format = (av.Codec(codec, "w").video_formats or [])[0].name
    if "420" in pixel_format and (height % 2 or width % 2):
        raise ValueError(f"frames are {height}x{width}: {pixel_format} wants even sides; crop or pad by one pixel")
    with write_atomically(path) as unfinished, explain_errors(path), av.open(unfinished, "w") as container:
        options = {"crf": str(crf), "g": str(gop), **_QUALITY.get(codec, {})}
        stream: Any = container.add_stream(
            codec, rate=Fraction(frames_per_second).limit_denominator(1001), options=options
        )
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        if rotation_degrees:
            stream.set_display_rotation(rotation_degrees)
        reformatter = av.video.reformatter.VideoReformatter()  # one for all: each has tables to make
        for picture in chain([first], pictures):
            if picture.shape != first.shape:
                raise ValueError(f"a frame is {picture.shape}, the first one {first.shape}: write_video wants one size")
            container.mux(stream.encode(reformatter.reformat(av.VideoFrame.from_ndarray(picture), format=pixel_format)))
        container.mux(stream.encode())


@contextmanager
def write_atomically(path: str | os.PathLike[str]) -> Iterator[str]:
    """Yields a name to write to; the file takes its own name when all is written, or never appears."""
    final = Path(os.path.abspath(path))
    unfinished = final.with_name(f".{uuid.uuid4().hex}{final.suffix}")  # the suffix names the container
    try:
        yield str(unfinished)
        os.replace(unfinished, final)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def explain_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raises ValueError for what FFmpeg does not write; a MediaError, of what is read meanwhile, passes."""
    try:
        yield
    except MediaError:
        raise
    except (av.FFmpegError, ValueError) as error:
        problem = f"FFmpeg cannot write it ({type(error).__name__}: {error})"
        raise ValueError(f"{path}: {problem}. Check the folder, the suffix and the codec") from error
