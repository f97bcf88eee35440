"""The pieces that dialects are made of: names, layers, and how tensors move between theirs and ours."""

import pytest
import torch
from naming import naming
from torch import Tensor
from torch.testing import assert_close

from tubelet.nn import Grid
from tubelet.weights.dialects.rename import ForeignState, Link, find_wrapper, split_rows
from tubelet.weights.dialects.settings import Given


@pytest.mark.parametrize(
    ("names", "wrapper"),
    [
        ([], ""),
        (["module.a", "module.b"], "module."),
        (["module.a", "b"], ""),
        (["model.module._orig_mod.a"], "model.module._orig_mod."),
        (["opt/target/params/a/b"], "opt/target/params/"),
        (["modules.a"], ""),
    ],
)
def test_the_wrapper_is_what_trainers_put_before_every_name(names, wrapper):
    assert find_wrapper(names) == wrapper


def test_theirs_counts_layers_and_finds_roots():
    theirs = ForeignState(
        {f"net.blocks.{i}.{part}": torch.zeros(i + 1) for i in (0, 1, 3) for part in ("bias", "weight")}
    )
    assert theirs.count("net.blocks.{}.") == 2  # the third is missing, and is found out as left over
    assert theirs.root("net.") == "net."
    assert theirs.root("head.") == ""
    assert theirs.classes("net.blocks.1") == 2
    assert theirs.classes("head") == 0
    assert theirs.shape("net.blocks.3.bias", 1) == (4,)
    with pytest.raises(ValueError, match=naming("'net.blocks.3.bias'", "(4,)", 2)):
        theirs.shape("net.blocks.3.bias", 2)


def test_half_precision_is_read_as_float():
    theirs = ForeignState({"a": torch.ones(2, dtype=torch.bfloat16), "b": torch.ones(2, dtype=torch.float64).numpy()})
    assert {tensor.dtype for tensor in theirs.tensors.values()} == {torch.float32}


def linked(source: dict[str, Tensor], *, reading: bool) -> Link:
    """A link that has moved what the pieces below move."""
    link = Link(source, reading=reading)
    link.linear("norm", "our.norm")
    link.packed(["q", "k", "v"], "our.qkv")
    link.kernel("embed", "our.embed", flat=True)
    link.positions([("cls", 1), ("registers", 2)], "rows", "our.prefix", "our.table", Grid(2, 1, 3))
    link.position("flat", "our.flat", Grid(1, 2, 2))
    link.joined([("one", 1), ("two", 2)], "our.three")
    return link


def theirs_of_a_link() -> dict[str, Tensor]:
    torch.manual_seed(0)
    shapes = {"norm": (4,), "q": (4, 4), "k": (4, 4), "v": (4, 4), "embed": (4, 3, 2, 2)}
    state = {f"{name}.weight": torch.randn(shape) for name, shape in shapes.items()}
    state |= {f"{name}.bias": torch.randn(4) for name in shapes}
    state |= {"cls": torch.randn(1, 1, 4), "registers": torch.randn(1, 2, 4), "rows": torch.randn(1, 9, 4)}
    return state | {"flat": torch.randn(1, 4, 4), "one": torch.randn(1, 1, 4), "two": torch.randn(1, 2, 4)}


def test_a_link_moves_forth_and_back():
    state = theirs_of_a_link()
    ours = linked(state, reading=True).finish("test")
    assert ours["our.table"].shape == (2, 1, 3, 4)
    assert ours["our.embed.weight"].shape == (4, 3, 1, 2, 2)
    assert_close(ours["our.table"][1, 0, 2], state["rows"][0, 8])
    assert_close(ours["our.prefix"][0, 2], state["registers"][0, 1] + state["rows"][0, 2])
    theirs = linked(ours, reading=False).finish("test")
    assert set(theirs) == set(state)
    assert_close(linked(theirs, reading=True).finish("test"), ours, atol=0, rtol=0)
    folded = {"cls", "registers", "rows"}
    assert_close({k: theirs[k] for k in state if k not in folded}, {k: state[k] for k in state if k not in folded})


@pytest.mark.parametrize("reading", [True, False])
def test_a_link_refuses_what_is_left_over_or_missing(reading):
    state = theirs_of_a_link()
    source = state if reading else linked(state, reading=True).finish("test")
    with pytest.raises(ValueError, match=naming(1, "test", "extra (2, 3)")):
        linked(source | {"extra": torch.zeros(2, 3)}, reading=reading).finish("test")
    name = "norm.bias" if reading else "our.norm.bias"
    with pytest.raises(ValueError, match=naming(f"'{name}'")):
        linked({key: value for key, value in source.items() if key != name}, reading=reading)


def test_what_is_left_and_what_is_omitted_is_in_the_account():
    link = Link({"decoder.a": torch.zeros(1), "decoder.b": torch.zeros(1)}, reading=True)
    link.omit("decoder.", "not while reading")
    link.leave("decoder.", "why")
    assert [(move.theirs, move.ours, move.how) for move in link.moves] == [
        ("decoder.a", "", "left: why"),
        ("decoder.b", "", "left: why"),
    ]
    assert link.finish("test") == {}
    link = Link({"head.a": torch.zeros(1)}, reading=False)
    link.leave("head.", "not while writing")
    link.omit("head.", "why")
    assert [(move.theirs, move.ours, move.how) for move in link.moves] == [("", "head.a", "left: why")]
    assert link.finish("test") == {}


def test_prefix_rows_are_split_off():
    rows, table = split_rows(torch.arange(14.0).view(1, 7, 2), Grid(1, 2, 3), prefix=1)
    assert rows.tolist() == [[[0.0, 1.0]]]
    assert table[0, 1, 0].tolist() == [8.0, 9.0]


def test_what_is_given_agrees_with_the_weights_or_is_refused():
    given = Given(heads=[2, 4], clip=[1, 2, 3], frames=2)
    assert (given.heads, given.clip) == ((2, 4), (1, 2, 3))
    given.agree(family="vit", frames=2)
    with pytest.raises(ValueError, match=naming("frames=2", None)):
        given.agree(frames=None)
