"""What moves in a made-up world, drawn at random, as functions of time: a camera, a body with joints, a thing.

They are no motions of the demo or of the untrimmed set, which are exams for whoever learned from these: a camera never
does one thing alone (the demo's cameras do), and a thing neither turns nor comes back (those of the untrimmed set do).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

# time (T,), in clips -> how far, (T,)
Path = Callable[[np.ndarray], np.ndarray]

DESCRIBED = 8  # steps in time
POINTS = 11  # of a body: knees and feet, shoulders, head, elbows and hands, hip
MIRRORED = (2, 3, 0, 1, 4, 5, 8, 9, 6, 7, 10)  # the points of a body in a mirror


@dataclass(frozen=True)
class CameraMotion:
    """x, y: to where it looks, in widths and heights of the frame. turn: radians. zoom: the logarithm of a factor."""

    x: Path
    y: Path
    turn: Path
    zoom: Path

    def describe(self) -> np.ndarray:
        """(DESCRIBED, 4): since the beginning, how far it has come in each way."""
        return describe_paths((self.x, self.y, self.turn, self.zoom))


@dataclass(frozen=True)
class ThingMotion:
    """x, y: in widths and heights of the frame. grow: the logarithm of a factor."""

    x: Path
    y: Path
    grow: Path

    def describe(self) -> np.ndarray:
        """(DESCRIBED, 4), as of a camera; it does not turn."""
        return describe_paths((self.x, self.y, rest, self.grow))


@dataclass(frozen=True)
class Limb:
    """Angles of its upper and lower part, 0 hanging down, forward positive, and of both to the side; in radians."""

    upper: Path
    lower: Path
    side: Path


@dataclass(frozen=True)
class BodyMotion:
    """A body of a height of about 1: forward is x, left y, up z.

    forward, left, up: the way of its hip. pitch, roll, yaw: radians that the whole of it turns.
    legs, arms: left and right. tool: whether it holds one in a hand.
    """

    forward: Path
    left: Path
    up: Path
    pitch: Path
    roll: Path
    yaw: Path
    legs: tuple[Limb, Limb]
    arms: tuple[Limb, Limb]
    tool: bool

    def parts(self, time: np.ndarray, build: "Build") -> list[tuple[str, np.ndarray, np.ndarray, float]]:
        """Name, ends (T, 3) and thickness of each part: thigh and shin of each leg, torso, head, upper arm and forearm
        of each arm, the tool."""
        turns = rotation("z", self.yaw(time)) @ rotation("x", self.roll(time)) @ rotation("y", self.pitch(time))

        def turn(vectors: np.ndarray) -> np.ndarray:
            return (turns @ np.broadcast_to(vectors, (len(time), 3))[..., None])[..., 0]

        up, left = turn(np.array([0.0, 0, 1])), turn(np.array([0.0, 1, 0]))
        hip = np.stack([self.forward(time), self.left(time), self.up(time)], -1)
        neck = hip + build.torso * up
        found = []

        def add(limb: Limb, start: np.ndarray, lengths: tuple[float, float], names: tuple[str, str]) -> np.ndarray:
            for name, length, angle in zip(names, lengths, (limb.upper, limb.lower), strict=True):
                end = start + length * turn(point_down(angle(time), limb.side(time)))
                found.append((name, start, end, THICKNESS[name] * build.stout))
                start = end
            return start

        for limb, way in zip(self.legs, (1, -1), strict=True):
            add(limb, hip + 0.05 * way * left, (build.thigh, build.shin), ("thigh", "shin"))
        found.append(("torso", hip, neck, THICKNESS["torso"] * build.stout))
        found.append(("head", neck + 0.13 * up, neck + 0.15 * up, THICKNESS["head"]))
        for limb, way in zip(self.arms, (1, -1), strict=True):
            hand = add(limb, neck + 0.1 * way * left, (build.arm, build.forearm), ("arm", "forearm"))
        if self.tool:
            along = self.arms[1].lower(time) + 0.3
            found.append(("tool", hand, hand + 0.3 * turn(point_down(along, self.arms[1].side(time))), 0.015))
        return found

    def describe(self) -> np.ndarray:
        """(DESCRIBED, POINTS, 3): the points of a usual body, from its hip, and the hip, from where it began."""
        parts = self.parts(np.linspace(0, 1, 2 * DESCRIBED), Build())
        hip = parts[4][1]
        points = [end - hip for _, _, end, _ in parts[:10]] + [hip - hip[:1]]
        return np.stack(points, 1).reshape(DESCRIBED, 2, POINTS, 3).mean(1).clip(-3, 3)


@dataclass(frozen=True)
class Build:
    """Lengths of a body, in its height; stout: a factor on all thickness."""

    torso: float = 0.3
    thigh: float = 0.25
    shin: float = 0.25
    arm: float = 0.17
    forearm: float = 0.16
    stout: float = 1.0


Motion = CameraMotion | BodyMotion | ThingMotion

THICKNESS = {"thigh": 0.055, "shin": 0.042, "torso": 0.085, "head": 0.065, "arm": 0.036, "forearm": 0.032}


def rest(time: np.ndarray) -> np.ndarray:
    return np.zeros_like(time)


def draw_motion(rng: np.random.Generator) -> Motion:
    """Mostly bodies, fewer cameras, few things."""
    kind = rng.uniform()
    return draw_body(rng) if kind < 0.6 else draw_camera(rng) if kind < 0.88 else draw_thing(rng)


def draw_way(rng: np.random.Generator, scale: float) -> Path:
    """A way that does not come back: steady, ever quicker or slower, or a rush in its midst."""
    kind, (first, second) = rng.integers(3), scale * rng.normal(size=2)
    middle, sharpness = rng.uniform(0.2, 0.8), rng.uniform(8, 40)
    if kind == 0:
        return lambda time: first * time
    if kind == 1:
        return lambda time: first * time + np.copysign(second, first) * time**2
    return lambda time: 1.2 * first / (1 + np.exp((middle - time) * sharpness))


def draw_camera(rng: np.random.Generator) -> CameraMotion:
    """It goes, turns and zooms: two of them at least."""
    goes, turns, zooms = rng.permutation([True, True, bool(rng.uniform() < 0.4)])
    along, way = rng.uniform(0, 2 * np.pi), draw_way(rng, 0.35 * rng.uniform(0.3, 1.3)) if goes else rest
    return CameraMotion(
        x=lambda time: np.cos(along) * way(time),
        y=lambda time: np.sin(along) * way(time),
        turn=draw_way(rng, 0.4) if turns else rest,
        zoom=draw_way(rng, 0.35) if zooms else rest,
    )


def draw_holder(rng: np.random.Generator) -> CameraMotion:
    """A camera that stands, or moves a little."""
    if rng.uniform() < 0.5:
        return CameraMotion(rest, rest, rest, rest)
    return CameraMotion(*(draw_way(rng, scale) for scale in (0.08, 0.06, 0.06, 0.08)))


def draw_thing(rng: np.random.Generator) -> ThingMotion:
    goes, rises, grows = rng.uniform(size=3) < 0.6
    return ThingMotion(
        x=draw_way(rng, 0.35) if goes else rest,
        y=draw_way(rng, 0.3) if rises else rest,
        grow=draw_way(rng, 0.35) if grows or not (goes or rises) else rest,
    )


def draw_body(rng: np.random.Generator) -> BodyMotion:
    """A body that walks, or moves each of its joints as it likes; some turn over, some hold a tool."""
    walks, reach, pace, phase = rng.uniform() < 0.4, rng.uniform(0.25, 1.1), rng.uniform(0.8, 4), rng.uniform()
    speed = 0.35 * reach * pace * rng.choice([0, 1, 1, 1, -1]) if walks else rng.choice([0, 0, 1]) * rng.normal()
    drift = 0.8 * rng.normal() * rng.choice([0, 0, 0, 1])
    lean = rng.normal(0, 0.15) + 1.4 * (rng.uniform() < 0.12)
    turns = [scale * rng.normal() for scale in (rng.choice([0, 0, 0.5, 2, 5]), rng.choice([0, 0, 0, 0.5, 3]))]
    turns.append(rng.choice([0, 0, 0, 1, 3]) * rng.normal())
    pitch, roll, yaw = (draw_turn(rng, turn) for turn in turns)
    sides = ((0.0, 1), (0.5, -1))  # their place in a step, and to which side
    bend, swing, hook = rng.uniform(0, 1.2), rng.uniform(), rng.uniform(0, 1.6)
    swings = walks and rng.uniform() < 0.6
    return BodyMotion(
        forward=lambda time: speed * time,
        left=lambda time: drift * time,
        up=draw_joint(rng, 0.0, rng.choice([0, 0, 0.15, 0.3])),
        pitch=lambda time: lean + pitch(time),
        roll=roll,
        yaw=yaw,
        legs=pair(
            step(reach, pace, phase + part, bend)
            if walks
            else draw_limb(rng, (0.8 * rng.choice([0, 0, 1]), -1.5 * rng.choice([0, 1]), 0.4 * way), (reach, 0.6, 0.3))
            for part, way in sides
        ),
        arms=pair(
            hang(-swing * reach, pace, phase + part, hook)
            if swings
            else draw_limb(rng, (1.2 * rng.choice([0, 1]), 1.2, way), (1.5 * reach, 0.8, 0.6))
            for part, way in sides
        ),
        tool=bool(rng.uniform() < 0.25),
    )


def draw_turn(rng: np.random.Generator, radians: float) -> Path:
    """A turn of the whole body, steady or at once."""
    middle, sharpness = rng.uniform(0.2, 0.8), rng.uniform(8, 25)
    if rng.uniform() < 0.5:
        return lambda time: radians * time
    return lambda time: radians / (1 + np.exp((middle - time) * sharpness))


def draw_limb(rng: np.random.Generator, rests: tuple[float, float, float], reach: tuple[float, float, float]) -> Limb:
    """rests: scales of where its two parts, and both to the side, rest. reach: of how far they move."""
    upper = draw_joint(rng, rests[0] * rng.normal(), reach[0])
    bent = draw_joint(rng, rests[1] * rng.uniform(), reach[1])
    return Limb(upper, lambda time: upper(time) + bent(time), draw_joint(rng, rests[2] * rng.uniform(), reach[2]))


def draw_joint(rng: np.random.Generator, base: float, reach: float) -> Path:
    """A joint that rests at an angle, swings, moves once, there and back, or slowly."""
    kind, scale, pace, phase = rng.integers(6), reach * rng.normal(), rng.uniform(0.5, 4), rng.uniform()
    (first, second), sharpness = np.sort(rng.uniform(0.05, 0.95, 2)), rng.uniform(12, 50)

    def once(time: np.ndarray, when: float) -> np.ndarray:
        return 1.6 * scale / (1 + np.exp((when - time) * sharpness))

    if kind <= 1:
        return lambda time: base + rest(time)
    if kind == 2:
        return lambda time: base + scale * np.sin(2 * np.pi * (pace * time + phase))
    if kind == 3:
        return lambda time: base + once(time, first)
    if kind == 4:
        return lambda time: base + once(time, first) - once(time, second)
    return lambda time: base + 1.5 * scale * (time - 0.5)


def step(reach: float, pace: float, phase: float, bend: float) -> Limb:
    """A leg that walks: `pace` steps a clip, its knee bent as it comes forward."""

    def thigh(time: np.ndarray) -> np.ndarray:
        return reach * np.sin(2 * np.pi * (pace * time + phase))

    return Limb(
        thigh, lambda time: thigh(time) - bend / 2 * (1 + np.sin(2 * np.pi * (pace * time + phase - 0.25))), rest
    )


def hang(reach: float, pace: float, phase: float, hook: float) -> Limb:
    """An arm that swings as one walks."""

    def upper(time: np.ndarray) -> np.ndarray:
        return reach * np.sin(2 * np.pi * (pace * time + phase))

    return Limb(upper, lambda time: upper(time) + hook, rest)


def describe_paths(paths: Sequence[Path]) -> np.ndarray:
    """(DESCRIBED, paths): how far each has come since the beginning."""
    time = np.linspace(0, 1, 2 * DESCRIBED)
    far = np.stack([path(time) - path(time)[0] for path in paths], -1)
    return far.reshape(DESCRIBED, 2, -1).mean(1).clip(-3, 3)


def point_down(angle: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Unit vectors (T, 3), down at 0, turned forward and to the left, in radians."""
    return np.stack([np.sin(angle) * np.cos(side), np.sin(side), -np.cos(angle) * np.cos(side)], -1)


def rotation(axis: str, angle: np.ndarray) -> np.ndarray:
    """Rotations (..., 3, 3) about an axis, "x", "y" or "z", by angles (...) in radians."""
    first, second = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    turns = np.zeros((*angle.shape, 3, 3))
    turns[..., range(3), range(3)] = 1
    turns[..., first, first] = turns[..., second, second] = np.cos(angle)
    turns[..., first, second], turns[..., second, first] = -np.sin(angle), np.sin(angle)
    return turns


def pair(limbs: Iterable[Limb]) -> tuple[Limb, Limb]:
    left, right = limbs
    return left, right
