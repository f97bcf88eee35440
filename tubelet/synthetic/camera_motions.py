"""A small labelled set of real video files in which only motion tells the classes apart.

A scene is a cloudy texture seen by a camera, with a lamp that shows a red disc, then a blue square, then nothing. Its
state is four phases, each on a circle: where the camera looks, how far it is turned, how far it is zoomed in, and where
the lamp stands in its cycle. All four start anywhere on their circles; a class is the one that advances. So every phase
is uniform at every frame of every class, and no single frame can tell the label. The zoom runs on a circle too, because
the texture is built like Shepard's endless tone (doi 10.1121/1.1919362): as waves grow out at the coarse end, new ones
fade in at the fine end.

Classes come in pairs: the second of a pair is the first played backwards. Frames without their order cannot tell the
two apart.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from tubelet.media.writer import write_video
from tubelet.synthetic.folder import new_folder

# class -> (the phase that advances, played backwards)
CLASSES = {
    "move_left": ("pan", False),
    "move_right": ("pan", True),
    "turn_clockwise": ("turn", False),
    "turn_counterclockwise": ("turn", True),
    "zoom_in": ("zoom", False),
    "zoom_out": ("zoom", True),
    "disc_then_square": ("lamp", False),
    "square_then_disc": ("lamp", True),
}

FRAMES = 24
FRAMES_PER_SECOND = 12
HEIGHT_PX, WIDTH_PX = 64, 80

# slowest and fastest advance of each phase in one frame: pixels, radians, octaves, lamp cycles
SPEEDS = {"pan": (1.0, 2.5), "turn": (0.035, 0.09), "zoom": (0.04, 0.1), "lamp": (1 / 18, 1 / 12)}

OCTAVES = 4
FINEST_WAVE_PX = 6.0
TILE_PX = 512  # a power of two, so that wrapping a coordinate is one bitwise "and"
TILE_WAVE_PX = 16.0  # fine enough to sample without interpolation


def render_demo(folder: Path, *, clips_per_class: int, seed: int = 0, after: Callable[[], None] = lambda: None) -> Path:
    """Write FOLDER/<class>/<number>.mp4, `clips_per_class` H.264 clips of 2 s for each class, and return `folder`.

    The same seed gives the same frames; more clips per class leave the earlier ones as they were. The folder appears
    when all is rendered.

    Raises ValueError if `clips_per_class` is below 1, or if `folder` already holds something: no file is ever replaced.
    """
    if clips_per_class < 1:
        raise ValueError(f"clips_per_class is {clips_per_class}, expected 1 or more.")
    folder = Path(folder)
    with new_folder(folder) as unfinished:
        for label, name in enumerate(CLASSES):
            (unfinished / name).mkdir()
            for number in range(clips_per_class):
                frames = render_clip(name, np.random.default_rng([seed, label, number]))
                write_video(unfinished / name / f"{number:04d}.mp4", frames, frames_per_second=FRAMES_PER_SECOND)
                after()
    return folder


def render_clip(name: str, rng: np.random.Generator) -> np.ndarray:
    """Frames (T, H, W, 3) uint8 of one random clip of class `name`.

    With generators in the same state the two classes of a pair give the same frames in opposite order.

    Raises ValueError if `name` is no class of the demo.
    """
    if name not in CLASSES:
        raise ValueError(f"The demo has no class {name!r}, expected one of: {', '.join(CLASSES)}.")
    advancing, backwards = CLASSES[name]
    phase = {}
    for kind, (slowest, fastest) in SPEEDS.items():
        steps = np.arange(FRAMES) * rng.uniform(slowest, fastest)
        phase[kind] = steps if kind == advancing else np.zeros(FRAMES)

    texture = _texture(phase["pan"], phase["turn"], phase["zoom"], rng)
    frames = _colours(texture, rng)
    _light_lamp(frames, phase["lamp"], rng)
    frames *= 1 + 0.02 * rng.standard_normal((FRAMES, 1, 1, 1), dtype=np.float32)  # flicker
    frames += rng.uniform(1, 5) * rng.standard_normal(frames.shape, dtype=np.float32)  # sensor noise, in grey levels
    frames = frames.clip(0, 255).astype(np.uint8)
    return frames[::-1] if backwards else frames


def _texture(pan: np.ndarray, turn: np.ndarray, zoom: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Two fields of noise (T, H, W, 2), each of unit variance, seen from the moving camera.

    pan (T,) in pixels to the right, turn (T,) in radians, zoom (T,) in octaves, all relative to a random start.
    """
    shake_x, shake_y = rng.normal(0, 0.25, (2, FRAMES, 1, 1))
    x = np.arange(WIDTH_PX) - (WIDTH_PX - 1) / 2 + pan[:, None, None] + shake_x
    y = np.arange(HEIGHT_PX)[:, None] - (HEIGHT_PX - 1) / 2 + shake_y
    angle = rng.uniform(0, 2 * np.pi) - turn
    start = rng.uniform(0, OCTAVES)

    total = np.zeros((FRAMES, HEIGHT_PX, WIDTH_PX, 2), np.float32)
    for octave in range(OCTAVES):
        height = (start + octave + zoom) % OCTAVES  # where this layer stands between the finest and the coarsest wave
        tile_px_per_px = TILE_WAVE_PX / (FINEST_WAVE_PX * 2**height)
        cos = (np.cos(angle) * tile_px_per_px)[:, None, None]
        sin = (np.sin(angle) * tile_px_per_px)[:, None, None]
        tile_x, tile_y = rng.uniform(0, TILE_PX, 2)
        column = np.floor(cos * x - sin * y + tile_x).astype(np.int32) & (TILE_PX - 1)
        row = np.floor(sin * x + cos * y + tile_y).astype(np.int32) & (TILE_PX - 1)
        weight = np.sin(np.pi * height / OCTAVES) * np.sqrt(2 / OCTAVES)  # zero at both ends; the squares add up to one
        total += weight.astype(np.float32)[:, None, None, None] * _noise_tile()[row * TILE_PX + column]
    return total


