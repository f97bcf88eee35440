"""Several classes and numbers from a table to a report, a prediction and an export, by what a user types."""

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_sets import FRAMES_PER_SECOND, TINY_FLAGS, command, pictures, write_videos
from tiny import tiny

import tubelet
from tubelet.evaluate import evaluate
from tubelet.export.writer import export
from tubelet.media.writer import write_video
from tubelet.predict.predictor import Predictor
from tubelet.system.text import percent
from tubelet.tasks import Classification, MultiLabel, Regression

SPLITS = {"train": 12, "val": 8, "test": 5}
CPU = ("--device", "cpu", "--dtype", "float32")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """NUMBER.mp4 of 25 videos, dark and bright in turn, and two tables of them: tags.csv and numbers.csv."""
    folder = tmp_path_factory.mktemp("clips")
    tags, numbers = [["path", "label", "split", "group"]], [["path", "Speed", "angle", "split", "group"]]
    splits = [split for split, count in SPLITS.items() for _ in range(count)]
    for i, split in enumerate(splits):
        level = 190 if i % 2 else 60
        write_video(folder / f"{i}.mp4", pictures(level, [i]), frames_per_second=FRAMES_PER_SECOND)
        label = {0: "(none)", 1: "bright", 2: "any", 3: "any; bright"}[i % 4]
        group = f"{split} {i // 2}"
        tags.append([f"{i}.mp4", "" if i in (2, 3) else label, split, group])
        numbers.append([f"{i}.mp4", "" if i % 5 == 1 else f"{level / 100}", "" if i % 5 == 2 else i % 7, split, group])
    for name, rows in (("tags.csv", tags), ("numbers.csv", numbers)):
        with open(folder / name, "w", newline="") as file:
            csv.writer(file).writerows(rows)
    return folder


def train(data: Path, out: Path, *more: str) -> Path:
    assert command("train", data, "--out", out, *TINY_FLAGS, *more) == 0
    return out


@pytest.fixture(scope="module")
def tagged(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(clips / "tags.csv", tmp_path_factory.mktemp("runs") / "tags", "--task", "multilabel", "--epochs", "8")


@pytest.fixture(scope="module")
def measured(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    asked = ("--task", "regression", "--labels", "speed", "angle", "--baseline", "--mixup", "0.2", "--epochs", "8")
    return train(clips / "numbers.csv", tmp_path_factory.mktemp("runs") / "numbers", *asked)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as table:
        return list(csv.DictReader(table))


def words(text: str) -> str:
    return " ".join(text.split())


# ---- several classes at once


def test_a_run_of_several_classes_is_whole(tagged: Path) -> None:
    results, rows = read_json(tagged / "results.json"), read_csv(tagged / "predictions.csv")
    task = Predictor.load(tagged, device="cpu").task
    assert isinstance(task, MultiLabel)
    assert task.names == ("any", "bright")
    assert task.weights == pytest.approx((3 / 2, 1)) or task.weights == pytest.approx((6 / 4, 1))
    assert (results["split"], results["clips"], results["failed"], results["chosen_thresholds"]) == ("test", 5, 0, True)
    assert 0 <= results["interval"][0] <= results["mean_average_precision"] <= results["interval"][1] <= 1
    by_class = {row["label"]: row for row in results["per_class"]}
    assert by_class["bright"]["average_precision"] == 1, "one look tells"
    assert tuple(by_class[name]["threshold"] for name in task.names) == task.thresholds
    assert task.thresholds[1] != 0.5, "four of eight validation clips are any, and four bright: too few"
