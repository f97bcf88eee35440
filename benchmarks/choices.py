"""Which model should `tubelet train DIR` pick by default? Trains several on several data sets, for the same time each.

    python benchmarks/choices.py --minutes 3 demo=runs/demo/clips motion=motion/data.csv > table.md

Prints a table as it goes: accuracy on the held-out clips, for each choice on each data set, with the settings that
`tubelet train` would use otherwise. docs/results.md has the outcome.
"""

import argparse
import json
import tempfile
from pathlib import Path

from tubelet.train import TrainConfig, train_fn

CHOICES = {
    "vivit1-N/12x4, conv (the default)": {"model": "vivit1-N/12x4", "embed": "conv"},
    "vivit1-N/12x4, tubelet": {"model": "vivit1-N/12x4", "embed": "tubelet"},
    "vivit1-N/12x2, conv": {"model": "vivit1-N/12x2", "embed": "conv"},
    "vivit2-N/12x4, conv": {"model": "vivit2-N/12x4", "embed": "conv"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", help="NAME=PATH of a data set")
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--only", nargs="*", default=list(CHOICES), help="names of choices")
    arguments = parser.parse_args()
    sets = dict(entry.split("=", 1) for entry in arguments.data)
    print(f"| {arguments.minutes:g} minutes each |", *(f" {name} |" for name in sets), sep="")
    print("|---|" + "---|" * len(sets), flush=True)
    for choice in arguments.only:
        print(f"| {choice} |", end="", flush=True)
        for path in sets.values():
            print(f" {100 * accuracy(Path(path), choice, arguments.minutes):.0f} % |", end="", flush=True)
        print(flush=True)


def accuracy(data: Path, choice: str, minutes: float) -> float:
    with tempfile.TemporaryDirectory() as folder:
        beside = data.with_name("label-swaps.csv")  # as the demo has it
        swaps = beside if beside.is_file() else None
        config = TrainConfig(data=data, out=Path(folder) / "run", minutes=minutes, label_swaps=swaps, **CHOICES[choice])
        run = train_fn(config, show=False)
        return float(json.loads((run / "results.json").read_text())["accuracy"])


if __name__ == "__main__":
    main()
