"""A training on the screen: its plan and its results."""

import shlex
from functools import cache
from typing import Any

import numpy as np
import torch

from tubelet.data.dataset import kept_bytes
from tubelet.nn import ModelConfig
from tubelet.nn.cost import Info, describe
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.nn.regularise import regularise
from tubelet.nn.split import Rest
from tubelet.report.page import Finished, FinishedRun, describe_by_heart
from tubelet.runs.run import BAD_FILES, REPORT, Run
from tubelet.system.console import clock, facts, say, size
from tubelet.system.team import Team
from tubelet.system.text import plural
from tubelet.tasks import Results
from tubelet.train.plan import Plan

FACTS_SHOWN = 2  # of a task's further figures


def plan_rows(plan: Plan, run: Run) -> list[tuple[str, str]]:
    spec, config = plan.spec, plan.config
    info = describe_config(plan.model, **config.regularisation)
    learned, learns = count_learned(plan.model)
    splits = ", ".join(f"{len(plan.data.items(split))} {split}" for split in plan.data.counts())
    t, h, w = spec.clip_size
    what = {
        "video": f"{t} frames of {h}x{w} px, {spec.seconds_between_frames:.3g} s apart: {spec.span_seconds:.3g} s",
        "image": f"{h}x{w} px",
        "sound": f"{h} mel bins x {w} columns, {1000 * spec.seconds_between_frames:.3g} ms apart: "
        f"{spec.span_seconds:.3g} s",
    }[spec.kind]
    names = plan.data.source.task.names
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    cost = f"{info.parameters / 1e6:.1f} M parameters, {info.gmacs:.2f} GMACs a clip"
    return [
        ("task", f"{plan.data.source.task.describe()}: {shown}"),
        ("clips", f"{splits}; median {np.median(plan.data.durations()):.3g} s" if spec.kind != "image" else splits),
        ("clip", what),
        ("model", f"{plan.model_name} with {plan.model.embed.kind} tokens: {cost}"),
        ("memory", f"{describe_memory(plan, info, learned)}; {describe_kept(plan)}"),
        *([("learns", f"{learns}, {learned:,} parameters; the encoder stays as it is")] * config.freeze),
        ("run", str(run.path)),
        *(("note", note) for note in plan.notes),
    ]


