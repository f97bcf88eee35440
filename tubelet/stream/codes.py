"""Encoded steps of a video in a feature file: encoded once, classified again in any window."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryFile

import torch
from torch import Tensor

from tubelet.data.clip_spec import ClipSpec
from tubelet.features.store import hash_encoder, read_features, write_features
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.stream.config import StreamConfig
from tubelet.stream.source import Footage


def hash_steps(model: SpaceTimeTransformer, spec: ClipSpec) -> str:
    """The key of the codes of single steps: they do not depend on how many make a clip."""
    return hash_encoder(model, pixels={name: value for name, value in spec.to_json().items() if name != "frames"})


@contextmanager
def keep_steps(file: Path, *, key: str, seconds_between_steps: float, source: str) -> Iterator[list[Tensor]]:
    """A list for the codes (t, D) of one block after another, all of which are written at the end, with `times` (t,),
    the second at which each step begins. After an error too: what was encoded before is worth keeping.

    Raises OSError where the folder takes no files, before the work is done.
    """
    with TemporaryFile(dir=file.parent):
        pass
    blocks: list[Tensor] = []
    try:
        yield blocks
    finally:
        if codes := [block for block in blocks if len(block)]:
            steps = torch.cat(codes).float().cpu()
            times = torch.arange(len(steps), dtype=torch.float64) * seconds_between_steps
            span = (0.0, len(steps) * seconds_between_steps)
            write_features(file, steps, key=key, path=source, seconds=span, times=times)


def keep_if_asked(
    config: StreamConfig, footage: Footage, make_key: Callable[[], str], *, seconds_between_steps: float
) -> AbstractContextManager[list[Tensor] | None]:
    """A context that keeps the codes of --save, see `keep_steps`; None without it. make_key: asked only then."""
    if config.save is None:
        return nullcontext()
    if footage.encoded:
        raise ValueError(f"{config.file}: holds codes already: copy the file, or leave --save out")
    source = config.file.name
    return keep_steps(config.save, key=make_key(), seconds_between_steps=seconds_between_steps, source=source)


def read_steps(file: Path, *, key: str) -> Tensor:
    """The codes of the steps of a video, (t, D). Raises ValueError as `read_features`, and for codes of clips."""
    steps, _ = read_features(file, key=key)
    if steps.ndim != 2 or steps.dtype != torch.float32:
        raise ValueError(f"{file}: its codes are not rows of float32, (t, D): encode the video again")
    return steps
