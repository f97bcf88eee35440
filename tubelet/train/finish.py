"""The end of a training: its weights are kept, measured on held-out clips, and reported."""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch

from tubelet.data.bad_files import BadFile
from tubelet.data.clips import load_frames, load_views
from tubelet.evaluate.clips import Evaluation, measure_answers
from tubelet.media.address import join
from tubelet.media.reader import MediaError, read_sound
from tubelet.nn.config import ModelConfig
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.nn.regularise import regularise
from tubelet.nn.split import Rest
from tubelet.predict.predictor import Predictor
from tubelet.predict.tables import write_labelled
from tubelet.relevance.draw import tint_clip
from tubelet.relevance.explain import explain
from tubelet.relevance.maps import find_output
from tubelet.report.page import Finished, write_card, write_report
from tubelet.runs.run import PREDICTIONS, RESULTS, Run, Tensors
from tubelet.system.console import bar
from tubelet.system.team import Team
from tubelet.tasks import Task
from tubelet.train.pace import REPORT_SECONDS, Budget, Pace
from tubelet.train.plan import Plan
from tubelet.train.settle import Settled, answer_items, settle_task
from tubelet.train.show import print_results
from tubelet.train.trainer import Fit
from tubelet.version import __version__
from tubelet.weights.store import load_strict, save
from tubelet.weights.terms import read_terms, write_terms

STRIP_PX = (96, 96)  # at least, of a frame in the report
SOUND_SECONDS = 10.0  # at most, of a sound in the report


def measure(fit: Fit, run: Run, *, begun: float, frozen: Tensors, show: bool) -> Finished | None:
    """Keeps the weights and measures them on the held-out clips, of which each process answers a share: the run so far,
    in the first process; None in others.

    frozen: weights that did not learn.
    """
    plan, team, config, bad = fit.plan, fit.team, fit.plan.config, fit.clips.bad
    some = fit.best.weights if fit.best else fit.final_weights()
    weights = team.run_in_first(lambda: some)  # torch gathers them in the first process alone
    if isinstance(fit.model, Rest):
        weights = {**frozen, **fit.model.fold_statistics(weights)}
    model = SpaceTimeTransformer(plan.model)
    load_strict(model, weights, what="trained weights")
    settled = settle_task(model, plan, team, show=show)
    task, beside = settled.task, settled.distance.to_tensors() if settled.distance else {}
    about: dict[str, Any] = {"clip_spec": plan.spec.to_json(), "task": task.to_json(), "tubelet": __version__}
    about |= write_terms(read_terms(run.config))
    team.run_in_first(lambda: save(model, run.path, about=about, beside=beside))
    evaluation, seconds = evaluate_split(model, settled, plan, team, show=show)
    if not team.first:
        return None
    bad.announce(BadFile(one.path, one.code, one.note, plan.data.held_out) for one in evaluation.failed)
    write_labelled(evaluation.answers, task, run.path / PREDICTIONS, distance=settled.distance)
    results = evaluation.to_json() | {"settled": settled.about}
    step, score = (fit.best.step, fit.best.score) if fit.best else (fit.step, None)
    epoch = step * config.batch / len(fit.clips)
    which = "best" if fit.best else "last"  # of the looks at validation clips, or of the steps
    results["kept"] = {"which": which, "step": step, "epoch": epoch, fit.task.figure_name: score}
    metrics = run.metrics()
    results["on_training_clips"] = read_last(metrics, fit.task) if not fit.best else None
    baseline = config.baseline and plan.spec.kind == "video"
    results["single_frame"] = train_single_frame(fit, show=show) if baseline else None
    results |= {"train_files": bad.train_files, "train_skipped": bad.skipped}
    results["seconds_total"] = time.monotonic() - begun
    results["clips_per_second_predict"] = len(evaluation.answers) / max(seconds, 1e-9)
    what = fit.model.what if isinstance(fit.model, Rest) else ""
    results["frozen"] = {"learned": what, "views": 1 + config.freeze_views, "all_weights": None} if what else None
    return Finished(run.path, run.config, metrics, task, evaluation, results)


def read_last(metrics: list[dict[str, Any]], task: Task) -> float | None:
    """The figure of the last training steps; None of a task that measures held-out clips by another one."""
    last = [record for record in metrics if record["kind"] == "train"][-1:]
    return last[0].get(task.figure_name) if last and task.exclusive else None


def finish(plan: Plan, run: Run, finished: Finished, *, show: bool) -> None:
    """Writes the results and the report."""
    run.write_json(RESULTS, finished.results)
    sounds = strip_sounds(plan) if plan.spec.kind == "sound" else None
    maps = strip_maps(plan, run) if finished.task.exclusive else None
    write_report(finished, frames=strip_frames(plan), sounds=sounds, maps=maps)
    write_card(finished)
    run.remove_checkpoints()
    if show:
        print_results(finished)


def evaluate_split(
    model: SpaceTimeTransformer, settled: Settled, plan: Plan, team: Team, *, show: bool, single: bool = False
) -> tuple[Evaluation, float]:
    """The figures of a model on the held-out clips, and the seconds that its answers took.

    single: from the middle frame of one clip alone.
    """
    split, views, answers, seconds = plan.data.held_out, plan.config.views, settled.answers, settled.seconds
    if answers is None:
        views, items = "1x1" if single else views, plan.data.items(split)
        how: dict[str, Any] = {"title": "evaluating", "views": views, "single": single, "show": show}
        how |= {"features": settled.distance is not None}
        answers, seconds = answer_items(model, settled.task, plan, team, items, **how)
    by_these = settled.answers is not None
    return measure_answers(answers, settled.task, split=split, views=views, settled_by=by_these), seconds


