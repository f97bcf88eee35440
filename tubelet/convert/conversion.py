"""Weights of other programs to ours, ready to predict with, and ours to theirs."""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
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
from tubelet.weights.dialects.reference import Source, find_dialect, read_reference, recognise, to_reference
from tubelet.weights.dialects.settings import Given, labels
from tubelet.weights.formats.open import Foreign, read_foreign
from tubelet.weights.formats.pickle_file import WARNING
from tubelet.weights.store import FILE, load, open_model, save

EXAMPLES = {"video": "clip.mp4", "image": "picture.jpg", "sound": "sound.wav"}
WORDS = {"heads": "the number of attention heads", "clip": "the size of clip they are made for"}


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
        given: heads, clip, family, attend, frames, stride, window, as for `tubelet.weights.from_reference`.

    Raises:
        ValueError: weights that cannot be read, do not fit, or need a setting that stands nowhere.
    """
    check_free(dst)
    refuse_ours(src)
    if unsafe_pickle and show:
        say("--unsafe-pickle", WARNING)
    foreign = read_foreign(src, unsafe_pickle=unsafe_pickle)
    source = resolve(foreign, dialect or recognise(foreign.state), classes, given)
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
    file = save(model, dst, about=about)
    if show:
        if foreign.within:
            say("weights", f"taken from {foreign.within!r} in {foreign.file.name}")
        show_account(f"{len(foreign.state)} tensors of {dialect} weights", conversion.moves, foreign.dropped)
        show_model(model, file, spec, names, notes)
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
        said = f"heads {config.stages[0].heads}, clip {model.input_size}, mean {config.mean}, std {config.std}"
        rows = [("file", str(file)), ("note", f"weights alone, without a config.json; they do not say: {said}")]
        facts(f"{len(state)} tensors in the names of {dialect}", rows)
    return file


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


def resolve(foreign: Foreign, dialect: str, classes: Sequence[str] | Path | None, given: Mapping[str, Any]) -> Source:
    """The weights of a file with all that must be known: what is given, else what the settings beside them say, else
    what the tensors do.

    Raises:
        ValueError: the heads or the clip stand nowhere, or something is of the wrong kind.
    """
    spoken = find_dialect(dialect)
    settings = spoken.read_settings(foreign.config, foreign.preprocessor)
    values: dict[str, Any] = {
        **{name: getattr(settings, name) for name in ("heads", "clip", "stride", "window")},
        **{name: value for name, value in given.items() if value is not None},
    }
    if not values["heads"]:  # flax's query kernels are (D, heads, D / heads)
        kernels = [x.shape for name, x in foreign.state.items() if name.endswith("/query/kernel") and x.ndim == 3]
        values["heads"] = kernels[0][1] if kernels else None
    for name, flag in (("heads", "--heads N"), ("clip", "--clip T H W")):
        if values[name] is None:
            beside = "says it neither" if foreign.config else "is not there"
            raise ValueError(
                f"{foreign.file}: {dialect} weights do not tell {WORDS[name]}, and config.json beside them {beside}: "
                f"add {flag} ({name}= in Python)"
            )
    if isinstance(values["heads"], Sequence) and len(values["heads"]) == 1:
        values["heads"] = values["heads"][0]
    if classes is not None:
        names = read_classes(classes) if isinstance(classes, Path) else list(classes)
        settings = replace(settings, classes=labels(names))
    return Source(state=foreign.state, dialect=spoken, given=Given(**values), settings=settings)


def read_classes(file: Path) -> list[str]:
    """Class names, one a line. Raises ValueError: no such file, or none in it."""
    try:
        names = [line.strip() for line in file.read_text(encoding="utf-8").rstrip().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: not readable as text ({error}): expected class names, one a line") from error
    if not names or not all(names):
        raise ValueError(f"{file}: empty lines, expected class names, one a line")
    return names


def show_model(
    model: SpaceTimeTransformer, file: Path, spec: ClipSpec | None, names: Sequence[str] | None, notes: Sequence[str]
) -> None:
    config = model.config
    t, h, w = model.input_size
    size = f"{h} mel bins x {w} columns" if spec and spec.kind == "sound" else f"{h}x{w} px"
    apart = f", {spec.seconds_between_frames:.3g} s apart" if spec and spec.kind == "video" else ""
    shown = ", ".join((names or ())[:6]) + (", ..." if names and len(names) > 6 else "")
    rows = [
        ("model", f"{format_name(config)}, {count_parameters(model):,} parameters"),
        ("input", f"{t} frames of {size}{apart}" if t > 1 else size),
        ("classes", f"{config.num_classes}: {shown or 'without names'}" if config.num_classes else "none: features"),
        ("file", str(file)),
        *(("note", note) for note in notes),
        ("next", next_step(file, config, spec, names)),
    ]
    facts("What it is", rows)


def next_step(file: Path, config: ModelConfig, spec: ClipSpec | None, names: Sequence[str] | None) -> str:
    if config.num_classes and spec and not names:
        return "to predict, convert to another place with --classes FILE, class names, one a line"
    if spec and names:
        return f"tubelet predict {shlex.quote(str(file))} {EXAMPLES[spec.kind]}"
    call = "model(clip)" if config.num_classes else "model.features(clip)"
    return f"model = tubelet.load({str(file)!r}) in Python; then {call}"
