"""Today's encoders beside transformers' own, with the same random weights: seconds and memory of the same answers.

    python -m venv ../peers
    ../peers/bin/pip install -c constraints.txt . transformers timm
    ../peers/bin/python benchmarks/encoders.py --runs 7 > encoders.md

Answers are compared before anything is timed; the two sides take turns in one process, theirs with the attention that
it takes by itself. Memory is what a process of each side adds at most to what it holds with the model loaded, large
blocks given back at once (MALLOC_MMAP_THRESHOLD_), so that freed ones count for neither. On a machine that others use,
--cpu-time counts the time that the processors really gave. performance.md beside this file has the outcome.
"""

import argparse
import gc
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from torch import Tensor, nn

try:
    import torchvision  # noqa: F401
except ModuleNotFoundError:
    pass
except RuntimeError:  # made for another build of torch; transformers does with these two names
    for operator in ("nms", "qnms"):
        torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import transformers
from kernels import count_kernels

from tubelet.nn import SpaceTimeTransformer
from tubelet.system import timing
from tubelet.weights import from_reference

AGREE = 1e-4  # of the largest number of the answer


@dataclass(frozen=True)
class Encoder:
    """A model of transformers, its config, and the same for us. clip: (T, H, W) of `batch` clips."""

    model: str
    config: str
    dialect: str
    heads: int
    clip: tuple[int, int, int]
    batch: int
    numbers: dict[str, Any]

    def peer(self) -> nn.Module:
        torch.manual_seed(0)
        made = getattr(transformers, self.model)(getattr(transformers, self.config)(**self.numbers)).eval()
        with torch.no_grad():
            for parameter in made.parameters():  # some start at zero, and would be equal however they are read
                parameter.add_(0.02 * torch.randn(parameter.shape))
        return made

    def ours(self, state: dict[str, Tensor]) -> SpaceTimeTransformer:
        return from_reference(state, self.dialect, heads=self.heads, clip=self.clip)

    def pixels(self) -> Tensor:
        """(B, C, T, H, W)."""
        torch.manual_seed(1)
        return torch.randn(self.batch, 3, *self.clip)

    def theirs(self, pixels: Tensor) -> Tensor:
        """As transformers has them: frames first, pictures without time."""
        return pixels[:, :, 0] if self.clip[0] == 1 else pixels.transpose(1, 2).contiguous()


B = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
S = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "intermediate_size": 1536}
PREDICTOR = {"pred_hidden_size": 48, "pred_num_attention_heads": 4, "pred_num_hidden_layers": 1}
ENCODERS = {
    "VideoPrism B, 8 frames of 288 px": Encoder(
        *("VideoPrismVisionModel", "VideoPrismVisionConfig", "hf-videoprism", 12, (8, 288, 288), 1),
        {"num_frames": 8},
    ),
    "V-JEPA 2 B, 16 frames of 224 px": Encoder(
        *("VJEPA2Model", "VJEPA2Config", "hf-vjepa2", 12, (16, 224, 224), 1),
        {**B, **PREDICTOR, "mlp_ratio": 4, "crop_size": 224, "frames_per_clip": 16},
    ),
    "PE-AV's video encoder, PE B, 8 frames of 224 px": Encoder(
        *("PeVideoEncoder", "PeVideoEncoderConfig", "hf-pe-video", 12, (8, 224, 224), 1),
        {
            **B,
            "head_dim": 64,
            "num_hidden_layers": 6,
            "vision_config": {
                "model_type": "timm_wrapper",
                "architecture": "vit_pe_core_base_patch16_224",
                "num_labels": 1024,
                "do_pooling": True,
            },
        },
    ),
    "DINOv3 S, 8 pictures of 224 px": Encoder(
        *("DINOv3ViTModel", "DINOv3ViTConfig", "hf-dinov3", 6, (1, 224, 224), 8),
        {**S, "patch_size": 16, "image_size": 224, "num_register_tokens": 4},
    ),
    "SigLIP 2 B, 8 pictures of 224 px": Encoder(
        *("SiglipVisionModel", "SiglipVisionConfig", "hf-siglip2", 12, (1, 224, 224), 8),
        {**B, "patch_size": 16, "image_size": 224},
    ),
}


