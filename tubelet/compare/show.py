"""A comparison on the screen: its plan, each round, the standings at the end."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.table import Table

from tubelet.compare.candidate import Candidate
from tubelet.compare.difference import Right
from tubelet.compare.standings import Standings
from tubelet.compare.trials import Fold
from tubelet.system.console import Bar, bar, clock, console, facts, say, size
from tubelet.system.text import percent, plural

TICK_SECONDS = 1.0


class Ticks:
    """A bar that goes on by itself while a training runs, whose length in seconds is known."""

    def __init__(self, progress: Bar, total_seconds: int) -> None:
        self.progress, self.total, self.words = progress, total_seconds, ""
        self.lock, self.over = threading.Lock(), threading.Event()

    def begin(self, seconds: float, words: str) -> None:
        """So many seconds are done, and this begins."""
        with self.lock:
            self.words = words
            self.progress.done = round(seconds)

    def run(self) -> None:
        while not self.over.wait(TICK_SECONDS):
            with self.lock:
                left = clock(self.total - self.progress.done)
                self.progress.advance(f"{self.words} left {left}", by=int(self.progress.done < self.total))


@contextmanager
def ticking(title: str, total_seconds: float, *, show: bool) -> Iterator[Ticks]:
    """A bar of seconds, which tells what is at work."""
    total = round(total_seconds)
    with bar(title, total, show=show) as progress:
        ticks = Ticks(progress, total)
        thread = threading.Thread(target=ticks.run, daemon=True)
        thread.start()
        try:
            yield ticks
        finally:
            ticks.over.set()
            thread.join()


def show_plan(candidates: Sequence[Candidate], folds: Sequence[Fold], *, budget_seconds: float, folder: Path) -> None:
    held = sum(len(fold.held_out) for fold in folds)
    groups = len({item.group for fold in folds for item in fold.held_out})
    rows = [(str(number), one.name) for number, one in enumerate(candidates, 1)]
    rows.append(("clips", f"{held} in {plural(groups, 'group')}, held out in {plural(len(folds), 'fold')}"))
    rows.append(("time", f"{clock(budget_seconds)} for all; the same command goes on where it is stopped"))
    rows.append(("folder", str(folder)))
    facts("Candidates", rows)


def show_round(candidates: Sequence[Candidate], index: int, right: Right, about: Mapping[str, Any]) -> None:
    """The shares of a round, the best first."""
    table = make_table(f"Round {index + 1}: {clock(about['seconds'])} a training", "right")
    for number in sorted(right, key=lambda number: -right[number].mean()):
        table.add_row(candidates[number].name, percent(float(right[number].mean())))
    console.print(table)


def make_table(title: str, *columns: str) -> Table:
    """A table of candidates, a row for each, with columns of figures."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    table.add_column("candidate", overflow="fold")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def show_standings(found: Standings, *, data: Path, page: Path) -> None:
    """Two tables, of accuracy and of cost, one sentence of advice, and the command that follows from it."""
    rows = [describe(found, number) for number in found.verdict.order]
    accuracy = make_table("Standings", "trained", "right", "95 %", "behind", "95 %", "p")
    cost = make_table("Cost", "a clip", "19 of 20", "memory", "parameters")
    for row in rows:
        accuracy.add_row(
            *(row[key] for key in ("name", "trained", "share", "interval", "behind", "behind_interval", "p"))
        )
        cost.add_row(*(row[key] for key in ("name", "p50", "p95", "memory", "parameters")))
    console.print(accuracy)
    console.print(cost)
    for number, why in found.failed.items():
        say("not trained", f"{found.name(number)}: {why}")
    say("advice", found.advice)
    say("report", page)
    say("next  ", found.candidates[found.verdict.leader].command(data))


def describe(found: Standings, number: int) -> dict[str, str]:
    """All that is said of a candidate, in words."""
    told, cost = found.difference(number), found.costs[number]
    return {
        "name": found.name(number),
        "trained": clock(found.trained_seconds(number)),
        "share": percent(found.share(number)),
        "interval": spread(found.interval(number)),
        "behind": percent(told.share) if told else "",
        "behind_interval": spread(told.interval) if told else "",
        "p": f"{told.p:.2g}" if told else "",
        "p50": f"{cost.p50_ms:.3g} ms",
        "p95": f"{cost.p95_ms:.3g} ms",
        "memory": "–" if cost.peak_bytes is None else size(cost.peak_bytes),
        "parameters": f"{cost.parameters / 1e6:.2f} M",
    }


def spread(interval: Sequence[float]) -> str:
    """[0.012, 0.071] -> "1.2 to 7.1"."""
    low, high = (f"{100 * bound:.1f}" for bound in interval)
    return f"{low} to {high}"
