"""Files from strangers: whatever they claim, they are read or refused, at once, in little memory; none runs anything.

Pickles have a file of their own, test_pickles.py. TUBELET_SOAK=1: 100 times as many mutants.
"""

import json
import math
import os
import random
import re
import resource
import struct
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import torch
from hanging import ending
from naming import naming
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import tiny

import tubelet
from tubelet import ClipSpec, Predictor
from tubelet.convert.conversion import convert
from tubelet.features.store import FORMAT
from tubelet.predict.exported import Exported
from tubelet.stream.codes import keep_steps, read_steps
from tubelet.system.exits import is_ours
from tubelet.weights import image_config, init_from_image, save
from tubelet.weights.formats import json_file
from tubelet.weights.formats.open import read_foreign
from tubelet.weights.formats.safetensors_file import MOST_TENSORS, check_header, load_tensors
from tubelet.weights.settings import MOST, read_config
from tubelet.weights.store import write_tensors

MUTANTS = 100_000 if os.environ.get("TUBELET_SOAK") else 1000


@contextmanager
def bounded(file: Path | None = None) -> Iterator[None]:
    """Ends, and takes at most twice the size of the file and 64 MB of memory."""
    size = file.stat().st_size if file else 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with ending():
        yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < (2 * size + 64 * 2**20) / 1024


def refused(read: Callable[[], object], file: Path | None = None) -> str:
    """What is said by the ValueError of ours that `read` must raise."""
    with bounded(file), pytest.raises(ValueError) as caught:
        read()
    assert is_ours(caught.value)
    assert file is None or str(file) in str(caught.value)
    return str(caught.value)


def refusal(read: Callable[[], object]) -> ValueError | None:
    try:
        read()
    except ValueError as error:
        return error
    return None


# ---- safetensors


