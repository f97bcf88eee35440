"""What a command says when something goes wrong: exit codes, one line, JSON for programs, names spelled out."""

import csv
import errno
import io
import itertools
import json
import math
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from naming import naming
from small_sets import TINY_FLAGS, command, spoil, tiny_config, write_videos

from tubelet.data.bad_files import BadFile, BadFiles
from tubelet.data.items import Item, Source, find_items
from tubelet.media.reader import index
from tubelet.predict.answer import Answer
from tubelet.predict.tables import write_labelled, write_table
from tubelet.system.console import console, facts, say
from tubelet.system.errors import EnvironmentTrouble
from tubelet.system.exits import Terminated, is_ours, report_error
from tubelet.system.text import (
    FORMULA,
    dumps,
    path_cell,
    read_path_cell,
    read_text_cell,
    text_cell,
    visible,
    visible_lines,
)
from tubelet.tasks import Classification
from tubelet.train.preflight import check_train
from tubelet.train.train import train_fn

CPU = ("--device", "cpu", "--dtype", "float32")
NASTY = "\x1b[31mred\u202egpj\n.mp4"
SPELLED_OUT = r"\x1b[31mred\u202egpj\n.mp4"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_videos(tmp_path_factory.mktemp("data") / "clips", 3)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_fn(tiny_config(data, tmp_path_factory.mktemp("run") / "run", epochs=1), show=False)


@pytest.fixture(autouse=True)
def kept_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracebacks go into the test's own folder."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("TUBELET_DEBUG", raising=False)


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """`tubelet info` ends with this error."""

    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("tubelet.nn.create.model_config", broken)


def info(*flags: str) -> int:
    return command("info", "vivit2-B/16x2", *flags)


# ---- exit code 1: a bug


def test_only_what_tubelet_raises_itself_is_a_message() -> None:
    ours: dict[str, Any] = {"__name__": "tubelet.somewhere"}
    exec("def explain(): raise ValueError('mend it')\ndef slip(): int('x')\ndef wrong(): {}['x']", ours)
    theirs: dict[str, Any] = {"__name__": "torch.somewhere"}
    exec("def check(): raise ValueError('shapes')", theirs)

    def error_of(function: Callable[[], object]) -> Exception:
        with pytest.raises((ValueError, KeyError)) as caught:
            function()
        return caught.value

    assert is_ours(error_of(ours["explain"]))
    assert not is_ours(error_of(ours["slip"]))
    assert not is_ours(error_of(theirs["check"]))
    assert not is_ours(ValueError("never raised"))


