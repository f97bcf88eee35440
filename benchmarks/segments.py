"""What `--task segments` reaches on videos with known truth, and what it costs.

python benchmarks/segments.py suite    a training with default settings on rendered videos; scenes never seen before
python benchmarks/segments.py weak     labels without times, beside the same videos with times
python benchmarks/segments.py head     the pyramid alone, from the features of ten hours
python benchmarks/segments.py hour     one hour of video through `tubelet stream`: speed and memory
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tubelet.synthetic.untrimmed import render_untrimmed

SUITE, WEAK = (20, 5, 10), (80, 5, 30)  # files to train, validate and test on


def train(table: Path, out: Path, *, seed: int, minutes: float) -> dict[str, object]:
    """The results of one training, as a user would type it."""
    flags = ["--task", "segments", "--minutes", str(minutes), "--seed", str(seed), "--out", str(out)]
    begun = time.monotonic()
    subprocess.run([sys.executable, "-m", "tubelet", "train", str(table), *flags], check=True)
    found = json.loads((out / "results.json").read_text())
    return {
        "seed": seed,
        "mAP": round(found["map"], 3),
        "interval": [round(one, 3) for one in found["interval"]],
        "strict": round(found["map_strict"], 3),
        "point F1": round(found["point_f1"], 3),
        **{words: round(value, 3) for words, value in found["baselines"].items()},
        "ahead of these by": {words: [round(one, 3) for one in ends] for words, ends in found["ahead"].items()},
        "minutes": round((time.monotonic() - begun) / 60, 1),
    }


def render(folder: Path, **settings: Any) -> Path:
    if (folder / "segments.csv").is_file():
        return folder / "segments.csv"
    return render_untrimmed(folder, **settings)


def measure_suite(folder: Path, seeds: int, minutes: float) -> None:
    table = render(folder / "suite", files=SUITE)
    for seed in range(seeds):
        print(json.dumps(train(table, folder / f"suite-{seed}", seed=seed, minutes=minutes)), flush=True)


def measure_weak(folder: Path, seeds: int, minutes: float) -> None:
    table = render(folder / "weak", files=WEAK, minutes=0.75, variant="weak")
    for seed in range(seeds):
        for name, rows in (("timed", table), ("weak", table.with_name("weak.csv"))):
            found = train(rows, folder / f"{name}-{seed}", seed=seed, minutes=minutes)
            print(json.dumps({"labels": name, **found}), flush=True)


def measure_head(hours: float = 10.0, step_seconds: float = 0.45) -> None:
    """Features of random numbers cost what others do."""
    from tubelet.train.pyramid import Lesson, fit_pyramid

    rng, lessons = np.random.default_rng(0), []
    for _ in range(round(hours * 3)):
        steps = round(1200 / step_seconds)
        starts = rng.uniform(0, steps, 60)
        rows = np.stack([starts, starts + np.exp(rng.uniform(0.6, 3.8, 60)), rng.integers(0, 10, 60)], 1)
        lessons.append(Lesson(torch.randn(steps, 192), torch.tensor(rows, dtype=torch.float32)))
    before, begun = time.process_time(), time.monotonic()
    fit_pyramid(lessons, num_classes=10, seed=0)
    spent = {"CPU seconds": round(time.process_time() - before), "seconds": round(time.monotonic() - begun)}
    print(json.dumps({"hours": hours, **spent}))


def measure_hour(folder: Path, run: Path) -> None:
    """Memory of the process after a tenth of the video, and at its end."""
    table = render(folder / "hour", files=(0, 0, 1), minutes=60.0, seed=2)  # another is one of the empty ones
    video = next((table.parent / "videos").iterdir())
    command = [sys.executable, __file__, "stream", "--folder", str(folder), "--run", str(run), "--video", str(video)]
    subprocess.run(command, check=True)


def stream(run: Path, video: Path) -> None:
    from tubelet.media.reader import index
    from tubelet.nn.segment_streamer import SegmentStreamer
    from tubelet.stream.segmenter import Segmenter
    from tubelet.stream.source import from_file

    segmenter, begun = Segmenter.load(run, device="cpu"), time.monotonic()
    streamer, memory, found = SegmentStreamer(segmenter.pyramid, least_score=segmenter.threshold), [], 0
    blocks = from_file(video, segmenter.spec, block_frames=64, threads=1).blocks
    for steps in segmenter.steps(blocks):
        found += len(streamer.push(steps))
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        memory.append(pages * resource.getpagesize() / 1e6)
    found += len(streamer.finish())
    seconds = index(video).duration_seconds
    tenth = len(memory) // 10
    print(
        json.dumps(
            {
                "minutes": round(seconds / 60, 1),
                "segments": found,
                "times real time": round(seconds / (time.monotonic() - begun), 1),
                "MB after a tenth": round(memory[tenth]),
                "MB at most after that": round(max(memory[tenth:])),
                "MB at the end": round(memory[-1]),
            }
        )
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("suite", "weak", "head", "hour", "stream"))
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmark-segments"))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--video", type=Path)
    asked = parser.parse_args()
    run = asked.run or asked.folder / "suite-0"
    if asked.what == "suite":
        measure_suite(asked.folder, asked.seeds, asked.minutes)
    elif asked.what == "weak":
        measure_weak(asked.folder, asked.seeds, asked.minutes)
    elif asked.what == "head":
        measure_head()
    elif asked.what == "hour":
        measure_hour(asked.folder, run)
    else:
        stream(run, asked.video)
