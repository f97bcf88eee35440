"""The steps of a training with a bar, looks at the held-out clips, checkpoints, and a way to stop."""

import time
from contextlib import nullcontext
from dataclasses import astuple, dataclass, replace
from itertools import chain, islice
from typing import Any

import numpy as np
import torch

from tubelet.data.dataset import Clips
from tubelet.data.prefetch import prefetch
from tubelet.media.reader import MediaError
from tubelet.runs.run import Run
from tubelet.system.console import bar, clock, say
from tubelet.system.exits import Stopped
from tubelet.system.signals import signals
from tubelet.system.team import Team
from tubelet.system.text import plural
from tubelet.train.feature_cache import Features
from tubelet.train.pace import FIRST_STEPS, Decision
from tubelet.train.trainer import Best, Fit

UNDECIDED = (-1, 0.0, 0, 0.0)  # stands for no decision among numbers
VALIDATIONS = (5, 20)  # fewest and most times that held-out clips are looked at during training
VALIDATION_CLIPS = 256  # how many of them, at most, each time
WAIT_SHARE = 0.1  # of training that may go by in waiting for clips before something is advised
VALIDATION_SHARE = 0.1  # of the work that looking may take; a clip looked at is a third of one learned from


def train_steps(
    fit: Fit, run: Run, held: Clips | Features, *, recent: list[dict[str, float]], title: str, show: bool
) -> None:
    """The rest of the steps, with looks at the held-out clips, checkpoints, and a bar.

    recent: figures of the steps since they were last logged.

    Raises:
        Stopped: on a signal, after a checkpoint.
        EnvironmentTrouble: checkpoints cannot be written.
        ValueError: more training files than `--max-bad` allows cannot be read; after a checkpoint too.
    """
    plan, team, pace, name, bad = fit.plan, fit.team, fit.pace, fit.task.figure_name, fit.clips.bad
    saved = time.monotonic()
    waits: list[tuple[float, float]] = []
    held_score, stop = "", 0
    board: Any = nullcontext()
    if plan.config.tensorboard and team.first:
        from torch.utils.tensorboard import SummaryWriter

        board = SummaryWriter(run.path / "tensorboard")
    with signals(show=team.first) as caught, board as writer, bar(title, pace.steps, show=show) as progress:
        progress.done = fit.step

        def after(figures: list[dict[str, float]]) -> bool:
            nonlocal saved, held_score, stop
            due = time.monotonic() - saved > 60 * plan.config.save_minutes
            wanted = pace.decide(fit.step, figures[-1]["seconds"], len(figures)) if team.first else None
            word = Word(caught[0] if caught else 0, due, len(bad.unannounced()), pace.next_meeting(fit.step), wanted)
            figures, word = agree(team, figures, word)
            stop, due, fit.meeting = word.signal, word.due, word.meeting
            found = [*chain(*team.gather(bad.unannounced()))] if word.bad else []
            recent.extend(figures)
            bad.announce(found)
            waits.extend((one["waited"], one["seconds"]) for one in figures)
            step, look_due = fit.step, is_validation_due(fit, held)
            if word.decision:
                pace.take(word.decision)
            if show and step == FIRST_STEPS[-1]:
                say("pace", describe_pace(fit))
            if look_due or step == pace.steps:
                held_score = f" held out {100 * validate_and_log(fit, run, held, recent, writer):.0f}%"
                patience = plan.config.patience
                if patience is not None and fit.best is not None and fit.best.worse_looks >= patience:
                    pace.take(replace(pace.decision, step=step, progress=1.0, steps=step))
            mean, progress.total = summary(recent or figures, fit), pace.steps
            progress.advance(
                f"loss {mean['loss']:.2f} {name} {100 * mean[name]:.0f}%{held_score} "
                f"{mean['clips_per_second']:.0f} clips/s wait {100 * mean['data_wait']:.0f}% "
                f"{f'{bad.skipped} skipped ' if bad.skipped else ''}left {clock(seconds_left(fit))}",
                by=len(figures),
            )
            if stop or due or step == pace.steps:  # the last, in case the evaluation is stopped
                missed = fit.save(run, recent, last=bool(stop) or step == pace.steps)
                if missed and show:
                    say("warning", missed)
                saved = time.monotonic()
            if found:
                try:
                    team.run_together(bad.check)
                except ValueError:  # in every process
                    fit.save(run, recent)
                    raise
            return bool(stop)

        try:
            fit.run(after=after, due=lambda: is_validation_due(fit, held))
        except ValueError:
            bad.announce(bad.unannounced())
            raise
    if show and waits:
        from_files = plan.spec.kind == "video" and isinstance(fit.clips, Clips) and not fit.clips.keep
        say("data wait", describe_wait(waits, from_files=from_files))
    if stop:
        raise Stopped(run.path, stop)


