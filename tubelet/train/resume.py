"""The run directory before the first step: a new one, or that of a training that was stopped and goes on."""

import json
import os
from itertools import count
from pathlib import Path
from typing import Any

from tubelet.data.table import write_table
from tubelet.runs.run import BAD_FILES, CARD, FEATURES, METRICS, MODEL, SPLIT, Run, holds_others, list_changes
from tubelet.tasks import find_task
from tubelet.train.config import CHOSEN, MAY_CHANGE, TrainConfig
from tubelet.train.plan import Plan
from tubelet.train.show import count_learned, describe_config, plan_rows
from tubelet.version import __version__
from tubelet.weights.settings import read_config
from tubelet.weights.terms import write_terms


def find_run(config: TrainConfig) -> Run:
    """The run directory of a training; what another program keeps there is not touched.

    Raises:
        ValueError: there is something that is no run.
    """
    run = (
        Run(config.out)
        if config.out
        else next_run(Path("runs") / Path(os.path.abspath(config.data)).name.removesuffix(".csv"))
    )
    if run.config_file.is_file():
        return run
    if holds_others(run.path):
        raise ValueError(f"{run.path} holds something that is no run: choose another --out")
    run.path.mkdir(parents=True, exist_ok=True)
    return run


def open_run(plan: Plan, run: Run) -> Run:
    """The run, which no other process is in, with its settings: those of now, or those that it was begun with.

    Raises:
        EnvironmentTrouble: the disk has no room for checkpoints.
        ValueError: the directory belongs to other data or other settings, or is none of ours.
    """
    goes_on = is_begun(plan, run)
    run.remove_leftovers()
    run.check_room(checkpoint_bytes(plan))
    if goes_on:
        if not (run.path / SPLIT).is_file():  # which is the same, as the data is
            write_table(run.path / SPLIT, plan.data.source.items)
        return run
    for name in (METRICS, FEATURES, BAD_FILES):
        (run.path / name).unlink(missing_ok=True)
    in_words = [f"{name}: {value}" for name, value in plan_rows(plan, run)]
    run.begin({**collect_settings(plan), "plan": in_words})
    write_table(run.path / SPLIT, plan.data.source.items)
    return run


def is_begun(plan: Plan, run: Run) -> bool:
    """Whether there is something to go on from. Raises ValueError where it is of something else."""
    if not run.config_file.is_file():
        return False
    config = run.config  # raises for one of another program, which is not written over
    if run.finished or any(run.checkpoints()):
        check_same(plan, run, config)
        return True
    if (run.path / MODEL).exists():
        raise ValueError(
            f"{run.path} holds a model, but neither {CARD} nor a checkpoint to go on from: choose another --out"
        )
    return False


def checkpoint_bytes(plan: Plan) -> int:
    """Weights that learn, two moments of each, and their average where there is one, in float32."""
    learned = count_learned(plan.model)[0] if plan.config.freeze else describe_config(plan.model).parameters
    return 4 * learned * (3 + bool(plan.config.ema))


def next_run(base: Path) -> Run:
    """`base`, or base-2, base-3 and so on: the first that is not finished."""
    runs = (Run(base.with_name(f"{base.name}-{number}") if number > 1 else base) for number in count(1))
    return next(run for run in runs if not run.finished)


def check_same(plan: Plan, run: Run, old: dict[str, Any]) -> None:
    """Raises ValueError unless a run of the config.json `old` can go on with the data and settings of now."""
    new = json.loads(json.dumps({**collect_settings(plan), "plan": plan.notes}))
    if old["data"].get("fingerprint") != new["data"]["fingerprint"]:
        root = old["data"].get("root")
        raise ValueError(f"{run.path} belongs to other data ({root}, or its files have changed): choose another --out")
    if run.finished:
        raise ValueError(f"{run.path} holds a finished run: choose another --out, or leave --out away for a new one")
    if changed := list_changes(compared_settings(old), compared_settings(new)):
        raise ValueError(f"{run.path} was begun with other settings ({changed}): use those, or choose another --out")


def compared_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that a run must go on with, by name: those asked for, and those chosen for the rest."""
    train = TrainConfig.from_json({"data": "", **settings["train"]}).to_json()
    if train["label_smoothing"] is None:
        train["label_smoothing"] = find_task(train["task"]).smoothing
    asked = {key: value for key, value in train.items() if key not in (*MAY_CHANGE, *CHOSEN)}
    config = read_config(settings["model"]).to_json()  # a run of 0.1.0 goes on
    parts = {"": config, "embed ": config.pop("embed")}
    parts |= {f"stage {number} ": stage for number, stage in enumerate(config.pop("stages"))}
    model = {f"model's {part}{key}": value for part, values in parts.items() for key, value in values.items()}
    spec = {f"clip's {key}": value for key, value in settings["clip_spec"].items()}
    changes = ("horizontal flip", "playing backwards")  # what a class becomes then is said in the plan alone
    words = [line.removeprefix("note: ") for line in settings.get("plan", ()) if any(one in line for one in changes)]
    named = {"model": settings.get("model_name"), "label_swaps": settings.get("label_swaps"), "changes": words}
    return {**asked, **named, **model, **spec}


def collect_settings(plan: Plan) -> dict[str, Any]:
    """config.json, but for the plan in words."""
    return {
        "tubelet": __version__,
        "model": plan.model.to_json(),
        "model_name": plan.model_name,
        "clip_spec": plan.spec.to_json(),
        "task": plan.data.source.task.to_json(),
        "train": plan.config.to_json(),
        **write_terms(plan.start.terms if plan.start else ()),
        "label_swaps": [plan.changes.flipped, plan.changes.reversed] if plan.config.label_swaps else None,
        "data": {
            "root": str(plan.data.source.root),
            "kind": plan.data.source.kind,
            "fingerprint": plan.fingerprint,
            "counts": plan.data.counts(),
            "clips": {split: len(plan.data.items(split)) for split in plan.data.counts()},
            "keep": plan.keep,
            "notes": list(plan.data.source.notes),
        },
    }
