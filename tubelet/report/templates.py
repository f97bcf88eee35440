"""The templates of pages and cards, and how what is filled in is written."""

import re
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tubelet.system.text import percent, plural, visible

if TYPE_CHECKING:
    from jinja2 import Environment


def open_templates(*, html: bool) -> "Environment":
    """The templates of this room; html: names are escaped."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(lambda name: files("tubelet.report").joinpath(name).read_text("utf-8")),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=printable,  # all that is printed passes through here: no value can be forgotten
    )
    environment.filters |= {
        "percent": percent,
        "share": format_share,
        "width": format_width,
        "setting": format_setting,
        "without_folders": without_folders,
        "plural": plural,
        "markdown": markdown,
    }
    return environment


def format_width(share: float) -> str:
    return f"{100 * min(max(0.0, share), 1.0):.2f}%"  # of NaN nothing, in this order


def format_share(value: Any) -> str:
    """A cell of a table: a share, or "–" where it is not known; all else as it is."""
    return percent(value) if value is None or isinstance(value, float) else str(value)


def format_setting(value: Any) -> str:
    """The value of a setting, as a reader would write it."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, list):
        return ", ".join(map(format_setting, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {format_setting(part)}" for key, part in value.items())
    return str(value)


def without_folders(value: Any) -> Any:
    """A card goes out into the world: a path would tell how its author's folders are called."""
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def printable(value: Any) -> Any:
    """Control characters, text-direction overrides and stray bytes of file names, spelled out; the rest as it is."""
    return visible(value) if type(value) is str else value


def markdown(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|#&~])", r"\\\1", printable(text))
