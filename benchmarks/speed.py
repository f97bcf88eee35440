"""How fast are we? Against torch's own convolution, other libraries' models, and what our kernels take alone.

    python -m venv ../peers
    ../peers/bin/pip install -c constraints.txt '.[export]' transformers vit-pytorch
    python benchmarks/speed.py --peers ../peers/bin/python > table.md

All of it runs in one process of the peers' interpreter, ours read from this repository: the same torch, the same
threads, and the two sides of a measure take turns. Answers are compared before anything is timed. `--only` names
measures; without --peers those that need no other library run here. On a machine that others use at the same time,
--cpu-time takes one thread and counts the time that the processor really gave it. performance.md beside this file has
the outcome.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from statistics import geometric_mean, median
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from kernels import count_kernels
from torch import Tensor, nn

import tubelet
from tubelet.bench import machine, training_step
from tubelet.data.clip_spec import ClipSpec
from tubelet.export.writer import export
from tubelet.media.writer import write_video
from tubelet.nn import TubeletEmbed
from tubelet.nn.cost import describe
from tubelet.nn.kernels import linear
from tubelet.predict.exported import Exported
from tubelet.predict.precision import cast_encoders
from tubelet.system import timing
from tubelet.system.timing import time_in_turns

FLOAT, HALF = torch.float32, torch.bfloat16
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
AGREE = 1e-4  # of the largest logit: how far ours may be from the same model elsewhere
EMBEDS = [
    (192, (16, 112, 112)),
    (384, (16, 224, 224)),
    (768, (8, 224, 224)),
    (384, (16, 224, 16)),
    (384, (16, 16, 224)),
    (768, (32, 224, 224)),
]
HOUR_FRAMES, PUSH_FRAMES = 30 * 3600, 64


@dataclass(frozen=True, kw_only=True)
class Result:
    """A measure: seconds of each run of the two sides, the ratio that counts, and the best ratio that is possible."""

    what: str
    against: str
    ratio: float
    goal: float | None = None
    at_most: bool = False  # the goal is
    possible: float | None = None
    note: str = ""
    ours: list[float] | None = None
    theirs: list[float] | None = None

    @property
    def met(self) -> bool | None:
        if self.goal is None:
            return None
        return self.ratio <= self.goal if self.at_most else self.ratio >= self.goal


def compare(what: str, against: str, ours: list[float], theirs: list[float], **rest: Any) -> Result:
    return Result(what=what, against=against, ratio=median(theirs) / median(ours), ours=ours, theirs=theirs, **rest)


def off(answer: Tensor, wanted: Tensor) -> float:
    """How far an answer is from the wanted one, as a share of the largest logit."""
    return float((answer.detach().float() - wanted.float()).abs().max() / wanted.detach().float().abs().max())


def alone(forward: Callable[[], object]) -> tuple[dict[str, Callable[[], object]], Callable[[dict], float]]:
    """The kernels of a forward pass as jobs, and what makes their sum of the times."""
    counts = {f"kernel {i}": pair for i, pair in enumerate(count_kernels(forward).items())}
    jobs = {name: kernel.job() for name, (kernel, _) in counts.items()}
    return jobs, lambda took: sum(count * median(took[name]) for name, (_, count) in counts.items())


# The tokeniser


def tokeniser(runs: int, size: str) -> Iterator[Result]:
    """One matrix product against Conv3d, over EMBEDS in three layouts."""
    for dtype, learns in product((FLOAT, HALF), (False, True)):
        ratios, limits = {}, []
        for (dim, clip), layout in product(EMBEDS, ("channels first", "channels last", "every second frame")):
            case = f"{dim} wide, {' x '.join(map(str, clip))}, {layout}"
            ratios[case], possible = embed_ratio(3 * runs, dim, clip, layout, dtype, learns)
            limits.append(possible)
        worst = min(ratios, key=ratios.__getitem__)
        what = f"tokeniser, {dtype_name(dtype)}, {'forward and backward' if learns else 'forward'}"
        yield Result(what=f"{what}: worst", against="Conv3d", ratio=ratios[worst], goal=0.95, note=worst)
        goal, possible = (1.0 if dtype == FLOAT else 2.0), None if learns else geometric_mean(limits)
        mean = geometric_mean(ratios.values())
        yield Result(what=f"{what}: mean", against="Conv3d", ratio=mean, goal=goal, possible=possible)


def embed_ratio(
    runs: int, dim: int, size: tuple[int, ...], layout: str, dtype: torch.dtype, learns: bool
) -> tuple[float, float]:
    """Conv3d's time over ours, and over that of the product alone."""
    embed = TubeletEmbed(3, dim, (2, 16, 16)).to(dtype)
    t, h, w = size
    clip = torch.randn(1, 3, 2 * t, h, w).to(dtype)[:, :, ::2]
    if layout != "every second frame":
        clip = clip.contiguous()
    if layout == "channels last":
        clip = clip.permute(0, 2, 3, 4, 1).contiguous().permute(0, 4, 1, 2, 3)
    pixels, weight = torch.randn(1, t // 2 * (h // 16) * (w // 16), 1536).to(dtype), embed.proj.weight.flatten(1)
    gradient = torch.randn(1, pixels.shape[1], dim).to(dtype)

    def conv() -> Tensor:
        return embed.proj(clip).flatten(2).transpose(1, 2)

    def with_backward(forward: Callable[[], Tensor]) -> None:
        embed.zero_grad()
        forward().backward(gradient)

    jobs = {"ours": lambda: embed(clip)[0], "conv": conv, "product": lambda: linear(pixels, weight, embed.proj.bias)}
    wanted = embed.double()(clip.double())[0]
    embed.to(dtype)
    assert all(off(jobs[name](), wanted) < (1e-5 if dtype == FLOAT else 2e-2) for name in ("ours", "conv"))
    if learns:
        took = time_in_turns({name: partial(with_backward, jobs[name]) for name in ("ours", "conv")}, runs=runs)
        return median(took["conv"]) / median(took["ours"]), math.nan
    with torch.inference_mode():
        took = time_in_turns(jobs, runs=runs)
    return median(took["conv"]) / median(took["ours"]), median(took["conv"]) / median(took["product"])


@torch.inference_mode()
def pixels(runs: int, size: str) -> Iterator[Result]:
    """uint8 frames as a decoder gives them, (B, T, H, W, C)."""
    for dtype, dim in product((FLOAT, HALF), (192, 384, 768)):
        embed = TubeletEmbed(3, dim, (2, 16, 16)).to(dtype)
        frames = torch.randint(256, (1, 16, 224, 224, 3), dtype=torch.uint8)

        def classical(embed: TubeletEmbed = embed, frames: Tensor = frames, dtype: torch.dtype = dtype) -> Tensor:
            clip = ((frames.float() / 255 - MEAN) / STD).permute(0, 4, 1, 2, 3).contiguous()
            return embed.proj(clip.to(dtype)).flatten(2).transpose(1, 2)

        def ours(embed: TubeletEmbed = embed, frames: Tensor = frames) -> Tensor:
            return embed.embed_bytes(frames.permute(0, 4, 1, 2, 3), MEAN, STD)[0]

        assert off(ours(), classical()) < (1e-5 if dtype == FLOAT else 2e-2)
        kernels, total = alone(ours)
        took = time_in_turns({"ours": ours, "theirs": classical, **kernels}, runs=3 * runs)
        yield compare(
            f"bytes to tokens, {dtype_name(dtype)}, {dim} wide",
            "cast, normalise, permute, Conv3d",
            took["ours"],
            took["theirs"],
            goal=3.0,
            possible=median(took["theirs"]) / total(took),
        )


# Whole models


@torch.inference_mode()
def family(name: str, runs: int, size: str) -> Iterator[Result]:
    """A peer's model and ours, in float32 and bfloat16, one clip."""
    from speed_peers import PAIRS

    pair = PAIRS[name](size)
    clip = torch.randn(1, 3, pair.frames, 224, 224)
    wanted, label = pair.run_peer(pair.peer, clip), f"{pair.name}, {size}, {pair.frames} frames"
    if pair.same:
        assert off(pair.ours(clip), wanted) < AGREE, f"{label}: ours answers otherwise"
    same = "same weights" if pair.same else "same shapes, answers not comparable"
    half, peer = cast_encoders(pair.ours, HALF), pair.peer
    jobs = {"ours": lambda: pair.ours(clip), "theirs": lambda: pair.run_peer(peer, clip), "half": lambda: half(clip)}
    kernels, total = alone(jobs["ours"])
    half_kernels, half_total = alone(jobs["half"])
    half_jobs = {f"half {key}": job for key, job in half_kernels.items()}
    took = time_in_turns(jobs | kernels | half_jobs, runs=runs)
    theirs = took["theirs"]
    goal, floor = (1.35 if name == "vivit" else 1.1), total(took)
    half_floor = half_total({key.removeprefix("half "): value for key, value in took.items() if key in half_jobs})
    yield compare(label, "float32", took["ours"], theirs, goal=goal, possible=median(theirs) / floor, note=same)
    distance = f"ours off by {off(half(clip), wanted):.1e}" if pair.same else ""
    yield compare(
        f"{label}, ours in bfloat16",
        "float32",
        took["half"],
        theirs,
        goal=1.8,
        possible=median(theirs) / half_floor,
        note=distance,
    )
    for what, forward, seconds in (("float32", "ours", floor), ("bfloat16", "half", half_floor)):
        share = seconds / median(took[forward])
        yield Result(what=f"{label}, {what}", against="our kernels alone", ratio=share, goal=0.85, possible=1.0)
    peer, low = peer.to(HALF), clip.to(HALF)
    took = time_in_turns({"half": jobs["half"], "theirs": lambda: pair.run_peer(peer, low)}, runs=runs)
    distance = f"theirs off by {off(pair.run_peer(peer, low), wanted):.1e}" if pair.same else ""
    yield compare(f"{label}, ours in bfloat16", "bfloat16", took["half"], took["theirs"], note=distance)


@torch.inference_mode()
def exported(runs: int, size: str) -> Iterator[Result]:
    """The same pair as "encoder"; ours from OpenVINO, which takes bytes and normalises them itself."""
    from speed_peers import PAIRS

    pair = PAIRS["encoder"](size)
    shape = (pair.frames, 224, 224)
    spec = ClipSpec(
        frames=shape[0], seconds_between_frames=0.04, resize=shape[1:], crop=shape[1:], mean=(0.5,) * 3, std=(0.25,) * 3
    )
    about = {"clip_spec": spec.to_json(), "classes": [str(i) for i in range(pair.ours.config.num_classes)]}
    frames = torch.randint(256, (1, 3, *shape), dtype=torch.uint8)
    clip = pair.ours.normalise(frames)
    with TemporaryDirectory() as folder, torch.inference_mode(False), redirect_stdout(sys.stderr):
        tubelet.save(pair.ours, f"{folder}/run", about=about)
        Path(f"{folder}/clips").mkdir()
        for number in range(8):  # int8 is calibrated on files
            pixels = torch.randint(256, (shape[0], 14, 14, 3), dtype=torch.uint8).numpy().repeat(16, 1).repeat(16, 2)
            write_video(f"{folder}/clips/{number}.mp4", pixels, frames_per_second=25)
        for int8 in (False, True):
            data = f"{folder}/clips" if int8 else None
            export(f"{folder}/run", f"{folder}/{int8}", format="openvino", int8=int8, data=data, clips=8)
        half, low = Exported(f"{folder}/False", dtype="bfloat16"), Exported(f"{folder}/True")
    jobs = {"theirs": lambda: pair.run_peer(pair.peer, clip), "half": lambda: half(frames), "int8": lambda: low(frames)}
    took = time_in_turns(jobs, runs=runs)
    wanted = pair.ours(frames)
    for name, words, answers, goal in (("half", "bfloat16", half, 2.4), ("int8", "int8", low, 3.0)):
        what, note = f"{pair.name}, {size}, ours by OpenVINO in {words}", f"off by {off(answers(frames), wanted):.1e}"
        yield compare(what, "float32", took[name], took["theirs"], goal=goal, note=note)


@torch.inference_mode()
def factorised(runs: int, size: str) -> Iterator[Result]:
    """Time over the joint model's, against operations over the joint model's; 32 frames."""
    clip, names = torch.randn(1, 3, 32, 224, 224), [f"vivit{i}-{size}/16x2" for i in (1, 2, 3, 4)]
    models = {name: tubelet.create_model(name, clip=(32, 224, 224)).eval() for name in names}
    work = {name: describe(name, clip=(32, 224, 224)).gmacs for name in names}
    took = time_in_turns({name: partial(model, clip) for name, model in models.items()}, runs=runs)
    joint, *others = names
    for name in others:
        share, seconds = work[name] / work[joint], median(took[name]) / median(took[joint])
        note = f"{seconds:.3f} of the time, {share:.3f} of the operations of {joint}"
        kept = {"ours": took[name], "theirs": took[joint], "possible": 1.0, "note": note}
        against = "its share of operations"
        yield Result(what=f"{name}, 32 frames", against=against, ratio=seconds / share, goal=1.05, at_most=True, **kept)


def streaming(runs: int, size: str) -> Iterator[Result]:
    """One answer at each hop of a window of 16 steps, against running the model on every window."""
    from tubelet.bench import HOPS, make_row
    from tubelet.bench import streaming as measures_of

    model = tubelet.create_model(f"vivit2-{size}/16x2", clip=(32, 224, 224)).eval()
    measures = measures_of(model)
    took = time_in_turns({measure.what: measure.job for measure in measures}, runs=runs)
    anew, *hops = (make_row(measure, took) for measure in measures)
    for hop, row, goal in zip(HOPS, hops, (13.0, 3.6), strict=True):
        yield compare(
            f"vivit2-{size}/16x2, 16 steps, hop of {hop}",
            "every window anew",
            row["seconds"],
            anew["seconds"],
            goal=goal,
            possible=anew["median_seconds"] / row["least_seconds"],
            note=f"answers off by {streamed_off(model, hop):.1e}",
        )


@torch.inference_mode()
def streamed_off(model: Any, hop: int) -> float:
    frames = torch.randn(3, 32 + 2 * 3 * hop, 224, 224)
    answers = tubelet.Streamer(model, window=32, hop=2 * hop).push(frames)
    return max(off(logits, model(frames[None, :, first : first + 32])[0]) for first, logits in answers)


def memory(runs: int, size: str) -> Iterator[Result]:
    """Resident memory while an hour of video streams by, from its sixth minute on."""
    model = tubelet.create_model("vivit2-Ti/16x2", clip=(32, 32, 32)).eval()
    streamer, frames = tubelet.Streamer(model, window=32, hop=32), torch.randn(3, PUSH_FRAMES, 32, 32)
    before = 0.0
    for pushed in range(0, HOUR_FRAMES, PUSH_FRAMES):
        streamer.push(frames)
        before = before or (resident_megabytes() if pushed > HOUR_FRAMES / 10 else 0.0)
    grown = resident_megabytes() - before
    what = "an hour of video streamed: MB grown"
    yield Result(what=what, against="", ratio=grown, goal=5.0, at_most=True, possible=0.0)


def resident_megabytes() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def training(name: str, runs: int, size: str) -> Iterator[Result]:
    """A full step (forward, backward, clipped gradients, AdamW) of Ti/16 on 2 clips of 8 frames."""
    from speed_peers import PAIRS

    pair = PAIRS[name]("Ti", frames=8)
    clips, labels = torch.randn(2, 3, 8, 224, 224), torch.tensor([0, 1])
    kernels, total = alone(torch.inference_mode()(lambda: pair.ours(clips)))
    jobs = {"ours": training_step(pair.ours, clips, FLOAT), "half": training_step(pair.ours, clips, HALF)}
    jobs |= {"theirs": peer_step(pair.peer, clips, labels, FLOAT), "low": peer_step(pair.peer, clips, labels, HALF)}
    took = time_in_turns(jobs | kernels, runs=runs)
    what, theirs, note = f"{pair.name}, Ti, 8 frames, training step", took["theirs"], "a plain loop, as Trainer does it"
    limit = median(theirs) / (3 * total(took))
    yield compare(what, "float32", took["ours"], theirs, goal=1.3, possible=limit, note=note)
    yield compare(f"{what}, ours in bfloat16", "float32", took["half"], theirs, goal=1.8, note=note)
    yield compare(f"{what}, ours in bfloat16", "bfloat16", took["half"], took["low"], note=note)


def peer_step(model: nn.Module, clips: Tensor, labels: Tensor, dtype: torch.dtype) -> Callable[[], None]:
    """What Hugging Face's Trainer does with its defaults; Trainer itself needs accelerate, which adds to it."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, fused=True)
    batch = clips.transpose(1, 2)

    def step() -> None:
        model.train()
        with torch.autocast("cpu", dtype, enabled=dtype != FLOAT):
            loss = model(pixel_values=batch, labels=labels).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


# The table

FAMILIES = ("vivit", "timesformer", "videomae", "encoder", "attention")
MEASURES: dict[str, Callable[[int, str], Iterator[Result]]] = {
    "tokeniser": tokeniser,
    "bytes": pixels,
    **{name: partial(family, name) for name in FAMILIES},
    "exported": exported,
    "factorised": factorised,
    "streaming": streaming,
    "memory": memory,
    "training-timesformer": partial(training, "timesformer"),
    "training-videomae": partial(training, "videomae"),
}
WITH_PEERS = {*FAMILIES, "exported", "training-timesformer", "training-videomae"}


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def line(result: Result) -> str:
    def seconds(runs: list[float] | None) -> str:
        return "" if runs is None else f"{1000 * median(runs):.4g} ({1000 * min(runs):.4g})"

    sign = "≤" if result.at_most else "≥"
    goal = "" if result.goal is None else f"{sign} {result.goal:g} {'✓' if result.met else '✗'}"
    possible = "" if result.possible is None else f"{result.possible:.3g}"
    ratio = f"{result.ratio:.3g}"
    cells = [result.what, result.against, seconds(result.ours), seconds(result.theirs), ratio, goal, possible]
    return "| " + " | ".join([*cells, result.note]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", metavar="PYTHON", help="interpreter of the environment with the other libraries")
    parser.add_argument("--only", nargs="+", choices=MEASURES, help="these measures only")
    parser.add_argument("--runs", type=int, default=9, help="of each side, in turns")
    parser.add_argument("--size", default="S", help="of the models; the tokeniser and training have their own")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--cpu-time", action="store_true", help="one thread, and the time that it really had")
    parser.add_argument("--json", type=Path, help="append each result, with all its runs, to this file")
    arguments = parser.parse_args()
    if arguments.peers and Path(arguments.peers).absolute() != Path(sys.executable).absolute():
        sys.exit(subprocess.run([arguments.peers, *sys.argv], check=False).returncode)
    chosen = arguments.only or [name for name in MEASURES if arguments.peers or name not in WITH_PEERS]
    torch.manual_seed(0)
    torch.set_num_threads(1 if arguments.cpu_time else arguments.threads)
    if arguments.cpu_time:
        timing.now = time.thread_time
    about = machine(torch.device("cpu"))
    if arguments.peers:
        from speed_peers import VERSIONS

        about |= VERSIONS
    print("| | against | ours, ms (fastest) | theirs, ms (fastest) | ratio | goal | possible | |")
    print("|---|---|---|---|---|---|---|---|")
    for name in chosen:
        for result in MEASURES[name](arguments.runs, arguments.size):
            print(line(result), flush=True)
            if arguments.json:
                with arguments.json.open("a") as file:
                    print(
                        json.dumps({"measure": name, **asdict(result), "met": result.met, "machine": about}), file=file
                    )
    print("\nWith " + ", ".join(f"{key} {value}" for key, value in about.items()) + ".")


if __name__ == "__main__":
    main()
