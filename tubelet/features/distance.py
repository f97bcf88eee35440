"""The distance of a clip's features from those of the clips that a model learned from."""

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

DISTANCE = "distance."  # begins the names of its tensors
KEPT = 0.95  # share of held-out clips that are no further away than the limit
MOST_NUMBERS = 250_000  # of the axes: a megabyte
FLOOR = 1e-3  # of the mean variance, added to each
SLACK = 1e-3  # of the limit, so that rounding does not put the clip that chose it beyond it
LEAST = 1e-12  # of a variance and of the limit, for features that are the same for all clips


@dataclass(frozen=True)
class Distance:
    """A Mahalanobis distance, squared, of features (D,) from all training features, of whatever class.

    mean: (D,). axes: (R, D), orthonormal, those along which the features vary most, R = D but for very wide models.
    variances: (R + 1,), along each axis, the last along all other directions. limit: the distance beyond which a clip
    is like none of the training.

    Without classes it tells unknown ones as well as with them, and needs no more room the more there are.
    Source: arXiv 2003.00402; with a mean for each class, arXiv 1807.03888, eq. 2.
    """

    mean: np.ndarray
    axes: np.ndarray
    variances: np.ndarray
    limit: float

    def measure(self, features: np.ndarray) -> np.ndarray:
        """(..., D) -> (...), squared distances."""
        off = np.asarray(features, np.float64) - self.mean
        along = off @ self.axes.T
        rest = off - along @ self.axes
        return (along**2 / self.variances[:-1]).sum(-1) + (rest**2).sum(-1) / self.variances[-1]

    def to_tensors(self) -> dict[str, Tensor]:
        values = {one.name: np.asarray(getattr(self, one.name), np.float32) for one in fields(self)}
        return {DISTANCE + name: torch.from_numpy(value) for name, value in values.items()}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], *, width: int) -> "Distance":
        """The distance of tensors without `DISTANCE` before their names, for features of a width.

        Raises:
            ValueError: tensors that no fit gives.
        """
        names = [one.name for one in fields(cls)]
        if missing := [DISTANCE + name for name in names if name not in tensors]:
            raise ValueError(f"lacks {', '.join(missing)}: copy or train it again")
        axes = tensors["axes"]
        rows = len(axes) if axes.dim() else 0
        shapes = dict(zip(names, [(width,), (rows, width), (rows + 1,), ()], strict=True))
        given = {name: tuple(tensors[name].shape) for name in names}
        wrong = [f"{DISTANCE}{name} {given[name]}" for name in names if given[name] != shapes[name]]
        wrong += [f"{DISTANCE}{name} not finite" for name in names if not tensors[name].isfinite().all()]
        wrong += [f"{DISTANCE}{name} not above 0" for name in ("variances", "limit") if not (tensors[name] > 0).all()]
        if wrong:
            raise ValueError(
                f"holds a distance that does not fit features of width {width} ({', '.join(wrong)}): copy it again"
            )
        values: dict[str, Any] = {name: tensors[name].double().numpy() for name in names}
        return cls(**values | {"limit": float(values["limit"])})


def fit_distance(train: np.ndarray, held_out: np.ndarray) -> Distance:
    """The distance from features (N, D) of training clips, N > 1; those (M, D) of held-out clips choose the limit.

    From 19 of them on, a new clip like them is beyond the limit with a probability of 5 % at most: by conformal
    p-values. Source: arXiv 2104.08279.
    """
    mean = train.mean(0, dtype=np.float64)
    _, spread, axes = np.linalg.svd(train - mean, full_matrices=False)
    width = train.shape[1]
    rows = min(len(axes), max(1, MOST_NUMBERS // width))
    every = np.zeros(width)
    every[: len(spread)] = spread**2 / len(train)
    floor = FLOOR * every.mean() + LEAST
    rest = every[rows:].mean() if rows < width else 0.0
    found = Distance(mean, axes[:rows], np.append(every[:rows], rest) + floor, limit=LEAST)
    distances = np.sort(found.measure(held_out))
    rank = min(len(distances), math.ceil((len(distances) + 1) * KEPT))
    return replace(found, limit=max(LEAST, (1 + SLACK) * float(distances[rank - 1])))


def measure_telling(known: np.ndarray, unknown: np.ndarray, limit: float) -> dict[str, float]:
    """The figures of telling unknown clips by their distances (M,) from known ones by theirs (N,), N, M > 0.

    auroc: how often an unknown clip is further away than a known one, ties count half. false_alarms: share of unknown
    clips taken for known where 95 % of the known ones are kept. kept, told: shares of known clips within the limit and
    of unknown ones beyond it.
    """
    order = np.sort(known)
    nearer = np.searchsorted(order, unknown, "left") + np.searchsorted(order, unknown, "right")
    kept = order[math.ceil(len(order) * KEPT) - 1]
    return {
        "auroc": float(nearer.mean() / 2 / len(order)),
        "false_alarms": float((unknown <= kept).mean()),
        "kept": float((known <= limit).mean()),
        "told": float((unknown > limit).mean()),
    }
