"""The command line: parses, calls one function, prints. Nothing heavy is imported before it is needed."""

import difflib
import dis
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from textwrap import fill
from typing import Literal, TextIO

import tyro
from tyro.conf import Positional

from tubelet import __version__
from tubelet.stream.config import StreamConfig
from tubelet.train.config import TrainConfig


@dataclass(frozen=True)
class Demo:
    """Render clips that only motion tells apart, train on them, evaluate, report."""

    out: Path = Path("runs/demo")
    """Folder for the clips and the run."""
    clips_per_class: int = 60
    """Clips rendered for each class; a fifth of them is held out."""
    minutes: float = 0.6
    """Time budget for training."""
    seed: int = 0
    """Seed of the clips and of the training."""


@dataclass(frozen=True)
class Train(TrainConfig):
    """Train a model on a folder of clips, images or sounds; evaluate it; report.

    Stopped with Ctrl-C, the same command goes on where it stopped.

    Processes share the work: torchrun --nproc-per-node 2 -m tubelet train DIR
    """


@dataclass(frozen=True)
class Prepare:
    """Copy videos once, small and quick to read, so that training need not wait.

    Stopped with Ctrl-C, the same command goes on where it stopped.
    """

    data: Positional[Path]
    """Folder of class folders, folder with train/ val/ test/, or CSV file."""
    out: Positional[Path]
    """Folder for the copies."""
    short_side: int = 256
    """Pixels; smaller videos are not enlarged."""
    gop: int = 12
    """Frames from one key frame to the next, at most."""
    quality: int = 16
    """0 (best) to 51 (worst), as x264's crf; 16 can hardly be told from the original."""
    workers: int = 0
    """Threads that copy a file each; 0: one for each processor."""


@dataclass(frozen=True)
class Eval:
    """Evaluate a run on labelled files."""

    run: Positional[Path]
    """Run directory, model.safetensors or exported folder."""
    data: Positional[Path]
    """Folder of class folders, folder with train/ val/ test/, or CSV file."""
    views: str = "1x1"
    """Temporal x spatial views of each clip, such as 4x3."""
    split: str | None = None
    """Only this split; test, else val, else all if left out."""
    csv: Path | None = None
    """Write the answer for every file to this CSV file."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""
    dtype: str = "float32"
    """float32, bfloat16, float16 (on a GPU) or auto."""
    workers: int = 2
    """Threads that read files."""


@dataclass(frozen=True)
class Predict:
    """Say what is in files."""

    run: Positional[Path]
    """Run directory, model.safetensors or exported folder."""
    files: Positional[tuple[Path, ...]]
    """Files, or folders of files."""
    views: str = "1x1"
    """Temporal x spatial views of each clip, such as 4x3."""
    top: int = 3
    """How many classes to show for each file."""
    json: bool = False
    """Print one JSON object a line instead of a table."""
    csv: Path | None = None
    """Write a CSV file instead of a table."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""
    dtype: str = "auto"
    """auto: bfloat16 where the device is fast in it, else float32."""
    compile: bool = False
    """Let torch compile the model, where that makes it faster: for many files."""
    workers: int = 2
    """Threads that read files."""


@dataclass(frozen=True)
class Stream(StreamConfig):
    """Say what happens when in a long video: a window slides along it.

    Ctrl-C keeps what was computed so far.

    Raw frames of FFmpeg (-f rawvideo -pix_fmt rgb24) come through a pipe.
    """


@dataclass(frozen=True)
class Export:
    """Write a folder for onnxruntime or OpenVINO, and compare it with its run."""

    run: Positional[Path]
    """Run directory or model.safetensors."""
    out: Positional[Path]
    """New folder; predict and eval take it like a run."""
    format: Literal["onnx", "openvino"] = "onnx"
    """onnx runs nearly everywhere; openvino is the fastest on processors."""
    int8: bool = False
    """Products in int8: faster; look at how many answers stay the same."""
    data: Path | None = None
    """Folder of files to compare answers on; synthetic clips if left out."""
    clips: int = 32
    """Clips to compare answers on."""
    overwrite: bool = False
    """Replace an exported folder."""


@dataclass(frozen=True)
class Info:
    """Parameters, multiply-accumulates, tokens and activation memory of a model."""

    model: Positional[str]
    """family-size/patch[xtubelet], such as vivit2-B/16x2; or "list" for all names."""
    clip: tuple[int, int, int] | None = None
    """Frames, height and width."""
    classes: int = 400
    """Classes to tell apart."""
    channels: int = 3
    """Channels of a clip."""
    embed: str = "tubelet"
    """Tokeniser: tubelet, space-time, depthwise or conv."""
    temporal_depth: int = 4
    """Blocks of vivit2's temporal encoder."""


