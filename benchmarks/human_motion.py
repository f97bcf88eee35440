"""Human motion seen by cameras: actions forward and backward, on test cameras that training never saw.

    pip install pybullet
    python benchmarks/human_motion.py OUT_DIR
    tubelet train OUT_DIR/data.csv

Six motion-capture takes of real people, which the Python package `pybullet` carries, are played by its humanoid and
drawn by its software renderer, no screen needed. Each take is two classes, as recorded and played backwards: the two
share all their frames, so that only the order of the frames tells them apart. Every clip has its own camera, light,
colours, speed and start. Cameras of train, val and test stand in different sectors around the person.

The licence of the takes is unclear: render them for your own measurements, do not pass the clips on.
"""

import argparse
import csv
import json
from pathlib import Path

import numpy as np

from tubelet.media.writer import write_video

try:
    import pybullet
    import pybullet_data
except ImportError:
    raise SystemExit("human_motion.py draws with pybullet, which is no part of tubelet: pip install pybullet") from None

TAKES = ("walk", "run", "crawl", "cartwheel", "roll", "getup_facedown")
FRAMES = 24
FRAMES_PER_SECOND = 15
SIZE_PX = 96

# Every third of the circle around the person is shared out like this, with a gap between the splits.
AZIMUTHS_DEGREES = {"train": (0, 55), "val": (60, 80), "test": (85, 115)}
SPLIT_OF_NUMBER = ("train", "train", "test", "train", "val", "train", "test", "train")

# A pose is a row of the take: root position, root quaternion (w, x, y, z), then these joints of humanoid.urdf
# with as many numbers each: a quaternion, or the angle of a hinge.
JOINTS = {1: 4, 2: 4, 3: 4, 4: 1, 5: 4, 6: 4, 7: 1, 9: 4, 10: 1, 11: 4, 12: 4, 13: 1}
SKIN, SHIRT, TROUSERS, SHOES = (2, 7, 8, 13, 14), (0, 1, 6, 12), (3, 4, 9, 10), (5, 11)


def load_take(name: str) -> tuple[np.ndarray, np.ndarray, bool]:
    """Times (N,) in seconds, poses (N, 43), and whether the take can be played in a loop."""
    take = json.loads((Path(pybullet_data.getDataPath()) / f"data/motions/humanoid3d_{name}.txt").read_text())
    rows = np.array(take["Frames"])
    return np.concatenate([[0], rows[:-1, 0].cumsum()]), rows[:, 1:], take["Loop"] == "wrap"


