"""What is wrong with weights of others is said: nothing is filled in, broadcast, cut or ignored."""

import re

import pytest
import torch
from goldens import CASES, golden, loaded
from naming import naming
from torch import Tensor
from torch.testing import assert_close

from tubelet.weights import from_reference

every_case = pytest.mark.parametrize("name", CASES)

# What another kind of model is whole without. Tensors that are left have no part in the model.
OTHER_MODELS = {
    "timm_vit_no_embed_class": {"cls_token"},  # mean pooling
    "timm_vit_registers": {"cls_token", "reg_token"},
    "timm_vit_registers_gap": {"reg_token"},
    "hf_timesformer_joint_space_time": {"timesformer.embeddings.time_embeddings"},  # space only
    "pe_core_original": {"visual.proj"},  # no head
    "timm_dinov3": {"reg_token"},  # without registers
    "timm_dinov3_gated": {"reg_token"},
}


@every_case
def test_every_tensor_is_needed(name):
    state, case = golden(name)[0], CASES[name]
    moves = case.taken(state).moves
    left = {move.theirs for move in moves if not move.ours}
    for missing in set(state) - left - OTHER_MODELS.get(name, set()):
        rest = {key: value for key, value in state.items() if key != missing}
        # without its token a model looks like one that pools by mean
        message = rf"no tensor '{re.escape(missing)}'|the position table has|family=|\d+ tensors have no place"
        with pytest.raises(ValueError, match=message):
            case.read(rest)


@every_case
def test_a_tensor_that_is_left_over_is_an_error(name):
    state, case = golden(name)[0], CASES[name]
    with pytest.raises(ValueError, match=naming(1, case.dialect, "extra (3,)")):
        case.read(state | {"extra": torch.zeros(3)})


def misshapen(tensor: Tensor) -> list[Tensor]:
    """One longer along its last axis; one axis more; one number, which would be broadcast."""
    longer = torch.zeros(*tensor.shape[:-1], tensor.shape[-1] + 1)
    return [longer, tensor.expand(2, *tensor.shape), torch.zeros([1] * tensor.ndim)]


def new_names() -> dict[str, list[str]]:
    """Of each golden file the tensors whose names, but for numbers, no file before it has in the same dialect."""
    seen: set[tuple[str, str]] = set()
    found: dict[str, list[str]] = {}
    for name, case in CASES.items():
        for tensor in loaded(name)[0]:
            kind = case.dialect, re.sub(r"\d+", "0", tensor)
            if kind not in seen and not tensor.startswith(LEFT):
                seen.add(kind)
                found.setdefault(name, []).append(tensor)
    return found


LEFT = ("predictor.", "vjepa2.predictor.", "decoder.", "encoder_to_decoder.", "mask_token", "pooler.dense.")
LEFT += ("embeddings.mask_token",)
LEFT += ("transformer.", "token_embedding.", "positional_embedding", "ln_final.", "text_projection", "logit_scale")
LEFT += ("text_model.", "text_encoder/")


@pytest.mark.parametrize(("name", "tensors"), new_names().items(), ids=list(new_names()))
def test_a_tensor_of_another_shape_is_an_error(name, tensors):
    state, case = golden(name)[0], CASES[name]
    for tensor in tensors:
        for wrong in misshapen(state[tensor]):
            if wider(name, tensor) and wrong.ndim == state[tensor].ndim:
                continue
            with pytest.raises(ValueError, match=SHAPES):
                case.read(state | {tensor: wrong})


def wider(name: str, tensor: str) -> bool:
    """Whether a tensor may be longer: patches that overlap more; a longer embedding."""
    return tensor == "visual.proj" or (name.startswith("hf_ast") and tensor.endswith("projection.weight"))


SHAPES = "|".join(
    [
        "shapes that do not go together, nothing was loaded",
        "the weights do not fit the model:\n  shape",
        r"has shape \(.*\), expected",
        "the position table has",
        "is not filled by",
        "heads do not divide the width",
        "rotary positions turn pairs",
        "got heads=",
        "got widths=",
        "no tensor 'reg_token'",
        "AST's spectrograms have one channel",
        "smaller than",
        "embeds single frames, got a tubelet of 2",
        "are taken of each frame",
        "counted in patches of 16 px",
    ]
)


def test_the_error_of_a_shape_names_the_tensors():
    state, case = golden("timm_vit")[0], CASES["timm_vit"]
    with pytest.raises(ValueError, match=naming("encoders.0.blocks.1.mlp.fc1.weight", "(128, 31)", "(128, 32)")):
        case.read(state | {"blocks.1.mlp.fc1.weight": torch.zeros(128, 31)})
    state, case = golden("hf_vivit")[0], CASES["hf_vivit"]
    key = "vivit.layers.1.attention.k_proj.weight"
    with pytest.raises(ValueError, match=naming(f"{key.replace('k_proj', 'q_proj')} (32, 32)", f"{key} (32, 31)")):
        case.read(state | {key: torch.zeros(32, 31)})