def packed(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(shape: object = (2,), offsets: object = (0, 8), dtype: object = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def pair(**second: Any) -> bytes:
    """Two tensors of 8 bytes, the second as told."""
    return packed({"a": entry(), "b": {**entry(offsets=(8, 16)), **second}}, bytes(16))


ONE, NONE = json.dumps(entry()).encode(), json.dumps(entry([0], [0, 0])).encode()
HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "it has 0 bytes"),
    "7 bytes": (b"\1" * 7, "it has 7 bytes"),
    "a length alone": (packed(b"", length=2), "says that 2 of them are its header"),
    "no header": (packed(b""), "its header begins with b''"),
    "2^63 bytes of header": (packed({"a": entry()}, bytes(8), length=2**63), f"says that {2**63} of them"),
    "2^64 - 1 bytes of header": (packed({"a": entry()}, bytes(8), length=2**64 - 1), f"says that {2**64 - 1} of them"),
    "a header as long as the file": (packed({"a": entry()}, bytes(8), length=81), "says that 81 of them"),
    "a header cut short": (packed({"a": entry()}, bytes(8), length=9), "no JSON"),
    "a header into the data": (packed({"a": entry()}, bytes(8), length=66), "no JSON"),
    "no text": (packed(b"{\xff\xfe}"), "no JSON: 'utf-8' codec can't decode"),
    "a list": (packed(b"[1]"), r"its header begins with b'\['"),
    "blank first": (packed(b" {}"), "its header begins with b' '"),
    "two objects": (packed(b"{}{}"), "no JSON: Extra data"),
    "a comma too many": (packed(b'{"a":' + ONE + b",}", bytes(8)), "no JSON"),
    "nested deep": (packed(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "nested too deep"),
    "objects nested deep": (packed(b'{"a":' * 100_000 + b"1" + b"}" * 100_000), "nested too deep"),
    "a name twice": (packed(b'{"a":' + ONE + b',"a":' + ONE + b"}", bytes(8)), "key 'a' is there twice"),
    "a key twice": (packed(b'{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}', bytes(8)), "twice"),
    "metadata twice": (packed(b'{"__metadata__":{},"__metadata__":{}}'), "'__metadata__' is there twice"),
    "metadata of numbers": (packed({"__metadata__": {"a": 1}}), "its metadata are not texts by name"),
    "a list of metadata": (packed({"__metadata__": ["a"]}), "its metadata are not texts by name"),
    "nothing for metadata": (packed(b'{"__metadata__":null}'), "its metadata are not texts by name"),
    "a NUL in a name": (packed({"a\0b": entry()}, bytes(8)), r"a tensor called 'a\\x00b'"),
    "an escape in a name": (packed({"\x1b[2Ja": entry()}, bytes(8)), r"a tensor called '\\x1b\[2Ja'"),
    "half a letter in a name": (packed(b'{"\\ud800":' + ONE + b"}", bytes(8)), r"a tensor called '\\ud800'"),
    "turned letters in a name": (packed({"a\u202eb": entry()}, bytes(8)), r"a tensor called 'a\\u202eb'"),
    "a number for a tensor": (packed({"a": 1}), "is not described by dtype, shape and data_offsets"),
    "no dtype": (packed({"a": {"shape": [2], "data_offsets": [0, 8]}}, bytes(8)), "is not described by"),
    "more than that": (packed({"a": {**entry(), "run": "x"}}, bytes(8)), "is not described by"),
    "an unknown dtype": (pair(dtype="F33"), "'b' is of dtype 'F33', expected one of F64, F32"),
    "a dtype of 8 bits": (pair(dtype="F8_E4M3", shape=[8]), "'b' is of dtype 'F8_E4M3'"),
    "complex": (pair(dtype="C64", shape=[1]), "'b' is of dtype 'C64'"),
    "a number for a dtype": (pair(dtype=7), "'b' is of dtype '7'"),
    "a list for a dtype": (pair(dtype=["F32"]), r"'b' is of dtype \"\['F32'\]\""),
    "a text for a shape": (pair(shape="2"), "'b' has the shape 2, expected"),
    "a negative side": (pair(shape=[-2]), r"'b' has the shape \[-2\]"),
    "two negative sides": (pair(shape=[-2, -1]), r"'b' has the shape \[-2, -1\]"),
    "a side of 1.5": (pair(shape=[1.5]), r"'b' has the shape \[1.5\]"),
    "true for a side": (pair(shape=[2, True]), r"'b' has the shape \[2, True\]"),
    "infinite sides": (packed(b'{"a":{"dtype":"F32","shape":[Infinity],"data_offsets":[0,8]}}', bytes(8)), "shape"),
    "a side of 4000 digits": (pair(shape=[10**4000]), r"'b' has the shape \[1000"),
    "a side of 5000 digits": (packed(b'{"a":{"shape":[1' + b"0" * 5000 + b"]}}"), "no JSON: Exceeds the limit"),
    "empty and 2^62 wide": (pair(shape=[0, 2**62], data_offsets=[8, 8]), r"'b' has the shape \[0, 4611"),
    "2^62 wide": (pair(shape=[2**62]), r"'b' has the shape \[4611"),
    "sides that overflow": (pair(shape=[2**32, 2**32, 2]), "'b' has the shape"),
    "1000 axes": (pair(shape=[1] * 999 + [2]), "'b' has the shape"),
    "a shape too large": (pair(shape=[3]), r"'b', F32 \[3\], is in 8 bytes, expected 12"),
    "a shape too small": (pair(shape=[1]), r"'b', F32 \[1\], is in 8 bytes, expected 4"),
    "another dtype": (pair(dtype="F64"), r"'b', F64 \[2\], is in 8 bytes, expected 16"),
    "one offset": (pair(data_offsets=[8]), r"'b' has data_offsets \[8\]"),
    "negative offsets": (pair(data_offsets=[-8, 0]), r"'b' has data_offsets \[-8, 0\]"),
    "texts for offsets": (pair(data_offsets=["8", "16"]), "'b' has data_offsets"),
    "offsets turned round": (pair(data_offsets=[16, 8]), "is in -8 bytes, expected 8"),
    "offsets of 2^70": (pair(data_offsets=[2**70, 2**70 + 8]), "'b' has data_offsets"),
    "an overlap": (pair(data_offsets=[4, 12]), "'b', from byte 4 on, overlaps the tensor before it, which ends at 8"),
    "the same bytes": (pair(data_offsets=[0, 8]), "'b', from byte 0 on, overlaps"),
    "a gap": (pair(data_offsets=[12, 20]), "'b', from byte 12 on, leaves a gap"),
    "a gap at the start": (packed({"a": entry(offsets=(4, 12))}, bytes(12)), "'a', from byte 4 on, leaves a gap"),
    "beyond the end": (packed({"a": entry()}, bytes(7)), "its tensors take 8 bytes, it has 7"),
    "bytes left over": (packed({"a": entry()}, bytes(8) + b"PK\5\6"), "its tensors take 8 bytes, it has 12"),
    "an empty tensor far away": (pair(shape=[0], data_offsets=[99, 99]), "'b', from byte 99 on, leaves a gap"),
}
# as large as a header may be, or larger
LARGE: dict[str, tuple[Callable[[], bytes], str]] = {
    "1.5 million empty tensors": (
        lambda: packed(b'{"0":' + b'{"dtype":"F32","shape":[0],"data_offsets":[0,0]},' * 1_500_000),
        r"a header of \d+ bytes, expected at most 16777216",
    ),
    "too many tensors": (
        lambda: packed(b"{" + b",".join(b'"%d":' % i + NONE for i in range(MOST_TENSORS + 1)) + b"}"),
        "100001 tensors, expected at most 100000",
    ),
    "many lists": (lambda: packed(b'{"a":[' + b"[]," * 5_000_000 + b"[]]}"), "more than 400000 lists and objects"),
    "many objects": (lambda: packed(b'{"a":[' + b"{}," * 5_000_000 + b"{}]}"), "more than 400000 lists and objects"),
    "many numbers": (lambda: packed(b'{"a":[' + b"0," * 7_000_000 + b"0]}"), "or 1200000 entries"),
    "one name many times": (lambda: packed(b'{"":0' + b',"":0' * 1_100_000 + b"}"), "key '' is there twice"),
    "a long name": (lambda: packed(b'{"' + b"a" * 10_000_000 + b'":1}'), "'a{80}' is not described"),
}


@pytest.fixture(params=HOSTILE)
def hostile(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    content, expected = HOSTILE[request.param]
    (tmp_path / "model.safetensors").write_bytes(content)
    return tmp_path / "model.safetensors", expected


def test_there_are_sixty() -> None:
    assert len(HOSTILE) >= 60


def test_a_hostile_header_is_refused_by_every_reader(hostile: tuple[Path, str], tmp_path: Path) -> None:
    file, expected = hostile
    readers: list[Callable[[], object]] = [
        lambda: load_tensors(file),
        lambda: tubelet.load(file),
        lambda: Predictor.load(file.parent),
        lambda: init_from_image(tiny("vivit1"), file),
        lambda: read_steps(file, key="e"),
    ]
    for read in readers:
        message = refused(read, file)
        assert re.search(expected, message)
        assert len(message) < 600
    refused(lambda: convert(file, tmp_path / "out", show=False), file)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("fault", LARGE)
def test_a_large_header_is_refused_in_little_memory(fault: str, tmp_path: Path) -> None:
    make, expected = LARGE[fault]
    file = tmp_path / "model.safetensors"
    file.write_bytes(make())
    assert re.search(expected, refused(lambda: check_header(file), file))


def test_names_are_keys_and_nothing_else(tmp_path: Path) -> None:
    names = ["../../etc/x", "/etc/passwd", "", "C:\\a", "a" * 10_000, "__class__", "模型.权重"]
    file = tmp_path / "a" / "model.safetensors"
    file.parent.mkdir()
    save_file({name: torch.ones(2) for name in names}, file)
    assert set(load_tensors(file)) == set(names)
    assert set(read_foreign(file).state) == set(names)
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["a", "a/model.safetensors"]


def test_what_safetensors_writes_is_read(tmp_path: Path) -> None:
    kinds = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool)
    tensors = {str(kind): torch.ones(2, 3).to(kind) for kind in kinds}
    tensors |= {"scalar": torch.tensor(1.5), "empty": torch.zeros(0, 3), "empty too": torch.zeros(2, 0)}
    save_file(tensors, tmp_path / "a.safetensors", metadata={"format": "pt", "b": ""})
    header = check_header(tmp_path / "a.safetensors")
    assert header.metadata == {"format": "pt", "b": ""}
    assert {name: (one.dtype, one.shape) for name, one in header.tensors.items()} == {
        name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()
    }
    found = load_tensors(tmp_path / "a.safetensors")
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    save_file({}, tmp_path / "none.safetensors")
    assert check_header(tmp_path / "none.safetensors") == ({}, {})


def mutated(whole: bytes, end: int, draw: random.Random) -> bytes:
    """Some bytes of the first `end` changed, doubled or gone; or a number of the header made another."""
    content = bytearray(whole)
    for _ in range(draw.randint(1, 3)):
        place, how = draw.randrange(min(end, len(content) - 1)), draw.random()
        if how < 0.5:
            content[place] = draw.choice(b'0123456789{}[]",:-.eE\\ \x00\xff' + bytes([draw.randrange(256)]))
        elif how < 0.75:
            content[place : place + draw.randint(1, 9)] = b""
        else:
            content[place:place] = content[place : place + draw.randint(1, 40)]
    return bytes(content)


@pytest.mark.timeout(3600)
def test_a_mutated_header_is_refused_or_true(tmp_path: Path) -> None:
    tensors = {"a.weight": torch.ones(2, 3), "a.bias": torch.ones(3).half(), "b": torch.ones(4, dtype=torch.int64)}
    save_file(tensors, tmp_path / "whole", metadata={"format": "pt"})
    whole, file, taken = (tmp_path / "whole").read_bytes(), tmp_path / "mutant", 0
    header_bytes = 8 + int.from_bytes(whole[:8], "little")
    for seed in range(MUTANTS):
        content = mutated(whole, header_bytes, random.Random(seed))
        if seed % 2:  # a true length, so that the JSON is reached
            length = len(content) - (len(whole) - header_bytes) - 8
            content = struct.pack("<Q", max(0, length)) + content[8:]
        file.write_bytes(content)
        if said := refusal(lambda: check_header(file)):
            assert is_ours(said), seed
            continue
        header, taken = check_header(file), taken + 1
        with safe_open(file, "pt") as handle:  # what we take, safetensors takes, and sees the same in it
            shapes = {name: tuple(handle.get_slice(name).get_shape()) for name in handle.keys()}  # noqa: SIM118
        assert shapes == {name: one.shape for name, one in header.tensors.items()}, seed
        assert sum(math.prod(one.shape) * one.dtype.itemsize for one in header.tensors.values()) <= len(content)
        assert set(load_tensors(file)) == set(shapes)
    assert 0 < taken < MUTANTS / 2


# ---- the settings of our own models


def ours(folder: Path, tensors: dict[str, torch.Tensor] | None = None, **changes: Any) -> Path:
    """A model of ours whose header was changed: "model.dim" is dim in "model"."""
    spec = ClipSpec(frames=8, seconds_between_frames=0.1, resize=(8, 12), crop=(8, 12), mean=(0.5,) * 3, std=(0.5,) * 3)
    file = save(tiny("vivit1"), folder, about={"classes": list("abcde"), "clip_spec": spec.to_json()})
    with safe_open(file, "pt") as handle:
        header = json.loads(handle.metadata()["tubelet"])
    for path, value in changes.items():
        *parts, last = path.split("__")
        place = header
        for part in parts:
            place = place[int(part) if isinstance(place, list) else part]
        place[last] = value
    save_file(load_file(file) | (tensors or {}), file, metadata={"tubelet": json.dumps(header)})
    return file


STAGE = "model__stages__0__"
ABSURD: list[tuple[str, Any, str]] = [
    (STAGE + "depth", 10**9, "model settings with depth = 1000000000"),
    (STAGE + "depth", 10**5, "100003 layers"),
    (STAGE + "depth", 100, "the weights do not fit the model:\n  missing: encoders.0.blocks.2"),
    (STAGE + "depth", [2] * 60, r"model settings with depth = \[2, 2"),
    (STAGE + "pool_depth", 10**5, "100002 layers"),
    (STAGE + "dim", 10**12, "model settings with dim = 1000000000000"),
    (STAGE + "dim", MOST, "the weights do not fit the model"),
    (STAGE + "dim", 0, "a width or channels below 1"),
    (STAGE + "dim", -24, "model settings with dim = -24"),
    (STAGE + "dim", "24", "model settings with dim = 24, expected int"),
    (STAGE + "dim", 24.0, "model settings with dim = 24.0, expected int"),
    (STAGE + "dim", True, "model settings with dim = True"),
    (STAGE + "dim", [24], r"model settings with dim = \[24\]"),
    (STAGE + "dim", None, "model settings with dim = None"),
    (STAGE + "dim", 10**400, "model settings with dim = 1000"),
    (STAGE + "heads", 0, "no model can be made of its settings"),
    (STAGE + "heads", 5, "no model can be made of its settings"),
    (STAGE + "mlp_dim", MOST, "the weights do not fit the model"),
    (STAGE + "prefix", MOST, "the weights do not fit the model"),
    (STAGE + "over", "w", "got over='w'"),
    (STAGE + "tables", ["x"] * 65, "model settings with tables"),
    (STAGE + "position", "x" * 10**6, "model settings with position = xxx"),
    (STAGE + "position", "xyz", "unknown position 'xyz'"),
    (STAGE + "keep_aspect", 1, "model settings with keep_aspect = 1, expected bool"),
    (STAGE + "eps", -1.0, "an eps below 0"),
    (STAGE + "pool_eps", -1.0, "an eps below 0"),
    (STAGE + "eps", math.nan, "model settings with eps = nan"),
    (STAGE + "eps", math.inf, "model settings with eps = inf"),
    (STAGE + "kind", "rm -rf", "a stage of kind rm -rf, expected blocks or windows"),
    (STAGE + "kind", ["blocks"], r"a stage of kind \['blocks'\]"),
    (STAGE + "kind", "windows", "unknown or missing: attend, bias, cap"),
    (STAGE + "colour", 1, "unknown or missing: colour"),
    ("model__stages", [], "with 0 stages"),
    ("model__stages", [{}] * 65, "model settings with stages"),
    ("model__stages", {"kind": "blocks"}, "model settings with stages"),
    ("model__stages", ["blocks"], "a stage of kind None"),
    ("model__num_classes", 10**9, "model settings with num_classes"),
    ("model__num_classes", 500_000, "head.weight is"),
    ("model__embed", "tubelet", "model settings with tubelet, expected an object"),
    ("model__embed__kind", "x" * 65, "model settings with kind = xxx"),
    ("model__embed__kind", "xyz", "unknown tokeniser 'xyz'"),
    ("model__embed__patch", [0, 4, 4], "no model can be made of its settings"),
    ("model__embed__patch", [2, 4], "model settings with patch"),
    ("model__embed__patch", {"t": 2}, "model settings with patch"),
    ("model__embed__layers", [200, 200], "405 layers"),
    ("model__clip", [10**9, 8, 12], "model settings with clip"),
    ("model__clip", [2**20, 2**20, 2**20], "a clip of"),
    ("model__clip", [2**10, 2**10, 2**10], "the weights do not fit the model"),
    ("model__clip", [8, 8], "model settings with clip"),
    ("model__family", "x" * 65, "model settings with family = xxx"),
    ("model__family", ["vivit1"], "model settings with family"),
    ("model__mean", [0.5] * 100, "model settings with mean"),
    ("model__std", [0.0], "no model can be made of its settings"),
    ("model__colour", 1, "unknown or missing: colour"),
    ("model", [1], "its 'tubelet' header lacks model"),
    ("model", {}, "unknown or missing: clip, depth, dim"),
    ("model", {"stages": []}, "unknown or missing: clip, embed, family, num_classes"),
    ("input_size", [10**9, 8, 12], "model settings with clip"),
    ("input_size", "8", "its 'tubelet' header lacks input_size"),
    ("input_size", [7, 8, 12], "no model can be made of its settings"),
    ("about", None, "its 'tubelet' header lacks about"),
]


@pytest.mark.parametrize(("key", "value", "expected"), ABSURD)
def test_absurd_settings_are_refused_before_memory_is_asked_for(
    key: str, value: Any, expected: str, tmp_path: Path
) -> None:
    file = ours(tmp_path, **{key: value})
    message = refused(lambda: tubelet.load(file), file)
    assert re.search(expected, message)
    assert len(message) < 5000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "its 'tubelet' header is damaged"),
        ("[" * 100_000, "nested too deep"),
        ('{"model":' * 50_000, "nested too deep"),
        ("[1]", "its 'tubelet' header is no JSON object"),
        ("null", "its 'tubelet' header is no JSON object"),
        ('{"model":{},"model":{}}', "the key 'model' is there twice"),
        ('"\ud800"', "its 'tubelet' header is damaged"),
    ],
)
def test_a_header_of_ours_that_is_no_json(text: str, expected: str, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(packed({"__metadata__": {"tubelet": text}, "a": entry()}, bytes(8)))
    assert re.search(expected, refused(lambda: tubelet.load(file), file))


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("about__classes", list("abcd"), "4 class names for 5 outputs"),
        ("about__classes", list("abcda"), "not a list of different texts"),
        ("about__classes", [1, 2, 3, 4, 5], "not a list of different texts"),
        ("about__classes", "abcde", "not a list of different texts"),
        ("about__clip_spec", [1], "ClipSpec: a list, expected an object"),
        ("about__clip_spec", {}, "ClipSpec: unknown keys"),
        ("about__clip_spec__frames", 10**12, "ClipSpec: frames=1000000000000"),
        ("about__clip_spec__crop", [10**9, 10**9], "is larger than resize"),
        ("about__clip_spec__resize", [10**9, 10**9], r"resize=\(1000000000, 1000000000\)"),
        ("about__clip_spec__resize", [2**20, 2**20], "1073741824 pixels in all"),
        ("about__clip_spec__mean", [10**400] * 3, "ClipSpec: mean="),
        ("about__clip_spec__seconds_between_frames", 10**400, "ClipSpec: seconds_between_frames"),
        ("about__clip_spec__kind", "__import__('os')", "ClipSpec: kind="),
        ("about__clip_spec__run", "x", r"unknown keys \['run'\]"),
    ],
)
def test_what_a_model_says_of_its_input_is_checked(key: str, value: Any, expected: str, tmp_path: Path) -> None:
    file = ours(tmp_path, **{key: value})
    assert re.search(expected, refused(lambda: Predictor.load(file, device="cpu")))


