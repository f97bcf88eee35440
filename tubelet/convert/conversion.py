"""Weights of other programs to ours, ready to predict with, and ours to theirs."""

import os
import re
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from tubelet.convert.published_inputs import clip_spec
from tubelet.convert.table import show_account
from tubelet.data.clip_spec import ClipSpec
from tubelet.nn.config import ModelConfig
from tubelet.nn.cost import count_parameters
from tubelet.nn.create import format_name
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.system.console import facts, say
from tubelet.system.files import write_aside
from tubelet.weights.dialects.dialect import Dialect
from tubelet.weights.dialects.reference import read_reference, recognise, to_reference
from tubelet.weights.dialects.resolve import resolve
from tubelet.weights.formats.open import read_foreign
from tubelet.weights.formats.pickle_file import WARNING
from tubelet.weights.store import FILE, load, open_model, save
from tubelet.weights.terms import Terms, write_terms

EXAMPLES = {"video": "clip.mp4", "image": "picture.jpg", "sound": "sound.wav"}
FOLDERS = {"video": "recordings/", "image": "pictures/", "sound": "recordings/"}
NON_COMMERCIAL = r"non-?commercial|\bnc\b|research"  # in the name of a licence


def convert(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *,
    dialect: str | None = None,
    classes: Sequence[str] | Path | None = None,
    seconds_between_frames: float | None = None,
    unsafe_pickle: bool = False,
    show: bool = True,
    **given: Any,
) -> Path:
    """Writes weights of another program as ours, with class names and ClipSpec where these are known; returns the file.

    What is left out is taken from the config.json beside the weights (Hugging Face's or timm's).

    Args:
        src: a .safetensors, flax msgpack or .npz file, or the folder of one.
        dst: a .safetensors file, or a folder that gets model.safetensors; nothing is overwritten.
        dialect: recognised by the names of the tensors.
        classes: names in the order of the model's outputs, or the path of a text file with one a line.
        seconds_between_frames: instead of what is usual for the model.
        unsafe_pickle: also read a pickle of torch (.pt, .pth, .pyth, .bin, .ckpt), by a restricted unpickler. That
            lowers the risk and does not remove it: only for a file whose origin you trust.
        show: print what was taken, what was left, and what it is.
        given: heads, clip, family, attend, frames, stride, window, gelu, as for `tubelet.weights.from_reference`.

    Raises:
        ValueError: weights that cannot be read, do not fit, or need a setting that stands nowhere.
    """
    check_free(dst)
    refuse_ours(src)
    if unsafe_pickle and show:
        say("--unsafe-pickle", WARNING)
    foreign = read_foreign(src, unsafe_pickle=unsafe_pickle)
    source = resolve(foreign, dialect or recognise_in(foreign.file, foreign.state), classes, given)
    conversion = read_reference(source)
    model = conversion.model
    names = source.settings.classes if model.config.num_classes else None
    if names and len(names) != model.config.num_classes:
        raise ValueError(
            f"{foreign.file}: {len(names)} class names for {model.config.num_classes} outputs: give --classes FILE, a "
            f"name a line"
        )
    spec, notes = clip_spec(source, model.config, seconds_between_frames=seconds_between_frames)
    dialect = source.dialect.name
    about: dict[str, Any] = {"converted": {"file": foreign.file.name, "dialect": dialect}}
    about |= ({"classes": list(names)} if names else {}) | ({"clip_spec": spec.to_json()} if spec else {})
    terms = terms_of(source.dialect.piece(model.config.family), source.settings.licence)
    about |= write_terms(terms)
    file = save(model, dst, about=about)
    if show:
        if foreign.within:
            say("weights", f"taken from {foreign.within!r} in {foreign.file.name}")
        show_account(f"{len(foreign.state)} tensors of {dialect} weights", conversion.moves, foreign.dropped)
        notes += [str(one) for one in terms] or ["their licence: see where you had them from"]
        show_model(model, file, spec, names, notes, gives=source.dialect.piece(model.config.family).gives)
    return file


