"""Files that others wrote, opened without running anything in them: names, tensors, and the settings beside them."""

import json
import math
import os
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, NoReturn

import msgpack
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tubelet.weights.store import FILE

INDEX = f"{FILE}.index.json"
IN_A_FOLDER = (FILE, INDEX, "checkpoint", "flax_model.msgpack")
PICKLED = (".pt", ".pth", ".pyth", ".bin", ".ckpt", ".pkl", ".tar")

DTYPES = {
    name: getattr(torch, name)
    for name in (
        *("float64", "float32", "float16", "bfloat16", "bool"),
        *("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"),
    )
}

# What no file of weights comes near, and what keeps a small file from asking for much memory.
MOST_ELEMENTS = 2**40
DEEPEST = 32
LONGEST_LIST = 1024
TIGHTEST_PACKING = 100  # bytes unpacked for each byte of an .npz; weights hardly pack at all

DAMAGES = (ValueError, OSError, EOFError, SafetensorError, zipfile.BadZipFile, zlib.error, NotImplementedError)

Read = tuple[dict[str, Tensor], tuple[str, ...]]


class Refused(ValueError):
    """A file that may be whole, but is of a kind that tubelet does not open."""


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """Weights as another program stored them.

    state: tensors by their original names; those of nested trees are joined by "/".
    config, preprocessor: the JSON files of those names beside the weights; {} without one.
    dropped: what the file holds beside its parameters: state of an optimizer, steps, seeds.
    """

    state: dict[str, Tensor]
    config: dict[str, Any]
    preprocessor: dict[str, Any]
    file: Path
    dropped: tuple[str, ...] = ()


def read_foreign(path: str | os.PathLike[str]) -> Foreign:
    """Reads a .safetensors file, a folder with model.safetensors (also in shards), a flax msgpack file, or an .npz.

    What a file is, its content says, not its name.

    Raises:
        ValueError: no such file, a pickle (opening one runs what is in it), or a file that is damaged; names the file.
    """
    file = find_weights(Path(path))
    try:
        state, dropped = reader_of(file)(file)
    except Refused:
        raise
    except DAMAGES as error:
        raise ValueError(f"{file}: not readable as weights ({error}): download or copy it again") from error
    if not state:
        raise ValueError(f"{file}: holds no tensors: expected the weights of a model")
    preprocessor = read_json(file.with_name("preprocessor_config.json"))
    return Foreign(
        state=state,
        config=read_json(file.with_name("config.json")),
        preprocessor=preprocessor | read_json(file.with_name("video_preprocessor_config.json")),
        file=file,
        dropped=dropped,
    )


def find_weights(path: Path) -> Path:
    if path.is_dir():
        found = next((path / name for name in IN_A_FOLDER if (path / name).is_file()), None)
        if found:
            return found
        if pickled := sorted(file for file in path.iterdir() if file.suffix in PICKLED):
            refuse_pickle(pickled[0])
        raise ValueError(f"{path}: no {', '.join(IN_A_FOLDER)} in this folder: name the file of the weights itself")
    if not path.is_file():
        raise ValueError(f"{path}: no such file: expected weights (.safetensors, flax msgpack, .npz) or their folder")
    return path


def reader_of(file: Path) -> Callable[[Path], Read]:
    """How to read a file, by its first bytes."""
    if file.name == INDEX:
        return read_shards
    with open(file, "rb") as handle:
        head = handle.read(9)
    if head[8:] == b"{" and int.from_bytes(head[:8], "little") < 2**40:  # the length of its header
        return read_safetensors
    if head[:2] == b"PK" and holds_arrays(file):
        return read_npz
    if file.suffix in PICKLED or head[:1] == b"\x80" or head[:2] == b"PK":
        refuse_pickle(file)
    if head and (0x80 < head[0] < 0x90 or head[0] in (0xDE, 0xDF)):  # a map, as every flax file is
        return read_flax
    raise Refused(
        f"{file}: begins with {head!r}, expected a .safetensors file, a flax msgpack file or an .npz of arrays"
    )


