"""The command line: its flags, its messages, its exit codes."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from naming import naming
from small_sets import LEVELS, TINY_FLAGS, command, pictures, spoil, tiny_config, write_videos

import tubelet
from tubelet.cli import COMMANDS, parse
from tubelet.info import usual_input
from tubelet.media.writer import write_video
from tubelet.nn import create_model
from tubelet.runs.run import Run
from tubelet.tasks import TASKS
from tubelet.train.config import TrainConfig
from tubelet.train.train import train_fn

TRAIN_FLAGS = """
    --help --task --labels --out --model --embed --pool --init --frames --seconds-between-frames --size --minutes
    --epochs --batch --accumulate --stills
    --lr --weight-decay --warmup --layer-decay --label-smoothing --mixup --ema --clip-grad --drop-path --dropout
    --checkpointing --compile --augment --dtype --device --shard --baseline --val-share --views --max-bad --save-minutes
    --workers --tensorboard --label-swaps --balance --patience --seed --freeze --freeze-views --cache --compare --json
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_videos(tmp_path_factory.mktemp("data") / "clips", 4)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_fn(tiny_config(data, tmp_path_factory.mktemp("run") / "run", epochs=1), show=False)


def python(*arguments: str | Path, **settings: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", *map(str, arguments)], capture_output=True, text=True, timeout=200, **settings
    )


# ---- help


def test_help_comes_without_torch() -> None:
    script = """
        import sys
        from tubelet.cli import main
        for arguments in (["--help"], ["train", "--help"], ["predict", "--help"], ["convert", "--help"], ["--version"]):
            sys.argv = ["tubelet", *arguments]
            try:
                main()
            except SystemExit as end:
                assert end.code == 0
        heavy = {"torch", "av", "sklearn", "matplotlib", "jinja2", "huggingface_hub", "safetensors", "msgpack", "rich"}
        assert not heavy & set(sys.modules), heavy & set(sys.modules)
    """
    end = python("-c", "\n".join(line[8:] for line in script.splitlines()))
    assert end.returncode == 0, end.stderr
    assert re.search(naming("`tubelet demo`", "`tubelet train YOUR_FOLDER`"), end.stdout)
    assert f"tubelet {tubelet.__version__}" in end.stdout


