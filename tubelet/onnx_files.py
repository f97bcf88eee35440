"""From a model to an ONNX file, and from that to one in int8."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tubelet.exported import needed
from tubelet.nn.model import SpaceTimeTransformer

OPSET = 23  # the first in which attention is one operation
PRODUCTS = ("MatMul", "Gemm")


class Pixels(nn.Module):
    """The model on clips as files give them: uint8 is normalised inside, by operations that ONNX has."""

    def __init__(self, model: SpaceTimeTransformer):
        super().__init__()
        self.model = model

    def forward(self, clip: Tensor) -> Tensor:
        return self.model(self.model.normalised(clip))


def write_onnx(model: SpaceTimeTransformer, file: Path, *, clip: Tensor) -> None:
    """Writes the model for any number of clips like `clip`, (B, C, T, H, W) -> logits (B, classes), in float32.

    Raises:
        ValueError: onnx, onnxscript or onnxruntime is not installed.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        needed(package)
    raw = file.with_suffix(".raw.onnx")
    two = clip[:1].repeat(2, 1, 1, 1, 1)  # a batch of one would be taken for a constant
    # this kernel alone is laid out in memory as the exporter thinks that all are
    with quiet(), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        program = torch.onnx.export(
            Pixels(model).eval(),
            (two,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["clip"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
            verbose=False,
        )
        assert program is not None
        program.save(raw)
    fold(raw, file)
    raw.unlink()


def fold(source: Path, target: Path) -> None:
    """Works out once what does not depend on the clip: then the weights stand in the file as they are multiplied,
    which int8 needs."""
    onnx, onnxruntime = needed("onnx"), needed("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC  # for any processor
    options.optimized_model_filepath = str(target)
    onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    model = onnx.load(target)
    used = {node.domain for node in model.graph.node}
    for unused in [entry for entry in model.opset_import if entry.domain not in used]:
        model.opset_import.remove(unused)
    del model.graph.value_info[:]  # shapes of tensors that are gone: the quantiser would stumble over them
    onnx.save(model, target)


def write_int8(source: Path, target: Path, *, calibration: Sequence[Tensor] | None, leave: Sequence[str] = ()) -> None:
    """Writes a model anew with the weights of its matrix products in int8, a scale for each channel.

    What they are multiplied with is int8 as well: its range is found on each batch anew, or, where `calibration` clips
    are given, once on these (what OpenVINO needs to multiply in int8). The products called in `leave` stay in float32.
    """
    quantization = needed("onnxruntime.quantization")
    settings: dict[str, Any] = {
        "per_channel": True,
        "weight_type": quantization.QuantType.QInt8,
        "op_types_to_quantize": list(PRODUCTS),
        "nodes_to_exclude": list(leave),
    }
    weights_only = {"MatMulConstBOnly": True}  # not those of attention, which has no weights
    with quiet():
        if calibration is None:
            quantization.quantize_dynamic(source, target, extra_options=weights_only, **settings)
        else:
            quantization.quantize_static(
                source,
                target,
                Reader(calibration),
                activation_type=quantization.QuantType.QInt8,
                extra_options=weights_only | {"ActivationSymmetric": True},
                **settings,
            )


class Reader:
    """Hands clips to the quantiser, one after the other."""

    def __init__(self, clips: Sequence[Tensor]):
        self.rest = iter(clips)

    def get_next(self) -> dict[str, np.ndarray] | None:
        clip = next(self.rest, None)
        return None if clip is None else {"clip": clip.numpy()}


def first_and_last_product(file: Path) -> list[str]:
    """Names of the first and the last product with weights: the tokeniser, where it is a product, and the head."""
    graph = needed("onnx").load(file).graph
    weights = {tensor.name for tensor in graph.initializer}
    names = [node.name for node in graph.node if node.op_type in PRODUCTS and node.input[1] in weights]
    return [names[0], names[-1]]


@contextmanager
def quiet() -> Iterator[None]:
    """Without what the exporter and the quantiser log about their own workings."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # of torch's exporter, about torch's own pytree
            warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
            yield
    finally:
        logging.disable(before)
