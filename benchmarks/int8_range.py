"""What do int8 weights of seven bits cost, and what do eight bits cost where the processor has no VNNI?

    python benchmarks/int8_range.py runs/demo more_clips/

Prints, for onnxruntime and OpenVINO, how many clips get the answer of float32 torch, the largest error of a logit, and
the time for one clip, the median of runs in turns. OpenVINO also answers as on a processor without VNNI, by
ONEDNN_MAX_CPU_ISA=AVX512_CORE; onnxruntime cannot be told to. docs/export.md has the outcome.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
import torch

from tubelet.export.formats import FORMATS
from tubelet.export.writer import Model, compute_logits, measure_agreement, open_exported, read
from tubelet.predict.predictor import Predictor
from tubelet.system.timing import time_in_turns

CALIBRATION = 8  # clips: so many does an export with --clips 32 take


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path, help="folder or table of clips that the run has not seen")
    parser.add_argument("--clips", type=int, default=640)
    parser.add_argument("--seconds", type=float, default=60.0, help="for the times")
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)  # what the script asks of itself without VNNI
    arguments = parser.parse_args()
    if arguments.answer:
        answer(arguments.answer, arguments.data)
    else:
        with tempfile.TemporaryDirectory() as place:
            measure(arguments.run, arguments.data, Path(place), clips=arguments.clips, seconds=arguments.seconds)


def measure(run: Path, data: Path, place: Path, *, clips: int, seconds: float) -> None:
    predictor = Predictor.load(run, device="cpu")
    given = read(data, predictor.spec, clips, calibrate=False)
    every = max(1, len(given.compared) // CALIBRATION)
    calibration = given.compared[::every]
    compared = [clip for i, clip in enumerate(given.compared) if i % every]
    reference = compute_logits(predictor.model, compared)
    ways: dict[str, Model] = {"torch, float32": predictor.model}
    for form, kind in FORMATS.items():
        if kind.int8 is None:
            continue
        name, file = kind.runtime.name, kind.runtime.file
        for part in ("float32", "8", "7"):
            (place / form / part).mkdir(parents=True)
        plain, _ = kind.prepare(predictor.model, place / form, compared[0])
        kind.write(plain, place / form / "float32" / file)
        ways[f"{name}, float32"] = open_exported(place / form / "float32", kind)
        for bits in (8, 7):
            folder = place / form / str(bits)
            kind.int8.write(plain, folder / file, calibration=calibration, full_range=bits == 8)
            ways[f"{name}, {bits} bits"] = open_exported(folder, kind, int8=True)
    logits = {name: compute_logits(way, compared) for name, way in ways.items()}
    clip = compared[0]
    took = time_in_turns({name: lambda way=way: way(clip) for name, way in ways.items()}, seconds=seconds)
    np.save(place / "clips.npy", torch.cat(compared).numpy())
    for bits in (8, 7):
        name = f"OpenVINO, {bits} bits, without VNNI"
        logits[name] = answered_without_vnni(place / "openvino" / str(bits), place / "clips.npy")
    print(f"{len(compared)} clips, {len(calibration)} others to calibrate; {torch.get_num_threads()} threads")
    print("\n| | same answer | largest logit error, of the largest logit | ms a clip | speed |\n|---|---|---|---|---|")
    for name, found in logits.items():
        error = (found - reference).abs().max() / reference.abs().max()
        times = f"{1000 * median(took[name]):.1f} | {speed(took, name):.2f}x" if name in took else " | "
        agreement = 100 * measure_agreement(found, reference, predictor.task)
        print(f"| {name} | {agreement:.1f}% | {100 * error:.2g}% | {times} |")


def speed(took: dict[str, list[float]], name: str) -> float:
    return median(took["torch, float32"]) / median(took[name])


def answered_without_vnni(folder: Path, clips: Path) -> torch.Tensor:
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}
    command = [sys.executable, __file__, ".", str(clips), "--answer", str(folder)]
    subprocess.run(command, env=environment, check=True)
    return torch.from_numpy(np.load(folder / "logits.npy"))


def answer(folder: Path, clips: Path) -> None:
    way = open_exported(folder, FORMATS["openvino"], int8=True)
    np.save(folder / "logits.npy", compute_logits(way, torch.from_numpy(np.load(clips)).split(1)).numpy())


if __name__ == "__main__":
    main()
