"""Made-up worlds: what is said of them is true, and they know nothing of the exams."""

import ast
from pathlib import Path

import numpy as np
import pytest

import tubelet.synthetic
from tubelet.synthetic.motions import (
    BodyMotion,
    Build,
    CameraMotion,
    Motion,
    ThingMotion,
    draw_body,
    draw_camera,
    draw_motion,
    draw_thing,
    rest,
    rotation,
)
from tubelet.synthetic.textures import TEXTURE_PX, draw_texture
from tubelet.synthetic.worlds import World, compose, invert, place, render_world, sample

SIZE = (8, 36, 48)
TIME = np.linspace(0, 1, 33)
EXAMS = ("camera_motions", "objects", "scenes", "films", "untrimmed")
RANDOM = np.random.default_rng
DRAWS = {"body": draw_body, "camera": draw_camera, "thing": draw_thing}


@pytest.fixture(scope="module")
def textures() -> np.ndarray:
    return np.stack([draw_texture(RANDOM([3, number])) for number in range(6)])


def make(kind: str, seed: int, textures: np.ndarray) -> World:
    return render_world(DRAWS[kind](RANDOM([seed, 1])), RANDOM([seed, 2]), textures, size=SIZE)


def mean_error(world: World, flow: np.ndarray, where: np.ndarray) -> float:
    """Grey levels between what is seen at places, (T - 1, H, W) bool, and where `flow` says that it is next."""
    _, height, width = SIZE
    y, x = np.mgrid[:height, :width]
    errors = []
    for now, after, moved, chosen in zip(world.frames, world.frames[1:], flow, where):
        to_x, to_y = (x + moved[..., 0]).clip(0, width - 1), (y + moved[..., 1]).clip(0, height - 1)
        left, top = np.floor(to_x).astype(int).clip(0, width - 2), np.floor(to_y).astype(int).clip(0, height - 2)
        u, v = (to_x - left)[..., None], (to_y - top)[..., None]
        high = after[top, left] * (1 - u) + after[top, left + 1] * u
        low = after[top + 1, left] * (1 - u) + after[top + 1, left + 1] * u
        errors.append(abs(high * (1 - v) + low * v - now).mean(-1)[chosen])
    return float(np.concatenate(errors).mean())


@pytest.mark.parametrize("kind", DRAWS)
def test_flow_says_where_all_goes(kind: str, textures: np.ndarray) -> None:
    """What is seen at a pixel is seen again where its flow leads; and not where it leads the other way."""
    right, still, wrong = 0.0, 0.0, 0.0
    for seed in range(25):
        world = make(kind, seed, textures)
        speed = np.hypot(*np.moveaxis(world.flow, -1, 0))[:-1]
        where = (speed > 0.7) & (speed < 6)
        if kind != "camera":
            where &= world.own[:-1]
        if where.sum() < 50:
            continue
        right += mean_error(world, world.flow, where)
        still += mean_error(world, 0 * world.flow, where)
        wrong += mean_error(world, -world.flow, where)
    assert right < 0.62 * still
    assert right < 0.5 * wrong


@pytest.mark.parametrize("kind", DRAWS)
def test_the_same_values_give_the_same_world(kind: str, textures: np.ndarray) -> None:
    one, again, other = make(kind, 4, textures), make(kind, 4, textures), make(kind, 5, textures)
    assert one.frames.shape == (*SIZE, 3)
    assert one.frames.dtype == np.uint8
    assert one.flow.shape == (*SIZE, 2)
    for name in ("frames", "flow", "own"):
        assert np.array_equal(getattr(one, name), getattr(again, name))
    assert not np.array_equal(one.frames, other.frames)


def test_one_motion_never_looks_the_same_twice(textures: np.ndarray) -> None:
    motion = draw_body(RANDOM(0))
    first, second = (render_world(motion, RANDOM(seed), textures, size=SIZE) for seed in (1, 2))
    assert abs(first.frames.astype(int) - second.frames).mean() > 10


