import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from tubelet.nn import SpaceTimeTransformer
from tubelet.weights import from_reference

GOLDEN = Path(__file__).parent / "golden"  # README.md there says which program made each file
VIDEO = {"heads": 4, "clip": (8, 32, 48)}

PARITY = {
    "scenic_model1_token": ("scenic", VIDEO, "vivit1"),
    "scenic_model1_gap": ("scenic", VIDEO | {"family": "vivit1"}, "vivit1"),
    "scenic_model1_uniform_frames": ("scenic", VIDEO | {"frames": 3}, "vivit1"),
    "scenic_model2_token": ("scenic", VIDEO, "vivit2"),
    "scenic_model2_gap": ("scenic", VIDEO, "vivit2"),
    "scenic_model3_space_time": ("scenic", VIDEO, "vivit3"),
    "scenic_model3_time_space": ("scenic", VIDEO | {"attend": "t,hw"}, "vivit3"),
    "scenic_model4": ("scenic", VIDEO | {"family": "vivit4"}, "vivit4"),
    "timesformer_original_divided": ("timesformer", {"heads": 4, "clip": (4, 32, 32)}, "timesformer"),
    "timm_vit": ("timm", {"heads": 4, "clip": (1, 48, 32)}, "vit"),
    "timm_vit_gap_nocls": ("timm", {"heads": 4, "clip": (1, 32, 48)}, "vit"),
    "timm_vit_spectrogram": ("timm", {"heads": 4, "clip": (1, 64, 16)}, "vit"),
    "timm_vit_rect_dynamic": ("timm", {"heads": 4, "clip": (1, 64, 16)}, "vit"),
    "timm_vit_rect_equal_tokens": ("timm", {"heads": 4, "clip": (1, 64, 16)}, "vit"),
}


def golden(name: str) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """Weights in the reference's names, a clip (B, C, T, H, W), the reference's logits."""
    npz = GOLDEN / f"{name}.npz"
    if npz.exists():
        with np.load(npz) as file:
            tensors = {key: torch.from_numpy(file[key]) for key in file.files}
    else:
        tensors = load_file(npz.with_suffix(".safetensors"))
    if "input_bthwc" in tensors:
        clip, logits = tensors.pop("input_bthwc").permute(0, 4, 1, 2, 3), tensors.pop("logits")
        return {key.removeprefix("param/"): value for key, value in tensors.items()}, clip, logits
    if "x" in tensors:
        clip, logits = tensors.pop("x"), tensors.pop("y")
        return {key: value for key, value in tensors.items() if not key.endswith("_off")}, clip, logits
    clip, logits = tensors.pop("input")[:, :, None], tensors.pop("logits")
    return {key.removeprefix("weights."): value for key, value in tensors.items()}, clip, logits


def convert(name: str, state: dict[str, torch.Tensor]) -> SpaceTimeTransformer:
    dialect, settings, _ = PARITY[name]
    return from_reference(state, dialect, **settings)


@pytest.mark.parametrize("name", PARITY)
def test_parity_with_the_reference(name):
    state, clip, logits = golden(name)
    model = convert(name, state)
    model.set_input_size(clip.shape[2:])
    assert model.config.family == PARITY[name][2]
    assert not model.training
    assert_close(model(clip), logits, atol=1e-5, rtol=0)


def test_the_state_may_be_arrays_and_wrapped_as_trainers_wrap_it():
    state, clip, logits = golden("timm_vit")
    wrapped = {f"module.{name}": value.numpy() for name, value in state.items()}
    assert_close(convert("timm_vit", wrapped)(clip), logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "name", ["scenic_model1_token", "scenic_model2_token", "timesformer_original_divided", "timm_vit"]
)
def test_a_tensor_that_is_left_over_is_an_error(name):
    state, _, _ = golden(name)
    with pytest.raises(
        ValueError, match=r"1 tensors have no place in our \w+ model, nothing was loaded:\n  extra \(3,\)"
    ):
        convert(name, state | {"extra": torch.zeros(3)})