@dataclass(frozen=True)
class Word:
    """What a process says at a meeting: a signal or 0, whether it wants to save, how many bad files it has found, the
    step of the next meeting, and a decision on the pace."""

    signal: int
    due: bool
    bad: int
    meeting: int
    decision: Decision | None


def agree(team: Team, figures: list[dict[str, float]], word: Word) -> tuple[list[dict[str, float]], Word]:
    """The figures of steps and the words of all processes as one, by one small tensor: loss and score are means, the
    strongest signal counts, one that wants to save is enough, bad files add up, and the first decides."""
    said = [word.signal, word.due, word.bad, word.meeting, *(astuple(word.decision) if word.decision else UNDECIDED)]
    numbers = team.gather_numbers([*said, *chain(*((one["loss"], one["score"]) for one in figures))])
    signals, dues, bad, meetings, *_ = zip(*numbers)
    step, progress, steps, seconds = numbers[0][4 : len(said)]
    decision = Decision(int(step), progress, int(steps), seconds) if step >= 0 else None
    means = np.mean([one[len(said) :] for one in numbers], axis=0).reshape(-1, 2)
    figures = [{**one, "loss": float(loss), "score": float(score)} for one, (loss, score) in zip(figures, means)]
    return figures, Word(int(max(signals)), any(dues), int(sum(bad)), int(meetings[0]), decision)


def count_validations(fit: Fit, held: Clips | Features) -> int:
    """The number of looks at held-out clips in a training."""
    affordable = int(VALIDATION_SHARE * 3 * fit.pace.steps * fit.plan.config.batch / min(len(held), VALIDATION_CLIPS))
    return min(max(affordable, VALIDATIONS[0]), VALIDATIONS[1])


def is_validation_due(fit: Fit, held: Clips | Features) -> bool:
    """Whether held-out clips are looked at after this step: at even shares of the progress."""
    looks, rounding = count_validations(fit, held), 1e-9
    before, now = (int(looks * fit.pace.progress(step) + rounding) for step in (fit.step - 1, fit.step))
    return now > before


def seconds_left(fit: Fit) -> float:
    """Seconds until the last step, at the pace of the last ones."""
    return fit.pace.step_seconds * (fit.pace.steps - fit.step)


def describe_pace(fit: Fit) -> str:
    """The pace of the first steps, the number of steps that it allows, and the shares of the time, in words."""
    pace, budget = fit.pace, fit.pace.budget
    epochs = pace.steps * fit.plan.config.batch / len(fit.clips)
    steps = f"{1000 * pace.step_seconds:.0f} ms a step now: {plural(pace.steps, 'step')}, {epochs:.3g} epochs"
    if budget is None:
        return f"{steps}, about {clock(seconds_left(fit))}"
    return (
        f"{steps} as it stands; {clock(budget.spent)} went by before, about {clock(seconds_left(fit))} are for them, "
        f"{clock(budget.looks_seconds + budget.after)} for looks and the evaluation"
    )


