"""Precision chosen by the processor, and a model made ready to answer in it."""

import copy

import torch

from tubelet.nn.kernels import BFLOAT16, bfloat16_instructions
from tubelet.nn.model import SpaceTimeTransformer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


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


def cast_encoders(model: SpaceTimeTransformer, dtype: torch.dtype) -> SpaceTimeTransformer:
    """A copy of the model whose encoders compute in `dtype`; features and logits are float32. In float32, the model."""
    if dtype == torch.float32:
        return model
    ready = copy.deepcopy(model).to(dtype)
    ready.head = copy.deepcopy(model.head)  # one product for a clip: no time to be won
    ready.mean, ready.std = model.mean, model.std  # rounded, they would shift every pixel
    ready.embed.register_forward_pre_hook(lambda embed, clip: (clip[0].to(dtype),))
    ready.encoders[-1].register_forward_hook(lambda encoder, given, made: (made[0].float(), made[1]))
    return ready
