"""The page of a comparison."""

from pathlib import Path

from tubelet.compare.show import describe
from tubelet.compare.standings import Standings
from tubelet.report.plots import front_svg
from tubelet.report.templates import open_templates
from tubelet.system.files import write_whole


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
