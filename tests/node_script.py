"""What each process of a team runs in test_node: `node_script.py WHAT OUT ...`; it writes to OUT/WHAT.RANK.json."""

import json
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from small_sets import tiny_config

from tubelet.data import kept
from tubelet.media.decoder import av
from tubelet.system.spread import Spread, lead
from tubelet.system.team import Team
from tubelet.train.train import train_fn
from tubelet.train.trainer import Fit

what, out = sys.argv[1], Path(sys.argv[2])
rank = os.environ["RANK"]


def write(came: Any, name: str = what) -> None:
    (out / f"{name}.{rank}.json").write_text(json.dumps(came))


def note(line: str) -> None:
    """Adds a line to the list of what this process opens; tests/test_node.py notes the opens of Python."""
    with open(Path(os.environ["OPENED"]) / f"{rank}-{os.getpid()}", "a") as file:
        file.write(f"{line}\n")


def note_opens_and_die() -> None:
    """Notes files that FFmpeg opens, and steps; in the last one all processes are killed."""
    open_by_ffmpeg, learn = av.open, Fit.take_step

    def open_and_note(file: str, *arguments: Any, **settings: Any) -> Any:
        note(file.removeprefix("file:"))
        return open_by_ffmpeg(file, *arguments, **settings)

    def learn_and_note(fit: Fit, parts: Any) -> dict[str, float]:
        note("step")
        if fit.step == fit.pace.steps - 1:
            clips = fit.clips.kept  # type: ignore[union-attr]
            write([type(clips).__name__, sum(number in clips for number in range(len(fit.clips)))])
            fit.team.gather(None)
            os.kill(os.getpid(), signal.SIGKILL)
        return learn(fit, parts)

    av.open, Fit.take_step = open_and_note, learn_and_note  # type: ignore[method-assign]


def double(numbers: Sequence[int]) -> Iterable[tuple[int, str]]:
    return [(2 * number, rank) for number in numbers]


def fail_in(wrong: str, numbers: Sequence[int]) -> Iterable[int]:
    if rank == wrong:
        raise ValueError(f"wrong in {rank}")
    return numbers


def share_out(spread: Spread) -> list[Any]:
    assert rank == "0"
    looks = [
        spread(double, [*range(50)], at_once=at_once, file=lambda number: f"{number % 7}") for at_once in (0, 1, 5)
    ]
    return [[*look] for look in looks] + [[*spread(double, [])]]


class Wrong:
    """Work that shares out a look which is wrong in one process, or that is wrong itself."""

    def __init__(self, where: str) -> None:
        self.where = where

    def __call__(self, spread: Spread) -> list[int]:
        found = [*spread(partial(fail_in, self.where), [*range(20)])]
        if self.where == "work":
            raise ValueError("wrong in work")
        return found


def outcome(team: Team, where: str) -> Any:
    try:
        return lead(team, Wrong(where))
    except ValueError as error:
        return f"{type(error).__name__}: {error}"


def share_and_keep(team: Team) -> None:
    write([lead(team, share_out), *(outcome(team, where) for where in ("0", "1", "work", "nowhere"))], "share")
    copies, frames = kept.count_copies(team), kept.keep_once(team, 40, 0)
    torch.manual_seed(0)
    drawn = [torch.randint(256, (3, 5, 7, number + 1), dtype=torch.uint8) for number in range(40)]
    for number, one in enumerate(drawn):
        if number % 4 == team.rank or number % 4 == 2:  # some by one, some by both, some by none
            frames[number] = one
    team.gather(None)
    found = [number for number in range(40) if number in frames]
    same = all(torch.equal(frames[number], drawn[number]) for number in found)
    write({"copies": copies, "found": found, "same": same, "once": type(frames).__name__}, "keep")


if what == "share":
    share_and_keep(Team.join("cpu"))
else:
    note_opens_and_die()
    if "NO_MEMORY_FILES" in os.environ:  # as Python built for old systems
        del os.memfd_create
        kept.SHARED_MEMORY = Path(os.environ["NO_MEMORY_FILES"])
    data = Path(sys.argv[3])
    sounds = {"model": "vit-P/16", "frames": None, "size": None} if data.name == "sounds" else {}
    train_fn(tiny_config(data, out / "run", **sounds), show=False)
