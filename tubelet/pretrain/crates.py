"""Worlds in crates: as many as one step learns from, all of one size, with all that is asked about them."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tubelet.synthetic.motions import (
    DESCRIBED,
    MIRRORED,
    POINTS,
    BodyMotion,
    CameraMotion,
    Motion,
    ThingMotion,
    draw_motion,
)
from tubelet.synthetic.textures import draw_texture
from tubelet.synthetic.worlds import render_world

WORLDS = 32  # in a crate
FRAMES = 16
SURFACES = 300  # that worlds of one pre-training choose from
GRIDS = ((4, 4), (4, 5), (5, 7), (7, 9))  # patches in a frame, (h, w)
GRID_SHARES = (0.35, 0.3, 0.25, 0.1)
KINDS: tuple[type, ...] = (BodyMotion, CameraMotion, ThingMotion)
BODY, CAMERA = 0, 1  # their places in KINDS
COLOUR = 0.3  # by how much each channel's contrast varies
BRIGHTNESS = 25.0  # grey levels


@dataclass(frozen=True)
class Crate:
    """clips: (B, 3, T, H, W) uint8. flow: in px to the next frame, and own: the share that moves by itself, in each
    cell, (B, t, h, w, 2) and (B, t, h, w). kind: of the motion that each shows, (B,), a place in KINDS. body: (B,
    DESCRIBED, POINTS, 3), how its points move, 0 where it shows none. way: (B, DESCRIBED, 4), of the camera or the
    thing that it shows."""

    clips: Tensor
    flow: Tensor
    own: Tensor
    kind: Tensor
    body: Tensor
    way: Tensor

    def to(self, device: torch.device) -> "Crate":
        return Crate(*(value.to(device) for value in vars(self).values()))

    def vary(self, rng: np.random.Generator) -> "Crate":
        """Half of the worlds mirrored, half of them backwards, all in other colours; and what is said of them too."""
        count = len(self.clips)
        mirrored, backwards = (torch.from_numpy(draws < 0.5) for draws in rng.uniform(size=(2, count)))
        contrast = rng.uniform(1 - COLOUR, 1 + COLOUR, (count, 3, 1, 1, 1)).astype(np.float32)
        brightness = rng.uniform(-BRIGHTNESS, BRIGHTNESS, (count, 3, 1, 1, 1)).astype(np.float32)
        turned = self.mirror(mirrored).reverse(backwards)
        clips = turned.clips.float().mul_(torch.from_numpy(contrast)).add_(torch.from_numpy(brightness))
        return replace(turned, clips=clips.clamp_(0, 255).to(torch.uint8))

    def mirror(self, which: Tensor) -> "Crate":
        """Some of the worlds, (B,) bool, left to right: what goes right goes left, a left arm is a right arm."""
        return replace(
            self,
            clips=swap(self.clips, self.clips.flip(4), which),
            flow=swap(self.flow, self.flow.flip(3) * torch.tensor([-1.0, 1]), which),
            own=swap(self.own, self.own.flip(3), which),
            body=swap(self.body, self.body[:, :, MIRRORED] * torch.tensor([-1.0, 1, 1]), which),
            way=swap(self.way, self.way * torch.tensor([-1.0, 1, -1, 1]), which),
        )

    def reverse(self, which: Tensor) -> "Crate":
        """Some of the worlds backwards: what came goes, and begins where it ended."""
        body, way = self.body.flip(1), self.way.flip(1)
        hip = body[:, :, -1:] - body[:, :1, -1:]
        return replace(
            self,
            clips=swap(self.clips, self.clips.flip(2), which),
            flow=swap(self.flow, -self.flow.flip(1), which),
            own=swap(self.own, self.own.flip(1), which),
            body=swap(self.body, torch.cat([body[:, :, :-1], hip], 2), which),
            way=swap(self.way, way - way[:, :1], which),
        )


def swap(value: Tensor, other: Tensor, which: Tensor) -> Tensor:
    return torch.where(which.view(-1, *[1] * (value.ndim - 1)), other, value)


def draw_textures(seed: int, *, after: Callable[[], None] = lambda: None) -> np.ndarray:
    """The surfaces that worlds choose from, (SURFACES, px, px, 3) uint8. after: called after each."""
    found = []
    for number in range(SURFACES):
        found.append(draw_texture(np.random.default_rng([seed, number, *b"surface"])))
        after()
    return np.stack(found)


def make_crate(number: int, *, seed: int, textures: np.ndarray, patch: tuple[int, int, int]) -> Crate:
    """The crate of a number, the same whenever and wherever it is made.

    patch: of the model, (frames, px, px): a cell is half of it each way, where that can be.
    """
    rng = np.random.default_rng([seed, number, *b"crate"])
    h, w = GRIDS[rng.choice(len(GRIDS), p=GRID_SHARES)]
    size = patch[0] * round(FRAMES / patch[0]), h * patch[1], w * patch[2]
    motions = [draw_motion(rng) for _ in range(WORLDS)]
    worlds = [render_world(motion, rng, textures, size=size) for motion in motions]
    cell = half(patch)
    return Crate(
        clips=torch.from_numpy(np.stack([world.frames for world in worlds])).permute(0, 4, 1, 2, 3).contiguous(),
        flow=pool([world.flow for world in worlds], cell),
        own=pool([world.own[..., None] for world in worlds], cell)[..., 0],
        kind=torch.tensor([KINDS.index(type(motion)) for motion in motions]),
        body=stack_described(motions, (DESCRIBED, POINTS, 3), body=True),
        way=stack_described(motions, (DESCRIBED, 4), body=False),
    )


def half(patch: tuple[int, int, int]) -> tuple[int, int, int]:
    """A cell: half of a patch each way, all of it where it is odd."""
    t, h, w = (size // 2 if size % 2 == 0 else size for size in patch)
    return t, h, w


def pool(values: list[np.ndarray], cell: tuple[int, int, int]) -> Tensor:
    """Means over cells of (T, H, W, C) each -> (B, t, h, w, C)."""
    stacked = torch.from_numpy(np.stack(values).astype(np.float32)).permute(0, 4, 1, 2, 3)
    return F.avg_pool3d(stacked, cell).permute(0, 2, 3, 4, 1).contiguous()


def stack_described(motions: list[Motion], shape: tuple[int, ...], *, body: bool) -> Tensor:
    found = [motion.describe() if isinstance(motion, BodyMotion) == body else np.zeros(shape) for motion in motions]
    return torch.from_numpy(np.stack(found).astype(np.float32))