@cache
def _noise_tile() -> np.ndarray:
    """Two fields of noise (TILE_PX * TILE_PX, 2) that wrap around: unit variance, waves of about TILE_WAVE_PX."""
    frequency = np.fft.fftfreq(TILE_PX)
    octaves_off = np.log2(np.hypot(frequency, frequency[:, None]).clip(1e-9) * TILE_WAVE_PX)
    noise = np.random.default_rng(0).standard_normal((2, TILE_PX, TILE_PX))
    fields = np.fft.ifft2(np.fft.fft2(noise) * np.exp(-((octaves_off / 0.5) ** 2))).real
    fields /= fields.std(axis=(1, 2), keepdims=True)
    return np.moveaxis(fields, 0, -1).reshape(-1, 2).astype(np.float32)


def _colours(texture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Texture (T, H, W, 2) -> (T, H, W, 3) float32 in grey levels: both fields move away from a random colour."""
    base = rng.uniform(70, 170) + rng.uniform(-30, 30, 3)
    light = rng.uniform(20, 40) * (1 + rng.uniform(-0.5, 0.5, 3))
    tint = rng.uniform(-25, 25, 3)
    return texture @ np.stack([light, tint]).astype(np.float32) + base.astype(np.float32)


def _light_lamp(frames: np.ndarray, cycles: np.ndarray, rng: np.random.Generator) -> None:
    """Paint into frames (T, H, W, 3) what the lamp shows `cycles` (T,) after a random start.

    A third of a cycle each: disc, square, nothing.
    """
    radius = rng.uniform(9, 14)
    x = np.arange(WIDTH_PX) - rng.uniform(20, WIDTH_PX - 20)
    y = np.arange(HEIGHT_PX)[:, None] - rng.uniform(20, HEIGHT_PX - 20)
    shapes = [np.hypot(x, y) < radius, np.maximum(abs(x), abs(y)) < 0.886 * radius]  # of equal area
    colours = np.array([[230, 40, 40], [40, 60, 230]]) + rng.uniform(-25, 25, (2, 3))
    shown = ((rng.uniform() + cycles) % 1 * 3).astype(int)
    for shape, colour, which in zip(shapes, colours, (0, 1)):
        frames[(shown == which)[:, None, None] & shape] = colour
