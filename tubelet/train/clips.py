"""The training of a model that answers for clips, from its settings to a finished run directory."""

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from tubelet.data.bad_files import BadFiles, read_list
from tubelet.data.dataset import Clips, UserAugmentation, kept_bytes
from tubelet.data.kept import count_copies, keep_once
from tubelet.data.prefetch import prefetch
from tubelet.data.segments import Span, StepLabels
from tubelet.media.address import join
from tubelet.media.reader import MediaError
from tubelet.media.workers import DEADLY, refuse_deadly
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.nn.regularise import regularise
from tubelet.nn.split import Rest
from tubelet.predict.answer import answer
from tubelet.runs.checkpoint import check_fits
from tubelet.runs.lock import hold
from tubelet.runs.run import BAD_FILES, INIT, METRICS, RESULTS, Run
from tubelet.system.console import bar, say
from tubelet.system.errors import EnvironmentTrouble, environment_error
from tubelet.system.spread import Spread, alone, choose_owner, lead
from tubelet.system.team import Team
from tubelet.train.config import TrainConfig
from tubelet.train.feature_cache import Cache, Features
from tubelet.train.finish import finish, measure
from tubelet.train.loop import spread_evenly, train_steps
from tubelet.train.pace import REPORT_SECONDS, Budget, Pace
from tubelet.train.plan import ONE_PROCESS, Plan, Processes, make_plan
from tubelet.train.resume import find_run, next_run, open_run
from tubelet.train.show import other_length, print_plan
from tubelet.train.trainer import Fit, part_of_batch, rename_score

# a small set is not gone through more often, however much time there is; the rest of a frozen model has learned sooner
MOST_EPOCHS, MOST_EPOCHS_FROZEN = 300, 60
TRIED = 4  # held-out items that are answered to see how long it takes
READ_SHARE = 0.25  # of the time budget, in which files are read ahead
BASELINE_SHARE = 0.15  # of the time budget, for a model of single frames


def train_clips(
    config: TrainConfig,
    *,
    user_augmentation: UserAugmentation | None,
    spans: Mapping[str | Path, Sequence[Span]] | None = None,
    show: bool,
    begun: float | None = None,
) -> Path:
    """Trains, evaluates and reports: `train_fn` for all tasks whose answers are for clips.

    spans: what happens when in the files: each step of a clip learns what holds then. The model must pool by the mean.
    """
    begun = time.monotonic() if begun is None else begun
    try:
        team = Team.join(config.device)
        if config.freeze and user_augmentation:
            raise ValueError(
                "--freeze keeps features for later, and cannot tell a user_augmentation from another: leave it"
            )
        show = show and team.first
        processes = Processes(team=team.size, node=team.local_size, copies=count_copies(team))
        plan = lead(team, lambda spread: settle(config, team, show=show, processes=processes, spread=spread))
        plan = replace(plan, changes=replace(plan.changes, user=user_augmentation))
        plan = plan.learn_steps(spans) if spans else plan
        with ExitStack() as to_the_end:
            run = team.run_in_first(lambda: find_run(config))
            team.run_in_first(lambda: to_the_end.enter_context(hold(run.path)))
            run = team.run_in_first(lambda: open_run(plan, run))
            train(plan, run, team, begun=begun, show=show)
        return run.path
    except Exception as error:
        trouble = environment_error(error)
        if trouble is None or trouble is error:
            raise
        raise EnvironmentTrouble(f"{trouble}. The same command goes on from the last checkpoint") from error


def train(plan: Plan, run: Run, team: Team, *, begun: float, show: bool) -> None:
    """The training of a plan in its run directory, from the first step or the last checkpoint to the report."""
    config = plan.config
    if show:
        print_plan(plan, run, team)
    checkpoint, notes = run.newest_checkpoint()
    init = config.freeze or not checkpoint
    model = team.run_together(lambda: new_model(plan, run, team, init=init, show=show))
    get = load_features if config.freeze else make_clips
    bad = team.run_together(lambda: bad_files(plan, run, team, show=show))
    budget = make_budget(run.config["train"], plan, begun)
    train_clips, held_clips = get(model, plan, run, team, bad, budget, show=show)
    bad.announce(chain(*team.gather(bad.unannounced())))
    team.run_together(bad.check)
    pace = Pace(most_steps(plan, train_clips), budget=budget, file=run.pace_file if team.first else None)
    learner: SpaceTimeTransformer | Rest = model
    if isinstance(train_clips, Features):
        learner = Rest(model)
        if not learner.encoders:
            learner.standardise(train_clips.all())
    fit = Fit(plan=plan, model=learner, clips=train_clips, team=team, pace=pace)
    recent: list[dict[str, float]] = []
    if checkpoint:
        average, best = bool(config.ema), "best" in checkpoint.state
        what = str(run.path)
        team.run_together(lambda: check_fits(checkpoint.tensors, fit.model, average=average, best=best, what=what))
        fit.resume(checkpoint.step, checkpoint.tensors, checkpoint.state)
        recent = [rename_score(figures, "right") for figures in checkpoint.state.get("recent", [])]
        about = "about " if budget else ""
        notes += [f"from step {fit.step} of {about}{pace.steps}", *other_length(plan, run)]
    elif team.first:
        run.pace_file.unlink(missing_ok=True)
    if team.first and (lost := run.forget_metrics_after(fit.step)):
        notes.append(f"{run.path / METRICS}: {lost} damaged lines are left out")
    for note in notes if show else ():
        say("going on", note)
    train_steps(fit, run, held_clips, recent=recent, title="training", show=show)
    finished = measure(fit, run, begun=begun, frozen=model.state_dict() if config.freeze else {}, show=show)
    if finished is None:
        return
    if config.compare:
        summary = finished.summary
        if show:
            say("frozen", f"{summary.say(summary.figure)}; now all weights learn, to compare")
        other = train_all(plan, run, show=show)
        whole = json.loads((other.path / RESULTS).read_text())
        kept = {key: whole[key] for key in (summary.figure_name, "clips", "seconds_total")}
        finished.results["frozen"]["all_weights"] = {"run": str(other.path), **kept}
    finish(plan, run, finished, show=show)


