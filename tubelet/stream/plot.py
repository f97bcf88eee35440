"""A timeline as a picture: one band with the names of the segments, the probabilities below.

title    match.mp4
         2:13 · vivit2 of runs/clips
legend   ■ walk 0:42   ■ run 0:12
flags                   |jump 71 %
band     | walk 93 %   ||  |  run 88 %  |
curves   ‾‾‾‾\\_____/\\____/‾‾‾‾‾‾‾‾‾‾‾‾\\_
time     0:00        0:30        1:00
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING
from warnings import catch_warnings, filterwarnings

import numpy as np

from tubelet.stream.segments import Segment, Window, borders, moment
from tubelet.system.text import plural, visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which the colour-blind tell apart; without yellow, of which a line cannot be seen on white.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#000000")
DARK = ("#0072b2", "#000000")  # of these, on which white letters are easier to read than black ones
OTHER, NOTHING, TEXT, GRID = "#999999", "#f0f0f0", "#444444", "#dddddd"
LIKELIEST = 3  # classes whose curves are shown where no segment is
COLUMNS = 900  # points of a curve, at most: more cannot be seen
DPI = 130
# All in inches.
LEAST_WIDTH, MOST_WIDTH, MINUTES_FOR_AN_INCH = 10.0, 20.0, 3.0
LEFT, RIGHT, TOP, BOTTOM, GAP = 0.55, 0.35, 0.15, 0.4, 0.16
TITLE, LINE, BAND, CURVES = 0.52, 0.22, 0.42, 1.3
NAME, SWATCH, TICK_EVERY = 2.4, 0.14, 1.0
PARTED = 0.03  # wide segments are parted by a white line
FLAG_LINES = 3
TICK_SECONDS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)


@dataclass(frozen=True)
class Flag:
    """A text above the band, on a line counted upwards, right of the staff that points to its segment, or left."""

    seconds: float
    text: str
    line: int
    leftwards: bool
    label: str


def draw(
    file: Path,
    windows: Sequence[Window],
    segments: Sequence[Segment],
    classes: Sequence[str],
    *,
    on: float,
    title: str = "",
    model: str = "",
) -> None:
    """Writes the picture as .svg or .png, 10 to 20 inches wide; `on`, a dotted line, is where segments begin."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    cuts, chances = borders(windows), np.stack([window.probabilities for window in windows])
    shown = shown_classes(chances, segments, classes)
    inks = colours(shown, classes)
    width = float(np.clip(LEAST_WIDTH + (cuts[-1] - cuts[0]) / 60 / MINUTES_FOR_AN_INCH, LEAST_WIDTH, MOST_WIDTH))
    inches = (width - LEFT - RIGHT) / (cuts[-1] - cuts[0])  # of a second
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "timeline", "font.size": 10}), catch_warnings():
        filterwarnings("ignore", message=r"Glyph \d+ .* missing from")  # a box in a PNG; an SVG leaves it to the viewer
        inside, flags = labels(segments, cuts, inches)
        entries = legend(chances, segments, classes, shown, inks)
        entry = SWATCH + 0.36 + max(text_inches(text) for _, text in entries)
        columns = max(1, int((width - LEFT - RIGHT) / entry))
        above = BAND + LINE * max((flag.line + 1 for flag in flags), default=0)
        rows = math.ceil(len(entries) / columns)
        figure = Figure(figsize=(width, TOP + TITLE + LINE * rows + GAP + above + GAP + CURVES + BOTTOM))
        write_title(figure, title, [moment(cuts[-1] - cuts[0]), model])
        write_legend(figure, entries, columns=columns, entry=entry)
        band = place_axes(figure, BOTTOM + CURVES + GAP, above)
        band.set(xlim=(cuts[0], cuts[-1]), ylim=(0, above), xticks=[], yticks=[])
        draw_band(band, segments, inks, inside, flags, inches)
        if not segments:
            at = (cuts[0] + cuts[-1]) / 2, BAND / 2
            band.text(*at, f"no class stays at {on:.0%} for long enough", color=TEXT, ha="center", va="center")
        curves = place_axes(figure, BOTTOM, CURVES)
        ticks = tick_seconds(cuts[0], cuts[-1], most=int((width - LEFT - RIGHT) / TICK_EVERY))
        draw_curves(curves, cuts, chances, {k: inks[classes[k]] for k in shown}, ticks, on=on)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))  # the same timeline gives the same bytes
        figure.savefig(file, dpi=DPI, metadata=nothing if file.suffix.lower() == ".svg" else {"Software": None})


