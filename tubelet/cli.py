"""The command line: parses, calls one function, prints. Nothing heavy is imported before it is needed."""

import difflib
import dis
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext, redirect_stderr
from io import StringIO
from pathlib import Path
from textwrap import fill
from typing import TextIO

import tyro

from tubelet import __version__
from tubelet.commands import COMMANDS, Bench, Convert, Demo, Eval, Export, Info, Predict, Prepare, Stream, Train
from tubelet.train.config import TrainConfig

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
