"""Weights of reference programs: read, they answer as the program does; written, they are read to the same answers."""

import pytest
import torch
from goldens import CASES, TOLERANCE, Case, examples, golden, names_on_disk
from naming import naming
from tiny import clip_for, tiny
from torch import Tensor
from torch.testing import assert_close

from tubelet.nn import SpaceTimeTransformer
from tubelet.weights import from_reference, recognise, to_reference
from tubelet.weights.dialects.reference import DIALECTS

every_case = pytest.mark.parametrize("name", CASES)


def error(model: SpaceTimeTransformer, case: Case, name: str) -> float:
    _, given, answer = golden(name)
    found = case.answered(model, given)
    assert found.shape == answer.shape
    return (found - answer).abs().max().item()


# ---- the reference's answers


def test_the_table_of_all_golden_files():
    """Printed with `pytest -s`: the largest error of each, read, and written and read again."""
    assert names_on_disk() == sorted(CASES)
    rows = []
    for name, case in CASES.items():
        model = case.read(golden(name)[0])
        again = case.read(to_reference(model, case.dialect))
        rows.append((name, case.dialect, error(model, case, name), error(again, case, name)))
    print(f"\n{'golden file':36}{'dialect':17}{'read':9}{'written, read':15}")
    for name, dialect, *errors in rows:
        print(f"{name:36}{dialect:17}{errors[0]:<9.1e}{errors[1]:<15.1e}{verdict(errors)}")
    assert [row[0] for row in rows if verdict(row[2:]) != "pass"] == []


def verdict(errors: list[float]) -> str:
    return "pass" if max(errors) <= TOLERANCE else "FAIL"


@every_case
def test_the_answer_is_the_references(name):
    case = CASES[name]
    model = case.read(golden(name)[0])
    assert model.config.family == case.family
    assert not model.training
    for what, given, answer in examples(name):
        assert_close(case.answered(model, given, what), answer, atol=TOLERANCE, rtol=0)


@every_case
def test_what_is_written_is_read_to_the_same_model(name):
    case, (state, given, answer) = CASES[name], golden(name)
    written = to_reference(case.read(state), case.dialect)
    model = case.read(written)
    assert_close(case.answered(model, given), answer, atol=TOLERANCE, rtol=0)
    assert recognise(written) == case.dialect
    assert_close(to_reference(model, case.dialect), written, atol=0, rtol=0)  # nothing drifts


REWORDED = ("hf_vivit", "hf_ast", "hf_videomae")  # in memory, or without prefix: written as they are saved
# their program always has LayerScale, which is written as ones
SCALED = ("timm_pe_spatial", "timm_dinov3", "timm_dinov3_gated")
BLANK = {"embeddings.mask_token"}  # for pretraining: left, and written as zeros
ROWS = {"timm_vit_no_embed_class": 1, "timm_vit_registers_rows": -3}  # of prefix tokens: written as is usual


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith(REWORDED) or name.endswith("saved")])
def test_what_is_written_has_the_names_and_shapes_of_what_was_read(name):
    case, state = CASES[name], golden(name)[0]
    taken = case.taken(state)
    left = {move.theirs for move in taken.moves if not move.ours} - BLANK
    root = "timesformer." if name == "hf_timesformer_base" else ""
    left |= set() if name in SCALED else {key for key in state if "gamma" in key}
    shapes = {root + key: list(value.shape) for key, value in state.items() if key not in left}
    if name in ROWS:
        shapes["pos_embed"][1] += ROWS[name]
    assert {key: list(value.shape) for key, value in to_reference(taken.model, case.dialect).items()} == shapes


@every_case
def test_each_tensor_of_theirs_and_of_ours_is_in_the_account_once(name):
    case, (state, _, _) = CASES[name], golden(name)
    taken = case.taken(state)
    theirs = [tensor for move in taken.moves for tensor in move.theirs.split(" + ")]
    assert sorted(theirs) == sorted(state)
    ours = [tensor for move in taken.moves for tensor in move.ours.split(" + ") if tensor]
    assert len(ours) == len(set(ours))
    unsaid = set(taken.model.state_dict()) - set(ours)
    made_here = {"metatransformer": {"embed.proj.weight", "embed.proj.bias"}, "hf-videomae": {TABLE}}
    assert unsaid == made_here.get(case.dialect, set())
    assert {move.how.split(":")[0] for move in taken.moves if not move.ours} <= {"left"}


