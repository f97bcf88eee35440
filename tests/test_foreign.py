"""Files of others: what is in them comes out, and what is wrong with them is said; nothing in them is run."""

import io
import json
import re
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naming import naming
from safetensors.torch import save_file
from torch import Tensor

from tubelet.weights.formats.flax_file import DEEPEST, LONGEST_LIST
from tubelet.weights.formats.open import read_foreign
from tubelet.weights.formats.safetensors_file import MOST_ELEMENTS

ARRAY, COMPLEX, NUMBER = 1, 2, 3  # flax's types in msgpack


def packed(shape: Any, dtype: Any, data: Any, code: int = ARRAY) -> msgpack.ExtType:
    return msgpack.ExtType(code, msgpack.packb((shape, dtype, data), use_bin_type=True))


def pack(value: np.ndarray) -> msgpack.ExtType:
    return packed(value.shape, value.dtype.name, value.tobytes("C"))


def numbered(values: Any) -> dict[str, Any]:
    return {str(i): value for i, value in enumerate(values)}


def chunked(value: np.ndarray, longest: int) -> dict[str, Any]:
    flat = value.reshape(-1)
    chunks = [pack(flat[i : i + longest]) for i in range(0, flat.size, longest)]
    return {"__msgpack_chunked_array__": True, "shape": numbered(value.shape), "chunks": numbered(chunks)}


def write(file: Path, tree: Any) -> Path:
    file.write_bytes(msgpack.packb(tree, use_bin_type=True))
    return file


def refused(path: Path) -> str:
    """What is said of a file that cannot be read; it names the file."""
    with pytest.raises(ValueError) as caught:
        read_foreign(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


KERNEL = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
BIAS = np.array([-1.5, 2.25], dtype=np.float32)
TREE: dict[str, Any] = {"Dense_0": {"kernel": pack(KERNEL), "bias": pack(BIAS)}, "cls": pack(BIAS)}
STATE = {"Dense_0/kernel": KERNEL, "Dense_0/bias": BIAS, "cls": BIAS}


def check_state(state: dict[str, Tensor], expected: dict[str, np.ndarray] = STATE) -> None:
    assert {name: (tuple(v.shape), v.tolist()) for name, v in state.items()} == {
        name: (v.shape, v.tolist()) for name, v in expected.items()
    }


# ---- flax


@pytest.mark.parametrize(
    ("tree", "dropped"),
    [
        (TREE, ()),
        ({"params": TREE}, ()),
        ({"params": {"params": TREE}, "step": 3}, ("step",)),
        (
            {
                "optimizer": {"target": TREE, "state": {"step": 1, "m": numbered([TREE])}},
                "global_step": packed((), "int32", b"\1\0\0\0", NUMBER),
                "rng": packed((2,), "uint32", bytes(8)),
                "model_state": {},
                "accum_train_time": None,
            },
            ("global_step", "rng", "model_state", "accum_train_time", "optimizer/state"),
        ),
        ({"opt_state": numbered([TREE, {}]), "params": TREE}, ("opt_state",)),
        ({"optimizer": {"m": TREE}, "params": TREE}, ("optimizer",)),
    ],
    ids=["bare", "params", "params twice", "scenic", "train state", "optimizer without target"],
)
def test_parameters_are_found_and_the_rest_is_named(tree: Any, dropped: tuple[str, ...], tmp_path: Path) -> None:
    found = read_foreign(write(tmp_path / "checkpoint", tree))
    check_state(found.state)
    assert found.dropped == dropped
    assert found.file == tmp_path / "checkpoint"


@pytest.mark.parametrize("dtype", ["float64", "float16", "int64", "int8", "uint8", "uint32", "bool"])
def test_numbers_of_every_width(dtype: str, tmp_path: Path) -> None:
    values = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
    state = read_foreign(write(tmp_path / "checkpoint", {"a": pack(values), "empty": pack(values[:0])})).state
    assert str(state["a"].dtype) == f"torch.{dtype}"
    check_state(state, {"a": values, "empty": values[:0]})


def test_bfloat16_which_numpy_does_not_know(tmp_path: Path) -> None:
    values = torch.tensor([1.0, -2.5, 3e38]).bfloat16()
    data = values.view(torch.int16).numpy().tobytes()
    found = read_foreign(write(tmp_path / "checkpoint", {"a": packed((3,), "bfloat16", data)})).state["a"]
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, values)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(1, 20))
@settings(max_examples=30, deadline=None)
def test_chunks_are_joined(tmp_path_factory: pytest.TempPathFactory, shape: list[int], longest: int) -> None:
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    file = write(tmp_path_factory.mktemp("chunks") / "checkpoint", {"params": {"a": chunked(values, longest)}})
    check_state(read_foreign(file).state, {"a": values})


