"""What each process of a team runs in test_distributed: `team_script.py DATA OUT JOBS`, JOBS as JSON.

A job is [name, settings, steps before it is stopped or null]; settings may be of other data, and of frames that are not
kept in memory, or as `counted` takes them; or [name, command line, null]. What came of each is written to
OUT/NUMBER-NAME.RANK.json.
"""

import contextlib
import io
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from small_sets import command, tiny_config

from tubelet.data.epochs import Epochs
from tubelet.system.errors import EnvironmentTrouble
from tubelet.system.team import Team
from tubelet.train import plan
from tubelet.train.loop import Stopped
from tubelet.train.pace import Pace
from tubelet.train.train import train_fn
from tubelet.train.trainer import Fit

data, out, jobs = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
rank = os.environ["RANK"]
learn = Fit.take_step


def stop_at(steps: int | None) -> None:
    def learn_and_signal(fit: Fit, parts: Any) -> dict[str, float]:
        if fit.step == steps and rank == "1":  # the others learn of it
            signal.raise_signal(signal.SIGTERM)
        return learn(fit, parts)

    Fit.take_step = learn_and_signal  # type: ignore[method-assign]


def typed(arguments: list[str]) -> dict[str, Any]:
    with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.redirect_stderr(io.StringIO()) as errors:
        code = command(*arguments)
    return {"code": code, "out": shown.getvalue(), "err": errors.getvalue()}


def trained(name: str, *, data: str | Path = data, keep_share: float = plan.KEEP_SHARE, **settings: Any) -> str:
    plan.KEEP_SHARE = keep_share
    train_fn(tiny_config(Path(data), out / name, **settings), show=False)
    return "finished"


def counted(name: str, *, meet: int, fail: int | None = None, **settings: Any) -> Any:
    """A training that meets every few steps; the steps after which numbers, and objects, were exchanged; or what came
    of it where one process has no clips for step `fail`."""
    numbers, objects, last, draw = list[int](), list[int](), [0], Epochs.draw_batch

    def noted(steps: list[int], gather: Any) -> Any:
        return lambda team, value: (steps.append(last[0]), gather(team, value))[1]

    def step(fit: Fit, parts: Any) -> Any:
        last[0] = fit.step + 1
        return learn(fit, parts)

    def draw_or_fail(epochs: Epochs, first: int, size: int) -> Any:
        if fail is not None and rank == "1" and first // settings["batch"] == fail:
            raise OSError(28, "No space left on device")
        return draw(epochs, first, size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Team, "gather_numbers", noted(numbers, Team.gather_numbers))
        patch.setattr(Team, "gather", noted(objects, Team.gather))
        patch.setattr(Fit, "take_step", step)
        patch.setattr(Pace, "next_meeting", lambda pace, step: step + meet)
        patch.setattr(Epochs, "draw_batch", draw_or_fail)
        trained(name, **settings)
    return {"numbers": numbers, "objects": objects}


came: Any
for number, (name, asked, steps) in enumerate(jobs):
    stop_at(steps)
    try:
        train_or_count = counted if "meet" in asked else trained
        came = typed(asked) if isinstance(asked, list) else train_or_count(name, **asked)
    except Stopped as stop:
        came = f"stopped by {stop.signal}"
    except (ValueError, EnvironmentTrouble) as error:
        came = f"{type(error).__name__}: {error}"
    (out / f"{number}-{name}.{rank}.json").write_text(json.dumps(came))