def bad_files(plan: Plan, run: Run, team: Team, *, show: bool) -> BadFiles:
    """The bad files that the plan found, or the run before it was stopped; one process keeps the list."""
    known, source = [*read_list(run.path / BAD_FILES), *plan.data.bad], plan.data.source
    paths = {item.name: str(join(source.root, item.path)) for item in source.items}
    for one in known:
        if one.code == DEADLY and one.path in paths:  # another process of the run met it
            refuse_deadly(paths[one.path], one.message)
    return BadFiles(
        plan.config.data,
        train_files=len(plan.data.items("train")) + sum(one.split == "train" for one in plan.data.bad),
        most=plan.config.most_bad,
        known=known,
        file=run.path / BAD_FILES if team.first else None,
        show=show,
    )


def train_all(plan: Plan, run: Run, *, show: bool) -> Run:
    """The run beside a frozen one, from the same start, of which all weights learn."""
    base = Run(run.path.with_name(f"{run.path.name}-all-weights"))
    config = replace(plan.config, freeze=False, compare=False, lr=None, layer_decay=None, out=base.path)
    if base.finished:  # before this one was stopped; or it belongs to an older one
        then = base.config
        if TrainConfig.from_json(then["train"]) == config and then["data"]["fingerprint"] == plan.fingerprint:
            return base
    return Run(train_clips(replace(config, out=next_run(base.path).path), user_augmentation=None, show=show))


def settle(
    config: TrainConfig, team: Team, *, show: bool, processes: Processes = ONE_PROCESS, spread: Spread = alone
) -> Plan:
    """The plan. Raises ValueError for all that cannot work and can be known before a run directory is made."""
    part_of_batch(config, team.size)
    if config.shard == "fsdp2" and team.size == 1:
        raise ValueError("--shard fsdp2 spreads a model over processes: start it with torchrun --nproc-per-node N")
    if config.tensorboard and not find_spec("tensorboard"):
        raise ValueError("--tensorboard needs TensorBoard: pip install 'tubelet[tensorboard]'")
    if config.freeze and team.size > 1:
        raise ValueError(f"--freeze works in one process, got {team.size}: start it without torchrun")
    if config.freeze and config.stills:
        raise ValueError("--stills changes what an encoder learns from, --freeze lets none learn: leave one out")
    if config.freeze and config.compile == "on":
        raise ValueError("--compile compiles what learns, --freeze lets hardly anything learn: leave one of them out")
    if config.freeze and config.baseline:
        raise ValueError("--baseline learns from frames, --freeze from features: leave one of them out")
    plan = make_plan(config, team.device, show=show, spread=spread, processes=processes)
    if config.stills and plan.spec.kind != "video":
        raise ValueError(f"--stills mixes frames into videos, the data are of kind {plan.spec.kind!r}: leave it out")
    if config.baseline and plan.model.stages[0].kind == "windows":
        raise ValueError(f"--baseline trains a plain encoder of one frame, {plan.model_name} has stages: leave it out")
    if config.patience and not plan.data.chooses:
        raise ValueError(
            "--patience ends a training by validation clips, and what it is measured on must be others: give the data "
            "a val and a test split"
        )
    return plan


def new_model(plan: Plan, run: Run, team: Team, *, init: bool, show: bool) -> SpaceTimeTransformer:
    torch.manual_seed(plan.config.seed)
    model = SpaceTimeTransformer(plan.model)
    regularise(model, **plan.config.regularisation)
    if init and plan.start:
        lines = plan.start.fill(model)
        if team.first:
            run.write_text(INIT, "\n".join(lines) + "\n")
        if show:
            say("started from", f"{plan.start}: {len(lines)} lines in {run.path / INIT}")
    return model