def train_single_frame(fit: Fit, *, show: bool) -> dict[str, float]:
    """Trains the same kind of model on one frame of each clip, for as many steps or the time that is left, and measures
    it: the difference is the worth of motion."""
    plan = fit.plan
    alone = Team(0, 1, fit.team.device)
    torch.manual_seed(plan.config.seed)
    config, model = replace(plan.config, shard="none", ema=0.0), SpaceTimeTransformer(one_frame(plan.model))
    regularise(model, **config.regularisation)
    budget = fit.pace.budget
    if budget:
        clips = len(plan.data.items(plan.data.held_out))
        budget = Budget(budget.seconds, budget.begun, clips, budget.clip_seconds, other_seconds=REPORT_SECONDS)
    pace = Pace(fit.pace.steps, budget=budget)
    other = Fit(replace(plan, config=config), model, fit.clips, alone, pace, single_frame=True)
    with bar("one frame", other.pace.steps, show=show) as progress:

        def after(figures: list[dict[str, float]]) -> bool:
            if decision := other.pace.decide(other.step, figures[-1]["seconds"], len(figures)):
                other.pace.take(decision)
            other.meeting, progress.total = other.pace.next_meeting(other.step), other.pace.steps
            progress.advance(f"loss {figures[-1]['loss']:.2f} left {progress.left}", by=len(figures))
            return False

        other.run(after=after)
    settled = Settled(plan.data.source.task)
    found, _ = evaluate_split(model, settled, plan, alone, show=False, single=True)
    return {found.results.figure_name: found.results.figure}


def one_frame(config: ModelConfig) -> ModelConfig:
    """A plain encoder of one frame, of the size of the first encoder of a model."""
    first, embed = config.stages[0], config.embed
    assert first.kind == "blocks"  # `settle` refuses the others
    plain: dict[str, Any] = {"attend": "thw", "over": "thw", "tables": ("hw", "t"), "position": "learned"}
    stage = replace(first, **plain, prefix=1, pool="cls", norm="tokens")
    config = replace(config, family="vidtrans", stages=(stage,), clip=(1, *config.clip[1:]))
    return config.with_embed(patch=(1, *embed.patch[1:]), stride=(1, *embed.stride[1:]))


def strip_frames(plan: Plan) -> Callable[[str], np.ndarray | None]:
    """Name of an item -> frames (T, H, W, 3) uint8 for the report, of sound its spectrogram; None if unreadable."""
    items = {item.name: item for item in plan.data.items(plan.data.held_out)}
    sound = plan.spec.kind == "sound"
    spec = plan.spec if sound else replace(plan.spec, resize=STRIP_PX, crop=STRIP_PX)

    def frames(name: str) -> np.ndarray | None:
        item = items[name]
        start, end = item.start_seconds or 0.0, item.end_seconds
        try:
            clip = load_frames(join(plan.data.source.root, item.path), spec, start_seconds=start, end_seconds=end)
        except MediaError:
            return None
        if sound:  # normalised log-mel values, drawn from two deviations below the mean to three above
            clip = ((clip.flip(2) + 2) / 5 * 255).clamp(0, 255).to(torch.uint8).expand(3, -1, -1, -1)
        return clip.permute(1, 2, 3, 0).numpy()

    return frames


def strip_maps(plan: Plan, run: Run) -> Callable[[str, str], np.ndarray | None]:
    """Name of an item and an answer -> what the model saw of it, (T, H, W, 3) uint8, tinted where that speaks for the
    answer or against it; None if unreadable."""
    items, spec = {item.name: item for item in plan.data.items(plan.data.held_out)}, plan.spec

    @cache
    def load() -> Predictor:  # not before something was answered wrong
        return Predictor.load(run.path, device=plan.config.device)

    def maps(name: str, label: str) -> np.ndarray | None:
        item, predictor = items[name], load()
        path, start, end = join(plan.data.source.root, item.path), item.start_seconds, item.end_seconds
        try:
            clip = load_views(path, spec, start_seconds=start, end_seconds=end).clips[:1]
        except MediaError:
            return None
        target = find_output(predictor.task, label)
        relevance = explain(predictor.model, clip.to(predictor.device), target)[0].float().cpu().numpy()
        return tint_clip(clip[0], relevance, least_px=STRIP_PX)

    return maps


def strip_sounds(plan: Plan) -> Callable[[str], tuple[np.ndarray, int] | None]:
    """Name of an item -> (samples,) float32 mono and their rate, for the report; None if unreadable."""
    items, rate = {item.name: item for item in plan.data.items(plan.data.held_out)}, plan.spec.sample_rate

    def sounds(name: str) -> tuple[np.ndarray, int] | None:
        item = items[name]
        start, end = item.start_seconds or 0.0, item.end_seconds
        seconds = SOUND_SECONDS if end is None else min(SOUND_SECONDS, end - start)
        try:
            file = join(plan.data.source.root, item.path)
            samples = read_sound(file, sample_rate=rate, start_seconds=start, seconds=seconds)
        except MediaError:
            return None
        return (samples, rate) if samples.size else None

    return sounds
