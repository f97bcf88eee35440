"""What each process of a team runs in test_distributed: `team_script.py DATA OUT JOBS`, JOBS as JSON.

A job is [name, settings, steps before it is stopped or null]; settings may be of other data, and of frames that are not
kept in memory; or [name, command line, null]. What came of each is written to OUT/NUMBER-NAME.RANK.json.
"""

import contextlib
import io
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from small_sets import command, tiny_config

from tubelet.train import plan
from tubelet.train.loop import Stopped
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


came: Any
for number, (name, asked, steps) in enumerate(jobs):
    stop_at(steps)
    try:
        came = typed(asked) if isinstance(asked, list) else trained(name, **asked)
    except Stopped as stop:
        came = f"stopped by {stop.signal}"
    except ValueError as error:
        came = f"{type(error).__name__}: {error}"
    (out / f"{number}-{name}.{rank}.json").write_text(json.dumps(came))
