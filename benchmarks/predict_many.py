"""Many small clips: answered together, beside one file at a time, and what bounds both.

    python benchmarks/predict_many.py > table.md
    python benchmarks/predict_many.py --clips 2000 --runs 9

Clips of `tubelet demo` are rendered once, and answered by the model that `tubelet train` takes for them on a processor,
with random weights: speed does not depend on these. "One at a time" is the same program with batches of one clip, as it
worked before there were batches. All take turns, and each turn lists its files anew, as a first reading does; the ratio
is that of the medians. "Reading alone" and "model alone" are the two halves of the work: on a machine whose processors
they share, together they take the sum at best, where there is a GPU the longer one.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch

import tubelet
import tubelet.predict.answer
from tubelet.data.clip_spec import ClipSpec
from tubelet.data.clips import views
from tubelet.data.prefetch import prefetch
from tubelet.media.index_cache import forget
from tubelet.media.writer import write_video
from tubelet.synthetic.camera_motions import CLASSES, FRAMES_PER_SECOND, render_clip
from tubelet.system.allocator import keep_memory

SPEC = ClipSpec(
    frames=16,
    seconds_between_frames=0.125,
    resize=(53, 66),
    crop=(48, 60),
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
)


def render(folder: Path, clips: int) -> list[Path]:
    names, files = list(CLASSES), [folder / f"{number:05d}.mp4" for number in range(clips)]
    folder.mkdir(parents=True, exist_ok=True)
    for number, file in enumerate(files):
        if not file.exists():
            frames = render_clip(names[number % len(names)], np.random.default_rng(number))
            write_video(file, frames, frames_per_second=FRAMES_PER_SECOND)
    return files


def load_predictor(folder: Path, device: str) -> tubelet.Predictor:
    torch.manual_seed(0)
    model = tubelet.create_model("vivit1-N/12x4", embed="conv", clip=SPEC.clip_size, num_classes=len(CLASSES))
    tubelet.save(model, folder, about={"classes": list(CLASSES), "clip_spec": SPEC.to_json()})
    return tubelet.Predictor.load(folder, device=device)


def time_job(job: Callable[[], object]) -> tuple[float, float, float]:
    """Seconds on the clock, of the processor for the program, and of the processor for the system."""
    forget()
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    job()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter() - begun, after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=400)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--hand-back", action="store_true", help="memory to the system, as other programs do")
    parser.add_argument("--folder", type=Path, help="where clips are, or are rendered to")
    told = parser.parse_args()
    if not told.hand_back:
        keep_memory()
    with tempfile.TemporaryDirectory() as temporary:
        files = render(told.folder or Path(temporary) / "clips", told.clips)
        predictor = load_predictor(Path(temporary) / "model", told.device)
        together = tubelet.predict.answer.CLIPS
        batch = torch.randint(0, 256, (together, 3, *SPEC.clip_size), dtype=torch.uint8)

        def predict(at_once: int) -> None:
            tubelet.predict.answer.CLIPS = at_once
            predictor.predict_files(files, workers=told.workers)

        def read() -> None:
            list(prefetch(lambda file: views(file, SPEC), files, threads=told.workers, ahead=2 * together))

        @torch.inference_mode()
        def answer() -> None:
            for _ in range(0, len(files), together):
                predictor.model(batch.to(predictor.device)).cpu()

        jobs: dict[str, Callable[[], None]] = {
            "one at a time": lambda: predict(1),
            f"{together} together": lambda: predict(together),
            "reading alone": read,
            "model alone": answer,
        }
        seconds: dict[str, list[tuple[float, float, float]]] = {name: [] for name in jobs}
        for turn in range(told.runs + 1):
            for name, job in jobs.items():
                one = time_job(job)
                if turn:  # the first warms up
                    seconds[name].append(one)
    print(f"{told.clips} clips, {predictor.device}, {torch.get_num_threads()} threads, {told.workers} that read\n")
    print("| | ms a file, median of runs | least | processor, program | system | ratio of medians |")
    print("|---|---|---|---|---|---|")
    slowest = median(wall for wall, _, _ in seconds["one at a time"])
    for name, took in seconds.items():
        walls, program, system = zip(*took, strict=True)
        values = (1000 * value / told.clips for value in (median(walls), min(walls), median(program), median(system)))
        print(f"| {name} | {' | '.join(f'{value:.2f}' for value in values)} | {slowest / median(walls):.2f} |")


if __name__ == "__main__":
    main()
