"""What a model sees at the steps of recordings: made once, kept on disk, a feature file for each recording."""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from tubelet.data.segments import Recording
from tubelet.features.store import read_features, write_features
from tubelet.media.reader import MediaError
from tubelet.predict.predictor import Predictor
from tubelet.stream.segmenter import Segmenter
from tubelet.system.console import bar, clock

KEY_LENGTH = 16

Steps = dict[str, Tensor]  # (S, D) of each recording, by its path


def see_recordings(
    predictor: Predictor, root: Path, recordings: Sequence[Recording], folder: Path, *, show: bool
) -> tuple[Steps, dict[str, str]]:
    """The steps of recordings, from files in a folder where they are there; and why others cannot be read."""
    segmenter = Segmenter.untrained(predictor, 1.0)
    key = segmenter.key
    folder = folder / key[:KEY_LENGTH]
    folder.mkdir(parents=True, exist_ok=True)
    found, failed, begun = Steps(), dict[str, str](), time.monotonic()
    total = round(sum(one.seconds for one in recordings))
    with bar("seeing", total, show=show) as progress:
        for one in recordings:
            try:
                found[one.path] = see_recording(segmenter, root / one.path, folder, key)
            except MediaError as error:
                failed[one.path] = str(error)
            speed = (progress.done + one.seconds) / max(time.monotonic() - begun, 1e-9)
            progress.advance(f"{clock(progress.done)} of {clock(total)}  {speed:.3g}x real time", by=round(one.seconds))
    return found, failed


def see_recording(segmenter: Segmenter, path: Path, folder: Path, key: str) -> Tensor:
    """(S, D). Raises MediaError where the recording cannot be read to its end."""
    try:
        stat = os.stat(path)
    except OSError:  # reading it says why
        return segmenter.see(path)
    name = json.dumps([os.path.realpath(path), stat.st_size, stat.st_mtime_ns])
    file = folder / (hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:KEY_LENGTH] + ".safetensors")
    try:
        steps, _ = read_features(file, key=key)
        return steps
    except (ValueError, OSError):  # not there, or not whole
        steps = segmenter.see(path)
        write_features(file, steps, key=key, path=str(path), seconds=(None, None))
        return torch.as_tensor(steps)
