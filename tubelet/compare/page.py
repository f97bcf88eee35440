"""The page of a comparison."""

from pathlib import Path
from typing import Any

from tubelet.compare.show import spread
from tubelet.compare.standings import Standings
from tubelet.report.page import open_templates
from tubelet.report.plots import front_svg
from tubelet.system.console import clock, size
from tubelet.system.files import write_whole
from tubelet.system.text import percent


def write_page(found: Standings, file: Path, *, data: Path) -> None:
    """Writes the standings, the picture of what is better or quicker, and the command that follows."""
    order, leader = found.verdict.order, found.candidates[found.verdict.leader]
    points = []
    for number in order:
        told = found.difference(number)
        interval = told.interval if told else [0.0, 0.0]
        on_front = number in found.front
        points.append((found.name(number), found.costs[number].p50_ms, found.behind(number), interval, on_front))
    page = open_templates(html=True).get_template("comparison.html.jinja")
    text = page.render(
        advice=found.advice,
        clips=len(found.groups),
        groups=len(set(found.groups)),
        failed=[(found.name(number), why) for number, why in found.failed.items()],
        rows=[describe(found, number) for number in order],
        figure=front_svg(points),
        command=leader.command(data),
        precision=found.costs[found.verdict.leader].precision,
    )
    write_whole(file, text)


def describe(found: Standings, number: int) -> dict[str, Any]:
    """A row of the table, in words."""
    told, cost = found.difference(number), found.costs[number]
    return {
        "name": found.name(number),
        "trained": clock(found.trained_seconds(number)),
        "share": found.share(number),
        "interval": spread(found.interval(number)),
        "behind": percent(told.share) if told else "",
        "behind_interval": spread(told.interval) if told else "",
        "p": f"{told.p:.2g}" if told else "",
        "p50": f"{cost.p50_ms:.3g} ms",
        "p95": f"{cost.p95_ms:.3g} ms",
        "memory": "–" if cost.peak_bytes is None else size(cost.peak_bytes),
        "parameters": f"{cost.parameters / 1e6:.2f} M",
    }
