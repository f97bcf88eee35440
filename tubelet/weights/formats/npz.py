"""Arrays of strangers: bytes that are checked before memory is asked for, and numpy's .npz of them."""

import math
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tubelet.weights.formats.safetensors_file import DTYPES, MOST_AXES, MOST_ELEMENTS, are_counts

NUMPY_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in DTYPES.values()}
TIGHTEST_PACKING = 100  # bytes unpacked for each byte of an .npz; weights hardly pack at all


def make_tensor(shape: object, dtype: str, data: bytes) -> Tensor:
    """A tensor of its own memory from bytes in C order."""
    if not isinstance(shape, list | tuple) or not are_counts(shape):
        raise ValueError(f"an array of shape {shape!r}, expected whole numbers")
    if dtype not in NUMPY_DTYPES:
        raise ValueError(f"an array of {dtype!r}, expected one of {', '.join(NUMPY_DTYPES)}")
    size, wanted = math.prod(shape), math.prod(shape) * NUMPY_DTYPES[dtype].itemsize
    if len(shape) > MOST_AXES or math.prod(max(side, 1) for side in shape) > MOST_ELEMENTS or len(data) != wanted:
        raise ValueError(f"an array of {dtype} with shape {tuple(shape)} in {len(data)} bytes, expected {wanted}")
    if size == 0:
        return torch.empty(tuple(shape), dtype=NUMPY_DTYPES[dtype])
    return torch.frombuffer(bytearray(data), dtype=NUMPY_DTYPES[dtype]).reshape(tuple(shape))


def add(state: dict[str, Tensor], name: str, tensor: Tensor) -> None:
    if name in state:
        raise ValueError(f"two tensors are called {name!r}")
    state[name] = tensor


def holds_arrays(file: Path) -> bool:
    with zipfile.ZipFile(file) as archive:
        return all(name.endswith(".npy") for name in archive.namelist())


def read_npz(file: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors of an .npz by name; it holds nothing else, so nothing is dropped."""
    with zipfile.ZipFile(file) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > TIGHTEST_PACKING * file.stat().st_size:
            raise ValueError(f"it claims to unpack to {unpacked} bytes, weights do not pack so tightly")
        state: dict[str, Tensor] = {}
        for entry in archive.infolist():
            if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{entry.filename} is encrypted or packed in an unusual way")
            add(state, entry.filename.removesuffix(".npy"), read_npy(archive, entry))
    return state, ()


def read_npy(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Tensor:
    with archive.open(entry) as handle:
        if (version := np.lib.format.read_magic(handle)) != (1, 0):
            raise ValueError(f"{entry.filename} is of npy version {version}, expected (1, 0)")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(handle)
        data = handle.read()
    if fortran:
        return make_tensor(shape[::-1], str(dtype), data).permute(tuple(reversed(range(len(shape)))))
    return make_tensor(shape, str(dtype), data)
