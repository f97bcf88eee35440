"""Features on disk: one key, made of all that they depend on and nothing else; one format, whole or refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from naming import naming
from safetensors.torch import load_file
from tiny import tiny

from tubelet.features.store import hash_encoder, read_features, write_features
from tubelet.nn.create import create_model
from tubelet.nn.model import SpaceTimeTransformer

Change = Callable[[SpaceTimeTransformer], object]


def add_to(module: torch.nn.Module) -> None:
    with torch.no_grad():
        next(module.parameters()).view(-1)[0] += 1e-6


def make(**settings: Any) -> SpaceTimeTransformer:
    torch.manual_seed(0)
    return tiny("vivit2", **settings)


MATTERS: dict[str, Change] = {
    "tokeniser": lambda model: add_to(model.embed),
    "first encoder": lambda model: add_to(model.encoders[0].blocks[-1]),
    "positions": lambda model: add_to(model.encoders[0].position),
    "precision": lambda model: model.bfloat16(),
}
MATTERS_NOT: dict[str, Change] = {
    "head": lambda model: add_to(model.head),
    "temporal encoder": lambda model: add_to(model.encoders[1]),
    "mode": lambda model: model.train(),
}


@pytest.mark.parametrize("change", [*MATTERS, *MATTERS_NOT])
def test_the_key_follows_the_weights_that_make_features_and_no_others(change: str) -> None:
    model = make()
    before = hash_encoder(model, size=[16, 24])
    (MATTERS | MATTERS_NOT)[change](model)
    assert (hash_encoder(model, size=[16, 24]) == before) == (change in MATTERS_NOT)


def test_the_key_follows_settings_and_inputs() -> None:
    key = hash_encoder(make(), size=[16, 24])
    assert len(key) == 64
    for settings in ({"num_classes": 9}, {"dropout": 0.5}, {"drop_path": 0.1}, {"checkpointing": True}):
        other = make(**settings)
        other.load_state_dict({**other.state_dict(), **encoder_of(make())})
        assert hash_encoder(other, size=[16, 24]) == key, settings
    for other_key in (hash_encoder(make(), size=[16, 16]), hash_encoder(make(mean=(0.1,)), size=[16, 24])):
        assert other_key != key


def encoder_of(model: SpaceTimeTransformer) -> dict[str, torch.Tensor]:
    return {name: value for name, value in model.state_dict().items() if name.startswith(("embed.", "encoders.0."))}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 5), (2, 3, 5)])
def test_what_is_written_is_read(tmp_path: Path, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    file, codes, times = tmp_path / "a.safetensors", torch.randn(shape).to(dtype), torch.arange(3.0)
    write_features(file, codes, key="k", path="walk/\udce9.mp4", seconds=(None, 2.5), times=times, labels=["a"])
    found, about = read_features(file, key="k")
    assert found.dtype == dtype
    assert torch.equal(found, codes)
    assert (about["path"], about["start_seconds"], about["end_seconds"]) == ("walk/\udce9.mp4", None, 2.5)
    assert about["labels"] == ["a"]
    assert torch.equal(load_file(file)["times"], times)
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_a_file_that_was_cut_short_is_refused(tmp_path: Path, kept: int) -> None:
    file = tmp_path / "a.safetensors"
    write_features(file, torch.randn(3, 5), key="k", path="a.mp4", seconds=(0.0, 1.0))
    with pytest.raises(ValueError, match=naming(file, "k", "other")):
        read_features(file, key="other")
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ValueError, match=naming(file, "safetensors", "bytes")):
        read_features(file, key="k")


def test_the_key_of_features_is_that_of_the_versions_before() -> None:
    """Whatever a stage may say that it could not say then: what was kept stays good."""
    model = create_model("vivit2-P/16x2", clip=(4, 32, 48), num_classes=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.5)
    assert hash_encoder(model, size=[1, 2]).startswith("adf33d3936146dcaef7467ac2a708e2f")
    assert hash_encoder(model, encoders=2, size=[1, 2]).startswith("d4a764b276ed101a62e17c22809a5a25")
