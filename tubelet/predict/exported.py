"""A model that was exported: a folder with its file and tubelet.json, run on the processor."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tubelet.predict.precision import choose_dtype
from tubelet.system.extras import import_extra
from tubelet.weights.formats.json_file import MOST_BYTES, parse

ABOUT = "tubelet.json"
FILES = {"onnx": "model.onnx", "openvino": "model.xml"}

Run = Callable[[np.ndarray], np.ndarray]


class Exported(nn.Module):
    """Answers clips as the model did that was exported, (B, C, T, H, W) -> logits (B, classes), float32.

    Clips are uint8; those of sound float32, normalised. `precision` says in words what it computes in.

    Raises:
        ValueError: the folder is damaged, or its runtime is missing or does not compute in this dtype.
    """

    def __init__(self, folder: str | os.PathLike[str], *, dtype: str = "float32"):
        super().__init__()
        self.about = read_exported(folder)
        file = Path(folder) / FILES[self.about["format"]]
        try:
            self.precision, self.run = open_file(file, self.about["format"], int8=self.about["int8"], dtype=dtype)
            if self.about["int8"] and self.about.get("full_range", True):  # so were all, before there was a choice
                self.precision += "; weights in the full range of int8: right only on processors with VNNI"
            if "distance" in self.about.get("left_out", []):
                self.precision += '; never says "none of these", for an exported model gives no features'
        except ValueError:
            raise
        except Exception as error:  # each runtime raises errors of its own for a file that is damaged
            said = str(error).strip().splitlines() or [type(error).__name__]
            raise ValueError(f"{file}: cannot be opened ({said[0][:200]}): export the model again") from error

    def forward(self, clip: Tensor) -> Tensor:
        (_, *size), dtype = self.about["input"]["shape"], self.about["input"]["dtype"]
        if list(clip.shape[1:]) != size or str(clip.dtype) != f"torch.{dtype}":
            raise ValueError(
                f"got clips of {clip.dtype} {tuple(clip.shape)}, the exported model takes {dtype} (B, "
                f"{', '.join(map(str, size))}) and no other: export it again for another size"
            )
        logits = torch.from_numpy(self.run(clip.contiguous().numpy()))
        if logits.shape != (len(clip), len(self.about["classes"])):
            raise ValueError(
                f"the exported model gave {tuple(logits.shape)} logits for {len(clip)} clips and "
                f"{len(self.about['classes'])} classes: export it again"
            )
        return logits


def is_exported(folder: str | os.PathLike[str]) -> bool:
    return (Path(folder) / ABOUT).is_file()


def read_exported(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads tubelet.json. Raises ValueError: it is damaged, or the model's file is missing."""
    file = Path(folder) / ABOUT
    try:
        with open(file, "rb") as handle:
            about = parse(handle.read(MOST_BYTES + 1))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: cannot be read ({error}): export the model again") from error
    match about:
        case {"input": {"shape": [_, *_], "dtype": str()}, "format": str(form), "classes": list(), "int8": bool()} if (
            form in FILES and isinstance(about.get("clip_spec"), dict)
        ):
            if not (model := Path(folder) / FILES[form]).is_file():
                raise ValueError(f"{model}: no such file: export the model again")
            return about
    raise ValueError(f"{file}: not written by `tubelet export`: export the model again")


def open_file(file: Path, form: str, *, int8: bool, dtype: str = "float32") -> tuple[str, Run]:
    """The precision that a model's file computes in, in words, and the function that answers clips.

    Raises:
        ValueError: the runtime is not installed, or does not compute in this dtype.
    """
    kept = "int8, else " if int8 else ""
    if form == "onnx":
        if dtype not in ("auto", "float32"):
            raise ValueError(f"onnxruntime computes in float32 here, got dtype={dtype!r}: export for OpenVINO instead")
        return f"{kept}float32: as exported for onnxruntime", one_by_one(open_onnx(file)) if int8 else open_onnx(file)
    chosen, why = choose_dtype("float32" if int8 and dtype == "auto" else dtype, torch.device("cpu"))
    return kept + why, open_openvino(file, "bf16" if chosen == torch.bfloat16 else "f32")


def open_onnx(file: Path) -> Run:
    onnxruntime = import_extra("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda clip: session.run(None, {"clip": clip})[0]


def one_by_one(run: Run) -> Run:
    """Answers each clip by itself: onnxruntime's int8 scales all that it computes at once by the largest number in it,
    and what is said of a clip must not depend on what stands beside it."""
    return lambda clips: np.concatenate([run(clip) for clip in np.split(clips, len(clips))])


def open_openvino(file: Path, precision: str) -> Run:
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": precision,
    }
    request = import_extra("openvino").Core().compile_model(file, "CPU", settings).create_infer_request()
    return lambda clip: request.infer([clip])[0].copy()  # the next clip overwrites what is given back