def validate_and_log(fit: Fit, run: Run, held: Clips | Features, recent: list[dict[str, float]], writer: Any) -> float:
    """Logs the means of the recent steps and the loss and score on held-out clips; returns the score. Where it is the
    best so far, the weights are kept. Every process must call this.

    writer: of curves for TensorBoard, or None.
    """
    mean, name = summary(recent, fit), fit.task.figure_name
    when = {"step": fit.step, "epoch": fit.step / (len(fit.clips) / fit.plan.config.batch)}
    recent.clear()
    begun = time.monotonic()
    loss, score = fit.team.gather_numbers(validate(fit, held))[0]
    if fit.plan.data.chooses and fit.best and not (score, -loss) > (fit.best.score, -fit.best.loss):
        fit.best.worse_looks += 1
    elif fit.plan.data.chooses:
        weights = {name: value.detach().cpu().clone() for name, value in fit.final_weights().items()}
        fit.best = Best(fit.step, score, loss, weights)
    if fit.team.first:
        run.log({"kind": "train", **when, **mean})
        run.log({"kind": "val", **when, "loss": loss, name: score})
    if writer:
        for key, value in {**mean, "val_loss": loss, f"val_{name}": score}.items():
            writer.add_scalar(key, value, fit.step)
    if budget := fit.pace.budget:
        seconds = time.monotonic() - begun
        budget.looks_seconds = seconds * round(count_validations(fit, held) * (1 - fit.pace.progress(fit.step)))
        if isinstance(held, Clips):  # the encoder of features is not at work in a look
            budget.clip_seconds = seconds / min(len(held), VALIDATION_CLIPS)
    return score


def describe_wait(waits: list[tuple[float, float]], *, from_files: bool) -> str:
    """The share of the training that went by waiting for clips, in words; (waited, whole) seconds of each step."""
    waited, seconds = (sum(column) for column in zip(*waits, strict=True))
    share = waited / max(seconds, 1e-9)
    advice = "; `tubelet prepare` makes a copy that is quicker to read" if from_files and share > WAIT_SHARE else ""
    return f"{100 * share:.0f}% of {clock(seconds)}{advice}"


def summary(recent: list[dict[str, float]], fit: Fit) -> dict[str, float]:
    """Means of the figures of steps, and their clips a second and share of waiting."""
    seconds = sum(f["seconds"] for f in recent)
    return {
        "loss": float(np.mean([f["loss"] for f in recent])),
        fit.task.figure_name: float(np.mean([f["score"] for f in recent])),
        "lr": recent[-1]["lr"],
        "clips_per_second": fit.plan.config.batch * len(recent) / max(seconds, 1e-9),
        "data_wait": sum(f["waited"] for f in recent) / max(seconds, 1e-9),
        "seconds": seconds,
    }


def spread_evenly(count: int) -> list[int]:
    """The clips, of `count`, that are looked at: evenly chosen where there are many."""
    return np.unique(np.linspace(0, count - 1, min(count, VALIDATION_CLIPS)).round().astype(int)).tolist()


@torch.no_grad()
def validate(fit: Fit, held: Clips | Features) -> tuple[float, float]:
    """Mean loss and score on held-out clips. Those that cannot be read are passed over here, and counted in the end."""
    chosen = spread_evenly(len(held))
    fit.wrapped.eval()
    losses, score, seen = 0.0, 0.0, 0

    def read(number: int) -> torch.Tensor | None:
        if held.is_bad(number):
            return None
        try:
            clip = held.centre(number)
        except MediaError:
            return None
        return clip[:, [clip.shape[1] // 2]] if fit.single_frame else clip

    clips = prefetch(read, chosen, threads=fit.plan.workers, ahead=4 * fit.part)
    readable = ((clip, number) for number, clip in zip(chosen, clips, strict=True) if clip is not None)
    while batch := list(islice(readable, fit.part)):
        targets = held.targets[[number for _, number in batch]]
        with fit.autocast():
            logits = fit.model(torch.stack([clip for clip, _ in batch]).to(fit.team.device)).float().cpu()
        losses += fit.task.loss(logits, fit.task.soften(targets, 0.0)).item() * len(batch)
        score += fit.task.score(logits, targets).sum().item()
        seen += len(batch)
    if not seen:
        raise ValueError(f"none of {len(chosen)} held-out clips can be decoded: repair them")
    return losses / seen, score / seen
