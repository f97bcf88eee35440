"""Made-up worlds to learn motion from: endless, with all that is asked about them known."""

import math
from collections.abc import Generator, Iterable, Mapping
from contextlib import closing
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tubelet.data.prefetch import prefetch, processors
from tubelet.nn import SpaceTimeTransformer, create_model
from tubelet.nn.create import parse
from tubelet.pretrain import motion
from tubelet.pretrain.config import PretrainConfig
from tubelet.pretrain.crates import FRAMES, GRIDS, SURFACES, WORLDS, Crate, draw_textures, make_crate
from tubelet.pretrain.motion import EXPLAINED, WEIGHTS, MotionHead
from tubelet.system.console import bar
from tubelet.weights.terms import Terms

AGAIN = 4  # times that each crate is learned from, every time otherwise
APART = 8  # crates between
HELD_OUT = 8  # crates, of other surfaces


def make_model(config: PretrainConfig) -> SpaceTimeTransformer:
    """A fresh model, for clips of a middle size."""
    _, _, patch = parse(config.model_name("video"))
    h, w = GRIDS[2]
    clip = patch[0] * round(FRAMES / patch[0]), h * patch[1], w * patch[2]
    torch.manual_seed(config.seed)
    return create_model(config.model_name("video"), clip=clip, embed=config.embed_name, num_classes=1, std=(0.25,) * 3)


class Worlds:
    """A lesson of made-up worlds: where each part of one goes, and how what it shows moves. See `Lesson`."""

    head: nn.Module
    weights: Mapping[str, float] = WEIGHTS
    explained: tuple[str, ...] = EXPLAINED
    know_little = "nothing moves, and all bodies move alike"

    def __init__(self, config: PretrainConfig, model: SpaceTimeTransformer):
        self.config, self.patch = config, model.embed.patch
        self.head = MotionHead(model)
        self.surfaces = np.empty(0)

    def open(self, *, show: bool) -> list[Crate]:
        seed = self.config.seed
        with bar("surfaces", 2 * SURFACES, show=show) as progress:
            self.surfaces, others = (draw_textures(one, after=progress.advance) for one in (seed, seed + 1))
        return list(self.crates(range(HELD_OUT), seed=seed + 1, surfaces=others))

    def batches(self, first: int, steps: int) -> Generator[Crate, None, None]:
        seed, made = self.config.seed, find_first(first)
        waiting: dict[int, Crate] = {}
        with closing(self.crates(range(made, count_crates(steps)), seed=seed, surfaces=self.surfaces)) as crates:
            for step in range(first, steps):
                number = choose_crate(step)
                while made <= number:
                    waiting[made], made = next(crates), made + 1
                yield waiting[number].vary(np.random.default_rng([seed, step, *b"vary"]))
                waiting = {one: crate for one, crate in waiting.items() if one >= find_first(step + 1)}

    def crates(self, which: Iterable[int], *, seed: int, surfaces: np.ndarray) -> Generator[Crate, None, None]:
        threads = self.config.workers or processors()

        def make(number: int) -> Crate:
            return make_crate(number, seed=seed, textures=surfaces, patch=self.patch)

        return prefetch(make, which, threads=threads, ahead=2 * threads)

    def answer(self, model: SpaceTimeTransformer, batch: Crate) -> tuple[Tensor, ...]:
        return self.head(model, batch.clips)

    def know_nothing(self, batch: Crate) -> tuple[Tensor, ...]:
        return motion.know_nothing(batch)

    def measure(self, batch: Crate, *answers: Tensor) -> dict[str, Tensor]:
        cells, whole = answers
        return motion.measure(batch, cells, whole)

    def begun_with(self) -> dict[str, Any]:
        return {}

    @property
    def terms(self) -> tuple[Terms, ...]:
        return ()

    def about(self) -> dict[str, Any]:
        return {"worlds": WORLDS * count_crates(self.config.count)}

    def write_card(self, about: dict[str, Any]) -> str:
        known = about["explained"]
        command = " ".join(f"--{name} {about[name]}" for name in ("model", "embed", "steps", "seed"))
        return f"""# Weights that know motion

Made by `tubelet pretrain {command} --lr {about["lr"]:g}`
from {about["worlds"]:,} made-up worlds, each {AGAIN} times: surfaces, bodies with joints and things before a
moving camera, drawn at random (`tubelet.synthetic.worlds`). No real picture, no video and no label of anybody was
used, so there is no licence but tubelet's own, Apache-2.0.

Explained in new worlds, where 0 % or less is no better than the answer that nothing moves, and that all bodies move
alike:

- {known["flow"]:.0%} of where each part goes
- {known["way"]:.0%} of how a camera or a thing moves
- {known["body"]:.0%} of how the joints of a body move

They were never shown: the demo's scenes, lamps and motions (a camera that does one thing alone), the scenes, objects
and acts of the untrimmed set (things that turn, or come back), people, rooms, or any class to tell apart.
"""


def choose_crate(step: int) -> int:
    """The number of the crate that a step learns from: a new one, then ones from before."""
    newest, again = divmod(step, AGAIN)
    return newest - again * APART if newest >= again * APART else newest


def count_crates(steps: int) -> int:
    """Crates that so many steps learn from."""
    return math.ceil(steps / AGAIN)


def find_first(step: int) -> int:
    """The first crate that is still needed from a step on."""
    return max(0, step // AGAIN - (AGAIN - 1) * APART)
