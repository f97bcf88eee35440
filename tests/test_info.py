import pytest
import torch
from hanging import ending
from naming import naming
from tiny import FAMILIES, clip_for, tiny

from tubelet.info import print_info
from tubelet.nn.cost import describe

PAPER_CLIP = {"clip": (32, 224, 224), "num_classes": 400}


def kept_bytes(model) -> int:
    """What autograd really keeps in a training forward pass, on real tensors."""
    owned = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        kept.setdefault(storage.data_ptr(), storage)  # holding it, so that its address is not given out again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.train()(clip_for(model, batch=1))
    return sum(storage.nbytes() for address, storage in kept.items() if address not in owned)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_shadow_keeps_the_bytes_that_a_real_model_keeps(family, checkpointing):
    model = tiny(family, checkpointing=checkpointing)
    assert describe(model).activation_bytes == kept_bytes(model)


@pytest.mark.parametrize("family", FAMILIES)
def test_checkpointing_keeps_less(family):
    plain, saving = (describe(tiny(family, checkpointing=choice)) for choice in (False, True))
    assert saving.activation_bytes < plain.activation_bytes / 2
    assert saving.gmacs == plain.gmacs


@pytest.mark.parametrize("family", FAMILIES)
def test_the_parts_add_up_to_the_model(family):
    model = tiny(family)
    info = describe(model)
    assert info.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert sum(part.parameters for part in info.parts) == info.parameters
    assert sum(part.gmacs for part in info.parts) == pytest.approx(info.gmacs)
    assert all(part.gmacs > 0 for part in info.parts)
    assert info.tokens == model.grid(model.input_size)
    assert info.prefix == model.stack[0].prefix_size
    assert [part.name for part in info.parts] == [
        "embed",
        *(f"encoders.{i}" for i in range(len(model.encoders))),
        "head",
    ]


@pytest.mark.parametrize(("settings", "prefix"), [({}, 1), ({"prefix": 5}, 5), ({"pool": "mean"}, 0)], ids=str)
def test_the_prefix_is_counted_as_it_is(settings, prefix):
    info = describe(tiny("vivit1", **settings))
    assert info.prefix == prefix
    assert info.parts[1].what == f"2 x thw, 1 x {24 + prefix} tokens"


@pytest.mark.parametrize("model", ["vivit1-P/16x2", None], ids=["by name", "a model"])
def test_a_model_without_head_has_no_such_part(model, capsys):
    info = describe(model, num_classes=0) if model else describe(tiny("vivit1", num_classes=0))
    assert [part.name for part in info.parts] == ["embed", "encoders.0"]
    assert info.num_classes == 0
    print_info(info)
    printed = capsys.readouterr().out
    assert "no head" in printed
    assert "classes" not in printed


def test_macs_of_attentive_pooling_by_hand():
    """One block on 6 tokens of width 8, then one query: its projection, that of 6 keys and values, scores, mix, MLP.
    The MLPs of a pool have four times the width, also where the encoder's have not."""
    numbers = {"dim": 8, "heads": 1, "depth": 1, "mlp_dim": 20, "pool_depth": 1}
    with_query, plain = (describe(tiny("vit", pool=pool, **numbers)) for pool in ("attentive", "mean"))
    block = 6 * 4 * 8 * 8 + 2 * 6 * 6 * 8 + 6 * 2 * 8 * 32  # its MLPs are four times as wide as the tokens
    query = (1 + 6 + 6) * 8 * 8 + 2 * 6 * 8 + 2 * 8 * 32
    assert round(1e9 * (with_query.gmacs - plain.gmacs)) == block + query


def test_macs_of_windows_by_hand():
    """One block of windows of 1 x 2 x 2 on 1 x 4 x 6 tokens of width 8: 6 windows of 4, and the MLP of their bias."""
    model = tiny(
        "swin2", dim=8, depths=(1,), heads=(1,), window=(1, 2, 2), patch=(1, 4, 4), clip=(1, 16, 24), mlp_dim=20
    )
    bias = (3 * 3) * 384 * (2 + 1)  # each offset (h, w) once
    assert round(1e9 * describe(model).parts[1].gmacs) == 24 * 4 * 8 * 8 + 2 * 6 * 4 * 4 * 8 + 24 * 2 * 8 * 20 + bias


