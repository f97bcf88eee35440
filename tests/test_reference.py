"""The API reference is built from the docstrings, without a warning, and has every public name."""

import subprocess
import sys
from pathlib import Path

import tubelet
import tubelet.tasks

ROOT = Path(__file__).parent.parent


def test_the_reference_has_every_public_name(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-W", "error", ROOT / "docs/reference.py", tmp_path], check=True)
    page, tasks = ((tmp_path / name).read_text() for name in ("tubelet.html", "tubelet/tasks.html"))
    names = set(tubelet.__all__) - {"__version__", "nn", "train", "weights"}
    assert [name for name in sorted(names) if f'id="{name}"' not in page] == []
    assert [name for name in tubelet.tasks.__all__ if f'id="{name}"' not in tasks] == []
