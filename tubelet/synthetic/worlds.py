"""Made-up worlds, endless and with their truth: surfaces, and before them bodies and things, seen by a moving camera.

In each world one motion is what it shows; all else is there to hide it: surfaces, colours, place, size, the side from
which a body is seen, its build, its pace, others who do something else. So the same motion never looks the same twice.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tubelet.synthetic.motions import (
    BodyMotion,
    Build,
    CameraMotion,
    Motion,
    ThingMotion,
    draw_body,
    draw_holder,
    draw_thing,
    rest,
    rotation,
)
from tubelet.synthetic.textures import TEXTURE_PX

SIDE_RADIANS, ABOVE_RADIANS = (-1.05, 1.05), (-0.1, 0.5)  # from which bodies are seen
BODY_HEIGHT, THING_SIZE, OTHER_SIZE = (0.3, 1.05), (0.2, 0.9), (0.15, 0.6)  # in heights of the frame
STILL = ThingMotion(rest, rest, rest)

Pose = np.ndarray  # of something in the frame: from its own px to those of the frame, affine, (T, 2, 3)
Outline = Callable[[np.ndarray, np.ndarray], np.ndarray]  # own px -> px of the frame to the outline, inside below 0
Colour = Callable[[np.ndarray, np.ndarray], np.ndarray]  # own px (...) -> (..., 3) in grey levels


@dataclass
class World:
    """frames: (T, H, W, 3) uint8. flow: in px, where what is seen at a pixel goes until the next frame, (T, H, W, 2), x
    and y; that of the last frame is that of the one before. own: what moves by itself is seen there, (T, H, W)."""

    frames: np.ndarray
    flow: np.ndarray
    own: np.ndarray


def render_world(
    motion: Motion, rng: np.random.Generator, textures: np.ndarray, *, size: tuple[int, int, int]
) -> World:
    """A world of (T, H, W) that shows a motion; the same values give the same world.

    textures: surfaces to choose from, (count, TEXTURE_PX, TEXTURE_PX, 3) uint8.
    """
    painter = Painter(size, textures, rng)
    time = np.linspace(0, 1, size[0]) * rng.uniform(0.87, 1.15) + rng.uniform(-0.07, 0.07)
    camera = Camera(motion if isinstance(motion, CameraMotion) else draw_holder(rng), time, size, rng)
    painter.paint_scenery(camera)
    if isinstance(motion, BodyMotion):
        for _ in range(rng.choice([0, 0, 1, 2])):
            painter.paint_thing(STILL, time, camera.pose(1.0), rng.uniform(0.1, 0.7), reach=0.5)
        painter.paint_body(motion, time, camera.pose(1.0), draw_size(rng, BODY_HEIGHT), reach=0.22)
    elif isinstance(motion, ThingMotion):
        painter.paint_others(camera, rng.choice([0, 0, 1]))
        painter.paint_thing(motion, time, camera.pose(1.0), draw_size(rng, THING_SIZE), reach=0.3)
    else:
        painter.paint_others(camera, rng.choice([0, 0, 1, 1, 2, 3]))
    pictures = painter.pictures
    if rng.uniform() < 0.3:  # it gets darker or lighter
        pictures *= np.linspace(1, rng.uniform(0.75, 1.3), size[0], dtype=np.float32)[:, None, None, None]
    pictures += np.float32(rng.uniform(0, 6)) * rng.standard_normal(pictures.shape, dtype=np.float32)
    return World(pictures.clip(0, 255).astype(np.uint8), painter.flow, painter.own)


class Camera:
    """A camera in motion, held in a hand that shakes."""

    def __init__(self, motion: CameraMotion, time: np.ndarray, size: tuple[int, int, int], rng: np.random.Generator):
        frames, height, width = size
        wide = rng.uniform(0.8, 1.2)
        shake = rng.choice([0, 0, 0.3, 0.8]) * rng.standard_normal((2, frames + 2))
        shake_x, shake_y = (np.convolve(one, [0.3, 0.4, 0.3], "valid") for one in shake)
        self.middle = (width - 1) / 2, (height - 1) / 2
        self.x, self.y = wide * width * motion.x(time) + shake_x, wide * height * motion.y(time) + shake_y
        self.turn, self.zoom = wide * motion.turn(time), wide * motion.zoom(time)

    def pose(self, nearness: float) -> Pose:
        """Of what is as near as that; 1 is far away, and what is nearer goes by quicker."""
        zoom = np.exp(self.zoom * nearness)
        return place(self.middle[0] + self.x * nearness, self.middle[1] + self.y * nearness, self.turn, zoom, zoom)


class Painter:
    """Paints a world, one thing upon another, with what is true of it."""

    def __init__(self, size: tuple[int, int, int], textures: np.ndarray, rng: np.random.Generator):
        self.frames, self.height, self.width = size
        self.textures, self.rng = textures, rng
        self.pictures = np.zeros((*size, 3), np.float32)
        self.flow = np.zeros((*size, 2), np.float32)
        self.own = np.zeros(size, bool)

    def paint_scenery(self, camera: Camera) -> None:
        """A surface, and at times another before or behind it, seen where waves are high."""
        rng = self.rng
        self.paint(camera.pose(1.0), None, self.draw_surface(rng.uniform(0.6, 1.6)))
        if rng.uniform() < 0.45:
            a, b = rng.uniform(0.02, 0.06, 2).astype(np.float32)
            first, second, third = rng.uniform(0, 7, 3).astype(np.float32)
            high = np.float32(rng.uniform(0.5, 1.5))

            def outline(u: np.ndarray, v: np.ndarray) -> np.ndarray:
                waves = np.sin(a * u + first) + np.sin(b * v + second) + np.sin(1.3 * (a * u - b * v) + third)
                return (high - waves) / (a + b)

            nearness = rng.uniform(1.2, 2) if rng.uniform() < 0.7 else 0.7
            self.paint(camera.pose(nearness), outline, self.draw_surface(rng.uniform(0.6, 1.6)))

    def paint_others(self, camera: Camera, count: int) -> None:
        """Bodies and things that do what they like, or nothing."""
        rng, time = self.rng, np.linspace(0, 1, self.frames)
        for _ in range(count):
            pose, size = camera.pose(rng.uniform(0.9, 1.3)), draw_size(rng, OTHER_SIZE)
            if rng.uniform() < 0.5:
                self.paint_thing(draw_thing(rng) if rng.uniform() < 0.4 else STILL, time, pose, size, reach=0.45)
            else:
                self.paint_body(draw_body(rng), time, pose, 0.8 * size, reach=0.45)

    def paint_thing(self, motion: ThingMotion, time: np.ndarray, where: Pose, size: float, *, reach: float) -> None:
        """A thing with a wavy outline of a size, in heights of the frame, within `reach` of the middle."""
        rng = self.rng
        x, y = self.draw_place(reach)
        far, angle = rng.uniform(0.8, 1.2), np.full(self.frames, rng.uniform(0, 2 * np.pi))
        grown = np.exp(far * motion.grow(time))
        going_x, going_y = x + far * self.width * motion.x(time), y + far * self.height * motion.y(time)
        pose = compose(where, place(going_x, going_y, angle, grown, grown * rng.uniform(0.5, 1)))
        radius, phase = 0.35 * size * self.height, rng.uniform(0, 6)

        def outline(u: np.ndarray, v: np.ndarray) -> np.ndarray:
            around = np.arctan2(v, u)
            return np.hypot(u, v) - radius * (0.7 + 0.2 * np.sin(3 * around + phase) + 0.1 * np.sin(5 * around))

        colour = self.draw_surface(1.2) if rng.uniform() < 0.7 else draw_colour(rng)
        self.paint(pose, outline, colour, box=(-radius, -radius, radius, radius))

    def paint_body(self, motion: BodyMotion, time: np.ndarray, where: Pose, size: float, *, reach: float) -> None:
        """A body of a height, in those of the frame, its middle within `reach` of the frame's."""
        rng, px = self.rng, size * self.height
        x, y = self.draw_place(reach)
        build = draw_build(rng)
        side, above = rng.uniform(*SIDE_RADIANS), rng.uniform(*ABOVE_RADIANS)
        view = rotation("x", np.array(above)) @ rotation("z", np.array(side))  # then x is to the right, z up
        parts = [(name, start @ view.T, end @ view.T, thick) for name, start, end, thick in motion.parts(time, build)]
        middle = np.mean([end for _, _, end, _ in parts], axis=(0, 1))
        skin, shirt, trousers, tool = (draw_colour(rng) for _ in range(4))
        sleeves = rng.choice(2, size=2)
        colours = {"thigh": trousers, "shin": trousers, "torso": shirt, "head": skin, "tool": tool}
        colours |= {"arm": (shirt, skin)[sleeves[0]], "forearm": (shirt, skin)[max(sleeves)]}
        for name, start, end, thick in sorted(parts, key=lambda part: -(part[1] + part[2])[:, 1].mean()):  # far first
            start, end = ((point - middle)[:, [0, 2]] * (px, -px) + (x, y) for point in (start, end))
            self.paint_limb(
                compose(where, link(start, end)), float(np.hypot(*(end - start).T).max()), thick * px, colours[name]
            )

    def paint_limb(self, pose: Pose, length: float, radius: float, colour: Colour) -> None:
        """A rod with round ends, from 0 to `length` in its own px."""
        along, across = (np.hypot(*np.moveaxis(pose[:, :, axis], 1, 0))[:, None, None] for axis in (0, 1))
        shorter = (along / across).astype(np.float32)  # where it points to the camera

        def outline(u: np.ndarray, v: np.ndarray) -> np.ndarray:
            return np.hypot((u - u.clip(0, length)) * shorter, v) - np.float32(radius)

        self.paint(pose, outline, colour, box=(-radius, -radius, length + radius, radius))

    def paint(
        self,
        pose: Pose,
        outline: Outline | None,
        colour: Colour,
        *,
        box: tuple[float, float, float, float] | None = None,
    ) -> None:
        """What is within an outline, or all; box: left, top, right, bottom in its own px, of what moves by itself."""
        part = (slice(None), slice(0, self.height), slice(0, self.width))
        if box:
            corners = np.array([(u, v) for u in box[::2] for v in box[1::2]])
            x, y = apply(pose, *corners.T[:, None])
            first_x, last_x = np.clip([np.floor(x.min()) - 1, np.ceil(x.max()) + 2], 0, self.width).astype(int)
            first_y, last_y = np.clip([np.floor(y.min()) - 1, np.ceil(y.max()) + 2], 0, self.height).astype(int)
            if first_x >= last_x or first_y >= last_y:
                return
            part = (slice(None), slice(first_y, last_y), slice(first_x, last_x))
        y, x = np.mgrid[part[1:]].astype(np.float32)
        u, v = apply(invert(pose), x, y)
        flow = follow(pose, x, y)
        if outline is None:
            self.pictures[part], self.flow[part] = colour(u, v), flow
            return
        scale = np.sqrt(abs(np.linalg.det(pose[:, :, :2])))[:, None, None].astype(np.float32)
        cover = (0.5 - outline(u, v) * scale).clip(0, 1)
        self.pictures[part] += (colour(u, v) - self.pictures[part]) * cover[..., None]
        inside = cover > 0.5
        self.flow[part][inside] = flow[inside]
        self.own[part][inside] = box is not None

    def draw_place(self, reach: float) -> tuple[float, float]:
        """Where something stands, from the middle, in px."""
        x, y = self.rng.uniform(-reach, reach, 2)
        return x * self.width, y * self.height

    def draw_surface(self, scale: float) -> Colour:
        """One of the textures, its px `scale` to one."""
        texture, shift = self.textures[self.rng.integers(len(self.textures))], self.rng.integers(TEXTURE_PX, size=2)
        return lambda u, v: sample(texture, u * np.float32(scale) + shift[0], v * np.float32(scale) + shift[1])


