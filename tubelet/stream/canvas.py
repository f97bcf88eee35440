"""What pictures along the time share: their size, title, legend, time axis, and how long a text is.

All lengths are in inches.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from warnings import catch_warnings, filterwarnings

import numpy as np

from tubelet.stream.segments import moment
from tubelet.system.text import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NOTHING, TEXT, GRID = "#f0f0f0", "#444444", "#dddddd"
DPI = 130
LEAST_WIDTH, MOST_WIDTH, MINUTES_FOR_AN_INCH = 10.0, 20.0, 3.0
LEFT, RIGHT, TOP, BOTTOM, GAP = 0.55, 0.35, 0.15, 0.4, 0.16
TITLE, LINE = 0.52, 0.22
NAME, SWATCH, TICK_EVERY = 2.4, 0.14, 1.0
TICK_SECONDS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400)


@contextmanager
def drawing(name: str = "timeline") -> Iterator[None]:
    """The settings of matplotlib in which a picture is made and saved. name: of which the ids in an SVG are made."""
    from matplotlib import rc_context

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 10}), catch_warnings():
        filterwarnings("ignore", message=r"Glyph \d+ .* missing from")  # a box in a PNG; an SVG leaves it to the viewer
        yield


def picture_width(seconds: float) -> float:
    return float(np.clip(LEAST_WIDTH + seconds / 60 / MINUTES_FOR_AN_INCH, LEAST_WIDTH, MOST_WIDTH))


def save_picture(figure: "Figure", file: Path) -> None:
    """Writes a .svg or .png; the same picture gives the same bytes."""
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(file, dpi=DPI, metadata=nothing if file.suffix.lower() == ".svg" else {"Software": None})


def place_axes(figure: "Figure", bottom: float, height: float, *, left: float = LEFT) -> "Axes":
    """Axes from the left to the right margin."""
    width, whole = figure.get_size_inches()
    axes = figure.add_axes((left / width, bottom / whole, 1 - (left + RIGHT) / width, height / whole))
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelcolor=TEXT)
    return axes


def write_title(figure: "Figure", title: str, more: Sequence[str]) -> None:
    width, height = figure.get_size_inches()
    room = width - LEFT - RIGHT
    name = shorten_name(title, room, size=12, weight="bold")
    figure.text(LEFT / width, 1 - TOP / height, name, weight="bold", fontsize=12, va="top", parse_math=False)
    words = shorten_name(" · ".join(part for part in more if part), room)
    figure.text(LEFT / width, 1 - (TOP + 0.25) / height, words, color=TEXT, va="top", parse_math=False)


def write_legend(figure: "Figure", entries: Sequence[tuple[str, str]], *, columns: int, entry: float) -> None:
    """(colour, text) of each class, in rows of `columns`, each `entry` wide."""
    from matplotlib.patches import Rectangle

    width, height = figure.get_size_inches()
    for number, (ink, text) in enumerate(entries):
        row, column = divmod(number, columns)
        x, y = LEFT + entry * column, height - TOP - TITLE - LINE * (row + 0.5)
        corner = x / width, (y - SWATCH / 2) / height
        figure.add_artist(Rectangle(corner, SWATCH / width, SWATCH / height, color=ink, linewidth=0))
        at = (x + SWATCH + 0.06) / width, y / height
        figure.text(*at, text, color=TEXT, va="center_baseline", parse_math=False)


def tick_seconds(start: float, end: float, *, most: int) -> list[float]:
    """Round times from start to end, at most about as many as `most`."""
    step = next((step for step in TICK_SECONDS if (end - start) / step <= most), TICK_SECONDS[-1])
    return [round(number * step, 3) for number in range(math.ceil(start / step), math.floor(end / step + 1e-6) + 1)]


def tick_label(seconds: float) -> str:
    return moment(seconds).removesuffix(".0")


@cache
def shorten_name(name: str, room: float = NAME, *, size: float = 10, weight: str = "normal") -> str:
    """The name, or as much of its beginning as `room`, in inches, holds."""
    name = visible(name)
    if text_inches(name, size=size, weight=weight) <= room:
        return name
    cuts = (name[:end].rstrip() + "…" for end in range(min(len(name), 400), 0, -1))
    return next((cut for cut in cuts if text_inches(cut, size=size, weight=weight) <= room), "…")


@cache
def text_inches(text: str, *, size: float = 10, weight: str = "normal") -> float:
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    points = text_to_path.get_text_width_height_descent(text, FontProperties(size=size, weight=weight), False)[0]
    return 1.05 * points / 72  # a PNG's letters stand on whole pixels, up to a twentieth further apart