def run_peer(model: nn.Module, pixels: Tensor) -> Tensor:
    more = {"skip_predictor": True} if type(model).__name__ == "VJEPA2Model" else {}
    found = model(pixels, **more)
    return found.pooler_output if type(model).__name__ == "PeVideoEncoder" else found.last_hidden_state


def run_ours(model: SpaceTimeTransformer, pixels: Tensor) -> Tensor:
    """The tokens of an encoder, or what its head gives."""
    return model(pixels) if model.config.num_classes else model.tokens(pixels)[0]


@torch.inference_mode()
def compare(name: str, runs: int) -> dict[str, Any]:
    """Seconds of both sides in turns, the ratio of their medians, what it would be if our kernels alone took time, and
    how far the answers are apart."""
    encoder, pixels = ENCODERS[name], ENCODERS[name].pixels()
    peer = encoder.peer()
    ours = encoder.ours(peer.state_dict())
    theirs = encoder.theirs(pixels)
    answer, wanted = run_ours(ours, pixels), run_peer(peer, theirs)
    off = float((answer - wanted).abs().max() / wanted.abs().max())
    assert off < AGREE, (name, off)
    jobs: dict[str, Callable[[], object]] = {
        "theirs": lambda: run_peer(peer, theirs),
        "ours": lambda: run_ours(ours, pixels),
    }
    kernels = count_kernels(lambda: run_ours(ours, pixels))
    jobs |= {f"kernel {i}": kernel.job() for i, kernel in enumerate(kernels)}
    took = timing.time_in_turns(jobs, runs=runs)
    alone = sum(count * median(took.pop(f"kernel {i}")) for i, count in enumerate(kernels.values()))
    pairs = [their / our for their, our in zip(took["theirs"], took["ours"], strict=True)]
    ratio = median(took["theirs"]) / median(took["ours"])
    limit = median(took["theirs"]) / alone
    return {"name": name, "ratio": ratio, "pairs": median(pairs), "limit": limit, "off": off, **took}


@torch.inference_mode()
def measure_memory(name: str, side: str) -> float:
    """MB that a process of one side adds at most while it answers."""
    encoder, pixels = ENCODERS[name], ENCODERS[name].pixels()
    model, given = encoder.peer(), encoder.theirs(pixels)
    if side == "ours":
        model, given = encoder.ours(model.state_dict()), pixels
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the most that was held counts from here on; of Linux
    held = most_held()
    run_ours(model, given) if side == "ours" else run_peer(model, given)  # type: ignore[arg-type]  # ours
    return most_held() - held


def most_held() -> float:
    """MB of memory that this process has held at most."""
    return int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) / 1024


def ask(name: str, side: str) -> float:
    """`measure_memory` in a process of its own."""
    typed = [sys.executable, __file__, "--memory", name, side]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    return float(subprocess.run(typed, env=environment, check=True, capture_output=True, text=True).stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--only", nargs="*", default=list(ENCODERS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--memory", nargs=2, metavar=("NAME", "SIDE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.memory:
        print(measure_memory(*given.memory))
        return
    if given.cpu_time:
        timing.now = time.process_time
    print(f"transformers {transformers.__version__}, torch {torch.__version__}, {given.threads} threads\n")
    print("| | theirs / ours, medians | in pairs | limit | memory, theirs | ours | answers apart |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    found = []
    for name in given.only:
        result = compare(name, given.runs)
        result |= {"memory": {side: ask(name, side) for side in ("theirs", "ours")}}
        memory = " | ".join(f"{result['memory'][side]:.0f} MB" for side in ("theirs", "ours"))
        ratios = " | ".join(f"{result[part]:.2f}" for part in ("ratio", "pairs", "limit"))
        print(f"| {name} | {ratios} | {memory} | {result['off']:.0e} |", flush=True)
        found.append(result)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