@pytest.mark.parametrize("name", ["timm_vit", "scenic_model2_token", "hf_vjepa2_pooled", "timm_swinv2_cr"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_an_error(name, value):
    state, case = golden(name)[0], CASES[name]
    for tensor in ("norm.bias", "Transformer/encoder_norm/bias", "classifier.bias", "patch_embed.norm.bias"):
        if tensor in state or (tensor := f"Spatial{tensor}") in state:
            state[tensor][3] = value
            with pytest.raises(ValueError, match=naming("finite")):
                case.read(state)


@pytest.mark.parametrize(
    ("name", "clip", "values"),
    [
        ("scenic_model1_token", (6, 32, 48), (97, 1, 72, "(3, 4, 6)")),
        ("hf_vivit", (8, 32, 48), (65, 1, 96, "(4, 4, 6)")),
        (
            "hf_timesformer_divided_space_time",
            (8, 32, 32),
            (4, 0, 8, "(8, 1, 1)"),
        ),
        ("timm_vit", (1, 32, 32), (25, 1, 16, "(1, 4, 4)", "clip=(T, H, W)")),
        ("timm_deit_distilled", (1, 24, 24), (14, 2, 9, "(1, 3, 3)")),
        ("timm_vit", (1, 50, 32), ("H = 50", "(1, 50, 32)")),
        ("timm_vit", (48, 32), ("clip=(48, 32)", "(T, H, W)")),
    ],
)
def test_the_clip_must_be_the_one_the_weights_are_made_for(name, clip, values):
    case = CASES[name]
    with pytest.raises(ValueError, match=naming(*values)):
        from_reference(golden(name)[0], case.dialect, **case.settings() | {"clip": clip})


# ---- what is told


def told_wrong(name: str, *values: object, **told: object) -> None:
    case = CASES[name]
    with pytest.raises(ValueError, match=naming(*values)):
        from_reference(golden(name)[0], case.dialect, **case.settings() | told)


def test_scenics_models_1_and_4_look_alike():
    told_wrong("scenic_model4", "family='vivit1'", "'vivit4'", family=None)


@pytest.mark.parametrize("family", ["vivit1", "vivit3", "vivit4"])
def test_a_family_that_the_weights_contradict_is_refused(family):
    told_wrong("scenic_model2_token", f"family='{family}'", "'vivit2'", family=family)


OTHERS = {"family": "vivit3", "attend": "hw", "frames": 2, "stride": (1, 2, 2), "window": (1, 2, 2)}
TELLABLE = {  # what the weights of a dialect do not tell
    "scenic": {"family", "attend", "frames"},
    "timm": {"stride", "window"},
    "hf-ast": {"stride"},
    "metatransformer": {"stride"},
}


@every_case
def test_what_the_weights_tell_themselves_must_not_be_told_otherwise(name):
    for setting in set(OTHERS) - TELLABLE.get(CASES[name].dialect, set()):
        told_wrong(name, f"{setting}={OTHERS[setting]!r}", **{setting: OTHERS[setting]})


def test_what_the_weights_tell_themselves_may_be_told_as_it_is():
    case, told = CASES["hf_vivit"], {"family": "vivit1", "attend": "thw"}
    assert_close(
        from_reference(golden("hf_vivit")[0], "hf-vivit", **case.settings(), **told).state_dict(),
        case.read(golden("hf_vivit")[0]).state_dict(),
    )


@pytest.mark.parametrize(("name", "attend"), [("scenic_model3_space_time", "thw"), ("scenic_model2_gap", "t,hw")])
def test_an_order_that_cannot_be_is_refused(name, attend):
    told_wrong(name, f"attend='{attend}'", attend=attend)


@pytest.mark.parametrize("heads", [2, 8, (2, 4)])
def test_scenics_kernels_tell_the_heads(heads):
    for name in ("scenic_model1_token", "scenic_model3_space_time"):
        told_wrong(name, f"heads={heads}", "heads=4", heads=heads)


def test_heads_that_cannot_be_are_refused():
    told_wrong("hf_vivit", "heads", 5, 32, heads=5)
    told_wrong("timm_vit", "(2, 4)", heads=(2, 4))
    told_wrong("timm_swinv2_cr", "(2,)", "(4,)", heads=(4, 4))


@pytest.mark.parametrize("told", [{"heads": 4}, {"window": None}])
def test_swin_needs_heads_of_each_stage_and_windows(told):
    told_wrong("timm_swinv2_cr", "Swin", *(f"{name}={value}" for name, value in told.items()), **told)


def test_a_dialect_that_is_not_that_of_the_weights():
    state = golden("timm_vit")[0]
    with pytest.raises(ValueError, match=naming("'embedding/kernel'")):
        from_reference(state, "scenic", heads=4, clip=(1, 48, 32))
    with pytest.raises(ValueError, match=naming(40, "timm")):
        from_reference(golden("hf_vivit")[0] | state, "timm", heads=4, clip=(1, 48, 32))


def test_weights_that_our_models_do_not_have():
    state = {key: value for key, value in golden("hf_videomae")[0].items() if not key.startswith("fc_norm")}
    with pytest.raises(ValueError, match=naming("use_mean_pooling=False")):
        CASES["hf_videomae"].read(state)
    state = golden("timesformer_original_divided")[0]
    del state["time_embed"]
    with pytest.raises(ValueError, match=naming("'time_embed'")):
        CASES["timesformer_original_divided"].read(state)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64])
def test_integers_are_no_weights(dtype):
    state, case = golden("timm_vit")[0], CASES["timm_vit"]
    quantised = state | {"blocks.0.mlp.fc1.weight": state["blocks.0.mlp.fc1.weight"].to(dtype)}
    message = naming("'blocks.0.mlp.fc1.weight'", dtype)
    with pytest.raises(ValueError, match=message):
        case.read(quantised)
    with pytest.raises(ValueError, match=message):
        case.read({name: tensor.numpy() for name, tensor in quantised.items()})