def test_a_header_that_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=naming("17000104 bytes", 16777216)):
        write_tensors(tmp_path / "a.safetensors", {"a": torch.ones(2)}, {"long": "x" * 17_000_000})
    assert not os.listdir(tmp_path)


def test_model_settings_of_every_family_are_taken() -> None:
    for family in ("vit", "vivit2", "swin2", "ast", "meta", "vjepa2"):
        config = tiny(family).config
        assert read_config(json.loads(json.dumps(config.to_json()))) == config


# ---- what lies beside weights of others, and files of other kinds


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors.index.json"])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"{", "not readable as JSON"),
        (b"[1]", "a JSON list, expected an object"),
        (b'{"a":1,"a":2}', "the key 'a' is there twice"),
        (b'{"a":' + b"[" * 200_000, "nested too deep"),
        (b'{"a":[' + b"[]," * 500_000 + b"1]}", "more than 400000 lists"),
        (b" " * (json_file.MOST_BYTES + 1), "bytes of JSON, expected at most"),
        (b'{"a":"\xff"}', "not readable as JSON"),
    ],
    ids=["cut", "a list", "twice", "deep", "lists", "long", "no text"],
)
def test_hostile_settings_beside_weights(name: str, content: bytes, expected: str, tmp_path: Path) -> None:
    weights = "a.safetensors" if "index" in name else "model.safetensors"
    save_file({"cls_token": torch.ones(2)}, tmp_path / weights)
    (tmp_path / name).write_bytes(content)
    assert re.search(expected, refused(lambda: read_foreign(tmp_path), tmp_path / name))


