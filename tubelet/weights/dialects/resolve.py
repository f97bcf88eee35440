"""All that must be known of foreign weights: what is given, what is said beside them, what their tensors tell."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tubelet.nn.kernels import GELUS
from tubelet.weights.dialects.reference import Source, find_dialect
from tubelet.weights.dialects.rename import ForeignState
from tubelet.weights.dialects.settings import Given, labels
from tubelet.weights.formats.open import Foreign

WORDS = {"heads": "the number of attention heads", "clip": "the size of clip they are made for"}


def resolve(foreign: Foreign, dialect: str, classes: Sequence[str] | Path | None, given: Mapping[str, Any]) -> Source:
    """The weights of a file with all that must be known: what is given, else what the settings beside them say, else
    what the tensors do.

    Raises:
        ValueError: the heads or the clip stand nowhere, or something is of the wrong kind.
    """
    spoken = find_dialect(dialect)
    settings = spoken.read_settings(foreign.config, foreign.preprocessor)
    known = spoken.published(ForeignState(foreign.state))
    values: dict[str, Any] = {
        **{name: getattr(settings, name) or getattr(known, name) for name in ("heads", "clip", "stride", "window")},
        "gelu": settings.gelu if settings.gelu in GELUS else None,
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
    if given.get("gelu"):  # instead of what config.json says
        settings = replace(settings, gelu=None)
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
