"""Every snippet of the documents runs; every command in them parses."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from recordings import write_recordings
from small_sets import tiny_config

from tubelet.cli import parse, without_debug
from tubelet.media.writer import write_video
from tubelet.train.train import train_fn

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clips/walk and clips/run in it, segments.csv and match.mp4, runs/segments, a model that has hardly
    learned, and, once docs/train.md has run, runs/clips."""
    folder = tmp_path_factory.mktemp("docs")
    table = write_recordings(folder / "films", {"train": 2, "val": 1}, seconds=12.0)
    (folder / "match.mp4").write_bytes((table.parent / "val-0.mp4").read_bytes())
    config = tiny_config(table, folder / "runs" / "segments", task="segments", seconds_between_frames=0.1, epochs=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tubelet.train.segments.STEPS", 3)
        train_fn(config, show=False)
    rng = np.random.default_rng(0)
    for label in ("walk", "run"):
        (folder / "clips" / label).mkdir(parents=True)
        for number in range(3):
            frames = rng.integers(0, 256, (8, 48, 64, 3), dtype=np.uint8)
            write_video(folder / "clips" / label / f"{number}.mp4", frames, frames_per_second=8)
    return folder


def test_python_snippets_run(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    ran = 0
    later = ("embed.md", "export.md", "predict.md", "stream.md")  # these use train.md's run
    for page in sorted(PAGES, key=lambda page: page.name in later):
        names: dict[str, object] = {}
        for block in blocks(page, "python"):
            exec(compile(block, str(page), "exec"), names)
            ran += 1
    assert ran >= 6


def commands() -> list[str]:
    lines = [line for page in PAGES for block in blocks(page, "console") for line in block.splitlines()]
    lines = [re.sub(r"\s#.*", "", line).removeprefix("$ ") for line in lines if line.startswith("$ ")]
    lines = [line[line.index("tubelet ") + 8 :] for line in lines if "tubelet " in line]
    return [re.sub(r"\s[|>].*", "", line) for line in lines]  # what becomes of the output is not for tubelet


@pytest.mark.parametrize("command", commands())
def test_commands_parse(command: str) -> None:
    parse(without_debug(shlex.split(command))[0])


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        for target in re.findall(r"\]\(([^)#]+)", text):
            assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name}: {target}"
