"""The quick ways of the processor give what the plain ones give, and step aside where somebody needs the steps."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny import FAMILIES, clip_for, tiny
from torch import Tensor
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from tubelet.nn import Grid, attend, kernels
from tubelet.nn.attention import Linear
from tubelet.nn.kernels import (
    BFLOAT16,
    attention,
    bfloat16_instructions,
    can_fuse,
    linear,
    multiply_at_once,
    multiply_in_pieces,
    products_beat_attention,
)

LAYOUTS = {
    "whole": lambda x: x,
    "some tokens": lambda x: x[:, 1:4],
    "every second channel": lambda x: x.repeat_interleave(2, 2)[:, :, ::2],
    "transposed": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "expanded": lambda x: x[:1].expand(3, -1, -1),
    "no tokens": lambda x: x[:, :0],
    "one token": lambda x: x[0, 0],
}


def weights(bias: bool = True) -> tuple[Tensor, Tensor | None]:
    torch.manual_seed(0)
    return torch.randn(18, 8)[6:12], torch.randn(18)[6:12] if bias else None  # a part of a larger one, as of qkv


@pytest.mark.parametrize("gelu", [None, "erf", "tanh"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
@torch.no_grad()
def test_linear_is_the_product_the_bias_and_the_gelu(layout, bias, gelu):
    weight, offset = weights(bias)
    x = LAYOUTS[layout](torch.randn(2, 5, 8))
    wanted = x.double() @ weight.double().T + (0 if offset is None else offset.double())
    wanted = wanted if gelu is None else F.gelu(wanted, approximate={"erf": "none", "tanh": "tanh"}[gelu])
    assert_close(linear(x, weight, offset, gelu=gelu), wanted.float(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_learning_and_answering_agree(dtype):
    torch.manual_seed(0)
    layer, x = Linear(8, 6, gelu="erf").to(dtype), torch.randn(3, 8, dtype=dtype)
    learned = layer(x)
    assert learned.requires_grad
    with torch.no_grad():
        assert_close(layer(x), learned.detach())


def test_the_kernel_is_used_only_where_nobody_needs_the_steps():
    x, weight = torch.randn(2, 8), torch.nn.Parameter(torch.randn(6, 8))
    assert not can_fuse(x, weight)
    with torch.no_grad():
        assert can_fuse(x, weight)
        assert not can_fuse(x.bfloat16(), weight)
        assert not can_fuse(x.to("meta"), weight.to("meta"))
        with torch.autocast("cpu", torch.bfloat16):
            assert not can_fuse(x, weight)
        with FlopCounterMode(display=False):
            assert not can_fuse(x, weight)
        with torch.backends.mkldnn.flags(enabled=False, allow_tf32=None):
            assert not can_fuse(x, weight)
    assert can_fuse(x, weight.detach())


def test_a_counter_of_operations_sees_all_of_them():
    model = tiny("vivit2")
    totals = []
    for learns in (True, False):
        with torch.set_grad_enabled(learns), FlopCounterMode(display=False) as counter:
            model(clip_for(model))
        totals.append(counter.get_total_flops())
    assert totals[0] == totals[1] > 0


def test_a_traced_model_has_no_private_kernels():
    model = tiny("vivit1").requires_grad_(False)
    with torch.no_grad():
        exported = torch.export.export(model, (clip_for(model),))
    assert "linear" in str(exported.graph)
    assert "mkldnn" not in str(exported.graph)


def calls_of_the_kernel(monkeypatch: pytest.MonkeyPatch) -> list[torch.dtype]:
    """What the kernel is given from here on; bfloat16 is an error, as on a processor that lacks it."""
    given, kernel = [], torch.ops.mkldnn._linear_pointwise

    def run(x: Tensor, *rest: Any) -> Tensor:
        given.append(x.dtype)
        if x.dtype != torch.float32:
            raise RuntimeError("could not create a primitive")
        return kernel(x, *rest)

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", run)
    return given


@pytest.mark.parametrize(
    ("capability", "has_bfloat16", "fused"),
    [
        ("AVX512", True, [torch.float32, torch.bfloat16]),
        ("AVX2", True, [torch.float32, torch.bfloat16]),
        ("AVX2", False, [torch.float32]),
        ("DEFAULT", True, []),
        ("SVE256", True, []),
    ],
)
@torch.no_grad()
def test_the_kernel_is_asked_for_where_it_is(capability, has_bfloat16, fused, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: has_bfloat16)
    ask_anew(monkeypatch)
    calls, layer = calls_of_the_kernel(monkeypatch), Linear(8, 6, gelu="tanh")
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        x, layer = torch.randn(2, 8, dtype=dtype), layer.to(dtype)
        if dtype in fused and dtype != torch.float32:
            with pytest.raises(RuntimeError, match="could not create"):
                layer(x)
        else:
            layer(x)
    assert calls == fused


def test_a_torch_that_lacks_the_kernel_does_without(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    ask_anew(monkeypatch)
    assert kernels.fuses_linear(torch.float32)
    for there in ({}, {"_linear_pointwise": print}, {"_is_mkldnn_bf16_supported": lambda: True}):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.ops, "mkldnn", SimpleNamespace(**there))
            assert not kernels.fuses_linear(torch.float32)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not kernels.fuses_linear(torch.float32)
    assert bfloat16_instructions() == []


def ask_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on nothing is remembered of what torch said of itself."""
    monkeypatch.setattr(kernels, "onednn_has", kernels.onednn_has.__wrapped__)
    monkeypatch.setattr(kernels, "fuses_linear", kernels.fuses_linear.__wrapped__)