def test_macs_by_hand():
    """One block of one head on 6 tokens of width 8: projections, scores and mix, MLP."""
    info = describe(tiny("vit", dim=8, heads=1, depth=1, mlp_dim=20, pool="mean", num_classes=5))
    embed, encoder, head = (round(part.gmacs * 1e9) for part in info.parts)
    assert embed == 6 * 8 * 3 * 4 * 4
    assert encoder == 6 * 4 * 8 * 8 + 2 * 6 * 6 * 8 + 6 * 2 * 8 * 20
    assert head == 8 * 5


def test_the_parts_say_what_attends_to_what():
    whats = {part.name: part.what for part in describe("vivit2-B/16x2", **PAPER_CLIP).parts}
    assert whats == {
        "embed": "TubeletEmbed 2 x 16 x 16",
        "encoders.0": "12 x hw, 16 x 197 tokens",
        "encoders.1": "4 x t, 1 x 17 tokens",
        "head": "400 classes",
    }
    assert describe("swin2-Ti/4x2", clip=(32, 224, 224)).parts[1].what == (
        "2 + 2 + 6 + 2 x windows of 8 x 7 x 7, 1 x 50176 tokens"
    )
    vjepa2 = "4 x thw, 1 x 24 tokens, then 3 blocks and a query"
    assert describe("vjepa2-P/16x2", clip=(8, 32, 48)).parts[1].what == vjepa2
    assert describe("ast-P/16", clip=(1, 32, 48)).parts[1].what == "4 x hw, 1 x 10 tokens"  # 2 x 4 overlap, 2 before
    assert describe("timesformer-P/16", clip=(8, 32, 48)).parts[1].what == "4 x t,hw, 1 x 49 tokens"
    assert describe("vivit4-N/16x2", clip=(8, 32, 48)).parts[1].what == "4 x t|hw, 1 x 24 tokens"


def test_the_largest_models_take_no_time_and_no_memory():
    describe("vit-P/16")  # the first call imports parts of torch
    with ending():
        info = describe("timesformer-L/16", **PAPER_CLIP)
    assert info.activation_bytes > 10e9


def test_a_model_is_described_at_its_own_size_or_another_and_is_left_as_it_is():
    model = tiny("vivit1")
    model.set_input_size((8, 16, 12))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert describe(model).tokens == (4, 4, 3)
    assert describe(model, clip=(4, 8, 8)).tokens == (2, 2, 2)
    assert model.input_size == (8, 16, 12)
    assert not model.training
    torch.testing.assert_close(model.state_dict(), before, atol=0, rtol=0)


def test_what_cannot_be_described_is_refused():
    with pytest.raises(ValueError, match=naming("'vivit-B/16x2'")):
        describe("vivit-B/16x2")
    with pytest.raises(ValueError, match=naming("W = 50", 48, 64)):
        describe("vivit2-P/16x2", clip=(8, 32, 50))
    with pytest.raises(ValueError, match=naming(5, "num_classes=7")):
        describe(tiny("vivit1"), num_classes=7)


@pytest.mark.parametrize("name", ["vivit2-L/16x2", "timesformer-L/16", "swin2-Ti/4x2", "vjepa2-B/16x2", "ast-B/16"])
def test_the_table_says_the_numbers(capsys, name):
    info = describe(name, clip=(1, 128, 1024)) if name == "ast-B/16" else describe(name, **PAPER_CLIP)
    print_info(info)
    printed = capsys.readouterr().out
    prefix = f", prefix of {info.prefix}" if info.prefix else ""
    assert f"{info.tokens.t} x {info.tokens.h} x {info.tokens.w} tokens{prefix} " in printed
    for number in (name, f"{info.parameters:,}", f"{info.gmacs:.3f}", f"{info.activation_bytes / 1e6:,.1f} MB"):
        assert number in printed
