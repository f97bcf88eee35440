"""Model files of tubelet 0.1.0: what they meant then is what they mean now."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from naming import naming
from safetensors.torch import load_file
from torch.testing import assert_close

import tubelet
from tubelet.nn import FAMILIES
from tubelet.train.resume import compared_settings
from tubelet.weights import read_about
from tubelet.weights.settings import read_config

GOLDEN = Path(__file__).parent / "golden"
CASES: dict[str, Any] = json.loads((GOLDEN / "settings_0_1_0.json").read_text())
STORED = CASES["vivit2"]["stored"]


@pytest.mark.parametrize("case", CASES)
def test_settings_of_0_1_0_are_those_of_the_model_that_is_made_today(case):
    """Where a family's line was changed on purpose, its old meaning goes into the case: the old file keeps it."""
    asked = CASES[case]
    config = tubelet.model_config(asked["name"], **asked["asked"])
    config = replace(config, stages=config.stages[: asked["number"]])
    lists = {name: tuple(v) if isinstance(v, list) else v for name, v in (asked["embed"] | asked["stages"]).items()}
    config = config.with_embed(**{name: lists[name] for name in asked["embed"]})
    config = config.with_stages(**{name: lists[name] for name in asked["stages"]})
    assert read_config(asked["stored"]) == config
    assert read_config(json.loads(json.dumps(config.to_json()))) == config


def test_every_family_of_then_is_there():
    assert {CASES[case]["stored"]["family"] for case in CASES} <= set(FAMILIES)


@pytest.mark.parametrize("case", ["vivit2", "swin2"])
def test_a_file_of_0_1_0_answers_as_it_did(case, tmp_path):
    answers, file = (
        load_file(GOLDEN / "tubelet_0_1_0_answers.safetensors"),
        GOLDEN / f"tubelet_0_1_0_{case}.safetensors",
    )
    model = tubelet.load(file)
    clip = answers[f"{case}.clip"]
    assert model.input_size == ((8, 12, 8) if case == "vivit2" else (8, 8, 12))
    assert read_about(file) == {"classes": list("abcde")}
    with torch.no_grad():
        assert_close(model(clip), answers[f"{case}.logits"], atol=1e-5, rtol=0)
        again = tubelet.load(tubelet.save(model, tmp_path))
        assert_close(again(clip), model(clip), atol=0, rtol=0)
    assert again.config == model.config


@pytest.mark.parametrize(
    ("changes", "values"),
    [
        ({"colour": 1}, ("colour",)),
        ({"family": "vivit5"}, ("family", "'vivit5'", "vit", "vivit1")),
        ({"family": ["vivit2"]}, ("family", "['vivit2']")),
        ({"depth": [2, 2]}, ("depth", "[2, 2]")),
        ({"window": [1, 2, 2]}, ("window", "vivit2")),
        ({"position": ["joint"]}, ("position", "['joint']")),
        ({"pool": {"a": 1}}, ("pool", "{'a': 1}")),
        ({"prefix": "5"}, ("prefix", 5, "int")),
        ({"dim": 0}, ("width", 1)),
        ({"depth": 10**5}, (100010, 256)),
        ({"temporal_depth": -1}, ("depth", -1)),
        ({"family": "swin2"}, ("heads", 3, "tuple")),
        ({"family": "swin2", "prefix": 1}, ("windows", "'prefix': 1")),
    ],
)
def test_settings_of_0_1_0_that_make_no_model_are_refused(changes, values):
    with pytest.raises(ValueError, match=naming(*values)):
        read_config(STORED | changes)
    missing = {name: value for name, value in STORED.items() if name != "mlp_dim"}
    with pytest.raises(ValueError, match=naming("mlp_dim")):
        read_config(missing)


def test_a_run_that_0_1_0_began_goes_on_with_the_same_model_and_no_other():
    begun = {"train": {}, "model": STORED, "model_name": "vivit2-P/16x2", "clip_spec": {}}
    model = tubelet.model_config("vivit2-P/16x2", clip=STORED["clip"], num_classes=7)
    assert compared_settings(begun) == compared_settings(begun | {"model": model.to_json()})
    other = compared_settings(begun | {"model": model.with_stage(1, depth=3).to_json()})
    assert {key for key, value in other.items() if value != compared_settings(begun)[key]} == {"model's stage 1 depth"}


def test_a_line_that_changes_changes_no_file(monkeypatch, tmp_path):
    model = tubelet.create_model("vivit1-P/16x2", clip=(4, 32, 32), num_classes=2).eval()
    tubelet.save(model, tmp_path)
    monkeypatch.setitem(FAMILIES, "vivit1", FAMILIES["vivit4"])
    clip = torch.randn(1, 3, 4, 32, 32)
    with torch.no_grad():
        assert_close(tubelet.load(tmp_path)(clip), model(clip), atol=0, rtol=0)
    assert read_config(CASES["vivit1"]["stored"]).stages[0].attend == "thw"
