"""A model that was exported: a folder with its file and tubelet.json, run on the processor."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tubelet.predict.runtimes import RUNTIMES
from tubelet.weights.formats.json_file import MOST_BYTES, parse

ABOUT = "tubelet.json"


class Exported(nn.Module):
    """Answers clips as the model did that was exported, (B, C, T, H, W) -> logits (B, classes), float32.

    Clips are uint8; those of sound float32, normalised. `precision` says in words what it computes in. trusted: the
    folder was written by you, or by somebody you trust; see `runs_code` of `Runtime`.

    Raises:
        ValueError: the folder is damaged, its runtime is missing or does not compute in this dtype, or it is one of
            those that need trust.
    """

    def __init__(self, folder: str | os.PathLike[str], *, dtype: str = "float32", trusted: bool = False):
        super().__init__()
        self.about = read_exported(folder)
        runtime = RUNTIMES[self.about["format"]]
        self.folder, file = Path(folder), Path(folder) / runtime.file
        if runtime.runs_code and not trusted:
            raise ValueError(
                f"{file}: {runtime.name} runs whatever program is in such a file: where you, or somebody you trust, "
                "exported it, add --trusted, in Python trusted=True; else export to onnx"
            )
        try:
            self.precision, self.run = runtime.open(file, int8=self.about["int8"], dtype=dtype)
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
        shape, dtype = self.about["input"]["shape"], self.about["input"]["dtype"]
        fits = len(clip.shape) == len(shape) and all(
            one in (None, other) for one, other in zip(shape, clip.shape, strict=True)
        )
        if not fits or str(clip.dtype) != f"torch.{dtype}":
            sizes = (name if size is None else str(size) for name, size in zip("BCTHW", shape, strict=True))
            raise ValueError(
                f"got clips of {clip.dtype} {tuple(clip.shape)}, the exported model takes {dtype} "
                f"({', '.join(sizes)}) and no other: export it again for another size"
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
        case {
            "input": {"shape": [_, _, _, _, _], "dtype": str()},
            "format": str(form),
            "classes": list(),
            "int8": bool(),
        } if form in RUNTIMES and isinstance(about.get("clip_spec"), dict):
            if not (model := Path(folder) / RUNTIMES[form].file).is_file():
                raise ValueError(f"{model}: no such file: export the model again")
            return about
    raise ValueError(f"{file}: not written by `tubelet export`: export the model again")
