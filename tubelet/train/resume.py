"""Before the first step: the run directory and the plan that is printed."""

import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

import tubelet
from tubelet.data.items import write_split
from tubelet.info import Info, describe
from tubelet.nn import ModelConfig, SpaceTimeTransformer
from tubelet.nn.split import Rest
from tubelet.runs.lock import LOCK
from tubelet.runs.run import Run, is_leftover
from tubelet.system.console import facts, size
from tubelet.system.text import plural
from tubelet.train.config import CHOSEN, MAY_CHANGE
from tubelet.train.distributed import Team
from tubelet.train.plan import Plan


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
            write_split(plan.source, run.path / "split.csv")
        return run
    for name in ("metrics.jsonl", "features.json", "bad_files.jsonl"):
        (run.path / name).unlink(missing_ok=True)
    in_words = [f"{name}: {value}" for name, value in plan_rows(plan, run)]
    run.write_json("config.json", {**settings_of(plan), "plan": in_words})
    write_split(plan.source, run.path / "split.csv")
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
    model = {f"model's {key}": value for key, value in settings["model"].items() if key != "checkpointing"}
    spec = {f"clip's {key}": value for key, value in settings["clip_spec"].items()}
    return {**asked, "model": settings.get("model_name"), **model, **spec}


def settings_of(plan: Plan) -> dict[str, Any]:
    """config.json, but for the plan in words."""
    return {
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
            "keep": plan.keep,
            "notes": list(plan.source.notes),
        },
    }


def plan_rows(plan: Plan, run: Run) -> list[tuple[str, str]]:
    spec, config, counts = plan.spec, plan.config, plan.counts()
    info = info_of(plan.model)
    part = config.batch // config.accumulate
    # weights, gradients and two moments in float32, activations of one part of the batch
    memory = 16 * info.parameters + info.activation_bytes * part // (2 if plan.bfloat16 else 1)
    learned, learns = learned_of(plan.model)
    if config.freeze:
        memory = 16 * learned + 4 * (info.parameters - learned)
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
    kept = f"; features of {1 + config.freeze_views} views of each clip are kept" if config.freeze else kept
    cost = f"{info.parameters / 1e6:.1f} M parameters, {info.gmacs:.2f} GMACs a clip"
    return [
        ("classes", f"{len(names)}: {shown}"),
        ("clips", f"{splits}; median {plan.clip_seconds:.3g} s" if spec.kind != "image" else splits),
        ("clip", what),
        ("model", f"{plan.model_name} with {plan.model.embed} tokens: {cost}"),
        ("memory", f"about {size(memory)}{kept}"),
        *([("learns", f"{learns}, {learned:,} parameters; the encoder stays as it is")] * config.freeze),
        ("run", str(run.path)),
        *(("note", note) for note in plan.notes),
    ]


@cache
def info_of(model: ModelConfig) -> Info:
    with torch.device("meta"):
        return describe(SpaceTimeTransformer(model))


@cache
def learned_of(model: ModelConfig) -> tuple[int, str]:
    """Parameters that learn with a frozen encoder, and what they are."""
    with torch.device("meta"):
        rest = Rest(SpaceTimeTransformer(model))
    return sum(parameter.numel() for parameter in rest.parameters()), rest.what


def length_of(train: dict[str, Any]) -> str:
    """How long a training of these settings is, in words."""
    return plural(train["epochs"], "epoch") if train["epochs"] else plural(train["minutes"], "minute")


def other_length(plan: Plan, run: Run) -> list[str]:
    """A note where another length is asked for than the one that a run was begun with, which stays."""
    begun, asked = length_of(run.config()["train"]), length_of(plan.config.to_json())
    return [f"with {begun}, as it was begun, not {asked}: that takes another --out"] if asked != begun else []


def print_plan(plan: Plan, run: Run, team: Team) -> None:
    rows = plan_rows(plan, run)
    config = plan.config
    length = length_of(run.config()["train"])  # of a run that goes on, as it was begun
    where = str(team.device) + (f" x {team.size} processes" if team.size > 1 else "")
    split = "" if run.config()["train"]["epochs"] else ", of which start, training and evaluation take their part"
    rows.insert(5, ("time", f"{length} on {where}{split}"))
    facts(f"Plan for {config.data}", rows)