def draw_build(rng: np.random.Generator) -> Build:
    usual = np.array([0.3, 0.25, 0.25, 0.17, 0.16, 1.0])
    return Build(*(usual * rng.uniform([*[0.88] * 5, 0.65], [*[1.12] * 5, 1.35])))


def draw_size(rng: np.random.Generator, sizes: tuple[float, float]) -> float:
    """As often between 0.2 and 0.4 as between 0.4 and 0.8."""
    return float(np.exp(rng.uniform(*np.log(sizes))))


def draw_colour(rng: np.random.Generator) -> Colour:
    """One colour, or stripes across."""
    colour, striped, phase = rng.uniform(0, 255, 3).astype(np.float32), rng.uniform() < 0.4, rng.uniform(5, 9)
    if not striped:
        return lambda u, v: colour
    return lambda u, v: colour * (1 + np.float32(0.25) * np.sin(np.float32(0.9) * u + np.float32(phase)))[..., None]


def sample(texture: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A texture (side, side, 3) that repeats, at places (...) in its px: (..., 3) float32, bilinear."""
    side, colours = len(texture), texture.reshape(-1, 3)
    left, top = np.floor(x).astype(np.int32), np.floor(y).astype(np.int32)
    right_share, low_share = (x - left)[..., None], (y - top)[..., None]
    right, low = (left + 1) % side, (top + 1) % side * side
    left, top = left % side, top % side * side
    high = colours[top + left] * (1 - right_share) + colours[top + right] * right_share
    deep = colours[low + left] * (1 - right_share) + colours[low + right] * right_share
    return (high * (1 - low_share) + deep * low_share).astype(np.float32)


def place(x: np.ndarray, y: np.ndarray, angle: np.ndarray, across: np.ndarray, down: np.ndarray) -> Pose:
    """At x, y (T,) in px, turned by radians, its own px so much larger across and down."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([cos * across, -sin * down, x], -1), np.stack([sin * across, cos * down, y], -1)], -2)


def link(start: np.ndarray, end: np.ndarray) -> Pose:
    """From start to end, (T, 2) in px, along the first axis, as long as it is at its longest."""
    way = end - start
    now = np.hypot(*way.T).clip(1e-3)
    longest = now.max()
    unit = way / now[:, None]
    along = unit * np.maximum(now / longest, 0.05)[:, None]  # it never vanishes
    return np.stack([along, np.stack([-unit[:, 1], unit[:, 0]], -1), start], -1)


def compose(outer: Pose, inner: Pose) -> Pose:
    return np.concatenate([outer[..., :2] @ inner[..., :2], outer[..., :2] @ inner[..., 2:] + outer[..., 2:]], -1)


def invert(pose: Pose) -> Pose:
    inverse = np.linalg.inv(pose[..., :2])
    return np.concatenate([inverse, -inverse @ pose[..., 2:]], -1)


def apply(pose: Pose, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places (H, W) in each frame: (T, H, W) each."""
    (a, b, c), (d, e, f) = np.moveaxis(pose, 0, -1).astype(np.float32)[..., None, None]
    return a * x + b * y + c, d * x + e * y + f


def follow(pose: Pose, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How far what is at places (H, W) of each frame goes until the next one: (T, H, W, 2) in px."""
    steps = compose(pose[1:], invert(pose[:-1]))
    to_x, to_y = apply(np.concatenate([steps, steps[-1:]]), x, y)
    return np.stack([to_x - x, to_y - y], -1)
