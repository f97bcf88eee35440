"""One training, from its settings to a finished run directory."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from tubelet.data.dataset import Clips, UserAugmentation
from tubelet.data.loader import prefetch
from tubelet.evaluate import parse_views
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.screen import bar, clock, console
from tubelet.train.begin import open_run, print_plan
from tubelet.train.config import TrainConfig
from tubelet.train.finish import finish
from tubelet.train.fit import Fit
from tubelet.train.learn import Stopped, learn
from tubelet.train.plan import Plan, make_plan
from tubelet.train.run import Run
from tubelet.train.team import Team
from tubelet.weights.image import init_from_image

__all__ = ["Stopped", "train_fn"]

MOST_EPOCHS = 300  # a small set is not gone through more often, however much time there is
TIMED_STEPS = 5


def train_fn(config: TrainConfig, *, user_augmentation: UserAugmentation | None = None, show: bool = True) -> Path:
    """Trains, evaluates and reports; returns the run directory. Call it under torchrun to train with several processes.

    user_augmentation: any callable (C, T, H, W) uint8 -> same, applied to each training clip after ours.

    Raises:
        ValueError: data or settings that cannot work.
        Stopped: Ctrl-C or SIGTERM; call again with the same settings to go on.
    """
    team = Team.join(config.device)
    try:
        return train(config, team, user_augmentation, show=show and team.first)
    finally:
        team.leave()


def train(config: TrainConfig, team: Team, user_augmentation: UserAugmentation | None, *, show: bool) -> Path:
    parse_views(config.views)
    plan = make_plan(config, team.device)
    plan = replace(plan, changes=replace(plan.changes, user=user_augmentation))
    run, resumed = team.agree(open_run(plan) if team.first else (Run(Path()), False))
    train_clips, held_clips = clips_of(plan, "train"), clips_of(plan, plan.held_out)
    if show:
        print_plan(plan, run, team)
    read_all(plan, train_clips, held_clips, show=show)
    torch.manual_seed(config.seed)
    model = SpaceTimeTransformer(plan.model)
    if config.init and not resumed:
        lines = init_from_image(model, config.init)
        if show:
            console.print(f"[cyan]started from[/] {config.init}: {len(lines)} lines in {run.path / 'init.txt'}")
        if team.first:
            (run.path / "init.txt").write_text("\n".join(lines) + "\n")
    checkpoint = run.newest_checkpoint() if resumed else None
    steps = checkpoint[2]["steps"] if checkpoint else team.agree(decide_steps(plan, train_clips, team, show=show))
    fit = Fit(plan=plan, model=model, clips=train_clips, team=team, steps=steps)
    if checkpoint:
        step, tensors, _, notes = checkpoint
        fit.resume(step, tensors)
        if team.first:
            run.forget_metrics_after(step)
        if show:
            console.print(*notes, f"[green]going on from step {step} of {steps}[/]", sep="\n")
    begun = time.monotonic()
    learn(fit, run, held_clips, title="training", show=show)
    finish(fit, run, begun, show=show)
    return run.path


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

    trial.run(2 + TIMED_STEPS, after=after)
    step_seconds = float(np.median(seconds[2:]))
    steps = int(min(config.minutes * 60 / step_seconds, MOST_EPOCHS * per_epoch))
    steps = max(steps, 1)
    if show:
        console.print(
            f"[cyan]pace[/]  {1000 * step_seconds:.0f} ms a step: {steps} steps, "
            f"{steps / per_epoch:.3g} epochs, about {clock(steps * step_seconds)}"
        )
    return steps
