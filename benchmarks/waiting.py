"""What it costs to let OpenMP's threads wait awake: a training step of the default model beside busy loops.

    python benchmarks/waiting.py                         # the default beside the setting of the commands
    python benchmarks/waiting.py 500 1000 5000 --rounds 20

Each setting is a process of its own; they step in turns, so that whatever else the machine does hits all alike.
Medians, and ratios to the first setting, round by round.
"""

import argparse
import os
import subprocess
import sys
import time
from statistics import median

import torch
import torch.nn.functional as F

from tubelet import create_model
from tubelet.system.openmp import CHOSEN_BY_USERS, SPIN_COUNT

STEPS = 3  # timed in a round
BUSY_LOOP = [sys.executable, "-c", "while True: pass"]


def step_on_request() -> None:
    """Answers each line of standard input with the seconds of a step."""
    torch.manual_seed(0)
    model = create_model("vivit1-N/12x4", clip=(16, 48, 60), num_classes=8, embed="conv")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    clips, labels = torch.randint(0, 256, (16, 3, 16, 48, 60), dtype=torch.uint8), torch.randint(0, 8, (16,))

    def step() -> None:
        F.cross_entropy(model(clips), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    for _ in range(STEPS):
        step()
    print("ready", flush=True)
    for _ in sys.stdin:
        step()
        begun = time.perf_counter()
        for _ in range(STEPS):
            step()
        print((time.perf_counter() - begun) / STEPS, flush=True)


def measure(settings: dict[str, dict[str, str]], *, busy: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of a step for each setting, one figure a round, beside `busy` loops."""
    plain = {name: value for name, value in os.environ.items() if name not in CHOSEN_BY_USERS}
    command, pipe = [sys.executable, __file__, "--worker"], subprocess.PIPE
    workers = {
        name: subprocess.Popen(command, env=plain | extra, stdin=pipe, stdout=pipe, text=True)
        for name, extra in settings.items()
    }
    for worker in workers.values():
        worker.stdout.readline()
    loops = [subprocess.Popen(BUSY_LOOP) for _ in range(busy)]
    took: dict[str, list[float]] = {name: [] for name in workers}
    try:
        for _ in range(rounds):
            for name, worker in workers.items():
                worker.stdin.write("\n")
                worker.stdin.flush()
                took[name].append(float(worker.stdout.readline()))
    finally:
        for process in [*loops, *workers.values()]:
            process.kill()
            process.wait()
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("counts", nargs="*", default=[SPIN_COUNT], help="values of GOMP_SPINCOUNT")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return step_on_request()
    settings: dict[str, dict[str, str]] = {"default": {}}
    settings |= {f"GOMP_SPINCOUNT={count}": {"GOMP_SPINCOUNT": count} for count in arguments.counts}
    alone: dict[str, float] = {}
    for busy in (0, 1, 2):
        took = measure(settings, busy=busy, rounds=arguments.rounds)
        for name, seconds in took.items():
            middle = median(seconds)
            alone.setdefault(name, middle)
            ratio = median(one / base for one, base in zip(seconds, took["default"], strict=True))
            print(
                f"{busy} busy loops  {name:<22} {1000 * middle:6.0f} ms a step  {ratio:.3f} of the default's  "
                f"{middle / alone[name]:.2f} of its own alone"
            )
    return None


if __name__ == "__main__":
    main()
