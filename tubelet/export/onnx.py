"""From a model to an ONNX file."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tubelet.nn.model import SpaceTimeTransformer
from tubelet.system.extras import import_extra

OPSET = 23  # the first in which attention is one operation


class Pixels(nn.Module):
    """The model on clips as files give them: uint8 is normalised inside, by operations that ONNX has."""

    def __init__(self, model: SpaceTimeTransformer):
        super().__init__()
        self.model = model

    def forward(self, clip: Tensor) -> Tensor:
        features = self.model.features(self.model.normalise(clip))
        # along three axes: along two it would be a Gemm, which the quantisers rename, so that none could be left out
        return self.model.head(features[:, None]).squeeze(1)


def write_onnx(model: SpaceTimeTransformer, file: Path, *, clip: Tensor) -> None:
    """Writes the model for any number of clips like `clip`, (B, C, T, H, W) -> logits (B, classes), in float32."""
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
    onnx, onnxruntime = import_extra("onnx"), import_extra("onnxruntime")
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


@contextmanager
def quiet() -> Iterator[None]:
    """Silences what the exporter and the quantiser log and warn about their own workings."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # of torch's exporter, about torch's own pytree
            warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
            yield
    finally:
        logging.disable(before)
