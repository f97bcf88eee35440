"""The steps of a training as a person follows them: a bar, looks at the held-out clips, checkpoints, a way to stop."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from tubelet.data.dataset import Clips
from tubelet.data.loader import prefetch
from tubelet.screen import bar, clock, console
from tubelet.train.fit import Fit
from tubelet.train.plan import Plan
from tubelet.train.run import Run

LOOKS = 20  # times the held-out clips are looked at during training
LOOK_CLIPS = 256  # how many of them, at most, each time


class Stopped(Exception):
    """Training was stopped by a signal, with everything saved; `signal` says which."""

    def __init__(self, run: Path, number: int):
        super().__init__(f"stopped; the same command goes on from {run}")
        self.run, self.signal = run, number


def learn(fit: Fit, run: Run, held: Clips, *, title: str, show: bool) -> None:
    """The rest of the steps, with looks at the held-out clips, checkpoints, and a bar.

    Raises:
        Stopped: on a signal, after a checkpoint.
    """
    plan, team = fit.plan, fit.team
    per_epoch = len(fit.clips) / plan.config.batch
    look_every = max(1, fit.steps // LOOKS)
    saved = time.monotonic()
    recent: list[dict[str, float]] = []
    held_accuracy = ""
    board = open_tensorboard(run) if plan.config.tensorboard and team.first else None
    with signals() as caught, bar(title, fit.steps, show=show) as progress:
        progress.start_at(fit.step)
        begun, first = time.monotonic(), fit.step

        def after(figures: dict[str, float]) -> bool:
            nonlocal saved, held_accuracy
            recent.append(figures)
            step = fit.step
            if step % look_every == 0 or step == fit.steps:
                mean, when = summary(recent, plan), {"step": step, "epoch": step / per_epoch}
                recent.clear()
                loss, accuracy = look(fit, held)
                held_accuracy = f" held out {100 * accuracy:.0f}%"
                if team.first:
                    run.log({"kind": "train", **when, **mean})
                    run.log({"kind": "val", **when, "loss": loss, "accuracy": accuracy})
                if board:
                    for name, value in {**mean, "val_loss": loss, "val_accuracy": accuracy}.items():
                        board.add_scalar(name, value, step)
            rate = (time.monotonic() - begun) / (step - first)
            figures = summary(recent or [figures], plan)
            progress.advance(
                f"loss {figures['loss']:.2f} acc {100 * figures['accuracy']:.0f}%{held_accuracy} "
                f"{figures['clips_per_second']:.0f} clips/s wait {100 * figures['data_wait']:.0f}% "
                f"left {clock(rate * (fit.steps - step))}"
            )
            due = time.monotonic() - saved > 60 * plan.config.save_minutes and step < fit.steps
            stop, due = (any(flags) for flags in zip(*team.gather((bool(caught), due)), strict=True))
            if stop or due:
                save_state(fit, run)
                saved = time.monotonic()
            return stop

        fit.run(fit.steps, after=after)
    if fit.step < fit.steps:
        raise Stopped(run.path, caught[0] if caught else signal.SIGINT)


def save_state(fit: Fit, run: Run) -> None:
    tensors, state = fit.tensors()
    if fit.team.first:
        run.save_checkpoint(fit.step, tensors, state)


def summary(recent: list[dict[str, float]], plan: Plan) -> dict[str, float]:
    seconds = sum(f["seconds"] for f in recent)
    return {
        "loss": float(np.mean([f["loss"] for f in recent])),
        "accuracy": float(np.mean([f["right"] for f in recent])),
        "lr": recent[-1]["lr"],
        "clips_per_second": plan.config.batch * len(recent) / max(seconds, 1e-9),
        "data_wait": sum(f["waited"] for f in recent) / max(seconds, 1e-9),
        "seconds": seconds,
    }


@torch.no_grad()
def look(fit: Fit, held: Clips) -> tuple[float, float]:
    """Loss and accuracy on held-out clips, evenly chosen where there are many; only to be shown, nothing is chosen by
    it."""
    chosen = np.unique(np.linspace(0, len(held) - 1, min(len(held), LOOK_CLIPS)).round().astype(int))
    fit.wrapped.eval()
    losses, right = [], 0
    size_ = max(1, fit.part)

    def read(start: int) -> tuple[torch.Tensor, torch.Tensor]:
        numbers = chosen[start : start + size_]
        clips = [held.centre(n) for n in numbers]
        clips = [clip[:, [clip.shape[1] // 2]] if fit.single_frame else clip for clip in clips]
        return torch.stack(clips), torch.tensor([held.labels[n] for n in numbers])

    for clips, labels in prefetch(read, range(0, len(chosen), size_), threads=fit.plan.workers, ahead=4):
        with fit.autocast():
            logits = fit.model(clips.to(fit.team.device)).float().cpu()
        losses.append(F.cross_entropy(logits, labels, reduction="sum").item())
        right += int((logits.argmax(1) == labels).sum())
    return sum(losses) / len(chosen), right / len(chosen)


@contextmanager
def signals() -> Iterator[list[int]]:
    """Signals caught while inside; a second Ctrl-C ends at once."""
    caught: list[int] = []

    def catch(number: int, frame: object) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(number)
        console.print("\n[yellow]stopping after this step[/]")

    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before = {number: signal.signal(number, catch) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def open_tensorboard(run: Run) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError("--tensorboard needs TensorBoard: pip install 'tubelet[tensorboard]'") from error
    return SummaryWriter(run.path / "tensorboard")
