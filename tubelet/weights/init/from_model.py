"""Starts a model from weights of ours: the same model, trained before, for other classes or another size of clip."""

import os

from tubelet.nn.config import find_differences
from tubelet.nn.grid import Grid
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.nn.position import resample
from tubelet.weights.store import load_strict, open_model

KEPT = ("embed", "stages", "channels")  # what a model has in common with the one it starts from


def init_from_model(model: SpaceTimeTransformer, path: str | os.PathLike[str]) -> list[str]:
    """Fills `model`, but for its head, from a file or folder of ours and returns what was done, a line for each piece.

    Raises:
        ValueError: no weights of ours, or those of another kind of model; the model is then unchanged.
    """
    file = open_model(path)
    theirs, ours = ({key: config.to_json()[key] for key in KEPT} for config in (file.config(), model.config))
    if others := find_differences(theirs, ours):
        raise ValueError(f"{path}: weights of another model ({'; '.join(others)}): expected weights of the same")
    own = model.state_dict()
    state = {name: value for name, value in file.tensors().items() if not name.startswith("head.")}
    report = [f"{len(state)} tensors: taken"]
    for name in [name for name in state if ".position.tables." in name and name in own]:
        if state[name].ndim != own[name].ndim:
            continue  # `load_strict` says so
        was, now = Grid(*state[name].shape[:3]), Grid(*own[name].shape[:3])
        if was != now and 0 not in was:
            position = model.get_submodule(name.rpartition(".tables.")[0])
            state[name] = resample(state[name], now, keep_aspect=bool(position.keep_aspect)).expand(own[name].shape)
            report.append(f"{name}: resampled from {was.t} x {was.h} x {was.w} to {now.t} x {now.h} x {now.w}")
    state |= {name: value for name, value in own.items() if name.startswith("head.")}
    load_strict(model, state, what=str(path))
    return [*report, "head: left fresh"]
