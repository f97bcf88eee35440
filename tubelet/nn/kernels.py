"""The processor's fast ways behind two plain functions, `linear` and `attention`; each has a plain way beside it.

Torch's questions about a processor are private: each is asked only where this torch has it.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GELUS = {"erf": "none", "tanh": "tanh"}  # as torch calls them
BFLOAT16 = {"avx512_bf16": "_is_avx512_bf16_supported", "AMX": "_is_amx_tile_supported"}  # of torch.cpu
MOST_SEQUENCES = 65_535  # rows, or heads, of one launch of a fused kernel on CUDA; more crash it
MOST_SCORES = 2**20  # of queries and keys, computed at a time: they stay in the cache
MOST_KEPT = 1024  # keys up to which all scores, kept for the backward pass, take about the memory of the other steps


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, *, gelu: str | None = None) -> Tensor:
    """(..., D) -> (..., E) with `weight` (E, D), then, if asked for, a GELU: "erf" (exact) or "tanh" (JAX's)."""
    if can_fuse(x, weight) and fuses_linear(x.dtype):
        activation = ("gelu", GELUS[gelu]) if gelu else ("none", "")
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation[0], [], activation[1])
    x = F.linear(x, weight, bias)
    return F.gelu(x, approximate=GELUS[gelu]) if gelu else x


def attention(q: Tensor, k: Tensor, v: Tensor, *, dropout: float = 0.0, cap: float = 0.0) -> Tensor:
    """Softmax attention of each row and head by itself, (rows, length, n, d) -> the same shape as `q`.

    cap: scores come near it and never reach it, cap * tanh(score / cap); 0: they are as they are.
    """
    if not torch.compiler.is_compiling():  # a program for any batch size would be bound to the limit
        for axis in (0, 2):
            if q.shape[axis] > MOST_SEQUENCES:
                parts = zip(*(x.split(MOST_SEQUENCES, axis) for x in (q, k, v)), strict=True)
                return torch.cat([attention(*part, dropout=dropout, cap=cap) for part in parts], axis)
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    if cap:  # no fused kernel knows it
        if can_fuse(q, k):
            return multiply_in_pieces(q, k, v, cap=cap).transpose(1, 2)
        return multiply_at_once(q, k, v, cap=cap, dropout=dropout).transpose(1, 2)
    eager = q.device.type == "cpu" and not torch.compiler.is_compiling()
    if eager and not dropout and products_beat_attention(q.dtype):
        if can_fuse(q, k):
            return multiply_in_pieces(q, k, v).transpose(1, 2)
        if q.requires_grad and k.shape[2] <= MOST_KEPT:
            return multiply_at_once(q, k, v).transpose(1, 2)
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout).transpose(1, 2)


def multiply_in_pieces(q: Tensor, k: Tensor, v: Tensor, *, cap: float = 0.0) -> Tensor:
    """Attention from plain products, a cacheful of scores at a time, nothing kept. All (rows, n, length, d)."""
    (rows, n, length, d), seen = q.shape, k.shape[2]
    queries = min(length, max(1, MOST_SCORES // seen))
    heads = min(n, max(1, MOST_SCORES // (seen * queries)))
    height = max(1, MOST_SCORES // (seen * queries * heads))
    q, k = q * d**-0.5, (k if cap else centre_keys(k)).transpose(2, 3).contiguous()
    out = q.new_empty(rows, length, n, d).transpose(1, 2)
    for row in range(0, rows, height):
        for head in range(0, n, heads):
            here = slice(row, row + height), slice(head, head + heads)
            for part, into in zip(q[here].split(queries, 2), out[here].split(queries, 2), strict=True):
                scores = part @ k[here]
                scores = cap_scores(scores, cap) if cap else scores
                into.copy_(scores.softmax(-1) @ v[here])
    return out


def cap_scores(scores: Tensor, cap: float) -> Tensor:
    """cap * tanh(score / cap), in the memory of `scores`, and less `cap` where that costs no precision: no softmax sees
    a number that is added to all, and torch's tanh takes longer."""
    if scores.dtype == torch.bfloat16:
        return scores.div_(cap).tanh_().mul_(cap)
    return scores.mul_(-2 / cap).sigmoid_().mul_(-2 * cap)


def multiply_at_once(q: Tensor, k: Tensor, v: Tensor, *, cap: float = 0.0, dropout: float = 0.0) -> Tensor:
    """Attention from plain products, all scores kept for the backward pass. All (rows, n, length, d)."""
    with torch.autocast("cpu", enabled=False):  # it would have the softmax in float32
        scores = (q * q.shape[-1] ** -0.5) @ (k if cap else centre_keys(k)).transpose(2, 3)
        scores = cap * (scores / cap).tanh() if cap else scores
        return F.dropout(scores.softmax(-1), dropout) @ v


def centre_keys(k: Tensor) -> Tensor:
    """Keys counted from their mean, which no softmax sees: smaller scores lose less when they are rounded."""
    return k - k.mean(2, keepdim=True)


def can_fuse(x: Tensor, other: Tensor) -> bool:
    """Whether nothing needs the single steps of a product of two on the CPU: no gradient, tracer, counter or cast."""
    learns = torch.is_grad_enabled() and (x.requires_grad or other.requires_grad)
    plain = type(x) is Tensor and type(other) in (Tensor, nn.Parameter)
    return bool(
        plain
        and not learns
        and x.device.type == other.device.type == "cpu"
        and x.dtype == other.dtype
        and torch.backends.mkldnn.enabled
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and not torch._C._len_torch_dispatch_stack()
    )


def bfloat16_instructions() -> list[str]:
    """Names of the processor's instructions that multiply in bfloat16, where oneDNN, which is to use them, does."""
    found = [name for name, gate in BFLOAT16.items() if hasattr(torch.cpu, gate) and getattr(torch.cpu, gate)()]
    return found if onednn_has(torch.bfloat16) else []


@cache
def onednn_has(dtype: torch.dtype) -> bool:
    """Whether oneDNN, on this processor, has kernels for numbers of `dtype`."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported"):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


@cache
def fuses_linear(dtype: torch.dtype) -> bool:
    """Whether torch has oneDNN's linear layer, bias and GELU in one kernel, for `dtype`: benchmarks/performance.md."""
    x86 = torch.backends.cpu.get_cpu_capability().startswith("AVX")
    return x86 and onednn_has(dtype) and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def products_beat_attention(dtype: torch.dtype) -> bool:
    """Whether plain products are ahead of torch's fused attention, which gains nothing from bfloat16, as they do."""
    return dtype == torch.bfloat16 and bfloat16_instructions() == ["avx512_bf16"]