@pytest.mark.parametrize("error", [ValueError("oops"), RuntimeError("oops"), KeyError("oops"), AssertionError("oops")])
def test_a_bug_is_a_line_and_its_traceback_a_file(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(monkeypatch, error)
    assert info() == 1
    shown = capsys.readouterr()
    words = re.escape(f"tubelet: a bug: {type(error).__name__}: {error}")
    found = re.fullmatch(rf"{words}\. The traceback is in (\S+); --debug shows it\. Please report it\.\n", shown.err)
    assert found, shown.err
    assert shown.out == ""
    text = Path(found[1]).read_text()
    assert "Traceback (most recent call last)" in text
    assert "in broken" in text
    assert "info vivit2-B/16x2" in text


def test_a_bug_is_told_where_its_traceback_cannot_be_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(monkeypatch, RuntimeError("oops"))

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.NamedTemporaryFile", full)
    assert info() == 1
    assert re.search(naming(os.strerror(errno.ENOSPC), "--debug"), capsys.readouterr().err)


@pytest.mark.parametrize("place", ["before", "after", "variable"])
@pytest.mark.parametrize("code", [1, 2])
def test_debug_shows_the_traceback_of_everything(
    place: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if code == 1:
        fail_with(monkeypatch, RuntimeError("oops"))
    model = "vivit2-B/16x2" if code == 1 else "nothing"
    if place == "variable":
        monkeypatch.setenv("TUBELET_DEBUG", "1")
        typed = ["info", model]
    else:
        typed = ["--debug", "info", model] if place == "before" else ["info", model, "--debug"]
    assert command(*typed) == code
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback (most recent call last)")
    assert shown.splitlines()[-1].startswith("tubelet: a bug: RuntimeError: oops" if code == 1 else "tubelet: unknown")


def test_without_debug_there_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUBELET_DEBUG", "0")
    assert command("info", "nothing") == 2
    assert capsys.readouterr().err.count("\n") == 1


# ---- exit code 4: the machine; 2: a name that leads nowhere


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (EnvironmentTrouble("another process trains in this run"), "another process trains in this run"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/a"),
            "/a: No space left on device: .* choose another place",
        ),
        (OSError(errno.EROFS, "Read-only file system", "/a"), "/a: Read-only file system"),
        (PermissionError(errno.EACCES, "Permission denied", "/a"), "/a: Permission denied: make it writable"),
        (MemoryError(), "memory is full .* --accumulate"),
    ],
)
def test_trouble_of_the_machine(
    error: Exception, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(monkeypatch, error)
    assert info() == 4
    shown = capsys.readouterr().err
    assert re.fullmatch(f"tubelet: .*{expected}.*\n", shown), shown


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP])
def test_a_name_that_leads_nowhere(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(monkeypatch, OSError(number, os.strerror(number), f"/{NASTY}"))
    assert info() == 2
    assert capsys.readouterr().err == f"tubelet: /{SPELLED_OUT}: {os.strerror(number)}: check the name\n"


# ---- exit codes 130, 141, 143


def test_sigterm_ends_with_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def killed(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    monkeypatch.setattr("tubelet.nn.create.model_config", killed)
    assert info() == 143
    assert capsys.readouterr().err == "tubelet: terminated\n"
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(("stop", "code"), [(KeyboardInterrupt(), 130), (Terminated(), 143)])
def test_a_stopped_stream_keeps_its_windows(
    stop: BaseException,
    code: int,
    run: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def cut(*arguments: Any, **settings: Any) -> Any:
        yield from itertools.islice(original(*arguments, **settings), 1)
        raise stop

    from tubelet.stream import stream as room

    original = room.slide_window
    monkeypatch.setattr(room, "slide_window", cut)
    table = tmp_path / "windows.csv"
    assert command("stream", run, data / "dark" / "0.mp4", "--csv", table, *CPU) == code
    assert "tubelet: interrupted" in capsys.readouterr().err
    assert len(table.read_text().splitlines()) == 2


class ClosedPipe(io.RawIOBase):
    def writable(self) -> bool:
        return True

    def write(self, _: object) -> int:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


@pytest.mark.parametrize("typed", [["info", "list"], ["info", "vivit2-B/16x2"], ["info", "vivit2-B/16x2", "--json"]])
def test_a_reader_that_has_seen_enough_is_no_error(
    typed: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(ClosedPipe()), write_through=True))
        patch.setattr("tubelet.system.exits.drop_stdout", lambda: None)
        assert command(*typed) == 141
        patch.setattr(sys.stdout, "flush", lambda: None)
    assert capsys.readouterr().err == ""


def help_to(place: int, *, most_bytes: int = resource.RLIM_INFINITY) -> tuple[int, bytes]:
    """Exit code and stderr of `tubelet --help`, with stdout going to a file of this number, which may be limited."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))

    typed = [sys.executable, "-B", "-m", "tubelet", "--help"]
    with subprocess.Popen(typed, stdout=place, stderr=subprocess.PIPE, preexec_fn=limit) as process:
        os.close(place)
        _, errors = process.communicate(timeout=200)
    return process.returncode, errors


def test_a_closed_pipe_is_no_complaint() -> None:
    read, write = os.pipe()
    os.close(read)
    assert help_to(write) == (141, b"")


def test_a_full_disk_is_told_once(tmp_path: Path) -> None:
    code, errors = help_to(os.open(tmp_path / "help.txt", os.O_WRONLY | os.O_CREAT), most_bytes=100)
    assert (code, errors) == (4, b"tubelet: File too large: make room, or choose another place\n")


# ---- JSON


def json_of(capsys: pytest.CaptureFixture[str]) -> Any:
    """What stdout holds: one strict JSON object."""
    out = capsys.readouterr().out
    assert out.isascii()
    return json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_json_is_strict_and_ascii() -> None:
    values = {"a": math.nan, "b": [math.inf, (1.5, -math.inf)], "é\udcff": Path("x\ud800"), "c": {"d": True, "e": None}}
    text = dumps(values)
    assert text.isascii()
    assert json.loads(text) == {"a": None, "b": [None, [1.5, None]], "é\udcff": "x\ud800", "c": {"d": True, "e": None}}
    with pytest.raises(TypeError, match="not JSON serializable"):
        dumps({1, 2})


def test_info_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert info("--json") == 0
    found = json_of(capsys)
    assert (found["name"], found["clip"], found["parts"][0]["name"]) == ("vivit2-B/16x2", [16, 224, 224], "embed")
    assert sum(part["parameters"] for part in found["parts"]) <= found["parameters"]
    assert command("info", "list", "--json") == 0
    assert "vivit2-B/16x2" in json_of(capsys)["models"]


def test_train_as_json(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("train", data, "--out", tmp_path / "run", *TINY_FLAGS, "--json") == 0
    found = json_of(capsys)
    assert found["run"] == str(tmp_path / "run")
    assert found["results"] == json.loads((tmp_path / "run" / "results.json").read_text())


def test_eval_as_json(run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clips = shutil.copytree(data, tmp_path / "clips")
    spoil(clips / "dark" / "1.mp4")
    assert command("eval", run, clips, "--json", *CPU) == 3
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert (found["clips"], found["failed"], [row["label"] for row in found["per_class"]]) == (5, 1, ["bright", "dark"])
    [failure] = found["failures"]
    assert (failure["path"], failure["code"]) == ("dark/1.mp4", "not-video")
    assert str(clips / "dark" / "1.mp4") in failure["message"]
    assert "Evaluation" in shown.err
    assert not console.stderr


def test_predict_as_json_lines(run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("predict", run, data / "dark" / "0.mp4", tmp_path / "no.mp4", "--json", *CPU) == 3
    good, bad = map(json.loads, capsys.readouterr().out.splitlines())
    assert (good["label"], good["code"], good["status"]) == ("dark", "ok", "ok") or good["label"] == "bright"
    assert (bad["label"], bad["probability"], bad["code"]) == (None, None, "missing")


def test_prepare_as_json(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clips = shutil.copytree(data, tmp_path / "clips")
    spoil(clips / "dark" / "1.mp4")
    assert command("prepare", clips, tmp_path / "out", "--short-side", "16", "--json") == 3
    found = json_of(capsys)
    assert (found["out"], found["train_on"]) == (str(tmp_path / "out"),) * 2
    assert len(found["copies"]) == 5
    assert [one["code"] for one in found["failed"]] == ["not-video"]


def test_convert_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tubelet.nn import create_model
    from tubelet.weights.store import save

    save(create_model("vit-P/16", clip=(1, 32, 32), num_classes=2), tmp_path / "ours")
    assert command("convert", tmp_path / "ours", tmp_path / "timm", "--to", "timm", "--json") == 0
    found = json_of(capsys)
    assert found == {"file": str(tmp_path / "timm" / "model.safetensors"), "dialect": "timm"}
    settings = ("--heads", "3", "--clip", "1", "32", "32", "--json")
    assert command("convert", found["file"], tmp_path / "again", *settings) == 0
    assert json_of(capsys)["converted"]["dialect"] == "timm"


def test_export_as_json(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def exported(*_: object, **__: object) -> dict[str, Any]:
        print("[exporter] Obtain model graph ... done")
        return {"format": "onnx"}

    monkeypatch.setattr("tubelet.export.writer.export", exported)
    assert command("export", run, tmp_path / "out", "--json") == 0
    assert json_of(capsys) == {"out": str(tmp_path / "out"), "format": "onnx"}


# ---- names spelled out


def test_letters_of_all_scripts_are_shown_and_all_else_is_spelled_out() -> None:
    for number in range(sys.maxunicode + 1):
        letter = chr(number)
        shown = visible(letter)
        if unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") and letter not in "\u200c\u200d":
            assert shown.startswith("\\")
            assert shown.isascii()
            assert shown.isprintable()
            assert shown.encode().decode("unicode_escape").encode("utf-16", "surrogatepass") == letter.encode(
                "utf-16", "surrogatepass"
            )
        else:
            assert shown == letter
    name = "a b/日本語　ü/\u0644\u0627/👩\u200d👧.mp4"
    assert visible(name) == name


def test_lines_of_ours_stay_and_those_of_names_do_not() -> None:
    assert visible_lines("2 files:\n  a\n  b\x1bc\nd") == "2 files:\n  a\n  b\\x1bc\\nd"


def test_nothing_hidden_gets_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.table import Table

    table = Table("file")
    table.add_row(NASTY)
    console.print(table)
    console.print(NASTY)
    say("file", NASTY)
    facts("Files", [("one", NASTY)])
    shown = capsys.readouterr().out
    assert not {letter for letter in shown if unicodedata.category(letter) in ("Cc", "Cf", "Cs")} - {"\n"}
    assert shown.count(SPELLED_OUT) == 4


FORGED = "\x1b[2K\u202ea\n  all is well.mp4"  # goes on like the next line of a message of ours


def bad_files_of(name: str) -> None:
    bad = BadFiles(Path("clips"), train_files=2, most=0.0)
    bad.add(BadFile(name, "damaged", "it is broken", "train"))
    bad.check()


def problems_of(name: str) -> None:
    Path(name).write_text("clip")
    with open("clips.csv", "w", newline="") as table:
        csv.writer(table).writerows([("path", "label"), (name, "a"), (name, "a"), (f"no{name}", "b")])
    find_items("clips.csv")


def preflight_of(name: str) -> None:
    item = Item(name, "a", None, None, "train", None)
    source = Source(Path("clips"), "video", (item,), Classification(("a",)))
    check_train(source, {item: ("damaged", f"it is like {name}")}, 0.0)


def read_of(name: str) -> None:
    index(Path(name))


@pytest.mark.parametrize("make", [bad_files_of, problems_of, preflight_of, read_of])
def test_no_name_forges_a_line_of_a_message(
    make: Callable[[str], None], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as caught:
        make(FORGED)
    assert report_error(caught.value, debug=False) == 2
    say("note", caught.value)
    shown = capsys.readouterr()
    for text in (shown.err, shown.out):
        assert r"\x1b[2K\u202ea\n  all is well" in text
        assert not {letter for letter in text if unicodedata.category(letter) in ("Cc", "Cf", "Cs")} - {"\n"}
        assert not any(line.strip().startswith("all is well") for line in text.splitlines())


def test_names_in_messages_and_tables(
    run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(data / "dark" / "0.mp4", NASTY)
    assert command("predict", run, NASTY, f"{NASTY}x", *CPU) == 3
    shown = capsys.readouterr()
    assert SPELLED_OUT in shown.out
    assert f"{SPELLED_OUT}x: it cannot be found" in shown.err
    assert command("predict", NASTY, NASTY, *CPU) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(f"tubelet: {SPELLED_OUT}: ")
    assert "\x1b" not in shown.err


def test_names_that_begin_with_a_dash(
    run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("-x.mp4", "--json", "--debug"):
        shutil.copy(data / "dark" / "0.mp4", name)
    assert command("predict", run, "./-x.mp4", *CPU) == 0
    assert command("predict", run, *CPU, "--", "-x.mp4", "--json", "--debug") == 0
    rows = [line.split()[0] for line in capsys.readouterr().out.splitlines() if "%" in line]
    assert rows == ["-x.mp4", "-x.mp4", "--json", "--debug"]
    assert command("predict", run, "-x.mp4") == 2
    assert "no option -x.mp4 of `tubelet predict`: " in capsys.readouterr().err


# ---- tables that people open in a spreadsheet


def texts() -> list[str]:
    signs = ["=", "+", "-", "@", "\t", "\r", ".", "/", "'", "1", "a"]
    return ["".join(some) for length in range(5) for some in itertools.product(signs, repeat=length)]


def rows_of(table: Path) -> list[list[str]]:
    return list(csv.reader(table.read_text().splitlines()))


def test_no_cell_is_computed_and_all_are_read_back() -> None:
    for text in texts():
        path, cell = path_cell(text), text_cell(text)
        assert (read_path_cell(path), read_text_cell(cell)) == (text, text)
        assert not re.match(FORMULA, path)
        assert not re.match(FORMULA, cell) or re.fullmatch(r"[+-]?\d+(\.\d+)?", cell)
        assert os.path.normpath(f"/data/{path}") == os.path.normpath(f"/data/{text}")
    assert len({path_cell(text) for text in texts()}) == len({text_cell(text) for text in texts()}) == len(texts())
    assert [text_cell(text) for text in ("-1", "+1.5", "a=b", "'")] == ["-1", "+1.5", "a=b", "'"]


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0.mp4", "-x.mp4", "@a.mp4", "./=x.mp4", '=HYPERLINK("http://x")'])
def test_a_table_with_such_names_is_read_back(name: str, tmp_path: Path) -> None:
    table, task = tmp_path / "predictions.csv", Classification(("=1+1", "-1"))
    answers = [
        Answer(Item(name, "=1+1"), np.array([0.25, 0.75])),
        Answer(Item("b.mp4", "-1"), None, f"{name}: damaged. Mend it.", "damaged"),
    ]
    write_labelled(answers, task, table)
    for cell in itertools.chain(*rows_of(table)):
        assert not re.match(FORMULA, cell) or cell == "-1", cell
    with open(table, newline="") as file:
        first, second = csv.DictReader(file)
    assert read_path_cell(first["path"]) == name
    assert [read_text_cell(first[column]) for column in ("label", "predicted", "status")] == ["=1+1", "-1", "ok"]
    assert read_text_cell(second["status"]) == f"{name}: damaged. Mend it."


def test_the_table_of_predict_is_safe(tmp_path: Path) -> None:
    from tubelet.predict.predictor import Prediction

    answers = [
        Prediction("=a.mp4", "@b", 1.0, {"@b": 1.0}),
        Prediction("-c.mp4", None, None, {}, "-c.mp4: x.", "empty"),
    ]
    write_table(answers, Classification(("@b",)), tmp_path / "t.csv")
    assert rows_of(tmp_path / "t.csv")[1:] == [
        ["./=a.mp4", "'@b", "1.000000", "ok", "ok", "", "", "", "", "", "1.000000"],
        ["./-c.mp4", "", "", "'-c.mp4: x.", "empty", "", "", "", "", "", ""],
    ]


# ---- exit code 2: wrong use


def damaged(run: Path, folder: Path, **files: bytes | None) -> Path:
    copy = shutil.copytree(run, folder / "copy")
    for name, content in files.items():
        file = copy / name.replace("__", ".")
        file.unlink() if content is None else file.write_bytes(content)
    return copy


WRONG_RUNS: dict[str, tuple[Callable[[Path, Path], Path], tuple[str, ...]]] = {
    "missing": (
        lambda run, folder: folder / "nowhere",
        ("nowhere", ".safetensors"),
    ),
    "an empty folder": (lambda run, folder: folder, ("model.safetensors", ".safetensors")),
    "another file": (lambda run, folder: run / "config.json", ("config.json", "safetensors")),
    "no weights": (
        lambda run, folder: damaged(run, folder, model__safetensors=None),
        ("model.safetensors", ".safetensors"),
    ),
    "empty weights": (
        lambda run, folder: damaged(run, folder, model__safetensors=b""),
        ("model.safetensors", "bytes"),
    ),
    "half the weights": (
        lambda run, folder: damaged(run, folder, model__safetensors=(run / "model.safetensors").read_bytes()[:-1000]),
        ("model.safetensors", "bytes"),
    ),
    "a name that is too long": (lambda run, folder: folder / ("n" * 300), ("File name too long",)),
}
USES_OF_A_RUN: dict[str, Callable[[Path, Path, Path], list[str | Path]]] = {
    "predict": lambda run, data, out: ["predict", run, data / "dark" / "0.mp4", *CPU],
    "eval": lambda run, data, out: ["eval", run, data, *CPU],
    "stream": lambda run, data, out: ["stream", run, data / "dark" / "0.mp4", *CPU],
    "export": lambda run, data, out: ["export", run, out / "exported"],
    "convert": lambda run, data, out: ["convert", run, out / "converted", "--to", "timm"],
}


@pytest.mark.parametrize("use", USES_OF_A_RUN)
@pytest.mark.parametrize("fault", WRONG_RUNS)
def test_a_wrong_run(
    use: str, fault: str, run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, values = WRONG_RUNS[fault]
    check_one_message(USES_OF_A_RUN[use](make(run, tmp_path), data, tmp_path), naming(*values), capsys)


def check_one_message(
    typed: list[str | Path], expected: str, capsys: pytest.CaptureFixture[str], code: int = 2
) -> None:
    assert command(*typed) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Traceback" not in shown.err
    assert "a bug" not in shown.err
    *before, message = re.split(r"^tubelet: ", shown.err, flags=re.MULTILINE)
    assert all(line == "" or line.startswith("in float32") for line in before)
    assert re.search(expected, message), message


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", b"{"),
        ("config.json", b"\xff\xfe"),
        ("config.json", b"[]"),
        ("config.json", b'{"train": 1, "model": 2, "clip_spec": 3, "data": []}'),
        ("split.csv", b"a,b\n1,2\n"),
        ("split.csv", b"path,label,start,end,split\na,b,x,y,train\n"),
    ],
)
def test_a_damaged_run_cannot_say_what_it_was_trained_on(
    file: str, content: bytes, run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = damaged(run, tmp_path, **{file.replace(".", "__"): content})
    check_one_message(["eval", copy, data, *CPU], naming(copy / file), capsys)


WRONG_DATA: dict[str, tuple[bytes | None, str]] = {
    "nowhere": (None, "nowhere: does not exist|nowhere does not exist"),
    "a file": (b"x", "is a single file; expected|no video"),
    "binary.csv": (bytes(range(256)), "not a text table in UTF-8; save it as|column `path`"),
    "wrong.csv": (b"a,b\n1,2\n", "expected|column `path`"),
    "empty.csv": (b"", "expected|column `path`|empty"),
    "gone.csv": (
        b"path,label\na.mp4,x\nb.mp4,y\n",
        naming("gone.csv line 2", "'a.mp4'"),
    ),
}


@pytest.mark.parametrize("use", ["train", "prepare", "eval"])
@pytest.mark.parametrize("name", WRONG_DATA)
def test_wrong_data(use: str, name: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, expected = WRONG_DATA[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    uses: dict[str, list[str | Path]] = {
        "train": ["train", tmp_path / name, "--out", tmp_path / "run", *TINY_FLAGS],
        "prepare": ["prepare", tmp_path / name, tmp_path / "out"],
        "eval": ["eval", run, tmp_path / name, *CPU],
    }
    check_one_message(uses[use], expected, capsys)


@pytest.mark.parametrize(
    ("use", "out", "values"),
    [
        ("predict", "a file/x.csv", ()),
        ("predict", "a folder", ()),
        ("eval", "a pipe", ()),
        ("predict", "a file", ("--csv",)),
        ("eval", "a file", ("--csv",)),
        ("prepare", "a file", ()),
        ("train", "a file", ("--out",)),
        ("train", "a folder", ("--out",)),
        ("export", "a file", ("--overwrite",)),
        ("stream", "a file", ("--out",)),
        ("convert", "a file", ()),
        ("demo", "a file", ()),
    ],
)
def test_a_place_that_cannot_be_written(
    use: str,
    out: str,
    values: tuple[str, ...],
    run: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "a file").write_text("precious")
    os.mkfifo(tmp_path / "a pipe")
    (tmp_path / "a folder").mkdir()
    (tmp_path / "a folder" / "precious").write_text("precious")
    place, clip = tmp_path / out, data / "dark" / "0.mp4"
    uses: dict[str, list[str | Path]] = {
        "predict": ["predict", run, clip, "--csv", place, *CPU],
        "eval": ["eval", run, data, "--csv", place, *CPU],
        "prepare": ["prepare", data, place],
        "train": ["train", data, "--out", place, *TINY_FLAGS],
        "export": ["export", run, place],
        "stream": ["stream", run, clip, "--out", place, *CPU],
        "convert": ["convert", run, place, "--to", "timm"],
        "demo": ["demo", "--out", place, "--clips-per-class", "1"],
    }
    check_one_message(uses[use], naming(place, *values), capsys)
    assert (tmp_path / "a file").read_text() == (tmp_path / "a folder" / "precious").read_text() == "precious"


def test_a_table_of_predictions_may_be_written_again(run: Path, data: Path, tmp_path: Path) -> None:
    for _ in range(2):
        assert command("eval", run, data, "--csv", tmp_path / "t.csv", *CPU) == 0
        assert command("predict", run, data / "dark" / "0.mp4", "--csv", tmp_path / "u.csv", *CPU) == 0


@pytest.mark.parametrize("use", ["predict", "eval"])
def test_a_folder_that_may_not_be_written(
    use: str, run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def denied(file: Any, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "t.csv"))

    monkeypatch.setattr("tubelet.predict.show.write_table", denied)
    monkeypatch.setattr("tubelet.evaluate.clips.write_labelled", denied)
    files = [data] if use == "eval" else [data / "dark" / "0.mp4"]
    assert command(use, run, *files, "--csv", tmp_path / "t.csv", *CPU) == 4
    shown = capsys.readouterr().err
    assert re.search(naming(tmp_path / "t.csv", "Permission denied"), shown)
    assert "Traceback" not in shown


@pytest.mark.parametrize(
    ("typed", "values"),
    [
        (["demo", "--clips-per-class", "0"], ("--clips-per-class 0", 1)),
        (["demo", "--seed", "-1"], ("--seed -1", 0)),
        (["predict", "r", "a.mp4", "--top", "0"], ("--top 0", 1)),
        (["predict", "r", "a.mp4", "--workers", "0"], ("--workers 0", 1)),
        (["eval", "r", "a", "--workers", "-1"], ("--workers -1", 1)),
        (["prepare", "a", "b", "--workers", "-1"], ("--workers -1", 0)),
        (["bench", "--minutes", "nan"], ("--minutes nan", 0)),
        (["bench", "--device", "gpu"], ("device", "'gpu'", "auto", "cpu", "cuda", "mps")),
        (["bench", "nothing"], ("'nothing'", "family-size/patch[xtubelet]")),
        (["convert", "nowhere", "out"], ("nowhere", ".safetensors")),
        (
            ["convert", "nowhere", "out", "--to", "timm", "--heads", "3"],
            ("--to", "heads"),
        ),
        (["check", "nowhere"], ("nowhere",)),
        (["predict", "nowhere", "empty"], ("empty", "video", "image", "sound")),
    ],
)
def test_wrong_settings(
    typed: list[str | Path],
    values: tuple[object, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    check_one_message(typed, naming(*values), capsys)
