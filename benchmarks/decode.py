"""Sixteen frames, spread evenly over a file: ours against other readers, one thread each, every frame checked.

    python -m venv ../peers
    ../peers/bin/pip install -c constraints.txt torch torchcodec==0.13.0 av opencv-python-headless decord2
    python benchmarks/decode.py --peers ../peers/bin/python > table.md

The files are made here with x264: a picture that pans over fine texture with some noise, and in each frame its number,
drawn as twelve black or white blocks. Each system reads in a process of its own; they take turns, file by file, and the
table gives the median of the wall time, with processor time beside it, from a file's name to sixteen pictures, uint8
RGB of the size they are stored in. Every turn opens the file anew; only "ours, again" has met it before, as every epoch
but the first has. A frame is wrong if it shows another number than the one asked for.

torchcodec wants FFmpeg's libraries; where there are none, those that PyAV's wheel brings do: LIBRARIES below makes them
known to it, so that both decode with the very same code. docs/prepare.md has the outcome.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from math import nan
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

import numpy as np

BITS = 12
BLACK, WHITE = 30, 225
FRAMES_PER_SECOND = 30
WANTED = 16
FFMPEG = {"avutil": 60, "avcodec": 62, "avformat": 62, "avdevice": 62, "avfilter": 11, "swscale": 9, "swresample": 6}

# height, width, seconds, frames from key frame to key frame, B-frames in a row
FILES = [
    *((256, 340, seconds, gop, b) for seconds in (10, 60) for gop in (12, 250) for b in (0, 3)),
    *((1080, 1920, seconds, 250, b) for seconds in (10, 30) for b in (0, 3)),
]


# The files


def make_file(path: Path, height: int, width: int, seconds: int, gop: int, b_frames: int) -> None:
    """Writes a numbered video, unless it is there."""
    import av

    if path.exists():
        return
    options = {"preset": "veryfast", "crf": "23", "g": str(gop), "bf": str(b_frames), "threads": "1"}
    with av.open(str(path.with_suffix(".part")), "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for picture in panned(height, width, seconds * FRAMES_PER_SECOND):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="yuv420p")))
        container.mux(stream.encode())
    path.with_suffix(".part").rename(path)


def panned(height: int, width: int, count: int) -> Iterator[np.ndarray]:
    """Yields YUV 4:2:0 pictures `(H * 3 / 2, W)`."""
    rng = np.random.default_rng(0)
    fine, coarse, colour = (texture(height + 400, width + 400, cell, rng) for cell in (8, 64, 96))
    luma, chroma = fine // 2 + coarse // 2, colour // 4 + 96
    noise = rng.normal(0, 2, (8, height, width)).round().astype(np.int16)
    for number in range(count):
        seconds = number / FRAMES_PER_SECOND
        left, top = int(200 + 190 * np.sin(0.9 * seconds)), int(200 + 190 * np.cos(0.6 * seconds))
        y = np.clip(luma[top : top + height, left : left + width] + noise[number % 8], 16, 235).astype(np.uint8)
        draw_number(y, number)
        u = chroma[top // 2 : top // 2 + height // 2, left // 2 : left // 2 + width // 2]
        yield np.concatenate([plane.reshape(-1, width) for plane in (y, u, 255 - u)])


def texture(height: int, width: int, cell: int, rng: np.random.Generator) -> np.ndarray:
    import av

    few = av.VideoFrame.from_ndarray(rng.integers(0, 256, (height // cell, width // cell), dtype=np.uint8), "gray")
    return few.reformat(width, height, interpolation="BICUBIC").to_ndarray().astype(np.uint8)


def draw_number(luma: np.ndarray, number: int) -> None:
    """Draws into the top of a picture (H, W)."""
    height, width = luma.shape
    for bit in range(BITS):
        value = WHITE if number >> bit & 1 else BLACK
        luma[: height // 12, bit * width // BITS : (bit + 1) * width // BITS] = value


def read_number(picture: np.ndarray) -> int:
    """From a picture (H, W, 3)."""
    columns = ((np.arange(BITS) + 0.5) * picture.shape[1] / BITS).astype(int)
    bits = picture[picture.shape[0] // 24, columns].mean(axis=1) > (BLACK + WHITE) / 2
    return int((bits << np.arange(BITS)).sum())


# The systems: (path, numbers of the frames) -> uint8 (T, H, W, 3)


def ours(path: str, numbers: list[int]) -> np.ndarray:
    from tubelet.media import index_cache

    index_cache.forget()
    return ours_again(path, numbers)


def ours_again(path: str, numbers: list[int]) -> np.ndarray:
    from tubelet.media.reader import read_frames

    return read_frames(path, np.array(numbers) / FRAMES_PER_SECOND)


def pyav_as_hf(path: str, numbers: list[int]) -> np.ndarray:
    """As in the examples of Hugging Face: decode from the start, keep what is wanted, stop after the last."""
    import av

    pictures = []
    with av.open(path) as container:
        container.streams.video[0].codec_context.thread_count = 1
        for number, frame in enumerate(container.decode(video=0)):
            if number > numbers[-1]:
                break
            if number in numbers:
                pictures.append(frame)
        return np.stack([frame.to_ndarray(format="rgb24") for frame in pictures])


def opencv_grab(path: str, numbers: list[int]) -> np.ndarray:
    """From the start; only wanted frames are converted."""
    import cv2

    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    pictures = []
    for number in range(numbers[-1] + 1):
        capture.grab()
        if number in numbers:
            pictures.append(cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB))
    capture.release()
    return np.stack(pictures)


def opencv_seek(path: str, numbers: list[int]) -> np.ndarray:
    import cv2

    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    pictures = []
    for number in numbers:
        capture.set(cv2.CAP_PROP_POS_FRAMES, number)
        pictures.append(cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB))
    capture.release()
    return np.stack(pictures)


def decord(path: str, numbers: list[int]) -> np.ndarray:
    from decord import VideoReader

    return VideoReader(path, num_threads=1).get_batch(numbers).asnumpy()


def torchcodec(path: str, numbers: list[int], seek_mode: str = "exact") -> np.ndarray:
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(path, num_ffmpeg_threads=1, dimension_order="NHWC", seek_mode=seek_mode)
    return decoder.get_frames_at(numbers).data.numpy()


def torchcodec_approximate(path: str, numbers: list[int]) -> np.ndarray:
    return torchcodec(path, numbers, "approximate")


OURS: list[Callable] = [ours, ours_again]
PEERS: list[Callable] = [
    pyav_as_hf,
    opencv_grab,
    opencv_seek,
    decord,
    torchcodec,
    torchcodec_approximate,
]


# Turns


def work(name: str) -> None:
    """In a process of a system: a line "path number number ..." in, a line of JSON out."""
    read = next(system for system in OURS + PEERS if system.__name__ == name)
    if "torch" in name:
        import torch

        torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w")  # libraries may write to standard output
    os.dup2(2, 1)
    for line in sys.stdin:
        path, *numbers = json.loads(line)
        try:
            begun, begun_cpu = time.perf_counter(), time.process_time()
            pictures = read(path, numbers)
            seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - begun_cpu
            wrong = sum(read_number(picture) != number for picture, number in zip(pictures, numbers, strict=True))
            answer = {"ms": 1000 * seconds, "cpu_ms": 1000 * cpu_seconds, "wrong": wrong}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"}
        print(json.dumps(answer), file=answers, flush=True)


def libraries_for(python: str, folder: Path) -> dict[str, str]:
    """Environment variables under which torchcodec finds the FFmpeg libraries of PyAV's wheel."""
    program = "import av, pathlib; print(pathlib.Path(av.__file__).parent.parent / 'av.libs')"
    bundled = Path(subprocess.run([python, "-c", program], capture_output=True, text=True, check=True).stdout.strip())
    for name, version in FFMPEG.items():
        for library in bundled.glob(f"lib{name}-*.so.{version}.*"):
            (folder / f"lib{name}.so.{version}").symlink_to(library)
    return {**os.environ, "LD_LIBRARY_PATH": f"{folder}:{bundled}"}


