"""How many labels `tubelet suggest` saves: clips that it names against clips drawn at random, on groups not seen.

    tubelet embed RUN DATA --out FOLDER
    python benchmarks/suggest.py FOLDER DATA [FOLDER DATA ...] [--draws 20]

DATA is the data set that FOLDER has the vectors of: class folders, or a table with path, label and, as wanted, group.
For each draw a third of the groups is held out for a test; of the others clips are labelled in rounds, by suggestion
and at random. A logistic regression on the vectors learns from them. Prints accuracies in per cent, and paired
differences with intervals of 95 % over the draws (Student's t); the last column holds suggested clips against twice as
many random ones.
"""

import argparse
from pathlib import Path

import numpy as np
from scipy.stats import t
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tubelet.data.items import find_items
from tubelet.data.splits import with_groups
from tubelet.embed.coverage import choose
from tubelet.embed.embeddings import Embeddings

BUDGETS = (10, 20, 40, 80, 160)
HELD_OUT = 1 / 3


def load(folder: Path, data: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors (N, D), labels (N,) and groups (N,), one clip for each content."""
    found, source = Embeddings.load(folder), find_items(data)
    items = {str(source.root / item.path): item for item in with_groups(source)[0]}
    _, first = np.unique([row.mark for row in found.rows], return_index=True)
    rows = [number for number in first.tolist() if found.rows[number].path in items]
    labelled = [items[found.rows[number].path] for number in rows]
    return (
        np.array(found.vectors[rows]),
        np.array([one.label for one in labelled]),
        np.array([one.group for one in labelled]),
    )


def label(
    vectors: np.ndarray, truth: np.ndarray, groups: np.ndarray, budgets: list[int], rng: np.random.Generator | None
) -> list[np.ndarray]:
    """The clips that are labelled at each budget; drawn at random where there is an rng."""
    rows: list[int] = []
    found = []
    for budget in budgets:
        count, free = budget - len(rows), np.ones(len(vectors), bool)
        free[rows] = False
        if rng:
            rows += rng.permutation(np.flatnonzero(free))[:count].tolist()
        else:
            labels = np.where(free, "", truth).tolist()
            rows += [one.row for one in choose(vectors, labels, free, groups.tolist(), count=count)]
        found.append(np.array(rows))
    return found


def learn(train: np.ndarray, truth: np.ndarray, test: np.ndarray, right: np.ndarray) -> float:
    """The accuracy in per cent on a test."""
    if len(set(truth)) < 2:
        return 100 * float((right == truth[0]).mean())
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return 100 * float(model.fit(train, truth).score(test, right))


def measure(folder: Path, data: Path, draws: int) -> None:
    vectors, truth, groups = load(folder, data)
    names = np.unique(groups)
    accuracy: dict[str, list[list[float]]] = {"suggested": [], "random": []}
    budgets = list(BUDGETS)
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        test = np.isin(groups, rng.permutation(names)[: max(1, round(len(names) * HELD_OUT))])
        pool = np.flatnonzero(~test)
        budgets = [budget for budget in budgets if budget < len(pool)]
        for way, chance in (("suggested", None), ("random", rng)):
            rounds = label(vectors[pool], truth[pool], groups[pool], budgets, chance)
            found = [learn(vectors[pool[rows]], truth[pool[rows]], vectors[test], truth[test]) for rows in rounds]
            accuracy[way].append(found)
    ours, random = (np.array([found[: len(budgets)] for found in accuracy[way]]) for way in ("suggested", "random"))
    print(f"\n{folder}: {len(truth)} clips, {len(set(truth))} classes, {len(names)} groups, {draws} draws\n")
    print(
        "| labels | random | suggested | difference | against twice as many random |\n|---|---|---|---|---|", flush=True
    )
    for at, budget in enumerate(budgets):
        twice = describe(ours[:, at] - random[:, at + 1]) if at + 1 < len(budgets) else ""
        one, other = random[:, at].mean(), ours[:, at].mean()
        print(f"| {budget} | {one:.1f} | {other:.1f} | {describe(ours[:, at] - random[:, at])} | {twice} |")


def describe(differences: np.ndarray) -> str:
    """ "+3.1 [+1.2, +5.0]": the mean, and its interval of 95 %."""
    mean, count = differences.mean(), len(differences)
    width = t.ppf(0.975, count - 1) * differences.std(ddof=1) / count**0.5
    return f"{mean:+.1f} [{mean - width:+.1f}, {mean + width:+.1f}]"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", type=Path, metavar="FOLDER DATA")
    parser.add_argument("--draws", type=int, default=20)
    given = parser.parse_args()
    for folder, data in zip(given.sets[::2], given.sets[1::2], strict=True):
        measure(folder, data, given.draws)
