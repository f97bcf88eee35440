"""What the processor is quick at. Torch's questions are private: each is asked only where this torch has it."""

from functools import cache

import torch

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

    On x86 it is ahead of `F.linear` in float32, and saves a pass over memory: docs/performance.md.
    """
    x86 = torch.backends.cpu.get_cpu_capability().startswith("AVX")
    return x86 and onednn_has(dtype) and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def products_beat_attention(dtype: torch.dtype) -> bool:
    """Whether plain products beat torch's fused attention: it takes longer in bfloat16 than in float32, products half
    as long."""
    return dtype == torch.bfloat16 and bfloat16_instructions() == ["avx512_bf16"]
