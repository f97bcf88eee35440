"""How good are the answers? From labels and probabilities to the numbers that `results.json` and the report state."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

CALIBRATION_BINS = 15


def summarise(
    classes: Sequence[str], labels: np.ndarray, probabilities: np.ndarray, *, failed: int = 0
) -> dict[str, Any]:
    """Integer labels (N,) and probabilities (N, K) -> the metrics that `results.json` holds, ready for JSON.

    `failed` counts the files that could not be read: they are no part of N, and count as wrong in `accuracy_all`.
    The macro averages run over the classes that have at least one label; a figure that is undefined
    (recall of a class without a label, precision of a class never answered) is None.

    Raises:
        ValueError: nothing to evaluate, shapes that do not fit, labels out of range, rows that are no probabilities.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    if labels.ndim != 1 or probabilities.shape != (len(labels), len(classes)):
        raise ValueError(
            f"got labels {labels.shape} and probabilities {probabilities.shape} for {len(classes)} classes; "
            f"expected (N,) and (N, {len(classes)})"
        )
    if len(labels) == 0:
        raise ValueError(f"nothing to evaluate: 0 files were read and {failed} failed; look at the status of each file")
    if not np.issubdtype(labels.dtype, np.integer) or not 0 <= labels.min() <= labels.max() < len(classes):
        raise ValueError(f"got labels {np.unique(labels)[:10]}; expected integers from 0 to {len(classes) - 1}")
    if not (np.isfinite(probabilities).all() and np.allclose(probabilities.sum(axis=1), 1, atol=1e-2)):
        raise ValueError("the rows of probabilities do not sum to 1; pass the softmax of the logits")
    return measure(classes, labels.astype(np.int64), probabilities.argmax(axis=1), probabilities, failed=failed)


def measure(
    classes: Sequence[str], labels: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray, *, failed: int
) -> dict[str, Any]:
    """`summarise` for answers that are already known: labels (N,), predicted (N,), probabilities (N, K), N > 0."""
    n, k = len(labels), len(classes)
    right = labels == predicted
    confusion = np.bincount(labels * k + predicted, minlength=k * k).reshape(k, k)  # row: label, column: answer
    support = confusion.sum(axis=1)
    majority = int(support.argmax())
    rows = _per_class(classes, confusion)
    confidence = probabilities[np.arange(n), predicted]
    ranking = np.argsort(-probabilities, axis=1, kind="stable")
    return {
        "clips": n,
        "failed": failed,
        "accuracy": float(right.mean()),
        "interval": wilson_interval(int(right.sum()), n),
        "accuracy_all": float(right.sum() / (n + failed)),
        "top5": float((ranking[:, :5] == labels[:, None]).any(axis=1).mean()) if k > 5 else None,
        "macro": {
            name: float(np.mean([row[name] or 0.0 for row in rows if row["support"]]))
            for name in ("precision", "recall", "f1")
        },
        "majority": {"label": classes[majority], "accuracy": float(support[majority] / n)},
        "mean_confidence": float(confidence.mean()),
        "calibration_error": calibration_error(confidence, right),
        "per_class": rows,
        "confusion": confusion.tolist(),
    }


def _per_class(classes: Sequence[str], confusion: np.ndarray) -> list[dict[str, Any]]:
    """confusion (K, K): row label, column answer."""
    rows = []
    for i, label in enumerate(classes):
        right, support, answered = int(confusion[i, i]), int(confusion[i].sum()), int(confusion[:, i].sum())
        rows.append(
            {
                "label": label,
                "precision": right / answered if answered else None,
                "recall": right / support if support else None,
                "f1": 2 * right / (answered + support) if answered or support else None,
                "support": support,
            }
        )
    return rows


def wilson_interval(right: int, n: int) -> list[float]:
    """[low, high], the 95 % interval of the share `right` of `n` > 0. Unlike p ± 2 sd it stays inside 0..1, at any n.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    z = 1.959963984540054
    share, spread = right / n, z * z / n
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    return [centre - half if right else 0.0, centre + half if right < n else 1.0]  # exact where rounding would not be


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error of confidences (N,) in 0..1: mean |confidence - accuracy| of 15 equal bins, by size.

    Source: arXiv 1706.04599, eq. 3.
    """
    bins = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)
    gaps = [abs(float((confidence[bins == b] - right[bins == b]).sum())) for b in np.unique(bins)]
    return sum(gaps) / len(right)


def mix_pairs(clips: Tensor, targets: Tensor, shares: np.ndarray) -> tuple[Tensor, Tensor]:
    """Mixup within neighbouring pairs of the batch, (B, ...), (B, classes) -> same; shares (B / 2,) in [0, 1]: what
    the two clips of each pair keep of themselves.

    Pairs, unlike a shuffled batch, stay together however a batch is spread over processes and parts, so the result
    does not depend on that. Source: arXiv 1710.09412.
    """
    kept = torch.from_numpy(shares.astype(np.float32)).repeat_interleave(2).to(clips.device)

    def mix(x: Tensor) -> Tensor:
        own = kept.view(-1, *[1] * (x.ndim - 1))
        return own * x + (1 - own) * x.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)

    return mix(clips), mix(targets)


def soft_targets(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """Labels (B,) -> probabilities (B, classes), `smoothing` of which is spread over all classes."""
    return F.one_hot(labels, classes).float() * (1 - smoothing) + smoothing / classes
