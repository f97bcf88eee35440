"""A model's ONNX file with its matrix products in int8: for onnxruntime, or for OpenVINO."""

from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from torch import Tensor

from tubelet.exported import needed
from tubelet.onnx_files import quiet

SMOOTH = 0.5  # how much of a channel's range moves to the weights: a third less error than NNCF's 0.95 on a real ViT


def write_onnx_int8(source: Path, target: Path, *, leave: Sequence[str] = ()) -> None:
    """Weights get a scale for each output channel; what they are multiplied with is scaled anew in each batch.

    Attention's own products and those named in `leave` stay in float32.
    """
    quantization = needed("onnxruntime.quantization")
    with quiet():
        quantization.quantize_dynamic(
            source,
            target,
            per_channel=True,
            weight_type=quantization.QuantType.QInt8,
            op_types_to_quantize=["MatMul"],
            nodes_to_exclude=list(leave),
            extra_options={"MatMulConstBOnly": True},
        )


def write_openvino_int8(
    source: Path, target: Path, *, calibration: Sequence[Tensor], leave: Sequence[str] = ()
) -> None:
    """Every scale is found once, on calibration clips (1, C, T, H, W), by NNCF, which first evens the channels out.

    Source: arXiv 2211.10438 (the evening out).
    """
    openvino, nncf = needed("openvino"), needed("nncf")
    nncf.set_log_level("ERROR")
    ranges = needed("nncf.quantization.range_estimator").RangeEstimatorParametersSet
    settings = nncf.AdvancedQuantizationParameters(
        # its default, the mean of the extremes of clips, cuts off what is far from the average: bright ones, dark ones
        activations_range_estimator_params=ranges.MINMAX,
        smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=SMOOTH),
    )
    with quiet(), redirect_stdout(StringIO()):  # NNCF draws its progress
        model = nncf.quantize(
            openvino.Core().read_model(source),
            nncf.Dataset([clip.numpy() for clip in calibration]),
            subset_size=len(calibration),
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=nncf.IgnoredScope(names=list(leave)),
            advanced_parameters=settings,
        )
    openvino.save_model(model, target, compress_to_fp16=False)


def first_and_last_product(file: Path) -> list[str]:
    """Names of the first and the last product with weights: the tokeniser, where it is a product, and the head."""
    graph = needed("onnx").load(file).graph
    weights = {tensor.name for tensor in graph.initializer}
    names = [node.name for node in graph.node if node.op_type == "MatMul" and node.input[1] in weights]
    return [names[0], names[-1]]
