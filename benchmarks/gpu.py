"""A GPU in eight minutes: right answers, speed as a share of the peak, waiting for files, memory, a whole training.

    python benchmarks/gpu.py --out gpu-report

Needs no network: clips are rendered here. Writes gpu-report/gpu.json and gpu-report/gpu.md, anew after each section. A
section is a process of its own with a limit of its own: one that fails or is stopped is reported so, with what it had
found, and the others go on. Hugging Face's VideoMAE is measured beside ours where transformers can be imported.

MFU is the share of the peak that goes into the model's own products: 2 * multiply-adds * clips / seconds / peak for a
forward pass, three times that for a training step. Multiply-adds are counted from the model (`tubelet info`), not by a
profiler; recomputed activations and compilation do not count. The peak is the published dense one of the device; for a
device that is not in PEAKS, a large product measured here.

`--device cpu --tiny` walks every path in a minute: its times say nothing.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import torch
import torch.nn.functional as F
from attentions import find_attentions
from torch import Tensor, nn

from tubelet.data.clip_spec import ClipSpec
from tubelet.data.clips import load_views
from tubelet.data.prefetch import processors
from tubelet.info import usual_patch
from tubelet.media.writer import write_video
from tubelet.nn import FAMILIES, SpaceTimeTransformer, Streamer, create_model
from tubelet.nn.compile import compile_blocks
from tubelet.nn.cost import describe
from tubelet.predict.precision import cast_encoders
from tubelet.prepare import prepare
from tubelet.runs.run import RESULTS, Run
from tubelet.synthetic import camera_motions
from tubelet.tasks.intervals import wilson_interval
from tubelet.train import TrainConfig, plan, train_fn
from tubelet.train.optim import make_optimizer
from tubelet.version import __version__

Row = dict[str, Any]
FLOAT, HALF = torch.float32, torch.bfloat16
# Published dense peaks in 10^12 operations a second: bfloat16, TF32. The first name that a device's name has counts.
PEAKS = {
    "B200": (2250.0, 1125.0),
    "H200": (989.0, 494.0),
    "GH200": (989.0, 494.0),
    "H100 PCIe": (756.0, 378.0),
    "H100 NVL": (835.0, 417.0),
    "H100": (989.0, 494.0),
    "A100": (312.0, 156.0),
    "L40S": (362.0, 183.0),
    "L4": (121.0, 60.0),
    "A10": (125.0, 62.5),
}
SLOWER = 0.4  # of the speeds of the demo's clips, in its harder form
SMI = "name,pstate,power.draw,power.limit,clocks.sm,clocks.max.sm,clocks.mem,temperature.gpu"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The device, and what is less of it with --tiny."""

    device: torch.device
    size: str = "S"
    models: tuple[str, ...] = ("vivit1-B/16x2", "vivit1-S/16x2")
    clip: tuple[int, int, int] = (16, 224, 224)
    batch: int = 32
    runs: int = 8
    product: int = 8192
    clips_per_class: int = 60
    files: int = 16  # a class
    epochs: float = 4.0
    enlarged: int = 4
    minutes: float = 3.0
    backend: str = "inductor"

    @property
    def side(self) -> tuple[int, int]:
        return self.clip[1], self.clip[2]


def tiny(device: torch.device) -> Setting:
    small: Row = {"size": "P", "models": ("vivit1-P/16x2",), "clip": (4, 32, 32), "batch": 2, "runs": 1, "product": 256}
    small |= {"clips_per_class": 5, "files": 3, "epochs": 1.0, "enlarged": 1, "minutes": 0.15, "backend": "aot_eager"}
    return Setting(device=device, **small)


# What the sections share


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def clock(job: Callable[[], object], setting: Setting) -> tuple[float, float]:
    """Seconds of the first run, and the median of the others after another one."""
    took = []
    for _ in range(setting.runs + 2):
        begun = time.perf_counter()
        job()
        wait(setting.device)
        took.append(time.perf_counter() - begun)
    return took[0], median(took[2:])


