"""What docs/gpu.md says that a training chooses on a GPU is what its plan has; no GPU is needed to plan."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from small_sets import write_videos

from tubelet.nn import SpaceTimeTransformer
from tubelet.nn.cost import describe
from tubelet.train import TrainConfig
from tubelet.train.plan import Plan, choose_name, make_plan

PAGE = (Path(__file__).parent.parent / "docs" / "gpu.md").read_text()
GPU, PROCESSOR = torch.device("cuda"), torch.device("cpu")


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("tubelet.train.plan.has_bfloat16", lambda device: (device.type == "cuda", "as said here"))
    clips = write_videos(tmp_path / "clips")

    def make(**settings: Any) -> Plan:
        return make_plan(TrainConfig(data=clips, out=tmp_path / "run", workers=1, **settings), GPU)

    return make


@pytest.mark.parametrize(("kind", "row"), [("video", "model for videos"), ("image", "model for images and sounds")])
def test_the_table_has_the_models(kind: str, row: str) -> None:
    (cells,) = re.findall(rf"^\| {row} \|(.*)\|(.*)\|$", PAGE, re.M)
    config = TrainConfig(data=Path("clips"))
    for cell, device in zip(cells, (GPU, PROCESSOR), strict=True):
        assert f"`{choose_name(config, kind, device, None)}`" in cell


def test_a_gpu_gets_a_large_fresh_model_and_larger_clips(plan: Any) -> None:
    found = plan()
    (short,), (frames,) = (re.findall(rf"^\| {row} \| (\d+)", PAGE, re.M) for row in ("short side.*?", "frames.*?"))
    assert (min(found.spec.crop), found.spec.frames) == (int(short), int(frames))
    (millions,) = re.findall(r"`vivit2-S/16x2`, (\d+) M parameters, fresh", PAGE)
    with torch.device("meta"):
        model = SpaceTimeTransformer(found.model)
    assert round(describe(model).parameters / 1e6) == int(millions)
    assert found.start is None
    assert found.bfloat16


def test_the_small_model_of_the_page_starts_from_the_package(plan: Any) -> None:
    (name, embed, px) = re.findall(r"--model (\S+) --embed (\S+) .* at (\d+) px", PAGE)[0]
    found = plan(model=name, embed=embed)
    assert found.start is not None
    assert found.start.in_package
    assert min(found.spec.crop) == int(px)