def convert_back(src: str | os.PathLike[str], dst: str | os.PathLike[str], *, dialect: str, show: bool = True) -> Path:
    """Writes weights of ours under the names of another program; returns the file.

    Args:
        src: a run, or a model.safetensors file of ours.
        dst: a .safetensors file, or a folder that gets model.safetensors; nothing is overwritten.
        dialect: as for `tubelet.weights.to_reference`.

    Raises:
        ValueError: no weights of ours, or a model that the other program has no words for.
    """
    check_free(dst)
    model = load(src)
    state = to_reference(model, dialect)
    file = Path(dst) if Path(dst).suffix == ".safetensors" else Path(dst) / FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    with write_aside(file) as temporary:
        save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, temporary, {"format": "pt"})
    if show:
        config = model.config
        first = config.stages[0]
        gelu = f", gelu {first.gelu}" if first.kind == "blocks" else ""
        pooled = first.pool_heads if first.kind == "blocks" else None
        heads = f"{first.heads} of blocks, {pooled} of pooling" if pooled else first.heads
        said = f"heads {heads}, clip {model.input_size}, mean {config.mean}, std {config.std}{gelu}"
        rows = [("file", str(file)), ("note", f"weights alone, without a config.json; they do not say: {said}")]
        facts(f"{len(state)} tensors in the names of {dialect}", rows)
    return file


def recognise_in(file: Path, names: Collection[str]) -> str:
    """The dialect of the tensors in a file. Raises ValueError, which names it: none that we know."""
    try:
        return recognise(names)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def terms_of(dialect: Dialect, said: str | None = None) -> list[Terms]:
    """The terms under which weights were published: as `said` beside them, else those of all weights of their dialect,
    where it is one for all."""
    if not (said or dialect.licence):
        return []
    commercial = dialect.commercial if said is None else not re.search(NON_COMMERCIAL, said.lower())
    limits = {"commercial": commercial, "gated": dialect.gated}
    return [Terms(weights=f"{dialect.name} weights", licence=said or dialect.licence, **limits)]


def check_free(dst: str | os.PathLike[str]) -> None:
    path = Path(dst)
    empty_folder = path.is_dir() and not any(path.iterdir()) and path.suffix != ".safetensors"
    if path.exists() and not empty_folder:
        raise ValueError(f"{path} is there already, and nothing is overwritten: name a new file, or an empty folder")
    if blocked := next((parent for parent in path.parents if parent.is_file()), None):
        raise ValueError(f"{path}: {blocked} is a file, not a folder: name another place")


def refuse_ours(src: str | os.PathLike[str]) -> None:
    """Raises ValueError for weights of ours; what else `src` may be, is seen later."""
    try:
        open_model(src)
    except ValueError:
        return
    raise ValueError(f"{src}: weights of tubelet itself: add --to DIALECT to write them for another program")


def show_model(
    model: SpaceTimeTransformer,
    file: Path,
    spec: ClipSpec | None,
    names: Sequence[str] | None,
    notes: Sequence[str],
    *,
    gives: str = "",
) -> None:
    """Prints what a model is; `gives`: what its head gives, if no classes."""
    config = model.config
    t, h, w = model.input_size
    size = f"{h} mel bins x {w} columns" if spec and spec.kind == "sound" else f"{h}x{w} px"
    apart = f", {spec.seconds_between_frames:.3g} s apart" if spec and spec.kind == "video" else ""
    shown = ", ".join((names or ())[:6]) + (", ..." if names and len(names) > 6 else "")
    rows = [
        ("model", f"{format_name(config)}, {count_parameters(model):,} parameters"),
        ("input", f"{t} frames of {size}{apart}" if t > 1 else size),
        ("classes", describe_head(config.num_classes, shown, gives)),
        ("file", str(file)),
        *(("note", note) for note in notes),
        ("next", next_step(file, config, spec, names, embeds=bool(gives) or not config.num_classes)),
    ]
    facts("What it is", rows)


def describe_head(outputs: int, shown: str, gives: str) -> str:
    """What a head gives, in words; `shown`: names of classes, if there are."""
    if gives and outputs and not shown:
        return f"none: the head gives {outputs} numbers, {gives}; features are what it is given"
    return f"{outputs}: {shown or 'without names'}" if outputs else "none: features"


def next_step(
    file: Path, config: ModelConfig, spec: ClipSpec | None, names: Sequence[str] | None, *, embeds: bool
) -> str:
    if embeds and spec and not names:
        return f"tubelet embed {shlex.quote(str(file))} {FOLDERS[spec.kind]}"
    if config.num_classes and spec and not names:
        return "to predict, convert to another place with --classes FILE, class names, one a line"
    if spec and names:
        return f"tubelet predict {shlex.quote(str(file))} {EXAMPLES[spec.kind]}"
    call = "model(clip)" if config.num_classes else "model.features(clip)"
    return f"model = tubelet.load({str(file)!r}) in Python; then {call}"
