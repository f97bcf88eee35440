"""Figures on the terminal."""

from collections.abc import Sequence

from rich.table import Table

from tubelet.system.console import console, facts
from tubelet.system.text import percent, plural, visible
from tubelet.tasks import Results


def show_results(results: Results, *, split: str | None, noun: str, more: Sequence[tuple[str, str]] = ()) -> None:
    """noun: what was answered, such as "clip". more: facts of this evaluation, name and value."""
    (low, high), (baseline, reached), said = results.interval, results.baseline(), results.say(results.figure)
    rows = [
        ("this model", f"{said} on {plural(results.clips, noun)} ({results.number(low)} to {results.number(high)})"),
        ("baseline", f"{results.number(reached)} by {baseline}"),
        *results.facts(),
    ]
    if results.failed:
        rows.append(("unreadable", plural(results.failed, "file")))
    facts(f"Evaluation{f' on {split}' if split else ''}", [*rows, *more])
    columns, outputs = results.table()
    table = Table(*columns, box=None, padding=(0, 2, 0, 0))
    for cells in outputs:
        table.add_row(*(percent(one, 0) if one is None or isinstance(one, float) else visible(one) for one in cells))
    console.print(table)
