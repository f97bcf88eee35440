"""From a file, a pipe or saved codes to what is pushed into the streamer, block by block, made ahead of the model."""

import sys
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue
from threading import Event, Thread
from typing import BinaryIO, TypeVar

import numpy as np
import torch
from torch import Tensor

from tubelet.data.clip_spec import ClipSpec
from tubelet.data.clips import check_kind, crop, to_channels
from tubelet.media.reader import MediaError, index
from tubelet.media.sequential import Picture, frames_in_order, pictures_within, raw_frames_in_order
from tubelet.stream.config import StreamConfig, parse_size

Block = TypeVar("Block")
BLOCKS_AHEAD = 2  # made and not yet taken
GIVE_UP_SECONDS = 1.0  # a thread that waits for a pipe is left to itself


@dataclass
class Footage:
    """A video on its way to the model.

    Attributes:
        words: what it is, for people.
        blocks: uint8 clips (C, T, H, W), or codes (t, D) where `encoded`.
        frames: how many there will be, in all blocks (codes: how many steps); None where nobody knows.
        damaged: the seconds at which the last good picture stands in for a damaged one, as far as blocks were taken.
    """

    words: str
    blocks: Iterable[Tensor]
    frames: int | None
    encoded: bool = False
    damaged: list[float] = field(default_factory=list)


def from_file(path: str | Path, spec: ClipSpec, *, block_frames: int, threads: int) -> Footage:
    """Raises MediaError where the file cannot be opened or is no video."""
    check_kind(path, spec.kind)
    found, spacing = index(path), spec.seconds_between_frames
    pictures = frames_in_order(path, seconds_between_frames=spacing, cover=spec.resize, threads=threads)
    rate = (len(found.times) - 1) / found.times[-1] if len(found.times) > 1 else 0.0
    words = f"{found.width}x{found.height}, {rate:.3g} frames a second"
    count = pictures_within(found.duration_seconds, seconds_between_frames=spacing)
    return from_pictures(pictures, spec, words=words, block_frames=block_frames, frames=count)


def from_pipe(pipe: BinaryIO, spec: ClipSpec, config: StreamConfig, *, block_frames: int) -> Footage:
    """Raw frames of the size, rate and layout of the settings; see `raw_frames_in_order`."""
    pictures = raw_frames_in_order(
        pipe,
        size=parse_size(config.size or ""),
        frames_per_second=config.fps or 0.0,
        pixel_format=config.pixel_format,
        seconds_between_frames=spec.seconds_between_frames,
        cover=spec.resize,
    )
    words = f"{config.size} {config.pixel_format}, {config.fps:g} frames a second, from standard input"
    return from_pictures(pictures, spec, words=words, block_frames=block_frames, frames=None)


def open_pipe(spec: ClipSpec, config: StreamConfig, *, block_frames: int) -> Footage:
    """Raw frames on standard input; see `from_pipe`. Raises ValueError where there is a terminal."""
    if sys.stdin is None or sys.stdin.isatty():
        raise ValueError(
            "standard input is a terminal: pipe raw frames into it, such as those that "
            "`ffmpeg -i a.mp4 -f rawvideo -pix_fmt rgb24 -` writes"
        )
    # not `sys.stdin.buffer`: its lock, held by a thread that waits for a silent pipe, aborts the interpreter at its end
    return from_pipe(
        open(sys.stdin.fileno(), "rb", buffering=0, closefd=False), spec, config, block_frames=block_frames
    )


def from_pictures(
    pictures: Iterator[Picture], spec: ClipSpec, *, words: str, block_frames: int, frames: int | None
) -> Footage:
    footage = Footage(words, (), frames)
    crops = read_ahead(crop_blocks(pictures, spec, block_frames, footage.damaged))
    footage.blocks = (to_channels(torch.from_numpy(block).permute(3, 0, 1, 2), spec) for block in crops)
    return footage


def crop_blocks(
    pictures: Iterator[Picture], spec: ClipSpec, block_frames: int, damaged: list[float]
) -> Generator[np.ndarray, None, None]:
    """uint8 (T, H, W, 3), T = block_frames but for the last block; an error comes after all that came before it."""
    held: list[np.ndarray] = []
    try:
        for picture in pictures:
            view = crop(torch.from_numpy(picture.pixels).permute(2, 0, 1), spec.crop)
            held.append(view.permute(1, 2, 0).numpy())
            if picture.damaged:
                damaged.append(picture.seconds)
            if len(held) == block_frames:
                yield np.stack(held)
                held = []
    except MediaError:
        if held:
            yield np.stack(held)
        raise
    if held:
        yield np.stack(held)


def read_ahead(blocks: Generator[Block, None, None]) -> Iterator[Block]:
    """The same blocks, made by a thread of its own while those before are worked on; a few at most lie waiting.

    An error comes where its block would have stood. Closing the iterator stops the thread after the block it is at.
    """
    queue: Queue[Block | BaseException | None] = Queue(BLOCKS_AHEAD)  # None at the end
    stop = Event()

    def work() -> None:
        end: BaseException | None = None
        try:
            with closing(blocks):
                for block in blocks:
                    queue.put(block)
                    if stop.is_set():
                        return
        except BaseException as failure:
            end = failure
        queue.put(end)

    thread = Thread(target=work, name="tubelet-stream", daemon=True)
    thread.start()
    try:
        while (block := queue.get()) is not None:
            if isinstance(block, BaseException):
                raise block
            yield block
    finally:
        stop.set()
        with suppress(Empty):
            while True:
                queue.get_nowait()  # room for the block that the thread is at
        thread.join(GIVE_UP_SECONDS)
