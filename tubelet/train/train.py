"""One training, from its settings to a finished run directory."""

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

import tubelet
from tubelet.data.dataset import Clips, UserAugmentation
from tubelet.data.items import write_split
from tubelet.data.loader import prefetch
from tubelet.evaluate import Answer, answer, parse_views, results_of, write_predictions
from tubelet.media.reader import read_frames
from tubelet.media.sampling import clip_times
from tubelet.nn.model import ModelConfig, SpaceTimeTransformer
from tubelet.report import write_card, write_report
from tubelet.screen import bar, clock, console, facts, size
from tubelet.train.config import MAY_CHANGE, TrainConfig
from tubelet.train.fit import Fit
from tubelet.train.plan import Plan, make_plan
from tubelet.train.run import Run
from tubelet.train.team import Team
from tubelet.weights.image import init_from_image
from tubelet.weights.store import load_strict, save

MOST_EPOCHS = 300  # a small set is not gone through more often, however much time there is
LOOKS = 20  # times the held-out clips are looked at during training
LOOK_CLIPS = 256  # how many of them, at most, each time
TIMED_STEPS = 5


class Stopped(Exception):
    """Training was stopped by a signal, with everything saved; `signal` says which."""

    def __init__(self, run: Path, number: int):
        super().__init__(f"stopped; the same command goes on from {run}")
        self.run, self.signal = run, number


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
    from tubelet.info import describe

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
        "sound": f"{h} mel bins x {w} columns of {1000 * spec.seconds_between_frames:.3g} ms: {spec.span_seconds:.3g} s",
    }[spec.kind]
    names = list(plan.source.classes)
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    kept = f"; decoded files stay in memory ({size(plan.kept_bytes)})" if plan.keep else "; files are read each time"
    model = f"{plan.model_name}, {plan.model.embed} tokens, {info.parameters / 1e6:.1f} M parameters, {info.gmacs:.2f} GMACs"
    return [
        ("classes", f"{len(names)}: {shown}"),
        ("clips", f"{splits}; median {plan.clip_seconds:.3g} s" if spec.kind != "image" else splits),
        ("clip", what),
        ("model", model),
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


def read_all(plan: Plan, *sets: Clips, show: bool) -> None:
    """Decodes every file once, where frames are kept in memory, so that training never waits for a disk."""
    if not plan.keep:
        return
    todo = [(clips, number) for clips in sets for number in range(len(clips))]
    readable = {item.path for item in plan.source.items} if todo else set()

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
    assert readable or not todo


def decide_steps(plan: Plan, clips: Clips, team: Team, *, show: bool) -> int:
    """Steps that fill the time budget, by timing a few on a copy; or those of the epochs asked for."""
    config = plan.config
    per_epoch = len(clips) / config.batch
    if config.epochs is not None:
        return max(1, round(config.epochs * per_epoch))
    torch.manual_seed(config.seed)
    trial = Fit(plan=plan, model=SpaceTimeTransformer(plan.model), clips=clips, team=team, steps=1000)
    seconds: list[float] = []
    trial.run(2 + TIMED_STEPS, after=lambda figures: seconds.append(figures["seconds"]) or False)  # type: ignore[func-returns-value]
    step_seconds = float(np.median(seconds[2:]))
    steps = int(min(config.minutes * 60 / step_seconds, MOST_EPOCHS * per_epoch))
    steps = max(steps, 1)
    if show:
        console.print(
            f"[cyan]pace[/]  {1000 * step_seconds:.0f} ms a step: {steps} steps, "
            f"{steps / per_epoch:.3g} epochs, about {clock(steps * step_seconds)}"
        )
    return steps


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
                record = {"kind": "train", "step": step, "epoch": step / per_epoch, **summary(recent, plan)}
                recent.clear()
                loss, accuracy = look(fit, held)
                held_accuracy = f" held out {100 * accuracy:.0f}%"
                if team.first:
                    run.log(record)
                    run.log({"kind": "val", "step": step, "epoch": step / per_epoch, "loss": loss, "accuracy": accuracy})
                if board:
                    write_board(board, step, record, loss, accuracy)
            rate = (time.monotonic() - begun) / (step - first)
            figures = summary(recent or [figures], plan)
            progress.advance(
                f"loss {figures['loss']:.2f} acc {100 * figures['accuracy']:.0f}%{held_accuracy} "
                f"{figures['clips_per_second']:.0f} clips/s wait {100 * figures['data_wait']:.0f}% "
                f"left {clock(rate * (fit.steps - step))}"
            )
            stop = team.any(bool(caught)) if team.size > 1 else bool(caught)
            if stop or (time.monotonic() - saved > 60 * plan.config.save_minutes and step < fit.steps and team.size == 1):
                save_state(fit, run)
                saved = time.monotonic()
            return stop

        fit.run(fit.steps, after=after)
    if team.any(bool(caught)) and fit.step < fit.steps:
        raise Stopped(run.path, caught[0] if caught else signal.SIGTERM)


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


def finish(fit: Fit, run: Run, begun: float, *, show: bool) -> None:
    """Keeps the weights, measures them on the held-out clips, writes the report."""
    plan, team, config = fit.plan, fit.team, fit.plan.config
    weights = fit.final_weights()
    if not team.first:
        return
    model = SpaceTimeTransformer(plan.model)
    load_strict(model, weights, what="trained weights")
    about = {"clip_spec": plan.spec.to_json(), "classes": list(plan.source.classes), "tubelet": tubelet.__version__}
    save(model, run.path, about=about)
    answers, seconds = answer_all(model, plan, team, views=config.views, title="evaluating", show=show)
    write_predictions(answers, plan.source.classes, run.path / "predictions.csv")
    results = {"split": plan.held_out, "views": config.views, **results_of(answers, plan.source.classes)}
    results["single_frame"] = single_frame(fit, show=show) if config.baseline else None
    results["seconds_total"] = time.monotonic() - begun
    results["clips_per_second_predict"] = len(answers) / max(seconds, 1e-9)
    run.write_json("results.json", results)
    write_report(run.path, frames=strip_frames(plan))
    write_card(run.path)
    run.remove_checkpoints()
    if show:
        print_results(results, run)


def answer_all(
    model: SpaceTimeTransformer, plan: Plan, team: Team, *, views: str, title: str, show: bool, single: bool = False
) -> tuple[list[Answer], float]:
    items = plan.items(plan.held_out)
    begun = time.monotonic()
    with bar(title, len(items), show=show) as progress:
        answers = answer(
            model.to(team.device),
            plan.spec,
            plan.source.root,
            items,
            views_text=views,
            single_frame=single,
            workers=plan.workers,
            device=team.device,
            bfloat16=plan.bfloat16,
            after=lambda _: progress.advance(f"{progress.done + 1}/{progress.total} clips"),
        )
    return answers, time.monotonic() - begun


def single_frame(fit: Fit, *, show: bool) -> dict[str, float]:
    """The same kind of model, trained for as many steps on one frame of each clip: what motion is worth."""
    plan = fit.plan
    patch = (1, *plan.model.patch[1:])
    alone = Team(0, 1, fit.team.device)
    settings: ModelConfig = replace(plan.model, family="vidtrans", patch=patch, clip=(1, *plan.model.clip[1:]))
    torch.manual_seed(plan.config.seed)
    config = replace(plan.config, shard="none", ema=0.0)
    other = Fit(
        plan=replace(plan, config=config),
        model=SpaceTimeTransformer(settings),
        clips=fit.clips,
        team=alone,
        steps=fit.steps,
        single_frame=True,
    )
    with bar("one frame", other.steps, show=show) as progress:

        def after(figures: dict[str, float]) -> bool:
            progress.advance(f"loss {figures['loss']:.2f} left {progress.left}")
            return False

        other.run(other.steps, after=after)
    answers, _ = answer_all(other.model, plan, alone, views="1x1", title="evaluating", show=False, single=True)
    return {"accuracy": results_of(answers, plan.source.classes)["accuracy"]}


def strip_frames(plan: Plan) -> Callable[[str], np.ndarray | None]:
    """path -> frames (T, H, W, 3) uint8 for the report; None where there is nothing to see."""

    def frames(path: str) -> np.ndarray | None:
        spec = plan.spec
        if spec.kind == "sound":
            return None
        times = clip_times(0.0, frames=spec.frames, seconds_between_frames=spec.seconds_between_frames)
        try:
            return read_frames(plan.source.root / path, times, cover=(96, 96))
        except ValueError:
            return None

    return frames


def print_results(results: dict[str, Any], run: Run) -> None:
    low, high = results["interval"]
    rows = [
        ("this model", f"{100 * results['accuracy']:.1f}% right on {results['clips']} clips it never saw ({100 * low:.0f}-{100 * high:.0f}%)"),
        ("majority", f"{100 * results['majority']['accuracy']:.1f}% by always saying {results['majority']['label']}"),
    ]
    if results["single_frame"]:
        rows.insert(1, ("one frame", f"{100 * results['single_frame']['accuracy']:.1f}% by a model given a single frame"))
    facts("Result", rows)
    console.print(f"report  [cyan]{run.path / 'report.html'}[/]", soft_wrap=True)
    console.print(f"next    [cyan]tubelet predict {run.path} FILE[/]", soft_wrap=True)


def open_tensorboard(run: Run) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError("--tensorboard needs TensorBoard: pip install 'tubelet[tensorboard]'") from error
    return SummaryWriter(run.path / "tensorboard")


def write_board(board: Any, step: int, record: dict[str, float], loss: float, accuracy: float) -> None:
    for name, value in {"train/loss": record["loss"], "train/accuracy": record["accuracy"], "val/loss": loss, "val/accuracy": accuracy}.items():
        board.add_scalar(name, value, step)
    board.flush()


