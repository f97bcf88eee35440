"""Safetensors files: the one place that opens them. The header is checked before anything in it is trusted.

The format: 8 bytes, the length of the header; the header, JSON; the numbers of all tensors, one after another.
Names of tensors are keys of dictionaries and nothing else.
"""

import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tubelet.system.text import is_count
from tubelet.weights.formats.json_file import MOST_BYTES, parse

MOST_TENSORS = 100_000
MOST_ELEMENTS = 2**40  # of a tensor; one without elements can claim any number along its other axes
MOST_AXES = 32

# Numbers of 8 bits with a fraction, complex ones and those packed in less than a byte are no weights as they stand.
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class Damaged(ValueError):
    """A file that is not the safetensors file it should be; says which, why, and what to do."""


class Header(NamedTuple):
    """The tensors that a file holds, on the meta device, and the texts beside them."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def check_header(path: str | os.PathLike[str]) -> Header:
    """The header of a safetensors file, every claim checked against the size of the file; no tensor is read.

    Raises:
        Damaged: it holds something else than it says, or more than any file of weights does.
    """
    file = Path(path)
    try:
        entries, size = read_entries(file)
        metadata = entries.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError("its metadata are not texts by name")
        if len(entries) > MOST_TENSORS:
            raise ValueError(f"{len(entries)} tensors, expected at most {MOST_TENSORS}")
        found = {name: read_entry(name, entry) for name, entry in entries.items()}
        check_places({name: place for name, (_, place) in found.items()}, size)
    except (ValueError, OSError) as error:
        raise damaged(file, error) from error
    return Header({name: tensor for name, (tensor, _) in found.items()}, metadata)


def load_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """All tensors of a safetensors file, by name. Raises Damaged as `check_header`."""
    check_header(path)
    return load_checked(path)


def load_checked(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """All tensors of a file whose header was checked, by name. Raises Damaged where it cannot be read."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise damaged(Path(path), error) from error


def damaged(file: Path, error: Exception) -> Damaged:
    return Damaged(f"{file}: not a readable safetensors file ({error}): copy or download it again")


def read_entries(file: Path) -> tuple[dict[str, Any], int]:
    """The JSON object that the header is, and how many bytes follow it."""
    if not file.is_file():  # a pipe would be waited for
        raise ValueError("there is no such file")
    with open(file, "rb") as handle:
        whole = os.fstat(handle.fileno()).st_size
        length = int.from_bytes(handle.read(8), "little")
        if whole < 8 or length > whole - 8:
            raise ValueError(f"it has {whole} bytes and says that {length} of them are its header")
        if length > MOST_BYTES:
            raise ValueError(f"a header of {length} bytes, expected at most {MOST_BYTES}")
        text = handle.read(length)
    if text[:1] != b"{":
        raise ValueError(f"its header begins with {text[:1]!r}, expected b'{{'")
    return parse(text), whole - 8 - length  # what begins so is an object, or no JSON


def read_entry(name: str, entry: object) -> tuple[Tensor, tuple[int, int]]:
    """A tensor on the meta device, and where it begins and ends, in bytes after the header; as far as its entry can be
    checked by itself."""
    if not name.isprintable():
        raise ValueError(f"a tensor called {name[:80]!r}, expected a name that can be printed")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name[:80]!r} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"{name[:80]!r} is of dtype {str(dtype)[:40]!r}, expected one of {', '.join(DTYPES)}")
    if not are_counts(shape) or len(shape) > MOST_AXES or math.prod(max(1, side) for side in shape) > MOST_ELEMENTS:
        raise ValueError(f"{name[:80]!r} has the shape {str(shape)[:80]}, expected up to {MOST_AXES} whole numbers")
    if not are_counts(offsets) or len(offsets) != 2:
        raise ValueError(f"{name[:80]!r} has data_offsets {str(offsets)[:80]}, expected its first byte and its end")
    start, end = offsets
    if end - start != (wanted := math.prod(shape) * DTYPES[dtype].itemsize):
        raise ValueError(f"{name[:80]!r}, {dtype} {str(shape)[:80]}, is in {end - start} bytes, expected {wanted}")
    return torch.empty(shape, dtype=DTYPES[dtype], device="meta"), (start, end)


def are_counts(values: object) -> bool:
    return isinstance(values, list | tuple) and all(is_count(value, least=0) for value in values)


def check_places(places: dict[str, tuple[int, int]], size: int) -> None:
    """Raises ValueError unless the tensors lie one after another, from the first byte to the last of `size`."""
    end = 0
    for name, (start, stop) in sorted(places.items(), key=lambda item: item[1]):
        if start != end:
            how = "overlaps the tensor" if start < end else "leaves a gap after the one"
            raise ValueError(f"{name[:80]!r}, from byte {start} on, {how} before it, which ends at {end}")
        end = stop
    if end != size:
        raise ValueError(f"its tensors take {end} bytes, it has {size} for them")
