"""The bytes and requests that a clip of a file elsewhere costs, counted at an HTTP server on this machine.

    python benchmarks/remote.py

A video of 60 s with sound, a key frame a second, is looked at quickly in a child process, as before a training, and a
clip of 2.5 s is decoded from its middle. Needed are the table of contents, the first picture, and the groups of
pictures of the clip with the sound between them.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from file_server import serve  # noqa: E402

from tubelet.media.reader import av, read_frames  # noqa: E402
from tubelet.media.workers import Workers  # noqa: E402

SECONDS, RATE, HEIGHT, WIDTH = 60, 25, 240, 320
TIMES = 30.3 + np.arange(16) * 2.5 / 16
KINDS: dict[str, tuple[str, dict[str, str]]] = {
    "MP4, table of contents first": (".mp4", {"movflags": "faststart"}),
    "MP4, table of contents last": (".mp4", {}),
    "MP4 in fragments": (".mp4", {"movflags": "frag_keyframe+empty_moov"}),
    "Matroska": (".mkv", {}),
}


def write(file: Path, options: dict[str, str]) -> None:
    """Blobs that wander over noise that stays, so that a frame takes about what one of a camera does."""
    rng = np.random.default_rng(0)
    still = rng.integers(0, 80, (HEIGHT, WIDTH, 3), np.uint8)
    coded = {"preset": "veryfast", "crf": "20", "g": str(RATE), "threads": "1"}
    with av.open(str(file), "w", container_options=options) as container:
        video: Any = container.add_stream("libx264", rate=RATE, options=coded)
        video.height, video.width, video.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        sound: Any = container.add_stream("aac", rate=16000, layout="mono")
        for number in range(SECONDS * RATE):
            picture = still.copy()
            top, left = (number * 3) % (HEIGHT - 80), (number * 5) % (WIDTH - 80)
            picture[top : top + 80, left : left + 80] += rng.integers(0, 120, (80, 80, 3), np.uint8)
            frame = av.VideoFrame.from_ndarray(picture).reformat(format="yuv420p")
            frame.pts = number
            container.mux(video.encode(frame))
            noise = rng.normal(0, 0.1, (1, 640)).astype(np.float32)
            heard = av.AudioFrame.from_ndarray(noise, format="fltp", layout="mono")
            heard.sample_rate, heard.pts = 16000, 640 * number
            container.mux(sound.encode(heard))
        container.mux(video.encode())
        container.mux(sound.encode())


def count_needed(file: Path) -> int:
    with av.open(str(file)) as container:
        packets = [
            (p.stream.type, float(p.pts * p.time_base), p.is_keyframe, p.size) for p in container.demux() if p.size
        ]
    table = file.stat().st_size - sum(size for *_, size in packets)
    keys = [time for kind, time, is_key, _ in packets if kind == "video" and is_key]
    since, until = max(t for t in keys if t <= TIMES[0]), min([t for t in keys if t > TIMES[-1]], default=SECONDS)
    return table + packets[0][3] + sum(size for _, time, _, size in packets if since <= time < until)


def main() -> None:
    print("| file | bytes | needed | fetched | of what is needed | requests |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, serve() as server, Workers() as workers:
        for number, (kind, (suffix, options)) in enumerate(KINDS.items()):
            file = Path(folder) / f"{number}{suffix}"
            write(file, options)
            server.files[f"/{file.name}"] = file.read_bytes()
            address = f"{server.url}/{file.name}"
            assert workers.examine(address, quick=True).ok
            assert np.array_equal(read_frames(address, TIMES), read_frames(file, TIMES))
            size, needed, sent = file.stat().st_size, count_needed(file), server.sent(f"/{file.name}")
            cells = (f"{size:,}", f"{needed:,}", f"{sent:,}", f"{sent / needed:.2f}", server.requests(f"/{file.name}"))
            print(f"| {kind} | {' | '.join(map(str, cells))} |")


if __name__ == "__main__":
    main()
