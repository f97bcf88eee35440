"""What to do about uneven classes: nothing, draw all classes equally often (--balance), or weigh the loss.

    python benchmarks/balance.py --seeds 3

The clips of the demo: from 48 of one class down to 4 of another for training, in an order that each seed draws, and
12 of each class to test on. Equal steps. Prints recall averaged over classes, of all and of the rarer half.
"""

import argparse
import csv
import json
from contextlib import contextmanager
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from tubelet import TrainConfig, train_fn
from tubelet.demo import ensure_demo
from tubelet.synthetic.camera_motions import CLASSES
from tubelet.train.trainer import Fit

COUNTS = (48, 34, 24, 17, 12, 8, 6, 4)  # clips to train on
TESTED = 12


def write_uneven(table: Path, clips: Path, *, seed: int) -> list[str]:
    """Writes a table of the clips of a seed; returns the classes, the frequent ones first."""
    order = np.random.default_rng(seed).permutation(sorted(CLASSES)).tolist()
    with open(table, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split"])
        for label, count in zip(order, COUNTS, strict=True):
            names = sorted(str(path) for path in (clips / label).glob("*.mp4"))
            writer.writerows([name, label, "test"] for name in names[:TESTED])
            writer.writerows([name, label, "train"] for name in names[TESTED : TESTED + count])
    return order


@contextmanager
def weighted_loss() -> Any:
    """While inside, the loss of a clip counts in inverse proportion to how many clips of its class there are."""
    plain = Fit.loss

    def loss(fit: Fit, clips: torch.Tensor, labels: torch.Tensor, *, part: int) -> tuple[torch.Tensor, torch.Tensor]:
        counts = torch.bincount(fit.clips.targets)
        weights = len(fit.clips) / (len(counts) * counts)
        targets = fit.task.soften(labels, fit.task.smoothing)
        with fit.autocast():
            logits = fit.wrapped(clips)
        each = F.cross_entropy(logits.float(), targets, reduction="none")
        return logits, (weights[labels] * each).mean()

    Fit.loss = loss
    try:
        yield
    finally:
        Fit.loss = plain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=14.0)
    parser.add_argument("--clips", type=Path, default=Path("runs/demo/clips"))
    arguments = parser.parse_args()
    clips = ensure_demo(arguments.clips, clips_per_class=60).absolute()
    found: dict[str, list[tuple[float, float]]] = {}
    with TemporaryDirectory() as folder:
        for seed in range(arguments.seeds):
            order = write_uneven(Path(folder) / "uneven.csv", clips, seed=seed)
            for way in ("as they are", "--balance", "weighted loss"):
                out = Path(folder) / f"{way} {seed}"
                config = TrainConfig(
                    data=Path(folder) / "uneven.csv",
                    out=out,
                    epochs=arguments.epochs,
                    seed=seed,
                    balance=way == "--balance",
                    label_swaps=clips.with_name("label-swaps.csv"),
                )
                if way == "weighted loss":
                    with weighted_loss():
                        train_fn(config, show=False)
                else:
                    train_fn(config, show=False)
                rows = json.loads((out / "results.json").read_text())["per_class"]
                recall = {row["label"]: row["recall"] for row in rows}
                found.setdefault(way, []).append((mean(recall.values()), mean(recall[name] for name in order[4:])))
                print(f"seed {seed}  {way:<14} {found[way][-1][0]:.3f}  rarer half {found[way][-1][1]:.3f}", flush=True)
    for way, rows in found.items():
        print(f"{way:<14} mean recall {mean(all_ for all_, _ in rows):.3f}, rarer half {mean(r for _, r in rows):.3f}")


if __name__ == "__main__":
    main()
