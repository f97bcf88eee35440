"""An exported folder answers as the run it was made from; its report is true; nothing is overwritten unasked."""

import json
import os
import pickle
import re
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import numpy as np
import onnx
import pytest
import torch
from naming import naming
from small_sets import SOUND, VIDEO, command, spoil, write_sounds, write_videos
from tiny import tiny

from tubelet import ClipSpec, Predictor, load, save
from tubelet.data.clips import views
from tubelet.export.int8 import roundings
from tubelet.export.onnx import write_onnx
from tubelet.export.program import resample, write_program
from tubelet.export.writer import export, read, synthetic
from tubelet.media.writer import write_video
from tubelet.nn import position
from tubelet.nn.grid import Grid
from tubelet.nn.position import RESAMPLINGS
from tubelet.predict.exported import Exported, read_exported
from tubelet.predict.precision import choose_dtype
from tubelet.system.extras import import_extra


def make_run(folder: Path, family: str, spec: ClipSpec, *, classes: list[str], **settings: Any) -> Path:
    clip = {"clip": spec.clip_size, "channels": spec.num_channels, "mean": spec.mean, "std": spec.std}
    model = tiny(family, num_classes=len(classes), **clip, **settings)
    save(model, folder, about={"classes": classes, "clip_spec": spec.to_json()})
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("export")


@pytest.fixture(scope="module")
def run(place: Path) -> Path:
    settings = {"patch": (2, 16, 16), "depth": 1}
    return make_run(place / "run", "vivit2", VIDEO, classes=["bright", "dark", "neither"], **settings)


@pytest.fixture(scope="module")
def data(place: Path) -> Path:
    return write_videos(place / "data", 5)


@pytest.fixture(scope="module")
def plain(place: Path, run: Path) -> Path:
    """The model's ONNX file in float32, traced once for all tests."""
    write_onnx(load(run), place / "plain.onnx", clip=torch.zeros(1, 3, 4, 32, 32, dtype=torch.uint8))
    return place / "plain.onnx"


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch, plain: Path) -> None:
    monkeypatch.setattr("tubelet.export.formats.write_onnx", lambda model, file, clip: shutil.copyfile(plain, file))


Make = Callable[..., tuple[Path, dict[str, Any]]]


@pytest.fixture(scope="module")
def make(place: Path, run: Path, data: Path, plain: Path) -> Make:
    """Exports the run with some flags, once: the folder and what it says of itself."""
    made: dict[str, tuple[Path, dict[str, Any]]] = {}

    def export_once(form: str, *, int8: bool = False, full_range: bool = False) -> tuple[Path, dict[str, Any]]:
        name = f"{form}{8 * int8}{' full' * full_range}"
        if name not in made:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(
                    "tubelet.export.formats.write_onnx", lambda model, file, clip: shutil.copyfile(plain, file)
                )
                patch.setattr("tubelet.export.writer.ENOUGH", 0.0)  # then all products are in int8 on every machine
                flags: dict[str, Any] = {"int8": int8, "full_range": full_range, "data": data, "clips": 8}
                about = export(run, place / name, format=form, show=False, **flags)
            made[name] = place / name, about
        return made[name]

    return export_once


