"""Precision chosen by the processor, and a model made ready to answer in it."""

import copy
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn

from tubelet.nn.model import SpaceTimeTransformer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
CPU_GATES = {"avx512_bf16": "_is_avx512_bf16_supported", "AMX": "_is_amx_tile_supported"}  # of torch.cpu
TRIALS = 5
CLOSE = 0.01  # of the largest logit: what another order of the same products may change in bfloat16


def choose_dtype(wanted: str, device: torch.device) -> tuple[torch.dtype, str]:
    """The dtype to compute in, and the choice with its reason in words.

    "auto" is bfloat16 where the device multiplies in it, else float32; never float16, whose range is small.

    Raises:
        ValueError: an unknown name, or float16 without a GPU.
    """
    has, why = has_bfloat16(device)
    if wanted == "auto":
        wanted = "bfloat16" if has else "float32"
        return DTYPES[wanted], f"{wanted}: {why}"
    if wanted not in DTYPES:
        raise ValueError(f"unknown dtype {wanted!r}: expected auto, {', '.join(DTYPES)}")
    if wanted == "float16" and device.type != "cuda":
        raise ValueError(f"float16 is for GPUs, on {device.type} it can be a thousand times slower: choose auto")
    slow = wanted == "bfloat16" and not has
    return DTYPES[wanted], f"{wanted}: as told" + (f", though {why}: it may be very slow" if slow else "")


def has_bfloat16(device: torch.device) -> tuple[bool, str]:
    """Whether a device itself multiplies matrices in bfloat16, and what says so."""
    if device.type == "cuda":
        has = torch.cuda.is_bf16_supported(including_emulation=False)
        return has, "this GPU has it" if has else "this GPU has no bfloat16"
    if device.type == "cpu":
        for name, gate in CPU_GATES.items():
            if hasattr(torch.cpu, gate) and getattr(torch.cpu, gate)():  # private: another torch may lack them
                return True, f"this processor has {name}"
        return False, f"this processor has no {' and no '.join(CPU_GATES)}"
    return False, f"bfloat16 is untested on {device.type}"


def prepared(model: SpaceTimeTransformer, dtype: torch.dtype) -> SpaceTimeTransformer:
    """A copy of the model whose encoders compute in `dtype`; features and logits are float32. In float32, the model."""
    if dtype == torch.float32:
        return model
    ready = copy.deepcopy(model).to(dtype)
    ready.head = copy.deepcopy(model.head)  # one product for a clip: exact for nothing
    ready.mean, ready.std = model.mean, model.std  # rounded, they would shift every pixel
    ready.embed.register_forward_pre_hook(lambda embed, clip: (clip[0].to(dtype),))
    ready.encoders[-1].register_forward_hook(lambda encoder, given, made: (made[0].float(), made[1]))
    return ready


@torch.inference_mode()
def compile_if_faster(model: nn.Module, clip: Tensor) -> str:
    """Has torch compile the model for clips like this one, (B, C, T, H, W); says what came of it, in words.

    The model stays as it is where compiling fails, changes the answers or gains nothing.
    """
    plain = model.forward
    begun = time.perf_counter()
    try:
        fast = torch.compile(plain)
        made = fast(clip)
    except Exception as error:  # torch names no family of errors for all that stops a compiler
        return f"not compiled: {type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
    compile_seconds = time.perf_counter() - begun
    expected = plain(clip)
    if (off := (made - expected).abs().max()) > CLOSE * expected.abs().max():
        return f"not compiled: after {compile_seconds:.1f} s its logits were off by up to {off:.2g}"
    plain_seconds, fast_seconds = (median(seconds) for seconds in interleaved([plain, fast], clip))
    figures = f"{compile_seconds:.1f} s to compile, then {fast_seconds:.3g} s a batch, {plain_seconds:.3g} s without"
    if fast_seconds >= plain_seconds:
        return f"not compiled: {figures}"
    model.forward = fast  # type: ignore[method-assign]
    return f"compiled: {figures}"


def interleaved(runs: list[Callable[[Tensor], Tensor]], clip: Tensor, *, trials: int = TRIALS) -> list[list[float]]:
    """Seconds that each of some runs takes on a clip, several times, in turns: what else the machine does hits all."""
    seconds: list[list[float]] = [[] for _ in runs]
    for trial in range(trials + 1):
        for run, took in zip(runs, seconds, strict=True):
            begun = time.perf_counter()
            made = run(clip)
            if made.is_cuda:
                torch.cuda.synchronize()
            if trial:  # the first one warms up
                took.append(time.perf_counter() - begun)
    return seconds