def poses_at(seconds: np.ndarray, times: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """Poses (M, 43) at `seconds` (M,), between the recorded ones. Past its end, a take goes on from where it led."""
    rounds, seconds = np.divmod(seconds, times[-1])
    after = np.searchsorted(times, seconds, side="right").clip(1, len(times) - 1)
    share = ((seconds - times[after - 1]) / (times[after] - times[after - 1]))[:, None]
    first, second = poses[after - 1], poses[after]
    start = 3
    for count in (4, *JOINTS.values()):
        if count == 4:  # a quaternion and its negative are one rotation: blend the two that are close
            part = slice(start, start + 4)
            second[:, part] *= np.where((first[:, part] * second[:, part]).sum(1, keepdims=True) < 0, -1, 1)
        start += count
    between = first + share * (second - first)
    between[:, [0, 2]] += rounds[:, None] * (poses[-1] - poses[0])[[0, 2]]
    return between


def set_pose(person: int, pose: np.ndarray) -> None:
    pybullet.resetBasePositionAndOrientation(person, pose[:3], _rotation(pose[3:7]))
    start = 7
    for joint, count in JOINTS.items():
        value = pose[start : start + count]
        pybullet.resetJointStateMultiDof(person, joint, _rotation(value) if count == 4 else list(value))
        start += count


def _rotation(wxyz: np.ndarray) -> list[float]:
    """The quaternion as pybullet wants it: (x, y, z, w), of length 1."""
    return list(np.roll(wxyz, -1) / np.linalg.norm(wxyz))


def dress(person: int, floor: int, rng: np.random.Generator) -> None:
    skin = np.array([0.9, 0.7, 0.55]) * rng.uniform(0.4, 1)
    for links, colour in (
        (SKIN, skin),
        (SHIRT, rng.uniform(0, 1, 3)),
        (TROUSERS, rng.uniform(0, 1, 3)),
        (SHOES, skin / 4),
    ):
        for link in links:
            pybullet.changeVisualShape(person, link, rgbaColor=[*colour, 1])
    pybullet.changeVisualShape(floor, -1, rgbaColor=[*rng.uniform(0.5, 1, 3), 1])


def film(person: int, poses: np.ndarray, azimuth_degrees: float, rng: np.random.Generator) -> np.ndarray:
    """Frames (T, H, W, 3) uint8 from a random camera at `azimuth_degrees` that travels beside the person."""
    azimuth, elevation, distance_m = np.radians(azimuth_degrees), np.radians(rng.uniform(5, 35)), rng.uniform(2.2, 3)
    flat, up = distance_m * np.cos(elevation), distance_m * np.sin(elevation)
    towards_camera = np.array([flat * np.cos(azimuth), up, flat * np.sin(azimuth)])
    lens = pybullet.computeProjectionMatrixFOV(fov=45, aspect=1, nearVal=0.1, farVal=40)
    light = [rng.uniform(-1, 1), rng.uniform(1, 2), rng.uniform(-1, 1)]
    sky = rng.uniform(120, 255, 3).astype(np.uint8)

    frames = np.empty((len(poses), SIZE_PX, SIZE_PX, 3), np.uint8)
    for frame, pose in zip(frames, poses):
        set_pose(person, pose)
        target = np.array([pose[0], poses[:, 1].mean(), pose[2]])  # held at one height, so that rising and falling show
        view = pybullet.computeViewMatrix(target + towards_camera, target, (0, 1, 0))
        _, _, rgba, _, body = pybullet.getCameraImage(
            SIZE_PX, SIZE_PX, view, lens, lightDirection=light, shadow=1, renderer=pybullet.ER_TINY_RENDERER
        )
        frame[:] = np.reshape(rgba, (SIZE_PX, SIZE_PX, 4))[..., :3]
        frame[np.reshape(body, (SIZE_PX, SIZE_PX)) < 0] = sky
    return frames


def render_clip(person: int, floor: int, take: str, azimuth_degrees: float, rng: np.random.Generator) -> np.ndarray:
    """Frames (T, H, W, 3) uint8 of `take` from a random moment on, at a random speed."""
    times, poses, loops = load_take(take)
    seconds = np.arange(FRAMES) / FRAMES_PER_SECOND * rng.uniform(0.85, 1.15)
    latest_start = times[-1] if loops else times[-1] - seconds[-1]
    dress(person, floor, rng)
    return film(person, poses_at(seconds + rng.uniform(0, latest_start), times, poses), azimuth_degrees, rng)


def render_set(out_dir: Path, *, clips_per_class: int, seed: int) -> list[tuple[str, str, str, str]]:
    """Write OUT_DIR/<class>/<number>.mp4 and return the rows (path, label, split, group) of the table."""
    pybullet.connect(pybullet.DIRECT)
    pybullet.setAdditionalSearchPath(pybullet_data.getDataPath())
    person = pybullet.loadURDF("humanoid/humanoid.urdf", globalScaling=0.25, useFixedBase=True)
    lying = pybullet.getQuaternionFromEuler([-np.pi / 2, 0, 0])  # in the takes y points up
    floor = pybullet.loadURDF("plane.urdf", baseOrientation=lying, useFixedBase=True)
    rows = []
    for index, (take, order) in enumerate((take, order) for take in TAKES for order in ("forward", "reversed")):
        label = f"{take}_{order}"
        (out_dir / label).mkdir(parents=True)
        for number in range(clips_per_class):
            rng = np.random.default_rng([seed, index, number])
            split, sector = SPLIT_OF_NUMBER[number % len(SPLIT_OF_NUMBER)], int(rng.integers(3))
            azimuth_degrees = 120 * sector + rng.uniform(*AZIMUTHS_DEGREES[split])
            frames = render_clip(person, floor, take, azimuth_degrees, rng)
            path = f"{label}/{number:03d}.mp4"
            write_video(
                out_dir / path, frames if order == "forward" else frames[::-1], frames_per_second=FRAMES_PER_SECOND
            )
            rows.append((path, label, split, f"{split}-cameras-{sector}"))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out_dir", type=Path, help="a new folder for the clips and data.csv")
    parser.add_argument("--clips", type=int, default=40, help="clips in each of the 12 classes")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rows = render_set(arguments.out_dir, clips_per_class=arguments.clips, seed=arguments.seed)
    table = arguments.out_dir / "data.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split", "group"), *rows])
    print(f"{len(rows)} clips. Next: tubelet train {table}")


if __name__ == "__main__":
    main()