@pytest.mark.parametrize(
    "name", ["scenic_model1_token", "scenic_model2_token", "timesformer_original_divided", "timm_vit"]
)
def test_every_tensor_is_needed(name):
    state, _, _ = golden(name)
    for missing in state:
        rest = {key: value for key, value in state.items() if key != missing}
        # without its token a model looks like one that pools by mean
        with pytest.raises(
            ValueError, match=rf"no tensor '{re.escape(missing)}'|have no place|position table has|family="
        ):
            convert(name, rest)


def test_a_tensor_of_another_shape_is_an_error():
    state, _, _ = golden("timm_vit")
    state["blocks.1.mlp.fc1.weight"] = torch.zeros(128, 31)
    message = "shape: encoders.0.blocks.1.mlp.fc1.weight is (128, 31), the model has (128, 32)"
    with pytest.raises(ValueError, match=re.escape(message)):
        convert("timm_vit", state)


def test_weights_that_are_not_finite_are_an_error():
    state, _, _ = golden("timm_vit")
    state["norm.bias"][3] = torch.nan
    with pytest.raises(ValueError, match=r"not finite: encoders\.0\.norm\.bias"):
        convert("timm_vit", state)


def test_the_clip_must_be_the_one_the_weights_are_made_for():
    state, _, _ = golden("scenic_model1_token")
    message = r"the position table has 97 rows, expected 1 for prefix tokens and 72 for the grid \(3, 4, 6\)"
    with pytest.raises(ValueError, match=message):
        from_reference(state, "scenic", heads=4, clip=(6, 32, 48))


def test_scenic_models_1_and_4_look_alike():
    state, _, _ = golden("scenic_model4")
    with pytest.raises(
        ValueError, match="Models 1 and 4 have the same weights: say which with family='vivit1' or 'viv"
    ):
        from_reference(state, "scenic", **VIDEO)


@pytest.mark.parametrize("family", ["vivit1", "vivit3", "vivit4"])
def test_a_family_that_the_weights_contradict_is_refused(family):
    state, _, _ = golden("scenic_model2_token")
    with pytest.raises(ValueError, match=f"got family='{family}', but the weights say 'vivit2': leave family out"):
        from_reference(state, "scenic", **VIDEO, family=family)


@pytest.mark.parametrize("settings", [{"family": "vivit1"}, {"attend": "hw"}, {"frames": 2}], ids=str)
def test_settings_that_the_weights_tell_themselves_are_refused(settings):
    state, _, _ = golden("timm_vit")
    with pytest.raises(ValueError, match=f"got {next(iter(settings))}=.*leave {next(iter(settings))} out"):
        from_reference(state, "timm", heads=4, clip=(1, 48, 32), **settings)


@pytest.mark.parametrize(("name", "attend"), [("scenic_model3_space_time", "thw"), ("scenic_model2_gap", "t,hw")])
def test_an_order_that_cannot_be_is_refused(name, attend):
    state, _, _ = golden(name)
    with pytest.raises(ValueError, match=f"got attend='{attend}', but"):
        from_reference(state, "scenic", **VIDEO, attend=attend)


def test_unknown_and_wrong_dialects_are_refused():
    state, _, _ = golden("timm_vit")
    with pytest.raises(ValueError, match="unknown dialect 'torch': expected one of scenic, timesformer, timm"):
        from_reference(state, "torch", heads=4, clip=(1, 48, 32))
    with pytest.raises(ValueError, match=r"no tensor 'embedding/kernel' \(they begin with .*\): is the dialect right"):
        from_reference(state, "scenic", heads=4, clip=(1, 48, 32))


def test_layer_scale_is_folded_without_loss():
    state, clip, logits = golden("timm_vit")
    for name, gamma in (("attn.proj", "ls1"), ("mlp.fc2", "ls2")):
        for i in range(2):
            scale = 0.5 + torch.rand(32)
            state[f"blocks.{i}.{gamma}.gamma"] = scale
            state[f"blocks.{i}.{name}.weight"] /= scale[:, None]
            state[f"blocks.{i}.{name}.bias"] /= scale
    assert_close(convert("timm_vit", state)(clip), logits, atol=1e-5, rtol=0)