def use_tf32(on: bool) -> None:
    torch.set_float32_matmul_precision("high" if on else "highest")
    torch.backends.cudnn.allow_tf32 = on


def measure_product(dtype: torch.dtype, setting: Setting) -> float:
    """10^12 operations a second of one large product; in float32 with TF32, where there is one."""
    use_tf32(True)
    a, b = (torch.randn(setting.product, setting.product, device=setting.device).to(dtype) for _ in range(2))
    return 2e-12 * setting.product**3 / clock(lambda: a @ b, setting)[1]


def find_peak(dtype: torch.dtype, setting: Setting) -> tuple[float, str]:
    """The peak of the device in 10^12 operations a second, and whether it is the published one."""
    name = torch.cuda.get_device_name(setting.device) if setting.device.type == "cuda" else ""
    known = next((peaks for key, peaks in PEAKS.items() if key in name), None)
    if known:
        return known[dtype == FLOAT], "published"
    return measure_product(dtype, setting), "measured here: the device is not in PEAKS"


def off(answer: Tensor, wanted: Tensor) -> float:
    """How far an answer is from the wanted one, as a share of its largest logit."""
    return float((answer.detach().float().cpu() - wanted.float().cpu()).abs().max() / wanted.float().abs().max().cpu())


def random_clips(setting: Setting, clip: tuple[int, int, int], batch: int) -> Tensor:
    shape = (batch, 3, *clip)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(setting.device)


def training_step(
    model: nn.Module, logits: Callable[[], Tensor], labels: Tensor, dtype: torch.dtype
) -> Callable[[], None]:
    """Forward, backward, clipped gradients and fused AdamW."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    if isinstance(model, SpaceTimeTransformer):
        optimizer = make_optimizer(model, weight_decay=0.05, layer_decay=1.0)

    def step() -> None:
        with torch.autocast(labels.device.type, HALF, enabled=dtype == HALF):
            loss = F.cross_entropy(logits().float(), labels)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def create_small(family: str, setting: Setting) -> tuple[SpaceTimeTransformer, Tensor]:
    """A model of a family, all of its weights random, on the processor, and two clips for it."""
    patch, line = usual_patch(family), FAMILIES[family]
    side = 64 if family == "swin2" else 7 * int(patch.split("x")[0])
    clip = (1 if line.image else 8, side, side)
    size = setting.size if setting.size in line.sizes else "N"  # vivit4 needs an even number of heads
    torch.manual_seed(0)
    model = create_model(f"{family}-{size}/{patch}", clip=clip, num_classes=32).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # also what starts at zero
            parameter.add_(0.02 * torch.randn(parameter.shape))
    return model, random_clips(setting, clip, 2)


def render(folder: Path, setting: Setting) -> Path:
    """The demo's clips, enlarged: FOLDER/<class>/<number>.mp4, H.264."""
    for label, name in enumerate(camera_motions.CLASSES):
        (folder / name).mkdir(parents=True)
        for number in range(setting.files):
            frames = camera_motions.render_clip(name, np.random.default_rng([label, number]))
            large = frames.repeat(setting.enlarged, 1).repeat(setting.enlarged, 2)
            write_video(folder / name / f"{number}.mp4", large, frames_per_second=camera_motions.FRAMES_PER_SECOND)
    return folder


# The sections: each yields rows


def machine(setting: Setting, folder: Path) -> Iterator[Row]:
    """The device, its state as nvidia-smi tells, and a large product of it."""
    device = setting.device
    cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if cuda else platform.processor() or platform.machine()
    yield {"what": "device", "is": name}
    yield {"what": "processors", "is": processors()}
    yield {"what": "torch", "is": f"{torch.__version__}, CUDA {torch.version.cuda}"}
    yield {"what": "tubelet", "is": __version__}
    state = "nvidia-smi is not here"
    if shutil.which("nvidia-smi"):
        asked = ["nvidia-smi", f"--query-gpu={SMI}", "--format=csv,noheader"]
        state = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=False).stdout.strip()
    yield {"what": SMI, "is": state}
    for dtype, words in ((HALF, "bfloat16"), (FLOAT, "float32, TF32 where the device has it")):
        peak, source = find_peak(dtype, setting)
        product = measure_product(dtype, setting)
        yield {"what": f"peak, {words}", "is": f"{peak:.4g} TFLOP/s, {source}"}
        yield {"what": f"product of {setting.product}, {words}", "is": f"{product:.4g} TFLOP/s"}


