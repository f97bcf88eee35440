"""The table and the picture of benchmarks/performance.md, from what `benchmarks/speed.py --json FILE` measured.

    python benchmarks/speed.py --peers ../peers/bin/python --json speed.jsonl
    python benchmarks/speed_page.py speed.jsonl --picture benchmarks/performance.svg > table.md

Of a measure that was taken several times the last one counts.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt

plt.rcParams["svg.fonttype"] = "none"  # letters, not outlines
plt.rcParams["font.family"] = "sans-serif"

REACHED, MISSED, OTHER = "#1b7f5c", "#c2571a", "#8a8f98"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    last = {}
    for text in arguments.results.read_text().splitlines():
        result = json.loads(text)
        last[result["what"], result["against"]] = result
    results = list(last.values())
    print("| what | against | ratio | limit | goal | reached | note |\n|---|---|---|---|---|---|---|")
    print("\n".join(map(line, results)))
    if arguments.picture:
        draw([r for r in results if "MB" not in r["what"]], arguments.picture)


def line(result: dict[str, Any]) -> str:
    limit, goal = number(result["possible"]), number(result["goal"])
    goal = f"at most {goal}" if result["at_most"] else goal
    reached = {True: "yes", False: "no", None: ""}[result["met"]]
    cells = [result["what"], result["against"], number(result["ratio"]), limit, goal, reached, result["note"] or ""]
    return f"| {' | '.join(cells)} |"


def number(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def draw(results: list[dict[str, Any]], file: Path) -> None:
    """A bar for each ratio, its goal as a line and what our kernels alone would allow as a ring."""
    results = results[::-1]
    figure, axes = plt.subplots(figsize=(9, 0.24 * len(results) + 0.9))
    for place, result in enumerate(results):
        colour = {True: REACHED, False: MISSED, None: OTHER}[result["met"]]
        axes.barh(place, result["ratio"] - 1, left=1, color=colour, height=0.68)
        if result["goal"]:
            axes.plot([result["goal"]] * 2, [place - 0.42, place + 0.42], color="black", linewidth=1.4)
        if number(result["possible"]):
            axes.plot(result["possible"], place, "o", mfc="none", mec="black", markersize=4)
    against = {"our kernels alone": "kernels alone", "cast, normalise, permute, Conv3d": "the usual way"}
    names = [f"{r['what']} / {against.get(r['against'], r['against'])}" for r in results]
    axes.set_yticks(range(len(results)), names, fontsize=7)
    axes.set_xscale("log")
    ticks = [0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 15]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("ratio of times; line: goal, ring: what the kernels alone allow, green: goal reached, orange: not")
    axes.set_ylim(-0.7, len(results) - 0.3)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    figure.savefig(file, bbox_inches="tight", metadata={"Date": None})


if __name__ == "__main__":
    main()
