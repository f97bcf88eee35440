"""The steps of a training as a person follows them: a bar, looks at the held-out clips, checkpoints, a way to stop."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F

from tubelet.data.dataset import BadFile, Clips
from tubelet.data.loader import prefetch
from tubelet.media.reader import MediaError
from tubelet.screen import bar, clock, say
from tubelet.train.bad import BadFiles
from tubelet.train.features import Features
from tubelet.train.fit import Fit
from tubelet.train.plan import Plan
from tubelet.train.run import Run
from tubelet.train.stop import Stopped, signals
from tubelet.train.team import Team

LOOKS = (5, 20)  # fewest and most times that held-out clips are looked at during training
LOOK_CLIPS = 256  # how many of them, at most, each time
WAIT_SHARE = 0.1  # of training that may go by in waiting for clips before something is advised
LOOK_SHARE = 0.1  # of the work that looking may take; a clip looked at is a third of one learned from


def learn(fit: Fit, run: Run, held: Clips | Features, *, bad: BadFiles, title: str, show: bool) -> None:
    """The rest of the steps, with looks at the held-out clips, checkpoints, and a bar.

    Raises:
        Stopped: on a signal, after a checkpoint.
        EnvironmentTrouble: checkpoints cannot be written.
        ValueError: more training files than `--max-bad` allows cannot be read; after a checkpoint too.
    """
    plan, team = fit.plan, fit.team
    every, saved = look_every(fit, held), time.monotonic()
    waits: list[tuple[float, float]] = []
    held_accuracy, stop = "", 0
    board = curves(run, wanted=plan.config.tensorboard and team.first)
    with signals(show=team.first) as caught, board as draw, bar(title, fit.steps, show=show) as progress:
        progress.start_at(fit.step)
        begun, first = time.monotonic(), fit.step

        def after(figures: dict[str, float]) -> bool:
            nonlocal saved, held_accuracy, stop
            due = time.monotonic() - saved > 60 * plan.config.save_minutes
            figures, stop, due, found = shared(team, figures, caught[0] if caught else 0, due, bad.new(fit.clips.bad))
            fit.recent.append(figures)
            fit.clips.bad.update(found)
            bad.add(found.values())
            waits.append((figures["waited"], figures["seconds"]))
            step = fit.step
            if step % every == 0 or step == fit.steps:
                held_accuracy = f" held out {100 * look_and_log(fit, run, held, draw):.0f}%"
            rate = (time.monotonic() - begun) / (step - first)
            figures = summary(fit.recent or [figures], plan)
            progress.advance(
                f"loss {figures['loss']:.2f} acc {100 * figures['accuracy']:.0f}%{held_accuracy} "
                f"{figures['clips_per_second']:.0f} clips/s wait {100 * figures['data_wait']:.0f}% "
                f"{f'{bad.skipped} skipped ' if bad.skipped else ''}left {clock(rate * (fit.steps - step))}"
            )
            if stop or due or step == fit.steps:  # the last, for whoever stops the evaluation
                missed = save_state(fit, run, last=bool(stop) or step == fit.steps)
                if missed and show:
                    say("warning", missed)
                saved = time.monotonic()
            if found:
                check_bad(fit, run, bad)
            return bool(stop)

        fit.run(fit.steps, after=after)
    if show and waits:
        from_files = plan.spec.kind == "video" and isinstance(fit.clips, Clips) and not fit.clips.keep
        say("data wait", wait_words(waits, from_files=from_files))
    if stop:
        raise Stopped(run.path, stop)


def look_every(fit: Fit, held: Clips | Features) -> int:
    """Steps from one look at the held-out clips to the next."""
    affordable = int(LOOK_SHARE * 3 * fit.steps * fit.plan.config.batch / min(len(held), LOOK_CLIPS))
    return max(1, fit.steps // min(max(affordable, LOOKS[0]), LOOKS[1]))


def look_and_log(fit: Fit, run: Run, held: Clips | Features, draw: Callable[[dict[str, float], int], None]) -> float:
    """Writes down how the steps since the last time went, and a look at the held-out clips, whose accuracy it gives."""
    mean = summary(fit.recent, fit.plan)
    when = {"step": fit.step, "epoch": fit.step / (len(fit.clips) / fit.plan.config.batch)}
    fit.recent.clear()
    loss, accuracy = look(fit, held)
    if fit.team.first:
        run.log({"kind": "train", **when, **mean})
        run.log({"kind": "val", **when, "loss": loss, "accuracy": accuracy})
    draw({**mean, "val_loss": loss, "val_accuracy": accuracy}, fit.step)
    return accuracy


def wait_words(waits: list[tuple[float, float]], *, from_files: bool) -> str:
    """How much of the training's steps went by waiting for clips; (waited, whole) seconds of each step."""
    waited, seconds = (sum(column) for column in zip(*waits, strict=True))
    share = waited / max(seconds, 1e-9)
    advice = "; `tubelet prepare` makes a copy that is quicker to read" if from_files and share > WAIT_SHARE else ""
    return f"{100 * share:.0f}% of {clock(seconds)}{advice}"


