"""Pickles: none is read unasked; with --unsafe-pickle only state dicts are, and nothing in them runs."""

import argparse
import io
import json
import pickle
import re
import struct
import sys
import tarfile
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from goldens import CASES, FOLDER, entries, loaded
from naming import naming
from small_sets import command
from test_strangers import bounded, plant, refused
from tiny import tiny
from torch.testing import assert_close

import tubelet
from tubelet.convert.conversion import convert
from tubelet.weights.formats import pickle_file
from tubelet.weights.formats.open import read_foreign
from tubelet.weights.formats.pickle_file import WARNING, WRAPPERS, state_in

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2).bfloat16()}


def read(file: Path) -> Any:
    return read_foreign(file, unsafe_pickle=True)


def same(found: dict[str, torch.Tensor]) -> bool:
    return list(found) == list(STATE) and all(torch.equal(found[name], STATE[name]) for name in STATE)


# ---- what trainers save


@pytest.mark.parametrize(
    ("saved", "within", "dropped"),
    [
        (STATE, "", ()),
        (OrderedDict(STATE), "", ()),
        ({"state_dict": STATE, "epoch": 3}, "state_dict", ("epoch",)),
        ({"model": STATE, "optimizer": {"state": {0: {"m": torch.ones(9)}}}}, "model", ("optimizer",)),
        ({"epoch": 1, "model_state": STATE, "optimizer_state": {}, "cfg": "a: 1"}, "model_state", None),
        ({"module": STATE, "lr_scheduler": {"milestones": Counter([1, 2])}}, "module", ("lr_scheduler",)),
        ({"state_dict_ema": STATE, "arch": "vit"}, "state_dict_ema", ("arch",)),
        ({"model_ema": STATE, "model": STATE}, "model", ("model_ema",)),
        ({"state_dict": {"model": STATE, "n": 1}, "b": [1, (2.5, None, True)]}, "state_dict.model", None),
        ({"model": STATE, "step": torch.tensor(5)}, "model", ("step",)),
        ({**STATE, "note": "x"}, "", ("note",)),
        ({"model": {}, "state_dict": STATE}, "state_dict", ("model",)),
    ],
)
def test_a_state_dict_is_found_where_trainers_put_it(
    saved: dict[str, Any], within: str, dropped: tuple[str, ...] | None, tmp_path: Path
) -> None:
    torch.save(saved, tmp_path / "w.pth")
    found = read(tmp_path / "w.pth")
    assert same(found.state)
    assert found.within == within
    assert dropped is None or found.dropped == dropped
    assert found.file == tmp_path / "w.pth"


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_every_wrapper_is_known(wrapper: str) -> None:
    assert state_in({wrapper: STATE, "epoch": 1}) == (STATE, ("epoch",), wrapper)


def test_parameters_and_views_come_as_plain_tensors(tmp_path: Path) -> None:
    table = torch.arange(12.0).reshape(3, 4)
    saved = {
        "p": torch.nn.Parameter(table),
        "t": table.T,
        "row": table[1],
        "empty": torch.zeros(0, 3),
        "n": torch.tensor(3),
    }
    torch.save(saved, tmp_path / "w.pt")
    found = read(tmp_path / "w.pt").state
    assert all(type(tensor) is torch.Tensor and tensor.is_contiguous() for tensor in found.values())
    assert not found["p"].requires_grad
    assert all(torch.equal(found[name], saved[name]) for name in saved)


def test_tensors_that_share_their_numbers(tmp_path: Path) -> None:
    table = torch.randn(300, 100)
    torch.save({"in": table, "out": table, "row": table[7]}, tmp_path / "w.pt")
    found = read(tmp_path / "w.pt").state
    assert torch.equal(found["in"], table)
    assert torch.equal(found["out"], table)
    assert torch.equal(found["row"], table[7])


def test_every_dtype_of_weights(tmp_path: Path) -> None:
    kinds = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
    saved = {kind: torch.ones(3).to(getattr(torch, kind)) for kind in kinds}
    torch.save(saved, tmp_path / "w.pt")
    found = read(tmp_path / "w.pt").state
    assert all(found[kind].dtype == saved[kind].dtype and torch.equal(found[kind], saved[kind]) for kind in kinds)


