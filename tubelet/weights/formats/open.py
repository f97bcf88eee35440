"""Files that others wrote, opened without running anything in them: names, tensors, and the settings beside them."""

import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any, NoReturn

from torch import Tensor

from tubelet.weights.formats.flax_file import read_flax
from tubelet.weights.formats.json_file import MOST_BYTES, parse
from tubelet.weights.formats.npz import holds_arrays, read_npz
from tubelet.weights.formats.pickle_file import read_pickled
from tubelet.weights.formats.safetensors_file import Damaged, load_tensors
from tubelet.weights.store import FILE

INDEX = f"{FILE}.index.json"
IN_A_FOLDER = (FILE, INDEX, "checkpoint", "flax_model.msgpack")
PICKLED = (".pt", ".pth", ".pyth", ".bin", ".ckpt", ".pkl", ".tar")

# What Python's zipfile and numpy raise for a file that is not what it should be.
DAMAGES = (
    *(ValueError, OSError, EOFError, RecursionError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error, struct.error, SyntaxError, TokenError),
)

# tensors, what was dropped, and, for a pickle, what the tensors were under
Read = tuple[dict[str, Tensor], tuple[str, ...]] | tuple[dict[str, Tensor], tuple[str, ...], str]


class Refused(ValueError):
    """A file that may be whole, but is of a kind that tubelet does not open."""


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """Weights as another program stored them.

    state: tensors by their original names; those of nested trees are joined by "/".
    config, preprocessor: the JSON files of those names beside the weights; {} without one.
    dropped: what the file holds beside its parameters: state of an optimizer, steps, seeds.
    within: what the tensors were found under in a pickle, such as "model_state"; "" elsewhere.
    """

    state: dict[str, Tensor]
    config: dict[str, Any]
    preprocessor: dict[str, Any]
    file: Path
    dropped: tuple[str, ...] = ()
    within: str = ""


def read_foreign(path: str | os.PathLike[str], *, unsafe_pickle: bool = False) -> Foreign:
    """Reads a .safetensors file, a folder with model.safetensors (also in shards), a flax msgpack file, or an .npz.

    What a file is, its content says, not its name. With `unsafe_pickle` also a pickle that torch wrote, by a restricted
    unpickler; see `tubelet.weights.formats.pickle_file` for what that means.

    Raises:
        ValueError: no such file, a pickle (opening one runs what is in it), or a file that is damaged; names the file.
    """
    file = find_weights(Path(path), unsafe_pickle=unsafe_pickle)
    try:
        state, dropped, *within = choose_reader(file, unsafe_pickle=unsafe_pickle)(file)
    except (Refused, Damaged):
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
        within="".join(within),
    )


def find_weights(path: Path, *, unsafe_pickle: bool = False) -> Path:
    if path.is_dir():
        found = next((path / name for name in IN_A_FOLDER if (path / name).is_file()), None)
        if found:
            return found
        pickled = sorted(file for file in path.iterdir() if file.suffix in PICKLED)
        if pickled and not unsafe_pickle:
            refuse_pickle(pickled[0])
        if len(pickled) == 1:
            return pickled[0]
        raise ValueError(f"{path}: no {', '.join(IN_A_FOLDER)} in this folder: name the file of the weights itself")
    if not path.is_file():
        raise ValueError(f"{path}: no such file: expected weights (.safetensors, flax msgpack, .npz) or their folder")
    return path


def choose_reader(file: Path, *, unsafe_pickle: bool) -> Callable[[Path], Read]:
    """The function that reads a file, by its first bytes and, where they say nothing, by its name."""
    if file.name == INDEX:
        return read_shards
    with open(file, "rb") as handle:
        head = handle.read(9)
    if head[8:] == b"{" and int.from_bytes(head[:8], "little") < 2**40:  # the length of its header
        return lambda file: (load_tensors(file), ())
    if head[:2] == b"PK" and holds_arrays(file):
        return read_npz
    if file.suffix in PICKLED or head[:1] == b"\x80" or head[:2] == b"PK":
        return read_trusted_pickle if unsafe_pickle else refuse_pickle(file)
    if head and (0x80 < head[0] < 0x90 or head[0] in (0xDE, 0xDF)):  # a map, as every flax file is
        return read_flax
    raise Refused(
        f"{file}: begins with {head!r}, expected a .safetensors file, a flax msgpack file or an .npz of arrays"
    )


def read_trusted_pickle(file: Path) -> Read:
    try:
        return read_pickled(file)
    except ValueError as error:
        raise Refused(f"{file}: this pickle is not taken: {error}") from error


def refuse_pickle(file: Path) -> NoReturn:
    raise Refused(
        f"{file}: a pickle, which can run anything when it is opened; tubelet opens none unasked. Take the "
        f".safetensors file of these weights, or, where you trust the origin of this one, convert it once with "
        f"`tubelet convert SRC DST --unsafe-pickle`"
    )


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object; {} where there is no such file."""
    if not file.is_file():
        return {}
    try:
        with open(file, "rb") as handle:
            found = parse(handle.read(MOST_BYTES + 1))
    except (ValueError, OSError) as error:
        raise ValueError(f"{file}: not readable as JSON ({error}): download it again, or remove it") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file}: a JSON {type(found).__name__}, expected an object: download it again, or remove it")
    return found


def read_shards(file: Path) -> Read:
    """All shards that the index names; it must list the very tensors that they hold."""
    listed = read_json(file).get("weight_map")
    if not isinstance(listed, dict) or not all(isinstance(shard, str) for shard in listed.values()):
        raise ValueError("no 'weight_map' from names to files in it")
    state: dict[str, Tensor] = {}
    for shard in sorted(set(listed.values())):
        if shard not in os.listdir(file.parent):
            raise ValueError(f"its shard {shard!r} is not beside it")
        tensors = load_tensors(file.with_name(shard))
        if wrong := sorted({name for name in listed if listed[name] == shard} ^ set(tensors)):
            raise ValueError(f"{shard} does not hold the tensors listed for it, they differ in {', '.join(wrong[:6])}")
        state |= tensors
    return state, ()