TABLE = "encoders.0.position.tables.0"


def test_what_is_left_is_said_with_its_reason():
    state, _, _ = golden("hf_videomae_pretraining")
    moves = CASES["hf_videomae_pretraining"].taken(state).moves
    left = {move.theirs: move.how for move in moves if not move.ours}
    assert set(left.values()) == {"left: the decoder is for pretraining"}
    assert set(left) == {name for name in state if not name.startswith("videomae.")}


def test_a_model_that_was_written_shares_no_memory_with_it():
    state = golden("hf_vivit")[0]
    model = CASES["hf_vivit"].read(state)
    written = to_reference(model, "hf-vivit")
    places = [tensor.untyped_storage().data_ptr() for tensor in (*written.values(), *model.parameters())]
    assert len(places) == len(set(places))


# ---- names


@every_case
def test_the_dialect_is_recognised_by_the_names(name):
    for wrapper in ("", "module.", "model.", "model.module.", "_orig_mod.", "params/", "opt/target/params/"):
        assert recognise([wrapper + tensor for tensor in golden(name)[0]]) == CASES[name].dialect


@pytest.mark.parametrize("wrapper", ["module.", "model._orig_mod.", "opt/target/params/"])
def test_the_state_may_be_arrays_and_wrapped_as_trainers_wrap_it(wrapper):
    for name in ("timm_vit", "scenic_model2_token"):
        case, (state, given, answer) = CASES[name], golden(name)
        arrays = {wrapper + key: value.numpy() for key, value in state.items()}
        for array in arrays.values():
            array.flags.writeable = False  # as those of JAX are
        assert_close(case.answered(case.read(arrays), given), answer, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("names", [["head.weight", "stem.weight"], ["vit.embeddings.cls_token"], []], ids=str)
def test_names_of_no_dialect(names):
    with pytest.raises(ValueError, match=naming(*names, "scenic", "timesformer", "audiomae")):
        recognise(names)


def test_audiomae_is_never_recognised_for_it_has_timms_names():
    assert recognise(to_reference(tiny("vit", channels=1), "audiomae")) == "timm"


def test_an_image_model_of_hugging_face_is_not_taken_for_a_video_model():
    """Without prefix the names of its ViT are those of its ViViT."""
    state = golden("hf_vivit_base")[0]
    assert recognise(state) == "hf-vivit"
    kernel = "embeddings.patch_embeddings.projection.weight"
    with pytest.raises(ValueError, match=naming(f"'{kernel}'", "(32, 3, 4, 4)", 5)):
        CASES["hf_vivit_base"].read(state | {kernel: state[kernel][:, :, 0]})


def test_a_picture_model_of_hugging_face_is_not_taken_for_ast():
    state = golden("hf_ast_base")[0]
    kernel = "embeddings.patch_embeddings.projection.weight"
    with pytest.raises(ValueError, match=naming("AST's", 3)):
        CASES["hf_ast_base"].read(state | {kernel: state[kernel].expand(-1, 3, -1, -1)})


ON_DISK = {  # the words of transformers 5 in memory: those that every version writes
    ".layers.": ".encoder.layer.",
    "attention.q_proj": "attention.attention.query",
    "attention.k_proj": "attention.attention.key",
    "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
    "query.bias": "q_bias",
    "value.bias": "v_bias",
}


@pytest.mark.parametrize("name", ["hf_vivit", "hf_ast", "hf_videomae"])
def test_both_wordings_of_transformers_are_one_model(name):
    state, case = golden(name)[0], CASES[name]
    words = {old: new for old, new in ON_DISK.items() if "bias" not in old or name == "hf_videomae"}
    on_disk = {reworded(tensor, words): value for tensor, value in state.items()}
    model = case.read(state)
    assert_close(case.read(on_disk).state_dict(), model.state_dict(), atol=0, rtol=0)
    assert set(to_reference(model, case.dialect)) == set(on_disk)


def reworded(name: str, words: dict[str, str]) -> str:
    for old, new in words.items():
        name = name.replace(old, new)
    return name


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("hf_vivit", "vivit."),
        ("hf_vivit_saved", "vivit."),
        ("hf_ast", "audio_spectrogram_transformer."),
        ("hf_timesformer_joint_space_time", "timesformer."),
        ("hf_vjepa2_pooled", "vjepa2."),
        ("hf_videomae_pretraining", "videomae."),
    ],
)
def test_a_model_without_head_is_saved_without_prefix(name, prefix):
    """Its tokens are those of the model with a head."""
    case, (state, _, _) = CASES[name], golden(name)
    bare = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    assert recognise(bare) == case.dialect
    with_head, without = case.read(state), case.read(bare)
    assert without.config.num_classes == 0
    clip = clip_for(with_head)
    assert_close(without.tokens(clip)[0], with_head.tokens(clip)[0], atol=0, rtol=0)


