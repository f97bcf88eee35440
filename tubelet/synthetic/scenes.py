"""Backgrounds: a cloudy texture, over which the camera drifts to and fro, and patches of it that may be tinted."""

from dataclasses import dataclass

import numpy as np

FRAMES_PER_SECOND = 15
HEIGHT_PX, WIDTH_PX = 72, 96

TEXTURE_PX = 160
LONGEST_WAVE_PX = 40.0
FASTEST_CAMERA_PX = 3.0  # a second
HUES = {"train": (0.0, 0.5), "val": (0.5, 0.7), "test": (0.7, 1.0)}  # of the colour circle: no palette is in two splits

PATCH_PX = 14
PATCHES = tuple(  # top, left
    (top, left) for top in (0, HEIGHT_PX - PATCH_PX) for left in (0, (WIDTH_PX - PATCH_PX) // 2, WIDTH_PX - PATCH_PX)
)
OPACITY = 0.7


@dataclass(frozen=True)
class Scene:
    """texture: (TEXTURE_PX, TEXTURE_PX, 3) in grey levels. camera: the top left corner of what is seen of it, (T, 2) in
    px. noise: of the sensor, in grey levels."""

    texture: np.ndarray
    camera: np.ndarray
    noise: float


def draw_scene(frames: int, split: str, rng: np.random.Generator) -> Scene:
    """A random scene, its hue one of those of `split`."""
    frequency = np.fft.fftfreq(TEXTURE_PX)
    weight = np.hypot(frequency, frequency[:, None]).clip(1 / LONGEST_WAVE_PX) ** -1.8
    clouds = np.fft.ifft2(np.fft.fft2(rng.standard_normal((2, TEXTURE_PX, TEXTURE_PX))) * weight).real
    light, tint = (clouds / clouds.std(axis=(1, 2), keepdims=True))[..., None]
    hue = hue_colour(rng.uniform(*HUES[split]))
    texture = rng.uniform(95, 150) + rng.uniform(10, 25) * light + hue * (rng.uniform(20, 35) + 12 * tint)

    speed, angle = rng.uniform(0, FASTEST_CAMERA_PX) / FRAMES_PER_SECOND, rng.uniform(0, 2 * np.pi)
    path = np.arange(frames)[:, None] * speed * np.array([np.sin(angle), np.cos(angle)])
    reach = (TEXTURE_PX - np.array([HEIGHT_PX, WIDTH_PX]) - 1) / 2
    camera = reach + fold(rng.uniform(-reach, reach) + path, reach)
    return Scene(texture.astype(np.float32), camera, rng.uniform(1, 3))


def view(scene: Scene, frames: slice) -> np.ndarray:
    """The picture of the camera in some frames, without noise: (T, H, W, 3) float32 in grey levels."""
    seen = []
    for corner in scene.camera[frames]:
        row, column = corner.astype(int)
        down, right = (corner % 1).astype(np.float32)
        part = scene.texture[row : row + HEIGHT_PX + 1, column : column + WIDTH_PX + 1]
        rows = part[:-1] * (1 - down) + part[1:] * down
        seen.append(rows[:, :-1] * (1 - right) + rows[:, 1:] * right)
    return np.stack(seen)


def patch_mask(number: int) -> np.ndarray:
    """The place of a patch: (H, W) bool."""
    top, left = PATCHES[number]
    mask = np.zeros((HEIGHT_PX, WIDTH_PX), bool)
    mask[top : top + PATCH_PX, left : left + PATCH_PX] = True
    return mask


def tint_patch(pictures: np.ndarray, number: int) -> None:
    """Colour a patch of pictures (T, H, W, 3) float32: each patch has a hue of its own."""
    colour = 128 + 127 * hue_colour(number / len(PATCHES))
    mask = patch_mask(number)
    pictures[:, mask] = (1 - OPACITY) * pictures[:, mask] + OPACITY * colour.astype(np.float32)


def hue_colour(hue: float) -> np.ndarray:
    """Red, green and blue from -1 to 1, (3,), of a hue from 0 to 1 on the colour circle."""
    return np.cos(2 * np.pi * (hue - np.arange(3) / 3))


def fold(path: np.ndarray, reach: np.ndarray | float) -> np.ndarray:
    """A path that comes back where it meets a wall, at -reach and reach."""
    return np.abs((path + reach) % (4 * reach) - 2 * reach) - reach
