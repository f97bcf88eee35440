"""Before the first step: the run directory and the plan that is printed."""

import json
from pathlib import Path
from typing import Any

import torch

import tubelet
from tubelet.data.items import write_split
from tubelet.info import describe
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.screen import facts, size
from tubelet.train.config import MAY_CHANGE
from tubelet.train.plan import Plan
from tubelet.train.run import Run
from tubelet.train.team import Team


def open_run(plan: Plan) -> tuple[Run, bool]:
    """The run directory, and whether it holds a training of these settings that was stopped.

    Raises:
        ValueError: the directory belongs to other data or other settings.
    """
    config = plan.config
    base = config.out or Path("runs") / config.data.absolute().name.removesuffix(".csv")
    run, number = Run(base), 1
    while config.out is None and run.finished:
        number += 1
        run = Run(base.with_name(f"{base.name}-{number}"))
    settings = {"train": config.to_json(), "data": {"fingerprint": plan.fingerprint}}
    if run.config_file.is_file():
        check_same(run, settings)
        if any(run.checkpoints()):
            return run, True
    elif run.path.is_dir() and any(run.path.iterdir()):
        raise ValueError(f"{run.path} holds something that is no run: choose another --out")
    run.path.mkdir(parents=True, exist_ok=True)
    (run.path / "metrics.jsonl").unlink(missing_ok=True)
    write_config(plan, run)
    write_split(plan.source, run.path / "split.csv")
    return run, False


def check_same(run: Run, settings: dict[str, Any]) -> None:
    """Raises ValueError unless an unfinished run has the same data and settings as are asked for now."""
    old = run.config()
    if run.finished:
        raise ValueError(f"{run.path} holds a finished run: choose another --out, or leave --out away for a new one")
    if old["data"]["fingerprint"] != settings["data"]["fingerprint"]:
        raise ValueError(
            f"{run.path} belongs to other data ({old['data']['root']}, or its files have changed): choose another --out"
        )
    new = json.loads(json.dumps(settings["train"]))
    changed = [key for key in new if key not in MAY_CHANGE and new[key] != old["train"].get(key)]
    if changed:
        was = ", ".join(f"{key}: {old['train'].get(key)} -> {new[key]}" for key in changed)
        raise ValueError(f"{run.path} was begun with other settings ({was}): use those, or choose another --out")


def write_config(plan: Plan, run: Run) -> None:
    run.write_json(
        "config.json",
        {
            "tubelet": tubelet.__version__,
            "model": plan.model.to_json(),
            "model_name": plan.model_name,
            "clip_spec": plan.spec.to_json(),
            "classes": list(plan.source.classes),
            "train": plan.config.to_json(),
            "data": {
                "root": str(plan.source.root),
                "kind": plan.source.kind,
                "fingerprint": plan.fingerprint,
                "counts": plan.counts(),
                "notes": list(plan.source.notes),
            },
            "plan": [f"{name}: {value}" for name, value in plan_rows(plan, run)],
        },
    )


def plan_rows(plan: Plan, run: Run) -> list[tuple[str, str]]:

    spec, config, counts = plan.spec, plan.config, plan.counts()
    with torch.device("meta"):
        info = describe(SpaceTimeTransformer(plan.model))
    part = config.batch // config.accumulate
    # weights, gradients and two moments in float32, activations of one part of the batch
    memory = 16 * info.parameters + info.activation_bytes * part // (2 if plan.bfloat16 else 1)
    splits = ", ".join(f"{sum(of.values())} {split}" for split, of in counts.items())
    t, h, w = spec.clip_size
    what = {
        "video": f"{t} frames of {h}x{w} px, {spec.seconds_between_frames:.3g} s apart: {spec.span_seconds:.3g} s",
        "image": f"{h}x{w} px",
        "sound": f"{h} mel bins x {w} columns, {1000 * spec.seconds_between_frames:.3g} ms apart: "
        f"{spec.span_seconds:.3g} s",
    }[spec.kind]
    names = list(plan.source.classes)
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    kept = f"; decoded files stay in memory ({size(plan.kept_bytes)})" if plan.keep else "; files are read each time"
    cost = f"{info.parameters / 1e6:.1f} M parameters, {info.gmacs:.2f} GMACs a clip"
    return [
        ("classes", f"{len(names)}: {shown}"),
        ("clips", f"{splits}; median {plan.clip_seconds:.3g} s" if spec.kind != "image" else splits),
        ("clip", what),
        ("model", f"{plan.model_name} with {plan.model.embed} tokens: {cost}"),
        ("memory", f"about {size(memory)}{kept}"),
        ("run", str(run.path)),
        *(("note", note) for note in plan.notes),
    ]


def print_plan(plan: Plan, run: Run, team: Team) -> None:
    rows = plan_rows(plan, run)
    config = plan.config
    length = f"{config.epochs:g} epochs" if config.epochs else f"at most {config.minutes:g} minutes"
    where = str(team.device) + (f" x {team.size} processes" if team.size > 1 else "")
    rows.insert(5, ("time", f"{length} of training on {where}"))
    facts(f"Plan for {config.data}", rows)