def shown_classes(chances: np.ndarray, segments: Sequence[Segment], classes: Sequence[str]) -> list[int]:
    """The classes that occur, those with the longest segments if they are more than the colours; where none does, the
    three that are ever the likeliest. In the model's order."""
    seconds = class_seconds(segments)
    ranked = sorted((classes.index(name) for name in seconds), key=lambda k: -seconds[classes[k]])[: len(COLOURS)]
    return sorted(ranked or np.argsort(-chances.max(0), kind="stable")[:LIKELIEST].tolist())


def class_seconds(segments: Sequence[Segment]) -> dict[str, float]:
    """The time of each class in all."""
    seconds: dict[str, float] = {}
    for one in segments:
        seconds[one.label] = seconds.get(one.label, 0.0) + one.end_seconds - one.start_seconds
    return seconds


def colours(shown: Sequence[int], classes: Sequence[str]) -> dict[str, str]:
    """The colour of each name; where they suffice, a class of a model has the same one in all its pictures."""
    coloured = range(len(classes)) if len(classes) <= len(COLOURS) else shown
    return dict.fromkeys(classes, OTHER) | {classes[k]: ink for k, ink in zip(coloured, COLOURS, strict=False)}


def legend(
    chances: np.ndarray,
    segments: Sequence[Segment],
    classes: Sequence[str],
    shown: Sequence[int],
    inks: dict[str, str],
) -> list[tuple[str, str]]:
    """(colour, text): the name of each class shown and its time in all, or its highest probability."""
    seconds = class_seconds(segments)
    entries = []
    for k in shown:
        much = moment(seconds[classes[k]]) if segments else f"at most {chances[:, k].max():.0%}"
        entries.append((inks[classes[k]], f"{shorten_name(classes[k])} {much}"))
    others = len(seconds) - len(shown)
    return [*entries, (OTHER, plural(others, "more class"))] if others > 0 else entries


def labels(segments: Sequence[Segment], cuts: np.ndarray, inches: float) -> tuple[dict[int, str], list[Flag]]:
    """The texts in the band by the number of their segment, and the flags of segments that are too short for a text.

    From the right to the left, each flag on the lowest line where it covers no other and no other's staff; segments
    for which there is no place have their colour only.
    """
    inside: dict[int, str] = {}
    flags: list[Flag] = []
    begins = [float(cuts[-1])] * FLAG_LINES  # of the leftmost text on each line
    for number, one in reversed([*enumerate(segments)]):
        room = (one.end_seconds - one.start_seconds) * inches
        name, chance = shorten_name(one.label), f"{one.probability:.0%}"
        fitting = [text for text in (f"{name} {chance}", name) if text_inches(text) + 0.12 < room]
        if fitting:
            inside[number] = fitting[0]
            continue
        staff, text = (one.start_seconds + one.end_seconds) / 2, f"{name} {chance}"
        need = (text_inches(text) + 0.15) / inches
        leftwards = staff + need > cuts[-1]
        begin = staff - need if leftwards else staff
        for line in range(FLAG_LINES):
            if begin + need <= min(begins[line:]) and staff <= min(begins[:line], default=staff):
                flags.append(Flag(staff, text, line, leftwards, one.label))
                begins[line] = begin
                break
    return inside, flags