@dataclass(frozen=True)
class Bench:
    """Measure what this machine does with a model, and how much that is of the most.

    Also says when other programs keep the machine too busy for the times to count.
    """

    model: Positional[str] = "vivit2-S/16x2"
    """family-size/patch[xtubelet], such as vivit2-B/16x2."""
    clip: tuple[int, int, int] | None = None
    """Frames, height and width; left out, 16 of 224 px, or what fits the time."""
    batch: int = 1
    """Clips at a time."""
    dtype: str = "auto"
    """float32, bfloat16, float16 (on a GPU) or auto: what the device is fast in."""
    minutes: float = 0.8
    """Time budget."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""
    json: bool = False
    """Print one JSON object instead of a table."""


@dataclass(frozen=True)
class Convert:
    """Take over weights of Hugging Face, timm or scenic, or hand ours to them.

    What no flag says is read from the config.json beside the weights.
    """

    src: Positional[Path]
    """Weights (.safetensors, flax msgpack, .npz), or their folder."""
    dst: Positional[Path]
    """New folder, or .safetensors file, for the result."""
    dialect: str | None = None
    """Whose names the tensors have, such as timm or hf-vivit; recognised if left out."""
    heads: tuple[int, ...] | None = None
    """Attention heads; for Swin, those of each stage."""
    clip: tuple[int, int, int] | None = None
    """Frames, height and width that the weights are made for; sound: 1, mel bins, columns."""
    family: str | None = None
    """Our name of the model, such as vivit4, where weights cannot tell."""
    attend: str | None = None
    """Order of attention, such as hw,t, where weights cannot tell."""
    frames: int | None = None
    """Uniform frame sampling: frames embedded of each clip."""
    stride: tuple[int, int, int] | None = None
    """Frames and px between patches, where they overlap."""
    window: tuple[int, int, int] | None = None
    """Swin's windows, in tokens."""
    classes: Path | None = None
    """Text file of class names, one a line, in the order of the outputs."""
    seconds_between_frames: float | None = None
    """Instead of what is usual for the model."""
    to: str | None = None
    """The other way: write a run's weights in the names of this dialect."""


COMMANDS: dict[str, Callable[..., object]] = {
    "demo": Demo,
    "train": Train,
    "prepare": Prepare,
    "eval": Eval,
    "predict": Predict,
    "stream": Stream,
    "export": Export,
    "info": Info,
    "bench": Bench,
    "convert": Convert,
}

ABOUT = f"""tubelet {__version__}: from a folder of clips, images or sounds to a tested model.

Begin with `tubelet demo`, then `tubelet train YOUR_FOLDER`.
"""


def main() -> None:
    if sys.argv[1:] == ["--version"]:
        print(f"tubelet {__version__}")
        return
    command = parse(sys.argv[1:])
    try:
        code = ACTIONS[type(command)](command)
    except ValueError as error:
        if not is_ours(error):
            raise
        print(f"tubelet: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("tubelet: interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)


def parse(arguments: list[str]) -> object:
    """The command that was typed; a wrong one is told about once, though each process of a team sees it."""
    if not arguments or arguments[0] in ("-h", "--help"):
        overview(sys.stdout if arguments else sys.stderr)
        sys.exit(0 if arguments else 2)
    verb, *rest = arguments
    with nullcontext() if in_first_process() else redirect_stderr(StringIO()):
        if verb not in COMMANDS:
            near = difflib.get_close_matches(verb, COMMANDS, n=1)
            hint = f"did you mean `tubelet {near[0]}`?" if near else f"expected one of {', '.join(COMMANDS)}"
            print(f"tubelet: no command {verb!r}: {hint}", file=sys.stderr)
            sys.exit(2)
        return tyro.cli(COMMANDS[verb], args=rest, prog=f"tubelet {verb}")


def overview(out: TextIO) -> None:
    """What there is, without building a parser of all of it: that would take half a second."""
    print(ABOUT, file=out)
    for verb, command in COMMANDS.items():
        about = f"  {verb:<8} {(command.__doc__ or '').splitlines()[0]}"
        print(fill(about, 80, subsequent_indent=" " * 11), file=out)
    print("\n`tubelet COMMAND --help` tells more; `tubelet --version` the version.", file=out)


def in_first_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


def is_ours(error: BaseException) -> bool:
    """Whether tubelet itself raised an error: then it is written for the user; any other is a bug to be seen whole.

    A ValueError of int(), say, or of torch, that was called with something wrong, is a bug: no `raise` of ours made it.
    """
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    if trace is None or not str(trace.tb_frame.f_globals.get("__name__", "")).startswith("tubelet."):
        return False
    return dis.opname[trace.tb_frame.f_code.co_code[trace.tb_lasti]] == "RAISE_VARARGS"


