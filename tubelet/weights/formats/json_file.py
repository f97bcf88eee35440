"""JSON that strangers wrote, parsed without giving it more memory or time than its size deserves."""

import json
from typing import Any

MOST_BYTES = 16 * 2**20
MOST_BRACKETS = 400_000  # a list in memory takes 30 times the two bytes that it takes in the text
MOST_COMMAS = 1_200_000


def parse(text: bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is no JSON, too large, nested too deep, or an object names a key twice. It names no file.
    """
    if len(text) > MOST_BYTES:
        raise ValueError(f"{len(text)} bytes of JSON, expected at most {MOST_BYTES}")
    if text.count(b"[") + text.count(b"{") > MOST_BRACKETS or text.count(b",") > MOST_COMMAS:
        raise ValueError(f"more than {MOST_BRACKETS} lists and objects, or {MOST_COMMAS} entries in them")
    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=read_object)
    except RecursionError as error:
        raise ValueError("its JSON is nested too deep") from error
    except ValueError as error:
        raise ValueError(f"no JSON: {error}") from error


def read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the key {name[:80]!r} is there twice")
        found[name] = value
    return found
