"""A video once more, quick to read anywhere: fewer pixels, key frames close together, each frame at its old time."""

import os
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from tubelet.media.address import absolute
from tubelet.media.decoder import av, open_media, upright_rgb, video_stream
from tubelet.media.reader import Index, index, nothing_before, open_frames, shown_size
from tubelet.media.timeline import pick_frames
from tubelet.media.writer import explain_errors, write_atomically

_X264 = {
    "preset": "veryfast",
    "tune": "fastdecode",  # a tenth more bytes, half the time to decode
    "bf": "0",  # no frame waits for a later one
    "threads": "1",
}
_MICROSECOND = Fraction(1, 1_000_000)


def shrink(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    short_side_px: int,
    gop_frames: int,
    crf: int,
    comment: str = "",
) -> None:
    """Writes the pictures of a video, upright, as H.264 in MP4, without sound; `out` appears when all is written.

    Frames keep their times and the last one its end; one that cannot be decoded is left out, so the one before it
    stays on screen, as in `read_frames`. Smaller videos are not enlarged. Sides are even.

    gop_frames: from one key frame to the next, at most. crf: x264's constant quality, 0 best to 51 worst. comment:
    written into the file; `read_comment` reads it.

    Raises:
        MediaError: the source cannot be read, from its first frame on.
        ValueError: it cannot be written.
    """
    found = index(source)
    size = shrunk_size(*shown_size(found, None), short_side_px)
    with open_media(found.path) as container:
        stream = video_stream(found.path, container, threads=1)
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        tick, ticks, end = _find_ticks(found, (stream.time_base, 1 / rate))
    options = {**_X264, "g": str(gop_frames), "crf": str(crf)}
    with write_atomically(out) as unfinished, explain_errors(out), av.open(unfinished, "w", format="mp4") as container:
        container.metadata["comment"] = comment
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.time_base = tick
        packets = _encode(stream, _pictures(found, ticks, size), tick)
        last = next(packets)
        for packet in packets:
            container.mux(last)
            last = packet
        last.duration = end - last.pts  # the muxer knows the others' from the next one's time
        container.mux(last)


def shrunk_size(height: int, width: int, short_side_px: int) -> tuple[int, int]:
    """(height, width) of the copy: the short side as wanted or as it is, both even as 4:2:0 wants them."""
    share = min(1.0, short_side_px / min(height, width))
    tall, wide = (max(2, min(2 * round(side * share / 2), side // 2 * 2)) for side in (height, width))
    return tall, wide


def read_comment(path: str | os.PathLike[str]) -> str:
    """The comment that `shrink` wrote into a file; "" for other files. Raises MediaError if it cannot be opened."""
    with open_media(absolute(path)) as container:
        return str(container.metadata.get("comment", ""))


def _find_ticks(found: Index, candidates: tuple[Fraction, ...]) -> tuple[Fraction, np.ndarray, int]:
    """A tick that the times of all frames are multiples of, the times in it, and the end of the last frame."""
    for tick in (*candidates, _MICROSECOND):
        steps = found.times / float(tick)
        ticks = np.round(steps).astype(np.int64)
        if tick == _MICROSECOND or np.abs(steps - ticks).max() < 1e-3:
            break
    return tick, ticks, max(round(found.duration_seconds / float(tick)), int(ticks[-1]) + 1)


def _pictures(found: Index, ticks: np.ndarray, size: tuple[int, int]) -> Iterator[tuple[int, np.ndarray]]:
    """(tick, uint8 (H, W, 3)) of all good frames; of frames at one time the last, which is the one that is seen."""
    reformatter = av.video.reformatter.VideoReformatter()
    wanted = np.flatnonzero(np.append(np.diff(ticks) > 0, True)).tolist()
    shown = -1
    with open_frames(found, threads=1) as (_, frames):
        for number, shown, frame in pick_frames(frames, wanted):
            if ticks[shown] == ticks[number]:  # else it is lost
                yield int(ticks[number]), upright_rgb(frame, reformatter, size)
    if shown < 0:
        raise nothing_before(found, 0)


def _encode(stream: Any, pictures: Iterator[tuple[int, np.ndarray]], tick: Fraction) -> Iterator[Any]:
    for ticks, picture in pictures:
        frame = av.VideoFrame.from_ndarray(picture).reformat(format="yuv420p")
        frame.pts, frame.time_base = ticks, tick
        yield from stream.encode(frame)
    yield from stream.encode()
