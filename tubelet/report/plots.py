"""Plots and media of the report: curves as inline SVG, the frames of an item as one strip, its sound."""

import base64
import io
import re
import wave
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tubelet.data.segments import Span
from tubelet.stream.canvas import drawing
from tubelet.stream.lanes import Inks, make_lanes
from tubelet.stream.segments import Segment

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVE_POINTS = 120
STRIP_GAP_PX = 4
LARGE, SMALL = (7, 1120, 200), (4, 440, 88)  # frames of a strip, its width and height in px, at most
SOUND_SAMPLES = 160_000  # ten seconds at 16 kHz

# Stand-ins that matplotlib draws with; the page's style sheet says what they look like in light and in dark.
_INKS = {
    "#a0a1a2": "var(--muted)",
    "#b0b1b2": "var(--line)",
    "#c0c1c2": "var(--train)",
    "#d0d1d2": "var(--accent)",
    "#e0e1e2": "rgb(var(--miss))",
    "#f0f1f2": "var(--wash)",
}
_TEXT, _GRID, _TRAIN, _VAL, _MISS, _WASH = _INKS


def curve_svg(
    train: Sequence[tuple[float, float]], val: Sequence[tuple[float, float]], *, name: str, over: str = "epochs"
) -> str:
    """(epoch, value) points -> an inline <svg> that takes its colours and its type from the page.

    over: the unit of the first number of a point.
    A thin line for train, in means over up to 120 groups of steps; a line with dots for val. NaN is a gap.
    The figure named "accuracy" runs from 0 to 100 %.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 11}):
        figure = Figure(figsize=(5.4, 3.1))
        axes = figure.add_axes((0.11, 0.1, 0.88, 0.86))
        axes.plot(*_means(train), color=_TRAIN, linewidth=1.4)
        axes.plot(*np.reshape(val, (-1, 2)).T, color=_VAL, linewidth=2, marker="o", markersize=3.4)
        axes.set_ylim(0, 1.02 if name == "accuracy" else None)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        if name == "accuracy":
            axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.grid(axis="y", color=_GRID, linewidth=0.8)
        axes.tick_params(length=0, labelcolor=_TEXT, pad=6)
        axes.spines[:].set_visible(False)
        return _inline(figure, says=f"{name} over the {over}")


def reliability_svg(before: Sequence[Sequence[float]], after: Sequence[Sequence[float]]) -> str:
    """(confidence, share that is right, clips) of bins, before and after calibration -> an inline <svg>.

    A dot for each bin, the larger the more clips it has; on the diagonal probabilities are right as often as they say.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "reliability", "font.size": 11}):
        figure = Figure(figsize=(5.4, 3.6))
        axes = figure.add_axes((0.11, 0.1, 0.88, 0.86))
        axes.plot((0, 1), (0, 1), color=_GRID, linewidth=1.4)
        for bins, colour in ((before, _TRAIN), (after, _VAL)):
            confidence, right, clips = np.reshape(bins, (-1, 3)).T
            axes.plot(confidence, right, color=colour, linewidth=1.4)
            axes.scatter(confidence, right, s=12 + 120 * clips / clips.sum(), color=colour, zorder=3)
        axes.set_xlim(0, 1.03)
        axes.set_ylim(0, 1.03)
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.grid(axis="y", color=_GRID, linewidth=0.8)
        axes.tick_params(length=0, labelcolor=_TEXT, pad=6)
        axes.spines[:].set_visible(False)
        return _inline(figure, says="share that is right over confidence")