def test_the_flags_of_train_are_those_promised(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("train", "--help") == 0
    found = re.findall(r"^  (--[a-z-]+)", capsys.readouterr().out, re.MULTILINE)
    assert sorted(found) == sorted(TRAIN_FLAGS.split())


@pytest.mark.parametrize("arguments", [[], *([verb] for verb in COMMANDS)])
def test_help_begins_with_how_to_type_it(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command(*arguments, "--help") == 0
    assert capsys.readouterr().out.startswith("usage: tubelet" if arguments else "tubelet ")


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_flag_says_what_it_is_for_and_what_it_takes(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(verb, "--help") == 0
    rows = re.split(r"^  (?! )", capsys.readouterr().out, flags=re.MULTILINE)[1:]
    assert len(rows) == len(fields(COMMANDS[verb])) + 1
    for row in rows:
        taken, words = re.split(r"  +|\n +", row.strip(), maxsplit=1)
        assert len(words) > 4
        assert not re.search(r"None|INT|FLOAT|STR|\{|default: (None|True|False)", f"{taken} {words}")


def test_info_takes_every_name_that_it_lists(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("info", "list") == 0
    names = capsys.readouterr().out.splitlines()
    assert {name.split("/")[0] for name in names} == set(tubelet.list_models())
    with torch.device("meta"):
        for name in names:
            clip, channels = usual_input(name)
            create_model(name, clip=clip, channels=channels)
    for name in {name.split("-")[0]: name for name in reversed(names)}.values():  # the smallest of each family
        assert command("info", name) == 0
        assert name in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "clip", "channels"),
    [
        ([], [1, 128, 1024], 1),
        (["--clip", "1", "64", "96"], [1, 64, 96], 1),
        (["--channels", "3"], [1, 128, 1024], 3),
    ],
)
def test_a_spectrogram_is_what_ast_is_given(
    flags: list[str], clip: list[int], channels: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("info", "ast-B/16", "--json", *flags) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["clip"] == clip
    assert found["parts"][0]["parameters"] == 768 * (16 * 16 * channels + 1)


# ---- bad input: one message, exit code 2


def empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def no_videos(folder: Path) -> Path:
    for name in ("a", "b"):
        (folder / "texts" / name).mkdir(parents=True)
        (folder / "texts" / name / "1.txt").write_text("no video")
    return folder / "texts"


def spoilt(folder: Path) -> Path:
    for file in write_videos(folder / "spoilt", 2).glob("*/*.mp4"):
        spoil(file)
    return folder / "spoilt"


def loose(folder: Path) -> Path:
    write_videos(folder, 1)
    for number, file in enumerate(folder.glob("*/*.mp4")):
        file.rename(folder / f"{number}.mp4")
    return folder


def one_clip(folder: Path) -> Path:
    write_videos(folder / "few", 2)
    (folder / "few" / "dark" / "1.mp4").unlink()
    return folder / "few"


DATA_FAULTS: dict[str, tuple[Callable[[Path], Path], tuple[object, ...]]] = {
    "missing": (lambda folder: folder / "nowhere", ("nowhere", "path,label[,start,end,split,group]")),
    "empty": (empty, ("empty", "path,label[,start,end,split,group]")),
    "one class": (lambda folder: write_videos(folder / "one", 2, classes=("a",)), ("one", "'a'", 1, 2)),
    "a class with one clip": (one_clip, ("'dark'", 1, 2)),
    "no videos": (no_videos, ("2 empty-class", "a:")),
    "files that are no videos": (
        spoilt,
        ("2 of 2", "bright", "dark"),
    ),
    "no class folders": (loose, ("2 empty-class", "bright:", "dark:")),
    "a file": (
        lambda folder: write_videos(folder, 1) / "dark" / "0.mp4",
        ("0.mp4", "path,label[,start,end,split,group]"),
    ),
}


@pytest.mark.parametrize("fault", DATA_FAULTS)
def test_data_that_cannot_be_trained_on(fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, values = DATA_FAULTS[fault]
    assert command("train", make(tmp_path), "--out", tmp_path / "run", *TINY_FLAGS) == 2
    check_message(capsys, *values)
    assert not (tmp_path / "run").exists()


def check_message(capsys: pytest.CaptureFixture[str], *values: object) -> None:
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("tubelet: ")
    assert "Traceback" not in shown.err
    assert re.search(naming(*values), shown.err), shown.err


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        (["--model", "vivit2-Q/16x2"], ("'vivit2-Q/16x2'", "vivit2-S/16x2")),
        (["--model", "vivti2-S/16x2"], ("'vivti2-S/16x2'", "vivit2-S/16x2")),
        (["--frames", "2"], ("T = 2",)),
        (["--size", "8", "8"], ("H = 8",)),
        (["--model", "vivit4-P/16x4"], ("'vivit4-P/16x4'", "vivit4-S/16x4")),
        (["--init", "nowhere.safetensors"], ("nowhere.safetensors", "hf-hub:owner/name")),
        (["--views", "9"], ("views", "'9'", "TEMPORALxSPATIAL")),
        (["--device", "gpu"], ("device", "'gpu'", "auto", "cpu", "cuda", "mps")),
        (["--shard", "fsdp2"], ("--shard fsdp2", "torchrun --nproc-per-node N")),
        (["--batch", "3", "--accumulate", "2"], ("batch", 3, 1, 2)),
    ],
)
def test_settings_that_cannot_work(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], values: tuple[object, ...]
) -> None:
    assert command("train", data, "--out", tmp_path / "run", *TINY_FLAGS, *arguments) == 2
    check_message(capsys, *values)


def test_a_run_of_other_data_is_not_gone_on_with(
    data: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_videos(tmp_path / "other", 2)
    assert command("train", other, "--out", run, *TINY_FLAGS) == 2
    check_message(capsys, run, data)
    assert command("train", data, "--out", run, *TINY_FLAGS) == 2
    check_message(capsys, run, "finished", "--out")


def test_a_clip_shorter_than_a_tubelet_is_no_error(data: Path, tmp_path: Path) -> None:
    short = write_videos(tmp_path / "short", 2)
    for file in short.glob("*/*.mp4"):
        file.unlink()
        write_video(file, pictures(LEVELS[file.parent.name], [int(file.stem)], frames=1))
    assert command("train", short, "--out", tmp_path / "run", *TINY_FLAGS, "--seconds-between-frames", "0.5") == 0


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        (["predict", "nowhere", "a.mp4"], ("nowhere", ".safetensors")),
        (["predict", "nowhere", "."], (".:", "video", "image", "sound")),
        (["eval", "nowhere", "."], ("nowhere", ".safetensors")),
        (["info", "vivit2-B/16x2", "--clip", "1", "224", "224"], ("T = 1",)),
        (["info", "vivit2-B/16x2", "--clip", "2", "8", "8"], ("H = 8",)),
        (["info", "nothing"], ("'nothing'", "family-size/patch[xtubelet]")),
        (["info", "vivit2-B/16x2", "--embed", "nothing"], ("'nothing'",)),
    ],
)
def test_other_commands_explain_what_is_wrong(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    values: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command(*arguments) == 2
    check_message(capsys, *values)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("tarin", ["'tarin'", "`tubelet train`"]),
        ("xyz", ["'xyz'", *COMMANDS]),
        ("train", ["DATA", "`tubelet train DATA`"]),
        ("predict run", ["FILES", "`tubelet predict RUN FILES ...`"]),
        ("info a b", [" b: ", "`tubelet info MODEL`"]),
        ("train x --batch-size 8", ["--batch-size", "`tubelet train`", "--batch?"]),
        ("train x --batch-size=8", ["--batch-size of", "--batch?"]),
        ("train x --learning-rate 1", ["--learning-rate", "--lr?"]),
        ("train x --no_augmnet", ["--no_augmnet", "--no-augment?"]),
        ("train x --xyzzy", ["--xyzzy", "`tubelet train --help`"]),
        ("train x --batch many", ["--batch NUMBER", "'many'"]),
        ("train x --batch 1.5", ["--batch NUMBER", "'1.5'"]),
        ("train x --lr fast", ["--lr NUMBER", "'fast'"]),
        ("train x --batch 0", ["batch = 0", "more than 0"]),
        ("train x --embed words", ["--embed", "'words'", "tubelet", "space-time", "depthwise", "conv"]),
        ("train x --task segment", ["--task NAME", "'segment'", *TASKS]),
        ("train x --size 48", ["--size HEIGHT WIDTH", "2"]),
        ("train x --size=48", ["--size HEIGHT WIDTH", "2"]),
        ("train x --out --json", ["--out PATH"]),
        ("train --xyzzy", ["--xyzzy", "`tubelet train`"]),
        ("train x --bat 4", ["--bat of", "--batch?"]),
        ("train x --augment=1", ["--augment", "'1'"]),
        ("train x --json=1", ["--json", "'1'"]),
        ("convert a b --heads", ["--heads NUMBER"]),
        ("predict run -x.mp4", ["-x.mp4", "./-x.mp4"]),
    ],
)
def test_a_wrong_command_line_is_one_line(
    typed: str, expected: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*typed.split()) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert re.fullmatch(r"tubelet: .*\n", shown.err)
    assert [words for words in expected if words not in shown.err] == []
    monkeypatch.setenv("RANK", "1")  # of a team, one process tells
    assert command(*typed.split()) == 2
    assert capsys.readouterr().err == ""


