"""Data sets small enough to train on in a second, and the settings that go with them."""

import atexit
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from media_files import spoil_packets, write_numbered, write_sound

from tubelet.cli import main
from tubelet.data import health_cache
from tubelet.data.clip_spec import ClipSpec
from tubelet.media.reader import av
from tubelet.media.workers import Workers
from tubelet.media.writer import write_video
from tubelet.system.child import Child, end
from tubelet.train import TrainConfig

torch.set_num_threads(1)


class LastingWorkers(Workers):
    """Children that go on to the next data set: to start some for each of hundreds of trainings takes minutes."""

    lasting: ClassVar[list[Child]] = []

    def __init__(self) -> None:
        super().__init__()
        self.idle = self.lasting

    def __exit__(self, *error: object) -> None:
        pass


health_cache.Workers = LastingWorkers  # type: ignore[misc]
atexit.register(lambda: [end(child) for child in LastingWorkers.lasting])

HEIGHT_PX, WIDTH_PX = 32, 40
FRAMES, FRAMES_PER_SECOND = 8, 25
LEVELS = {"bright": 190, "dark": 60}  # of grey; one look tells the classes apart

# How small models see videos and sounds.
VIDEO = ClipSpec(
    frames=4, seconds_between_frames=0.08, resize=(32, 40), crop=(32, 32), mean=(0.4, 0.5, 0.6), std=(0.2,) * 3
)
SOUND = ClipSpec(
    kind="sound",
    channels="mel",
    frames=1,
    seconds_between_frames=0.01,
    resize=(16, 32),
    crop=(16, 32),
    mean=(-10.0,),
    std=(5.0,),
)

# A model of one layer of tokens in time, on clips of 4 frames: a step takes milliseconds.
TINY: dict[str, Any] = {
    "model": "vivit1-P/16x4",
    "frames": 4,
    "size": (32, 32),
    "epochs": 2,
    "batch": 4,
    "device": "cpu",
    "dtype": "float32",
    "workers": 1,
}
TINY_FLAGS = (
    *("--model", "vivit1-P/16x4", "--frames", "4", "--size", "32", "32", "--epochs", "2", "--batch", "4"),
    *("--device", "cpu", "--dtype", "float32", "--workers", "1"),
)


def tiny_config(data: Path, out: Path, **settings: Any) -> TrainConfig:
    return TrainConfig(data=data, out=out, **{**TINY, **settings})


def pictures(level: int, seed: Sequence[int], frames: int = FRAMES) -> np.ndarray:
    """Frames (T, H, W, 3) uint8 about a level of grey, each clip and each frame its own."""
    noise = np.random.default_rng(seed).integers(-40, 40, (frames, HEIGHT_PX // 8, WIDTH_PX // 8, 3))
    return (level + noise.repeat(8, axis=1).repeat(8, axis=2)).astype(np.uint8)


def write_videos(folder: Path, clips: int = 5, *, classes: Sequence[str] = tuple(LEVELS), first: int = 0) -> Path:
    """FOLDER/<class>/<number>.mp4, 8 frames at 25 a second."""
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(first, first + clips):
            frames = pictures(LEVELS.get(name, 100), [label, number])
            write_video(folder / name / f"{number}.mp4", frames, frames_per_second=FRAMES_PER_SECOND)
    return folder


def write_image(path: Path, picture: np.ndarray) -> None:
    with av.open(str(path), "w", format="image2", options={"update": "1"}) as container:
        stream = container.add_stream("png")
        stream.height, stream.width = picture.shape[:2]
        stream.pix_fmt = "rgb24"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode())


def write_images(folder: Path, images: int = 5) -> Path:
    for label, (name, level) in enumerate(LEVELS.items()):
        (folder / name).mkdir(parents=True)
        for number in range(images):
            write_image(folder / name / f"{number}.png", pictures(level, [label, number], frames=1)[0])
    return folder


def write_sounds(folder: Path, sounds: int = 5, *, seconds: float = 0.5) -> Path:
    for name, hertz in (("high", 2000), ("low", 300)):
        (folder / name).mkdir(parents=True)
        for number in range(sounds):
            times = np.arange(int(16000 * seconds)) / 16000
            tone = np.sin(2 * np.pi * (hertz + 20 * number) * times).astype(np.float32) / 2
            write_sound(folder / name / f"{number}.wav", tone, sample_rate=16000)
    return folder


def spoil(file: Path) -> None:
    """The file stays, its content is no longer a video."""
    file.write_bytes(b"nothing to see here" * 10)


def named(file: Path) -> bytes:
    """So that no two bad files are the same."""
    return "/".join(file.parts[-2:]).encode()


def first_picture_only(file: Path) -> None:
    """All frames but the first are damaged."""
    write_numbered(file, FRAMES, height=HEIGHT_PX, width=WIDTH_PX, codec="mjpeg", codec_options={})
    spoil_packets(file, range(1, FRAMES))
    file.write_bytes(file.read_bytes() + named(file))


def without_key_bias(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights but for the biases of attention's keys: softmax does not feel them, so their gradient is rounding alone,
    which AdamW makes large."""
    return {
        name: torch.cat([value.chunk(3)[0], value.chunk(3)[2]]) if name.endswith("qkv.bias") else value
        for name, value in weights.items()
    }


def command(*arguments: str | Path) -> int:
    """Runs `tubelet ARGUMENTS` in this process; returns the exit code."""
    before, sys.argv = sys.argv, ["tubelet", *map(str, arguments)]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = before
    return 0
