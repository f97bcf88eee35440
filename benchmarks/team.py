"""Processes that train together on one machine: how much quicker they are, and how long they talk instead.

    python benchmarks/team.py > team.json
    python benchmarks/team.py --processes 1 2 4 --rounds 5
    python benchmarks/team.py --beside ../tubelet-before     # another checkout of the program, in turns with this one

Each process has one thread. All train the default model on clips of `tubelet demo`, rendered once, with the same clips
of a step for each process; numbers of processes, and programs, take turns. `clips_per_second` is of the steps alone,
`scaling` the ratio to one process of the same round, its median over rounds. `talk_share` is the share of the time of
the steps that the first process spends in agreeing with the others, gradients aside: waiting for one that is behind is
in it, which it would else wait for with the gradients. `talks_per_step` counts what is exchanged for that.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

CLIPS_A_PROCESS = 16  # of a step
EPOCHS = 12.0


def train_one(clips: Path, out: Path, processes: int) -> None:
    """What a process does: a training whose exchanges are timed; the first writes what they took."""
    import tubelet.train.clips as module
    from tubelet.train.config import TrainConfig
    from tubelet.train.loop import train_steps
    from tubelet.train.train import train_fn
    from tubelet.train.trainer import Fit, Team

    took, times, steps = [0.0], [0], {"seconds": 0.0, "count": 0}

    def timed(gather: Any) -> Any:
        def talk(team: Team, value: Any) -> Any:
            begun = time.perf_counter()
            try:
                return gather(team, value)
            finally:
                took[0] += time.perf_counter() - begun
                times[0] += team.size > 1

        return talk

    def train_and_time(fit: Fit, *rest: Any, **named: Any) -> None:
        took[0], times[0], begun = 0.0, 0, time.perf_counter()
        train_steps(fit, *rest, **named)
        steps.update(seconds=time.perf_counter() - begun, count=fit.step, talk=took[0], talks=times[0])

    for name in ("gather", "gather_numbers"):
        if hasattr(Team, name):
            setattr(Team, name, timed(getattr(Team, name)))
    module.train_steps = train_and_time  # type: ignore[assignment]
    config = TrainConfig(data=clips, out=out, epochs=EPOCHS, batch=CLIPS_A_PROCESS * processes, workers=1, init="none")
    train_fn(config, show=False)
    if os.environ.get("RANK", "0") == "0":
        records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        learned = [record for record in records if record["kind"] == "train"][1:]  # the first steps warm up
        speed = median(record["clips_per_second"] for record in learned)
        (out / "team.json").write_text(json.dumps({**steps, "clips_per_second": speed}))


def measure(clips: Path, out: Path, processes: int, program: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    command += [__file__, "--clips", str(clips), "--out", str(out), "--processes", str(processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(program)}
    subprocess.run(command, env=environment, check=True, stdout=sys.stderr)
    return json.loads((out / "team.json").read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clips-per-class", type=int, default=40)
    parser.add_argument("--beside", type=Path, help="another checkout")
    parser.add_argument("--clips", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.out:
        return train_one(arguments.clips, arguments.out, arguments.processes[0])

    from tubelet.demo import ensure_demo

    programs = {"this": Path(__file__).parents[1]} | ({"beside": arguments.beside} if arguments.beside else {})
    found: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        clips = ensure_demo(folder / "clips", clips_per_class=arguments.clips_per_class)
        for turn in range(arguments.rounds):
            for processes in arguments.processes:
                for name, program in programs.items():
                    out = folder / f"{name}-{processes}-{turn}"
                    found.setdefault(f"{name} {processes}", []).append(measure(clips, out, processes, program))
    for key, rounds in found.items():
        alone = found.get(f"{key.split()[0]} 1", rounds)
        ratios = [a["clips_per_second"] / b["clips_per_second"] for a, b in zip(rounds, alone)]
        print(
            json.dumps(
                {
                    "what": key,
                    "clips_per_second": [round(one["clips_per_second"], 1) for one in rounds],
                    "scaling": round(median(ratios), 3),
                    "talk_share": round(median(one["talk"] / one["seconds"] for one in rounds), 4),
                    "talks_per_step": round(median(one["talks"] / one["count"] for one in rounds), 3),
                }
            )
        )
    return None


if __name__ == "__main__":
    main()
