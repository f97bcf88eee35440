"""A contact sheet: a page of pictures of what was searched for and what was found, in one file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tubelet.data.clip_spec import ClipSpec
from tubelet.data.clips import item_range, load_views
from tubelet.embed.duplicates import Copy
from tubelet.embed.embeddings import Hit
from tubelet.embed.search import describe_span
from tubelet.embed.suggest import Suggestion
from tubelet.media.reader import MediaError, read_frames
from tubelet.report.plots import strip_uri
from tubelet.report.templates import open_templates
from tubelet.system.files import write_whole
from tubelet.system.text import plural

FRAMES = 4
COVER_PX = (88, 88)


def write_sheet(
    asked: Sequence[tuple[str | Path, list[Hit]]], file: Path, *, folder: Path, settings: dict[str, Any]
) -> None:
    """Writes a page of files that were searched for, and their hits."""
    spec = ClipSpec.from_json(settings["clip_spec"])
    groups = []
    for query, hits in asked:
        figures = [
            {"words": f"{hit.similarity:.4f}", "span": describe_span(hit)} | show(hit.path, spec, *hit[1:3])
            for hit in hits
        ]
        groups.append({"first": show(str(query), spec), "figures": figures})
    about = f"for {plural(len(groups), 'file')} in {folder}"
    note = (
        "The number before each file is the cosine of its vector with that of the file searched for. Vectors of "
        f"{settings['model']}, {settings['pooling']} ({settings['views']})."
    )
    write_page(file, title="Search", about=about, groups=groups, note=note, kind=spec.kind)


def write_copies(sets: Sequence[Sequence[Copy]], file: Path, *, folder: Path, settings: dict[str, Any]) -> None:
    """Writes a page of sets of files that show the same."""
    spec, groups = ClipSpec.from_json(settings["clip_spec"]), []
    for first, *others in sets:
        figures = [
            {"words": f"{copy.likeness:.2f}", "span": "mirrored" if copy.mirrored else ""} | show(copy.path, spec)
            for copy in others
        ]
        groups.append({"first": show(first.path, spec), "figures": figures})
    about = f"{plural(len(sets), 'set')} in {folder}"
    note = "The number before each file is the likeness of its pictures to those of the one that it was found by."
    write_page(file, title="Copies", about=about, groups=groups, note=note, kind=spec.kind)


def write_suggestions(suggestions: Sequence[Suggestion], file: Path, *, folder: Path, settings: dict[str, Any]) -> None:
    """Writes a page of clips to label next."""
    spec = ClipSpec.from_json(settings["clip_spec"])
    figures = [
        {"words": f"{rank}", "span": f"{one.why} {describe_span(one.hit)}".strip()}
        | show(one.row.path, spec, *one.hit[1:3])
        for rank, one in enumerate(suggestions, 1)
    ]
    about = f"{plural(len(figures), 'clip')} of {folder}"
    note = f"The most telling first, by vectors of {settings['model']}, {settings['pooling']} ({settings['views']})."
    write_page(
        file, title="Label next", about=about, groups=[{"first": None, "figures": figures}], note=note, kind=spec.kind
    )


def write_page(file: Path, **filled: Any) -> None:
    write_whole(file, open_templates(html=True).get_template("search.html.jinja").render(**filled))


def show(path: str, spec: ClipSpec, start: float | None = None, end: float | None = None) -> dict[str, Any]:
    return {"path": path, "picture": draw(path, spec, start, end)}


def draw(path: str, spec: ClipSpec, start_seconds: float | None, end_seconds: float | None) -> str | None:
    """A data URI of four frames in a row, or of a spectrogram; None where the file cannot be read any more."""
    try:
        if spec.kind == "sound":
            return strip_uri(draw_sound(path, spec, start_seconds, end_seconds), small=True)
        start, end = item_range(path, start_seconds=start_seconds, end_seconds=end_seconds)
        count = 1 if spec.kind == "image" else FRAMES
        times = start + (end - start) * (np.arange(count) + 0.5) / count
        return strip_uri(read_frames(path, times, cover=COVER_PX), small=True)
    except MediaError:
        return None


def draw_sound(path: str, spec: ClipSpec, start_seconds: float | None, end_seconds: float | None) -> np.ndarray:
    """uint8 (1, mel bins, columns, 3): the spectrogram of a clip from the middle, low below, loud dark to bright."""
    clip = load_views(path, spec, start_seconds=start_seconds, end_seconds=end_seconds).clips[0, 0, 0].numpy()
    low, high = float(clip.min()), float(clip.max())
    levels = (255 * (clip[::-1] - low) / max(high - low, 1e-6)).astype(np.uint8)
    return levels[None, :, :, None].repeat(3, axis=3)
