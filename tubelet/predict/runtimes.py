"""Runtimes that answer from an exported model's file, on the processor: one class for each."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from tubelet.predict.precision import choose_dtype
from tubelet.system.extras import import_extra

Run = Callable[[np.ndarray], np.ndarray]  # clips (B, C, T, H, W) -> logits (B, classes), float32


class Runtime(Protocol):
    """A program that runs a model's file."""

    name: str  # for people
    file: str  # of the model, in its folder
    runs_code: bool  # a file can make it do anything: it is opened only where the user vouches for it

    def open(self, file: Path, *, int8: bool, dtype: str) -> tuple[str, Run]:
        """The precision that the file computes in, in words, and the function that answers clips.

        Raises:
            ValueError: the runtime is not installed, or does not compute in this dtype.
        """


class OnnxRuntime:
    name, file, runs_code = "onnxruntime", "model.onnx", False

    def open(self, file: Path, *, int8: bool, dtype: str) -> tuple[str, Run]:
        check_float32(self.name, dtype)
        precision = f"{'int8, else ' if int8 else ''}float32: as exported for onnxruntime"
        return precision, one_by_one(open_onnx(file)) if int8 else open_onnx(file)


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


class OpenVino:
    name, file, runs_code = "OpenVINO", "model.xml", False

    def open(self, file: Path, *, int8: bool, dtype: str) -> tuple[str, Run]:
        chosen, why = choose_dtype("float32" if int8 and dtype == "auto" else dtype, torch.device("cpu"))
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": "bf16" if chosen == torch.bfloat16 else "f32",
        }
        request = import_extra("openvino").Core().compile_model(file, "CPU", settings).create_infer_request()
        run = lambda clip: request.infer([clip])[0].copy()  # noqa: E731  the next clip overwrites what is given back
        return f"{'int8, else ' if int8 else ''}{why}", run


class TorchExport:
    """Its files are read by torch itself, which unpickles and compiles what is in them."""

    name, file, runs_code = "torch.export", "model.pt2", True

    def open(self, file: Path, *, int8: bool, dtype: str) -> tuple[str, Run]:
        check_float32(self.name, dtype)
        model = torch.export.load(file).module()

        @torch.inference_mode()
        def run(clip: np.ndarray) -> np.ndarray:
            return model(torch.from_numpy(clip)).numpy()

        return "float32: as exported by torch.export", run


RUNTIMES: dict[str, Runtime] = {"onnx": OnnxRuntime(), "openvino": OpenVino(), "torch-export": TorchExport()}


def check_float32(name: str, dtype: str) -> None:
    if dtype not in ("auto", "float32"):
        raise ValueError(f"{name} computes in float32 here, got dtype={dtype!r}: export for OpenVINO instead")
