"""A timeline as a picture: a row for each class, its probability as an area, its segments as bars below.

Rows carry their names and one colour serves them all, so nothing hangs on telling colours apart.
"""

from collections.abc import Sequence
from pathlib import Path
from warnings import catch_warnings, filterwarnings

import numpy as np

from tubelet.stream.segments import Segment, Window, borders, moment

ROWS = 10  # classes shown, at most
COLUMNS = 900  # points of a curve, at most: more cannot be seen
NAME_LETTERS = 24
AREA, LINE, BAR, TEXT, GRID = "#9ecae1", "#3182bd", "#b35806", "#444444", "#d9d9d9"


def draw(
    file: Path, windows: Sequence[Window], segments: Sequence[Segment], classes: Sequence[str], *, on: float
) -> None:
    """Writes the picture as .svg or .png; `on`, a dotted line, is where segments begin."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    cuts, chances = borders(windows), np.stack([window.probabilities for window in windows])
    rows = chosen(chances, segments, classes)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "timeline", "font.size": 10}), catch_warnings():
        filterwarnings("ignore", message=r"Glyph \d+ .* missing from")  # a box in a PNG; an SVG leaves it to the viewer
        figure = Figure(figsize=(10, 0.9 + 0.55 * len(rows)), layout="constrained")
        axes = np.reshape(figure.subplots(len(rows), 1, sharex=True), -1)
        for row, at in zip(rows, axes, strict=True):
            middles, heights = thinned(cuts, chances[:, row])
            at.fill_between(middles, heights, color=AREA, linewidth=0)
            at.plot(middles, heights, color=LINE, linewidth=0.8)
            at.axhline(on, color=TEXT, linewidth=0.6, linestyle=":")
            spans = [(one.start_seconds, one.end_seconds - one.start_seconds) for one in segments]
            own = [span for span, one in zip(spans, segments, strict=True) if one.label == classes[row]]
            at.broken_barh(own, (-0.3, 0.2), color=BAR, linewidth=0)
            at.set_ylabel(shortened(classes[row]), rotation=0, ha="right", va="center", color=TEXT)
            at.set(xlim=(cuts[0], cuts[-1]), ylim=(-0.3, 1.02), yticks=[0, 1], yticklabels=[])
            at.grid(axis="y", color=GRID, linewidth=0.6)
            at.tick_params(length=0, labelcolor=TEXT)
            at.spines[:].set_visible(False)
        axes[-1].xaxis.set_major_locator(MaxNLocator(8, steps=[1, 1.5, 2, 3, 6, 10]))
        axes[-1].xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: moment(seconds).removesuffix(".0")))
        axes[-1].tick_params(axis="x", length=3, color=GRID)
        left_out = len(classes) - len(rows)
        if left_out:
            figure.supxlabel(f"{left_out} more classes are not shown", fontsize=8, color=TEXT)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))  # the same timeline gives the same bytes
        figure.savefig(file, dpi=130, metadata=nothing if file.suffix.lower() == ".svg" else {"Software": None})


def chosen(chances: np.ndarray, segments: Sequence[Segment], classes: Sequence[str]) -> list[int]:
    """Up to ten classes: those with the longest segments, then those that are likely longest; in the model's order."""
    seconds = dict.fromkeys(classes, 0.0)
    for one in segments:
        seconds[one.label] += one.end_seconds - one.start_seconds
    mean = chances.mean(0)
    ranked = sorted(range(len(classes)), key=lambda k: (-seconds[classes[k]], -mean[k]))
    return sorted(ranked[:ROWS])


def thinned(cuts: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A curve of steps along the cells, or, where these are many, of the largest value in each group of cells."""
    groups = np.linspace(0, len(values), min(len(values), COLUMNS) + 1).round().astype(int)
    heights = np.maximum.reduceat(values, groups[:-1])
    return np.repeat(cuts[groups], 2)[1:-1], np.repeat(heights, 2)


def shortened(name: str) -> str:
    short = name if len(name) <= NAME_LETTERS else name[: NAME_LETTERS - 1] + "…"
    return short.replace("$", r"\$")  # else matplotlib sets it as a formula
