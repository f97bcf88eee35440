"""The speed of a model on this machine, and its share of the most that the machine can do: in under a minute."""

import copy
import math
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from rich.table import Table
from torch import Tensor, nn

from tubelet.nn import SpaceTimeTransformer, Streamer, create_model
from tubelet.nn.cost import describe
from tubelet.nn.kernels import linear
from tubelet.nn.split import encodes_steps_apart
from tubelet.predict.precision import cast_encoders, choose_dtype, has_bfloat16
from tubelet.system.console import bar, clock, console
from tubelet.system.device import find_device
from tubelet.system.timing import time_in_turns
from tubelet.train.optim import make_optimizer
from tubelet.version import __version__

ROOF = 2048  # rows and columns of the matrices that say what a processor can do
ROOF_PRODUCT = "large product"
WHY = "its multiplications at the speed of the large product"
WINDOW, HOPS = 16, (1, 4)  # of streaming, in steps of the tokeniser
CLIPS = ((16, 224, 224), (16, 112, 112), (8, 64, 64))
FORWARDS = 16  # about as many forward passes is one turn of all measures
TURNS = 3  # at least
BUSY = 0.5  # programs for each processor, before we begin, from which times cannot be trusted


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A job; the least it could take, as so many times the seconds of other jobs, and why; what its time means, given
    the median seconds of all jobs."""

    what: str
    job: Callable[[], object]
    least: Mapping[str, float] = field(default_factory=dict)
    why: str = ""
    says: Callable[[Mapping[str, float]], str] = lambda seconds: ""


def bench(
    name: str,
    *,
    clip: Sequence[int] | None = None,
    batch: int = 1,
    dtype: str = "auto",
    minutes: float = 0.8,
    device: str = "auto",
    show: bool = True,
) -> dict[str, Any]:
    """Measures a model on random clips: the model, the machine, and a row for each measure with all its runs.

    Args:
        name: as for `create_model`; batch: clips.
        clip: (T, H, W), left out the largest of CLIPS that fits the time.
        dtype: "auto" is float32 and, where the device multiplies in it, bfloat16; else the one that is named.
        minutes: to be spent. Each measure runs at least TURNS times, however long that takes.

    Raises:
        ValueError: unknown model, dtype or device; a clip that does not fit the model; no clip, or no time.
    """
    if batch < 1 or not 0 < minutes < math.inf:
        raise ValueError(f"got --batch {batch} --minutes {minutes:g}, expected at least 1 clip and more than 0 minutes")
    end, where = time.perf_counter() + 60 * minutes, find_device(device)
    about = machine(where)
    dtypes = choose_dtypes(dtype, where)
    measures = [roof(wanted, where) for wanted in dtypes]
    model = create_model(name, clip=clip or choose_clip(name, measures[0].job, batch, minutes)).to(where).eval()
    measures.append(tokeniser(model, batch, dtypes))
    for wanted in dtypes:
        measures += passes(model, batch, wanted)
    measures += streaming(model)
    jobs = {measure.what: measure.job for measure in measures}
    with bar("measuring", round(60 * minutes), show=show) as progress:

        def after(what: str, seconds: float) -> None:
            left = end - time.perf_counter()
            progress.advance(f"{what:<24} left {clock(left)}", by=round(60 * minutes - left) - progress.done)

        took = time_in_turns(jobs, runs=TURNS, seconds=end - time.perf_counter(), after=after)
    t, h, w = model.input_size
    title = f"{name}, {batch} clip{'s' if batch > 1 else ''} of {t} frame{'s' if t > 1 else ''} of {h} x {w} px"
    return {"model": title, "machine": about, "measures": [make_row(measure, took) for measure in measures]}


def make_row(measure: Measure, took: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """The results of a measure as JSON: the seconds of each run, the fewest possible and the share of these that is
    reached, both None if that is not known."""
    medians = {what: median(seconds) for what, seconds in took.items()}
    least = sum(times * medians[what] for what, times in measure.least.items()) if measure.least else None
    return {
        "what": measure.what,
        "seconds": took[measure.what],
        "least_seconds": least,
        "why": measure.why,
        "says": measure.says(medians),
        "median_seconds": medians[measure.what],
        "reached": None if least is None else least / medians[measure.what],
    }


def choose_dtypes(dtype: str, device: torch.device) -> list[torch.dtype]:
    if dtype != "auto":
        return [choose_dtype(dtype, device)[0]]
    return [torch.float32, *([torch.bfloat16] if has_bfloat16(device)[0] else [])]


def with_dtype(what: str, dtype: torch.dtype) -> str:
    return f"{what}, {str(dtype).removeprefix('torch.')}"


def roof(dtype: torch.dtype, device: torch.device) -> Measure:
    """One large matrix product: what the processor can do."""
    x, weight = (torch.randn(ROOF, ROOF, device=device).to(dtype) for _ in range(2))
    what = with_dtype(ROOF_PRODUCT, dtype)
    return Measure(
        what=what,
        job=torch.inference_mode()(lambda: linear(x, weight, None)),
        says=lambda seconds: f"{2e-9 * ROOF**3 / seconds[what]:,.0f} GFLOP/s",
    )


def choose_clip(name: str, roof: Callable[[], object], batch: int, minutes: float) -> tuple[int, int, int] | None:
    """The largest of CLIPS of which TURNS turns fit the time on this machine; None for images: the model's own."""
    roof_seconds = min(time_in_turns({"": roof}, runs=2)[""])
    for clip in CLIPS:
        try:
            gmacs = describe(name, clip=clip).gmacs
        except ValueError:  # no such name, or a model for images: `create_model` knows
            return None
        if batch * gmacs * 1e9 / ROOF**3 * roof_seconds * FORWARDS * (TURNS + 1) < 60 * minutes:
            break
    return clip