def describe_memory(plan: Plan, info: Info, learned: int) -> str:
    """The memory of a step, in words: weights, gradients and two moments in float32, and the activations of a part of
    the batch. learned: parameters that learn with a frozen encoder, from features."""
    config, team, node = plan.config, plan.processes.team, plan.processes.node
    if config.freeze:  # the report's maps go through all of the model, as a step of training does
        rest = size(16 * learned + 4 * (info.parameters - learned))
        maps = f", {size(4 * info.parameters + info.activation_bytes)} for the maps of the report"
        return f"about {rest} to learn{maps if plan.data.source.task.exclusive else ''}"
    part = max(1, config.batch // (config.accumulate * team))
    weights = 16 * info.parameters // (team if config.shard == "fsdp2" else 1)
    memory = weights + info.activation_bytes * part // (2 if plan.bfloat16 else 1)
    if team == 1:
        return f"about {size(memory)}"
    return f"about {size(memory)} in each of {team} processes, {size(node * memory)} on a machine"


def describe_kept(plan: Plan) -> str:
    """What stays in memory, or on the disk, of the files, in words."""
    if plan.config.freeze:
        return f"features of {1 + plan.config.freeze_views} views of each clip are kept"
    if not plan.keep:
        return "files are read each time"
    kept, copies = size(kept_bytes(plan.spec, plan.data.durations())), plan.processes.copies
    where = (
        f" of each of {copies} processes" if copies > 1 else ", once on a machine" if plan.processes.node > 1 else ""
    )
    return f"decoded files stay in memory{where} ({kept})"


@cache
def describe_config(config: ModelConfig, **regularisation: Any) -> Info:
    with torch.device("meta"):
        model = SpaceTimeTransformer(config)
    regularise(model, **regularisation)
    return describe(model)


@cache
def count_learned(model: ModelConfig) -> tuple[int, str]:
    """Parameters that learn with a frozen encoder, and what they are."""
    with torch.device("meta"):
        rest = Rest(SpaceTimeTransformer(model))
    return sum(parameter.numel() for parameter in rest.parameters()), rest.what


def describe_length(train: dict[str, Any]) -> str:
    """The length of a training of these settings, in words."""
    return plural(train["epochs"], "epoch") if train["epochs"] else plural(train["minutes"], "minute")


def other_length(plan: Plan, run: Run) -> list[str]:
    """A note where another length is asked for than the one that a run was begun with, which stays."""
    begun, asked = describe_length(run.config["train"]), describe_length(plan.config.to_json())
    return [f"with {begun}, as it was begun, not {asked}: that takes another --out"] if asked != begun else []


def print_plan(plan: Plan, run: Run, team: Team) -> None:
    rows = plan_rows(plan, run)
    config = plan.config
    length = describe_length(run.config["train"])  # of a run that goes on, as it was begun
    where = str(team.device) + (f" x {team.size} processes" if team.size > 1 else "")
    split = "" if run.config["train"]["epochs"] else ", of which start, training and evaluation take their part"
    rows.insert(5, ("time", f"{length} on {where}{split}"))
    facts(f"Plan for {config.data}", rows)


def print_results(run: Finished) -> None:
    summary, results = run.summary, run.results
    low, high = map(summary.number, summary.interval)
    seen = f"on {plural(summary.clips, run.noun)} never seen ({low} to {high})"
    rows = [("this model", f"{summary.say(summary.figure)} {seen}")]
    rows += [("baseline", f"{summary.number(figure)} by {name}") for name, figure in run.baselines]
    rows += summary.facts()[:FACTS_SHOWN]
    if summary.failed:
        rows.append(("unreadable", f"{plural(summary.failed, f'more {run.noun}')}; see {BAD_FILES}"))
    if results["train_skipped"]:
        skipped = f"{results['train_skipped']} of {results['train_files']} training files could not be read"
        rows.append(("skipped", f"{skipped}; see {BAD_FILES}"))
    if (settled := results["settled"]) and settled["shortage"]:
        rows.append(("not calibrated", settled["shortage"]))
    rows += freeze_rows(summary, results)
    facts("Result", rows)
    say_next(run, "predict")


def say_next(run: FinishedRun, command: str) -> None:
    """Whether the figure is worth something, where the report is, and what can be done with the run."""
    if min(run.summary.interval_above(name, figure)[0] for name, figure in run.baselines) <= 0:
        say("warning", f"not clearly better than that: more {run.noun}s, more --minutes or --init may help")
    if by_heart := describe_by_heart(run):
        say("warning", by_heart)
    say("report", run.path / REPORT)
    say("next  ", f"tubelet {command} {shlex.quote(str(run.path))} FILE")


def freeze_rows(summary: Results, results: dict[str, Any]) -> list[tuple[str, str]]:
    """The layers that learned, and the cost of freezing the rest, if it was measured."""
    frozen = results["frozen"]
    if frozen is None:
        return []
    whole = frozen["all_weights"]
    if whole is None:
        gap = "not measured: --compare trains them too, from the same start, and says what freezing costs"
    else:
        figure, times = whole[summary.figure_name], (whole["seconds_total"], results["seconds_total"])
        points = 100 * (figure - summary.figure)
        gap = (
            f"{summary.say(figure)}, {abs(points):.1f} points {'more' if points >= 0 else 'less'}, "
            f"in {clock(times[0])} instead of {clock(times[1])}, {times[0] / max(times[1], 1e-9):.1f} times as long"
        )
    return [("learned", f"{frozen['learned']}; the encoder stayed as it was"), ("all weights", gap)]
