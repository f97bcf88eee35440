"""From a run to a folder that another runtime answers from, with a report of what that costs and gains."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
import torch.nn.functional as F
from rich.table import Table
from torch import Tensor

from tubelet.data.clip_spec import ClipSpec
from tubelet.data.clips import views
from tubelet.data.table import TABLES, Item, read_table
from tubelet.data.walk import list_media
from tubelet.export.formats import FORMATS, Format, Int8
from tubelet.export.int8 import first_and_last_product
from tubelet.media.address import join
from tubelet.media.reader import MediaError
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.predict.exported import ABOUT, is_exported
from tubelet.predict.precision import has_bfloat16
from tubelet.predict.predictor import Predictor
from tubelet.system.console import console, say
from tubelet.system.extras import import_extra
from tubelet.system.timing import time_in_turns
from tubelet.tasks import Task
from tubelet.version import __version__

CLOSE = 0.05  # logits of numbers, which are in deviations of the training clips
ENOUGH = 0.995  # share of the clips that int8 must answer as float32 does
TIMING_SECONDS = 1.0
BUSY = 0.5  # programs for each processor, before we begin, from which times cannot be trusted
CALIBRATE_EVERY = 4  # of the clips of --data, for an int8 that calibrates; the others are compared

Model = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Clips:
    """Clips (1, C, T, H, W) to compare answers on, others to calibrate int8 with, and what they are, in words."""

    compared: list[Tensor]
    calibration: list[Tensor]
    what: str


def export(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    format: str = "onnx",
    int8: bool = False,
    full_range: bool = False,
    data: str | os.PathLike[str] | None = None,
    clips: int = 32,
    overwrite: bool = False,
    show: bool = True,
) -> dict[str, Any]:
    """Writes `out`, a folder with the model's file and tubelet.json, which `Predictor.load` takes like a run.

    format: a name in `FORMATS`. The file takes uint8 clips (B, C, T, H, W) of any number, of any size too where the
    format and the model allow it, normalises them and gives logits (B, classes). Answers and
    speed are compared with float32 torch on `clips` clips of `data`, a folder or a table, or, left out, on synthetic
    ones. int8 weights lie within seven bits, which is right on every processor; in the `full_range` of eight bits they
    are right only on processors with VNNI.

    Returns: what tubelet.json holds.

    Raises:
        ValueError: no run, a folder that is there already, a missing package, int8 for OpenVINO without `data`, or for
            torch.export, or `full_range` without int8.
    """
    folder, load = Path(out), os.getloadavg()[0] / (os.cpu_count() or 1) if hasattr(os, "getloadavg") else 0.0
    check(folder, format, int8=int8, full_range=full_range, data=data, clips=clips, overwrite=overwrite)
    predictor, kind = Predictor.load(run, device="cpu"), FORMATS[format]
    calibrate = int8 and kind.int8 is not None and kind.int8.calibrates
    spec = predictor.spec
    given = synthetic(spec, clips) if data is None else read(Path(data), spec, clips, calibrate=calibrate)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as place:
        made, report, free = write(predictor, Path(place), kind, int8=int8, full_range=full_range, given=given)
        report |= {"load": load}
        if predictor.distance:
            report["notes"].append('an exported model never says "none of these": it gives no features')
        about = describe(predictor, format, free=free, int8=int8, full_range=full_range)
        about |= {"run": os.path.realpath(run), "report": report}
        (made / ABOUT).write_text(json.dumps(about, indent=1))
        if folder.exists():
            shutil.rmtree(folder)
        made.rename(folder)
    if show:
        print_report(folder, report)
    return about


def check(folder: Path, form: str, *, int8: bool, full_range: bool, data: object, clips: int, overwrite: bool) -> None:
    """Raises ValueError, before anything is computed, where the work could not be finished."""
    if form not in FORMATS:
        raise ValueError(f"unknown format {form!r}: expected one of {', '.join(FORMATS)}")
    kind = FORMATS[form]
    if clips < 2:
        raise ValueError(f"got clips={clips}, expected at least 2 to compare answers on")
    if full_range and not int8:
        raise ValueError("the full range is one of int8 weights: add --int8, or leave --full-range out")
    if int8 and kind.int8 is None:
        raise ValueError(f"there is no int8 for {form}: leave --int8 out, or export to onnx or openvino")
    if int8 and kind.int8 and kind.int8.calibrates and data is None:
        name = kind.runtime.name
        raise ValueError(f"int8 for {name} is calibrated on real clips: give --data FOLDER with some like yours")
    if (folder.exists() and not folder.is_dir()) or (folder.is_dir() and any(folder.iterdir())):
        if not overwrite:
            raise ValueError(f"{folder} is there already: name a new folder, or add --overwrite")
        if not is_exported(folder):
            raise ValueError(f"{folder} is no exported model: it is not overwritten, name a new folder")
    for package in (*kind.needed, *(kind.int8.needed if int8 and kind.int8 else ())):
        import_extra(package)


def read(data: Path, spec: ClipSpec, clips: int, *, calibrate: bool) -> Clips:
    """Clips spread evenly over the media files of a folder, or over the parts of files that a table names; one that
    cannot be read is left out.

    Raises:
        ValueError: no media there, or too few can be read.
    """
    listing = list_media(data)
    items = [Item(name, "") for name in listing.files]
    faults = [f"{listing.root / folder}: you may not look into this folder" for folder in listing.closed]
    if data.is_file() and data.suffix.lower() in TABLES and (table := read_table(data, root=listing.root)).items:
        items, faults = table.items, [str(problem) for problem in table.problems]
    chosen = [items[i * len(items) // clips] for i in range(clips)] if len(items) > clips else items
    found = []
    for item in chosen:
        start, end = item.start_seconds, item.end_seconds
        try:
            found.append(views(join(listing.root, item.path), spec, start_seconds=start, end_seconds=end).contiguous())
        except MediaError as error:
            faults.append(str(error))
    if len(found) < 2:
        raise ValueError(f"{data}: {len(found)} of {len(chosen)} clips can be read, expected at least 2: {faults[:1]}")
    calibration = found[::CALIBRATE_EVERY] if calibrate else []
    compared = [clip for clip in found if not any(clip is other for other in calibration)]
    what = f"{len(compared)} clips from {data}"
    if calibration:
        what += f", {len(calibration)} others to calibrate int8"
    return Clips(compared, calibration, what + (f", {len(faults)} others could not be read" if faults else ""))


def synthetic(spec: ClipSpec, clips: int) -> Clips:
    """Clouds of colour that drift: nothing that the model was trained on."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(clips, spec.num_channels, 2, 4, 4, generator=generator)
    clouds = F.interpolate(coarse, spec.clip_size, mode="trilinear")
    pixels = clouds if spec.kind == "sound" else (128 + 80 * clouds).clamp(0, 255).to(torch.uint8)
    return Clips(list(pixels.split(1)), [], f"{clips} synthetic clips, not real ones: give --data for those")


