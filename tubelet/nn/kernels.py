"""Fast ways of the processor behind plain functions: each is asked for by dtype, and has a plain way beside it.

Torch's questions about a processor are private: each is asked only where this torch has it.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GELUS = {"erf": "none", "tanh": "tanh"}  # as torch calls them


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, *, gelu: str | None = None) -> Tensor:
    """(..., D) -> (..., E) with `weight` (E, D), then, if asked for, a GELU: "erf" (exact) or "tanh" (JAX's)."""
    if only_answers(x, weight) and fuses_linear(x.dtype):
        activation = ("gelu", GELUS[gelu]) if gelu else ("none", "")
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation[0], [], activation[1])
    x = F.linear(x, weight, bias)
    return F.gelu(x, approximate=GELUS[gelu]) if gelu else x


def only_answers(x: Tensor, other: Tensor) -> bool:
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


class Linear(nn.Linear):
    """(..., D) -> (..., E), then the GELU, if any."""

    def __init__(self, dim: int, out: int, *, gelu: str | None = None):
        super().__init__(dim, out)
        if gelu not in (None, *GELUS):
            raise ValueError(f"unknown gelu {gelu!r}: expected 'erf' (exact) or 'tanh' (approximate)")
        self.gelu = gelu

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias, gelu=self.gelu)


BFLOAT16 = {"avx512_bf16": "_is_avx512_bf16_supported", "AMX": "_is_amx_tile_supported"}  # of torch.cpu


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
    """Whether torch has oneDNN's linear layer, bias and GELU in one kernel, for numbers of `dtype`.

    On x86 it is ahead of `F.linear` in float32, and saves a pass over memory: benchmarks/performance.md.
    """
    x86 = torch.backends.cpu.get_cpu_capability().startswith("AVX")
    return x86 and onednn_has(dtype) and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def products_beat_attention(dtype: torch.dtype) -> bool:
    """Whether plain products beat torch's fused attention: it takes longer in bfloat16 than in float32, products half
    as long."""
    return dtype == torch.bfloat16 and bfloat16_instructions() == ["avx512_bf16"]
