"""From frames to a file: for the demonstration and the tests, not a general encoder."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from tubelet.media.reader import MediaError, av

_QUALITY = {"libx264": {"preset": "veryfast", "threads": "1"}, "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"}}


def write_video(
    path: str | os.PathLike[str],
    frames: np.ndarray,
    *,
    frames_per_second: float = 25,
    codec: str = "libx264",
    crf: int = 18,
    gop: int = 12,
    rotation_degrees: int = 0,
) -> None:
    """Writes uint8 RGB frames, `(T, H, W, 3)`, as a video; the suffix of the path names the container.

    crf: quality of codecs that know it (x264, VP9), 0 best to 51 worst. gop: frames from one key frame to the next, at
    most. rotation_degrees: a mark in the file, by which players (and `read_frames`) turn the picture anticlockwise.

    Raises: ValueError: the frames are not `(T, H, W, 3)` uint8 with T > 0, have an odd side, or FFmpeg refuses.
    """
    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or len(frames) == 0:
        raise ValueError(f"frames are {frames.dtype} {frames.shape}: write_video wants uint8 (T, H, W, 3) with T > 0")
    height, width = frames.shape[1:3]
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
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture).reformat(format=pixel_format)))
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