def demo(command: Demo) -> int:
    from tubelet.demo import ensure_demo
    from tubelet.train.begin import next_run

    clips = ensure_demo(command.out / "clips", clips_per_class=command.clips_per_class, seed=command.seed)
    out = next_run(command.out / "run").path
    return train(TrainConfig(data=clips, out=out, minutes=command.minutes, baseline=True, seed=command.seed))


def train(command: TrainConfig) -> int:
    from tubelet.train.team import Elsewhere
    from tubelet.train.train import Stopped, train_fn

    try:
        train_fn(command)
    except Elsewhere:
        return 2
    except Stopped as stop:
        if in_first_process():
            print(f"tubelet: {stop}", file=sys.stderr)
        return 128 + stop.signal
    return 0


def prepare(command: Prepare) -> int:
    from tubelet.prepare import Settings
    from tubelet.prepare import prepare as copy_all

    settings = Settings(short_side_px=command.short_side, gop_frames=command.gop, quality=command.quality)
    return 3 if copy_all(command.data, command.out, settings=settings, workers=command.workers) else 0


def evaluate(command: Eval) -> int:
    from tubelet.predict import Predictor

    check_folder(command.csv)
    predictor = Predictor.load(command.run, device=command.device, dtype=command.dtype)
    print(f"tubelet: in {predictor.precision}", file=sys.stderr)
    results = predictor.evaluate(
        command.data, views=command.views, split=command.split, csv_file=command.csv, workers=command.workers
    )
    return 3 if results["failed"] else 0


def check_folder(file: Path | None) -> None:
    """Raises ValueError, before the work is done, where a file could not be written after it."""
    if file is not None and (file.is_dir() or not file.parent.is_dir()):
        raise ValueError(f"{file}: cannot be written: name a file in a folder that exists")


def predict(command: Predict) -> int:
    from tubelet.predict import Predictor, find_files
    from tubelet.predict import show as show_predictions

    check_folder(command.csv)
    files = find_files(command.files)
    predictor = Predictor.load(command.run, device=command.device, dtype=command.dtype, compile=command.compile)
    print(f"tubelet: in {predictor.precision}", file=sys.stderr)
    predictions = show_predictions(
        predictor,
        files,
        views=command.views,
        top=command.top,
        json_lines=command.json,
        csv_file=command.csv,
        workers=command.workers,
    )
    return 3 if any(p.label is None for p in predictions) else 0


def stream(command: Stream) -> int:
    from tubelet.stream.stream import stream_fn

    return stream_fn(command)


def export(command: Export) -> int:
    from tubelet.export import export as write

    write(
        command.run,
        command.out,
        format=command.format,
        int8=command.int8,
        data=command.data,
        clips=command.clips,
        overwrite=command.overwrite,
    )
    return 0


def info(command: Info) -> int:
    import torch

    from tubelet.info import describe, print_info
    from tubelet.nn.create import create_model, list_models

    if command.model == "list":
        print("\n".join(list_models()))
        return 0
    with torch.device("meta"):
        model = create_model(
            command.model,
            clip=command.clip,
            num_classes=command.classes,
            channels=command.channels,
            embed=command.embed,
            temporal_depth=command.temporal_depth,
        )
    print_info(describe(model, name=command.model))
    return 0


def bench(command: Bench) -> int:
    from tubelet.bench import as_json, print_bench
    from tubelet.bench import bench as measure

    flags = {name: value for name, value in vars(command).items() if name not in ("model", "json")}
    found = measure(command.model, show=not command.json, **flags)
    if command.json:
        print(as_json(found))
    else:
        print_bench(found)
    return 0


def convert(command: Convert) -> int:
    from tubelet.convert import convert as take_over
    from tubelet.convert import convert_back

    flags = {name: value for name, value in vars(command).items() if name not in ("src", "dst", "to")}
    if command.to is None:
        take_over(command.src, command.dst, **flags)
        return 0
    if asked := [name for name, value in flags.items() if value is not None]:
        raise ValueError(f"--to writes weights of ours as they are: leave {', '.join(asked)} out")
    convert_back(command.src, command.dst, dialect=command.to)
    return 0


ACTIONS: dict[type, Callable[..., int]] = {
    Demo: demo,
    Train: train,
    Prepare: prepare,
    Eval: evaluate,
    Predict: predict,
    Stream: stream,
    Export: export,
    Info: info,
    Bench: bench,
    Convert: convert,
}
