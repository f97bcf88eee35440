"""Encoded steps of a video in a file: encoded once, classified again in any window.

The file is safetensors: `codes` (t, D) float32 and `times` (t,) float64, the second at which each step begins.
"""

import hashlib
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tubelet.nn.model import SpaceTimeTransformer
from tubelet.weights.formats.safetensors_file import check_header, open_tensors
from tubelet.weights.store import read_header

HEADER_BYTES = 4096  # kept free at the start of the file: how many steps there will be is known at its end


def encoder_hash(model: SpaceTimeTransformer, spec: dict[str, Any]) -> str:
    """What codes depend on, in short: the weights of the tokeniser and the first encoder, and how pixels reach them.

    Another head or temporal encoder makes no other codes, nor does a clip of another length.
    """
    digest = hashlib.sha256()
    settings = model.config.encoder_settings()
    pixels = {name: value for name, value in spec.items() if name != "frames"}
    digest.update(json.dumps([settings, pixels], sort_keys=True).encode())
    for part, module in (("embed", model.embed), ("encoder", model.encoders[0])):
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(f"{part}.{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class CodesWriter:
    """Writes codes as they come, so that an hour of them is never held; the file appears when it is closed.

    Closed by an error it appears too: what was encoded before is worth keeping. Without a single step it does not.
    """

    def __init__(self, file: Path, *, encoder: str, seconds_between_steps: float, source: str):
        self.file, self.steps, self.dim, self.seconds_between_steps = file, 0, 0, seconds_between_steps
        self.about = {"encoder": encoder, "seconds_between_steps": seconds_between_steps, "source": source}
        self.temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
        self.handle = open(self.temporary, "wb")  # noqa: SIM115  # closed by `__exit__`
        self.handle.write(b" " * HEADER_BYTES)

    def __enter__(self) -> "CodesWriter":
        return self

    def add(self, codes: Tensor) -> None:
        """Takes the next steps, (t, D)."""
        self.steps, self.dim = self.steps + len(codes), codes.shape[1] if len(codes) else self.dim
        self.handle.write(codes.float().cpu().contiguous().numpy().tobytes())

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            with self.handle:
                self.handle.write((np.arange(self.steps) * self.seconds_between_steps).tobytes())
                self.handle.seek(0)
                self.handle.write(self.header())
            if self.steps:
                os.replace(self.temporary, self.file)
        finally:
            self.temporary.unlink(missing_ok=True)

    def header(self) -> bytes:
        """Its length, then JSON, filled up with blanks."""
        middle = 4 * self.steps * self.dim
        end = middle + 8 * self.steps
        entries = {
            "__metadata__": {"tubelet": json.dumps({"codes": self.about})},
            "codes": {"dtype": "F32", "shape": [self.steps, self.dim], "data_offsets": [0, middle]},
            "times": {"dtype": "F64", "shape": [self.steps], "data_offsets": [middle, end]},
        }
        size = HEADER_BYTES - 8
        return struct.pack("<Q", size) + json.dumps(entries).encode().ljust(size)


def read_codes(file: Path, *, encoder: str, at_once: int) -> tuple[int, Iterator[Tensor]]:
    """How many steps a file holds, and these, (t, D), `at_once` at a time.

    Raises:
        ValueError: no file of codes, or one that another encoder made.
    """
    about = read_header(file).get("codes")
    if not isinstance(about, dict) or not isinstance(about.get("encoder"), str):
        raise ValueError(f"{file}: holds no codes: expected a file that `tubelet stream --save` wrote, or a video")
    if about["encoder"] != encoder:
        raise ValueError(
            f"{file}: codes of another model (or of another size or frame spacing): "
            f"made by encoder {about['encoder'][:8]}, this run's is {encoder[:8]}; encode the video again"
        )
    codes = check_header(file).tensors.get("codes")
    if codes is None or codes.dtype != torch.float32 or len(codes.shape) != 2 or 0 in codes.shape:
        raise ValueError(f"{file}: its codes are not rows of float32: encode the video again")
    return codes.shape[0], _slices(file, codes.shape[0], at_once)


def _slices(file: Path, steps: int, at_once: int) -> Iterator[Tensor]:
    with open_tensors(file) as handle:
        codes = handle.get_slice("codes")
        for start in range(0, steps, at_once):
            yield codes[start : start + at_once]
