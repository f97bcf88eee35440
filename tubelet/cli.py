"""The command line: parses, calls one function, prints. Nothing heavy is imported before it is needed."""

import difflib
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import asdict, replace
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any, TextIO

from tubelet.commands import (
    COMMANDS,
    Bench,
    Check,
    Compare,
    Convert,
    ConvertLabels,
    Demo,
    Embed,
    Eval,
    Explain,
    Export,
    Info,
    Merge,
    Predict,
    Prepare,
    Pretrain,
    Search,
    Shared,
    Stream,
    Suggest,
    Train,
    Weights,
)
from tubelet.pretrain.config import PretrainConfig
from tubelet.system.exits import PARTS_MISSING, SOME_FAILED, WRONG, Stopped, catch_sigterm, report_error
from tubelet.system.openmp import wait_briefly
from tubelet.system.options import read_command
from tubelet.train.config import TrainConfig
from tubelet.version import __version__

if TYPE_CHECKING:
    from tubelet.embed.embeddings import Embeddings
    from tubelet.predict.predictor import Predictor
    from tubelet.runs.parts import PartWritten
    from tubelet.runs.share import Share

BEGUN = time.monotonic()  # budgets of time count from here on: torch takes seconds to be loaded

ABOUT = f"""tubelet {__version__}: from a folder of clips, images or sounds to a tested model.

Begin with `tubelet demo`, then `tubelet train YOUR_FOLDER`.
"""

SHARED = ("shard", "parts")  # who does the work, which what is done does not depend on
FREE = (*SHARED, "json", "workers")  # may differ from job to job

LEAST: dict[type, dict[str, int]] = {
    Demo: {"clips_per_class": 1, "seed": 0},
    Prepare: {"workers": 0},
    Eval: {"workers": 1},
    Predict: {"workers": 1, "top": 1},
    Compare: {"folds": 2, "seed": 0},
    Embed: {"workers": 1},
    Search: {"workers": 1, "top": 1},
    Suggest: {"count": 1, "seed": 0},
}


def main() -> None:
    """Does what was typed and ends with its exit code: docs/messages.md lists them."""
    typed, debug = without_debug(sys.argv[1:])
    wait_briefly()
    try:
        with catch_sigterm():
            code = act(typed)
    except BaseException as error:
        code = report_error(error, debug=debug)
    sys.exit(code)


def act(typed: list[str]) -> int:
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the terminal's encoding has no letters for
    try:
        if typed == ["--version"]:
            print(f"tubelet {__version__}")
            return 0
        command = parse(typed)
        check_numbers(command)
        action = partial(run_shared, typed=typed) if isinstance(command, Shared) else ACTIONS[type(command)]
        if not getattr(command, "json", False):
            return action(command)
        from tubelet.system.console import only_json_on_stdout

        with only_json_on_stdout():
            return action(command)
    finally:
        if sys.stdout:
            sys.stdout.flush()  # while a closed pipe or a full disk can still be told


def check_numbers(command: object) -> None:
    """Raises ValueError, before anything is loaded, where a number cannot be."""
    for name, least in LEAST.get(type(command), {}).items():
        if (given := getattr(command, name)) < least:
            raise ValueError(f"--{name.replace('_', '-')} {given}: expected {least} or more")


def fields_but(command: object, *names: str) -> dict[str, Any]:
    """The fields of a command but those named: the arguments of the function that does it."""
    return {name: value for name, value in vars(command).items() if name not in names}


def print_json(values: Any) -> None:
    from tubelet.system.text import dumps

    print(dumps(values), flush=True)


