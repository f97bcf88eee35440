"""Camera moves through rendered rooms, tested in rooms that training never saw.

    pip install pybullet
    python benchmarks/rooms.py OUT_DIR
    tubelet train OUT_DIR/data.csv

Eight ways to move a camera: to pan (turn) and to truck (go) left and right, to tilt up and down, to dolly in and out.
Each room has its own size, furniture, patterns and light, drawn by pybullet's software renderer, no screen needed; a
clip has its own place, heading, speed and shake of a hand. Panning and trucking the same way look alike but for
parallax. One frame tells nothing. All clips of a room are one group, and in one split.
"""

import argparse
import csv
import tempfile
from pathlib import Path

import numpy as np

from tubelet.media.writer import write_video
from tubelet.system.console import bar

try:
    import pybullet
    from PIL import Image
except ImportError:
    raise SystemExit("rooms.py draws with pybullet, which is no part of tubelet: pip install pybullet") from None

FRAMES, FRAMES_PER_SECOND = 24, 15
WIDTH_PX, HEIGHT_PX = 160, 120
FIELD_DEGREES = (45, 70)
TURN_DEGREES, WAY_M = (12, 40), (0.3, 1.0)  # of a whole clip, per 1.6 s
SHAKE_DEGREES, SHAKE_M = 0.5, 0.01
# right and up of the camera, and yaw and pitch, by the class: (right, forward, yaw, pitch), +1 or -1
MOVES = {
    "pan_left": (0, 0, 1, 0),
    "pan_right": (0, 0, -1, 0),
    "tilt_up": (0, 0, 0, 1),
    "tilt_down": (0, 0, 0, -1),
    "truck_left": (-1, 0, 0, 0),
    "truck_right": (1, 0, 0, 0),
    "dolly_in": (0, 1, 0, 0),
    "dolly_out": (0, -1, 0, 0),
}


def draw_pattern(rng: np.random.Generator) -> np.ndarray:
    """(128, 128, 3) uint8: stripes, checks, spots or stains in two colours."""
    y, x = np.mgrid[:128, :128] / 128
    angle, times = rng.uniform(0, np.pi), rng.uniform(2, 9)
    along = np.cos(angle) * x + np.sin(angle) * y
    across = np.cos(angle) * y - np.sin(angle) * x
    stains = sum(
        np.sin(2 * np.pi * (rng.uniform(1, 5, 2) @ np.stack([x.ravel(), y.ravel()])) + rng.uniform(0, 7))
        for _ in range(5)
    ).reshape(128, 128)
    kinds = (
        np.sin(2 * np.pi * times * along),
        np.sin(2 * np.pi * times * along) * np.sin(2 * np.pi * times * across),
        np.cos(2 * np.pi * times * along) + np.cos(2 * np.pi * times * across) - 0.9,
        stains,
    )
    share = 1 / (1 + np.exp(-rng.uniform(1, 8) * kinds[rng.integers(len(kinds))]))
    first, second = rng.uniform(30, 255, (2, 3))
    grain = rng.normal(0, rng.uniform(2, 14), (128, 128, 1))
    return (first + share[..., None] * (second - first) + grain).clip(0, 255).astype(np.uint8)


def add_box(half: np.ndarray, centre: np.ndarray, texture: int, *, turn: float = 0.0, kind: int | None = None) -> None:
    shape = pybullet.createVisualShape(pybullet.GEOM_BOX, halfExtents=half.tolist())
    if kind is not None:
        sizes = {"radius": float(half[0]), **({"length": float(2 * half[2])} if kind == pybullet.GEOM_CYLINDER else {})}
        shape = pybullet.createVisualShape(kind, **sizes)
    rotation = pybullet.getQuaternionFromEuler((0, 0, turn))
    body = pybullet.createMultiBody(baseVisualShapeIndex=shape, basePosition=centre.tolist(), baseOrientation=rotation)
    pybullet.changeVisualShape(body, -1, textureUniqueId=texture, rgbaColor=(1, 1, 1, 1))


