"""Published weights by name: what is listed, what is loaded, and what the network is asked for: nothing but them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from goldens import CASES, golden
from huggingface_hub import constants, errors
from naming import naming
from safetensors.torch import save_file
from small_sets import command, tiny_config, write_videos
from test_train import image_vit
from tiny import tiny
from torch import Tensor
from torch.testing import assert_close

import tubelet
from tubelet.nn import model_config
from tubelet.nn.cost import count_parameters
from tubelet.runs.run import Run
from tubelet.train.published_start import AUTO, FEW, settle_auto, suggest_start
from tubelet.train.train import train_fn
from tubelet.weights.dialects.reference import DIALECTS
from tubelet.weights.hub import OTHER_FILES, fetch, is_on_hub, repository_of
from tubelet.weights.listing import choose, describe, make
from tubelet.weights.published import BEST, PUBLISHED, find_published

# from the papers and the published files; of what we fold or leave, see test_encoders.py
PARAMETERS = {"google/videoprism-base-f16r288": 114_365_184, "google/videoprism-large-f8r288": 353_965_056}


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without network, with an empty hub cache and an empty cache of ours."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hub"


def put_on_hub(hub: Path, name: str, tensors: dict[str, Tensor], config: dict[str, Any], *, shards: int = 1) -> None:
    """What an earlier download has left in the cache."""
    folder = hub / f"models--{name.replace('/', '--')}"
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)
    (snapshot / "config.json").write_text(json.dumps(config))
    if shards == 1:
        save_file(tensors, snapshot / "model.safetensors")
        return
    names, listed = sorted(tensors), {}
    for i in range(shards):
        file = f"model-{i}.safetensors"
        save_file({key: tensors[key] for key in names[i::shards]}, snapshot / file)
        listed |= dict.fromkeys(names[i::shards], file)
    (snapshot / "model.safetensors.index.json").write_text(json.dumps({"weight_map": listed}))


SIGLIP = {
    "model_type": "siglip_vision_model",
    "num_attention_heads": 4,
    "image_size": 32,
    "hidden_act": "gelu_pytorch_tanh",
}


# ---- the list


@pytest.mark.parametrize("line", PUBLISHED, ids=lambda line: line.name)
def test_a_line_is_of_a_model_that_there_is_and_of_a_dialect_that_is_tested(line: Any) -> None:
    assert make(line).grid(line.clip).size > 0
    assert line.dialect in {case.dialect for case in CASES.values()}
    assert line.dialect in DIALECTS
    assert line.licence
    assert line.name not in PARAMETERS or count_parameters(make(line)) == PARAMETERS[line.name]
    assert (line.commercial is False) == ("NC" in line.licence)
    assert find_published(line.name) is line
    assert is_on_hub(line.name) == line.on_hub


def test_names_are_found_as_timm_says_them_and_with_the_hub_before_them() -> None:
    line = find_published("timm/vit_small_patch16_224.augreg_in21k")
    assert line is find_published("vit_small_patch16_224.augreg_in21k")
    assert line is find_published("hf-hub:timm/vit_small_patch16_224.augreg_in21k")
    assert find_published("vit_none") is None
    assert repository_of("vit_none.x") == "timm/vit_none.x"
    assert len({line.name for line in PUBLISHED}) == len(PUBLISHED)
    assert set(OTHER_FILES) >= {line.name for line in PUBLISHED if line.dialect == "videoprism"}


def test_the_list_is_chosen_from_by_name_model_and_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert {line.kind for line in choose("sound")} == {"sound"}
    assert {line.family for line in choose("*dinov3*")} == {"dinov3"}
    assert command("weights", "*videoprism*", "--json") == 0
    listed = json.loads(capsys.readouterr().out)["weights"]
    assert [one["parameters"] for one in listed] == list(PARAMETERS.values())
    assert command("weights") == 0
    printed = capsys.readouterr().out
    assert all(line.name in printed and line.licence in printed for line in PUBLISHED)
    assert command("weights", "nothing") == 2
    assert describe(PUBLISHED[0])["bytes"] == 4 * describe(PUBLISHED[0])["parameters"]


# ---- a model by name with weights


@pytest.mark.parametrize("shards", [1, 2])
def test_weights_come_from_the_cache_of_the_hub_with_their_settings(offline: Path, shards: int) -> None:
    state, _, _ = golden("hf_siglip2")
    put_on_hub(offline, "google/tiny-siglip2", state, SIGLIP, shards=shards)
    name = "hf-hub:google/tiny-siglip2"
    with pytest.raises(ValueError, match=naming("siglip2-B/16", "siglip2/8")):
        tubelet.create_model("siglip2-B/16", pretrained=name)
    assert fetch(name).parent == offline / "models--google--tiny-siglip2" / "snapshots" / ("0" * 40)


def test_weights_of_another_program_answer_as_there(tmp_path: Path) -> None:
    """Of a size that has a name."""
    model = tubelet.create_model("siglip2-P/16", clip=(1, 32, 32), num_classes=0)
    theirs = tubelet.weights.to_reference(model, "hf-siglip2")
    folder = tmp_path / "theirs"
    folder.mkdir()
    save_file(theirs, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(SIGLIP | {"num_attention_heads": 3}))
    found = tubelet.create_model("siglip2-P/16", pretrained=folder)
    clip = torch.randn(2, 3, 1, 32, 32)
    with torch.inference_mode():
        assert_close(found.features(clip), model.eval().features(clip), atol=1e-5, rtol=0)
    assert not found.training
    other = tubelet.create_model("siglip2-P/16", pretrained=folder, clip=(1, 48, 64), num_classes=5)
    assert (other.input_size, other.config.num_classes) == ((1, 48, 64), 5)
    wide = torch.randn(2, 3, 1, 48, 64)
    with torch.inference_mode():
        assert_close(other.features(wide), model.features(wide), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match=naming("siglip2-N/16", "siglip2-P/16")):
        tubelet.create_model("siglip2-N/16", pretrained=folder)
    with pytest.raises(ValueError, match=naming("position", folder)):
        tubelet.create_model("siglip2-P/16", pretrained=folder, position="sincos")


def test_weights_of_ours_keep_their_head_unless_another_is_asked_for(tmp_path: Path) -> None:
    model = tubelet.create_model("vivit2-P/16x2", clip=(4, 32, 48), num_classes=3).eval()
    tubelet.save(model, tmp_path)
    clip = torch.randn(2, 3, 4, 32, 48)
    with torch.inference_mode():
        assert_close(tubelet.create_model("vivit2-P/16x2", pretrained=tmp_path)(clip), model(clip))
        other = tubelet.create_model("vivit2-P/16x2", pretrained=tmp_path, num_classes=7)
        assert other(clip).shape == (2, 7)
        assert_close(other.features(clip), model.features(clip))


def test_a_video_model_starts_from_an_image_vit(tmp_path: Path) -> None:
    vit = image_vit(tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(
        json.dumps({"architecture": "vit_tiny_patch16_224", "pretrained_cfg": {"input_size": [3, 64, 64]}})
    )
    model = tubelet.create_model("vivit2-P/16x2", pretrained=vit, clip=(4, 64, 64), num_classes=2)
    told = model_config("vivit2-P/16x2", clip=(4, 64, 64), num_classes=2)
    assert model.config.stages == told.stages
    assert model.encoders[0].blocks[0].attns[0].qkv.weight.abs().sum() > 0


def test_what_is_not_to_be_had_is_said(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ("nowhere.safetensors", "nowhere/"):
        with pytest.raises(ValueError, match=naming(Path(wrong))):
            tubelet.create_model("vit-P/16", pretrained=wrong)
    pickle = next(line.name for line in PUBLISHED if not line.on_hub)
    with pytest.raises(ValueError, match=naming(pickle, "--unsafe-pickle")):
        tubelet.create_model("vjepa21-B/16x2", pretrained=pickle)
    with pytest.raises(ValueError, match=naming("'hf-hub:a/b'", offline)):
        tubelet.create_model("vit-P/16", pretrained="hf-hub:a/b")

    def refuse(*_: object) -> None:
        raise errors.GatedRepoError("401 Client Error.", response=MagicMock())

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    gated = "facebook/dinov3-vits16-pretrain-lvd1689m"
    with pytest.raises(ValueError, match=naming(repr(gated), f"https://huggingface.co/{gated}")):
        tubelet.create_model("dinov3-S/16", pretrained=gated)


# ---- training from them


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_videos(tmp_path_factory.mktemp("videos") / "clips", clips=7, classes=("left", "right"))


def test_a_training_converts_weights_of_the_hub_once(offline: Path, videos: Path, tmp_path: Path) -> None:
    state, _, _ = golden("hf_siglip2")
    put_on_hub(offline, "google/tiny-siglip2", state, SIGLIP)
    settings = {"init": "hf-hub:google/tiny-siglip2", "freeze": True, "freeze_views": 1, "model": None, "frames": None}
    runs = [
        train_fn(tiny_config(videos, tmp_path / name, **settings, size=(32, 32)), show=False) for name in ("a", "b")
    ]
    kept = list((tmp_path / "cache" / "tubelet" / "converted").iterdir())
    assert len(kept) == 1
    ours, theirs = tubelet.load(runs[1]), tubelet.load(kept[0])
    name = "encoders.0.blocks.0.attns.0.qkv.weight"
    assert torch.equal(ours.state_dict()[name], theirs.state_dict()[name])
    assert "Apache-2.0" in (runs[0] / "README.md").read_text()


def test_auto_says_what_it_takes_and_goes_on_without(offline: Path, videos: Path, tmp_path: Path) -> None:
    config = tiny_config(videos, tmp_path / "run", init=AUTO)
    settled, (note,) = settle_auto(config, "video")
    assert settled.init is None
    assert BEST["video"] in note
    run = Run(train_fn(config, show=False))
    assert run.config["train"]["init"] is None
    with pytest.raises(ValueError, match=naming(repr(BEST["video"]))):
        settle_auto(tiny_config(videos, tmp_path / "frozen", init=AUTO, freeze=True), "video")
    vit = tubelet.weights.to_reference(tiny("vit"), "timm")
    put_on_hub(offline, BEST["image"], vit, {})
    settled, (note,) = settle_auto(config, "image")
    assert settled.init == BEST["image"]
    assert "Apache-2.0" in note
    assert settle_auto(tiny_config(videos, tmp_path / "run", init="none"), "image")[1] == []


@pytest.mark.parametrize("kind", ["video", "image", "sound"])
def test_few_clips_are_told_of_weights_that_may_serve_better(kind: str, videos: Path, tmp_path: Path) -> None:
    config = tiny_config(videos, tmp_path / "run", init=None, epochs=None)
    (note,) = suggest_start(config, kind, "my clips", 20)
    assert all(word in note for word in (BEST[kind], "--freeze", "'my clips'", "about"))
    assert suggest_start(config, kind, "my clips", FEW) == []
    assert suggest_start(replace(config, epochs=3), kind, "my clips", 20) == []
    assert suggest_start(replace(config, minutes=0.01), kind, "my clips", 20) == []
    assert suggest_start(tiny_config(videos, tmp_path / "run", init="none"), kind, "my clips", 10) == []