# ---- AudioMAE: theirs has rows of time, ours rows of mel


def transposed(x: Tensor) -> Tensor:
    return x.transpose(-1, -2)


@pytest.mark.parametrize("name", ["timm_vit_avg_fc_norm", "timm_vit_spectrogram"])
def test_audiomae_is_timms_vit_on_the_transposed_spectrogram(name):
    state, given, answer = golden(name)  # given: (B, 1, time, mel)
    time, mel = CASES[name].clip[1:]
    model = from_reference(state, "audiomae", heads=4, clip=(1, mel, time))
    assert model.config.clip == (1, mel, time)
    assert_close(model(transposed(given)[:, :, None]), answer, atol=TOLERANCE, rtol=0)
    assert_close(to_reference(model, "audiomae"), to_reference(CASES[name].read(state), "timm"), atol=0, rtol=0)


def test_patches_that_are_not_square_are_turned_too():
    model = tiny("vit", channels=1, patch=(1, 4, 2), clip=(1, 8, 12))
    written = to_reference(model, "audiomae")
    clip = clip_for(model)
    theirs = from_reference(written, "timm", heads=4, clip=(1, 12, 8))
    assert theirs.config.embed.patch == (1, 2, 4)
    assert_close(theirs(transposed(clip)), model(clip), atol=TOLERANCE, rtol=0)


def test_audiomae_has_no_resnet():
    with pytest.raises(ValueError, match=naming("ResNet", "dialect='timm'")):
        from_reference(golden("timm_hybrid_stem")[0], "audiomae", heads=4, clip=(1, 96, 64))


# ---- equal in law


def test_layer_scale_is_folded_without_loss():
    state, given, answer = golden("timm_vit")
    for name, gamma in (("attn.proj", "ls1"), ("mlp.fc2", "ls2")):
        for i in range(2):
            scale = 0.5 + torch.rand(32)
            state[f"blocks.{i}.{gamma}.gamma"] = scale
            state[f"blocks.{i}.{name}.weight"] /= scale[:, None]
            state[f"blocks.{i}.{name}.bias"] /= scale
    case = CASES["timm_vit"]
    assert_close(case.answered(case.read(state), given), answer, atol=TOLERANCE, rtol=0)


def test_a_distilled_deit_without_heads_gives_the_mean_of_both_tokens():
    state, given, _ = golden("timm_deit_distilled")
    case = CASES["timm_deit_distilled"]
    bare = {name: tensor for name, tensor in state.items() if not name.startswith("head")}
    tokens = case.read(state).tokens(given[:, :, None])[0]
    assert_close(case.read(bare)(given[:, :, None]), tokens[:, :2].mean(1), atol=TOLERANCE, rtol=0)


def test_all_dialects_have_a_golden_file_but_the_one_that_is_asked_for():
    assert {case.dialect for case in CASES.values()} == set(DIALECTS) - {"audiomae"}
