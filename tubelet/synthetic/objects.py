"""Objects that do things: what they look like, and six phases that say how they stand.

Each phase lies on a circle: the displacement to the right, the displacement down, the place on a small circle, the
size, the angle, and which of two colours is where. All start anywhere on their circles, in every object; a class is the
one that advances. So every phase is uniform in every frame of every class and of an object that does nothing, and no
single frame can tell what is done. Besides, objects stand or drift slowly, whatever they do.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np

from tubelet.synthetic.scenes import FRAMES_PER_SECOND, HEIGHT_PX, WIDTH_PX, fold

CLASSES = ("sway", "bounce", "circle", "pulse", "spin", "blink")  # each the name of a phase, too

CYCLES_PER_SECOND = (1.25, 2.25)  # fast enough that the shortest act is a whole cycle
HOMES = tuple(product((20, 48, 76), (20, 52)))  # x, y in px: one object each
RADIUS_PX = (9.0, 10.0)
SWAY_PX = (4.5, 6.0)
CIRCLE_PX = (4.5, 6.0)
SWING = (0.28, 0.34)  # of the radius
DRIFT_REACH_PX = 4.0
FASTEST_DRIFT_PX = 4.0  # a second
STANDING = 0.3  # of all objects


def triangle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(v, np.float32(0.866) * abs(u) - np.float32(0.5) * v) < 0.6


# Shapes and patterns in coordinates of the object, u to its right, v down, its radius the unit. No pattern looks the
# same before a full turn, so that a turn shows on a disc.
SHAPES = {
    "disc": lambda u, v: u * u + v * v < 1,
    "square": lambda u, v: np.maximum(abs(u), abs(v)) < 0.87,
    "triangle": triangle,
    "star": lambda u, v: triangle(u, v) | triangle(u, -v),
    "cross": lambda u, v: (np.minimum(abs(u), abs(v)) < 0.38) & (np.maximum(abs(u), abs(v)) < 1),
    "bar": lambda u, v: (abs(u) < 1.1) & (abs(v) < 0.6),
}
PATTERNS = {
    "half": lambda u, v: u > 0,
    "cap": lambda u, v: u + v > 0.45,
    "wedge": lambda u, v: abs(v) < 1.2 * u,
    "spot": lambda u, v: (u - 0.35) ** 2 + v * v < 0.25,
}
# Of the table of shapes and patterns: each split has looks of its own, and yet all shapes and all patterns.
DIAGONALS = ("train", "train", "val", "test")


@dataclass(frozen=True)
class MovingObject:
    """shape, pattern: of SHAPES and PATTERNS. colours: without and within the pattern, (2, 3) in grey levels.

    In each frame, (T,): x, y in px, of the middle; radius in px; angle in radians; swapped: whether the colours are.
    """

    shape: str
    pattern: str
    colours: np.ndarray
    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray
    angle: np.ndarray
    swapped: np.ndarray


def draw_object(home: tuple[int, int], speeds: np.ndarray, split: str, rng: np.random.Generator) -> MovingObject:
    """A random object about `home`, x and y in px, with a look that only `split` has.

    speeds: (6, T), how far each phase, in the order of CLASSES, advances in each frame, in cycles.
    """
    shape, pattern = rng.choice(split_looks(split)).tolist()
    light = rng.permutation(255 - rng.uniform(0, [40, 80, 150]))
    dark = rng.permutation(rng.uniform(0, [40, 60, 120]))

    phases = rng.uniform(size=(len(CLASSES), 1)) + speeds.cumsum(axis=1)
    sway, bounce, circle, pulse, spin, blink = phases
    seconds = np.arange(speeds.shape[1]) / FRAMES_PER_SECOND
    speed, way = rng.uniform(0, FASTEST_DRIFT_PX) * (rng.uniform() > STANDING), rng.uniform(0, 2 * np.pi)
    starts = rng.uniform(-DRIFT_REACH_PX, DRIFT_REACH_PX, 2)
    drift_x, drift_y = (
        fold(start + part * speed * seconds, DRIFT_REACH_PX) for start, part in zip(starts, (np.cos(way), np.sin(way)))
    )
    (sway_px, bounce_px), circle_px = rng.uniform(*SWAY_PX, 2), rng.uniform(*CIRCLE_PX)
    return MovingObject(
        shape,
        pattern,
        rng.permutation([light, dark]).astype(np.float32),
        x=home[0] + drift_x + sway_px * _sine(sway) + circle_px * _sine(circle + 0.25),
        y=home[1] + drift_y + bounce_px * _sine(bounce) + circle_px * _sine(circle),
        radius=rng.uniform(*RADIUS_PX) * (1 + rng.uniform(*SWING) * _sine(pulse)),
        angle=2 * np.pi * spin,
        swapped=blink % 1 < 0.5,
    )


def split_looks(split: str) -> list[tuple[str, str]]:
    """The shapes and patterns that go together in a split."""
    pairs = product(enumerate(SHAPES), enumerate(PATTERNS))
    return [(shape, pattern) for (i, shape), (j, pattern) in pairs if DIAGONALS[(i + j) % len(DIAGONALS)] == split]


def outline(thing: MovingObject, frames: slice) -> tuple[np.ndarray, np.ndarray]:
    """Where the object is in some frames, and where the second of its colours is: (T, H, W) bool each."""
    x, y, radius, cos, sin = (
        values[frames, None, None].astype(np.float32)
        for values in (thing.x, thing.y, thing.radius, np.cos(thing.angle), np.sin(thing.angle))
    )
    right = (np.arange(WIDTH_PX, dtype=np.float32) - x) / radius
    down = (np.arange(HEIGHT_PX, dtype=np.float32)[:, None] - y) / radius
    u, v = cos * right + sin * down, cos * down - sin * right
    return SHAPES[thing.shape](u, v), PATTERNS[thing.pattern](u, v) ^ thing.swapped[frames, None, None]


def _sine(cycles: np.ndarray) -> np.ndarray:
    return np.sin(2 * np.pi * cycles)
