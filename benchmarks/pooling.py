"""Which pooling of a model's tokens finds clips like a clip: the model's own, or another.

python benchmarks/pooling.py TABLE FOLDER [--minutes 1.5]

TABLE is a data set, best with a test split of other groups. A model of each family is trained on it for a short time.
For each test clip the five nearest others, by the cosine of their vectors, are looked at: how many are of its class.
Those of its own group do not count.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tubelet.data.clip_spec import ClipSpec
from tubelet.data.clips import load_views
from tubelet.data.items import find_items
from tubelet.data.splits import assign_splits
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.weights.store import load, read_about

FAMILIES = ("vivit1", "vivit3", "swin2", "vivit2", "timesformer", "videomae")
NEAREST, PART = 5, 16

POOLINGS: dict[str, Callable[[SpaceTimeTransformer, Tensor], Tensor]] = {
    "its own": lambda model, tokens: model.forward_head(tokens, pre_logits=True),
    "mean": lambda model, tokens: tokens[:, model.stack[-1].prefix_size :].mean(1),
    "max": lambda model, tokens: tokens[:, model.stack[-1].prefix_size :].amax(1),
    "its own and mean": lambda model, tokens: torch.cat(
        [POOLINGS[name](model, tokens) for name in ("its own", "mean")], 1
    ),
}


def train(table: Path, out: Path, family: str, minutes: float) -> Path:
    if not (out / "results.json").is_file():
        name = f"{family}-P/12x4" if family != "swin2" else "swin2-P/6x4"
        flags = ["--model", name, "--embed", "conv", "--minutes", str(minutes), "--init", "none", "--out", str(out)]
        subprocess.run([sys.executable, "-m", "tubelet", "train", str(table), *flags], check=True, capture_output=True)
    return out


def measure(vectors: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> float:
    """The share of the nearest clips of other groups that are of the same class."""
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    similarity = vectors @ vectors.T
    similarity[groups[:, None] == groups] = -np.inf
    nearest = np.argsort(-similarity, axis=1)[:, :NEAREST]
    return float((labels[nearest] == labels[:, None]).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=1.5)
    arguments = parser.parse_args()
    source = assign_splits(find_items(arguments.table))
    items = [item for item in source.items if item.split != "train"]
    labels, groups = (np.array([getattr(item, name) for item in items]) for name in ("label", "group"))
    for family in FAMILIES:
        run = train(arguments.table, arguments.folder / family, family, arguments.minutes)
        model, spec = load(run).eval(), ClipSpec.from_json(read_about(run)["clip_spec"])
        clips = torch.stack([load_views(source.root / item.path, spec).clips[0] for item in items])
        with torch.no_grad():
            tokens = [model.forward_features(part) for part in clips.split(PART)]
            found = {
                name: measure(torch.cat([pool(model, part) for part in tokens]).numpy(), labels, groups)
                for name, pool in POOLINGS.items()
            }
        accuracy = json.loads((run / "results.json").read_text())["accuracy"]
        row = {"family": family, "accuracy": accuracy, **found}
        print(json.dumps({name: round(one, 3) if isinstance(one, float) else one for name, one in row.items()}))


if __name__ == "__main__":
    main()