def start(system: Callable, python: str, environment: dict[str, str]) -> subprocess.Popen:
    command = [python, __file__, "--worker", system.__name__]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )


def ask(worker: subprocess.Popen, path: Path, numbers: list[int]) -> dict[str, Any]:
    assert worker.stdin is not None
    assert worker.stdout is not None
    print(json.dumps([str(path), *numbers]), file=worker.stdin, flush=True)
    line = worker.stdout.readline()
    return json.loads(line) if line else {"error": "the process ended"}


def measure(workers: dict[str, subprocess.Popen], path: Path, count: int, turns: int) -> dict[str, dict[str, Any]]:
    """Median times of each system, after one turn that does not count."""
    numbers = np.linspace(0, count - 1, WANTED).round().astype(int).tolist()
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in workers}
    for _ in range(turns + 1):
        for name, worker in workers.items():
            answers[name].append(ask(worker, path, numbers))
    result = {}
    for name, all_turns in answers.items():
        failed = next((answer for answer in all_turns if "error" in answer), None)
        result[name] = failed or {
            **{key: median(answer[key] for answer in all_turns[1:]) for key in ("ms", "cpu_ms")},
            "wrong": max(answer["wrong"] for answer in all_turns),
        }
    return result


def print_table(results: dict[str, dict[str, dict[str, Any]]], key: str) -> None:
    """One row a file, and ratios to the example of Hugging Face and to the best of the others that is all right."""
    systems = list(dict.fromkeys(name for row in results.values() for name in row))
    ratios = ["HF / ours", "best / ours", "HF / again", "best / again"]
    print(f"| file | {' | '.join(name.replace('_', ' ') for name in systems)} | {' | '.join(ratios)} |")
    print("|---" * (len(systems) + len(ratios) + 1) + "|")
    columns: list[list[float]] = [[] for _ in ratios]
    for file, row in results.items():
        right = {name: figures[key] for name, figures in row.items() if not figures.get("wrong", 1)}
        others = {name: value for name, value in right.items() if not name.startswith("ours")}
        peers = [others.get("pyav_as_hf", nan), min(others.values(), default=nan)]
        found = [peer / right[name] for name in ("ours", "ours_again") for peer in peers]
        for column, ratio in zip(columns, found, strict=True):
            column.append(ratio)
        cells = [cell(row[name], key) if name in row else "" for name in systems]
        print(f"| {file} | {' | '.join(cells)} | {' | '.join(f'{ratio:.2f}' for ratio in found)} |")
    means = [f"{geometric_mean(column):.2f}" for column in columns]
    print(f"| geometric mean |{' |' * len(systems)} {' | '.join(means)} |", flush=True)


