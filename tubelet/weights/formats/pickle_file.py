"""Pickles of torch (.pt, .pth, .pyth, .bin, .ckpt): the one place that reads them, and only where it is asked to.

A pickle is a program. This one is run by torch's restricted unpickler (`weights_only=True`), which knows a short list
of classes; before that, the names it asks for are compared with a shorter list, and its archive and its tensors with
the size of the file. All of that lowers the risk and does not remove it: the unpickler had holes before
(CVE-2025-32434, CVE-2026-24747). So it is for files whose origin you trust, once: the safetensors file that is made of
one is safe to pass on.
"""

import pickle
import pickletools
import warnings
import zipfile
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.torch_version import TorchVersion

from tubelet.weights.formats.safetensors_file import DTYPES, MOST_TENSORS

OLDEST_TORCH = "2.10"  # older ones can be made to write where they must not (CVE-2026-24747)
MOST_BYTES = 64 * 2**30  # the largest that was published has 28 GB, most of them of a trainer
MOST_PROGRAM_BYTES = 2 * 2**20  # of the pickle itself, whose tensors are stored beside it: some 12,000 of them
MOST_ENTRIES = 2 * MOST_TENSORS

# What a state dict is made of. Whatever else a pickle asks for, it is not opened.
STORAGES = "Float Double Half BFloat16 Long Int Short Char Byte Bool"
ASKED_FOR = {
    "argparse Namespace",  # settings that a trainer keeps beside the weights; it only holds them
    "collections Counter",  # of a schedule of learning rates
    "collections OrderedDict",
    "torch Size",
    "torch._utils _rebuild_parameter",
    "torch._utils _rebuild_tensor_v2",
    *(f"torch {kind}Storage" for kind in STORAGES.split()),
}
NAMING = ("GLOBAL", "INST", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4")  # opcodes that ask for a name

# Where trainers put the weights of a model, those first that are looked at first.
WRAPPERS = (
    *("state_dict", "model_state_dict", "model_state", "model", "module", "net", "network", "weights"),
    *("model_ema", "state_dict_ema", "ema", "ema_encoder", "target_encoder", "encoder", "student", "teacher"),
)
DEEPEST = 4  # wrappers in one another

WARNING = (
    "a pickle is a program: it is read by a restricted unpickler, which lowers the risk and does not remove it. Do "
    "this only for a file whose origin you trust. The .safetensors file made of it is safe to pass on"
)

Found = tuple[dict[str, Tensor], tuple[str, ...], str]


def read_pickled(file: Path) -> Found:
    """The tensors of a model in a file of torch.save, what else is in it, and what they were found under.

    Raises:
        ValueError: torch is too old, it is no file of torch.save (1.6 or later), it asks for anything but tensors,
            dictionaries, lists, numbers and texts, or claims more than it holds. It names no file.
    """
    if TorchVersion(torch.__version__) < OLDEST_TORCH:
        raise ValueError(
            f"torch {torch.__version__} reads pickles less safely than torch {OLDEST_TORCH} does: pip install -U torch"
        )
    check_archive(file)
    outline = load(file, "meta")  # shapes alone, whatever they claim
    check_sizes(state_in(outline)[0], most_bytes=file.stat().st_size)
    del outline
    state, dropped, within = state_in(load(file, "cpu"))
    return {name: tensor.detach().contiguous() for name, tensor in state.items()}, dropped, within


def check_archive(file: Path) -> None:
    """Raises ValueError unless the file is a plain zip archive of torch.save, and its pickle asks for tensors alone."""
    size = file.stat().st_size
    if size > MOST_BYTES:
        raise ValueError(f"{size} bytes, expected at most {MOST_BYTES}")
    if not zipfile.is_zipfile(file):
        raise ValueError("no zip archive, as torch.save writes since 1.6: load and save it with a newer torch")
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        if len(set(names)) != len(names) or len(names) > MOST_ENTRIES or archive.comment:
            raise ValueError(f"an archive with a comment, a name twice, or more than {MOST_ENTRIES} entries")
        if any(
            e.flag_bits & 1 or e.compress_type != zipfile.ZIP_STORED or e.compress_size != e.file_size for e in entries
        ):
            raise ValueError("its archive is packed or encrypted, torch.save does neither")
        if sum(entry.file_size for entry in entries) > size:
            raise ValueError("the entries of its archive overlap")
        if any(name.endswith("/constants.pkl") for name in names):
            raise ValueError("TorchScript, a program: expected a state dict")
        programs = [entry for entry in entries if entry.filename.endswith("/data.pkl")]
        if len(programs) != 1 or programs[0].file_size > MOST_PROGRAM_BYTES:
            raise ValueError(f"expected one data.pkl of at most {MOST_PROGRAM_BYTES} bytes in its archive")
        check_program(archive.read(programs[0]))


def check_program(program: bytes) -> None:
    """Raises ValueError where a pickle asks for a name that no state dict needs; nothing of it is run."""
    try:
        asked = {
            str(value) if code.name == "GLOBAL" else code.name
            for code, value, _ in pickletools.genops(program)
            if code.name in NAMING
        }
    except Exception as error:  # pickletools raises what it likes for bytes that are no pickle
        raise ValueError(f"its data.pkl is no whole pickle ({str(error)[:80]})") from error
    if strange := sorted(asked - ASKED_FOR):
        shown = ", ".join(repr(name.replace(" ", ".")[:80]) for name in strange[:6])
        raise ValueError(
            f"it asks for {shown}, and tensors, dictionaries, lists, numbers and texts are all that is taken; nothing "
            f"of it was run: take a file with the state dict alone"
        )


def load(file: Path, where: str) -> Any:
    """The object that a pickle holds; `where`: "meta" for shapes without numbers, "cpu"."""
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([Namespace]):
            warnings.simplefilter("ignore")  # what torch says of old files
            return torch.load(file, map_location=where, weights_only=True)
    except Exception as error:  # the unpickler raises what it meets: KeyError, TypeError, AssertionError, ...
        if isinstance(error, pickle.UnpicklingError):  # torch goes on to say how to read it unsafely
            raise ValueError("torch's restricted unpickler refuses it: take one with the state dict alone") from error
        said = str(error).strip().splitlines() or [""]
        raise ValueError(f"{type(error).__name__}: {said[0][:200]}") from error


def state_in(tree: object) -> Found:
    """The tensors by name in what a trainer saved, what was left beside them, and the wrappers they were under.

    Raises:
        ValueError: there are none.
    """
    within: list[str] = []
    dropped: list[str] = []
    while isinstance(tree, Mapping) and len(within) <= DEEPEST:
        path = ".".join(within)
        if wrapper := next((name for name in WRAPPERS if isinstance(tree.get(name), Mapping) and tree[name]), None):
            dropped += [join(path, name) for name in tree if name != wrapper]
            within.append(wrapper)
            tree = tree[wrapper]
            continue
        state = {name: value for name, value in tree.items() if isinstance(value, Tensor) and isinstance(name, str)}
        if not state:
            break
        return state, (*dropped, *(join(path, name) for name in tree if name not in state)), path
    keys = ", ".join(repr(str(key)[:40]) for key in list(tree)[:6]) if isinstance(tree, Mapping) else ""
    what = f"a dictionary of {keys or 'nothing'}" if isinstance(tree, Mapping) else f"a {type(tree).__name__}"
    raise ValueError(f"no tensors by name in it, but {what}: expected a state dict, by itself or under {WRAPPERS[0]!r}")


def join(path: str, name: object) -> str:
    return f"{path}.{str(name)[:80]}".removeprefix(".")


def check_sizes(state: Mapping[str, Tensor], *, most_bytes: int) -> None:
    """Raises ValueError where tensors without numbers claim more of them than the file has bytes for."""
    for name, tensor in state.items():
        if type(tensor) not in (Tensor, torch.nn.Parameter) or tensor.layout != torch.strided:
            raise ValueError(f"{name[:80]!r} is no plain tensor")
        if tensor.dtype not in DTYPES.values():
            raise ValueError(f"{name[:80]!r} is of {tensor.dtype}, expected one of {', '.join(DTYPES)}")
        storage, claimed = tensor.untyped_storage(), tensor.numel() * tensor.itemsize
        if claimed > storage.nbytes():
            raise ValueError(f"{name[:80]!r} claims {claimed} bytes and has {storage.nbytes()}")
        if storage.nbytes() > most_bytes:
            raise ValueError(f"{name[:80]!r} claims {storage.nbytes()} bytes, in a file of {most_bytes}")
    together = sum(tensor.numel() * tensor.itemsize for tensor in state.values())
    if together > 2 * most_bytes:  # some share their numbers
        raise ValueError(f"its tensors claim {together} bytes, in a file of {most_bytes}")