def test_a_folder_with_one_pickle_and_its_settings(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text('{"model_type": "vivit"}')
    assert read(tmp_path).config == {"model_type": "vivit"}
    torch.save(STATE, tmp_path / "training_args.bin")
    with pytest.raises(ValueError, match=naming(tmp_path, "model.safetensors", "checkpoint")):
        read(tmp_path)


def test_other_kinds_of_files_are_read_as_ever(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", a=np.ones(2))
    assert list(read(tmp_path / "w.npz").state) == ["a"]


# ---- the command


def test_timesformers_own_file_converts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state, pixels, expected = loaded("timesformer_original_divided")
    saved = {"epoch": 30, "model_state": {f"model.{name}": torch.as_tensor(value) for name, value in state.items()}}
    torch.save(saved | {"optimizer_state": {"state": {}}, "cfg": "TRAIN: true"}, tmp_path / "t.pyth")
    flags = (
        "--unsafe-pickle",
        "--heads",
        CASES["timesformer_original_divided"].settings()["heads"],
        "--clip",
        4,
        32,
        32,
    )
    assert command("convert", tmp_path / "t.pyth", tmp_path / "ours", *map(str, flags)) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert WARNING in printed
    assert "taken from 'model_state' in t.pyth" in printed
    assert "49 tensors of timesformer weights" in printed
    with torch.inference_mode():
        assert_close(
            tubelet.load(tmp_path / "ours")(torch.as_tensor(pixels)), torch.as_tensor(expected), atol=1e-5, rtol=0
        )


def test_a_checkpoint_of_vjepa_is_its_averaged_encoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    src, given = FOLDER / "vjepa21_checkpoint.pt", entries("vjepa21_checkpoint_answer")
    flags = ("--unsafe-pickle", "--heads", "1", "--clip", "4", "32", "48")
    assert command("convert", src, tmp_path / "ours", *flags) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert all(word in printed for word in ("'ema_encoder'", "vjepa21", "predictor", "MIT"))
    with torch.inference_mode():
        tokens, _ = tubelet.load(tmp_path / "ours").tokens(given["input"])
    assert_close(tokens, given["logits"], atol=1e-5, rtol=0)
    assert not torch.allclose(tokens, given["logits_of_encoder"], atol=1e-2)


@pytest.mark.parametrize("wrapper", ["module", "model"])
def test_videomaes_files_convert(wrapper: str, tmp_path: Path) -> None:
    state, clip, expected = loaded("hf_videomae")
    torch.save(
        {wrapper: {f"module.{name}": value for name, value in state.items()}, "args": argparse.Namespace(lr=1e-3)},
        tmp_path / "v.pth",
    )
    settings = CASES["hf_videomae"].settings()
    file = convert(tmp_path / "v.pth", tmp_path / "ours", unsafe_pickle=True, show=False, **settings)
    with torch.inference_mode():
        assert_close(tubelet.load(file)(clip.transpose(1, 2)), expected, atol=1e-5, rtol=0)


def test_without_the_flag_the_flag_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(STATE, tmp_path / "w.pth")
    assert command("convert", tmp_path / "w.pth", tmp_path / "ours") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert re.search(naming(tmp_path / "w.pth", "pickle", "`tubelet convert SRC DST --unsafe-pickle`"), said)


def test_the_way_back_has_no_use_for_it(tmp_path: Path) -> None:
    tubelet.save(tiny("vit"), tmp_path / "ours")
    assert command("convert", tmp_path / "ours", tmp_path / "theirs", "--to", "timm") == 0
    assert command("convert", tmp_path / "ours", tmp_path / "again", "--to", "timm", "--unsafe-pickle") == 2


@pytest.mark.parametrize("version", ["2.6.0", "2.9.1+cpu"])
def test_an_older_torch_does_not_read_them(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(STATE, tmp_path / "w.pt")
    monkeypatch.setattr(torch, "__version__", version)
    assert re.search(
        naming(f"torch {version}", "torch 2.10", "pip install -U torch"),
        refused(lambda: read(tmp_path / "w.pt"), tmp_path / "w.pt"),
    )


# ---- hostile pickles


def zipped(program: bytes, storages: tuple[bytes, ...] = (), **others: bytes) -> bytes:
    """As torch.save lays it out."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in {"data.pkl": program, "byteorder": b"little", "version": b"3\n", **others}.items():
            archive.writestr(f"a/{name}", data)
        for number, data in enumerate(storages):
            archive.writestr(f"a/data/{number}", data)
    return buffer.getvalue()


def saved(value: object, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **settings)
    return buffer.getvalue()


def called(name: str, *arguments: object) -> bytes:
    """A pickle that calls a name of a module."""
    module, _, attribute = name.rpartition(".")
    packed = pickle.dumps(arguments, 2)[2:-1]
    return zipped(b"\x80\x02}U\x01ac" + f"{module}\n{attribute}\n".encode() + packed + b"Rs.", (bytes(8),))


def tensor_program(shape: tuple[int, ...], stride: tuple[int, ...], *, numbers: int = 2, offset: int = 0) -> bytes:
    """{"a": a tensor} on storage 0, as told, whether or not that can be."""
    numbers_ = pickle.dumps(numbers, 2)[2:-1]
    view = b"".join(pickle.dumps(part, 2)[2:-1].replace(b"q\x00", b"") for part in (offset, shape, stride))
    storage = b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpu" + numbers_ + b"tQ"
    return (
        b"\x80\x02}U\x01actorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + view
        + b"\x89ccollections\nOrderedDict\n)RtRs."
    )


def rewritten(content: bytes, change: Callable[[zipfile.ZipInfo, bytes], tuple[zipfile.ZipInfo, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        for entry in old.infolist():
            new.writestr(*change(entry, old.read(entry)))
    return buffer.getvalue()


def deflated(entry: zipfile.ZipInfo, data: bytes) -> tuple[zipfile.ZipInfo, bytes]:
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry, data


def in_central_directory(content: bytes, name: bytes, place: int, value: bytes) -> bytes:
    """The archive's own entry for a file, some bytes of it changed."""
    start = content.rindex(b"PK\1\2", 0, content.rindex(name))
    return content[: start + place] + value + content[start + place + len(value) :]


def old_tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("pickle"), io.BytesIO())
    return buffer.getvalue()


def itself() -> dict[str, Any]:
    tree: dict[str, Any] = {}
    tree["model"] = tree
    return tree


class Own:
    """A class of a trainer's."""


TWO = zipped(tensor_program((2,), (1,)), (bytes(8),))
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "os.system": (
        lambda: called("os.system", "touch was-run"),
        r"asks for 'os\.system', and tensors.* nothing of it was run",
    ),
    "posix.system": (lambda: called("posix.system", "touch was-run"), r"asks for 'posix\.system'"),
    "eval": (lambda: called("builtins.eval", "1"), r"asks for 'builtins\.eval'"),
    "exec of Python 2": (lambda: called("__builtin__.exec", "1"), r"asks for '__builtin__\.exec'"),
    "a program": (lambda: called("subprocess.Popen", ["touch", "was-run"]), r"asks for 'subprocess\.Popen'"),
    "getattr": (lambda: called("builtins.getattr", "a", "b"), r"asks for 'builtins\.getattr'"),
    "torch.load": (lambda: called("torch.load", "b.pt"), r"asks for 'torch\.load'"),
    "torch.hub": (lambda: called("torch.hub.load", "x/y", "z"), r"asks for 'torch\.hub\.load'"),
    "a class of its own": (lambda: saved({"a": Own()}), r"asks for 'test_pickles\.Own'"),
    "a class within settings": (lambda: saved({"args": argparse.Namespace(a=Own())}), r"asks for 'test_pickles\.Own'"),
    "a whole model": (lambda: saved(torch.nn.Linear(2, 2)), r"asks for .*'torch\.nn\.modules\.linear\.Linear'"),
    "a number of numpy's": (lambda: saved({"a": np.float64(1)}), r"asks for .*numpy"),
    "a sparse tensor": (lambda: saved({"a": torch.eye(2).to_sparse()}), r"asks for .*_rebuild_sparse_tensor'"),
    "a tensor without numbers": (lambda: saved({"a": torch.ones(2, device="meta")}), r"asks for .*_rebuild_meta"),
    "10 GB of zeros": (lambda: called("builtins.bytearray", 10**10), r"asks for 'builtins\.bytearray'"),
    "a tensor of 4 TB": (lambda: called("torch.FloatTensor", 10**6, 10**6), r"asks for 'torch\.FloatTensor'"),
    "a storage of 4 TB": (lambda: called("torch.storage.UntypedStorage", 10**12), r"asks for 'torch\.storage\.Untyped"),
    "a name by the stack": (
        lambda: zipped(b"\x80\x04\x8c\2os\x8c\6system\x93\x8c\1x\x85R."),
        "asks for 'STACK_GLOBAL'",
    ),
    "a name by INST": (lambda: zipped(b"(S'touch was-run'\nios\nsystem\n."), "asks for 'INST'"),
    "a name by number": (lambda: zipped(b"\x82\x01."), "asks for 'EXT1'"),
    "stride 0": (
        lambda: saved({"a": torch.zeros(1).as_strided((10**6, 10**6), (0, 0))}),
        r"claims 4000000000000 bytes and has 4",
    ),
    "stride 0, built by hand": (
        lambda: zipped(tensor_program((4, 2), (0, 1)), (bytes(8),)),
        "claims 32 bytes and has 8",
    ),
    "a shape of 4 TB": (lambda: zipped(tensor_program((10**12,), (1,)), (bytes(8),)), "."),
    "a storage that says 4 TB": (
        lambda: zipped(tensor_program((2,), (1,), numbers=10**12), (bytes(8),)),
        "claims 4000000000000 bytes, in a file of",
    ),
    "a storage that says more": (lambda: zipped(tensor_program((9,), (1,), numbers=9), (bytes(8),)), "."),
    "a storage of -1": (lambda: zipped(tensor_program((2,), (1,), numbers=-1), (bytes(8),)), "."),
    "beyond its storage": (lambda: zipped(tensor_program((2,), (1,), offset=5), (bytes(8),)), "."),
    "before its storage": (lambda: zipped(tensor_program((2,), (1,), offset=-1), (bytes(8),)), "."),
    "negative sides": (lambda: zipped(tensor_program((-2,), (1,)), (bytes(8),)), "."),
    "no storage": (lambda: zipped(tensor_program((2,), (1,))), "."),
    "one storage, many tensors": (
        lambda: saved({f"{i}": torch.ones(10_000).view(100, 100) for i in [0]} | same_storage(100)),
        r"its tensors claim \d+ bytes, in a file of",
    ),
    "complex": (lambda: saved({"a": torch.ones(2, dtype=torch.complex64)}), r"asks for 'torch\.ComplexFloatStorage'"),
    "no dictionary": (lambda: saved([torch.ones(2)]), "no tensors by name in it, but a list"),
    "no tensors": (
        lambda: saved({"epoch": 1, "lr": 0.1}),
        "no tensors by name in it, but a dictionary of 'epoch', 'lr'",
    ),
    "an empty one": (lambda: saved({}), "no tensors by name in it, but a dictionary of nothing"),
    "itself": (lambda: saved(itself()), "no tensors by name in it"),
    "numbers for names": (lambda: saved({0: torch.ones(2)}), "no tensors by name in it, but a dictionary of '0'"),
    "assigning to a tensor": (lambda: zipped(tensor_program((2,), (1,))[:-1] + b"U\1aU\1b\x86b.", (bytes(8),)), "."),
    "no pickle": (lambda: zipped(b"\xff\xfe"), "its data.pkl is no whole pickle"),
    "a pickle cut short": (lambda: zipped(tensor_program((2,), (1,))[:40], (bytes(8),)), "no whole pickle"),
    "an empty pickle": (lambda: zipped(b""), "no whole pickle"),
    "a memo far away": (lambda: zipped(b"\x80\x02}r\xff\xff\xff\xffj\xff\xff\xff\xff."), "no tensors by name"),
    "a stack that is empty": (lambda: zipped(b"\x80\x02tR."), "."),
    "nested deep": (lambda: zipped(b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b"."), "but a tuple"),
    "a long pickle": (lambda: zipped(b"\x80\x02" + b"N" * 2**21 + b"."), "one data.pkl of at most 2097152 bytes"),
    "no data.pkl": (lambda: zipped(b"").replace(b"data.pkl", b"data.pk1"), "expected one data.pkl"),
    "two data.pkl": (lambda: zipped(b"\x80\x02}.", **{"b/data.pkl": b"\x80\x02}."}), "expected one data.pkl"),
    "TorchScript": (lambda: zipped(b"\x80\x02}.", **{"constants.pkl": b"\x80\x02)."}), "TorchScript, a program"),
    "deflated": (lambda: rewritten(saved({"a": torch.zeros(10**6)}), deflated), "its archive is packed or encrypted"),
    "encrypted": (lambda: in_central_directory(TWO, b"a/data/0", 8, b"\1"), "its archive is packed or encrypted"),
    "packed as it says": (lambda: in_central_directory(TWO, b"a/data/0", 10, b"\x63"), "packed or encrypted"),
    "a size of its own": (
        lambda: in_central_directory(TWO, b"a/data/0", 24, struct.pack("<I", 2**31)),
        "packed or encrypted",
    ),
    "sizes that overlap": (
        lambda: in_central_directory(TWO, b"a/data/0", 20, struct.pack("<II", 2**31, 2**31)),
        "the entries of its archive overlap",
    ),
    "a name twice": (
        lambda: TWO.replace(b"a/version", b"a/data/0\0"[:9]).replace(b"a/data/0\0", b"a/data.pkl"[:9]),
        ".",
    ),
    "a comment": (lambda: TWO[:-2] + b"\x04\0abcd", "an archive with a comment"),
    "cut in half": (lambda: TWO[: len(TWO) // 2], "."),
    "before torch 1.6": (
        lambda: saved(STATE, _use_new_zipfile_serialization=False),
        "no zip archive, as torch.save writes",
    ),
    "before torch 0.4": (old_tar, "no zip archive, as torch.save writes"),
    "Python's own": (lambda: pickle.dumps({"a": 1}), "no zip archive"),
    "empty": (lambda: b"", "no zip archive"),
    "random bytes": (lambda: np.random.default_rng(0).bytes(5000), "no zip archive"),
}


def same_storage(tensors: int) -> dict[str, torch.Tensor]:
    one = torch.ones(10_000)
    return {f"view {i}": one[:] for i in range(tensors)}


def test_there_are_twenty_five() -> None:
    assert len(HOSTILE) >= 25


@pytest.mark.parametrize("fault", HOSTILE)
def test_a_hostile_pickle_is_refused(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, expected = HOSTILE[fault]
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "w.pt"
    file.write_bytes(make())
    message = refused(lambda: read(file), file)
    assert re.search(expected, message)
    assert "weights_only=False" not in message
    assert "add_safe_globals" not in message
    assert len(message) < 900
    refused(lambda: read_foreign(file), file)
    assert not (tmp_path / "was-run").exists()
    assert not (tmp_path / "ours").exists()


def test_the_tensor_built_by_hand_is_read_where_it_is_whole(tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(zipped(tensor_program((2,), (1,)), (struct.pack("<2f", 1.5, 2.5),)))
    assert read(tmp_path / "w.pt").state["a"].tolist() == [1.5, 2.5]


def test_a_payload_does_not_run(tmp_path: Path) -> None:
    plant(tmp_path)
    seen: list[object] = []
    sys.addaudithook(lambda event, data: seen.append(data) if event == "pickle.find_class" else None)
    with pytest.raises(ValueError, match=r"asks for .(os|posix)\.mkdir."):
        convert(tmp_path / "evil.pt", tmp_path / "ours", unsafe_pickle=True)
    for name in ("legacy.pt", "evil.pkl", "bin"):
        refused(lambda name=name: read(tmp_path / name))
    assert not seen
    assert not (tmp_path / "was-run").exists()
    torch.load(tmp_path / "evil.pt", weights_only=False)
    assert (tmp_path / "was-run").exists()  # it would have


def test_a_file_beyond_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(STATE, tmp_path / "w.pt")
    monkeypatch.setattr(pickle_file, "MOST_BYTES", 100)
    assert "bytes, expected at most 100" in refused(lambda: read(tmp_path / "w.pt"))


def test_nothing_but_tensors_reaches_the_result(tmp_path: Path) -> None:
    torch.save({"model": STATE, "cfg": "x", "lr": [0.1]}, tmp_path / "w.pt")
    with bounded():
        found = read(tmp_path / "w.pt")
    assert all(type(tensor) is torch.Tensor for tensor in found.state.values())
    assert json.dumps(found.dropped) == '["cfg", "lr"]'
