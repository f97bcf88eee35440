"""`tubelet weights`: the published weights that our dialects read, as a table."""

from collections.abc import Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from itertools import groupby
from typing import Any

import torch

from tubelet.nn.cost import count_parameters
from tubelet.nn.create import create_model
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.system.console import console, size
from tubelet.weights.published import PUBLISHED, Published


def choose(pattern: str) -> list[Published]:
    """The lines whose name, model or kind a pattern such as "*dinov3*" or "video" fits. Raises ValueError for none."""
    found = [line for line in PUBLISHED if any(fnmatchcase(x, pattern) for x in (line.name, line.model, line.kind))]
    if not found:
        raise ValueError(f"no published weights fit {pattern!r}: expected part of a name with *, such as '*dinov3*'")
    return found


def make(line: Published) -> SpaceTimeTransformer:
    """The model of a line, without a head, in shape alone."""
    pool = "mean" if line.dialect == "hf-vjepa2" else None  # the published encoder stands alone
    settings = {"num_classes": 0, "channels": 1 if line.kind == "sound" else 3, "pool": pool}
    with torch.device("meta"):
        return create_model(line.model, clip=line.clip, **settings)  # type: ignore[arg-type]


def describe(line: Published) -> dict[str, Any]:
    """A line as JSON, with the number of parameters, and of bytes in float32, without a head."""
    count = count_parameters(make(line))
    return {**asdict(line), "parameters": count, "bytes": 4 * count}


def print_weights(lines: Sequence[Published]) -> None:
    """The lines below what they have in common, and how the weights are used."""
    for (kind, data, made_for, licence), group in groupby(lines, common):
        limits = not (first := next(group)).commercial or first.gated
        console.print(f"{kind} from {data}: {made_for}. {licence}", style="bold yellow" if limits else "bold")
        for line in (first, *group):
            t, h, w = line.clip
            clip = f"{t} x {h} x {w}" if t > 1 else f"{h} x {w}"
            name = f"  {line.model:17}{clip:16}{size(describe(line)['bytes']):>8}  {line.name}"
            console.print(name, soft_wrap=True, highlight=False)  # a name is to be copied
    console.print(
        "Sizes are those of the model in float32. To use one: tubelet train DIR --init NAME --freeze, or in Python "
        "tubelet.create_model(MODEL, pretrained=NAME). What is on the hub is loaded once; a .pt is to be downloaded, "
        "then tubelet convert FILE FOLDER --unsafe-pickle.",
        soft_wrap=True,
    )


def common(line: Published) -> tuple[str, str, str, str]:
    """What is said once for lines that follow one another."""
    limits = ["no commercial use"] * (not line.commercial) + ["gated: ask for it first"] * line.gated
    return line.kind, line.data, line.made_for, "; ".join([line.licence, *limits])
