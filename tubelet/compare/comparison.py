"""A comparison of candidates on the same clips within one budget of time, from the settings to the advice."""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tubelet.compare.candidate import Candidate, list_candidates
from tubelet.compare.cost import Cost, measure_cost
from tubelet.compare.difference import Right, judge
from tubelet.compare.halving import choose_kept, count_rounds
from tubelet.compare.page import write_page
from tubelet.compare.show import show_plan, show_round, show_standings, ticking
from tubelet.compare.standings import Standings
from tubelet.compare.trials import Fold, Trial, gather_right
from tubelet.data.items import find_items, fingerprint
from tubelet.data.splits import make_folds
from tubelet.predict.tables import write_rows
from tubelet.runs.lock import hold
from tubelet.runs.run import holds_others, list_changes
from tubelet.system.console import clock, say
from tubelet.system.device import find_device
from tubelet.system.files import write_whole
from tubelet.system.team import Team
from tubelet.system.text import dumps, path_cell, plural, text_cell
from tubelet.train.clips import settle

STATE, ANSWERS, PAGE = "compare.json", "answers.csv", "compare.html"
LEAST_SECONDS = 20.0  # of a training: less is hardly more than its start
COST_SECONDS = 8.0  # to look whether a candidate can be trained, and to measure the cost of its answers
UNITS = {"": 60.0, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass
class Comparison:
    """Candidates in rounds on the folds of a data set; `rounds` and `failed` are kept on disk, so that it can go on.

    rounds: the numbers of the candidates of each round, and the seconds of each of its trainings. failed: why a
    candidate, by its number, could not be trained.
    """

    folder: Path
    candidates: list[Candidate]
    folds: list[Fold]
    settings: dict[str, Any]
    rounds: list[dict[str, Any]] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)

    @property
    def groups(self) -> list[str]:
        """The group of each held-out clip, fold after fold."""
        return [item.group for fold in self.folds for item in fold.held_out]

    @property
    def round_seconds(self) -> float:
        """The seconds of one round: all have as much."""
        left = self.settings["budget_seconds"] - COST_SECONDS * len(self.candidates)
        return left / count_rounds(len(self.candidates))

    def open(self) -> None:
        """Takes up what was done before. Raises ValueError where the folder holds something else."""
        file = self.folder / STATE
        if not file.is_file():
            if holds_others(self.folder):
                raise ValueError(f"{self.folder} holds something that is no comparison: choose another --out")
            self.folder.mkdir(parents=True, exist_ok=True)
            return
        try:
            state = json.loads(file.read_text())
            then = state["settings"]
            self.rounds = state["rounds"]
            self.failed = {int(number): str(message) for number, message in state["failed"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{file}: damaged ({error}): choose another --out") from error
        now = json.loads(dumps(self.settings)) if self.rounds else {}  # what is not begun may still be changed
        if changed := list_changes(then, now):
            raise ValueError(f"{self.folder} was begun otherwise ({changed}): choose another --out")

    def save(self, **more: Any) -> None:
        state = {"settings": self.settings, "rounds": self.rounds, "failed": self.failed, **more}
        write_whole(self.folder / STATE, dumps(state, indent=1))

    def trial(self, number: int, index: int, fold: Fold) -> Trial:
        """The training of a candidate in a round, counted from 0, on a fold."""
        candidate, settings = self.candidates[number], self.settings
        folder = self.folder / f"round-{index + 1}" / f"{number + 1}-{candidate.folder}" / f"fold-{fold.number}"
        seconds = self.rounds[index]["seconds"]
        return Trial(candidate, fold, folder, seconds, settings["seed"], settings["device"], settings["workers"])

    def trials(self, number: int, index: int) -> list[Trial]:
        return [self.trial(number, index, fold) for fold in self.folds]

    def read_right(self, index: int) -> Right:
        """The answers of a round, by candidate, of those that could be trained."""
        numbers = [number for number in self.rounds[index]["candidates"] if number not in self.failed]
        return {number: gather_right(self.trials(number, index)) for number in numbers}

    def begin_round(self, index: int) -> None:
        """Chooses the candidates of a round, unless that is done, and how long each learns."""
        if index < len(self.rounds):
            return
        numbers = [*range(len(self.candidates))]
        if index:
            shares = {number: float(right.mean()) for number, right in self.read_right(index - 1).items()}
            trials = {number: self.trials(number, index - 1) for number in shares}
            growths = {number: sum(t.read_growth() for t in some) / len(some) for number, some in trials.items()}
            numbers = choose_kept(shares, growths)
        seconds = self.round_seconds / (len(numbers) * len(self.folds))
        self.rounds.append({"candidates": numbers, "seconds": seconds})
        self.save()

    def train_round(self, index: int, *, show: bool) -> None:
        """The trainings of a round, fold after fold, so that a busy hour hits all candidates alike."""
        numbers, seconds = self.rounds[index]["candidates"], self.rounds[index]["seconds"]
        todo = [(number, fold) for fold in self.folds for number in numbers]
        with ticking(
            f"round {index + 1} of {count_rounds(len(self.candidates))}", seconds * len(todo), show=show
        ) as bar:
            for done, (number, fold) in enumerate(todo):
                bar.begin(done * seconds, f"{self.candidates[number].name}, fold {fold.number}")
                if number in self.failed:
                    continue
                try:
                    self.trial(number, index, fold).train()
                except ValueError as error:
                    self.failed[number] = str(error)
                    self.save()
                    if show:
                        say("left out", f"{self.candidates[number].name}: {error}")
        if len(self.failed) > len(self.candidates) - 2:
            reasons = "\n  ".join(f"{self.candidates[number].name}: {why}" for number, why in self.failed.items())
            raise ValueError(f"fewer than two candidates could be trained:\n  {reasons}")

    def measure_costs(self, *, show: bool) -> dict[int, Cost]:
        """The cost of an answer of each candidate that was trained, one alone at a time."""
        found = {}
        numbers = [number for number in self.rounds[0]["candidates"] if number not in self.failed]
        with ticking("measuring", COST_SECONDS * len(numbers), show=show) as bar:
            for done, number in enumerate(numbers):
                bar.begin(done * COST_SECONDS, self.candidates[number].name)
                index = max(index for index, one in enumerate(self.rounds) if number in one["candidates"])
                trial = self.trial(number, index, self.folds[0])
                found[number] = measure_cost(trial.folder, trial.fold.held_out[0], device=trial.device)
        return found

    def write_answers(self, rounds: Sequence[Right]) -> None:
        """A table of what was right: a row for each held-out clip, a column for each candidate and round."""
        columns = [
            (f"{self.candidates[number].name}, round {count}", right)
            for count, one in enumerate(rounds, 1)
            for number, right in one.items()
        ]
        clips = [(fold.number, item) for fold in self.folds for item in fold.held_out]
        rows = (
            [path_cell(item.name), text_cell(item.group), str(number), *(str(int(right[row])) for _, right in columns)]
            for row, (number, item) in enumerate(clips)
        )
        write_rows(["path", "group", "fold", *(text_cell(name) for name, _ in columns)], rows, self.folder / ANSWERS)


def compare(
    data: str | os.PathLike[str],
    *,
    models: Sequence[str] = (),
    starts: Sequence[str] = (),
    variants: Sequence[str] = (),
    budget: str = "30m",
    folds: int = 3,
    out: Path | None = None,
    device: str = "auto",
    workers: int | None = None,
    seed: int = 0,
    show: bool = True,
) -> Standings:
    """Trains every model with every start and every variant on the same clips, for as long as another, and says which
    are better and which cannot be told apart; the clips of a test split are left alone.

    variants: settings of `tubelet train`, such as "stills=0.5 pool=mean", or "default". budget: time for all, such as
    "30m". folds: in each, other groups are held out.

    Raises:
        ValueError: settings that cannot work, or too little time.
        Stopped: Ctrl-C or SIGTERM; call again with the same settings to go on.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("a comparison works in one process: start it without torchrun")
    data, seconds = Path(data), parse_seconds(budget)
    source, where = find_items(data), find_device(device)
    found = make_folds(source, folds=folds, seed=seed)
    candidates = list_candidates(models, starts, variants, kind=source.kind, device=where.type)
    settings = {
        "data": str(data.absolute()),
        "fingerprint": fingerprint(source),
        "candidates": [one.name for one in candidates],
        "budget_seconds": seconds,
        "folds": len(found),
        "seed": seed,
        "device": device,
        "workers": workers,
    }
    folder = out or Path("runs") / f"{data.absolute().name.removesuffix('.csv')}-compare"
    comparison = Comparison(folder, candidates, [], settings)
    check_time(comparison, len(found))
    comparison.open()
    with hold(folder):
        comparison.save()
        comparison.folds = [Fold.write(one, number, folder) for number, one in enumerate(found, 1)]
        if show:
            show_plan(comparison.candidates, comparison.folds, budget_seconds=seconds, folder=folder)
        if not comparison.rounds:
            check_candidates(comparison)
        for index in range(count_rounds(len(candidates))):
            comparison.begin_round(index)
            comparison.train_round(index, show=show)
            if show:
                show_round(comparison.candidates, index, comparison.read_right(index), comparison.rounds[index])
        rounds = [comparison.read_right(index) for index in range(len(comparison.rounds))]
        standings = measure(comparison, rounds, show=show)
        comparison.write_answers(rounds)
        comparison.save(**standings.to_json())
        write_page(standings, folder / PAGE, data=data)
    if show:
        show_standings(standings, data=data, page=folder / PAGE)
    return standings


def measure(comparison: Comparison, rounds: Sequence[Right], *, show: bool) -> Standings:
    """The standings at the end of the last round."""
    return Standings(
        candidates=comparison.candidates,
        verdict=judge(rounds, comparison.groups),
        right={number: right for one in rounds for number, right in one.items()},
        groups=comparison.groups,
        seconds=[one["seconds"] for one in comparison.rounds],
        costs=comparison.measure_costs(show=show),
        failed=comparison.failed,
    )


def parse_seconds(budget: str) -> float:
    """ "30m" -> 1800.0; s, m and h, and minutes where no unit is given."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", budget.strip())
    if not match or not float(match[1]):
        raise ValueError(f"budget {budget!r}: expected a time such as 30m, 2h or 90s")
    return float(match[1]) * UNITS[match[2]]


def check_time(comparison: Comparison, folds: int) -> None:
    """Raises ValueError where the budget gives no training of the first round enough time."""
    trainings = len(comparison.candidates) * folds
    if comparison.round_seconds / trainings >= LEAST_SECONDS:
        return
    rounds = count_rounds(len(comparison.candidates))
    needed = LEAST_SECONDS * trainings * rounds + COST_SECONDS * len(comparison.candidates)
    raise ValueError(
        f"a budget of {clock(comparison.settings['budget_seconds'])} leaves "
        f"{max(comparison.round_seconds, 0.0) / trainings:.0f} s for each of {plural(trainings, 'training')} of the "
        f"first round, at least {LEAST_SECONDS:.0f} s are needed: give --budget {-(-needed // 60):.0f}m, or fewer "
        "candidates or --folds"
    )


def check_candidates(comparison: Comparison) -> None:
    """Raises ValueError that names all candidates which cannot be trained, before any is."""
    team, fold, wrong = Team.join(comparison.settings["device"]), comparison.folds[0], []
    for number, candidate in enumerate(comparison.candidates):
        try:
            settle(replace(candidate.read(fold.table), minutes=LEAST_SECONDS / 60), team, show=False)
        except ValueError as error:
            wrong.append(f"{number + 1}. {candidate.name}: {error}")
    if wrong:
        raise ValueError("candidates that cannot be trained:\n  " + "\n  ".join(wrong))
