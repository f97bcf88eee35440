"""JSON that every parser reads: ASCII, and null where a number is infinite or none."""

import json
import math
import os
from typing import Any


def dumps(value: Any, *, indent: int | None = None) -> str:
    """JSON of dicts, lists, tuples, paths and plain values. A byte of a file name that is no UTF-8 is \\udc80 to
    \\udcff, as Python reads it."""
    return json.dumps(plain(value), indent=indent, allow_nan=False)


def plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value
