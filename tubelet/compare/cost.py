"""The cost of an answer: its time and memory, measured in a process of its own, when nothing else is at work.

this process    [run, file, start, end, device]  ->    child
                cost                             <-
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tubelet.data.clips import load_views
from tubelet.data.items import Item
from tubelet.predict.predictor import Predictor
from tubelet.system.child import answer_lines, ask, child_command, describe_end, end, start_child
from tubelet.system.errors import EnvironmentTrouble

SECONDS, LEAST_RUNS, WARM_UP = 2.0, 20, 3


@dataclass(frozen=True)
class Cost:
    """The milliseconds that a model takes for one clip, from pixels to probabilities, in the median and at most in 19
    runs of 20; peak_bytes: of the memory of the whole process, or of the GPU; None where the system does not say."""

    p50_ms: float
    p95_ms: float
    peak_bytes: int | None
    parameters: int
    precision: str


def measure_cost(run: Path, item: Item, *, device: str) -> Cost:
    """The cost of a trained model, for a clip of an item.

    Raises:
        ValueError: the model cannot answer. EnvironmentTrouble: its process died, as of too little memory.
    """
    child, again = start_child(child_command(__name__)), "The trainings are kept, the same command measures again"
    try:
        found = ask(child, [str(run), item.path, item.start_seconds, item.end_seconds, device])
        if found is None:
            raise EnvironmentTrouble(f"{run}: the process that measured its cost died, {describe_end(child)}. {again}")
    finally:
        end(child)
    if isinstance(found, str):
        raise ValueError(f"{run}: its cost cannot be measured ({found}). {again}")
    return Cost(**found)


def work() -> None:
    """The program of a child: answers with a cost, or why there is none."""
    answer_lines(lambda question, _: answer(*question))


def answer(run: str, file: str, start: float | None, end: float | None, device: str) -> dict[str, Any] | str:
    try:
        return vars(measure_here(run, file, start, end, device))
    except ValueError as error:
        return str(error)


def measure_here(run: str, file: str, start: float | None, end: float | None, device: str) -> Cost:
    predictor = Predictor.load(run, device=device, dtype="auto")
    clip = load_views(file, predictor.spec, start_seconds=start, end_seconds=end).clips.to(predictor.device)
    cuda, took = predictor.device.type == "cuda", list[float]()
    with torch.inference_mode():
        begun = time.perf_counter()
        while len(took) < LEAST_RUNS + WARM_UP or time.perf_counter() - begun < SECONDS:
            then = time.perf_counter()
            predictor.task.answer(predictor.answers(clip).float().cpu())
            took.append(1000 * (time.perf_counter() - then))
    p50, p95 = np.percentile(took[WARM_UP:], (50, 95)).tolist()
    peak = torch.cuda.max_memory_allocated() if cuda else peak_memory()
    return Cost(p50, p95, peak, sum(one.numel() for one in predictor.model.parameters()), predictor.precision)


def peak_memory() -> int | None:
    """The most bytes of memory that this process ever had; None where the system does not say.

    Linux counts into `getrusage` what the process had from which this one was started.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        return next(1024 * int(line.split()[1]) for line in status.read_text().splitlines() if line[:6] == "VmHWM:")
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
