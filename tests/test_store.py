import errno
import json
import os
import re
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from naming import naming
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import clip_for, tiny
from torch.testing import assert_close

from tubelet.nn import FAMILIES
from tubelet.weights import load, read_about, save
from tubelet.weights.store import load_strict


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("place", ["model.safetensors", "runs/first"])
def test_what_is_saved_comes_back_exactly(tmp_path, family, place):
    model = tiny(family, mean=(0.1, 0.2, 0.3)).train()
    model.set_input_size((model.input_size[0], 12, 4))
    about = {"classes": ["chaud", "froid ❄"], "clip": {"frames": 8, "seconds": 1.5}}
    file = save(model, tmp_path / place, about=about)
    assert file == tmp_path / (place if place.endswith(".safetensors") else f"{place}/model.safetensors")
    back = load(tmp_path / place)
    assert (back.config, back.input_size, back.training) == (model.config, (model.input_size[0], 12, 4), False)
    assert_close(back.state_dict(), model.state_dict(), atol=0, rtol=0)
    clip = clip_for(back)
    assert_close(back(clip), model.eval()(clip), atol=0, rtol=0)
    assert read_about(tmp_path / place) == about


def test_the_header_is_json_that_other_programs_can_read(tmp_path):
    model = tiny("vivit2")
    file = save(model, tmp_path / "a.safetensors")
    with safe_open(file, "pt") as handle:
        header = json.loads(handle.metadata()["tubelet"])
    assert header == {
        "model": json.loads(json.dumps(asdict(model.config))),
        "input_size": [8, 8, 12],
        "about": {},
    }
    assert load_file(file)["embed.proj.weight"].shape == (24, 3, 2, 4, 4)


def test_a_save_replaces_the_file_whole_and_leaves_nothing_else(tmp_path):
    save(tiny("vivit1"), tmp_path)
    second = tiny("vivit4")
    save(second, tmp_path)
    assert os.listdir(tmp_path) == ["model.safetensors"]
    assert load(tmp_path).config == second.config


def test_a_save_that_fails_leaves_the_old_file(tmp_path):
    first = tiny("vivit1")
    save(first, tmp_path)
    with pytest.raises(TypeError, match=naming("JSON")):
        save(tiny("vivit4"), tmp_path, about={"classes": {1, 2}})
    assert os.listdir(tmp_path) == ["model.safetensors"]
    assert load(tmp_path).config == first.config


def test_a_disk_that_is_full_leaves_the_old_file(tmp_path, monkeypatch):
    first = tiny("vivit1")
    save(first, tmp_path)

    def half(tensors, file, metadata):
        Path(file).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tubelet.weights.store.save_file", half)
    with pytest.raises(OSError, match="No space"):
        save(tiny("vivit4"), tmp_path)
    assert os.listdir(tmp_path) == ["model.safetensors"]
    assert load(tmp_path).config == first.config


@pytest.fixture
def file(tmp_path):
    return save(tiny("vivit1"), tmp_path / "model.safetensors")


@pytest.mark.parametrize("read", [load, read_about])
def test_a_missing_file_is_named(tmp_path, read):
    for path in (tmp_path / "none.safetensors", tmp_path, tmp_path / "none"):
        with pytest.raises(ValueError, match=naming(path, ".safetensors", "model.safetensors")):
            read(path)


@pytest.mark.parametrize("read", [load, read_about])
@pytest.mark.parametrize("kept", [0, 5, 200, -1])
def test_a_truncated_file_is_named(file, kept, read):
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ValueError, match=naming(file, "safetensors", "bytes")):
        read(file)


@pytest.mark.parametrize("read", [load, read_about])
def test_a_file_of_other_bytes_is_named(file, read):
    file.write_bytes(b"\xff" * 4000)
    with pytest.raises(ValueError, match=naming(file, 4000)):
        read(file)


def replace_head(model):
    model.head = torch.nn.Linear(24, 7)


def add_a_tensor(model):
    model.register_buffer("extra", torch.zeros(3))


def quantise(model):
    model.head.weight = torch.nn.Parameter(model.head.weight.to(torch.int8), requires_grad=False)


