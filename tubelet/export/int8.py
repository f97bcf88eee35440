"""A model's ONNX file with its matrix products in int8: for onnxruntime, or for OpenVINO.

Processors without VNNI add two products in 16 bits, which hold 2 * 255 * 64, but not 2 * 255 * 127: what is more is cut
off, silently. So one of the factors, weights and the keys of attention, lies within seven bits, -64 to 64, unless the
full range is asked for.
"""

from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from torch import Tensor

from tubelet.export.onnx import quiet
from tubelet.system.extras import import_extra

SMOOTH = 0.5  # how much of a channel's range moves to the weights: a third less error than NNCF's 0.95 on a real ViT


def write_onnx_int8(
    source: Path,
    target: Path,
    *,
    calibration: Sequence[Tensor] = (),
    leave: Sequence[str] = (),
    full_range: bool = False,
) -> None:
    """Weights get a scale for each output channel; what they are multiplied with is scaled anew in each batch: no clips
    are needed for calibration.

    Attention's own products and those named in `leave` stay in float32.
    """
    quantization = import_extra("onnxruntime.quantization")
    with quiet():
        quantization.quantize_dynamic(
            source,
            target,
            per_channel=True,
            reduce_range=not full_range,
            weight_type=quantization.QuantType.QInt8,
            op_types_to_quantize=["MatMul"],
            nodes_to_exclude=list(leave),
            extra_options={"MatMulConstBOnly": True},
        )


def write_openvino_int8(
    source: Path,
    target: Path,
    *,
    calibration: Sequence[Tensor],
    leave: Sequence[str] = (),
    full_range: bool = False,
) -> None:
    """Every scale is found once, on calibration clips (1, C, T, H, W), by NNCF, which first evens the channels out.

    Source: arXiv 2211.10438 (the evening out).
    """
    openvino, nncf = import_extra("openvino"), import_extra("nncf")
    nncf.set_log_level("ERROR")
    ranges = import_extra("nncf.quantization.range_estimator").RangeEstimatorParametersSet
    settings = nncf.AdvancedQuantizationParameters(
        # its default, the mean of the extremes of clips, cuts off what is far from the average: bright ones, dark ones
        activations_range_estimator_params=ranges.MINMAX,
        overflow_fix=nncf.OverflowFix.DISABLE if full_range else nncf.OverflowFix.ENABLE,
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
    if not full_range:
        halve_keys(model)
    openvino.save_model(model, target, compress_to_fp16=False)


def halve_keys(model: Any) -> None:
    """Gives the keys of attention twice the range in as many steps, so that they fill half of the steps: seven bits."""
    constant = import_extra("openvino").opset13.constant
    attentions = [node for node in model.get_ops() if node.get_type_name() == "ScaledDotProductAttention"]
    rounded = {node.get_friendly_name(): node for attention in attentions for node in roundings(attention.input(1))}
    for node in rounded.values():
        for end in node.inputs()[1:]:  # lowest and highest, before and after
            end.replace_source_output(constant(2 * end.get_source_output().get_node().data).output(0))


def roundings(given: Any) -> Iterator[Any]:
    """The nodes that round to steps what an input is given, as far back as the next product."""
    node = given.get_source_output().get_node()
    if node.get_type_name() == "FakeQuantize":
        yield node
    elif node.get_type_name() != "MatMul":
        for before in node.inputs():
            yield from roundings(before)


def first_and_last_product(file: Path) -> list[str]:
    """Names of the first and the last product with weights: the tokeniser, where it is a product, and the head."""
    graph = import_extra("onnx").load(file).graph
    weights = {tensor.name for tensor in graph.initializer}
    names = [node.name for node in graph.node if node.op_type == "MatMul" and node.input[1] in weights]
    return [names[0], names[-1]]
