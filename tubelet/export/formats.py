"""The kinds of files that a model is exported to: a piece for each."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from tubelet.export.int8 import write_onnx_int8, write_openvino_int8
from tubelet.export.onnx import write_onnx
from tubelet.export.program import write_program
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.predict.runtimes import RUNTIMES, Runtime
from tubelet.system.extras import import_extra

ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Int8:
    """A way to a file with its products in int8.

    write: makes such a file of a plain one; takes `calibration`, clips (1, C, T, H, W), `leave`, names of products that
        stay in float32, and `full_range`
    needed: packages, besides those of the format
    calibrates: with clips of the user
    """

    write: Callable[..., None]
    needed: tuple[str, ...] = ()
    calibrates: bool = False


@dataclass(frozen=True)
class Format:
    """A kind of file, and the runtime that answers from it.

    prepare: writes a model, for any number of clips like a clip (B, C, T, H, W), to a plain file in a folder, of which
        all others are made; gives that, and the axes, of "THW", along which clips may have any size that whole tubelets
        fill
    write: makes a file in float32 of the plain one
    needed: packages
    dtypes: that the runtime computes in, besides float32
    """

    runtime: Runtime
    prepare: Callable[[SpaceTimeTransformer, Path, Tensor], tuple[Path, str]]
    write: Callable[[Path, Path], object]
    needed: tuple[str, ...] = ()
    int8: Int8 | None = None
    dtypes: tuple[str, ...] = ()


def prepare_onnx(model: SpaceTimeTransformer, place: Path, clip: Tensor) -> tuple[Path, str]:
    write_onnx(model, place / "plain.onnx", clip=clip)
    return place / "plain.onnx", ""


def prepare_program(model: SpaceTimeTransformer, place: Path, clip: Tensor) -> tuple[Path, str]:
    return place / "plain.pt2", write_program(model, place / "plain.pt2", clip=clip)


def write_openvino(plain: Path, file: Path) -> None:
    openvino = import_extra("openvino")
    openvino.save_model(openvino.Core().read_model(plain), file, compress_to_fp16=False)


FORMATS = {
    "onnx": Format(RUNTIMES["onnx"], prepare_onnx, shutil.copyfile, ONNX_PACKAGES, Int8(write_onnx_int8)),
    "openvino": Format(
        RUNTIMES["openvino"],
        prepare_onnx,
        write_openvino,
        (*ONNX_PACKAGES, "openvino"),
        Int8(write_openvino_int8, ("nncf",), calibrates=True),
        ("bfloat16",),
    ),
    "torch-export": Format(RUNTIMES["torch-export"], prepare_program, shutil.copyfile),
}
