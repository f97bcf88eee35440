"""benchmarks/gpu.py walks all its paths on a processor, and goes on where a section fails or hangs."""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))

import gpu

from tubelet.nn import FAMILIES

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="sections are forked")


def test_every_section_has_figures_and_they_are_finite(tmp_path: Path) -> None:
    typed = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--device", "cpu", "--tiny", "--out", str(tmp_path)]
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    end = subprocess.run(typed, env=alone, capture_output=True, text=True, timeout=280)
    assert end.returncode == 0, end.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    page = (tmp_path / "gpu.md").read_text()
    assert list(found["sections"]) == list(gpu.SECTIONS)
    for name, section in found["sections"].items():
        assert (section["state"], section["error"]) == ("done", ""), name
        assert section["rows"], name
        numbers = [value for row in section["rows"] for value in row.values() if isinstance(value, float)]
        assert all(math.isfinite(value) for value in numbers), name
        assert f"## {name}\n" in page
    sections = {name: section["rows"] for name, section in found["sections"].items()}
    assert [row["family"] for row in sections["answers"]] == list(FAMILIES)
    assert all(row["float32"] == 0 and 0 < row["bfloat16"] < 0.1 for row in sections["answers"])
    assert {row["family"] for row in sections["attention"] if row["falls to math"]} == {"swin2"}
    assert [row["blocks"] for row in sections["speed"]] == ["eager"] * 2 + ["compiled"] * 2 + ["eager"] * 2
    assert all(0 < row["MFU"] < 1 for row in sections["speed"])
    assert not (tmp_path / "work").exists()
    assert "no figure here says anything about speed" in page


def hang(setting: gpu.Setting, folder: Path) -> Iterator[Any]:
    """Never ends."""
    yield {"number": 1.5}
    time.sleep(1000)


def fail(setting: gpu.Setting, folder: Path) -> Iterator[Any]:
    """Ends soon."""
    yield {"number": 1.5}
    raise OSError("the device fell off the bus")


@pytest.mark.parametrize(("work", "state"), [(hang, "stopped at its limit"), (fail, "failed")])
def test_a_section_that_fails_or_hangs_leaves_what_it_had(
    work: Any, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "SECTIONS", {"only": (work, 5)})
    found = gpu.run_section("only", gpu.tiny(torch.device("cpu")), 1.0, tmp_path)
    assert (found["state"], found["rows"]) == (state, [{"number": 1.5}])
    assert ("fell off the bus" in found["error"]) == (work is fail)
    page = gpu.write_page({"device": "cpu", "tiny": False, "sections": {"only": found}})
    assert state in page
    assert "| 1.5 |" in page


def test_the_peak_of_a_device_is_the_one_of_its_name() -> None:
    names = {"NVIDIA H100 PCIe": 756.0, "NVIDIA H100 80GB HBM3": 989.0, "NVIDIA L40S": 362.0, "NVIDIA L4": 121.0}
    for name, wanted in names.items():
        assert next(peaks for key, peaks in gpu.PEAKS.items() if key in name)[0] == wanted
