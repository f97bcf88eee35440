"""The progress of a training and its number of steps: those of its epochs, or those that a budget of time allows.

Progress runs from 0 to 1, and the learning rate follows it. With a budget, the number of steps is decided anew every
few seconds, from how long steps take now and how much time is left; progress goes on from where it is:

    progress  1 |                      ...../
                |               ..../----       here steps became slower: fewer are left, each counts for more
                |       __.----/
              0 |__----/
                +---------------------------- step

A decision is written down before it takes effect. A run that was stopped takes the same ones at the same steps.
"""

import json
import os
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

FIRST_STEPS = (4, 10)  # after which the first decisions are made: the very first step also warms the kernels up
DECIDE_SECONDS = 5.0
RECENT_SECONDS = 15.0  # of steps, whose mean counts
LEAST_RECENT = 3
MEET_SECONDS = 1.0  # of steps, after which the processes agree on how to go on; a stop may take that long
REPORT_SECONDS = 2.0

Stretch = tuple[int, float]  # steps from one meeting to the next, and the seconds that they took


@dataclass(frozen=True)
class Decision:
    """From `step` on, where `progress` in [0, 1] is done, a training ends with step `steps`. seconds: spent so far."""

    step: int
    progress: float
    steps: int
    seconds: float


@dataclass
class Budget:
    """The time of a whole command, in seconds, and what is known of the part that is not steps.

    begun: `time.monotonic()` when the command began. clips, clip_seconds: how many are answered after the last step,
    and how long one takes. looks_seconds: of the looks at held-out clips that are still to come. other_seconds: of all
    the rest that follows the steps.
    """

    seconds: float
    begun: float
    clips: int = 0
    clip_seconds: float = 0.0
    looks_seconds: float = 0.0
    other_seconds: float = 0.0

    @property
    def spent(self) -> float:
        return time.monotonic() - self.begun

    @property
    def after(self) -> float:
        """Seconds of the work that follows the last step."""
        return self.clips * self.clip_seconds + self.other_seconds

    @property
    def left(self) -> float:
        """Seconds for the steps that are left."""
        return self.seconds - self.spent - self.looks_seconds - self.after


class Pace:
    """The steps of a training. budget: None for as many as `most_steps`. file: where decisions are kept."""

    def __init__(self, most_steps: int, *, budget: Budget | None = None, file: Path | None = None):
        self.most_steps, self.budget, self.file = most_steps, budget, file
        self.decision = Decision(0, 0.0, most_steps, 0.0)
        self.stored: deque[Decision] = deque()  # made before the run was stopped, and not reached yet
        self.recent: deque[Stretch] = deque()
        self.decided = time.monotonic()
        self.unwritten = ""

    @property
    def steps(self) -> int:
        return self.decision.steps

    def progress(self, step: int) -> float:
        """The share of the training, in [0, 1], that is done before step number `step`, counted from 0."""
        begin, end = self.decision.step, max(self.decision.steps, self.decision.step + 1)
        return min(1.0, self.decision.progress + (1 - self.decision.progress) * (step - begin) / (end - begin))

    @property
    def step_seconds(self) -> float:
        """The mean of the last steps; 0 before the first."""
        return add_seconds(self.recent) / max(1, count_steps(self.recent))

    def next_meeting(self, step: int) -> int:
        """The step after which the processes agree on how to go on, next after `step`: every `MEET_SECONDS`, and where
        something is decided first, or was before the run was stopped."""
        if not self.step_seconds:
            return step + 1
        then = step + max(1, int(MEET_SECONDS / self.step_seconds))
        decided = (*FIRST_STEPS, *(one.step for one in self.stored))
        return min([then, *(one for one in decided if one > step)])

    def decide(self, step: int, seconds: float, count: int = 1) -> Decision | None:
        """The decision after `step` steps, the last `count` of which took `seconds` each: the one made there before the
        run was stopped, or one by the clock, which is written down; None where all stays as it is."""
        if step > 1:
            self.recent.append((count, count * seconds))
        while (
            count_steps(later := [*islice(self.recent, 1, None)]) >= LEAST_RECENT
            and add_seconds(later) > RECENT_SECONDS
        ):
            self.recent.popleft()
        if self.stored:
            return self.stored.popleft() if self.stored[0].step == step else None
        if self.budget is None:
            return None
        left = self.budget.left
        if step not in FIRST_STEPS and time.monotonic() - self.decided < min(DECIDE_SECONDS, max(left, 0.0) / 10):
            return None
        more = max(0, round(left / self.step_seconds)) if self.step_seconds else self.most_steps
        decision = Decision(step, self.progress(step), min(self.most_steps, step + more), self.budget.spent)
        self.write(decision)
        return decision

    def write(self, decision: Decision) -> None:
        """Brings a decision to the disk; what a full one does not take is kept for the next time."""
        if self.file is None:
            return
        self.unwritten += f"\n{json.dumps(asdict(decision))}\n"  # on a line of its own, also behind one cut short
        with suppress(OSError):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with open(self.file, "a") as handle:
                handle.write(self.unwritten)
                handle.flush()
                os.fsync(handle.fileno())
            self.unwritten = ""

    def take(self, decision: Decision) -> None:
        """Goes on by a decision, which may be that of another process, or of this run before it was stopped: what is
        done twice counts once."""
        self.decision, self.decided = decision, time.monotonic()
        if self.budget:
            self.budget.begun = time.monotonic() - decision.seconds

    def resume(self, decision: Decision) -> None:
        """Goes on from a checkpoint, with its decision; those that were made after it wait for their steps."""
        self.take(decision)
        self.most_steps = max(self.most_steps, decision.steps)
        if self.file and self.file.is_file():
            known = read_decisions(self.file)
            self.stored = deque(one for one in known if one.step > decision.step)


def count_steps(stretches: Iterable[Stretch]) -> int:
    return sum(steps for steps, _ in stretches)


def add_seconds(stretches: Iterable[Stretch]) -> float:
    return sum(seconds for _, seconds in stretches)


def read_decisions(file: Path) -> list[Decision]:
    """Decisions in the order of their steps, as far as they are whole; of two for one step the later one counts."""
    found: dict[int, Decision] = {}
    for line in file.read_text(errors="replace").splitlines():
        try:
            decision = Decision(**json.loads(line))
        except (ValueError, TypeError):  # an empty line, or one that was cut short
            continue
        found[decision.step] = decision
    return [found[step] for step in sorted(found)]
