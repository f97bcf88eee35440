"""Answers for many files on a Ray cluster, as CSV files in a folder: needs `pip install "ray[data]"`.

python recipes/ray_predict.py RUN FOLDER OUT [ACTORS [GPUS_FOR_EACH]]
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import ray

import tubelet
from tubelet.predict.predictor import find_files


class Answer:
    """An actor: it loads the model once, and answers a batch of paths at a time."""

    def __init__(self, run: str) -> None:
        self.predictor = tubelet.Predictor.load(run)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        found = self.predictor.predict_files(batch["path"].tolist())  # one that cannot be read is a row with a code
        return {name: [getattr(one, name) for one in found] for name in ("path", "label", "probability", "code")}


def main(run: str, folder: str, out: str, actors: str = "2", gpus: str = "0") -> None:
    files = ray.data.from_items([{"path": str(file)} for file in find_files([Path(folder)])])
    pool = ray.data.ActorPoolStrategy(size=int(actors))
    room = {"num_gpus": float(gpus), "num_cpus": 0 if float(gpus) else 1}  # of each actor
    answers = files.map_batches(Answer, fn_constructor_args=(run,), batch_size=64, compute=pool, **room)
    answers.write_csv(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
