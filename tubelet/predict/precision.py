"""Precision chosen by the processor, and a model made ready to answer in it."""

import copy
import sys
import time
from functools import partial
from statistics import median

import torch
from torch import Tensor, nn

from tubelet.nn.kernels import BFLOAT16, bfloat16_instructions
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.system.timing import interleaved

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TRIALS = 5
CLOSE = {torch.float32: 1e-3, torch.bfloat16: 0.05, torch.float16: 0.01}  # of the largest logit: changes by rounding


def choose_dtype(wanted: str, device: torch.device) -> tuple[torch.dtype, str]:
    """The dtype to compute in, and its name, with the reason where there is one.

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
    return DTYPES[wanted], wanted + (f", though {why}: it may be very slow" if slow else "")


def has_bfloat16(device: torch.device) -> tuple[bool, str]:
    """Whether a device itself multiplies matrices in bfloat16, and what says so."""
    if device.type == "cuda":
        has = torch.cuda.is_bf16_supported(including_emulation=False)
        return has, "this GPU has it" if has else "this GPU has no bfloat16"
    if device.type == "cpu":
        if found := bfloat16_instructions():
            return True, f"this processor has {found[0]}"
        return False, f"this processor has no {' and no '.join(BFLOAT16)}"
    return False, f"bfloat16 is untested on {device.type}"


def prepared(model: SpaceTimeTransformer, dtype: torch.dtype, *, compile: bool = False) -> SpaceTimeTransformer:
    """A copy of the model whose encoders compute in `dtype`; features and logits are float32. In float32, the model.

    With `compile`, the first clips that it answers are timed, and it is compiled if that makes it faster on them.
    """
    ready = model
    if dtype != torch.float32:
        ready = copy.deepcopy(model).to(dtype)
        ready.head = copy.deepcopy(model.head)  # one product for a clip: no time to be won
        ready.mean, ready.std = model.mean, model.std  # rounded, they would shift every pixel
        ready.embed.register_forward_pre_hook(lambda embed, clip: (clip[0].to(dtype),))
        ready.encoders[-1].register_forward_hook(lambda encoder, given, made: (made[0].float(), made[1]))
    if compile:

        def at_first_clips(model: nn.Module, clips: tuple[Tensor]) -> None:
            first.remove()
            print(f"tubelet: {compile_if_faster(model, *clips)}", file=sys.stderr)

        first = ready.register_forward_pre_hook(at_first_clips)
    return ready


@torch.inference_mode()
def compile_if_faster(model: nn.Module, clip: Tensor) -> str:
    """Has torch compile the model's forward pass for clips like these, (B, C, T, H, W); says in words what came of it.

    The model stays as it is where compiling fails, changes the answers or gains nothing.
    """
    plain = model.forward
    begun = time.perf_counter()
    try:
        fast = torch.compile(plain)
        made = fast(clip)
    except Exception as error:  # torch names no family of errors for all that stops a compiler
        return f"not compiled: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    compile_seconds = time.perf_counter() - begun
    expected = plain(clip)
    close = CLOSE[next(model.parameters()).dtype] * expected.abs().max()
    if not (off := (made - expected).abs().max()) <= close:
        return f"not compiled: it took {compile_seconds:.1f} s, and logits were off by up to {off:.2g}"
    took = interleaved({"plain": partial(plain, clip), "fast": partial(fast, clip)}, runs=TRIALS)
    plain_seconds, fast_seconds = median(took["plain"]), median(took["fast"])
    figures = f"{compile_seconds:.1f} s to compile, then {fast_seconds:.3g} s a batch, {plain_seconds:.3g} s without"
    if fast_seconds >= plain_seconds:
        return f"not compiled: {figures}"
    size = clip.shape  # to compile again for the last batch, or another size, would cost more than it gains
    model.forward = lambda clip: fast(clip) if clip.shape == size else plain(clip)
    return f"compiled: {figures}"
