"""Weights of other programs as weights of ours, converted once and kept for later."""

import hashlib
import os
from pathlib import Path

from tubelet.convert.conversion import convert
from tubelet.system.files import cache_folder
from tubelet.weights.dialects.reference import recognise
from tubelet.weights.dialects.rename import ForeignState
from tubelet.weights.dialects.timm import TIMM, VIT
from tubelet.weights.formats.open import read_foreign
from tubelet.weights.pretrained import find_weights


def convert_once(weights: str, *, plain: bool = False) -> Path | None:
    """The file of ours made of foreign weights, by a path or a name on the hub; None for a plain image ViT in timm's
    names, which a model of any family may start from: that is converted where `plain`, too.

    Raises:
        ValueError: weights that are not to be had, or that no dialect reads.
    """
    path = find_weights(weights)
    foreign = read_foreign(path)
    try:
        dialect = recognise(foreign.state)
    except ValueError as error:
        raise ValueError(f"{foreign.file}: {error}") from error
    if not plain and dialect == TIMM.name and TIMM.piece_of(ForeignState(foreign.state)) is VIT:
        return None
    stat = foreign.file.stat()
    known = [os.path.realpath(foreign.file), stat.st_size, stat.st_mtime_ns]
    key = hashlib.sha256(repr(known).encode()).hexdigest()[:16]
    file = cache_folder() / "converted" / f"{key}.safetensors"
    return file if file.is_file() else convert(path, file, show=False)
