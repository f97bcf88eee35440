"""The tour of docs/tour.ipynb runs from its first cell to its last, and shows what is stored in it."""

import base64
import io
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tubelet.cli import parse, without_debug

DOCS = Path(__file__).parent.parent / "docs"
TOUR = DOCS / "tour.ipynb"
MOST_BYTES = 500_000
VARIES = "varies"  # tag of cells whose text depends on what this processor makes of a training


def read_cells(file: Path, kind: str) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(file.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def text_of(cell: dict[str, Any]) -> str:
    return "".join(line for output in cell["outputs"] for line in output.get("text", ()))


def kinds_of(cell: dict[str, Any]) -> list[tuple[str, ...]]:
    return [(output["output_type"], *output.get("data", ())) for output in cell["outputs"]]


def run(*files: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", str(DOCS / "tour.py"), *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The cells of the tour, run now."""
    out = tmp_path_factory.mktemp("tour") / "tour.ipynb"
    done = run(TOUR, out)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return read_cells(out, "code")


def test_cells_show_what_is_stored(made: list[dict[str, Any]]) -> None:
    stored = read_cells(TOUR, "code")
    assert [kinds_of(cell) for cell in made] == [kinds_of(cell) for cell in stored]
    same = [number for number, cell in enumerate(stored) if VARIES not in cell["metadata"].get("tags", ())]
    assert len(same) >= 8
    assert [text_of(made[number]) for number in same] == [text_of(stored[number]) for number in same]


def test_the_model_has_learned(made: list[dict[str, Any]]) -> None:
    text = "".join(map(text_of, made))
    (right,), (guessed,) = (re.findall(rf"^(\d+)% {after}", text, re.M) for after in ("of 32 clips right", "by always"))
    assert int(right) >= 60 > int(guessed)
    assert re.search(r"^new\.mp4: turn_clockwise, .* known: True$", text, re.M)
    assert re.search(r"^noise\.mp4: .* known: False$", text, re.M)


def test_what_is_stored_is_small_and_of_no_machine() -> None:
    notebook = json.loads(TOUR.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"], sorted(notebook)) == (
        *(4, 5),
        ["cells", "metadata", "nbformat", "nbformat_minor"],
    )
    assert notebook["metadata"] == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    assert TOUR.stat().st_size < MOST_BYTES
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len({*ids}) == len(ids)
    assert all(re.fullmatch(r"[\w-]{1,64}", one) for one in ids)
    code = read_cells(TOUR, "code")
    assert [cell["execution_count"] for cell in code] == [*range(1, len(code) + 1)]
    pictures = [output["data"]["image/jpeg"] for cell in code for output in cell["outputs"] if "data" in output]
    for picture in pictures:
        with Image.open(io.BytesIO(base64.b64decode(picture))) as opened:
            assert opened.format == "JPEG"
    assert len(pictures) >= 5
    words = "".join(map(text_of, code)) + "".join("".join(cell["source"]) for cell in notebook["cells"])
    assert re.findall(r"(?<![\w./:])/(?:\w+/)+|[A-Z]:\\\\|avx|\bcuda\b", words) == []  # absolute paths, processors


def test_links_lead_somewhere_and_commands_parse() -> None:
    text = "\n".join("".join(cell["source"]) for cell in read_cells(TOUR, "markdown"))
    links = re.findall(r"\]\(([^)#]+)", text)
    assert len(links) >= 5
    assert [link for link in links if not (DOCS / link).exists()] == []
    commands = re.findall(r"^tubelet (.+)$", text, re.M)
    assert len(commands) >= 5
    for command in commands:
        parse(without_debug(shlex.split(command))[0])


def small_notebook(folder: Path, *sources: str) -> Path:
    cells = [{"cell_type": "code", "metadata": {}, "source": [source], "outputs": []} for source in sources]
    file = folder / "small.ipynb"
    file.write_text(json.dumps({"cells": cells}))
    return file


def test_prints_and_figures_are_stored(tmp_path: Path) -> None:
    write = "x = 2\nprint(x)\nopen('left', 'w').close()"
    draw = "import matplotlib.pyplot as plt\nplt.plot([1, x])\nplt.figure()"
    file = small_notebook(tmp_path, write, draw, "print(x + 1, plt.get_fignums())")
    done = run(file)
    assert (done.returncode, done.stderr) == (0, "")
    cells = read_cells(file, "code")
    assert [text_of(cell) for cell in cells] == ["2\n", "", "3 []\n"]
    figure = ("display_data", "image/jpeg")
    assert [kinds_of(cell) for cell in cells] == [[("stream",)], [figure, figure], [("stream",)]]
    assert [one.name for one in tmp_path.iterdir()] == ["small.ipynb"]


def test_a_cell_that_fails_is_told_and_nothing_stored(tmp_path: Path) -> None:
    file = small_notebook(tmp_path, "print(1)", "print(2)\nraise ValueError('no such clip')")
    before = file.read_bytes()
    done = run(file)
    assert done.returncode != 0
    assert "cell 2" in done.stderr
    assert "no such clip" in done.stderr
    assert file.read_bytes() == before