@pytest.mark.parametrize("value", [7, "x", [1], {"mean": "x"}, {"mean": [10**400]}, {"std": [[0.5]]}])
def test_hostile_settings_beside_an_image_model(value: object, tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": value}))
    assert "config.json" in refused(lambda: image_config(tmp_path))


def write_flax(file: Path) -> None:
    leaf = msgpack.ExtType(1, msgpack.packb(((2, 3), "float32", bytes(24)), use_bin_type=True))
    file.write_bytes(msgpack.packb({"params": {"a": {"b": leaf}, "c": leaf}}, use_bin_type=True))


def write_npz(file: Path) -> None:
    with open(file, "wb") as handle:
        np.savez_compressed(handle, a=np.arange(6.0).reshape(2, 3), b=np.ones(4, np.float32))


def write_codes(file: Path) -> None:
    with keep_steps(file, key="e" * 64, seconds_between_steps=0.1, source="a.mp4") as blocks:
        blocks.append(torch.ones(3, 4))


def read_codes(file: Path) -> None:
    assert read_steps(file, key="e" * 64).ndim == 2


WRITERS: dict[str, tuple[Callable[[Path], None], Callable[[Path], object]]] = {
    "checkpoint": (write_flax, read_foreign),
    "weights.npz": (write_npz, read_foreign),
    "codes.safetensors": (write_codes, read_codes),
}


@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore:Reading `.npy` or `.npz` file required additional header parsing")
@pytest.mark.filterwarnings("ignore:invalid escape sequence")
@pytest.mark.parametrize("name", WRITERS)
def test_a_mutated_file_is_read_or_refused(name: str, tmp_path: Path) -> None:
    write, read = WRITERS[name]
    write(tmp_path / name)
    whole, file = (tmp_path / name).read_bytes(), tmp_path / name
    read(file)
    for seed in range(MUTANTS):
        file.write_bytes(mutated(whole, len(whole), random.Random(seed)))
        with bounded():
            said = refusal(lambda: read(file))
        assert said is None or is_ours(said), (seed, said)


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        (torch.ones(3), "not rows of float32"),
        (torch.ones(3, 4).half(), "not rows of float32"),
        (torch.ones(0, 4), "not rows of float32"),
        (None, "not rows of float32"),
    ],
)
def test_codes_that_are_none(codes: torch.Tensor | None, expected: str, tmp_path: Path) -> None:
    file = tmp_path / "codes.safetensors"
    about = {"tubelet": json.dumps({"codes": {"encoder": "e", "format": FORMAT}})}
    save_file({"times": torch.ones(3)} | ({} if codes is None else {"codes": codes}), file, metadata=about)
    assert expected in refused(lambda: read_steps(file, key="e"), file)
    save_file({"codes": torch.ones(3, 4)}, file, metadata={"tubelet": '{"codes": {"encoder": 7}}'})
    assert "holds no codes" in refused(lambda: read_steps(file, key="e"), file)


