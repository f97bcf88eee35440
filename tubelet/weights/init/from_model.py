"""Starts a model from weights of ours: the same model, trained before, for other classes or another size of clip, or
one that it is the first part of."""

import os
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tubelet.nn.config import ModelConfig, find_differences
from tubelet.nn.grid import Grid
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.nn.position import LearnedPosition
from tubelet.weights.init.grow import list_grown
from tubelet.weights.store import load_strict, open_model

KEPT = ("embed", "stages", "channels")  # what a model has in common with the one it starts from


def init_from_model(model: SpaceTimeTransformer, path: str | os.PathLike[str]) -> list[str]:
    """Fills `model`, but for its head, from a file or folder of ours and returns what was done, a line for each piece.

    Raises:
        ValueError: no weights of ours, or those of another kind of model; the model is then unchanged.
    """
    file = open_model(path)
    return fill(model, file.config(), file.tensors(), what=str(path))


def fill(
    model: SpaceTimeTransformer, theirs: ModelConfig, tensors: Mapping[str, Tensor], *, what: str, head: bool = False
) -> list[str]:
    """As `init_from_model`, from the tensors of a model in memory; `head`: that is taken, too."""
    ours = pick_kept(model.config)
    grown = ours in map(pick_kept, list_grown(theirs))
    if not grown and (others := find_differences(pick_kept(theirs), ours)):
        raise ValueError(f"{what}: weights of another model ({'; '.join(others)}): expected weights of the same")
    own = model.state_dict()
    state = {name: value for name, value in tensors.items() if head or not name.startswith("head.")}
    left = sorted(state.keys() - own.keys()) if grown else []
    state = {name: value for name, value in state.items() if name not in left}
    report = [f"{len(state)} tensors: taken", *(f"{name}: left, a probe is in its place" for name in left)]
    for name in [name for name in state if ".position.tables." in name and name in own]:
        if state[name].ndim != own[name].ndim:
            continue  # `load_strict` says so
        was, now = Grid(*state[name].shape[:3]), Grid(*own[name].shape[:3])
        if was != now and 0 not in was:
            position = model.get_submodule(name.rpartition(".tables.")[0])
            assert isinstance(position, LearnedPosition)
            state[name] = position.resample(state[name], now).expand(own[name].shape)
            report.append(f"{name}: resampled from {was.t} x {was.h} x {was.w} to {now.t} x {now.h} x {now.w}")
    fresh = {name: own[name] for name in own if name not in state} if grown else {}
    parts = dict.fromkeys(".".join(name.split(".")[:2]) for name in fresh if not name.startswith("head."))
    report += [f"{part}: left fresh" for part in parts]
    if head:
        load_strict(model, fresh | state, what=what)
        return report
    state |= fresh | {name: value for name, value in own.items() if name.startswith("head.")}
    load_strict(model, state, what=what)
    return [*report, "head: left fresh"]


def pick_kept(config: ModelConfig) -> dict[str, Any]:
    return {key: value for key, value in config.to_json().items() if key in KEPT}