def test_tensors_own_their_memory(tmp_path: Path) -> None:
    file = write(tmp_path / "checkpoint", TREE)
    state = read_foreign(file).state
    state["cls"] += 1
    file.unlink()
    check_state(read_foreign(write(file, TREE)).state)


def nest(depth: int, value: Any) -> Any:
    for _ in range(depth):
        value = {"a": value}
    return value


CHUNKS = chunked(KERNEL, 10)
FAULTS: dict[str, tuple[Any, str]] = {
    "too few bytes": ({"a": packed((3,), "float32", bytes(11))}, r"float32 with shape \(3,\) in 11 bytes, expected 12"),
    "too many bytes": ({"a": packed((), "float32", bytes(8))}, r"shape \(\) in 8 bytes, expected 4"),
    "much asked for": ({"a": packed((2**40,), "float32", b"")}, r"in 0 bytes, expected 4398046511104"),
    "more than all memory": ({"a": packed((2**62, 2**62), "float32", b"")}, "in 0 bytes"),
    "nothing of something endless": ({"a": packed((0, MOST_ELEMENTS + 1), "float32", b"")}, "in 0 bytes, expected 0"),
    "many axes": ({"a": packed((1,) * (DEEPEST + 1), "int8", b"1")}, "in 1 bytes"),
    "negative": ({"a": packed((-1, -4), "int8", b"1234")}, r"shape \[-1, -4\], expected whole numbers"),
    "half a row": ({"a": packed((0.5, 2), "int8", b"1")}, "expected whole numbers"),
    "shape of truths": ({"a": packed((True,), "int8", b"1")}, "expected whole numbers"),
    "shape of words": ({"a": packed(b"12", "int8", b"1")}, "expected whole numbers"),
    "objects": ({"a": packed((1,), "object", bytes(8))}, "an array of 'object', expected one of float64"),
    "complex array": ({"a": packed((1,), "complex64", bytes(8))}, "an array of 'complex64'"),
    "complex number": ({"a": msgpack.ExtType(COMPLEX, msgpack.packb((1.0, 2.0)))}, r"a complex number .*code 2"),
    "unknown type": ({"a": msgpack.ExtType(77, b"")}, r"unknown type \(code 77\)"),
    "no triple": ({"a": msgpack.ExtType(ARRAY, msgpack.packb((1, 2)))}, r"not \(shape, dtype, bytes\)"),
    "cut in an array": ({"a": msgpack.ExtType(ARRAY, pack(KERNEL).data[:-9])}, "incomplete input"),
    "more in an array": ({"a": msgpack.ExtType(ARRAY, pack(KERNEL).data + b"\0")}, "extra data"),
    "array in an array": ({"a": packed((1,), "int8", msgpack.ExtType(ARRAY, b"1"))}, r"not \(shape, dtype, bytes\)"),
    "a number for a tensor": ({"params": {"a": {"b": 3}}}, "a/b is a int, expected an array"),
    "nothing for a tensor": ({"params": {"a": None}}, "a is a NoneType, expected an array"),
    "no tensors": ({"params": {}, "step": 1}, "holds no tensors"),
    "too deep": (nest(DEEPEST + 1, pack(BIAS)), "nested too deep"),
    "one name twice": ({"a": {"b": pack(BIAS)}, "a/b": pack(BIAS)}, "two tensors are called 'a/b'"),
    "a long list": ({"a": [1] * (LONGEST_LIST + 1)}, f"{LONGEST_LIST + 1} exceeds max_array_len"),
    "numbers for names": ({"b": {b"a": pack(BIAS)}}, "keys are not names"),
    "chunk missing": ({"a": CHUNKS | {"chunks": {"0": CHUNKS["chunks"]["0"]}}}, r"a is in chunks .* shape \(2, 3, 4\)"),
    "chunks misnumbered": ({"a": CHUNKS | {"chunks": {"1": pack(BIAS)}}}, "not numbered from 0"),
    "no chunks": ({"a": CHUNKS | {"chunks": {}, "shape": {"0": 0}}}, "do not make up an array"),
    "chunks of two kinds": ({"a": CHUNKS | {"chunks": numbered([pack(BIAS), pack(BIAS.astype("f8"))])}}, "make up"),
    "chunks with axes": ({"a": CHUNKS | {"chunks": numbered([pack(KERNEL)])}}, "do not make up an array"),
    "chunks without shape": ({"a": {"__msgpack_chunked_array__": True}}, "not numbered from 0"),
    "chunks of odd shape": ({"a": CHUNKS | {"shape": numbered([-2, -12])}}, "do not make up an array"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_tree_that_is_wrong(fault: str, tmp_path: Path) -> None:
    tree, expected = FAULTS[fault]
    assert re.search(expected, refused(write(tmp_path / "checkpoint", tree)))


def test_a_name_given_twice_in_one_map(tmp_path: Path) -> None:
    entry = msgpack.packb("a") + msgpack.packb(pack(BIAS))
    (tmp_path / "checkpoint").write_bytes(b"\x82" + entry + entry)
    assert "not all different: ['a', 'a']" in refused(tmp_path / "checkpoint")


def test_a_tree_deeper_than_any(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_bytes(b"\x81\xa1a" * 100_000 + b"\1")
    assert "nested too deep" in refused(tmp_path / "checkpoint")


def test_every_cut_and_every_trailing_byte_is_found(tmp_path: Path) -> None:
    file = write(tmp_path / "checkpoint", {"params": TREE, "step": 1})
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        refused(file)
    file.write_bytes(whole + b"\0")
    assert "extra data" in refused(file)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_spoilt_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    whole = bytearray(msgpack.packb({"params": TREE | {"b": CHUNKS}, "step": 1}, use_bin_type=True))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    file = tmp_path_factory.getbasetemp() / "spoilt"
    file.write_bytes(whole)
    with suppress(ValueError):
        read_foreign(file)


def test_a_small_hostile_file_gets_little_memory(tmp_path: Path) -> None:
    start, filling = b"\x81\xa1a", bytes(100_000)
    bombs = [
        start + b"\xdc\x03\xff" * 400 + filling,  # lists of 1023 entries, one in another
        start + b"\xdd\0\1\x86\xa0" * 400 + filling,  # lists that claim as many entries as the file has bytes
        start + b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        start + b"\xc6\xff\xff\xff\xff",
    ]
    tracemalloc.start()
    for bomb in bombs:
        (tmp_path / "checkpoint").write_bytes(bomb)
        refused(tmp_path / "checkpoint")
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 20e6


# ---- safetensors


TENSORS = {"a.weight": torch.randn(2, 3), "b": torch.arange(4).bfloat16(), "c": torch.tensor(1)}


def write_folder(folder: Path, **settings: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(TENSORS, folder / "model.safetensors")
    for name, values in settings.items():
        (folder / f"{name}.json").write_text(json.dumps(values))
    return folder


def write_shards(folder: Path, **changes: str) -> Path:
    folder.mkdir()
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    save_file({"a.weight": TENSORS["a.weight"]}, folder / first)
    save_file({"b": TENSORS["b"], "c": TENSORS["c"]}, folder / second)
    index = folder / "model.safetensors.index.json"
    index.write_text(
        json.dumps({"metadata": {}, "weight_map": {"a.weight": first, "b": second, "c": second} | changes})
    )
    return folder


def same(found: dict[str, Tensor]) -> bool:
    return set(found) == set(TENSORS) and all(torch.equal(found[name], TENSORS[name]) for name in TENSORS)


def test_a_file_its_folder_and_what_is_beside_it(tmp_path: Path) -> None:
    folder = write_folder(
        tmp_path / "a",
        config={"model_type": "vivit"},
        preprocessor_config={"size": 1, "image_mean": [0.5]},
        video_preprocessor_config={"size": 2},
    )
    for path in (folder, folder / "model.safetensors", str(folder)):
        found = read_foreign(path)
        assert same(found.state)
        assert found.config == {"model_type": "vivit"}
        assert found.preprocessor == {"size": 2, "image_mean": [0.5]}
        assert (found.file, found.dropped) == (folder / "model.safetensors", ())
    assert read_foreign(write_folder(tmp_path / "b")).config == {}


def test_the_content_says_what_a_file_is(tmp_path: Path) -> None:
    (tmp_path / "odd.bin").write_bytes((write_folder(tmp_path / "a") / "model.safetensors").read_bytes())
    assert same(read_foreign(tmp_path / "odd.bin").state)
    check_state(read_foreign(write(tmp_path / "odd.npz", TREE)).state)


def test_shards_are_put_together(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "a")
    assert same(read_foreign(folder).state)
    assert same(read_foreign(folder / "model.safetensors.index.json").state)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"c": "model-00001-of-00002.safetensors"}, "00001.* does not hold the tensors listed for it.* differ in c"),
        ({"d": "model-00002-of-00002.safetensors"}, "00002.* they differ in d"),
        ({"c": "../model.safetensors"}, r"its shard '../model.safetensors' is not beside it"),
        ({"c": "elsewhere.safetensors"}, "its shard 'elsewhere.safetensors' is not beside it"),
        ({"c": ""}, "its shard '' is not beside it"),
        ({"c": 3}, "no 'weight_map' from names to files"),
    ],
)
def test_an_index_that_is_wrong(changes: dict[str, Any], expected: str, tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "a", **changes)
    assert re.search(expected, refused(folder / "model.safetensors.index.json"))


