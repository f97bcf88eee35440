"""Weights of other programs as weights of ours, converted once and kept for later."""

import hashlib
import os
from pathlib import Path

from tubelet.convert.conversion import convert, recognise_in
from tubelet.system.files import cache_folder
from tubelet.weights.dialects.rename import ForeignState
from tubelet.weights.dialects.timm import TIMM, VIT
from tubelet.weights.formats.open import find_weights as find_file
from tubelet.weights.formats.safetensors_file import check_header
from tubelet.weights.pretrained import find_weights


def convert_once(weights: str, *, plain: bool = False) -> Path | None:
    """The file of ours made of foreign weights, by a path or a name on the hub; None for a plain image ViT in timm's
    names, which a model of any family may start from: that is converted where `plain`, too.

    Raises:
        ValueError: weights that are not to be had, or that no dialect reads.
    """
    path = find_weights(weights)
    theirs = find_file(path)
    if not plain and is_plain_vit(theirs):
        return None
    stat = theirs.stat()
    known = [os.path.realpath(theirs), stat.st_size, stat.st_mtime_ns]
    key = hashlib.sha256(repr(known).encode()).hexdigest()[:16]
    file = cache_folder() / "converted" / f"{key}.safetensors"
    return file if file.is_file() else convert(path, file, show=False)


def is_plain_vit(file: Path) -> bool:
    """Whether a file holds a plain image ViT in timm's names: by the names of its tensors, none of which is read."""
    if file.suffix != ".safetensors":
        return False
    names = ForeignState(check_header(file).tensors)
    return recognise_in(file, names.names) == TIMM.name and TIMM.piece_of(names) is VIT
