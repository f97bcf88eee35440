"""The files that a training cannot read: each named once, counted, listed in RUN/bad_files.jsonl; never too many."""

import json
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

from tubelet.data.dataset import BadFile
from tubelet.data.items import Item
from tubelet.media.workers import DEADLY, refuse_deadly
from tubelet.runs.run import Run
from tubelet.system.console import say
from tubelet.system.text import visible
from tubelet.train.plan import Plan

LISTED = "bad_files.jsonl"
SHOWN = 8
ROUNDING = 1e-9  # 0.07 * 100 is a little more than 7


class BadFiles:
    """All that a run knows of, by their names: those that were listed before, of the plan, and found since.

    write: whether this process writes the list. show: whether it names what is found.
    """

    def __init__(self, plan: Plan, run: Run, *, write: bool, show: bool):
        self.plan, self.run, self.write, self.show = plan, run, write, show
        self.files = {one.path: one for one in (*read_list(run), *plan.bad)}
        for number, one in self.among(plan.source.items).items():
            if one.code == DEADLY:  # of which another process of the run knew
                refuse_deadly(str(plan.source.root / plan.source.items[number].path), one.message)
        if write and self.files:
            self.save()

    def add(self, found: Iterable[BadFile]) -> None:
        """Names those that are new, and lists them."""
        new = {one.path: one for one in found if one.path not in self.files}
        self.files |= new
        for one in sorted(new.values(), key=lambda one: one.path) if self.show else ():
            say("skipped" if one.split == "train" else "unreadable", in_a_line(one))
        if self.write and new:
            self.save()

    def save(self) -> None:
        lines = [json.dumps(asdict(one)) for _, one in sorted(self.files.items())]
        self.run.write_text(LISTED, "\n".join(lines) + "\n")

    def among(self, items: Sequence[Item]) -> dict[int, BadFile]:
        """Those of the items, by their numbers: they need not be decoded again."""
        return {number: self.files[item.name] for number, item in enumerate(items) if item.name in self.files}

    def new(self, found: Mapping[int, BadFile]) -> dict[int, BadFile]:
        """Those that are not known yet. Threads may be adding to `found`."""
        return {number: one for number, one in dict(found).items() if one.path not in self.files}

    @property
    def train_files(self) -> int:
        return len(self.plan.items("train")) + len(left_out(self.plan))

    @property
    def skipped(self) -> int:
        """Training files that are left out."""
        return sum(one.split == "train" for one in self.files.values())

    def check(self) -> None:
        """Raises ValueError where more training files than `--max-bad` allows cannot be read."""
        found = self.among(self.plan.items("train"))
        if len(found) > spare(self.plan):
            raise too_many(self.plan, found)


def read_list(run: Run) -> list[BadFile]:
    """What the run listed before it was stopped; none where it did not, or not in our way."""
    file = run.path / LISTED
    try:
        return [BadFile(**json.loads(line)) for line in file.read_text().splitlines()] if file.is_file() else []
    except (ValueError, TypeError):
        return []


def spare(plan: Plan) -> int:
    """How many of the clips to train on may prove bad: what `--max-bad` leaves besides those that the plan left out,
    and never all of them."""
    without, clips = len(left_out(plan)), len(plan.items("train"))
    most = int(plan.config.most_bad * (without + clips) + ROUNDING)
    return min(most - without, clips - 1)


def left_out(plan: Plan) -> list[BadFile]:
    """The training files that could not be read when the plan was made."""
    return [one for one in plan.bad if one.split == "train"]


def too_many(plan: Plan, found: Mapping[int, BadFile]) -> ValueError:
    """The end of a training of which so many of the clips, by number, cannot be read."""
    bad = sorted([*left_out(plan), *dict(found).values()], key=lambda one: one.path)
    total = len(plan.items("train")) + len(left_out(plan))
    limit = "not one is left" if len(bad) == total else f"more than the {plan.config.max_bad} of --max-bad"
    table = [f"  {in_a_line(one)}" for one in bad[:SHOWN]]
    table += [f"  and {len(bad) - SHOWN} more"] if len(bad) > SHOWN else []
    codes = ", ".join(f"{count} {code}" for code, count in Counter(one.code for one in bad).most_common())
    check = f"tubelet check {shlex.quote(str(plan.config.data))}"
    advice = (
        f"{LISTED} in the run has those found while training, `{check}` finds all. Repair or "
        "remove them and train anew, or let them be skipped with a higher --max-bad: the last checkpoint is kept"
    )
    head = f"{len(bad)} of {total} training files ({len(bad) / total:.1%}) cannot be read, {limit}:"
    return ValueError("\n".join([head, *table, f"  by code: {codes}", f"  {advice}"]))


def in_a_line(one: BadFile) -> str:
    return f"{visible(one.path)}: {one.message} [{one.code}]"
