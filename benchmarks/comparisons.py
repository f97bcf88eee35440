"""Can a comparison be believed? From folders that `tubelet compare` wrote.

    python benchmarks/comparisons.py null runs/a-compare runs/b-compare    winners named where there are none
    python benchmarks/comparisons.py agree runs/a-compare runs/a-longer    the order, against that of a larger budget

null: the recorded answers of each round are dealt out anew among the candidates, a thousand times, clip by clip, then
group by group. All are equal then, so that every winner is a false one. agree: Kendall's tau of the two orders, and how
far the first one's leader is behind the best of the second one.
"""

import argparse
import csv
import json
import re
from itertools import combinations
from pathlib import Path

import numpy as np

from tubelet.compare.difference import Right, judge

DEALS = 1000


def read_rounds(folder: Path) -> tuple[list[Right], list[str]]:
    """The answers of each round, by candidate, and the groups of the clips."""
    with open(folder / "answers.csv", newline="", encoding="utf-8", errors="surrogateescape") as table:
        rows = list(csv.DictReader(table))
    rounds: dict[int, dict[str, np.ndarray]] = {}
    for column in list(rows[0])[3:]:
        name, number = re.fullmatch(r"(.*), round (\d+)", column).groups()
        rounds.setdefault(int(number), {})[name] = np.array([row[column] == "1" for row in rows])
    names = {name: number for number, name in enumerate(rounds[1])}
    return [{names[name]: right for name, right in rounds[n].items()} for n in sorted(rounds)], [
        r["group"] for r in rows
    ]


def count_false_winners(rounds: list[Right], groups: list[str], *, by_group: bool, seed: int = 0) -> float:
    rng, clips = np.random.default_rng(seed), len(groups)
    place = np.unique(groups, return_inverse=True)[1] if by_group else np.arange(clips)
    named = 0
    for _ in range(DEALS):
        dealt = []
        for right in rounds:
            deals = rng.permuted(np.tile(np.arange(len(right)), (clips, 1)), axis=1)[place].T
            dealt.append(dict(zip(right, np.take_along_axis(np.stack([*right.values()]), deals, 0), strict=True)))
        named += judge(dealt, groups).winner is not None
    return named / DEALS


def compare_orders(first: Path, second: Path) -> str:
    shorter, longer = (json.loads((folder / "compare.json").read_text())["standings"] for folder in (first, second))
    places = [{row["candidate"]: place for place, row in enumerate(rows)} for rows in (shorter, longer)]
    signs = [
        np.sign((places[0][a] - places[0][b]) * (places[1][a] - places[1][b])) for a, b in combinations(places[0], 2)
    ]
    leader = next(row for row in longer if row["candidate"] == shorter[0]["candidate"])
    behind = leader["behind"]["share"] if leader["behind"] else 0.0
    return f"tau {np.mean(signs):.2f}; the leader of the first is {100 * behind:.1f} points behind that of the second"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("null", "agree"))
    parser.add_argument("folders", type=Path, nargs="+")
    arguments = parser.parse_args()
    if arguments.what == "agree":
        print(compare_orders(*arguments.folders))
        return
    for folder in arguments.folders:
        rounds, groups = read_rounds(folder)
        shares = [count_false_winners(rounds, groups, by_group=by_group) for by_group in (False, True)]
        print(f"{folder}: {100 * shares[0]:.1f} % of deals by clip name a winner, {100 * shares[1]:.1f} % by group")


if __name__ == "__main__":
    main()