def cell(figures: dict[str, Any], key: str) -> str:
    if "error" in figures:
        return "failed"
    return f"{figures[key]:.0f}" + (f" ({figures['wrong']} wrong)" if figures["wrong"] else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", help="interpreter of an environment with the other readers")
    parser.add_argument("--files", type=Path, help="folder to keep the files in")
    parser.add_argument("--only", default="", help="part of the names of the files to read")
    parser.add_argument("--without", nargs="*", default=[], help="systems to leave out, such as opencv_seek")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker)
        return
    with contextlib.ExitStack() as stack:
        folder = arguments.files or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        workers = {system.__name__: start(system, sys.executable, dict(os.environ)) for system in OURS}
        if arguments.peers:
            environment = libraries_for(arguments.peers, Path(stack.enter_context(tempfile.TemporaryDirectory())))
            peers = [system for system in PEERS if system.__name__ not in arguments.without]
            workers |= {system.__name__: start(system, arguments.peers, environment) for system in peers}
        results = {}
        for height, width, seconds, gop, b_frames in FILES:
            path = folder / f"{height}p_{seconds}s_gop{gop}_b{b_frames}.mp4"
            if arguments.only not in path.name:
                continue
            make_file(path, height, width, seconds, gop, b_frames)
            results[path.stem] = measure(workers, path, seconds * FRAMES_PER_SECOND, arguments.turns)
            print(json.dumps({path.stem: results[path.stem]}), file=sys.stderr, flush=True)
        for worker in workers.values():
            assert worker.stdin is not None
            worker.stdin.close()
            worker.wait()
    for key, title in (("ms", "wall time, ms"), ("cpu_ms", "processor time, ms")):
        print(f"\n{title}\n")
        print_table(results, key)


if __name__ == "__main__":
    main()