def write(
    predictor: Predictor, place: Path, kind: Format, *, int8: bool, full_range: bool, given: Clips
) -> tuple[Path, dict[str, Any], str]:
    """Writes the model into a folder in `place`, int8 or not; returns the folder, how it compares with float32, and the
    axes, of "THW", along which clips may have any size."""
    model, task, name = predictor.model, predictor.task, kind.runtime.name
    plain, free = kind.prepare(model, place, given.compared[0])
    folder, notes = place / "float32", list[str]()
    folder.mkdir()
    kind.write(plain, folder / kind.runtime.file)
    ways: dict[str, Model] = {"torch, float32": model, f"{name}, float32": open_exported(folder, kind)}
    if has_bfloat16(torch.device("cpu"))[0]:
        ways |= {f"{name}, {dtype}": open_exported(folder, kind, dtype=dtype) for dtype in kind.dtypes}
    if int8 and kind.int8:
        folder, notes = write_int8(model, task, plain, kind, kind.int8, given, full_range=full_range)
        ways[f"{name}, int8"] = open_exported(folder, kind, int8=True)
    return folder, {"clips": given.what, "notes": notes} | compare(ways, given.compared, task), free


def write_int8(
    model: SpaceTimeTransformer, task: Task, plain: Path, kind: Format, int8: Int8, given: Clips, *, full_range: bool
) -> tuple[Path, list[str]]:
    """Writes the model in int8: all its products, or, where that keeps more answers, all but tokeniser and head."""
    reference, notes, tried = compute_logits(model, given.compared), [], []
    for part, leave in (("all products", []), ("all but tokeniser and head", first_and_last_product(plain))):
        folder = plain.with_name(part)
        folder.mkdir()
        how = {"calibration": given.calibration, "leave": leave, "full_range": full_range}
        int8.write(plain, folder / kind.runtime.file, **how)
        logits = compute_logits(open_exported(folder, kind, int8=True), given.compared)
        agreement = measure_agreement(logits, reference, task)
        tried.append((agreement, folder))
        if agreement >= ENOUGH:
            break
        notes.append(f"with {part} in int8, {100 * agreement:.1f}% of the clips are answered as in float32")
    return max(tried, key=lambda one: one[0])[1], notes


