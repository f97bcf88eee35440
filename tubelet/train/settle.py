"""Settling of a trained model by held-out clips: thresholds, calibration, and the limit of the distance."""

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tubelet.data.items import Item
from tubelet.evaluate.clips import list_groups, stack_read
from tubelet.features.distance import Distance, fit_distance
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.predict.answer import Answer, answer
from tubelet.runs.share import Keep, count_in_order, share_out
from tubelet.system.team import Team
from tubelet.tasks import Task
from tubelet.tasks.calibration import FEWEST_CLIPS, find_shortage
from tubelet.train.plan import Plan


@dataclass(frozen=True)
class Settled:
    """The task with all that was chosen for it, and the distance from the training clips, where there is one.

    about: the clips that chose, for results.json. answers, seconds: of the measured clips, where these are the ones
    that settled the task.
    """

    task: Task
    distance: Distance | None = None
    about: dict[str, Any] | None = None
    answers: list[Answer] | None = None
    seconds: float = 0.0


def settle_task(model: SpaceTimeTransformer, plan: Plan, team: Team, *, show: bool) -> Settled:
    """The task of a run, settled by held-out clips: other ones than are measured, where there are such."""
    task, split = plan.data.source.task, plan.settled_by
    if split is None:
        return Settled(task)
    title, measured = ("evaluating", True) if split == plan.data.held_out else ("settling", False)
    items, features = plan.data.items(split), task.calibrates
    answers, seconds = answer_items(model, task, plan, team, items, title=title, features=features, show=show)
    read, targets, values = stack_read(answers, task)
    groups, distance = list_groups(read), None
    shortage = find_shortage(groups) if task.calibrates else ""
    if task.calibrates and not shortage:
        views: dict[str, Any] = {"views": "1x1", "title": "distances", "features": True}
        train, _ = answer_items(model, task, plan, team, plan.remembered, **views, show=show)
        codes, others = (np.stack(list_features(some)) for some in (train, read))
        distance = fit_distance(codes, others) if len(codes) >= FEWEST_CLIPS else None
    settled = task.settle(targets, values, groups, measured=measured)
    answers = [one if one.values is None else replace(one, values=settled.calibrate(one.values)) for one in answers]
    about = {"split": split, "clips": len(read), "groups": len(set(groups)), "shortage": shortage}
    about |= {"measured": measured, "distance": distance is not None}
    return Settled(settled, distance, about, answers if measured else None, seconds)


def list_features(answers: list[Answer]) -> list[np.ndarray]:
    return [one.features for one in answers if one.features is not None]


def answer_items(
    model: SpaceTimeTransformer,
    task: Task,
    plan: Plan,
    team: Team,
    items: list[Item],
    *,
    title: str,
    show: bool,
    views: str | None = None,
    features: bool = False,
    single: bool = False,
) -> tuple[list[Answer], float]:
    """Answers for items, of which each process makes a share and gets all, and the seconds that they took.

    views: those of the plan, if left out.
    """
    how: dict[str, Any] = {"views_text": views or plan.config.views, "features": features, "single_frame": single}

    def make(numbers: list[int], keep: Keep[Answer]) -> None:
        mine = [items[number] for number in numbers]
        with count_in_order(title, "clips", numbers, keep, show=show) as count:
            root = plan.data.source.root
            answer(model.to(team.device), plan.spec, task, root, mine, **how, workers=plan.workers, after=count)

    begun = time.monotonic()
    answers = share_out(team, len(items), make)
    return answers, time.monotonic() - begun
