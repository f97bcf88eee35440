"""Which vectors stand for the most others that no label says anything about.

How much one vector says of another falls with the angle between them: a kernel,
1 for itself, a seventh at a right angle.

    said          how much the labelled ones, and those chosen before, say of each: the most that any of them does
    doubt         1, or, once there are two classes, how near the two likeliest classes of each are: 1 where equal
    gain of one   the sum over all of doubt x (what it would say more)

The one with the largest gain is chosen, then the next. With few labels that spreads over what there is; with many,
classes are sure of most, and what is chosen lies between them.

Source: arXiv 2407.12212 (the gain), 2412.20644 (weighted by doubt: one rule for any number of labels).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

MOST_ROWS = 4096  # that are chosen from, drawn of more: memory and time grow with their square
BLOCK_ROWS = 1024
NEAR_CLASSES = 0.25  # between the probabilities of two classes; nearer than this a clip is said to lie between them
EQUAL = 1e-4  # of gains, more than rounding; of equal ones the first is chosen, on every machine
TINY = 1e-12


@dataclass(frozen=True)
class Choice:
    """A row that was chosen. stands_for: rows without a label, itself included, of which nothing else says more.
    between: the two likeliest classes, where they are nearly as likely."""

    row: int
    stands_for: int
    between: tuple[str, str] | None


def choose(
    vectors: np.ndarray,
    labels: Sequence[str],
    free: np.ndarray,
    groups: Sequence[str],
    *,
    count: int,
    seed: int = 0,
) -> list[Choice]:
    """(N, D), (N,), (N,) bool, (N,) -> `count` of the free rows, the most telling first.

    labels: "" where there is none. Rows that are not free, without a label, say as much of others as labelled ones do.
    Groups that have no such row get one each before any gets two. Of more than `MOST_ROWS` free ones some are drawn.

    Raises ValueError where fewer are free, or vectors are not finite.
    """
    if not np.isfinite(vectors).all():
        wrong = int(np.isfinite(vectors).all(1).argmin())
        raise ValueError(f"vector {wrong} is not finite: damaged, embed again into another folder")
    if count > free.sum():
        raise ValueError(f"{count} asked for, {int(free.sum())} are there")
    drawn = draw(np.flatnonzero(free), max(count, MOST_ROWS), seed)
    told = np.flatnonzero(~free)
    x = center(vectors, drawn)
    doubt, between = weigh(x, drawn, labels)
    kernel = compare(x[drawn], x[drawn])
    said = np.zeros(len(drawn), np.float32)
    for first in range(0, len(told), BLOCK_ROWS):
        said = np.maximum(said, compare(x[drawn], x[told[first : first + BLOCK_ROWS]]).max(1))
    of = [groups[row] for row in drawn.tolist()]
    before, served = said.copy(), {groups[row] for row in told.tolist()}
    left = np.ones(len(drawn), bool)
    chosen: list[int] = []
    for _ in range(count):
        new = np.array([group not in served for group in of]) & left
        may = np.flatnonzero(new if new.any() else left)
        gains = measure_gains(kernel, said, doubt, may)
        best = int(may[(gains >= gains.max() - EQUAL).argmax()])  # two that are near each other alone gain the same
        chosen.append(best)
        said, left[best] = np.maximum(said, kernel[best]), False
        served.add(of[best])
    nearest = kernel[chosen].argmax(0)
    nearest[kernel[chosen].max(0) <= before] = -1
    nearest[chosen] = range(count)
    share = free.sum() / len(drawn)
    stands = [round(share * int((nearest == place).sum())) for place in range(count)]
    return [Choice(int(drawn[best]), stands[place], between.get(best)) for place, best in enumerate(chosen)]


def draw(rows: np.ndarray, most: int, seed: int) -> np.ndarray:
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def center(vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(N, D) -> (N, D) float32 of length 1, less the mean of some rows, which all have in common."""
    x = vectors - vectors[rows].mean(0, dtype=np.float64).astype(np.float32)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), TINY)


def compare(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(N, D), (M, D) of length 1 -> (N, M), the kernel: exp(-d^2) of their distances d."""
    return np.exp(np.minimum(2 * (one @ other.T) - 2, 0))


def measure_gains(kernel: np.ndarray, said: np.ndarray, doubt: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(N, N), (N,), (N,), (R,) -> (R,), what each of some rows would say more, weighted by doubt."""
    gains = np.empty(len(rows))
    for first in range(0, len(rows), BLOCK_ROWS):
        block = kernel[rows[first : first + BLOCK_ROWS]]
        gains[first : first + len(block)] = np.maximum(block - said, 0) @ doubt
    return gains


def weigh(x: np.ndarray, drawn: np.ndarray, labels: Sequence[str]) -> tuple[np.ndarray, dict[int, tuple[str, str]]]:
    """The doubt (M,) about each row drawn, and by its place the classes that it lies between, if any."""
    known = [row for row, label in enumerate(labels) if label]
    names = sorted({labels[row] for row in known})
    if len(names) < 2:
        return np.ones(len(drawn), np.float32), {}
    targets = np.array([names.index(labels[row]) for row in known])
    found = predict(x[known], targets, x[drawn])
    order = np.argsort(-found, axis=1, kind="stable")[:, :2]
    first, second = np.take_along_axis(found, order, axis=1).T
    near = first - second < NEAR_CLASSES
    between = {int(at): (names[order[at, 0]], names[order[at, 1]]) for at in np.flatnonzero(near)}
    return (1 - (first - second)).astype(np.float32), between


def predict(x: np.ndarray, targets: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """(N, D), (N,) whole numbers, (M, D) -> (M, classes), probabilities by a logistic regression on the first."""
    mean, spread = asked.mean(0), asked.std(0) + 1e-6
    given, goal = torch.from_numpy((x - mean) / spread).double(), torch.from_numpy(targets)
    weights = torch.zeros(x.shape[1] + 1, int(targets.max()) + 1, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def measure_loss() -> torch.Tensor:
        search.zero_grad()
        loss = F.cross_entropy(given @ weights[1:] + weights[0], goal, reduction="sum") + weights[1:].square().sum() / 2
        loss.backward()
        return loss

    search.step(measure_loss)
    with torch.no_grad():
        return torch.softmax(torch.from_numpy((asked - mean) / spread).double() @ weights[1:] + weights[0], 1).numpy()
