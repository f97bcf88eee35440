"""Surfaces of made-up worlds: stripes, checks, grain, and leaves that fell on each other. They repeat at every edge."""

import numpy as np

TEXTURE_PX = 192


def draw_texture(rng: np.random.Generator) -> np.ndarray:
    """A random surface, (TEXTURE_PX, TEXTURE_PX, 3) uint8.

    Leaves: the dead leaves model, whose edges and sizes are spread as those of photographs (arXiv 2106.05963).
    """
    draw = (draw_grain, draw_stripes, draw_leaves, draw_leaves)[rng.integers(4)]
    picture = draw(rng)
    grey = picture.mean(2, keepdims=True)
    picture = grey + (picture - grey) * rng.uniform()
    mean = picture.mean()
    return (mean + (picture - mean) * rng.uniform(0.2, 1)).clip(0, 255).astype(np.uint8)


def draw_grain(rng: np.random.Generator, *, px: int = TEXTURE_PX) -> np.ndarray:
    """Noise, its spectrum flatter than that of clouds: (px, px, 3)."""
    frequency = np.fft.fftfreq(px)
    weight = np.hypot(frequency, frequency[:, None]).clip(1 / px) ** -rng.uniform(0.5, 1.2)
    noise = np.fft.ifft2(np.fft.fft2(rng.standard_normal((3, px, px))) * weight).real
    noise /= noise.std(axis=(1, 2), keepdims=True)
    mix = rng.uniform(10, 60) * (np.ones((3, 3)) * [1, 0, 0] + 0.3 * rng.standard_normal((3, 3)))
    return rng.uniform(60, 190) + np.moveaxis(noise, 0, -1) @ mix.T


def draw_stripes(rng: np.random.Generator, *, px: int = TEXTURE_PX) -> np.ndarray:
    """Stripes or checks in two colours, soft or sharp: (px, px, 3)."""
    y, x = 2 * np.pi * np.mgrid[:px, :px] / px
    (a, b), (c, d) = rng.integers(-12, 13, (2, 2))
    wave = np.sin(a * x + b * y + rng.uniform(0, 7))
    if rng.uniform() < 0.5:
        wave = wave * np.sin(c * x + d * y)
    one, other = rng.uniform(0, 255, (2, 3))
    return one + (other - one) * (np.tanh(wave * rng.uniform(0.5, 8))[..., None] + 1) / 2


def draw_leaves(rng: np.random.Generator, *, px: int = TEXTURE_PX) -> np.ndarray:
    """Ellipses and rectangles of all sizes, one upon another: (px, px, 3)."""
    y, x = np.mgrid[:px, :px] / px
    picture = np.full((px, px, 3), rng.uniform(0, 255, 3))
    largest = rng.uniform(0.05, 0.3)
    for _ in range(rng.integers(20, 160)):
        middle_x, middle_y, angle = *rng.uniform(size=2), rng.uniform(0, np.pi)
        right, down = (x - middle_x + 0.5) % 1 - 0.5, (y - middle_y + 0.5) % 1 - 0.5
        length, width = largest * rng.power(2, 2) + 0.01
        u = (np.cos(angle) * right + np.sin(angle) * down) / length
        v = (np.cos(angle) * down - np.sin(angle) * right) / width
        inside = u * u + v * v < 1 if rng.uniform() < 0.5 else np.maximum(abs(u), abs(v)) < 1
        picture[inside] = rng.uniform(0, 255, 3)
    return picture + rng.uniform(0, 10) * rng.standard_normal((px, px, 1))