def answers(setting: Setting, folder: Path) -> Iterator[Row]:
    """Every family on the device against the same weights and clip on the processor, in float32."""
    for family in FAMILIES:
        model, clips = create_small(family, setting)
        row: Row = {"family": family, "clip": " x ".join(map(str, model.input_size))}
        with torch.no_grad():
            wanted = model(clips.cpu())
            model.to(setting.device)
            for words, dtype in (("float32", FLOAT), ("float32, TF32", FLOAT), ("bfloat16", HALF)):
                use_tf32(words.endswith("TF32"))
                row[words] = off(cast_encoders(model, dtype)(clips), wanted)
        yield row


def attention(setting: Setting, folder: Path) -> Iterator[Row]:
    """The kernel that serves each attention a family asks torch for; none at all where scores are capped."""
    for family in FAMILIES:
        model, clips = create_small(family, setting)
        model.to(setting.device)
        for dtype in (FLOAT, HALF):
            for learns in (False, True):
                model.train(learns)

                def forward(dtype: torch.dtype = dtype, model: nn.Module = model, clips: Tensor = clips) -> Tensor:
                    with torch.autocast(setting.device.type, HALF, enabled=dtype == HALF):
                        return model(clips)

                found = find_attentions(forward, learns=learns)
                kernels = sorted({f"{one.kernel}{f', mask {one.mask}' if one.mask else ''}" for one in found})
                yield {
                    "family": family,
                    "dtype": str(dtype).removeprefix("torch."),
                    "pass": "training" if learns else "answer",
                    "kernels": "; ".join(kernels) or "plain products",
                    "width of a head": ", ".join(map(str, sorted({one.head_dim for one in found}))),
                    "falls to math": any(one.kernel == "math" for one in found),
                    "why not flash": "; ".join(sorted({one.why_not_flash for one in found} - {""})),
                }


def speed(setting: Setting, folder: Path) -> Iterator[Row]:
    """Forward pass and training step, eager and, in bfloat16, with compiled blocks. MFU: see the top of the page."""
    for name in setting.models:
        gmacs = describe(name, clip=setting.clip).gmacs
        for dtype, words in ((HALF, "bfloat16"), (FLOAT, "TF32")):
            use_tf32(True)
            peak, _ = find_peak(dtype, setting)
            for compiled in (False, True) if dtype == HALF else (False,):
                yield from passes(setting, name, dtype, compiled, {"dtype": words}, gmacs, peak)


def passes(
    setting: Setting, name: str, dtype: torch.dtype, compiled: bool, words: Row, gmacs: float, peak: float
) -> Iterator[Row]:
    """The two rows of a model, of the largest batch that fits."""
    told: list[str] = []
    batch = setting.batch
    while True:
        try:
            torch.manual_seed(0)
            model = create_model(name, clip=setting.clip).to(setting.device).eval()
            clips = random_clips(setting, setting.clip, batch)
            labels = torch.arange(batch, device=setting.device) % 400
            ready = cast_encoders(model, dtype) if dtype == HALF else model
            with torch.inference_mode():
                plain = ready(clips)
                if compiled:
                    compile_blocks(ready, backend=setting.backend, tell=told.append)
                first, seconds = clock(lambda: ready(clips), setting)  # noqa: B023  # runs now
                apart = off(ready(clips), plain)
            rows = [("forward", 1, first, seconds)]
            if compiled:
                compile_blocks(model, backend=setting.backend, tell=told.append)
            step = training_step(model, lambda: model(clips), labels, dtype)  # noqa: B023  # runs now
            first, seconds = clock(step, setting)
            rows.append(("training", 3, first, seconds))
            break
        except torch.OutOfMemoryError:
            if batch == 1:
                raise
            batch //= 2
            torch.cuda.empty_cache()
    for what, times, first, seconds in rows:
        tflops = 2e-3 * gmacs * batch * times / seconds
        yield {
            "model": name,
            **words,
            "pass": what,
            "blocks": ("compiled" if not told else told[0]) if compiled else "eager",
            "batch": batch,
            "ms": 1000 * seconds,
            "clips/s": batch / seconds,
            "TFLOP/s": tflops,
            "MFU": tflops / peak,
            "first run, s": first,
            "off eager by": apart if compiled else 0.0,
        }