def bytes_like(spec: ClipSpec, batch: int) -> torch.Tensor:
    size = (batch, spec.num_channels, *spec.clip_size)
    return torch.randint(0, 256, size, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


KINDS = [("onnx", False), ("onnx", True), ("openvino", False), ("openvino", True), ("torch-export", False)]
TRUST = {"trusted": True}


# ---- answers


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("form", ["onnx", "openvino", "torch-export"])
@torch.inference_mode()
def test_an_exported_model_answers_as_its_run(make: Make, run: Path, form: str, batch: int) -> None:
    folder, about = make(form)
    clips = bytes_like(VIDEO, batch)
    torch.testing.assert_close(Exported(folder, **TRUST)(clips), load(run)(clips), atol=2e-5, rtol=0)
    assert about == read_exported(folder)
    assert (about["family"], about["format"], about["int8"]) == ("vivit2", form, False)
    size = [None] * 3 if form == "torch-export" else [4, 32, 32]
    assert about["input"] == {"name": "clip", "dtype": "uint8", "shape": [None, 3, *size]}
    assert ClipSpec.from_json(about["clip_spec"]) == VIDEO
    assert about["versions"]["torch"] == torch.__version__


@pytest.mark.parametrize("form", ["onnx", "openvino"])
@torch.inference_mode()
def test_int8_is_near_and_small(make: Make, run: Path, data: Path, form: str) -> None:
    clips = torch.cat([views(file, VIDEO) for file in data.rglob("*.mp4")])
    exact, found = load(run)(clips), Exported(make(form, int8=True)[0])(clips)
    assert not torch.equal(found, exact)
    assert (found - exact).abs().max() < 0.1 * exact.abs().max()
    whole, small = (make(form, int8=int8)[0] for int8 in (False, True))
    suffix = "onnx" if form == "onnx" else "bin"
    assert (small / f"model.{suffix}").stat().st_size < 0.6 * (whole / f"model.{suffix}").stat().st_size


@pytest.mark.parametrize(("form", "int8"), KINDS)
def test_predictions_need_the_folder_alone(
    make: Make, run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str, int8: bool
) -> None:
    folder = shutil.copytree(make(form, int8=int8)[0], tmp_path / "elsewhere")
    files = sorted(data.rglob("*.mp4"))
    exact = Predictor.load(run, device="cpu").predict_files(files, views="2x3")
    found = Predictor.load(folder, **TRUST).predict_files(files, views="2x3")
    for a, b in zip(exact, found, strict=True):
        assert b.status == "ok"
        for name in ("bright", "dark", "neither"):
            assert b.probabilities[name] == pytest.approx(a.probabilities[name], abs=0.1 if int8 else 1e-4)
    assert command("predict", folder, files[0], "--json", "--dtype", "float32", "--trusted") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["label"] == Predictor.load(folder, **TRUST).predict(files[0]).label
    assert command("eval", folder, data, "--json", "--trusted") == 0
    assert json.loads(capsys.readouterr().out)["clips"] == 10


def test_sound_windows_and_masks(place: Path) -> None:
    settings: dict[str, Any] = {"patch": (1, 4, 4), "classes": ["high", "low"], "depths": (2,), "heads": (2,)}
    run = make_run(place / "sound_run", "swin2", SOUND, window=(1, 2, 4), **settings)
    file = write_sounds(place / "sounds", 1) / "low" / "0.wav"
    about = export(run, place / "sound", clips=3, show=False)
    assert about["input"] == {"name": "clip", "dtype": "float32", "shape": [None, 1, 1, 16, 32]}
    a, b = (Predictor.load(folder, device="cpu").predict(file).probabilities for folder in (run, place / "sound"))
    assert a["low"] == pytest.approx(b["low"], abs=1e-4)
    assert about["report"]["clips"] == "3 synthetic clips, not real ones: give --data for those"


# ---- the file


def products(file: Path) -> list[Any]:
    return [node for node in onnx.load(file).graph.node if node.op_type in ("MatMul", "Gemm", "MatMulInteger")]


def test_the_file_is_one_that_others_can_read(plain: Path, run: Path) -> None:
    model = onnx.load(plain)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 23)]
    kinds = Counter(node.op_type for node in model.graph.node)
    assert kinds["Attention"] == 2
    weights = {tensor.name for tensor in model.graph.initializer}
    assert all(node.input[1] in weights for node in products(plain))  # nothing is cut out of a larger one any more
    assert not list(plain.parent.glob("*.raw.onnx"))


def test_int8_covers_every_product_with_weights(make: Make, plain: Path) -> None:
    kinds = Counter(node.op_type for node in products(make("onnx", int8=True)[0] / "model.onnx"))
    assert kinds == {"MatMulInteger": len(products(plain))}


