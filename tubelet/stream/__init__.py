"""Streaming: what happens when in a long video. Importing this room imports no torch before it is used."""

from importlib import import_module
from typing import TYPE_CHECKING

from tubelet.stream.config import StreamConfig

if TYPE_CHECKING:
    from tubelet.stream.segments import Segment, Window, find_segments
    from tubelet.stream.stream import stream_fn, windows_of_file

__all__ = ["Segment", "StreamConfig", "Window", "find_segments", "stream_fn", "windows_of_file"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("tubelet.stream.stream"), name)