def without_debug(arguments: list[str]) -> tuple[list[str], bool]:
    """The arguments but --debug, which may stand anywhere before --, and whether tracebacks are wanted."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    kept = [argument for argument in arguments[:end] if argument != "--debug"] + arguments[end:]
    return kept, len(kept) < len(arguments) or os.environ.get("TUBELET_DEBUG", "") not in ("", "0")


def parse(arguments: list[str]) -> object:
    """The command that was typed; a wrong one is told about once, though each process of a team sees it."""
    if not arguments or arguments[0] in ("-h", "--help"):
        overview(sys.stdout if arguments else sys.stderr)
        sys.exit(0 if arguments else 2)
    verb, *rest = arguments
    try:
        if verb not in COMMANDS:
            near = difflib.get_close_matches(verb, COMMANDS, n=1)
            hint = f"did you mean `tubelet {near[0]}`?" if near else f"expected one of {', '.join(COMMANDS)}"
            raise ValueError(f"no command {verb!r}: {hint}")
        return read_command(COMMANDS[verb], rest, name=f"tubelet {verb}")
    except ValueError:
        if is_first_process():
            raise
        sys.exit(WRONG)


def overview(out: TextIO) -> None:
    """Prints the commands without building a parser of all of them: that would take half a second."""
    print(ABOUT, file=out)
    for verb, command in COMMANDS.items():
        about = f"  {verb:<15} {(command.__doc__ or '').splitlines()[0]}"
        print(fill(about, 80, subsequent_indent=" " * 18), file=out)
    print("\n`tubelet COMMAND --help` tells more; `tubelet --version` the version.", file=out)
    print("--debug, anywhere, shows the traceback of whatever goes wrong.", file=out)


def is_first_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


def demo(command: Demo) -> int:
    from tubelet.demo import ensure_demo
    from tubelet.train.resume import next_run

    clips = ensure_demo(command.out / "clips", clips_per_class=command.clips_per_class, seed=command.seed)
    out = next_run(command.out / "run").path
    swaps, seed = clips.with_name("label-swaps.csv"), command.seed
    config = TrainConfig(data=clips, out=out, epochs=command.epochs, baseline=True, label_swaps=swaps, seed=seed)
    return run_training(config, as_json=command.json)


def train(command: Train) -> int:
    return run_training(TrainConfig(**fields_but(command, "json")), as_json=command.json)


def run_training(config: TrainConfig, *, as_json: bool) -> int:
    from tubelet.runs.run import RESULTS
    from tubelet.system.team import Elsewhere
    from tubelet.train.train import train_fn

    try:
        run = train_fn(config, begun=BEGUN)
    except Elsewhere:
        return WRONG
    except Stopped as stop:
        if is_first_process():
            raise
        return 128 + stop.signal
    if not is_first_process():
        return 0
    results = json.loads((run / RESULTS).read_text())
    if as_json:
        print_json({"run": run, "results": results})
    return SOME_FAILED if results["failed"] else 0


def pretrain(command: Pretrain) -> int:
    from tubelet.pretrain.pretrain import pretrain as learn
    from tubelet.runs.run import MODEL
    from tubelet.train.init import CONTENTS
    from tubelet.weights.store import PRETRAINING, read_about

    run = learn(PretrainConfig(**fields_but(command, "json")))
    if command.json:
        about = read_about(run.path)[PRETRAINING]
        known = {name: value for name, value in about.items() if name != CONTENTS}
        print_json({"file": run.path / MODEL, PRETRAINING: known})
    return 0


def run_shared(command: Shared, *, typed: Sequence[str]) -> int:
    """Does a command alone, or its part of it: as one job of many, or as one process of a team."""
    from tubelet.runs.parts import PartWritten
    from tubelet.runs.share import HandedOver
    from tubelet.system.team import Elsewhere

    try:
        share, command = open_share(command, typed)
        with nullcontext() if share.whole or command.shard else silence():
            return ACTIONS[type(command)](command, share)
    except PartWritten as done:
        show_part(done, as_json=vars(command)["json"])
        return 0
    except HandedOver:
        return 0
    except Elsewhere:
        return WRONG


def open_share(command: Shared, typed: Sequence[str]) -> "tuple[Share, Shared]":
    """Who does the work of a command, and the command as this process is to do it."""
    from tubelet.predict.exported import is_exported
    from tubelet.runs.parts import Part, Shard
    from tubelet.runs.share import ALONE, Together
    from tubelet.system.team import Team

    if command.shard is not None:
        settings = {"command": typed[0], "tubelet": __version__, **fields_but(command, *FREE)}
        return Shard(Part.parse(command.parts, command.shard), tuple(typed), settings), command
    if isinstance(command, Predict | Eval) and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        team = Team.join("cpu" if is_exported(command.run) else command.device)
        return Together(team), replace(command, device=str(team.device))
    return ALONE, command


@contextmanager
def silence() -> Iterator[None]:
    """Nothing is shown while inside: another process of the team does that."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def show_part(done: "PartWritten", *, as_json: bool) -> None:
    from tubelet.system.console import say
    from tubelet.system.text import plural

    part, items = done.part, plural(done.items, "item")
    if as_json:
        known = {"items": done.items, "known": done.known}
        print_json({"part": part.number, "of": part.count, **known, "folder": part.path})
        return
    was = "was whole already" if done.known == done.items else f"is whole, {done.known} of it from before"
    say("part", f"{part.number} of {part.count} {was}: {items} in {part.path}")
    say("next", f"tubelet merge {shlex.quote(str(part.folder))}, once all {part.count} are there")