def test_any_size_and_any_motion_can_be_drawn(textures: np.ndarray) -> None:
    for seed, size in enumerate([(1 + 1, 12, 12), (4, 8, 40), (16, 48, 48)] * 6):
        motion = draw_motion(RANDOM(seed))
        world = render_world(motion, RANDOM(seed), textures, size=size)
        assert np.isfinite(world.flow).all()
        described = motion.describe()
        assert np.isfinite(described).all()
        assert described.shape == ((8, 11, 3) if isinstance(motion, BodyMotion) else (8, 4))


def test_what_is_still_does_not_flow(textures: np.ndarray) -> None:
    motion = CameraMotion(rest, rest, rest, rest)
    seeds = (seed for seed in range(40))
    worlds = (render_world(motion, RANDOM(seed), textures, size=SIZE) for seed in seeds)
    still = [world for world in worlds if not world.own.any()]
    assert any(abs(world.flow).max() < 1e-3 for world in still)  # the hand of some does not shake


def test_a_camera_that_turns_and_zooms_leaves_the_middle_where_it_is(textures: np.ndarray) -> None:
    middle = (SIZE[2] - 1) / 2, (SIZE[1] - 1) / 2
    pose = place(*(np.full(3, value) for value in middle), *np.array([[0.0, 0.3, 1], [1, 1.2, 0.7], [1, 1.2, 0.7]]))
    step = compose(pose[1:], invert(pose[:-1]))
    assert np.allclose(step[..., :2] @ middle + step[..., 2], middle)


def test_a_texture_repeats_at_its_edges(textures: np.ndarray) -> None:
    x, y = RANDOM(0).uniform(0, TEXTURE_PX, (2, 50))
    assert np.allclose(sample(textures[0], x, y), sample(textures[0], x + TEXTURE_PX, y - TEXTURE_PX), atol=0.1)
    whole = sample(textures[0], np.array([5.0]), np.array([9.0]))
    assert np.array_equal(whole[0], textures[0][9, 5].astype(np.float32))


def test_limbs_keep_their_length_and_hang_together() -> None:
    for seed in range(30):
        build = Build()
        parts = draw_body(RANDOM(seed)).parts(TIME, build)
        lengths = [np.linalg.norm(end - start, axis=1) for _, start, end, _ in parts]
        wanted = [build.thigh, build.shin] * 2 + [build.torso, 0.02] + [build.arm, build.forearm] * 2
        for length, want in zip(lengths, wanted):
            assert np.allclose(length, want)
        for upper, lower in ((0, 1), (2, 3), (6, 7), (8, 9)):
            assert np.array_equal(parts[upper][2], parts[lower][1])


def test_rotations_turn_one_axis_into_the_next() -> None:
    x, y, z = np.eye(3)
    quarter = np.array(np.pi / 2)
    for axis, one, other in (("x", y, z), ("y", z, x), ("z", x, y)):
        assert np.allclose(rotation(axis, quarter) @ one, other)


# What keeps the exams apart


@pytest.mark.parametrize("module", ["textures", "motions", "worlds"])
def test_worlds_are_made_of_nothing_that_the_exams_are_made_of(module: str) -> None:
    tree = ast.parse((Path(tubelet.synthetic.__file__).parent / f"{module}.py").read_text())
    names = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert not [name for name in names if name.split(".")[-1] in EXAMS]


def test_no_camera_does_one_thing_alone_as_those_of_the_demo_do() -> None:
    for seed in range(300):
        motion = draw_camera(RANDOM(seed))
        goes = np.hypot(motion.x(TIME), motion.y(TIME))
        ways = [np.ptp(way) for way in (goes, motion.turn(TIME), motion.zoom(TIME))]
        assert sum(way > 0 for way in ways) >= 2


def test_no_thing_turns_or_comes_back_as_those_of_the_untrimmed_set_do() -> None:
    for seed in range(300):
        motion: Motion = draw_thing(RANDOM(seed))
        assert isinstance(motion, ThingMotion)
        assert not {"turn", "angle"} & set(vars(motion))
        for path in (motion.x, motion.y, motion.grow):
            steps = np.diff(path(TIME))
            assert (steps >= -1e-9).all() or (steps <= 1e-9).all()
        assert any(np.ptp(path(TIME)) > 0 for path in (motion.x, motion.y, motion.grow))
