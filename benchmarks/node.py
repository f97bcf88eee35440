"""Memory of the clips that the processes of one machine keep: of several, beside one.

    python benchmarks/node.py --processes 4 --clips 64

Videos are made, and trained on by one process and by several, with all clips kept in memory and, to compare, with files
that are read each time. Nothing is learned: the memory of a step is another matter. Once each process has looked at all
clips, they wait for each other, and each reads its proportional set size (PSS), in which a page that several share
counts as a part in each; these are added up. Prints JSON, in MB: `clips`, what they take, of one process the bytes of
its tensors, of several all that they have mapped together; `else_each`, what a process takes beside them (Python,
torch, batches), in which a second copy of clips would show; `reading_each`, what it takes that keeps none; and the
ratio of the clips of several processes to those of one. Linux only.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

FRAMES, HEIGHT_PX, WIDTH_PX, FRAMES_PER_SECOND = 100, 240, 320, 25
MB = 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--member", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.member:
        data, out, keep = arguments.member
        take_part(Path(data), Path(out), keep=keep == "keep")
        return
    with tempfile.TemporaryDirectory() as folder:
        data = write_clips(Path(folder) / "clips", arguments.clips)
        alone, several = (measure(data, Path(folder) / f"{count}", count) for count in (1, arguments.processes))
    ratio = several["clips"] / alone["clips"]
    print(json.dumps({"one": alone, "several": several, "clips_ratio": round(ratio, 3)}, indent=1))


def write_clips(folder: Path, clips: int) -> Path:
    """Videos in two class folders: a bar that moves to the right, or to the left."""
    from tubelet.media.writer import write_video

    for number in range(clips):
        frames = np.full((FRAMES, HEIGHT_PX, WIDTH_PX, 3), 60 + number, np.uint8)
        for time in range(FRAMES):
            left = 3 * time if number % 2 else WIDTH_PX - 20 - 3 * time
            frames[time, :, left : left + 20] = 200
        file = folder / ("right" if number % 2 else "left") / f"{number}.mp4"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_video(file, frames, frames_per_second=FRAMES_PER_SECOND)
    return folder


def measure(data: Path, out: Path, processes: int) -> dict[str, Any]:
    """What processes take in memory, added up, in MB."""
    kept, read = (take_parts(data, out.with_name(f"{out.name}-{keep}"), processes, keep) for keep in ("keep", "read"))
    clips = sum(one["mapped"] for one in kept) if processes > 1 else kept[0]["bytes"]
    apart = sum(one["pss"] for one in kept) - clips
    return {
        "processes": len(kept),
        "clips": round(clips / MB, 1),
        "else_each": round(apart / len(kept) / MB, 1),
        "reading_each": round(sum(one["pss"] for one in read) / len(read) / MB, 1),
    }


def take_parts(data: Path, out: Path, processes: int, keep: str) -> list[dict[str, int]]:
    """What each of several processes found in one training."""
    member = [__file__, "--member", str(data), str(out), keep]
    start = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)] if processes > 1 else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *start, *member], check=True, stdout=sys.stderr, env=environment)
    return [json.loads(file.read_text()) for file in out.parent.glob(f"{out.name}.*.json")]


def take_part(data: Path, out: Path, *, keep: bool) -> None:
    """One process of a training that only reads clips; writes what it takes in memory."""
    import tubelet
    from tubelet.train import clips as training
    from tubelet.train import plan
    from tubelet.train.trainer import Fit

    make_clips = training.make_clips
    held: list[training.Clips] = []

    def make_and_note(*given: Any, **settings: Any) -> Any:
        made = make_clips(*given, **settings)
        held.append(made[1])
        return made

    def look_and_end(fit: Fit, parts: Any) -> dict[str, float]:
        clips = fit.clips
        assert isinstance(clips, training.Clips)
        assert clips.keep == keep
        count = 0
        for number in range(len(clips)):
            frames = clips.timeline(number) if keep else clips.cut(number, 0.0)
            count += frames.nbytes
            frames.sum()
        for number in range(len(held[0])):
            middle = held[0].centre(number)
            count += middle.nbytes
            middle.sum()
        fit.team.gather(None)  # all have looked
        found = {"pss": add_up(), "mapped": add_up("memfd:tubelet"), "bytes": count}
        out.with_name(f"{out.name}.{fit.team.rank}.json").write_text(json.dumps(found))
        fit.team.gather(None)  # all have measured
        os._exit(0)

    training.make_clips, Fit.take_step = make_and_note, look_and_end  # type: ignore[method-assign]
    plan.KEEP_SHARE = plan.KEEP_SHARE if keep else 0.0
    size: dict[str, Any] = {"model": "vivit1-P/16x4", "frames": 16, "size": (224, 224), "batch": 8}
    tubelet.train_fn(tubelet.TrainConfig(data=data, out=out, epochs=1, device="cpu", **size), show=False)


def add_up(name: str = "") -> int:
    """Bytes of this process's proportional set size, in maps of files with `name` in theirs."""
    pss, counts = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if not line.split(" ")[0].endswith(":"):  # begins a map
            counts = name in line
        elif counts and line.startswith("Pss:"):
            pss += 1024 * int(line.split()[1])
    return pss


if __name__ == "__main__":
    main()