@pytest.mark.parametrize(
    ("change", "values"),
    [
        (replace_head, ("head.weight", "(7, 24)", "(5, 24)")),
        (add_a_tensor, ("extra", "(3,)")),
        (quantise, ("head.weight", "torch.int8")),
    ],
)
def test_a_model_that_could_not_be_loaded_is_not_written(change, values, tmp_path):
    model = tiny("vivit1")
    change(model)
    with pytest.raises(ValueError, match=naming(*values, "num_classes=...")):
        save(model, tmp_path / "new" / "model.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("read", [load, read_about])
def test_a_file_of_another_program_is_named(file, read):
    save_file({"a": torch.zeros(2)}, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=naming(f"tubelet convert {file}", "--init")):
        read(file)


@pytest.mark.parametrize("read", [load, read_about])
def test_the_state_of_a_run_is_no_model(file, read):
    save_file({"a": torch.zeros(2)}, file, metadata={"tubelet": json.dumps({"step": 3})})
    with pytest.raises(ValueError, match=naming(file, "model.safetensors", "run")):
        read(file)


def change(file, tensors):
    with safe_open(file, "pt") as handle:
        metadata = handle.metadata()
    save_file(tensors, file, metadata=metadata)


def test_every_misfit_is_listed_at_once(file):
    tensors = load_file(file)
    del tensors["head.bias"]
    tensors["head.weight"] = torch.zeros(5, 23)
    tensors["tail"] = torch.zeros(2)
    change(file, tensors)
    with pytest.raises(ValueError, match=naming(file)) as caught:
        load(file)
    assert str(caught.value).splitlines()[1:] == [
        "  missing: head.bias (5,)",
        "  unknown: tail (2,)",
        "  shape: head.weight is (5, 23), the model has (5, 24)",
    ]


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused(file, value):
    tensors = load_file(file)
    tensors["head.bias"][2] = value
    change(file, tensors)
    with pytest.raises(ValueError, match=naming(file, "finite", "head.bias")):
        load(file)


def test_settings_of_another_version_are_refused(file):
    with safe_open(file, "pt") as handle:
        header = json.loads(handle.metadata()["tubelet"])
    header["model"]["colour"] = 1
    save_file(load_file(file), file, metadata={"tubelet": json.dumps(header)})
    with pytest.raises(ValueError, match=naming(file, "colour")):
        load(file)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_without_loss(file, dtype):
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(file).items()}
    change(file, tensors)
    found = load(file).state_dict()
    assert all(found[name].dtype == torch.float32 and torch.equal(found[name], tensors[name].float()) for name in found)


def test_a_model_in_float64_comes_back_rounded(file):
    model = tiny("vivit1").double()
    save(model, file)
    found = load(file).state_dict()
    assert all(torch.equal(found[name], tensor.float()) for name, tensor in model.state_dict().items())


def test_a_float64_that_float32_cannot_hold_is_refused(file):
    tensors = load_file(file)
    tensors["head.bias"] = torch.full_like(tensors["head.bias"], 1e300, dtype=torch.float64)
    change(file, tensors)
    with pytest.raises(ValueError, match=naming(file, "finite", "head.bias")):
        load(file)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool])
def test_other_dtypes_are_never_cast(file, dtype):
    tensors = load_file(file)
    tensors["head.bias"] = tensors["head.bias"].to(dtype)
    change(file, tensors)
    with pytest.raises(ValueError, match=naming(file, "head.bias", dtype, "torch.float32")):
        load(file)
    with pytest.raises(ValueError, match=naming("these", "head.bias", dtype)):
        load_strict(tiny("vivit1"), tensors, what="these")


def test_a_long_list_of_misfits_is_cut(file):
    change(file, {f"tensor {i}": torch.zeros(1) for i in range(1000)})
    with pytest.raises(ValueError, match=naming(file)) as caught:
        load(file)
    lines = str(caught.value).splitlines()
    assert len(lines) == 42
    assert re.fullmatch(r"  and \d+ more", lines[-1])
