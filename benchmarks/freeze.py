"""What `tubelet train --freeze` saves, and what it costs: the same clips, the same start, frozen and with all weights.

    python benchmarks/freeze.py --init vit_small.safetensors --size 84 84 --minutes 5 motion=motion/data.csv

Trains each data set twice: with a frozen encoder until that has learned (`tubelet train` decides), and with all weights
for --minutes. Time on a busy machine means little, so the processor's time stands beside the clock's. docs/results.md
has the outcome.
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from tubelet.train import TrainConfig, train_fn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", help="NAME=PATH of a data set")
    parser.add_argument("--init", required=True, help="as for `tubelet train`")
    parser.add_argument("--size", type=int, nargs=2)
    parser.add_argument("--minutes", type=float, default=15.0, help="for all weights")
    parser.add_argument("--views", type=int, default=4, help="varied views of each clip, besides its centre")
    arguments = parser.parse_args()
    for entry in arguments.data:
        name, path = entry.split("=", 1)
        config = TrainConfig(
            data=Path(path),
            init=arguments.init,
            size=tuple(arguments.size) if arguments.size else None,
            minutes=arguments.minutes,
            freeze_views=arguments.views,
            device="cpu",
        )
        with tempfile.TemporaryDirectory() as folder:
            frozen = measure(replace(config, freeze=True, out=Path(folder) / "frozen"))
            whole = measure(replace(config, out=Path(folder) / "whole"))
        show(name, frozen, whole)


def measure(config: TrainConfig) -> dict[str, Any]:
    begun, worked = time.monotonic(), time.process_time()
    run = train_fn(config, show=False)
    found = {"total": time.monotonic() - begun, "worked": time.process_time() - worked}
    results = json.loads((run / "results.json").read_text())
    looks = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    learned = [look for look in looks if look["kind"] == "train"]
    spent, reached = 0.0, []  # seconds of steps, accuracy on held-out clips
    for look in looks:
        spent += look.get("seconds", 0.0)
        if look["kind"] == "val":
            reached.append((spent, look["accuracy"]))
    features = run / "features.json"
    return {
        **found,
        "features": json.loads(features.read_text())["seconds"] if features.is_file() else 0.0,
        "epochs": learned[-1]["epoch"],
        "epoch": spent / learned[-1]["epoch"],
        "accuracy": results["accuracy"],
        "interval": results["interval"],
        "clips": results["clips"],
        "reached": reached,
    }


def show(name: str, frozen: dict[str, Any], whole: dict[str, Any]) -> None:
    print(f"\n| {name} | encoder frozen | all weights |\n|---|---|---|")
    rows = (
        ("features, once", "features", "{:.0f} s"),
        ("one epoch", "epoch", "{:.2f} s"),
        ("epochs", "epochs", "{:.3g}"),
        ("all in all, evaluation too", "total", "{:.0f} s"),
        ("the same, processor's time", "worked", "{:.0f} s"),
    )
    for what, key, form in rows:
        print(f"| {what} | {form.format(frozen[key])} | {form.format(whole[key])} |")
    right = [
        f"{100 * of['accuracy']:.1f} % ({of['interval'][0]:.0%} to {of['interval'][1]:.0%})" for of in (frozen, whole)
    ]
    print(f"| right of {frozen['clips']} clips never seen | {right[0]} | {right[1]} |")
    learning = frozen["features"] + frozen["epochs"] * frozen["epoch"]
    times = {
        "all weights, as long as they were trained": whole["epochs"] * whole["epoch"] / learning,
        "all weights for as many epochs, by the time of one": frozen["epochs"] * whole["epoch"] / learning,
    }
    soon = next((seconds / learning for seconds, right in whole["reached"] if right >= frozen["accuracy"]), None)
    print(f"\nAll weights are right on {100 * (whole['accuracy'] - frozen['accuracy']):+.1f} points.")
    print("Learning took, features included, so many times as long as frozen:")
    for what, ratio in (*times.items(), ("all weights until they were as good as frozen", soon)):
        print(f"- {what}: {'never' if ratio is None else f'{ratio:.1f}'}")


if __name__ == "__main__":
    main()
