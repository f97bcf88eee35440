"""The device that a command computes on, and the memory of the machine."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def find_device(name: str, local_rank: int = 0) -> torch.device:
    """The device called `name`; "auto" takes a GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if not re.fullmatch(r"(cpu|cuda|mps)(:\d+)?", name):
        raise ValueError(f"unknown device {name!r}: expected auto, cpu, cuda or mps")
    device = torch.device(name)
    if device.type == "cuda":
        device = torch.device("cuda", local_rank if device.index is None else device.index)
        if device.index >= torch.cuda.device_count():
            raise ValueError(f"device {name!r} is not there: torch sees {torch.cuda.device_count()} GPUs; --device cpu")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device 'mps' is not there: use --device cpu")
    return device


@contextmanager
def tensor_cores(device: torch.device) -> Iterator[None]:
    """Inside, a GPU multiplies float32 by its tensor cores, which read 10 bits of each factor (TF32)."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if device.type == "cuda" else before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def hand_over(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor in memory, on the device, which the host does not wait for: for a GPU its pages are pinned."""
    if device.type != "cuda":
        return tensor.to(device)
    with torch.cuda.device(device):  # a thread of its own would pin them for the first GPU
        return tensor.pin_memory().to(device, non_blocking=True)


def free_memory() -> int:
    """Bytes of memory that are free, as far as the system tells."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 4 * 2**30
