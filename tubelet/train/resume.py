"""Before the first step: the run directory and the plan that is printed."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tubelet.data.table import write_table
from tubelet.runs.lock import LOCK
from tubelet.runs.run import Run, is_leftover
from tubelet.train.config import CHOSEN, MAY_CHANGE
from tubelet.train.plan import Plan
from tubelet.train.show import info_of, learned_of, plan_rows
from tubelet.version import __version__
from tubelet.weights.settings import read_config


def open_run(plan: Plan, *, hold: Callable[[Path], object] = lambda folder: None) -> Run:
    """The run directory: a new one, or one whose training of these settings was stopped.

    hold: keeps other processes out of it from then on; raises where one is in it.

    Raises:
        EnvironmentTrouble: the disk has no room for checkpoints.
        ValueError: the directory belongs to other data or other settings, or is none of ours.
    """
    config = plan.config
    run = Run(config.out) if config.out else next_run(Path("runs") / name_of(config.data))
    goes_on(plan, run)
    run.path.mkdir(parents=True, exist_ok=True)
    hold(run.path)
    run.remove_leftovers()
    run.check_room(checkpoint_bytes(plan))
    if goes_on(plan, run):  # once more: who held it may have ended it meanwhile
        if not (run.path / "split.csv").is_file():  # which is the same, as the data is
            write_table(run.path / "split.csv", plan.source.items)
        return run
    for name in ("metrics.jsonl", "features.json", "bad_files.jsonl"):
        (run.path / name).unlink(missing_ok=True)
    in_words = [f"{name}: {value}" for name, value in plan_rows(plan, run)]
    run.write_json("config.json", {**settings_of(plan), "plan": in_words})
    write_table(run.path / "split.csv", plan.source.items)
    return run


def goes_on(plan: Plan, run: Run) -> bool:
    """Whether there is something to go on from. Raises ValueError where it is of something else."""
    if run.config_file.is_file():
        if run.finished or any(run.checkpoints()):
            check_same(plan, run)
            return True
        run.config()  # whoever it belongs to: what is not of a training is not written over
        if (run.path / "model.safetensors").exists():
            raise ValueError(
                f"{run.path} holds a model, but neither README.md nor a checkpoint to go on from: choose another --out"
            )
    elif run.path.is_file() or (run.path.is_dir() and any(not passing(file.name) for file in run.path.iterdir())):
        raise ValueError(f"{run.path} holds something that is no run: choose another --out")
    return False


def passing(name: str) -> bool:
    """Whether a file is one that a process, killed before it wrote config.json, leaves in a new run."""
    return name == LOCK or is_leftover(name)


def checkpoint_bytes(plan: Plan) -> int:
    """Weights that learn, two moments of each, and their average where there is one, in float32."""
    learned = learned_of(plan.model)[0] if plan.config.freeze else info_of(plan.model).parameters
    return 4 * learned * (3 + bool(plan.config.ema))


def name_of(data: Path) -> str:
    return Path(os.path.abspath(data)).name.removesuffix(".csv")


def next_run(base: Path) -> Run:
    """`base`, or base-2, base-3 and so on: the first that is not finished."""
    run, number = Run(base), 1
    while run.finished:
        number += 1
        run = Run(base.with_name(f"{base.name}-{number}"))
    return run


def check_same(plan: Plan, run: Run) -> None:
    """Raises ValueError unless a run can go on with the data and settings that are asked for now."""
    old, new = run.config(), json.loads(json.dumps(settings_of(plan)))
    if old["data"].get("fingerprint") != new["data"]["fingerprint"]:
        root = old["data"].get("root")
        raise ValueError(f"{run.path} belongs to other data ({root}, or its files have changed): choose another --out")
    if run.finished:
        raise ValueError(f"{run.path} holds a finished run: choose another --out, or leave --out away for a new one")
    was, now = matters(old), matters(new)
    changed = ", ".join(f"{key}: {was.get(key)} -> {now[key]}" for key in now if now[key] != was.get(key))
    if changed:
        raise ValueError(f"{run.path} was begun with other settings ({changed}): use those, or choose another --out")


def matters(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that a run must go on with, by name: what was asked for and what was chosen for the rest."""
    asked = {key: value for key, value in settings["train"].items() if key not in (*MAY_CHANGE, *CHOSEN)}
    config = read_config(settings["model"]).to_json()  # a run of 0.1.0 goes on
    parts = {"": config, "embed ": config.pop("embed")}
    parts |= {f"stage {number} ": stage for number, stage in enumerate(config.pop("stages"))}
    model = {f"model's {part}{key}": value for part, values in parts.items() for key, value in values.items()}
    spec = {f"clip's {key}": value for key, value in settings["clip_spec"].items()}
    swaps = {"label_swaps": settings.get("label_swaps")}
    return {**asked, "model": settings.get("model_name"), **model, **spec, **swaps}


def settings_of(plan: Plan) -> dict[str, Any]:
    """config.json, but for the plan in words."""
    return {
        "tubelet": __version__,
        "model": plan.model.to_json(),
        "model_name": plan.model_name,
        "clip_spec": plan.spec.to_json(),
        "task": plan.source.task.to_json(),
        "train": plan.config.to_json(),
        "label_swaps": [plan.changes.flipped, plan.changes.reversed] if plan.config.label_swaps else None,
        "data": {
            "root": str(plan.source.root),
            "kind": plan.source.kind,
            "fingerprint": plan.fingerprint,
            "counts": plan.counts(),
            "clips": {split: len(plan.items(split)) for split in plan.counts()},
            "keep": plan.keep,
            "notes": list(plan.source.notes),
        },
    }
