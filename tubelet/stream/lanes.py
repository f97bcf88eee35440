"""Segments as a picture: a lane for each class, in which segments of several classes may hold at once.

title    match.mp4
         2:13
legend   ■ true   ■ found, right   ■ missed, or found where there is none
lane     walk |  ▇▇▇▇▇▇       ▇▇▇▇       true
              |   ▓▓▓▓▓▓                 found, the stronger the surer
lane     wave |        ▇▇▇
              |        ▓▓▓       ░░
time          0:00        0:30        1:00
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tubelet.data.segments import Span
from tubelet.stream.canvas import (
    BOTTOM,
    GRID,
    LEFT,
    LINE,
    NOTHING,
    RIGHT,
    SWATCH,
    TEXT,
    TICK_EVERY,
    TITLE,
    TOP,
    drawing,
    picture_width,
    place_axes,
    save_picture,
    shorten_name,
    text_inches,
    tick_label,
    tick_seconds,
    write_legend,
    write_title,
)
from tubelet.stream.segments import Segment, moment
from tubelet.system.text import list_names
from tubelet.tasks.detection import MET_TIOU, highest_tious

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FAINTEST = 0.25  # of a colour, at score 0
BAR, PARTED, LANES_GAP = 0.13, 0.03, 0.1  # inches: the height of a bar, between two of a lane, between lanes
LEAST_LINE = 0.6  # points, of the line round a bar: one that is too short to be seen is as wide as that


@dataclass(frozen=True)
class Inks:
    """The colours of a picture. By default of Okabe and Ito, which the colour-blind tell apart."""

    true: str = TEXT
    right: str = "#0072b2"
    wrong: str = "#d55e00"
    lane: str = NOTHING
    text: str = TEXT
    grid: str = GRID


def draw_lanes(
    file: Path,
    found: Sequence[Segment],
    names: Sequence[str],
    *,
    seconds: float,
    truth: Sequence[Span] | None = None,
    title: str = "",
) -> None:
    """Writes the picture of a video of so many seconds as .svg or .png, 10 to 20 inches wide, a lane for each name.

    Four hours and 50 names can be read. A segment that is shorter than a pixel is about a pixel wide.

    Raises:
        ValueError: as `make_lanes`.
    """
    inks = Inks()
    entries = [(inks.right, "found, the stronger the surer")]
    if truth is not None:
        entries = [(inks.true, "true"), (inks.right, "found, right: the stronger the surer")]
        entries.append((inks.wrong, "missed, or found where there is none"))
    with drawing():
        figure = make_lanes(found, names, seconds=seconds, truth=truth, inks=inks, above=TOP + TITLE + LINE)
        write_title(figure, title, [moment(seconds)])
        entry = SWATCH + 0.36 + max(text_inches(text) for _, text in entries)
        write_legend(figure, entries, columns=len(entries), entry=entry)
        save_picture(figure, file)


def make_lanes(
    found: Sequence[Segment],
    names: Sequence[str],
    *,
    seconds: float,
    truth: Sequence[Span] | None,
    inks: Inks,
    above: float = 0.0,
) -> "Figure":
    """The lanes and their time axis, with room `above`, in inches. Inside of `drawing`.

    Raises:
        ValueError: a segment of another name; no name; seconds that are not above 0.
    """
    from matplotlib.figure import Figure

    strange = sorted({*(one.label for one in found), *(label for *_, label in truth or ())} - {*names})
    if strange or not names or seconds <= 0:
        raise ValueError(
            f"segments of {list_names(strange) or 'known names'} in lanes of {list_names(names) or 'none'}, "
            f"{seconds:g} seconds: expected a lane for each name and a length above 0"
        )
    rows = 1 if truth is None else 2
    lane = rows * BAR + (rows - 1) * PARTED + LANES_GAP
    shown = [shorten_name(name) for name in names]
    left = max(LEFT, 0.2 + max(map(text_inches, shown)))
    width, height = picture_width(seconds), lane * len(names)
    figure = Figure(figsize=(width, above + LANES_GAP + height + BOTTOM))
    axes = place_axes(figure, BOTTOM, height, left=left)
    ticks = tick_seconds(0, seconds, most=int((width - left - RIGHT) / TICK_EVERY))
    draw_axes(axes, shown, ticks, seconds=seconds, lane=lane, inks=inks)
    found_rows = [("", one.start_seconds, one.end_seconds, one.label, one.probability) for one in found]
    true_rows = [("", *span) for span in truth or ()]
    tops = {name: height - number * lane - LANES_GAP / 2 for number, name in enumerate(names)}
    for (_, start, end, label), tiou in zip(true_rows, highest_tious(true_rows, found_rows), strict=True):
        draw_bar(axes, start, end, tops[label] - BAR, inks.true if tiou >= MET_TIOU else inks.wrong)
    for (_, start, end, label, score), tiou in zip(found_rows, highest_tious(found_rows, true_rows), strict=True):
        ink = inks.right if truth is None or tiou >= MET_TIOU else inks.wrong
        bottom = tops[label] - rows * BAR - (rows - 1) * PARTED
        draw_bar(axes, start, end, bottom, ink, strength=FAINTEST + (1 - FAINTEST) * float(np.clip(score, 0, 1)))
    return figure


def draw_axes(
    axes: "Axes", names: Sequence[str], ticks: Sequence[float], *, seconds: float, lane: float, inks: Inks
) -> None:
    """Empty lanes, in inches upwards, with their names and the ticks of the time, in seconds."""
    height = lane * len(names)
    for number, name in enumerate(names):
        bottom = height - (number + 1) * lane
        axes.axhspan(bottom + LANES_GAP / 4, bottom + lane - LANES_GAP / 4, color=inks.lane, linewidth=0)
        axes.annotate(
            name,
            (0, bottom + lane / 2),
            (-6, 0),
            textcoords="offset points",
            color=inks.text,
            ha="right",
            va="center_baseline",
            parse_math=False,
        )
    for tick in ticks:
        axes.axvline(tick, color=inks.grid, linewidth=0.6)
    axes.set(xlim=(0, seconds), ylim=(0, height), yticks=[])
    axes.set_xticks(ticks, [tick_label(tick) for tick in ticks])
    axes.tick_params(labelcolor=inks.text)


def draw_bar(axes: "Axes", start: float, end: float, bottom: float, ink: str, *, strength: float = 1.0) -> None:
    from matplotlib.patches import Rectangle

    bar = Rectangle((start, bottom), end - start, BAR, color=ink, linewidth=LEAST_LINE, alpha=strength)
    axes.add_patch(bar).set_zorder(3)