EXPORT = {
    "format": "onnx",
    "int8": False,
    "classes": ["a", "b"],
    "clip_spec": {},
    "input": {"dtype": "uint8", "shape": [None, 3, 4, 32, 32]},
}


@pytest.mark.parametrize(
    ("changes", "model", "values"),
    [
        ({"format": ["onnx"]}, b"x", ("tubelet.json", "`tubelet export`")),
        ({"format": "../../bin/sh"}, b"x", ("tubelet.json", "`tubelet export`")),
        ({"input": []}, b"x", ("tubelet.json", "`tubelet export`")),
        ({"input": {"shape": "x", "dtype": "uint8"}}, b"x", ("tubelet.json", "`tubelet export`")),
        ({"classes": "ab"}, b"x", ("tubelet.json", "`tubelet export`")),
        ({}, b"", ("model.onnx", "ONNXRuntimeError")),
        ({}, b"\x08\x07garbage", ("model.onnx", "ONNXRuntimeError")),
        ({}, None, ("model.onnx",)),
        ({"format": "openvino"}, b"<net><layers/></net>", ("model.xml", "Exception")),
        ({"format": "openvino"}, b"\xff" * 100, ("model.xml", "Exception")),
    ],
)
def test_a_hostile_export_folder(
    changes: dict[str, Any], model: bytes | None, values: tuple[str, str], tmp_path: Path
) -> None:
    about = EXPORT | changes
    (tmp_path / "tubelet.json").write_text(json.dumps(about))
    if model is not None:
        name = "model.xml" if about["format"] == "openvino" else "model.onnx"
        (tmp_path / name).write_bytes(model)
        (tmp_path / "model.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=naming(tmp_path / values[0], *values[1:])) as caught:
        Exported(tmp_path)
    assert is_ours(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000, '{"format": "onnx", "format": "onnx"}', "\xff"])
