"""Settings of a stream: the only definition, from which the flags of `tubelet stream` derive."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tubelet.system.options import Positional

OFF_SHARE = 0.7  # of the probability at which a segment begins: below it, it ends


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """Settings of a stream. Raises ValueError where they contradict each other."""

    run: Positional[Path]
    """Run directory or model.safetensors."""
    file: Positional[Path]
    """Video, codes that --save wrote, or - for raw frames on standard input."""
    window: float | None = None
    """Seconds that one answer sees; the model's own clip length if left out."""
    hop: float | None = None
    """Seconds from one answer to the next; a quarter of the window if left out."""
    on: float = 0.5
    """Probability at which a segment begins."""
    off: float | None = None
    """Probability below which it ends; 0.7 of --on if left out."""
    threshold: float | None = None
    """One probability for both, instead of --on and --off."""
    min_seconds: float = 0.0
    """Shorter segments are left out, shorter gaps in one are closed."""
    out: Path | None = None
    """Folder for all of the files below but the codes."""
    csv: Path | None = None
    """Table of all windows, with the probability of each class."""
    srt: Path | None = None
    """Segments as subtitles."""
    picture: Path | None = None
    """Probabilities over time, as .svg or .png."""
    save: Path | None = None
    """Encoded steps (.safetensors), to slide other windows over in no time."""
    json: bool = False
    """Print one JSON object a line instead of tables."""
    overwrite: bool = False
    """Write over files that exist."""
    size: str | None = None
    """Raw frames: WIDTHxHEIGHT in px."""
    fps: float | None = None
    """Raw frames: frames per second."""
    pixel_format: Literal["rgb24", "gray"] = "rgb24"
    """Raw frames: their layout, 8 bits for each channel."""
    dtype: str = "float32"
    """float32, bfloat16, or auto: what the device is fast in."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""

    def __post_init__(self) -> None:
        for name in ("window", "hop", "fps"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} = {value}: expected a number above 0")
        if self.threshold is not None and (self.on != StreamConfig.on or self.off is not None):
            raise ValueError("threshold stands for both on and off: give it alone, or give these two")
        on, off = self.on_probability, self.off_probability
        if not 0 < off <= on <= 1:
            raise ValueError(f"on = {on:g}, off = {off:g}: expected probabilities, 0 < off <= on <= 1")
        if not 0 <= self.min_seconds < math.inf:
            raise ValueError(f"min_seconds = {self.min_seconds}: expected 0 or more")
        if self.picture is not None and self.picture.suffix.lower() not in (".svg", ".png"):
            raise ValueError(f"picture = {self.picture}: expected a name that ends in .svg or .png")
        if self.save is not None and self.save.suffix != ".safetensors":
            raise ValueError(f"save = {self.save}: expected a name that ends in .safetensors")
        raw = (self.size is not None, self.fps is not None)
        if any(raw) != self.is_pipe or any(raw) != all(raw):
            raise ValueError("raw frames on standard input are FILE -, --size WIDTHxHEIGHT and --fps N: give all three")
        if self.size is not None:
            parse_size(self.size)

    @property
    def is_pipe(self) -> bool:
        return str(self.file) == "-"

    @property
    def on_probability(self) -> float:
        return self.on if self.threshold is None else self.threshold

    @property
    def off_probability(self) -> float:
        if self.threshold is not None:
            return self.threshold
        return OFF_SHARE * self.on if self.off is None else self.off


def parse_size(text: str) -> tuple[int, int]:
    """ "640x360" -> (height, width) px = (360, 640). Raises ValueError where it does not read so."""
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text, re.ASCII)
    if not match:
        raise ValueError(f"size = {text!r}: expected WIDTHxHEIGHT in px, such as 640x360")
    return int(match[2]), int(match[1])