def open_exported(folder: Path, kind: Format, *, int8: bool = False, dtype: str = "float32") -> Model:
    _, run = kind.runtime.open(folder / kind.runtime.file, int8=int8, dtype=dtype)
    return lambda clip: torch.from_numpy(run(clip.numpy()))


@torch.inference_mode()
def compute_logits(way: Model, clips: Sequence[Tensor]) -> Tensor:
    return torch.cat([way(clip) for clip in clips])


def measure_agreement(logits: Tensor, reference: Tensor, task: Task) -> float:
    """The share of clips that are answered by the same words; numbers may be off by a twentieth of their deviation."""
    assert logits.shape == reference.shape
    if not task.gives_probabilities:
        return ((logits - reference).abs().amax(1) <= CLOSE).float().mean().item()
    said, right = (map(task.word, task.answer(one)) for one in (logits, reference))
    return fmean(one == other for one, other in zip(said, right, strict=True))


@torch.inference_mode()
def compare(ways: dict[str, Model], clips: Sequence[Tensor], task: Task) -> dict[str, Any]:
    """Compares each way to run the model with the first: the share of clips that are answered alike, the largest
    error of a logit, and seconds for a clip, the median of runs in turns."""
    logits = [compute_logits(way, clips) for way in ways.values()]
    took = time_in_turns({name: partial(way, clips[0]) for name, way in ways.items()}, seconds=TIMING_SECONDS)
    rows = [
        {
            "name": name,
            "agreement": measure_agreement(found, logits[0], task),
            "largest_logit_error": (found - logits[0]).abs().max().item(),
            "seconds": median(took[name]),
        }
        for name, found in zip(ways, logits, strict=True)
    ]
    return {"threads": torch.get_num_threads(), "largest_logit": logits[0].abs().max().item(), "rows": rows}


def describe(predictor: Predictor, form: str, *, free: str, int8: bool, full_range: bool) -> dict[str, Any]:
    spec, model = predictor.spec, predictor.model
    size = [None if axis in free else size for axis, size in zip("THW", spec.clip_size, strict=True)]
    return {
        "tubelet": __version__,
        "family": model.config.family,
        "classes": predictor.classes,
        "task": predictor.task.to_json(),
        "clip_spec": spec.to_json(),
        "format": form,
        "int8": int8,
        "full_range": full_range,
        "left_out": ["distance"] if predictor.distance else [],  # it takes features, the file gives logits alone
        "input": {
            "name": "clip",
            "dtype": "float32" if spec.kind == "sound" else "uint8",
            "shape": [None, spec.num_channels, *size],
        },
        "output": {"name": "logits", "dtype": "float32", "shape": [None, len(predictor.classes)]},
        "versions": {name: version(name) for name in ("torch", *FORMATS[form].needed)},
    }


def print_report(folder: Path, report: dict[str, Any]) -> None:
    table = Table("", box=None, padding=(0, 2, 0, 0))
    for title in ("ms a clip", "speed", "same answer", "largest logit error"):
        table.add_column(title, justify="right")
    first, *_ = rows = report["rows"]
    for row in rows:
        table.add_row(
            row["name"],
            f"{1000 * row['seconds']:.1f}",
            f"{first['seconds'] / row['seconds']:.2f}x",
            f"{100 * row['agreement']:.1f}%",
            f"{row['largest_logit_error']:.2g}",
        )
    console.print(table)
    say("compared", f"{report['clips']}; logits of up to {report['largest_logit']:.2g}; {report['threads']} threads")
    busy = ["other programs keep this machine busy: all this can be faster"] if report["load"] > BUSY else []
    for note in report["notes"] + busy:
        say("note", note)
    files = sorted(folder.iterdir())
    size = sum(file.stat().st_size for file in files)
    say("written", f"{folder}: {', '.join(file.name for file in files)} ({size / 1e6:.1f} MB)")
