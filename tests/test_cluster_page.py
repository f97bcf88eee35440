"""The jobs of docs/cluster.md, as a shell, Slurm and Kubernetes would start them, two in the place of a hundred."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from small_sets import command, tiny_config, write_videos

from tubelet.train.train import train_fn

PAGE = (Path(__file__).parent.parent / "docs" / "cluster.md").read_text().replace("100", "2")
XARGS, SLURM, _ = re.findall(r"^```bash\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
((shell, option, KUBERNETES),) = re.findall(r'command: \["(\w+)", "(-c)", "(.*)"\]', PAGE)


def test_the_page_says_what_it_said() -> None:
    assert (shell, option) == ("sh", "-c")
    assert all("--shard" in one for one in (XARGS, SLURM, KUBERNETES))
    assert re.search(r"completions: 2\b", PAGE)
    assert "#SBATCH --array=1-2 " in SLURM


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """What one process makes, in the folder that jobs start in."""
    monkeypatch.chdir(tmp_path)
    train_fn(tiny_config(write_videos(Path("known")), Path("runs/clips"), epochs=1), show=False)
    write_videos(Path("clips"), 4, first=100)
    assert command("predict", "runs/clips", "clips", "--csv", "answers.csv") == 0
    whole = Path("answers.csv").read_bytes()
    Path("answers.csv").unlink()
    return whole


@pytest.mark.parametrize("way", ["xargs", "slurm", "kubernetes"])
def test_jobs_of_the_page_make_what_one_process_makes(way: str, alone: bytes) -> None:
    lines, number = {"xargs": (XARGS, ""), "slurm": (SLURM, "SLURM_ARRAY_TASK_ID"), "kubernetes": (KUBERNETES, "")}[way]
    number, first = ("JOB_COMPLETION_INDEX", 0) if way == "kubernetes" else (number, 1)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for job in range(first, first + 2) if number else [0]:
        given = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", number or "UNUSED": str(job)}
        end = subprocess.run(["sh", "-c", lines], env=given, capture_output=True, text=True, timeout=100)
        assert end.returncode == 0, end.stderr
    assert command("merge", "runs/parts") == 0
    assert Path("answers.csv").read_bytes() == alone