def test_an_export_that_says_nonsense(text: str, tmp_path: Path) -> None:
    (tmp_path / "tubelet.json").write_text(text, encoding="latin-1")
    assert re.search(naming(tmp_path / "tubelet.json"), refused(lambda: Exported(tmp_path)))


# ---- nothing is run, nothing is asked of the network

WATCHED = """
    import os, sys
    from pathlib import Path
    import numpy as np, torch
    torch.set_num_threads(1)
    import huggingface_hub, tubelet, tubelet.cli, tubelet.predict.predictor, tubelet.evaluate
    from tubelet.convert.conversion import convert, convert_back
    from tubelet.weights import image_config, init_from_image
    seen = []
    EVENTS = ("pickle.find_class", "socket.connect", "socket.getaddrinfo", "socket.__new__", "socket.gethostbyname",
              "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "compile")
    control = False
    def watch(event, arguments):
        if control and event.startswith("socket"):
            os._exit(0)
        if event in EVENTS and (event != "compile" or arguments[1] in ("<string>", None)):
            seen.append((event, str(arguments)[:200]))
    folder = Path(sys.argv[1])
    os.chdir(folder)
    def no(function, *arguments, **settings):
        try:
            function(*arguments, **settings)
        except ValueError as error:
            return str(error)
        raise AssertionError((function, arguments))
    sys.addaudithook(watch)
    model = tubelet.load("run")
    assert "sympy" not in sys.modules  # torch's arithmetic on shapes takes seconds to get ready
    print(tubelet.Predictor.load("run", device="cpu").predict("picture.png").label)
    convert("theirs", "out", heads=4, clip=(1, 8, 12), show=False)
    convert("theirs/w.npz", "out2", dialect="timm", heads=4, clip=(1, 8, 12), show=False)
    convert_back("run", "back", dialect="timm", show=False)
    for name in ("evil.pt", "evil.pkl", "legacy.pt", "bin", "evil-folder"):
        for read in (tubelet.load, lambda name: convert(name, "none", show=False),
                     lambda name: init_from_image(model, name), lambda name: tubelet.Predictor.load(name)):
            no(read, name)
    for name in ("./x", "x.safetensors", "runs/x", "../x", "/x/y", "x", "runs", "vit.safetensors", "a/b/c", "http://x/y",
                 "https://huggingface.co/timm/x", "//x/y", "timm/vit_tiny.x", "clip.mp4", "", "C:\\\\x"):
        for read in (tubelet.load, image_config, lambda name: convert(name, "none", show=False),
                     lambda name: init_from_image(model, name), lambda name: tubelet.Predictor.load(name)):
            no(read, name)
    print(seen)
    assert not seen, seen
    control = True
    no(image_config, "vit_tiny_made_up.x")  # a name on the hub: the watch sees it, and ends this program
    raise AssertionError("the watch saw no socket")
"""


