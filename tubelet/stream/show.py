"""The screen of a stream: its plan, the segments, the files written."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.table import Table
from torch import Tensor

from tubelet.data.clip_spec import ClipSpec
from tubelet.nn.split import encodes_steps_apart
from tubelet.predict.predictor import Predictor
from tubelet.stream.config import StreamConfig
from tubelet.stream.segments import Segment, Window, moment
from tubelet.stream.source import Footage
from tubelet.stream.window import Slide
from tubelet.system.console import bar, clock, console, facts, say
from tubelet.system.text import plural

SHOWN_SEGMENTS = 40


def show_plan(config: StreamConfig, predictor: Predictor, footage: Footage, slide: Slide) -> None:
    """The window and hop along the video, with what was rounded to whole steps."""
    if encodes_steps_apart(predictor.model):
        way = "each step is encoded once"
    else:
        way = "each window is computed anew (vivit2 would encode each step once)"
    window_seconds, hop_seconds = slide.seconds(slide.window), slide.seconds(slide.hop)
    trained = "" if slide.window == predictor.spec.frames else f", trained on {predictor.spec.frames}"
    window, hop = note_rounding(config.window, window_seconds), note_rounding(config.hop, hop_seconds)
    rows = [
        ("file", str(config.file)),
        ("model", f"{predictor.model.config.family}, {plural(len(predictor.classes), 'class')}; {way}"),
        ("video", footage.words),
        ("frames", f"every {slide.seconds_between_frames:.4g} s; a step is {slide.seconds(slide.step):.4g} s"),
        ("window", f"{window_seconds:.4g} s, {plural(slide.window, 'frame')}{trained}{window}"),
        ("hop", f"{hop_seconds:.4g} s{hop}"),
    ]
    facts("Streaming", rows)


@contextmanager
def watch(footage: Footage, step_seconds: float, spec: ClipSpec, *, show: bool) -> Iterator[Iterator[Tensor]]:
    """The blocks of the footage, with a bar that says how far they are and how much faster than the video plays."""
    unit_seconds = step_seconds if footage.encoded else spec.seconds_between_frames
    whole = "" if footage.frames is None else f" of {clock(footage.frames * unit_seconds)}"
    with bar("streaming", footage.frames, show=show) as progress:

        def count() -> Iterator[Tensor]:
            for block in footage.blocks:
                yield block
                many = block.shape[0 if footage.encoded else 1]  # now the model has seen them
                seconds = (progress.done + many) * unit_seconds
                speed = seconds / max(time.monotonic() - progress.begun, 1e-9)
                progress.advance(f"{clock(seconds)}{whole}  {speed:.3g}x real time", by=many)

        yield count()


def note_rounding(asked_seconds: float | None, seconds: float) -> str:
    if asked_seconds is None or abs(asked_seconds - seconds) < 1e-6:
        return ""
    return f", {asked_seconds:g} s rounded to whole steps"


def show_segments(windows: Sequence[Window], segments: Sequence[Segment], classes: Sequence[str], *, on: float) -> None:
    if not segments:
        best = max(windows, key=lambda window: float(window.probabilities.max()))
        label, chance = classes[int(best.probabilities.argmax())], float(best.probabilities.max())
        likeliest = f"the likeliest is {label}, {chance:.2f} at {moment(best.start_seconds)}"
        say("note", f"no class stays at --on {on:g} for long enough; {likeliest}")
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("start", justify="right")
    table.add_column("end", justify="right")
    table.add_column("label", style="bold", overflow="fold")
    table.add_column("probability", justify="right")
    for one in segments[:SHOWN_SEGMENTS]:
        times = moment(one.start_seconds), moment(one.end_seconds)
        table.add_row(*times, one.label, f"{100 * one.probability:.0f}%")
    console.print(table)
    if len(segments) > SHOWN_SEGMENTS:
        say("note", f"and {len(segments) - SHOWN_SEGMENTS} more: --out DIR writes them all")


def show_end(windows: Sequence[Window], footage: Footage, files: Sequence[Path], *, seconds: float) -> None:
    if footage.damaged:
        first = moment(footage.damaged[0])
        frames = plural(len(footage.damaged), "damaged frame")
        were = "was" if len(footage.damaged) == 1 else "were"
        say("note", f"{frames}, from {first} on, {were} taken to be as the last good one")
    span = windows[-1].end_seconds
    speed = f"{span / max(seconds, 1e-9):.3g}x real time"
    say("done", f"{plural(len(windows), 'window')} over {moment(span)} in {clock(seconds)}, {speed}")
    for file in files:
        if file.exists():
            say("wrote", file)
