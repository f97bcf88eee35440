"""Files of flax.serialization: a tree of arrays in msgpack, read within bounds and without flax."""

import math
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import msgpack
import torch
from torch import Tensor

from tubelet.weights.formats.npz import add, make_tensor
from tubelet.weights.formats.safetensors_file import are_counts

LONGEST_LIST = 1024
DEEPEST = 32


def read_flax(file: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The parameters in a file of flax.serialization, such as scenic's `checkpoint`, without what a trainer adds.

    The wrappers "optimizer/target/" and "params/" are left out of the names.
    """
    with open(file, "rb") as handle, mmap(handle.fileno(), 0, access=ACCESS_READ) as content:
        try:
            tree = msgpack.unpackb(content, ext_hook=leaf, object_pairs_hook=branch, max_array_len=LONGEST_LIST)
        except msgpack.StackError as error:
            raise ValueError("its tree is nested too deep") from error
    tree, dropped = parameters(tree)
    state: dict[str, Tensor] = {}
    flatten(tree, (), state)
    return state, dropped


def leaf(code: int, data: bytes) -> Tensor:
    """Flax's own types in msgpack: 1 is an array, 2 a complex number, 3 a numpy number."""
    if code not in (1, 3):
        raise ValueError(f"a complex number or an unknown type (code {code}), expected arrays")
    packed = msgpack.unpackb(data, raw=True, max_array_len=LONGEST_LIST)
    if not isinstance(packed, list) or len(packed) != 3 or not all(isinstance(part, bytes) for part in packed[1:]):
        raise ValueError("an array that is not (shape, dtype, bytes)")
    shape, dtype, buffer = packed
    return make_tensor(shape, dtype.decode("ascii", "replace"), buffer)


def branch(pairs: list[tuple[object, object]]) -> dict[object, object]:
    found = dict(pairs)
    if len(found) != len(pairs) or not all(isinstance(name, str) for name in found):
        raise ValueError(f"a map whose keys are not names, or not all different: {[name for name, _ in pairs[:6]]!r}")
    return found


def parameters(tree: object) -> tuple[object, tuple[str, ...]]:
    """The part of a tree that holds the parameters, and the names of the rest."""
    dropped: list[str] = []
    path = ""
    for wrapper, within in (("optimizer", "target"), ("target", None), ("params", None), ("params", None)):
        inner = tree.get(wrapper) if isinstance(tree, dict) else None
        if isinstance(tree, dict) and isinstance(inner, dict) and (within is None or within in inner):
            dropped += [f"{path}{name}" for name in tree if name != wrapper]
            path, tree = f"{path}{wrapper}/", inner
    return tree, tuple(dropped)


def flatten(tree: object, path: tuple[str, ...], state: dict[str, Tensor]) -> None:
    """Fills `state` with the arrays of a tree, their names joined by "/"."""
    name = "/".join(path)
    if len(path) > DEEPEST:
        raise ValueError("its tree is nested too deep")
    if isinstance(tree, dict) and "__msgpack_chunked_array__" in tree:
        add(state, name, join_chunks(tree, name))
    elif isinstance(tree, dict | list):
        branches = tree.items() if isinstance(tree, dict) else ((str(i), value) for i, value in enumerate(tree))
        for part, value in branches:
            flatten(value, (*path, part), state)
    elif isinstance(tree, Tensor):
        add(state, name, tree)
    else:
        raise ValueError(f"{name or 'it'} is a {type(tree).__name__}, expected an array or a tree of arrays")


def join_chunks(tree: dict[str, Any], name: str) -> Tensor:
    """The array that flax cut into flat chunks because it is too long for one msgpack entry."""
    shape, chunks = (list_values(tree.get(part)) for part in ("shape", "chunks"))
    flat = all(isinstance(chunk, Tensor) and chunk.ndim == 1 and chunk.dtype == chunks[0].dtype for chunk in chunks)
    if not (chunks and flat and are_counts(shape) and sum(chunk.numel() for chunk in chunks) == math.prod(shape)):
        raise ValueError(f"{name} is in chunks that do not make up an array of shape {tuple(shape)!r}")
    return torch.cat(chunks).reshape(tuple(shape))


def list_values(numbered: object) -> list[Any]:
    """The values of {"0": ..., "1": ...}."""
    if not isinstance(numbered, dict) or set(numbered) != {str(i) for i in range(len(numbered))}:
        raise ValueError("an array in chunks that are not numbered from 0")
    return [numbered[str(i)] for i in range(len(numbered))]
