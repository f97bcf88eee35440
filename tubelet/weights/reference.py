"""From the weights of a reference program to our model: one function, one file for each dialect."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from tubelet.nn.grid import triple
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.weights import scenic, timesformer, timm
from tubelet.weights.source import Converted, Source, Told
from tubelet.weights.store import load_strict

DIALECTS: dict[str, Callable[[Source, Told], Converted]] = {
    "scenic": scenic.convert,
    "timesformer": timesformer.convert,
    "timm": timm.convert,
}


def from_reference(
    state: Mapping[str, torch.Tensor | np.ndarray[Any, Any]],
    dialect: str,
    *,
    heads: int,
    clip: Sequence[int],
    family: str | None = None,
    attend: str | None = None,
    frames: int | None = None,
    stride: Sequence[int] | None = None,
) -> SpaceTimeTransformer:
    """Our model with the weights of a reference program, ready to run (eval mode).

    Args:
        state: name -> tensor or array, as the original stores it.
        dialect: "scenic" (ViViT 1 to 4), "timesformer" (the original's), "timm" (ViT).
        heads: attention heads, which weights cannot tell.
        clip: the (T, H, W) the weights are made for, ((1, mel, time) for sound).
        family: for scenic without class token, whose Models 1 and 4 look alike: "vivit1" or "vivit4".
        attend: order of scenic's Model 3, "hw,t" (the paper's) or "t,hw".
        frames: uniform frame sampling: frames embedded of each clip.
        stride: (frames, px, px) between patches, where they overlap.

    Raises:
        ValueError: unknown dialect; a tensor that is missing, left over, or of a shape that does not fit.
    """
    if dialect not in DIALECTS:
        raise ValueError(f"unknown dialect {dialect!r}: expected one of {', '.join(DIALECTS)}")
    source = Source(state)
    told = Told(
        heads=heads,
        clip=triple(clip, "clip"),
        family=family,
        attend=attend,
        frames=frames,
        stride=None if stride is None else triple(stride, "stride"),
    )
    config, tensors = DIALECTS[dialect](source, told)
    source.finish(dialect)
    model = SpaceTimeTransformer(config)
    load_strict(model, tensors, what=f"{dialect} weights")
    return model.eval()
