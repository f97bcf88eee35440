"""One training, from its settings to a finished run directory."""

import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from tubelet.data.dataset import Clips, UserAugmentation
from tubelet.data.loader import prefetch
from tubelet.evaluate import parse_views
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.screen import bar, clock, say
from tubelet.train.begin import open_run, print_plan
from tubelet.train.config import TrainConfig
from tubelet.train.finish import finish
from tubelet.train.fit import Fit, part_of_batch
from tubelet.train.learn import Stopped, learn
from tubelet.train.plan import Plan, make_plan
from tubelet.train.run import Run
from tubelet.train.team import Team
from tubelet.weights.image import init_from_image

__all__ = ["Stopped", "train_fn"]

MOST_EPOCHS = 300  # a small set is not gone through more often, however much time there is
WARM_STEPS, TIMED_STEPS = 3, 9


def train_fn(config: TrainConfig, *, user_augmentation: UserAugmentation | None = None, show: bool = True) -> Path:
    """Trains, evaluates and reports; returns the run directory. Call it under torchrun to train with several processes;
    all but the first return when the training is done, before the evaluation.

    user_augmentation: any callable from a clip (C, T, H, W), uint8 or for sound float, to the same, after ours.

    Raises:
        ValueError: data or settings that cannot work.
        Stopped: Ctrl-C or SIGTERM; call again with the same settings to go on.
    """
    team = Team.join(config.device)
    show = show and team.first
    plan = team.together(lambda: settle(config, team))
    run = team.first_alone(lambda: open_run(plan))
    # kept or not, clips differ a little: a run that goes on does as it did
    changes = replace(plan.changes, user=user_augmentation)
    plan = replace(plan, changes=changes, keep=run.config()["data"].get("keep", plan.keep))
    train_clips, held_clips = clips_of(plan, "train"), clips_of(plan, plan.held_out)
    if show:
        print_plan(plan, run, team)
    team.together(lambda: read_all(plan, train_clips, held_clips, show=show))
    checkpoint, notes = run.newest_checkpoint()
    model = team.together(lambda: new_model(plan, run, team, init=not checkpoint, show=show))
    steps = checkpoint.state["steps"] if checkpoint else decide_steps(plan, train_clips, team, show=show)
    fit = Fit(plan=plan, model=model, clips=train_clips, team=team, steps=steps)
    if checkpoint:
        fit.resume(checkpoint.step, checkpoint.tensors)
        notes.append(f"from step {fit.step} of {steps}")
    if team.first:
        run.forget_metrics_after(fit.step)
    for note in notes if show else ():
        say("going on", note)
    begun = time.monotonic()
    learn(fit, run, held_clips, title="training", show=show)
    finish(fit, run, begun, show=show)
    return run.path


def settle(config: TrainConfig, team: Team) -> Plan:
    """The plan. Raises ValueError for all that cannot work and can be known before a run directory is made."""
    part_of_batch(config, team.size)
    if config.shard == "fsdp2" and team.size == 1:
        raise ValueError("--shard fsdp2 spreads a model over processes: start it with torchrun --nproc-per-node N")
    if config.tensorboard and not find_spec("tensorboard"):
        raise ValueError("--tensorboard needs TensorBoard: pip install 'tubelet[tensorboard]'")
    plan = make_plan(config, team.device)
    parse_views(config.views, plan.spec.kind)
    return plan


def new_model(plan: Plan, run: Run, team: Team, *, init: bool, show: bool) -> SpaceTimeTransformer:
    torch.manual_seed(plan.config.seed)
    model = SpaceTimeTransformer(plan.model)
    if init and plan.config.init:
        lines = init_from_image(model, plan.config.init)
        if team.first:
            run.write_text("init.txt", "\n".join(lines) + "\n")
        if show:
            say("started from", f"{plan.config.init}: {len(lines)} lines in {run.path / 'init.txt'}")
    return model


def clips_of(plan: Plan, split: str) -> Clips:
    return Clips(plan.source.root, plan.items(split), plan.source.classes, plan.spec, keep=plan.keep)


def read_all(plan: Plan, *sets: Clips, show: bool) -> None:
    """Decodes every file once, where frames are kept in memory, so that training never waits for a disk."""
    if not plan.keep:
        return
    todo = [(clips, number) for clips in sets for number in range(len(clips))]

    def read(one: tuple[Clips, int]) -> None:
        clips, number = one
        try:
            clips.timeline(number)
        except ValueError:
            if clips is sets[0]:
                raise  # a training clip; a held-out one is counted when it is asked for

    with bar("reading", len(todo), show=show) as progress:
        for _ in prefetch(read, todo, threads=plan.workers, ahead=4 * plan.workers):
            progress.advance(f"{progress.done + 1}/{progress.total} files")


def decide_steps(plan: Plan, clips: Clips, team: Team, *, show: bool) -> int:
    """Steps that fill the time budget, by timing a few on a copy; or those of the epochs asked for."""
    config = plan.config
    per_epoch = len(clips) / config.batch
    if config.epochs is not None:
        return max(1, round(config.epochs * per_epoch))
    torch.manual_seed(config.seed)
    trial = Fit(plan=plan, model=SpaceTimeTransformer(plan.model), clips=clips, team=team, steps=1000)
    seconds: list[float] = []

    def after(figures: dict[str, float]) -> bool:
        seconds.append(figures["seconds"])
        return False

    trial.run(WARM_STEPS + TIMED_STEPS, after=after)
    step_seconds = team.gather(float(np.median(seconds[WARM_STEPS:])))[0]
    steps = max(1, int(min(config.minutes * 60 / step_seconds, MOST_EPOCHS * per_epoch)))
    if show:
        time_left = clock(steps * step_seconds)
        pace = f"{1000 * step_seconds:.0f} ms a step: {steps} steps, {steps / per_epoch:.3g} epochs, about {time_left}"
        say("pace", pace)
    return steps