def build_room(rng: np.random.Generator, folder: Path) -> np.ndarray:
    """A room in the renderer; its width, depth and height in m."""
    pybullet.resetSimulation()
    size = rng.uniform((4, 4, 2.4), (8, 8, 3.4))
    textures = []
    for number in range(8):
        file = folder / f"{number}.png"
        Image.fromarray(draw_pattern(rng)).save(file)
        textures.append(pybullet.loadTexture(str(file)))
    w, d, h = size
    thick = 0.05
    for centre, half in (
        ((0, 0, -thick), (w / 2, d / 2, thick)),
        ((0, 0, h + thick), (w / 2, d / 2, thick)),
        ((w / 2, 0, h / 2), (thick, d / 2, h / 2)),
        ((-w / 2, 0, h / 2), (thick, d / 2, h / 2)),
        ((0, d / 2, h / 2), (w / 2, thick, h / 2)),
        ((0, -d / 2, h / 2), (w / 2, thick, h / 2)),
    ):
        add_box(np.array(half, float), np.array(centre, float), int(rng.choice(textures)))
    for _ in range(rng.integers(6, 16)):
        half = rng.uniform(0.1, 0.5, 3) * (1, 1, rng.uniform(0.5, 2.5))
        place = rng.uniform(-0.45, 0.45, 2) * size[:2]
        if np.hypot(*place) < 1.0:  # the camera stands about the middle
            continue
        lifted = rng.choice([0.0, rng.uniform(0, h - 2 * half[2])]) if h > 2 * half[2] else 0.0
        kind = rng.choice([None, None, pybullet.GEOM_CYLINDER, pybullet.GEOM_SPHERE])
        centre = np.array([*place, lifted + (half[0] if kind == pybullet.GEOM_SPHERE else half[2])])
        add_box(half, centre, int(rng.choice(textures)), turn=rng.uniform(0, np.pi), kind=kind)
    return size


def film(move: str, size: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Frames (T, H, W, 3) uint8 of a camera that moves from a random place and heading on."""
    right, forward, yaw, pitch = MOVES[move]
    way, turn = rng.uniform(*WAY_M), np.radians(rng.uniform(*TURN_DEGREES))
    course = np.linspace(-0.5, 0.5, FRAMES) + rng.uniform(-0.05, 0.05) * np.sin(np.linspace(0, 3, FRAMES))
    place = np.array([*rng.uniform(-0.3, 0.3, 2), rng.uniform(1.0, min(1.8, size[2] - 0.5))])
    heading, rise = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(-15, 10))
    lens = pybullet.computeProjectionMatrixFOV(rng.uniform(*FIELD_DEGREES), WIDTH_PX / HEIGHT_PX, 0.05, 30)
    light = rng.uniform((-1, -1, 0.3), (1, 1, 1.5)).tolist()
    ambient = rng.uniform(0.5, 0.8)
    shake = np.cumsum(rng.normal(0, 1, (FRAMES, 5)), 0)
    shake = (shake - np.linspace(shake[0], shake[-1], FRAMES)) * ([np.radians(SHAKE_DEGREES)] * 2 + [SHAKE_M] * 3)
    frames = np.empty((FRAMES, HEIGHT_PX, WIDTH_PX, 3), np.uint8)
    for frame, done, hand in zip(frames, course, shake, strict=True):
        h, r = heading + yaw * turn * done + hand[0], rise + pitch * turn * done + hand[1]
        ahead = np.array([np.cos(r) * np.cos(h), np.cos(r) * np.sin(h), np.sin(r)])
        aside = np.array([np.sin(heading), -np.cos(heading), 0.0])
        level = np.array([np.cos(heading), np.sin(heading), 0.0])
        eye = place + way * done * (right * aside + forward * level) + hand[2:]
        view = pybullet.computeViewMatrix(eye.tolist(), (eye + ahead).tolist(), (0, 0, 1))
        _, _, rgba, _, _ = pybullet.getCameraImage(
            WIDTH_PX, HEIGHT_PX, view, lens, lightDirection=light, lightAmbientCoeff=ambient, shadow=0,
            renderer=pybullet.ER_TINY_RENDERER,
        )  # fmt: skip
        frame[:] = np.reshape(rgba, (HEIGHT_PX, WIDTH_PX, 4))[..., :3]
    return frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rooms", type=int, nargs=2, default=(40, 12), metavar=("TRAIN", "TEST"))
    parser.add_argument("--clips", type=int, default=3, help="of each move in each room")
    arguments = parser.parse_args()
    pybullet.connect(pybullet.DIRECT)
    rows, rooms = (
        [],
        [("train", n) for n in range(arguments.rooms[0])] + [("test", n) for n in range(arguments.rooms[1])],
    )
    with tempfile.TemporaryDirectory() as textures, bar("rooms", len(rooms)) as progress:
        for split, number in rooms:
            rng = np.random.default_rng([number, split == "test"])
            size, group = build_room(rng, Path(textures)), f"{split}-room-{number}"
            for move in MOVES:
                for clip in range(arguments.clips):
                    file = arguments.folder / split / f"{group}-{move}-{clip}.mp4"
                    file.parent.mkdir(parents=True, exist_ok=True)
                    write_video(file, film(move, size, rng), frames_per_second=FRAMES_PER_SECOND)
                    rows.append([file.relative_to(arguments.folder).as_posix(), move, split, group])
            progress.advance(f"{progress.done + 1}/{progress.total} left {progress.left}")
    with open(arguments.folder / "data.csv", "w", newline="") as table:
        csv.writer(table).writerows([["path", "label", "split", "group"], *rows])
    print(f"{len(rows)} clips. Next: tubelet train {arguments.folder / 'data.csv'}")


if __name__ == "__main__":
    main()