def shared(
    team: Team, figures: dict[str, float], stop: int, due: bool, bad: dict[int, BadFile]
) -> tuple[dict[str, float], int, bool, dict[int, BadFile]]:
    """Loss and accuracy as means over the processes; the signal that one of them got, whether one wants to save, and
    the bad files that any of them found, by the numbers of the clips."""
    told = team.gather((figures["loss"], figures["right"], stop, due, bad))
    losses, rights, stops, dues, bads = zip(*told, strict=True)
    figures = {**figures, "loss": float(np.mean(losses)), "right": float(np.mean(rights))}
    return figures, max(stops), any(dues), {number: one for found in bads for number, one in found.items()}


def check_bad(fit: Fit, run: Run, bad: BadFiles) -> None:
    """Raises ValueError, in every process and with all saved, where more files than allowed cannot be read."""
    try:
        fit.team.together(bad.check)
    except ValueError:
        save_state(fit, run)
        raise


def save_state(fit: Fit, run: Run, *, last: bool = False) -> str:
    """A checkpoint, or what kept it from being written, in words; every process must call this. It must be written
    where it is the last; elsewhere training goes on with the one before, though not for ever."""
    tensors, state = fit.tensors()
    state["recent"] = fit.recent

    def write() -> str:
        return run.try_checkpoint(fit.step, tensors, state, last=last) if fit.team.first else ""

    missed = fit.team.together(write)
    if not missed:
        fit.saved_step = fit.step
    return missed


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


def spread(count: int) -> list[int]:
    """The clips, of `count`, that are looked at: evenly chosen where there are many."""
    return np.unique(np.linspace(0, count - 1, min(count, LOOK_CLIPS)).round().astype(int)).tolist()


@torch.no_grad()
def look(fit: Fit, held: Clips | Features) -> tuple[float, float]:
    """Loss and accuracy on held-out clips; only to be shown, nothing is chosen by it. Clips that cannot be read are
    passed over here, and counted in the end."""
    chosen = spread(len(held))
    fit.wrapped.eval()
    losses, right, seen = 0.0, 0, 0

    def read(number: int) -> torch.Tensor | None:
        if number in held.bad:
            return None
        try:
            clip = held.centre(number)
        except MediaError:
            return None
        return clip[:, [clip.shape[1] // 2]] if fit.single_frame else clip

    clips = prefetch(read, chosen, threads=fit.plan.workers, ahead=4 * fit.part)
    readable = ((clip, held.labels[number]) for number, clip in zip(chosen, clips, strict=True) if clip is not None)
    while batch := list(islice(readable, fit.part)):
        labels = torch.tensor([label for _, label in batch])
        with fit.autocast():
            logits = fit.model(torch.stack([clip for clip, _ in batch]).to(fit.team.device)).float().cpu()
        losses += F.cross_entropy(logits, labels, reduction="sum").item()
        right += int((logits.argmax(1) == labels).sum())
        seen += len(batch)
    if not seen:
        raise ValueError(f"none of {len(chosen)} held-out clips can be decoded: repair them")
    return losses / seen, right / seen


@contextmanager
def curves(run: Run, *, wanted: bool) -> Iterator[Callable[[dict[str, float], int], None]]:
    """What adds a step's values to curves for TensorBoard; to nothing unless they are wanted."""
    if not wanted:
        yield lambda values, step: None
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(run.path / "tensorboard") as board:

        def draw(values: dict[str, float], step: int) -> None:
            for name, value in values.items():
                board.add_scalar(name, value, step)

        yield draw