def front_svg(points: Sequence[tuple[str, float, float, Sequence[float], bool]]) -> str:
    """(name, ms of a clip, share behind the best, its interval, whether on the front) -> an inline <svg>.

    Quicker is further left, better further up; a line joins those that no other is better than in as little time.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "front", "font.size": 11}):
        figure = Figure(figsize=(7.6, 4.2))
        axes = figure.add_axes((0.09, 0.13, 0.89, 0.84))
        for number, (_, ms, behind, (low, high), best) in enumerate(points, 1):
            colour = _VAL if best else _TRAIN
            axes.plot((ms, ms), (-100 * low, -100 * high), color=colour, linewidth=1.4)
            axes.scatter([ms], [-100 * behind], s=44, color=colour, zorder=3)
            axes.annotate(str(number), (ms, -100 * behind), (7, 5), textcoords="offset points", color=_TEXT)
        front = sorted((ms, -100 * behind) for _, ms, behind, _, best in points if best)
        axes.plot(*np.reshape(front, (-1, 2)).T, color=_VAL, linewidth=1, linestyle=":")
        axes.axhline(0, color=_GRID, linewidth=0.8, zorder=0)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda ms, _: f"{ms:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("ms a clip", color=_TEXT)
        axes.set_ylabel("points from the best", color=_TEXT)
        axes.grid(axis="y", color=_GRID, linewidth=0.8)
        axes.tick_params(which="both", length=0, labelcolor=_TEXT, pad=6)
        axes.spines[:].set_visible(False)
        return _inline(figure, says="points from the best over the time of a clip")


def lanes_svg(
    found: Sequence[Segment], names: Sequence[str], *, seconds: float, truth: Sequence[Span], file: str
) -> tuple[str, int]:
    """The lanes of a recording as an inline <svg>, and the px below which it is no narrower."""
    inks = Inks(true=_TEXT, right=_VAL, wrong=_MISS, lane=_WASH, text=_TEXT, grid=_GRID)
    with drawing(file):
        figure = make_lanes(found, names, seconds=seconds, truth=truth, inks=inks)
        return _inline(figure, says="true and found segments over the time"), round(72 * figure.get_figwidth())


def recall_svg(curve: np.ndarray) -> str:
    """Recall and precision, (2, n), at each right segment -> an inline <svg>, a square of steps, both from 0 to 1."""
    chosen = np.linspace(0, curve.shape[1] - 1, min(curve.shape[1], CURVE_POINTS)).round().astype(int)
    recall, precision = 100 * curve[:, chosen]
    steps = np.stack([np.repeat([0, *recall], 2)[1:-1], np.repeat(100 - precision, 2)], axis=1)
    line = f'<polyline points="{" ".join(f"{x:.4g},{y:.4g}" for x, y in steps)}"/>'
    grid = '<path class="grid" d="M0 50H100M50 0V100"/>'
    return f'<svg viewBox="0 0 100 100" role="img" aria-label="precision over recall">{grid}{line}</svg>'


def _means(points: Sequence[tuple[float, float]]) -> np.ndarray:
    """N points -> (2, up to 120): the mean of each run of neighbours, so that a long training is a line, no cloud."""
    groups = np.array_split(np.reshape(points, (-1, 2)), max(1, min(len(points), CURVE_POINTS)))
    return np.array([group.mean(axis=0) for group in groups if len(group)]).reshape(-1, 2).T


def _inline(figure: "Figure", *, says: str) -> str:
    """A matplotlib figure -> an <svg> element that has no size, type or colour of its own."""
    file = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))  # the same run gives the same bytes
    figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    svg = file.getvalue()
    opening, rest = svg[svg.index("<svg") :].split(">", 1)
    opening = re.sub(r'\s(xmlns(:xlink)?|width|height|version)="[^"]*"', "", opening)
    rest = re.sub(r"<style.*?</style>|<metadata>.*?</metadata>", "", rest, flags=re.DOTALL)
    rest = re.sub(r' id="[\w.]*_\d+"', "", rest)  # two figures on one page would share these
    rest = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", rest)  # as matplotlib before 3.10 writes it
    rest = re.sub(r" font-family: [^;\"]*;", "", rest)
    for ink, variable in _INKS.items():
        rest = rest.replace(ink, variable)
    return f'{opening} role="img" aria-label="{says}">{rest}'


def strip_uri(frames: np.ndarray, *, small: bool = False) -> str:
    """uint8 (T, H, W, 3) -> a JPEG data URI of up to seven of the frames in a row (small: four), evenly spread.

    Raises:
        ValueError: the frames have another type or shape.
    """
    from PIL import Image

    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ValueError(f"got frames {frames.dtype} {frames.shape}; expected uint8 (T, H, W, 3), none of them 0")
    most, width_px, height_px = SMALL if small else LARGE
    count, height, width = frames.shape[:3]
    chosen = frames[np.linspace(0, count - 1, min(count, most)).round().astype(int)]
    scale = min((width_px // len(chosen) - STRIP_GAP_PX) / width, height_px / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    step_px = size[0] + STRIP_GAP_PX
    strip = Image.new("RGB", (len(chosen) * step_px - STRIP_GAP_PX, size[1]), (128, 128, 128))
    for i, frame in enumerate(chosen):
        strip.paste(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS), (i * step_px, 0))
    file = io.BytesIO()
    strip.save(file, "JPEG", quality=76, subsampling=0, optimize=True)  # whole colour: clean edges between frames
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def sound_uri(samples: np.ndarray, rate: int) -> str:
    """float32 (samples,) in [-1, 1], `rate` of them a second -> a WAV data URI, 16 bits; ten seconds at 16 kHz at most.

    Raises:
        ValueError: the samples have another type or shape, or the rate is not above 0.
    """
    if samples.dtype != np.float32 or samples.ndim != 1 or not samples.size or rate < 1:
        raise ValueError(f"got sound {samples.dtype} {samples.shape} at {rate} Hz; expected float32 (samples,), not 0")
    whole = np.rint(32767 * np.nan_to_num(samples[:SOUND_SAMPLES]).clip(-1, 1)).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(whole.tobytes())
    return "data:audio/wav;base64," + base64.b64encode(file.getvalue()).decode()