def merge(command: Merge) -> int:
    from tubelet.runs.parts import Merged, PartsMissing

    parts = Merged(command.folder)
    asked = parse(parts.read_typed())
    assert isinstance(asked, Shared)
    changes: dict[str, Any] = {"shard": None, "json": command.json}
    if isinstance(asked, Predict | Eval):  # nothing is computed: it need not be a machine like those of the jobs
        changes |= {"device": "cpu", "dtype": "float32", "csv": command.csv or asked.csv}
    elif command.csv:
        raise ValueError(f"--csv {command.csv}: these are not parts of predict or eval: leave it out")
    try:
        return ACTIONS[type(asked)](replace(asked, **changes), parts)
    except PartsMissing as missing:
        if command.json:
            print_json({"missing": missing.numbers})
        print(f"tubelet: {missing}", file=sys.stderr)
        return PARTS_MISSING


def check(command: Check, share: "Share") -> int:
    from tubelet.check import check as look_through

    after = (lambda health: print_json(asdict(health))) if command.json else None
    found = look_through(**fields_but(command, "json", *SHARED), after=after, share=share)
    return SOME_FAILED if any(not health.ok for health in found) else 0


def prepare(command: Prepare, share: "Share") -> int:
    from tubelet.prepare import Settings
    from tubelet.prepare import prepare as copy_all

    settings = Settings(short_side_px=command.short_side, gop_frames=command.gop, quality=command.quality)
    kept = fields_but(command, "short_side", "gop", "quality", "json", *SHARED)
    copies = copy_all(**kept, settings=settings, share=share)
    if command.json:
        print_json(copies.to_json())
    return SOME_FAILED if copies.failed else 0


def evaluate(command: Eval, share: "Share") -> int:
    from tubelet.stream.segmenter import finds_segments

    finds = share.begin(lambda: finds_segments(command.run))
    return (evaluate_recordings if finds else evaluate_clips)(command, share)


def evaluate_recordings(command: Eval, share: "Share") -> int:
    from tubelet.evaluate.segments import evaluate_segments
    from tubelet.predict.predictor import Predictor
    from tubelet.predict.tables import check_table, write_segments
    from tubelet.stream.segmenter import Segmenter

    share.begin(lambda: check_table(command.csv))

    def load() -> Predictor:
        if asked := [name for name in ("views", "labels", "unknown") if getattr(command, name) != getattr(Eval, name)]:
            raise ValueError(f"{command.run} finds segments: leave {' and '.join(f'--{name}' for name in asked)} out")
        return load_predictor(command, share)

    predictor = share.begin(load)
    segmenter = share.begin(lambda: Segmenter.read(predictor))
    how: dict[str, Any] = {"split": command.split, "workers": command.workers, "share": share}
    found = evaluate_segments(predictor, segmenter, command.data, **how)
    if command.csv:
        write_segments(found.found, command.csv)
    failures = [{"path": path, "message": message} for path, message in found.failed.items()]
    if command.json:
        print_json({"run": command.run, "data": command.data, **found.results.to_json(), "failures": failures})
    return SOME_FAILED if failures else 0


def evaluate_clips(command: Eval, share: "Share") -> int:
    from tubelet.evaluate import evaluate as measure
    from tubelet.predict.tables import check_table

    share.begin(lambda: check_table(command.csv))
    settings = fields_but(command, "run", "device", "dtype", "trusted", "csv", "json", *SHARED)
    predictor = share.begin(lambda: load_predictor(command, share))
    found = measure(predictor, **settings, csv_file=command.csv, share=share)
    failures = [{"path": one.path, "code": one.code, "message": one.status} for one in found.failed]
    if command.json:
        print_json({"run": command.run, "data": command.data, **found.to_json(), "failures": failures})
    return SOME_FAILED if failures else 0