def int8_weights(folder: Path, form: str) -> list[np.ndarray]:
    if form == "onnx":
        initializers = onnx.load(folder / "model.onnx").graph.initializer
        return [onnx.numpy_helper.to_array(one) for one in initializers if one.data_type == onnx.TensorProto.INT8]
    operations = import_extra("openvino").Core().read_model(folder / "model.xml").get_ops()
    constants = [one for one in operations if one.get_type_name() == "Constant"]
    return [one.data for one in constants if one.data.dtype == np.int8]


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_weights_lie_within_seven_bits_unless_asked_otherwise(make: Make, plain: Path, form: str) -> None:
    """Processors without VNNI add two products of a byte and a weight in 16 bits: 2 * 255 * 64 is the most."""
    for full_range, most in ((False, 64), (True, 127)):
        folder, about = make(form, int8=True, full_range=full_range)
        matrices = [weight for weight in int8_weights(folder, form) if weight.ndim == 2]
        assert len(matrices) == len(products(plain))
        extremes = [np.abs(weight.astype(int)).max() for weight in matrices]
        assert most / 2 < min(extremes) <= max(extremes) <= most
        assert about["full_range"] == full_range
        assert ("VNNI" in Predictor.load(folder).precision) == full_range
    assert 2 * 255 * 64 < 2**15 < 2 * 255 * 127


def test_keys_lie_within_seven_bits_like_weights(make: Make) -> None:
    """Attention multiplies them with queries, of eight bits."""
    found = []
    for full_range in (False, True):
        folder, _ = make("openvino", int8=True, full_range=full_range)
        model = import_extra("openvino").Core().read_model(folder / "model.xml")
        attentions = [one for one in model.get_ordered_ops() if one.get_type_name() == "ScaledDotProductAttention"]
        found.append([ends_of(list(roundings(one.input(side)))) for one in attentions for side in (0, 1)])
    half, full = found
    assert len(half) == len(full) == 4  # queries and keys of two blocks
    assert half[::2] == full[::2]
    assert [[2 * end for end in ends] for ends in full[1::2]] == [pytest.approx(ends) for ends in half[1::2]]


def ends_of(nodes: list[Any]) -> list[float]:
    """The lowest and the highest value of one rounding, before and after."""
    assert len(nodes) == 1
    return [float(end.get_source_output().get_node().data) for end in nodes[0].inputs()[1:]]


def test_exports_from_before_there_was_a_choice_are_of_the_full_range(make: Make, tmp_path: Path) -> None:
    folder = shutil.copytree(make("onnx", int8=True)[0], tmp_path / "old")
    about = read_exported(folder)
    del about["full_range"]
    (folder / "tubelet.json").write_text(json.dumps(about))
    assert "VNNI" in Predictor.load(folder).precision


# ---- programs of torch.export


@pytest.mark.parametrize("size", [(4, 32, 32), (2, 32, 48), (8, 64, 32), (6, 48, 80)])
@torch.inference_mode()
def test_a_program_takes_clips_of_any_size(make: Make, run: Path, size: tuple[int, int, int]) -> None:
    """All that whole tubelets fill, two along each axis; positions are resampled as the model does."""
    folder, _ = make("torch-export")
    clips = torch.randint(0, 256, (3, 3, *(max(a, 2 * b) for a, b in zip(size, (2, 16, 16)))), dtype=torch.uint8)
    expected = load(run)(clips)
    torch.testing.assert_close(Exported(folder, **TRUST)(clips), expected, atol=2e-5, rtol=0)
    alone = torch.export.load(folder / "model.pt2").module()
    torch.testing.assert_close(alone(clips), expected, atol=2e-5, rtol=0)
    with pytest.raises(ValueError, match=naming(tuple(clips.shape[1:]), "(B, 3, T, H, W)")):
        Exported(folder, **TRUST)(clips[0])


