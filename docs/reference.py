"""Writes the API reference, made from the docstrings, as pages into a folder: python docs/reference.py site/

Warnings are errors. Needs pdoc, which `pip install 'tubelet[dev]'` brings.
"""

import sys
import warnings
from pathlib import Path

import pdoc

import tubelet
import tubelet.stream
import tubelet.train

# Beside the names at the top, and the rooms among them: nn, train, weights.
ROOMS = [f"tubelet.{room}" for room in ("tasks", "data", "media", "predict", "evaluate", "stream", "export", "convert")]


def write_reference(folder: Path) -> None:
    warnings.simplefilter("error")
    for room in (tubelet, tubelet.stream, tubelet.train):
        for name in room.__all__:
            setattr(room, name, getattr(room, name))  # imported when they are first used, which pdoc does not do
    pdoc.render.configure(docformat="google", show_source=False)
    pdoc.pdoc("tubelet", *ROOMS, output_directory=folder)


if __name__ == "__main__":
    write_reference(Path(sys.argv[1] if len(sys.argv) > 1 else "site"))