def refuse_pickle(file: Path) -> NoReturn:
    raise Refused(
        f"{file}: a pickle, which can run anything when it is opened; tubelet opens none. Take the .safetensors file "
        f"of these weights, or, where you trust this one, load it and write it with safetensors.torch.save_file"
    )


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object; {} where there is no such file."""
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: not readable as JSON ({error}): download it again, or remove it") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file}: a JSON {type(found).__name__}, expected an object: download it again, or remove it")
    return found


# ---- safetensors, whole or in shards


def read_safetensors(file: Path) -> Read:
    return load_file(file), ()


def read_shards(file: Path) -> Read:
    """All shards that the index names; it must list the very tensors that they hold."""
    listed = read_json(file).get("weight_map")
    if not isinstance(listed, dict) or not all(isinstance(shard, str) for shard in listed.values()):
        raise ValueError("no 'weight_map' from names to files in it")
    state: dict[str, Tensor] = {}
    for shard in sorted(set(listed.values())):
        if shard not in os.listdir(file.parent):
            raise ValueError(f"its shard {shard!r} is not beside it")
        tensors = load_file(file.with_name(shard))
        if wrong := sorted({name for name in listed if listed[name] == shard} ^ set(tensors)):
            raise ValueError(f"{shard} does not hold the tensors listed for it, they differ in {', '.join(wrong[:6])}")
        state |= tensors
    return state, ()


# ---- arrays, from bytes that are checked before memory is asked for


def tensor_of(shape: object, dtype: str, data: bytes) -> Tensor:
    """A tensor of its own memory from bytes in C order."""
    if not isinstance(shape, list | tuple) or not all(type(side) is int and side >= 0 for side in shape):
        raise ValueError(f"an array of shape {shape!r}, expected whole numbers")
    if dtype not in DTYPES:
        raise ValueError(f"an array of {dtype!r}, expected one of {', '.join(DTYPES)}")
    size, wanted = math.prod(shape), math.prod(shape) * DTYPES[dtype].itemsize
    if len(shape) > DEEPEST or math.prod(max(side, 1) for side in shape) > MOST_ELEMENTS or len(data) != wanted:
        raise ValueError(f"an array of {dtype} with shape {tuple(shape)} in {len(data)} bytes, expected {wanted}")
    if size == 0:
        return torch.empty(tuple(shape), dtype=DTYPES[dtype])
    return torch.frombuffer(bytearray(data), dtype=DTYPES[dtype]).reshape(tuple(shape))


def holds_arrays(file: Path) -> bool:
    with zipfile.ZipFile(file) as archive:
        return all(name.endswith(".npy") for name in archive.namelist())


def read_npz(file: Path) -> Read:
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
        return tensor_of(shape[::-1], str(dtype), data).permute(tuple(reversed(range(len(shape)))))
    return tensor_of(shape, str(dtype), data)


def add(state: dict[str, Tensor], name: str, tensor: Tensor) -> None:
    if name in state:
        raise ValueError(f"two tensors are called {name!r}")
    state[name] = tensor


# ---- flax: a tree of arrays in msgpack


def read_flax(file: Path) -> Read:
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
    return tensor_of(shape, dtype.decode("ascii", "replace"), buffer)


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
    shape, chunks = (in_order(tree.get(part)) for part in ("shape", "chunks"))
    flat = all(isinstance(chunk, Tensor) and chunk.ndim == 1 and chunk.dtype == chunks[0].dtype for chunk in chunks)
    whole = all(type(side) is int and side >= 0 for side in shape)
    if not (chunks and flat and whole and sum(chunk.numel() for chunk in chunks) == math.prod(shape)):
        raise ValueError(f"{name} is in chunks that do not make up an array of shape {tuple(shape)!r}")
    return torch.cat(chunks).reshape(tuple(shape))


def in_order(numbered: object) -> list[Any]:
    """The values of {"0": ..., "1": ...}."""
    if not isinstance(numbered, dict) or set(numbered) != {str(i) for i in range(len(numbered))}:
        raise ValueError("an array in chunks that are not numbered from 0")
    return [numbered[str(i)] for i in range(len(numbered))]