def count_products(gmacs: float, dtype: torch.dtype) -> dict[str, float]:
    """The least time of so many 10^9 multiply-adds, as the number of large products that have as many."""
    return {with_dtype(ROOF_PRODUCT, dtype): gmacs * 1e9 / ROOF**3}


def clip_shape(model: SpaceTimeTransformer) -> tuple[int, int, int, int]:
    return (model.config.channels, *model.input_size)


def tokeniser(model: SpaceTimeTransformer, batch: int, dtypes: Sequence[torch.dtype]) -> Measure:
    """The tokeniser alone, uint8 clip -> tokens, in float32."""
    pixels = torch.randint(256, (batch, *clip_shape(model)), dtype=torch.uint8, device=model.mean.device)
    gmacs = next(part.gmacs for part in describe(model).parts if part.name == "embed")
    says = f"{pixels.numel() / 1e6:.1f} MB of pixels"
    return Measure(
        what="tokeniser",
        job=torch.inference_mode()(lambda: model.embed_clip(pixels)),
        least=count_products(batch * gmacs, torch.float32) if torch.float32 in dtypes else {},
        why=WHY,
        says=lambda seconds: says,
    )


def passes(model: SpaceTimeTransformer, batch: int, dtype: torch.dtype) -> list[Measure]:
    """One forward pass, and one step of training, in `dtype`; a backward pass has twice the products of a forward."""
    clips = torch.randn(batch, *clip_shape(model), device=model.mean.device)
    ready, what, gmacs = cast_encoders(model, dtype), with_dtype("forward", dtype), batch * describe(model).gmacs
    forward = Measure(
        what=what,
        job=torch.inference_mode()(lambda: ready(clips)),
        least=count_products(gmacs, dtype),
        why=WHY,
        says=lambda seconds: f"{batch / seconds[what]:.3g} clips/s, {2 * gmacs / seconds[what]:,.0f} GFLOP/s",
    )
    if dtype == torch.float16:  # would need its losses scaled; nobody trains so
        return [forward]
    learning = with_dtype("training", dtype)
    step = Measure(
        what=learning,
        job=training_step(model, clips, dtype),
        least=count_products(3 * gmacs, dtype),
        why=WHY,
        says=lambda seconds: f"{batch / seconds[learning]:.3g} clips/s",
    )
    return [forward, step]


def training_step(model: SpaceTimeTransformer, clips: Tensor, dtype: torch.dtype) -> Callable[[], None]:
    """Forward, backward, clipped gradients and AdamW on a copy of the model, as `tubelet train` does them."""
    learner = copy.deepcopy(model).train()
    optimizer = make_optimizer(learner, weight_decay=0.05, layer_decay=1.0)
    labels = torch.arange(len(clips), device=clips.device) % model.config.num_classes

    def step() -> None:
        with torch.autocast(clips.device.type, dtype, enabled=dtype != torch.float32):
            logits = learner(clips)
        F.cross_entropy(logits.float(), labels).backward()
        nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def streaming(model: SpaceTimeTransformer) -> list[Measure]:
    """One answer of a sliding window, against running the model on each window anew, if it can do better than that."""
    if not encodes_steps_apart(model):
        return []
    step, (channels, _, h, w) = model.embed.stride[0], clip_shape(model)
    frames = (WINDOW - 1) * step + model.embed.patch[0]
    window = torch.randn(channels, frames, h, w, device=model.mean.device)
    anew = f"window of {WINDOW} steps"
    work = {part.name: part.gmacs for part in describe(model, clip=(frames, h, w)).parts}
    once = (work["embed"] + work["encoders.0"]) / sum(work.values())  # the share of steps, each encoded once

    def slide(hop: int) -> Measure:
        what, streamer = f"window, hop of {hop}", Streamer(model, window=frames, hop=hop * step)
        streamer.push(window)
        return Measure(
            what=what,
            job=lambda: streamer.push(window[:, : hop * step]),
            least={anew: 1 - once * (1 - hop / WINDOW)},
            why="its share of operations",
            says=lambda seconds: f"{seconds[anew] / seconds[what]:.1f} times as fast",
        )

    return [Measure(what=anew, job=torch.inference_mode()(lambda: model(window[None]))), *map(slide, HOPS)]


def machine(device: torch.device) -> dict[str, object]:
    """The machine and the versions that times depend on. `load`: programs that want each processor."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0] / (os.cpu_count() or 1), 2) if hasattr(os, "getloadavg") else None,
        "torch": torch.__version__,
        "tubelet": __version__,
    }


def processor() -> str:
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def print_bench(found: Mapping[str, Any]) -> None:
    """A table of at most 80 columns, what its columns mean, and what its times depend on."""
    table = Table("", title=found["model"], title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    for column in ("median", "least", "reached"):
        table.add_column(column, justify="right")
    table.add_column("")
    whys: dict[str, dict[str, None]] = {}
    for row in found["measures"]:
        least = reached = ""
        if row["least_seconds"] is not None:
            least, reached = duration(row["least_seconds"]), f"{100 * row['reached']:.0f} %"
        if row["why"]:
            whys.setdefault(row["why"], {})[row["what"].split(",")[0]] = None
        table.add_row(row["what"], duration(row["median_seconds"]), least, reached, row["says"])
    console.print(table)
    console.print("least: " + "; ".join(f"{', '.join(whats)}: {why}" for why, whats in whys.items()))
    console.print("on " + ", ".join(f"{name} {value}" for name, value in found["machine"].items()))
    load = found["machine"]["load"]
    if isinstance(load, float) and load > BUSY:
        console.print("other programs keep this machine busy: all this can be faster", style="yellow")


def duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"