@torch.inference_mode()
def test_windows_are_bound_to_a_size_and_no_package_is_needed(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime", "openvino", "nncf"):
        monkeypatch.setitem(sys.modules, package, None)
    settings: dict[str, Any] = {"patch": (2, 4, 4), "depths": (1,), "heads": (2,), "window": (1, 2, 4)}
    run = make_run(place / "windows", "swin2", VIDEO, classes=["a", "b"], **settings)
    about = export(run, place / "windows-exported", format="torch-export", clips=2, show=False)
    assert about["input"]["shape"] == [None, 3, 4, 32, 32]
    for batch in (1, 3):
        clips = bytes_like(VIDEO, batch)
        found = Exported(place / "windows-exported", **TRUST)(clips)
        torch.testing.assert_close(found, load(run)(clips), atol=2e-5, rtol=0)


@pytest.mark.parametrize("rule", RESAMPLINGS)
@pytest.mark.parametrize("source", [(3, 4, 5), (1, 4, 5), (3, 1, 1), (1, 4, 1), (1, 1, 1)])
def test_tables_are_resampled_as_the_model_does(rule: str, source: tuple[int, int, int]) -> None:
    table = torch.randn(*source, 6)
    for grid in (Grid(3, 4, 5), Grid(2, 7, 3), Grid(6, 4, 10)):
        assert torch.equal(resample(table, grid, rule), position.resample(table, grid, rule=rule))


def test_a_model_that_is_off_at_other_sizes_is_bound_to_its_own(
    monkeypatch: pytest.MonkeyPatch, run: Path, tmp_path: Path
) -> None:
    clip = bytes_like(VIDEO, 1)
    monkeypatch.setattr("tubelet.export.program.FREE", ("HW", ""))
    monkeypatch.setattr("tubelet.export.program.resample", lambda table, grid, rule: table.mean((0, 1, 2), True))
    assert write_program(load(run), tmp_path / "a.pt2", clip=clip) == ""
    monkeypatch.setattr("tubelet.export.program.resample_always", lambda model: model)
    assert write_program(load(run), tmp_path / "b.pt2", clip=clip) == ""
    for name in ("a", "b"):
        found = torch.export.load(tmp_path / f"{name}.pt2").module()(clip)
        torch.testing.assert_close(found, load(run)(clip), atol=2e-5, rtol=0)


def test_a_program_is_not_opened_without_trust(
    make: Make, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """For torch unpickles what a stranger put in."""
    folder, hacked = shutil.copytree(make("torch-export")[0], tmp_path / "out"), tmp_path / "hacked"
    with zipfile.ZipFile(folder / "model.pt2") as archive:
        inside = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(folder / "model.pt2", "w") as archive:
        for name, content in inside.items():
            evil = name.endswith("sample_inputs/model.pt")
            archive.writestr(name, pickle.dumps(Touch(str(hacked))) if evil else content)
    for ask in (lambda: Predictor.load(folder), lambda: Exported(folder)):
        with pytest.raises(ValueError, match=naming(folder / "model.pt2", "--trusted", "trusted=True", "onnx")):
            ask()
    assert command("predict", folder, data / "dark" / "0.mp4") == 2
    assert "--trusted" in capsys.readouterr().err
    assert not hacked.exists()


class Touch:
    def __init__(self, path: str):
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


# ---- serving


def test_the_server_of_the_docs_answers_as_predict_does_without_tubelet(make: Make, tmp_path: Path) -> None:
    page = (Path(__file__).parent.parent / "docs" / "export.md").read_text()
    (script,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "serve.py FOLDER" in block)
    (tmp_path / "serve.py").write_text(script)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    alone = "import runpy, sys; sys.modules['tubelet'] = None; runpy.run_path('serve.py', run_name='__main__')"
    folder, file = make("onnx")[0], tmp_path / "large.mp4"
    frames = np.random.default_rng(0).integers(0, 256, (21, 9, 13, 3), dtype=np.uint8).repeat(16, 1).repeat(16, 2)
    write_video(file, frames, frames_per_second=25)
    server = subprocess.Popen([sys.executable, "-c", alone, folder, str(port)], cwd=tmp_path, stderr=subprocess.DEVNULL)
    try:
        found = post(port, file.read_bytes())
        expected = Predictor.load(folder).predict(file, views="1x1").probabilities
        assert found == pytest.approx(expected, abs=1e-4)
        with pytest.raises(HTTPError, match="400"):
            post(port, b"no video")
    finally:
        server.kill()
        server.wait()


def post(port: int, body: bytes) -> Any:
    for _ in range(600):
        try:
            with urlopen(f"http://127.0.0.1:{port}", data=body, timeout=30) as said:
                return json.loads(said.read())
        except HTTPError as error:
            error.close()
            raise
        except URLError:  # not yet there
            time.sleep(0.05)
    raise AssertionError("no server")


# ---- the report


@pytest.mark.parametrize(("form", "int8"), KINDS)
@torch.inference_mode()
def test_the_report_is_right(make: Make, run: Path, data: Path, form: str, int8: bool) -> None:
    folder, about = make(form, int8=int8)
    files = sorted(data.rglob("*.mp4"))
    chosen = [files[i] for i in (0, 1, 2, 3, 5, 6, 7, 8)]  # 8 of 10
    if form == "openvino" and int8:
        chosen = [file for i, file in enumerate(chosen) if i % 4]
    clips = torch.cat([views(file, VIDEO) for file in chosen])
    exact, found = load(run)(clips), torch.cat([Exported(folder, **TRUST)(clip) for clip in clips.split(1)])
    first, *_, last = (row for row in about["report"]["rows"] if "bfloat16" not in row["name"])
    assert (first["name"], first["agreement"], first["largest_logit_error"]) == ("torch, float32", 1.0, 0.0)
    runtime = {"onnx": "onnxruntime", "openvino": "OpenVINO", "torch-export": "torch.export"}[form]
    assert last["name"] == f"{runtime}, {'int8' if int8 else 'float32'}"
    assert last["agreement"] == (found.argmax(1) == exact.argmax(1)).float().mean().item()
    assert last["largest_logit_error"] == pytest.approx((found - exact).abs().max().item(), abs=1e-5)
    assert all(row["seconds"] > 0 for row in about["report"]["rows"])
    assert about["report"]["largest_logit"] == pytest.approx(exact.abs().max().item())
    assert about["report"]["clips"].startswith(f"{len(chosen)} clips from {data}")


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_int8_that_changes_answers_leaves_tokeniser_and_head(
    monkeypatch: pytest.MonkeyPatch, run: Path, data: Path, plain: Path, tmp_path: Path, form: str
) -> None:
    measured = iter([0.9, 0.99, *[1.0] * 4])  # both tries, then the rows of the report
    monkeypatch.setattr("tubelet.export.writer.measure_agreement", lambda logits, reference, task: next(measured))
    about = export(run, tmp_path / "out", format=form, int8=True, data=data, clips=4, show=False)
    assert about["report"]["notes"] == [
        "with all products in int8, 90.0% of the clips are answered as in float32",
        "with all but tokeniser and head in int8, 99.0% of the clips are answered as in float32",
    ]
    if form == "openvino":
        model = import_extra("openvino").Core().read_model(tmp_path / "out" / "model.xml")
        every = [node for node in model.get_ordered_ops() if node.get_type_name() == "MatMul"]
        small = [node.input_value(0).get_node().get_type_name() == "FakeQuantize" for node in every]
        assert (small[0], set(small[1:-1]), small[-1]) == (False, {True}, False)
    else:
        kinds = [node.op_type for node in products(tmp_path / "out" / "model.onnx")]
        assert Counter(kinds[1:-1]) == {"MatMulInteger": len(products(plain)) - 2}
        assert (kinds[0], kinds[-1]) == ("MatMul", "MatMul")


@pytest.mark.usefixtures("traced")
def test_tokeniser_and_head_are_only_left_where_that_helps(
    monkeypatch: pytest.MonkeyPatch, run: Path, data: Path, plain: Path, tmp_path: Path
) -> None:
    measured = iter([0.9, 0.9, *[1.0] * 3])
    monkeypatch.setattr("tubelet.export.writer.measure_agreement", lambda logits, reference, task: next(measured))
    export(run, tmp_path / "out", int8=True, data=data, clips=4, show=False)
    kinds = Counter(node.op_type for node in products(tmp_path / "out" / "model.onnx"))
    assert kinds == {"MatMulInteger": len(products(plain))}


def test_synthetic_clips_differ_and_are_the_same_each_time() -> None:
    first, again = synthetic(VIDEO, 4).compared, synthetic(VIDEO, 4).compared
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert len({tuple(clip.flatten().tolist()) for clip in first}) == 4
    assert all(clip.dtype == torch.uint8 and clip.float().std() > 20 for clip in first)
    assert synthetic(SOUND, 2).compared[0].dtype == torch.float32


@pytest.mark.usefixtures("traced")
def test_export_on_the_command_line(
    monkeypatch: pytest.MonkeyPatch, run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (1000.0, 0.0, 0.0))
    spoil(shutil.copytree(data, tmp_path / "data") / "dark" / "0.mp4")
    arguments = ("export", run, tmp_path / "out", "--int8", "--data", tmp_path / "data")
    assert command(*arguments) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for words in ("torch, float32", "1.00x 100.0% 0", "onnxruntime, float32", "onnxruntime, int8", "logits of up to"):
        assert words in shown
    assert f"9 clips from {tmp_path / 'data'}, 1 others could not be read" in shown
    assert "other programs keep this machine busy" in shown
    assert re.search(r"out: model.onnx, tubelet.json \(0.\d MB\)", shown)
    assert command(*arguments) == 2
    assert re.search(naming(tmp_path / "out", "--overwrite"), capsys.readouterr().err)
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))
    assert command(*arguments, "--overwrite", "--full-range") == 0
    assert "busy" not in capsys.readouterr().out
    assert read_exported(tmp_path / "out")["full_range"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["data", "out"]


# ---- data


PARTS = [("0", None, None), ("1", 0.04, 0.16), ("1", 0.16, 0.32)]
ROWS = "bright/0.mp4,bright,,\nbright/1.mp4,bright,0.04,0.16\nbright/1.mp4,bright,0.16,0.32\n"


@pytest.mark.parametrize(
    ("header", "rows", "parts", "faults"),
    [
        ("path,label,start,end", ROWS, PARTS, 0),
        ("path,label,start,end", ROWS + "bright/7.mp4,bright,,\n,,,\nbright/2.mp4,bright,2,1\n", PARTS, 2),
        ("path,name", "bright/1.mp4,b\nbright/0.mp4,b\nbright/0.mp4,c\n", [("0", None, None), ("1", None, None)], 0),
    ],
)
def test_a_table_names_files_and_parts_of_them(
    data: Path, header: str, rows: str, parts: list[tuple[str, float | None, float | None]], faults: int
) -> None:
    table = data.with_name("table.csv")
    table.write_text("\n".join([header, rows]).replace("bright/", f"{data.name}/bright/"))
    given = read(table, VIDEO, 8, calibrate=False)
    expected = [
        views(data / "bright" / f"{name}.mp4", VIDEO, start_seconds=start, end_seconds=end)
        for name, start, end in parts
    ]
    assert len(given.compared) == len(expected)
    assert all(torch.equal(a, b) for a, b in zip(given.compared, expected, strict=True))
    assert given.what == f"{len(parts)} clips from {table}" + (f", {faults} others could not be read" if faults else "")


def test_data_without_media(tmp_path: Path) -> None:
    for name in ("nothing", "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(ValueError, match=naming(tmp_path / name)):
            read(tmp_path / name, VIDEO, 8, calibrate=False)


# ---- faults


@pytest.mark.usefixtures("traced")
def test_a_failed_export_leaves_what_was_there(
    monkeypatch: pytest.MonkeyPatch, run: Path, make: Make, tmp_path: Path
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no")

    folder = shutil.copytree(make("onnx")[0], tmp_path / "out")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    monkeypatch.setattr("tubelet.export.writer.compare", fail)
    with pytest.raises(RuntimeError, match="no"):
        export(run, folder, clips=2, overwrite=True, show=False)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_only_exported_folders_are_overwritten(run: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("all my work")
    for out in (tmp_path, tmp_path / "thesis.tex"):
        with pytest.raises(ValueError, match=naming(out)):
            export(run, out, overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "all my work"


@pytest.mark.parametrize(
    ("settings", "values"),
    [
        ({"format": "coreml"}, ("'coreml'", "onnx", "openvino", "torch-export")),
        ({"int8": True, "format": "torch-export"}, ("int8", "torch-export", "onnx", "openvino")),
        ({"full_range": True}, ("--int8", "--full-range")),
        ({"clips": 1}, ("clips=1", 2)),
        ({"int8": True, "format": "openvino"}, ("int8", "OpenVINO", "--data")),
    ],
)
def test_wishes_that_cannot_be_met(
    run: Path, tmp_path: Path, settings: dict[str, Any], values: tuple[object, ...]
) -> None:
    with pytest.raises(ValueError, match=naming(*values)):
        export(run, tmp_path / "out", **settings)


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime", "openvino", "nncf"])
def test_a_missing_package_is_named_before_anything_is_computed(
    monkeypatch: pytest.MonkeyPatch, run: Path, data: Path, tmp_path: Path, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=naming(package, "pip install 'tubelet[export]'")):
        export(run, tmp_path / "out", format="openvino", int8=True, data=data)


def test_openvino_does_not_call_home() -> None:
    import_extra("openvino")
    used = sys.modules["openvino.tools.ovc.telemetry_utils"].__dict__["tm"]
    assert used.__name__ == "openvino.tools.ovc.telemetry_stub"


def test_data_that_cannot_be_read(run: Path, data: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(data / "dark", tmp_path / "dark")
    for file in sorted(folder.iterdir())[1:]:
        spoil(file)
    with pytest.raises(ValueError, match=naming(folder, 1, 5, 2, folder / "1.mp4")):
        export(run, tmp_path / "out", data=folder)


@pytest.mark.parametrize("clips", [torch.zeros(1, 3, 4, 32, 32), torch.zeros(1, 3, 8, 32, 32, dtype=torch.uint8)])
def test_other_clips_are_refused(make: Make, clips: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=naming(clips.dtype, tuple(clips.shape), "uint8", "(B, 3, 4, 32, 32)")):
        Exported(make("onnx")[0])(clips)


def test_an_exported_folder_is_no_run(make: Make, tmp_path: Path) -> None:
    folder = make("onnx")[0]
    with pytest.raises(ValueError, match=naming("exported", "run")):
        _ = Predictor.load(folder).model
    with pytest.raises(ValueError, match=naming("exported", "run")):
        Predictor.load(folder).features("clip.mp4")
    with pytest.raises(ValueError, match=naming("exported", "run")):
        export(folder, tmp_path / "again")
    with pytest.raises(ValueError, match=naming(folder, "device")):
        Predictor.load(folder, device="cuda")
    for form, runtime in (("onnx", "onnxruntime"), ("torch-export", "torch.export")):
        with pytest.raises(ValueError, match=naming(runtime, "float32", "dtype='bfloat16'", "OpenVINO")):
            Predictor.load(make(form)[0], dtype="bfloat16", **TRUST)


def test_precision_of_each_runtime(make: Make) -> None:
    said = [Predictor.load(make(form, int8=int8)[0], dtype="auto", **TRUST).precision for form, int8 in KINDS]
    assert said == [
        "float32: as exported for onnxruntime",
        "int8, else float32: as exported for onnxruntime",
        choose_dtype("auto", torch.device("cpu"))[1],
        "int8, else float32",
        "float32: as exported by torch.export",
    ]


def test_damaged_folders(make: Make, tmp_path: Path) -> None:
    folder = shutil.copytree(make("onnx")[0], tmp_path / "out")
    (folder / "model.onnx").unlink()
    with pytest.raises(ValueError, match=naming(folder / "model.onnx")):
        Predictor.load(folder)
    torn = shutil.copytree(make("torch-export")[0], tmp_path / "torn") / "model.pt2"
    torn.write_bytes(torn.read_bytes()[:1000])
    with pytest.raises(ValueError, match=naming(torn)):
        Predictor.load(torn.parent, **TRUST)
    (folder / "tubelet.json").write_text('{"classes": []}')
    with pytest.raises(ValueError, match=naming(folder / "tubelet.json", "`tubelet export`")):
        Predictor.load(folder)
    (folder / "tubelet.json").write_text("{")
    with pytest.raises(ValueError, match=naming(folder / "tubelet.json", "JSON")):
        Predictor.load(folder)