def predict(command: Predict, share: "Share") -> int:
    from tubelet.predict.predictor import find_files
    from tubelet.predict.show import show as show_predictions
    from tubelet.predict.tables import check_table

    share.begin(lambda: check_table(command.csv))
    files = share.begin(lambda: find_files(command.files))
    settings = fields_but(command, "run", "files", "device", "dtype", "trusted", "abstain", *SHARED)
    settings |= {} if share.whole else {"csv": None}
    predictor = share.begin(lambda: load_predictor(command, share))
    if not command.abstain:
        predictor.distance = None
    note_segments(command.run, "these are the labels of whole files")
    predictions = show_predictions(predictor, files, **settings, share=share)
    return SOME_FAILED if any(p.label is None for p in predictions) else 0


def explain(command: Explain) -> int:
    from tubelet.predict.predictor import Predictor, find_files
    from tubelet.relevance.files import explain_files, show_table

    files, predictor = find_files(command.files), Predictor.load(command.run, device=command.device)
    settings = fields_but(command, "run", "files", "device", "json")
    after = (lambda one: print_json(one.to_json())) if command.json else (lambda one: None)
    written = explain_files(predictor, files, **settings, after=after)
    if not command.json:
        show_table(written, command.out)
    return SOME_FAILED if any(one.found is None for one in written) else 0


def load_predictor(command: Eval | Predict, share: "Share") -> "Predictor":
    from tubelet.predict.predictor import Predictor
    from tubelet.runs.parts import Merged
    from tubelet.system.allocator import keep_memory

    keep_memory()
    device, dtype, trusted = command.device, command.dtype, command.trusted
    predictor = Predictor.load(command.run, device=device, dtype=dtype, trusted=trusted)
    if not isinstance(share, Merged):  # which computes nothing
        print(f"tubelet: in {predictor.precision}", file=sys.stderr)
    return predictor


def note_segments(run: Path, what: str) -> None:
    """Says what a run that finds segments is not asked for here."""
    from tubelet.stream.segmenter import finds_segments

    if finds_segments(run):
        print(f"tubelet: {run} finds segments, {what}: `tubelet stream` says what happens when", file=sys.stderr)


def stream(command: Stream) -> int:
    from tubelet.stream.stream import stream_fn

    return stream_fn(command)


def export(command: Export) -> int:
    from tubelet.export.writer import export as write

    with redirect_stdout(sys.stderr) if command.json else nullcontext():  # the exporters print, too
        about = write(**fields_but(command, "json"))
    note_segments(command.run, "the exported model has the labels of clips alone")
    if command.json:
        print_json({"out": command.out, **about})
    return 0


def embed(command: Embed, share: "Share") -> int:
    from tubelet.embed.writer import embed as write

    found = write(**fields_but(command, "json", *SHARED), share=share)
    failed = [{"path": row.path, "code": row.code, "message": row.message} for row in found.rows if row.code != "ok"]
    if command.json:
        print_json({"out": command.out, "vectors": len(found.vectors), **found.settings, "failures": failed})
    return SOME_FAILED if failed else 0


def search(command: Search) -> int:
    from tubelet.embed.embeddings import Embeddings
    from tubelet.embed.search import print_hits, search_files
    from tubelet.embed.sheet import write_sheet

    if bool(command.files) == command.duplicates:
        raise ValueError("search: expected files, as in `tubelet search FOLDER clip.mp4`, or --duplicates without any")
    found = Embeddings.load(command.folder, run=command.run, device=command.device)
    if command.duplicates:
        return find_copies(command, found)
    asked = search_files(found, command.files, top=command.top)
    print_hits(asked, as_json=command.json)
    if command.out:
        write_sheet(asked, command.out, folder=command.folder, settings=found.settings)
    return 0


def find_copies(command: Search, found: "Embeddings") -> int:
    from tubelet.embed.duplicates import find_sets
    from tubelet.embed.search import print_sets
    from tubelet.embed.sheet import write_copies

    sets = find_sets(found, workers=command.workers, show=not command.json)
    print_sets(sets, as_json=command.json)
    if command.out:
        write_copies(sets, command.out, folder=command.folder, settings=found.settings)
    return 0


