"""Videos that say which frame is which: the frame's number is drawn into it as ten black or white blocks.

+---+---+---+---+---+
| 0 | 1 | 2 | 3 | 4 |    block k is white where bit k of the number is set
+---+---+---+---+---+
| 5 | 6 | 7 | 8 | 9 |
+---+---+---+---+---+
"""

import wave
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from tubelet.media.reader import av

ROWS, COLUMNS = 2, 5
BLACK, WHITE = 30, 225


def numbered_frames(count: int, height: int = 48, width: int = 80, *, first: int = 0) -> np.ndarray:
    """Returns uint8 `(count, height, width, 3)`, frame i shows the number `first + i` (below 1024)."""
    bits = (np.arange(first, first + count)[:, None] >> np.arange(ROWS * COLUMNS)) & 1
    blocks = np.where(bits, WHITE, BLACK).astype(np.uint8).reshape(count, ROWS, COLUMNS)
    rows = np.arange(height) * ROWS // height
    columns = np.arange(width) * COLUMNS // width
    return np.repeat(blocks[:, rows][:, :, columns, None], 3, axis=3)


def read_number(frame: np.ndarray) -> int:
    """Reads the number from a frame `(H, W, 3)` of any size, upright and whole."""
    height, width = frame.shape[:2]
    rows = ((np.arange(ROWS) + 0.5) * height / ROWS).astype(int)
    columns = ((np.arange(COLUMNS) + 0.5) * width / COLUMNS).astype(int)
    bits = frame[rows][:, columns].mean(axis=2).reshape(-1) > (BLACK + WHITE) / 2
    return int((bits << np.arange(ROWS * COLUMNS)).sum())


def read_numbers(frames: np.ndarray) -> list[int]:
    return [read_number(frame) for frame in frames]


def write_numbered(
    path: str | Path,
    count: int = 40,
    *,
    height: int = 48,
    width: int = 80,
    codec: str = "libx264",
    codec_options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    frames_per_second: int = 25,
    ticks: Sequence[int] | None = None,
    tick_seconds: Fraction | None = None,
    turn: tuple[int, bool] | None = None,
    sound_hz: float | None = None,
) -> Path:
    """Writes a numbered video, by default with B-frames and a key frame every twelve.

    Args:
        ticks, tick_seconds: presentation time of each frame, for variable frame rates.
        turn: (degrees anticlockwise, mirrored left to right) to be marked in the file.
        sound_hz: adds a sound track with this tone, as long as the video.
    """
    options = {"g": "12", "bf": "2", "threads": "1"} if codec_options is None else codec_options
    if codec == "libx264":
        options = {"preset": "veryfast", **options}
    with av.open(str(path), "w", container_options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=frames_per_second, options=options)
        stream.width, stream.height = width, height
        stream.pix_fmt = av.Codec(codec, "w").video_formats[0].name
        if tick_seconds is not None:
            stream.codec_context.time_base = tick_seconds
        if turn is not None:
            stream.set_display_rotation(turn[0], hflip=turn[1])
        tone = None if sound_hz is None else container.add_stream("aac", rate=16000, layout="mono")
        for number, picture in enumerate(numbered_frames(count, height, width)):
            frame = av.VideoFrame.from_ndarray(picture).reformat(format=stream.pix_fmt)
            frame.pts = number if ticks is None else ticks[number]
            if tick_seconds is not None:
                frame.time_base = tick_seconds
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if tone is not None:
            samples = np.sin(2 * np.pi * sound_hz * np.arange(16000 * count // frames_per_second) / 16000) / 2
            frame = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), format="fltp", layout="mono")
            frame.sample_rate = 16000
            container.mux(tone.encode(frame))
            container.mux(tone.encode())
    return Path(path)


def spoil_packets(path: Path, numbers: Sequence[int]) -> None:
    """Writes zeroes over packets, counted in the order of the file; each packet of Motion JPEG is a picture."""
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for place, size in (places[number] for number in numbers):
        data[place : place + size] = bytes(size)
    path.write_bytes(data)


def write_sound(path: Path, samples: np.ndarray, *, sample_rate: int) -> None:
    """Mono sound, `(samples,)` in [-1, 1], as 16-bit WAV."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(np.round(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
