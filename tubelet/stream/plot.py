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
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tubelet.stream.canvas import (
    BOTTOM,
    GAP,
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
from tubelet.stream.segments import Segment, Window, borders, moment
from tubelet.system.text import plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, which the colour-blind tell apart; without yellow, of which a line cannot be seen on white.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#000000")
DARK = ("#0072b2", "#000000")  # of these, on which white letters are easier to read than black ones
OTHER = "#999999"
LIKELIEST = 3  # classes whose curves are shown where no segment is
COLUMNS = 900  # points of a curve, at most: more cannot be seen
BAND, CURVES = 0.42, 1.3  # inches
PARTED = 0.03  # inches: wider segments are parted by a white line
FLAG_LINES = 3


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
    from matplotlib.figure import Figure

    cuts, chances = borders(windows), np.stack([window.probabilities for window in windows])
    shown = shown_classes(chances, segments, classes)
    inks = colours(shown, classes)
    width = picture_width(cuts[-1] - cuts[0])
    inches = (width - LEFT - RIGHT) / (cuts[-1] - cuts[0])  # of a second
    with drawing():
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
        save_picture(figure, file)


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


def thin_curve(cuts: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A curve of steps along the cells, or, where these are many, of the largest value in each group of cells."""
    groups = np.linspace(0, len(values), min(len(values), COLUMNS) + 1).round().astype(int)
    heights = np.maximum.reduceat(values, groups[:-1])
    return np.repeat(cuts[groups], 2)[1:-1], np.repeat(heights, 2)


def ink_on(colour: str) -> str:
    return "white" if colour in DARK else "black"