def load_features(
    model: SpaceTimeTransformer, plan: Plan, run: Run, team: Team, bad: BadFiles, budget: Budget | None, *, show: bool
) -> tuple[Features, Features]:
    """Features of the clips to train on, and of the held-out clips that are looked at meanwhile."""
    cache, held = Cache(model, plan, run, team, bad), plan.data.items(plan.data.validation_split)
    train = cache.load(plan.data.items("train"), views=plan.config.freeze_views, title="features", show=show)
    looked_at = cache.load([held[i] for i in spread_evenly(len(held))], views=0, title="held out", show=show)
    if budget:  # looks are at features, the evaluation is of files
        measured, begun = plan.data.items(plan.data.held_out), time.monotonic()
        task, root, views = plan.data.source.task, plan.data.source.root, plan.config.views
        answer(model, plan.spec, task, root, measured[:TRIED], views_text=views)
        budget.clips = 0
        answered = sum(len(plan.data.items(split)) for split in plan.answered_splits) + len(plan.remembered)
        budget.other_seconds += (time.monotonic() - begun) / len(measured[:TRIED]) * answered
    return train, looked_at


def make_clips(
    model: SpaceTimeTransformer, plan: Plan, run: Run, team: Team, bad: BadFiles, budget: Budget | None, *, show: bool
) -> tuple[Clips, Clips]:
    """Clips to train on and held-out ones. Where frames are kept in memory, files are decoded now, so that training
    does not wait for a disk; those that a part of the time budget is too short for are decoded when their turn comes.
    """
    source, stem = plan.data.source, model.embed
    steps = StepLabels(plan.spans, stem.patch[0], stem.stride[0]) if plan.spans else None
    most_bytes = kept_bytes(plan.spec, plan.data.durations()) if plan.keep else 0
    train, held = (
        Clips(
            source.root,
            items,
            source.task,
            plan.spec,
            keep=plan.keep,
            kept=keep_once(team, 2 * len(items), most_bytes) if plan.keep else None,
            bad=bad,
            steps=steps,
        )
        for items in (plan.data.items("train"), plan.data.items(plan.data.validation_split))
    )
    if plan.keep:
        team.run_together(lambda: read_ahead(train, held, plan, team, budget, show=show))
    return train, held


def read_ahead(train: Clips, held: Clips, plan: Plan, team: Team, budget: Budget | None, *, show: bool) -> None:
    """Decodes the files that are this process's, of those that the processes of a machine share."""
    bad, source = train.bad, plan.data.source

    def is_mine(clips: Clips, number: int) -> bool:
        return choose_owner(clips.items[number].path, team.local_size) == team.local_rank

    def read_train(number: int) -> None:
        train.readable(number, 0.0)
        bad.check()

    def read_held(number: int) -> None:
        with suppress(MediaError):  # counted when they are asked for
            held.centre(number)

    # held-out ones first: a look that has to read them would be taken for what all looks cost
    todo = [(read_held, number) for number in spread_evenly(len(held)) if is_mine(held, number)]
    todo += [
        (read_train, number) for number in range(len(train)) if is_mine(train, number) and not train.is_bad(number)
    ]
    reading = prefetch(lambda one: one[0](one[1]), todo, threads=plan.workers, ahead=4 * plan.workers)
    with bar("reading", len(todo), show=show) as progress, closing(reading):
        for _ in reading:
            progress.advance(f"{progress.done + 1}/{progress.total} files left {progress.left}")
            if budget and budget.spent > READ_SHARE * budget.seconds:
                break
    if budget:  # the files of the evaluation are read anew; otherwise looks tell how long that takes
        measured = Clips(source.root, plan.data.items(plan.data.held_out), source.task, plan.spec, keep=False)
        begun, numbers = time.monotonic(), [i for i in range(len(measured)) if is_mine(measured, i)][:TRIED]
        for number in numbers:
            with suppress(MediaError):
                measured.centre(number)
        budget.other_seconds += (time.monotonic() - begun) / max(1, len(numbers)) * plan.answered_clips / plan.workers


def make_budget(train: dict[str, Any], plan: Plan, begun: float) -> Budget | None:
    """The time that a run was begun with; None where it goes by epochs."""
    if train["epochs"] is not None:
        return None
    seconds = 60 * train["minutes"]
    baseline = BASELINE_SHARE * seconds if plan.config.baseline else 0.0
    return Budget(seconds, begun, clips=plan.answered_clips, other_seconds=REPORT_SECONDS + baseline)


def most_steps(plan: Plan, clips: Clips | Features) -> int:
    """Steps of the epochs asked for; else of as many as make sense, in which each part of a long item is seen as often
    as a short one."""
    config, per_epoch = plan.config, len(clips) / plan.config.batch
    if config.epochs is not None:
        return max(1, round(config.epochs * per_epoch))
    return max(1, int((MOST_EPOCHS_FROZEN if config.freeze else MOST_EPOCHS * plan.clips_an_item) * per_epoch))