def test_a_cut_safetensors_file(tmp_path: Path) -> None:
    file = write_folder(tmp_path) / "model.safetensors"
    whole = file.read_bytes()
    for length in (0, 4, 9, 40, len(whole) - 1):
        file.write_bytes(whole[:length])
        refused(file)
    assert re.search(naming(file, "40 bytes", 39), refused(file))


@pytest.mark.parametrize("name", ["config", "preprocessor_config", "video_preprocessor_config"])
@pytest.mark.parametrize("text", ["{", "[1]", "[" * 100_000, "\xff"], ids=["cut", "list", "deep", "no text"])
def test_settings_that_are_wrong(name: str, text: str, tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / f"{name}.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=naming(tmp_path / f"{name}.json", "JSON")):
        read_foreign(tmp_path)


# ---- npz


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(save: Callable[..., None], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {"a/b": rng.normal(size=(2, 3, 4)), "f": np.asfortranarray(rng.normal(size=(3, 4))), "n": np.array(3)}
    save(tmp_path / "w.npz", **arrays)
    check_state(read_foreign(tmp_path / "w.npz").state, arrays)
    assert "holds no tensors" in refused(write_zip(tmp_path / "none.npz", {}))


def write_zip(file: Path, entries: dict[str, bytes], packing: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(file, "w", packing) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return file


def npy(value: np.ndarray, **header: str) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, value, version=(1, 0), allow_pickle=True)
    return buffer.getvalue()


def claiming(shape: str) -> bytes:
    """An array of two numbers whose header says another shape, no longer than its own."""
    return npy(np.zeros(2, np.float32)).replace(b"(2,), }".ljust(40), f"{shape}, }}".ljust(40).encode())


@pytest.mark.parametrize(
    ("entries", "packing", "expected"),
    [
        ({"a.npy": npy(np.array([{}]))}, zipfile.ZIP_STORED, "an array of 'object'"),
        ({"a.npy": npy(np.zeros(2, ">f4"))}, zipfile.ZIP_STORED, "an array of '>f4'"),
        ({"a.npy": claiming("(1099511627776,)")}, zipfile.ZIP_STORED, "in 8 bytes, expected 4398046511104"),
        ({"a.npy": npy(BIAS)[:-1]}, zipfile.ZIP_STORED, "in 7 bytes, expected 8"),
        ({"a.npy": npy(BIAS)[:9]}, zipfile.ZIP_STORED, "w.npz: not readable as weights"),
        ({"a.npy": b"\x93NUMPY\x09\0"}, zipfile.ZIP_STORED, r"npy version \(9, 0\)"),
        ({"a.npy": npy(np.zeros(10**6))}, zipfile.ZIP_DEFLATED, "claims to unpack to 8000128 bytes"),
        ({"a.npy": npy(BIAS)}, zipfile.ZIP_BZIP2, "a.npy is encrypted or packed in an unusual way"),
    ],
    ids=["objects", "big-endian", "much asked for", "cut", "cut header", "version", "bomb", "packing"],
)
def test_an_npz_that_is_wrong(entries: dict[str, bytes], packing: int, expected: str, tmp_path: Path) -> None:
    assert re.search(expected, refused(write_zip(tmp_path / "w.npz", entries, packing)))


def test_a_spoilt_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", a=KERNEL)
    whole = (tmp_path / "w.npz").read_bytes()
    place = whole.index(KERNEL.tobytes())
    (tmp_path / "w.npz").write_bytes(whole[:place] + b"spoilt" + whole[place + 6 :])
    assert "Bad CRC-32" in refused(tmp_path / "w.npz")
    (tmp_path / "w.npz").write_bytes(whole[:-30])
    refused(tmp_path / "w.npz")


# ---- pickles and the rest


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.pyth", "pytorch_model.bin", "w.ckpt", "w.pkl", "checkpoint"])
@pytest.mark.parametrize("legacy", [False, True])
def test_pickles_are_refused_and_not_opened(name: str, legacy: bool, tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / name, _use_new_zipfile_serialization=not legacy)
    opened: list[str] = []
    sys.addaudithook(lambda event, _: opened.append(event) if event == "pickle.find_class" else None)
    values = ("pickle", ".safetensors", "`tubelet convert SRC DST --unsafe-pickle`")
    assert re.search(naming(tmp_path / name, *values), refused(tmp_path / name))
    assert not opened
    if name != "checkpoint":
        with pytest.raises(ValueError, match=naming(tmp_path / name, "pickle")):
            read_foreign(tmp_path)


def test_what_is_not_there_or_is_something_else(tmp_path: Path) -> None:
    assert str(tmp_path / "nowhere.safetensors") in refused(tmp_path / "nowhere.safetensors")
    assert re.search(naming("model.safetensors", "model.safetensors.index.json", "checkpoint"), refused(tmp_path))
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "ckpt-1"\n')
    assert re.search(naming("b'model_che'", ".safetensors"), refused(tmp_path / "checkpoint"))
    (tmp_path / "empty").write_bytes(b"")
    assert re.search(naming("b''", ".safetensors"), refused(tmp_path / "empty"))
