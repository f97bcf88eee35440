"""The pace of a training: a budget is filled whatever the machine does meanwhile, and decisions are found again."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tubelet.train import pace as room
from tubelet.train.pace import Budget, Decision, Pace, read_decisions

BUDGET_SECONDS = 300.0
AFTER_SECONDS = 20.0

Speed = Callable[[float], float]  # seconds into a training -> seconds that a step takes there


@dataclass
class Told:
    """What a simulated training did: seconds in all, and the progress before each step and at the end."""

    seconds: float
    progress: list[float]
    pace: Pace

    @property
    def steps(self) -> int:
        return len(self.progress) - 1


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(room.time, "monotonic", lambda: now[0])
    return now


def go(clock: list[float], speed: Speed, pace: Pace, *, first: int = 0, stop: int | None = None) -> Told:
    begun, step, progress, meeting = clock[0], first, [pace.progress(first)], first + 1
    since: list[float] = []
    while step < pace.steps and step != stop:
        since.append(speed(clock[0] - begun))
        clock[0] += since[-1]
        step += 1
        if step in (meeting, pace.steps, stop):
            if decision := pace.decide(step, float(np.mean(since)), len(since)):
                pace.take(decision)
            meeting, since = pace.next_meeting(step), []
        progress.append(1.0 if step >= pace.steps else pace.progress(step))
    return Told(clock[0] - begun, progress, pace)


def make_pace(clock: list[float], *, most_steps: int = 10**6, file: Path | None = None) -> Pace:
    budget = Budget(BUDGET_SECONDS, clock[0], clips=10, clip_seconds=AFTER_SECONDS / 10)
    return Pace(most_steps, budget=budget, file=file)


def busy_between(start: float, end: float, *, normal: float = 0.2, slower: float = 10.0) -> Speed:
    return lambda seconds: normal * (slower if start <= seconds < end else 1.0)


def uneven(seed: int) -> Speed:
    draws = np.random.default_rng(seed)
    return lambda seconds: 0.3 * float(draws.lognormal(0.0, 0.7))


SPEEDS: dict[str, Speed] = {
    "even": busy_between(0, 0),
    "slow steps": busy_between(0, 0, normal=4.0),
    "busy at first": busy_between(0, 60),
    "busy in the middle": busy_between(100, 160),
    "busy to the end": busy_between(200, 999),
    "busy all the time": busy_between(0, 999),
    **{f"uneven {seed}": uneven(seed) for seed in range(4)},
}


@pytest.mark.parametrize("name", SPEEDS)
def test_the_steps_fill_the_budget_and_leave_what_follows_its_time(clock: list[float], name: str) -> None:
    told = go(clock, SPEEDS[name], make_pace(clock))
    assert told.seconds + AFTER_SECONDS == pytest.approx(BUDGET_SECONDS, rel=0.03)


@pytest.mark.parametrize("name", SPEEDS)
def test_progress_never_goes_back_and_comes_near_its_end_without_a_leap(clock: list[float], name: str) -> None:
    progress = go(clock, SPEEDS[name], make_pace(clock)).progress
    steps = np.diff(progress)
    assert (steps >= 0).all()
    assert progress[-1] == 1
    assert steps[-1] < max(0.02, 20 / len(steps))


def test_a_busy_minute_at_the_start_costs_that_minute_alone(clock: list[float]) -> None:
    quiet, busy = (go(clock, SPEEDS[name], make_pace(clock)).steps for name in ("even", "busy at first"))
    lost = 60 / (BUDGET_SECONDS - AFTER_SECONDS) * 0.9  # of ten parts, one was done
    assert busy == pytest.approx((1 - lost) * quiet, rel=0.02)


def test_progress_is_the_share_of_the_time_that_went_by(clock: list[float]) -> None:
    told = go(clock, SPEEDS["busy in the middle"], make_pace(clock))
    half = told.progress[int(0.9 * 100 / 0.2)]  # after 90 s, while all is even
    assert half == pytest.approx(90 / (BUDGET_SECONDS - AFTER_SECONDS), abs=0.03)


@pytest.mark.parametrize("step_seconds", [0.001, 0.04, 0.3, 2.0])
def test_meetings_are_half_a_second_apart_and_where_something_is_decided(
    clock: list[float], step_seconds: float
) -> None:
    pace, meetings = make_pace(clock), [0]
    pace.stored.extend(Decision(one, 0.1, 10**6, 0.0) for one in (37, 38, 2000))
    while meetings[-1] < 3000:
        meeting = pace.next_meeting(meetings[-1])
        for step in range(meetings[-1] + 1, meeting + 1):
            pace.decide(step, step_seconds)
        meetings.append(meeting)
    assert {*room.FIRST_STEPS, 37, 38, 2000} <= {*meetings}
    gaps = np.diff(meetings)
    assert gaps.min() >= 1
    assert (gaps * step_seconds <= max(room.MEET_SECONDS, step_seconds) + 1e-9).all()
    assert len(meetings) <= 3000 * step_seconds / room.MEET_SECONDS * (1 + step_seconds) + 8 or step_seconds > 0.25


def test_without_a_budget_the_steps_are_those_asked_for(clock: list[float]) -> None:
    told = go(clock, SPEEDS["busy in the middle"], Pace(40))
    assert told.progress == pytest.approx([step / 40 for step in range(41)], abs=1e-12)


def test_a_budget_takes_no_more_steps_than_help(clock: list[float]) -> None:
    assert go(clock, SPEEDS["even"], make_pace(clock, most_steps=100)).steps == 100


@pytest.mark.parametrize("stop", [1, 7, 300, 1000])
def test_a_stopped_training_takes_the_same_decisions_at_the_same_steps(
    clock: list[float], tmp_path: Path, stop: int
) -> None:
    """A checkpoint at `stop`; the process went on for a while before it was killed."""
    file = tmp_path / "checkpoints" / "pace.jsonl"
    killed = make_pace(clock, file=file)
    before = go(clock, SPEEDS["busy at first"], killed, stop=stop)
    checkpoint = killed.decision
    after = go(clock, SPEEDS["busy at first"], killed, first=stop, stop=stop + 200)
    made = [one for one in read_decisions(file) if one.step <= stop + 200]
    clock[0] += 86_400  # the next day, on a slower machine
    again = make_pace(clock, file=file)
    again.resume(Decision(**json.loads(json.dumps(asdict(checkpoint)))))
    told = go(clock, SPEEDS["slow steps"], again, first=stop)
    known = made[-1].step - stop + 1 if made and made[-1].step > stop else 0
    assert told.progress[:known] == after.progress[:known]
    spent = BUDGET_SECONDS - AFTER_SECONDS - (made[-1].seconds if made else 0.0)
    replayed = max(0, known - 1) * 4.0
    assert told.seconds == pytest.approx(replayed + spent, abs=9)
    assert before.steps == stop


def test_a_disk_that_is_full_for_a_while_loses_no_decision(
    clock: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, pace = tmp_path / "pace.jsonl", make_pace(clock, file=tmp_path / "pace.jsonl")
    taken: list[Decision] = []
    take = pace.take
    monkeypatch.setattr(pace, "take", lambda decision: (taken.append(decision), take(decision)))
    fsync = room.os.fsync

    def full(number: int) -> None:
        if 60 < clock[0] - 1000 < 200:
            raise OSError(28, "No space left on device")
        fsync(number)

    monkeypatch.setattr(room.os, "fsync", full)
    go(clock, SPEEDS["even"], pace)
    assert read_decisions(file) == taken


def test_lines_that_were_cut_short_are_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "pace.jsonl"
    whole = [Decision(4, 0.1, 90, 3.0), Decision(10, 0.2, 80, 6.5)]
    lines = [json.dumps(asdict(one)) for one in whole]
    file.write_text(f"{lines[0]}\n{lines[1][:20]}\n{lines[1]}\n\n[1, 2]\n")
    assert read_decisions(file) == whole
    assert all(one.step < other.step for one, other in pairwise(whole))