def test_nothing_typed_shows_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert command() == 2
    shown = capsys.readouterr()
    assert (shown.out, [verb for verb in COMMANDS if f"  {verb} " not in shown.err]) == ("", [])


@pytest.mark.parametrize(
    ("typed", "values"),
    [
        ("train x", {"data": Path("x"), "augment": True, "size": None, "minutes": TrainConfig.minutes}),
        ("train --size 48 64 x --lr=1e-3 --val_share .5", {"size": (48, 64), "lr": 1e-3, "val_share": 0.5}),
        ("train --no-augment x --freeze --no-freeze", {"data": Path("x"), "augment": False, "freeze": False}),
        ("train x --no_augment --augment --batch 4 --batch 8", {"augment": True, "batch": 8}),
        ("train a.csv --task regression", {"task": "regression"}),
        ("train --embed=space-time -- --x", {"data": Path("--x"), "embed": "space-time"}),
        ("predict r a --top 1 b --json c", {"run": Path("r"), "files": ("a", "b", "c"), "top": 1}),
        ("predict --csv=-x.csv r -- -a --json", {"csv": Path("-x.csv"), "files": ("-a", "--json")}),
        ("stream r - --size 4x4 --fps 5", {"file": Path("-"), "fps": 5.0}),
        ("convert --heads 3 6 --to timm a b", {"heads": (3, 6), "src": Path("a"), "dst": Path("b")}),
        ("demo --seed -1 --epochs -.5", {"seed": -1, "epochs": -0.5}),
        ("demo --epochs inf", {"epochs": math.inf}),
        ("bench", {"model": "vivit2-S/16x2"}),
        ("bench swin2-P/4 --clip 1 32 48", {"model": "swin2-P/4", "clip": (1, 32, 48)}),
        ("predict r a=b ", {"files": ("a=b",)}),
    ],
)
def test_what_is_typed_is_taken(typed: str, values: dict[str, Any]) -> None:
    taken = vars(parse(typed.split()))
    assert {name: taken[name] for name in values} == values