@pytest.mark.parametrize("onednn", [True, False])
@pytest.mark.parametrize("has", [[], ["avx512_bf16"], ["AMX"], ["avx512_bf16", "AMX"]])
def test_instructions_are_those_of_the_processor_that_onednn_uses(has, onednn, monkeypatch):
    ask_anew(monkeypatch)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: onednn)
    for name, gate in BFLOAT16.items():
        monkeypatch.setattr(torch.cpu, gate, lambda name=name: name in has)
    assert bfloat16_instructions() == (has if onednn else [])
    assert products_beat_attention(torch.bfloat16) == (onednn and has == ["avx512_bf16"])
    assert not products_beat_attention(torch.float32)
    for gate in BFLOAT16.values():
        monkeypatch.delattr(torch.cpu, gate)
    assert bfloat16_instructions() == []


@pytest.mark.parametrize("products", [True, False])
@pytest.mark.parametrize("fused", ["as here", "float32 alone", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_every_way_through_every_family_gives_the_same(family, dtype, fused, products, monkeypatch):
    model = tiny(family).double()
    clip = clip_for(model).double()
    wanted = model(clip)
    calls = []
    if fused != "as here":
        monkeypatch.setattr(kernels, "fuses_linear", lambda dtype: fused != "none" and dtype == torch.float32)
        calls = calls_of_the_kernel(monkeypatch)
    monkeypatch.setattr(kernels, "products_beat_attention", lambda dtype: products)
    got = model.to(dtype)(clip.to(dtype))
    assert (got - wanted).norm() < (0.03 if dtype == torch.bfloat16 else 1e-5) * wanted.norm()
    assert set(calls) == ({dtype} & {torch.float32} if fused == "float32 alone" else set())


# ---- attention


def random_qkv(rows: int = 3, heads: int = 5, queries: int = 7, keys: int = 6) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(rows, length, heads, 4).double().transpose(1, 2) for length in (queries, keys, keys)]


@pytest.mark.parametrize("most_scores", [1, 20, 50, 100, 250, 10_000])
def test_attention_in_any_pieces_is_attention(most_scores, monkeypatch):
    monkeypatch.setattr(kernels, "MOST_SCORES", most_scores)
    q, k, v = random_qkv()
    assert_close(multiply_in_pieces(q, k, v), F.scaled_dot_product_attention(q, k, v))


def test_products_at_once_learn_as_attention_does():
    gradients = []
    for run in (multiply_at_once, F.scaled_dot_product_attention):
        leaves = [x.requires_grad_() for x in random_qkv()]
        out = run(*leaves)
        gradients.append([out, *torch.autograd.grad((out * torch.arange(4)).sum(), leaves)])
    assert_close(*gradients)


@pytest.mark.parametrize("learns", [True, False])
def test_keys_that_are_all_far_off_cost_no_precision(learns, monkeypatch):
    """No softmax sees what is added to all keys; in bfloat16 the scores would round to steps of 1."""
    monkeypatch.setattr(kernels, "products_beat_attention", lambda dtype: True)
    torch.manual_seed(0)
    grid = Grid(1, 4, 16)
    q, k, v = (torch.randn(2, grid.size, 2, 16).bfloat16() for _ in "qkv")
    q, k = q + 4, k + 4
    wanted = attend(q.double(), k.double(), v.double(), grid, "thw")
    out = attend(q.requires_grad_(learns), k, v, grid, "thw")
    assert out.requires_grad == learns
    assert (out - wanted).abs().mean() < 0.02 * wanted.abs().mean()


@pytest.mark.parametrize("learns", [True, False])
@pytest.mark.parametrize("scale", [0.3, 3.0, 100.0])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-12), (torch.float32, 4e-6), (torch.bfloat16, 0.03)])
def test_scores_come_near_their_cap_and_never_reach_it(dtype, error, scale, learns):
    q, k, v = (x.transpose(1, 2).to(dtype) for x in random_qkv())
    q, cap = q * scale, 50.0
    scores = torch.einsum("rqhd,rkhd->rhqk", q.double(), k.double()) / 2
    wanted = torch.einsum("rhqk,rkhd->rqhd", (cap * (scores / cap).tanh()).softmax(-1), v.double())
    found = attention(q.requires_grad_(learns), k, v, cap=cap)
    assert found.requires_grad == learns
    assert (found - wanted).norm() < error * wanted.norm()