def suggest(command: Suggest) -> int:
    from tubelet.embed.embeddings import Embeddings
    from tubelet.embed.sheet import write_suggestions
    from tubelet.embed.suggest import append_rows, print_suggestions, report
    from tubelet.embed.suggest import suggest as choose

    found = Embeddings.load(command.folder)
    suggestions, known = choose(found, command.labels, count=command.count, seed=command.seed)
    if command.out:
        write_suggestions(suggestions, command.out, folder=command.folder, settings=found.settings)
    added = append_rows(command.labels, suggestions) if command.labels else 0
    print_suggestions(suggestions, as_json=command.json)
    report(command.folder, command.labels, known, added)
    return 0


def weights(command: Weights) -> int:
    from tubelet.weights.listing import choose, describe, print_weights

    lines = choose(command.pattern)
    print_json({"weights": [describe(line) for line in lines]}) if command.json else print_weights(lines)
    return 0


def info(command: Info) -> int:
    import torch

    from tubelet.info import list_names, print_info, usual_input
    from tubelet.nn.cost import describe
    from tubelet.nn.create import model_config
    from tubelet.nn.model import SpaceTimeTransformer

    if command.model == "list":
        print_json({"models": list_names()}) if command.json else print("\n".join(list_names()))
        return 0
    clip, channels = usual_input(command.model)
    config = model_config(
        command.model,
        clip=clip if command.clip is None else command.clip,
        num_classes=command.classes,
        channels=channels if command.channels is None else command.channels,
        embed=command.embed,
    )
    if len(config.stages) > 1:
        blocks = command.temporal_depth
        config = config.with_stage(1, depth=blocks) if blocks else replace(config, stages=config.stages[:1])
    with torch.device("meta"):
        model = SpaceTimeTransformer(config)
    found = describe(model, name=command.model)
    print_json(asdict(found)) if command.json else print_info(found)
    return 0


def bench(command: Bench) -> int:
    from tubelet.bench import bench as measure
    from tubelet.bench import print_bench

    found = measure(command.model, **fields_but(command, "model", "json"))
    print_json(found) if command.json else print_bench(found)
    return 0


def compare(command: Compare) -> int:
    from tubelet.compare import compare as hold_against

    found = hold_against(**fields_but(command, "json"))
    if command.json:
        print_json(found.to_json())
    return SOME_FAILED if found.failed else 0


def convert(command: Convert) -> int:
    from tubelet.convert.conversion import convert as take_over
    from tubelet.convert.conversion import convert_back
    from tubelet.weights.store import read_about

    flags = fields_but(command, "src", "dst", "to", "json")
    if command.to is None:
        file = take_over(command.src, command.dst, **flags)
    elif asked := [name for name, value in flags.items() if value not in (None, False)]:
        raise ValueError(f"--to writes weights of ours as they are: leave {', '.join(asked)} out")
    else:
        file = convert_back(command.src, command.dst, dialect=command.to)
    if command.json:
        print_json({"file": file, **({"dialect": command.to} if command.to else read_about(file))})
    return 0


def convert_labels(command: ConvertLabels) -> int:
    from tubelet.convert_labels import Converted, WrittenLabels, convert_labels_back
    from tubelet.convert_labels import convert_labels as take_over

    made: Converted | WrittenLabels
    if command.to is None:
        tiers = command.tier or ()
        made = take_over(command.src, command.out, videos=command.videos, tiers=tiers, from_format=command.from_)
    elif command.tier or command.from_:
        raise ValueError("--to writes all of a table of ours: leave --tier and --from out")
    else:
        made = convert_labels_back(command.src, command.out, to=command.to, videos=command.videos)
    if command.json:
        print_json(asdict(made))
    return 0


ACTIONS: dict[type, Callable[..., int]] = {
    Demo: demo,
    Train: train,
    Check: check,
    Prepare: prepare,
    Eval: evaluate,
    Predict: predict,
    Explain: explain,
    Stream: stream,
    Export: export,
    Merge: merge,
    Embed: embed,
    Search: search,
    Suggest: suggest,
    Info: info,
    Weights: weights,
    Bench: bench,
    Compare: compare,
    Pretrain: pretrain,
    Convert: convert,
    ConvertLabels: convert_labels,
}