# ---- files that could not be read, interruptions


def test_unreadable_files_are_told_by_the_exit_code(run: Path, data: Path, tmp_path: Path) -> None:
    good = data / "dark" / "0.mp4"
    assert command("predict", run, good, "--device", "cpu") == 0
    assert command("predict", run, good, tmp_path / "missing.mp4", "--device", "cpu") == 3
    clips = write_videos(tmp_path / "clips", 2)
    assert command("eval", run, clips, "--device", "cpu") == 0
    spoil(clips / "dark" / "1.mp4")
    assert command("eval", run, clips, "--device", "cpu") == 3


def test_ctrl_c_keeps_what_was_learned_and_the_same_command_goes_on(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    arguments = ["train", str(data), "--out", str(out), *TINY_FLAGS, "--epochs", "100"]
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "tubelet", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    with process:
        deadline = time.monotonic() + 200
        while not (out / "metrics.jsonl").is_file() or not (out / "metrics.jsonl").stat().st_size:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        shown, errors = process.communicate(timeout=200)
    assert process.returncode == 130, errors
    assert errors == f"tubelet: stopped; the same command goes on from {out}\n"
    assert "stopping  after this step" in shown
    found, _ = Run(out).newest_checkpoint()
    assert found is not None
    assert 0 < found.step < 150
    assert command(*arguments) == 0
    assert f"going on  from step {found.step} of 150" in capsys.readouterr().out
    assert Run(out).finished


def test_ctrl_c_elsewhere_is_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tubelet.nn.create.model_config", interrupt)
    assert command("info", "vivit2-B/16x2") == 130
    assert capsys.readouterr().err == "tubelet: interrupted\n"


def test_the_demo_can_be_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[Any] = []

    def train(config: Any, **named: Any) -> Path:
        runs.append(config)
        Run(config.out).path.mkdir()
        Run(config.out).write_text("README.md", "done")
        Run(config.out).write_json("results.json", {"failed": 0})
        return Run(config.out).path

    monkeypatch.setattr("tubelet.train.train.train_fn", train)
    for _ in range(2):
        assert command("demo", "--out", tmp_path / "demo", "--clips-per-class", "1") == 0
    assert [config.out for config in runs] == [tmp_path / "demo" / "run", tmp_path / "demo" / "run-2"]
    assert runs[0].data == tmp_path / "demo" / "clips"
    assert runs[0].label_swaps == tmp_path / "demo" / "label-swaps.csv"
    assert len(list(runs[0].data.glob("*/*.mp4"))) == 8
