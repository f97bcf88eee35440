"""Which score tells classes that a model does not know, and what calibration is worth on clips that chose none of it?

    python benchmarks/unknown_classes.py runs/unknown --left-out zoom_in zoom_out
    python benchmarks/unknown_classes.py runs/unknown --left-out turn_counterclockwise square_then_disc

Trains on the demo's classes but those left out, then answers new clips of all classes. Prints for each score how often
an unknown clip lies further out than a known one (AUROC), and the share of unknown clips that are taken for known where
95 % of the known ones are kept; then error and sets before and after calibration. docs/predict.md has the outcome.
"""

import argparse
import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tubelet.data.table import Item
from tubelet.demo import LABEL_SWAPS
from tubelet.features.distance import fit_distance, measure_telling
from tubelet.predict.answer import Answer
from tubelet.predict.predictor import Predictor
from tubelet.synthetic.camera_motions import CLASSES, render_demo
from tubelet.tasks import Classification
from tubelet.tasks.calibration import Calibrated, measure_calibration
from tubelet.train import TrainConfig, train_fn

TRAINED, NEW = 60, 100  # clips of each class


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--left-out", nargs="+", choices=list(CLASSES), default=["zoom_in", "zoom_out"])
    parser.add_argument("--epochs", type=float, default=10)
    arguments = parser.parse_args()
    run = train(arguments.folder, arguments.left_out, arguments.epochs)
    measure(run, arguments.folder)


def train(folder: Path, left_out: Sequence[str], epochs: float) -> Path:
    for name, clips, seed in (("clips", TRAINED, 0), ("new", NEW, 1)):
        if not (folder / name).exists():
            render_demo(folder / name, clips_per_class=clips, seed=seed)
    kept = [name for name in CLASSES if name not in left_out]
    with open(folder / "kept.csv", "w", newline="") as file:
        files = [path for name in kept for path in sorted((folder / "clips" / name).iterdir())]
        rows = [[path.relative_to(folder).as_posix(), path.parent.name] for path in files]
        csv.writer(file).writerows([["path", "label"], *rows])
    swaps = [line for line in LABEL_SWAPS.splitlines() if not set(line.split(",")) & set(left_out)]
    (folder / "kept-swaps.csv").write_text("\n".join(swaps))
    config = TrainConfig(data=folder / "kept.csv", out=folder / ("without-" + "-".join(left_out)), epochs=epochs)
    if len(swaps) == 1 + len(kept):  # a line of columns, and one for each class
        return train_fn(replace(config, label_swaps=folder / "kept-swaps.csv"))
    return train_fn(replace(config, augment=False))  # mirrored or reversed, clips would be of a class left out


def measure(run: Path, folder: Path) -> None:
    predictor = Predictor.load(run)
    with open(run / "split.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    splits = {
        split: answers_for(predictor, folder, [(r["path"], r["label"]) for r in rows if r["split"] == split])
        for split in ("train", "val")
    }
    new = sorted((folder / "new").glob("*/*.mp4"))
    given = answers_for(predictor, folder, [(path.relative_to(folder).as_posix(), path.parent.name) for path in new])
    known = np.array([one.item.label in predictor.classes for one in given])
    train_codes, held_out, codes = (stack(some) for some in (splits["train"], splits["val"], given))
    head = predictor.model.head
    logits = codes @ head.weight.detach().numpy().T + head.bias.detach().numpy()
    labels = np.array([predictor.classes.index(one.item.label) for one in splits["train"]])
    scores = {
        "distance, one for all classes": fit_distance(train_codes, held_out).measure(codes),
        "distance, from the nearest class": from_nearest_class(train_codes, labels, codes),
        "nearest training clip": np.linalg.norm(codes[:, None] - train_codes[None], axis=2).min(1),
        "energy": -np.logaddexp.reduce(logits, axis=1),
        "largest logit": -logits.max(1),
        "largest probability": -np.exp(logits - np.logaddexp.reduce(logits, axis=1)[:, None]).max(1),
    }
    for name, score in scores.items():
        found = measure_telling(score[known], score[~known], 0.0)
        print(f"{name:34} AUROC {found['auroc']:.3f}  taken for known {found['false_alarms']:.1%}")
    assert predictor.distance
    far = predictor.distance.measure(codes) > predictor.distance.limit
    print(f"at the limit of the run: {far[~known].mean():.1%} told, {1 - far[known].mean():.1%} of the known kept")
    calibrate(predictor.task, [one for one, own in zip(given, known, strict=True) if own])


def calibrate(task: object, given: list[Answer]) -> None:
    assert isinstance(task, Classification)
    assert task.calibration
    values = np.stack([one.values for one in given if one.values is not None])
    after = Calibrated(values, task.calibration.sets(values))
    labels = task.targets([one.item.label for one in given]).numpy()
    found = measure_calibration(task.calibration.undo(values), after, labels)
    print(f"{(values.argmax(1) == labels).mean():.1%} right; temperature {task.calibration.temperature:.2f}")
    print(f"calibration error {found['error_before']:.1%} before, {found['error']:.1%} after")
    print(f"sets hold the right class of {found['coverage']:.1%}, {found['set_size']:.2f} classes in the mean")


def answers_for(predictor: Predictor, root: Path, rows: Sequence[tuple[str, str]]) -> list[Answer]:
    items = [Item(path, label) for path, label in rows]
    return predictor.answer_items(items, root=root, views="auto", workers=2, after=lambda _: None)


def stack(answers: list[Answer]) -> np.ndarray:
    return np.stack([one.features for one in answers if one.features is not None]).astype(np.float64)


def from_nearest_class(train: np.ndarray, labels: np.ndarray, codes: np.ndarray) -> np.ndarray:
    means = np.stack([train[labels == number].mean(0) for number in np.unique(labels)])
    centred = train - means[labels]
    covariance = centred.T @ centred / len(centred)
    covariance += 1e-3 * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    off = codes[:, None] - means[None]
    return np.einsum("nkd,nkd->nk", off, np.linalg.solve(covariance, off[..., None]).squeeze(-1)).min(1)


if __name__ == "__main__":
    main()