def optimizer(setting: Setting, folder: Path) -> Iterator[Row]:
    """One step of AdamW on the weights of a model, fused and not."""
    model = create_model(setting.models[0], clip=setting.clip).to(setting.device)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    for words, more in (("fused, as `tubelet train`", {"fused": True}), ("foreach", {"foreach": True})):
        adamw = torch.optim.AdamW(model.parameters(), lr=1e-6, **more)  # type: ignore[arg-type]  # flags
        yield {"AdamW": words, "model": setting.models[0], "ms": 1000 * clock(adamw.step, setting)[1]}


def peer(setting: Setting, folder: Path) -> Iterator[Row]:
    """A training step of Hugging Face's VideoMAE, in a plain loop, beside ours: same shapes, batch and precision."""
    try:
        import transformers as tf
    except ImportError:
        yield {"model": "", "note": "transformers is not here: not measured"}
        return
    for name in setting.models:
        size = FAMILIES["videomae"].sizes[name.split("-")[1].split("/")[0]]
        numbers = {"hidden_size": size[0], "num_hidden_layers": size[1], "num_attention_heads": size[2]}
        numbers |= {"intermediate_size": 4 * size[0], "num_labels": 400}
        config = tf.VideoMAEConfig(**numbers, image_size=setting.clip[1], num_frames=setting.clip[0])
        batch = max(1, setting.batch // 2)
        clips, labels = random_clips(setting, setting.clip, batch), torch.arange(batch, device=setting.device) % 400
        for compiled in (False, True):
            theirs = tf.VideoMAEForVideoClassification(config).to(setting.device)
            ours = create_model(f"videomae-{name.split('-')[1]}", clip=setting.clip).to(setting.device)
            if compiled:
                compile_blocks(ours, backend=setting.backend)
            frames = clips.transpose(1, 2)
            step = training_step(theirs, lambda: theirs(pixel_values=frames).logits, labels, HALF)  # noqa: B023
            own = training_step(ours, lambda: ours(clips), labels, HALF)  # noqa: B023
            their_seconds, seconds = clock(step, setting)[1], clock(own, setting)[1]
            yield {
                "model": f"videomae-{name.split('-')[1]}",
                "note": f"bfloat16, batch of {batch}, ours {'compiled' if compiled else 'eager'}, theirs eager",
                "theirs, ms": 1000 * their_seconds,
                "ours, ms": 1000 * seconds,
                "theirs / ours": their_seconds / seconds,
            }


def data(setting: Setting, folder: Path) -> Iterator[Row]:
    """A short `tubelet train` that reads each clip from its H.264 file, as it is and prepared: how long it waits."""
    plan.KEEP_SHARE = 0.0  # nothing is kept in memory
    files = render(folder / "clips", setting)
    prepare(files, folder / "small", show=False)
    for words, root in (("files as they are", files), ("prepared", folder / "small")):
        run = train_fn(short_training(setting, root, folder / f"run-{root.name}"), show=False)
        steps = [record for record in Run(run).metrics() if record["kind"] == "train"]
        seconds = sum(one["seconds"] for one in steps)
        yield {
            "files": words,
            "threads": processors(),
            "waited": sum(one["seconds"] * one["data_wait"] for one in steps) / seconds,
            "clips/s": sum(one["seconds"] * one["clips_per_second"] for one in steps) / seconds,
        }


def short_training(setting: Setting, root: Path, out: Path) -> TrainConfig:
    return TrainConfig(
        data=root,
        out=out,
        model=setting.models[-1],
        init="none",
        frames=setting.clip[0],
        size=setting.side,
        batch=setting.batch,
        epochs=setting.epochs,
        views="1x1",
        workers=processors(),
        device=str(setting.device),
    )


def decode(setting: Setting, folder: Path) -> Iterator[Row]:
    """Clips read from H.264 files, one thread and all."""
    files = sorted(render(folder / "clips", setting).rglob("*.mp4"))
    frames, *side = setting.clip
    size = (side[0], side[1])
    spec = ClipSpec(
        frames=frames, seconds_between_frames=0.08, resize=size, crop=size, mean=(0.5,) * 3, std=(0.25,) * 3
    )
    for threads in (1, processors()):
        with ThreadPoolExecutor(threads) as pool:
            begun = time.perf_counter()
            list(pool.map(lambda file: load_views(file, spec), files))
            seconds = time.perf_counter() - begun
        height, width = (setting.enlarged * px for px in (camera_motions.HEIGHT_PX, camera_motions.WIDTH_PX))
        yield {"files": f"{len(files)} of {height} x {width} px", "threads": threads, "clips/s": len(files) / seconds}


def streaming(setting: Setting, folder: Path) -> Iterator[Row]:
    """Frames a second of a stream, an answer every second frame for a window of two clips."""
    frames, *side = setting.clip
    name = f"vivit2-{setting.size}/16x2"
    model = create_model(name, clip=setting.clip).to(setting.device).eval()
    pushed = random_clips(setting, (4 * frames, side[0], side[1]), 1)[0]
    use_tf32(True)
    for words, dtype in (("TF32", FLOAT), ("bfloat16", HALF)):
        streamer = Streamer(cast_encoders(model, dtype), window=2 * frames, hop=2)
        streamer.push(pushed)
        seconds = clock(lambda: streamer.push(pushed), setting)[1]  # noqa: B023  # runs now
        yield {"model": name, "dtype": words, "window": 2 * frames, "frames/s": pushed.shape[1] / seconds}


def memory(setting: Setting, folder: Path) -> Iterator[Row]:
    """The peak of a training step in float32 against what `tubelet info` counts: activations, weights, gradients and
    two moments. On a processor: what the process grew by at most."""
    name, batch = setting.models[-1], setting.batch
    info = describe(name, clip=setting.clip)
    counted = batch * info.activation_bytes + 16 * info.parameters
    before = read_peak_bytes(setting.device)
    model = create_model(name, clip=setting.clip).to(setting.device)
    clips, labels = random_clips(setting, setting.clip, batch), torch.arange(batch, device=setting.device) % 400
    step = training_step(model, lambda: model(clips), labels, FLOAT)
    for _ in range(2):
        step()
    wait(setting.device)
    peak = read_peak_bytes(setting.device) - before
    yield {"model": name, "batch": batch, "counted, MB": counted / 1e6, "peak, MB": peak / 1e6, "ratio": peak / counted}


def read_peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def training(setting: Setting, folder: Path) -> Iterator[Row]:
    """`tubelet train` on the demo's clips in a harder form: all moves and turns at two fifths of their speed."""
    camera_motions.SPEEDS = {name: (SLOWER * low, SLOWER * high) for name, (low, high) in camera_motions.SPEEDS.items()}
    camera_motions.render_demo(folder / "clips", clips_per_class=setting.clips_per_class)
    begun = time.perf_counter()
    run = train_fn(
        TrainConfig(data=folder / "clips", out=folder / "run", minutes=setting.minutes, device=str(setting.device)),
        show=False,
    )
    found = json.loads((run / RESULTS).read_text())
    right = round(found["accuracy"] * found["clips"])
    low, high = wilson_interval(right, found["clips"])
    yield {
        "model": Run(run).config["model_name"],
        "minutes": (time.perf_counter() - begun) / 60,
        "right": right,
        "of": found["clips"],
        "accuracy": found["accuracy"],
        "from": low,
        "to": high,
    }


SECTIONS: Mapping[str, tuple[Callable[[Setting, Path], Iterator[Row]], float]] = {  # seconds at most
    "machine": (machine, 20),
    "answers": (answers, 60),
    "attention": (attention, 30),
    "speed": (speed, 110),
    "optimizer": (optimizer, 10),
    "peer": (peer, 40),
    "decode": (decode, 15),
    "streaming": (streaming, 15),
    "memory": (memory, 15),
    "data": (data, 50),
    "training": (training, 230),
}


# Running and writing


def run_section(name: str, setting: Setting, seconds: float, folder: Path) -> Row:
    """A section in a process of its own; its rows as far as it came, and how it ended."""
    work, _ = SECTIONS[name]
    file = folder / f"{name}.jsonl"
    file.touch()
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setsid()
            (folder / name).mkdir()
            for row in work(setting, folder / name):
                with file.open("a") as lines:
                    print(json.dumps(row, allow_nan=False), file=lines)
            code = 0
        except BaseException:
            (folder / f"{name}.error").write_text(traceback.format_exc())
        finally:
            os._exit(code)
    state = wait_for(child, begun + seconds)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what it started, too
    error = folder / f"{name}.error"
    words = error.read_text().strip().splitlines()[-1] if error.exists() else ""
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    about = " ".join((work.__doc__ or "").split())
    return {"state": state, "about": about, "seconds": time.monotonic() - begun, "error": words, "rows": rows}


def wait_for(child: int, end: float) -> str:
    """How a process ends: "done", "failed", or "stopped at its limit"."""
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return "done" if status == 0 else "failed"
        time.sleep(0.05)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "stopped at its limit"


def write_page(found: Row) -> str:
    """The results in Markdown."""
    mfu = (__doc__ or "").split("\n\n")[3].strip()
    lines = [f"# Measured on {found['device']}", "", mfu, ""]
    if found["tiny"]:
        lines += ["**Tiny sizes, to walk every path: no figure here says anything about speed.**", ""]
    for name, section in found["sections"].items():
        lines += [f"## {name}", "", f"{section['about']} {section['seconds']:.0f} s, {section['state']}.", ""]
        if section["error"]:
            lines += [f"`{section['error']}`", ""]
        lines += table(section["rows"])
    return "\n".join(lines) + "\n"


def table(rows: list[Row]) -> list[str]:
    if not rows:
        return []
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    return [*lines, *(f"| {' | '.join(cell(row.get(name, '')) for name in columns)} |" for row in rows), ""]


def cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "/")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for gpu.json and gpu.md")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="sizes at which every path takes seconds, on a processor")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, help="these sections")
    parser.add_argument("--minutes", type=float, default=7.8, help="for all sections together")
    arguments = parser.parse_args()
    end = time.monotonic() + 60 * arguments.minutes
    device = torch.device(arguments.device)
    setting = tiny(device) if arguments.tiny else Setting(device=device)
    arguments.out.mkdir(parents=True, exist_ok=True)
    found: Row = {"device": arguments.device, "tiny": arguments.tiny, "sections": {}}
    work = arguments.out / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    for name in arguments.only or SECTIONS:
        seconds = min(SECTIONS[name][1], end - time.monotonic())
        left = max(0.1, seconds / 60 - 0.7)  # for the training; rendering its clips takes the rest
        section = run_section(name, replace(setting, minutes=min(setting.minutes, left)), seconds, work)
        found["sections"][name] = section
        print(f"{name}: {section['state']}, {section['seconds']:.0f} s {section['error']}", flush=True)
        (arguments.out / "gpu.json").write_text(json.dumps(found, indent=1, allow_nan=False))
        (arguments.out / "gpu.md").write_text(write_page(found))
    shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
