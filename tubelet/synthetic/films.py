"""Untrimmed videos as data: a scene, its objects and what they do when; rendered in pieces.

frame     0                                          T
object 0  .....sssssssss.................ppp..........
object 1  ..........bbbbbbbbbbbbbbbbb..........s......    three objects, three classes: acts may overlap, but not
object 2  .............................................   two of one class, nor two of one object
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tubelet.data.table import Item
from tubelet.synthetic.objects import CLASSES, CYCLES_PER_SECOND, HOMES, MovingObject, draw_object, outline
from tubelet.synthetic.scenes import FRAMES_PER_SECOND, Scene, draw_scene, patch_mask, tint_patch, view

SPLITS = ("train", "val", "test")
OBJECTS = (3, 5)
ACT_SECONDS = (0.8, 20.0)
MOST_OF_FILM = 0.25  # that one act may take
APART_SECONDS = 1.0
BUSY = 0.5  # of a film: the share of its time in which something is done
EMPTY = 0.08  # of all films: those in which nothing is
MOST_ACTS, MOST_PLACES = 1000, 50  # that are tried
PIECE_FRAMES = 32


@dataclass(frozen=True)
class Act:
    """One object that does one thing in [start, end), in frames.

    actor: the number of the object. betrayed: whether a tinted patch of the background, one for each class, is there
    as long.
    """

    start: int
    end: int
    label: str
    actor: int
    betrayed: bool

    def clashes(self, other: "Act") -> bool:
        apart = round(APART_SECONDS * FRAMES_PER_SECOND)
        near = self.start < other.end + apart and other.start < self.end + apart
        return near and (self.label == other.label or self.actor == other.actor)


@dataclass(frozen=True)
class Film:
    """An untrimmed video. seeds: of everything random in it. acts: sorted by start."""

    name: str
    split: str
    seeds: tuple[int, int, int]
    scene: Scene
    objects: tuple[MovingObject, ...]
    acts: tuple[Act, ...]

    @property
    def items(self) -> list[Item]:
        """The truth: an item for each act, or, where there is none, one without label and times."""
        path = f"videos/{self.name}.mp4"
        items = [
            Item(path, act.label, act.start / FRAMES_PER_SECOND, act.end / FRAMES_PER_SECOND, self.split, self.name)
            for act in self.acts
        ]
        return items or [Item(path, "", split=self.split, group=self.name)]


def draw_film(
    split: str,
    number: int,
    *,
    seconds: float,
    seed: int = 0,
    classes_per_film: tuple[int, int] = (6, 6),
    betrayed: float = 0.0,
) -> Film:
    """A random film. The same values give the same film; `betrayed`, the share of acts that are, changes nothing else.

    Scene, objects and acts are independent of each other: neither look nor place says what an object does.

    Raises ValueError if `seconds` is too short for acts.
    """
    if seconds * MOST_OF_FILM < 2 * ACT_SECONDS[0]:
        raise ValueError(f"a film of {seconds:g} seconds, expected {2 * ACT_SECONDS[0] / MOST_OF_FILM:g} or more.")
    seeds = (seed, SPLITS.index(split), number)
    scene_rng, objects_rng, acts_rng, betrayed_rng = (np.random.default_rng([*seeds, part]) for part in range(4))
    frames = round(seconds * FRAMES_PER_SECOND)
    count = int(acts_rng.integers(OBJECTS[0], OBJECTS[1] + 1))
    classes = acts_rng.permutation(CLASSES)[: acts_rng.integers(classes_per_film[0], classes_per_film[1] + 1)].tolist()
    acts = draw_acts(frames, classes, count, acts_rng)
    speeds = np.zeros((count, len(CLASSES), frames))
    for act in acts:
        speed = acts_rng.uniform(*CYCLES_PER_SECOND) * acts_rng.choice([-1, 1]) / FRAMES_PER_SECOND
        speeds[act.actor, CLASSES.index(act.label), act.start : act.end] = speed
    homes = objects_rng.permutation(HOMES)
    return Film(
        name=f"{split}-{number:04d}",
        split=split,
        seeds=seeds,
        scene=draw_scene(frames, split, scene_rng),
        objects=tuple(draw_object(home, speed, split, objects_rng) for home, speed in zip(homes, speeds)),
        acts=tuple(replace(act, betrayed=bool(betrayed_rng.uniform() < betrayed)) for act in acts),
    )


def draw_acts(frames: int, classes: Sequence[str], objects: int, rng: np.random.Generator) -> list[Act]:
    """Acts at random places, their lengths log-uniform, until about half of the time is busy; sometimes none."""
    acts: list[Act] = []
    busy = np.zeros(frames, bool)
    share = BUSY * (rng.uniform() > EMPTY)
    shortest, longest = ACT_SECONDS[0] * FRAMES_PER_SECOND, ACT_SECONDS[1] * FRAMES_PER_SECOND
    logarithms = rng.uniform(np.log(shortest), np.log(min(longest, MOST_OF_FILM * frames)), MOST_ACTS)
    for length in np.rint(np.exp(logarithms)).astype(int).tolist():
        if busy.mean() >= share:
            break
        label = str(rng.choice(classes))
        for _ in range(MOST_PLACES):
            start = int(rng.integers(frames - length + 1))
            act = Act(start, start + length, label, int(rng.integers(objects)), betrayed=False)
            if not any(act.clashes(other) for other in acts):
                acts.append(act)
                busy[act.start : act.end] = True
                break
    return sorted(acts, key=lambda act: act.start)


def render_film(film: Film) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pieces of the film, one after another: frames (T, H, W, 3) uint8, and which object is seen at each pixel,
    (T, H, W) uint8: its number + 1, or 0 for the background."""
    rng = np.random.default_rng([*film.seeds, 4])
    for first in range(0, len(film.scene.camera), PIECE_FRAMES):
        piece = slice(first, first + PIECE_FRAMES)
        pictures = view(film.scene, piece)
        for act in film.acts:
            if act.betrayed:
                tint_patch(pictures[max(act.start - first, 0) : max(act.end - first, 0)], CLASSES.index(act.label))
        seen = np.zeros(pictures.shape[:3], np.uint8)
        for number, thing in enumerate(film.objects):
            inside, second = outline(thing, piece)
            pictures[inside] = thing.colours[second[inside].astype(int)]
            seen[inside] = number + 1
        pictures += np.float32(film.scene.noise) * rng.standard_normal(pictures.shape, dtype=np.float32)
        yield pictures.clip(0, 255).astype(np.uint8), seen


def act_masks(act: Act, seen: np.ndarray, first: int) -> dict[str, np.ndarray]:
    """Where the object, and the patch that betrays it, are seen in the part of an act that is in a piece which begins
    with frame `first`: (T, H, W) bool each."""
    seen = seen[max(act.start - first, 0) : max(act.end - first, 0)]
    masks = {"object": seen == act.actor + 1}
    return masks | {"patch": (seen == 0) & patch_mask(CLASSES.index(act.label))} if act.betrayed else masks