def place_axes(figure: "Figure", bottom: float, height: float) -> "Axes":
    """Axes from the left to the right margin, `bottom` and `height` in inches."""
    width, whole = figure.get_size_inches()
    axes = figure.add_axes((LEFT / width, bottom / whole, 1 - (LEFT + RIGHT) / width, height / whole))
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
    """(colour, text) of each class, in rows of `columns`, each `entry` inches wide."""
    from matplotlib.patches import Rectangle

    width, height = figure.get_size_inches()
    for number, (ink, text) in enumerate(entries):
        row, column = divmod(number, columns)
        x, y = LEFT + entry * column, height - TOP - TITLE - LINE * (row + 0.5)
        corner = x / width, (y - SWATCH / 2) / height
        figure.add_artist(Rectangle(corner, SWATCH / width, SWATCH / height, color=ink, linewidth=0))
        at = (x + SWATCH + 0.06) / width, y / height
        figure.text(*at, text, color=TEXT, va="center_baseline", parse_math=False)


def draw_band(
    axes: "Axes",
    segments: Sequence[Segment],
    inks: dict[str, str],
    inside: dict[int, str],
    flags: Sequence[Flag],
    inches: float,
) -> None:
    """The segments along the time, in inches upwards; white lines part those that touch."""
    axes.axhspan(0, BAND, color=NOTHING, linewidth=0)
    for label, group in groupby(sorted(segments, key=lambda one: one.label), key=lambda one: one.label):
        spans = [(one.start_seconds, one.end_seconds - one.start_seconds) for one in group]
        edges = [0.4 if length * inches > PARTED else 0 for _, length in spans]
        axes.broken_barh(spans, (0, BAND), facecolor=inks[label], edgecolor="white", linewidth=edges)
    for number, text in inside.items():
        one = segments[number]
        middle, ink = (one.start_seconds + one.end_seconds) / 2, ink_on(inks[one.label])
        axes.text(middle, BAND / 2, text, color=ink, ha="center", va="center_baseline", parse_math=False)
    for flag in flags:
        y = BAND + LINE * flag.line
        axes.plot([flag.seconds] * 2, [BAND, y + LINE - 0.03], color=inks[flag.label], linewidth=1.2)
        axes.annotate(
            flag.text,
            (flag.seconds, y + LINE / 2),
            (-4 if flag.leftwards else 4, 0),
            textcoords="offset points",
            color=TEXT,
            ha="right" if flag.leftwards else "left",
            va="center_baseline",
            parse_math=False,
        )


def draw_curves(
    axes: "Axes", cuts: np.ndarray, chances: np.ndarray, inks: dict[int, str], ticks: Sequence[float], *, on: float
) -> None:
    """The probability of each class of `inks`, by its number, over a time axis with `ticks`, in seconds."""
    for tick in ticks:
        axes.axvline(tick, color=GRID, linewidth=0.6)
    for level in (0, 0.5, 1):
        axes.axhline(level, color=GRID, linewidth=0.6, clip_on=False)
    axes.axhline(on, color=TEXT, linewidth=0.8, linestyle=":")
    for k, ink in inks.items():
        times, heights = thin_curve(cuts, chances[:, k])
        axes.fill_between(times, heights, color=ink, alpha=0.1, linewidth=0)
        axes.plot(times, heights, color=ink, linewidth=1.1, clip_on=False)
    axes.set(xlim=(cuts[0], cuts[-1]), ylim=(0, 1), yticks=[0, 0.5, 1], yticklabels=["0%", "50%", "100%"])
    axes.tick_params(axis="x", pad=7)
    axes.set_xticks(ticks, [tick_label(tick) for tick in ticks])


def tick_seconds(start: float, end: float, *, most: int) -> list[float]:
    """Round times from start to end, at most about as many as `most`."""
    step = next((step for step in TICK_SECONDS if (end - start) / step <= most), TICK_SECONDS[-1])
    return [round(number * step, 3) for number in range(math.ceil(start / step), math.floor(end / step + 1e-6) + 1)]


def tick_label(seconds: float) -> str:
    return moment(seconds).removesuffix(".0")


def thin_curve(cuts: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A curve of steps along the cells, or, where these are many, of the largest value in each group of cells."""
    groups = np.linspace(0, len(values), min(len(values), COLUMNS) + 1).round().astype(int)
    heights = np.maximum.reduceat(values, groups[:-1])
    return np.repeat(cuts[groups], 2)[1:-1], np.repeat(heights, 2)


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


def ink_on(colour: str) -> str:
    return "white" if colour in DARK else "black"