def test_no_unpickling_no_network_no_programs(tmp_path: Path) -> None:
    spec = ClipSpec(
        kind="image",
        frames=1,
        seconds_between_frames=0.0,
        resize=(8, 12),
        crop=(8, 12),
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
    )
    model = tiny("vit")
    save(model, tmp_path / "run", about={"classes": list("abcde"), "clip_spec": spec.to_json()})
    from small_sets import write_image

    write_image(tmp_path / "picture.png", np.full((8, 12, 3), 100, np.uint8))
    (tmp_path / "theirs").mkdir()
    state = tubelet.weights.to_reference(model, "timm")
    save_file(state, tmp_path / "theirs" / "model.safetensors")
    np.savez(tmp_path / "theirs" / "w.npz", **{name: value.numpy() for name, value in state.items()})
    plant(tmp_path)
    home = {"HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hf"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WATCHED), str(tmp_path)],
        env={**os.environ, **home, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "was-run").exists()


def plant(folder: Path) -> None:
    """Pickles that create a file when they are opened, under names that readers look for."""
    marker = folder / "was-run"

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(marker),)

    (folder / "bin").mkdir()
    (folder / "evil-folder").mkdir()
    for name in (
        "evil.pt",
        "evil.pkl",
        "bin/pytorch_model.bin",
        "evil-folder/model.safetensors",
        "evil-folder/checkpoint",
    ):
        torch.save({"a": Payload()}, folder / name)
    torch.save({"a": Payload()}, folder / "legacy.pt", _use_new_zipfile_serialization=False)
