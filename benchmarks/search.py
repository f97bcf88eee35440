"""How long an exact search among many vectors takes, once they are in the memory that the system keeps files in.

    python benchmarks/search.py [--rows 1000000] [--width 384] [--k 10] [--folder FOLDER]

Writes random vectors as `tubelet embed` does, loads them, and searches ten times. Prints seconds, and the memory that
the process has of its own, in which no copy of the vectors is.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from tubelet.embed.embeddings import Embeddings
from tubelet.embed.folder import FILE, Row, Vectors, write_vectors

SEARCHES = 10


def write(folder: Path, rows: int, width: int) -> None:
    vectors = np.random.default_rng(0).standard_normal((rows, width), np.float32)
    names = [Row(f"/clips/{number:08d}.mp4", None, None, f"{number:016x}", seconds=2.0) for number in range(rows)]
    settings = {"run": "/runs/none", "model": "none", "encoder": "0" * 64, "width": width}
    write_vectors(folder / FILE, Vectors(settings, names, vectors))


def own_memory() -> float:
    """GB that are of this process alone."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1e6


def measure(folder: Path, rows: int, width: int, k: int) -> None:
    begun = time.monotonic()
    found = Embeddings.load(folder)
    loaded, before = time.monotonic() - begun, own_memory()
    rng, seconds = np.random.default_rng(1), []
    for _ in range(SEARCHES + 1):
        query = rng.standard_normal(width).astype(np.float32)
        begun = time.monotonic()
        found.search(query, k=k)
        seconds.append(time.monotonic() - begun)
    figures = {
        "rows": rows,
        "width": width,
        "loaded in": round(loaded, 2),
        "first search": round(seconds[0], 3),
        "then, median": round(float(np.median(seconds[1:])), 3),
        "then, at most": round(max(seconds[1:]), 3),
        "GB of its own before": round(before, 2),
        "GB of its own after": round(own_memory(), 2),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        place = given.folder or Path(temporary)
        place.mkdir(parents=True, exist_ok=True)
        if not (place / FILE).is_file():
            write(place, given.rows, given.width)
        measure(place, given.rows, given.width, given.k)
