"""Runs the cells of docs/tour.ipynb and stores what they print and draw: python docs/tour.py [FROM] [TO]

As plain Python, one after another, so that no Jupyter is needed. What they write goes to a folder that is then gone.
"""

import base64
import io
import json
import os
import sys
import tempfile
from contextlib import chdir, redirect_stdout
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt

from tubelet.system.openmp import wait_briefly

TOUR = Path(__file__).with_name("tour.ipynb")


def run_notebook(notebook: dict[str, Any]) -> None:
    """Runs the cells in one namespace, in a folder of their own, and puts what they show into the notebook."""
    wait_briefly()  # before torch is imported, by a cell
    matplotlib.use("agg")  # no window
    names: dict[str, Any] = {"__name__": "__main__"}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory() as place, chdir(place):
        tempfile.tempdir = os.getcwd()
        try:
            for number, cell in enumerate(cells, 1):
                cell |= {"execution_count": number, "outputs": run_cell("".join(cell["source"]), number, names)}
        finally:
            tempfile.tempdir = before


def run_cell(source: str, number: int, names: dict[str, Any]) -> list[dict[str, Any]]:
    """The outputs of a cell: its print, then its figures, small enough to be stored."""
    with redirect_stdout(io.StringIO()) as printed:
        exec(compile(source, f"cell {number}", "exec"), names)
    text, figures = printed.getvalue().splitlines(keepends=True), plt.get_fignums()
    outputs: list[dict[str, Any]] = [{"name": "stdout", "output_type": "stream", "text": text}] if text else []
    for figure in figures:
        file = io.BytesIO()
        plt.figure(figure).savefig(file, format="jpeg", dpi=90, bbox_inches="tight", pil_kwargs={"quality": 75})
        picture = base64.b64encode(file.getvalue()).decode()
        outputs.append({"data": {"image/jpeg": picture}, "metadata": {}, "output_type": "display_data"})
    plt.close("all")
    return outputs


def main() -> None:
    given = [Path(name).absolute() for name in sys.argv[1:]] or [TOUR]
    notebook = json.loads(given[0].read_text(encoding="utf-8"))
    run_notebook(notebook)
    given[-1].write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
