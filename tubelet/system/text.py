"""Text from outside, such as names of files and classes: fit for a terminal, a table, JSON.

Tables are opened in spreadsheets, which compute what begins like a formula. Such a cell gets a sign before it, and only
such a cell, so that reading it back is exact: a path "./", with which it names the same file to any program; another
text "'", as spreadsheets themselves mark text. Numbers stay numbers, also as names of classes, such as -1.
"""

import json
import math
import os
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # Unicode's categories: controls, formats, surrogates, ends of lines
JOINERS = "\u200c\u200d"  # Persian and many an emoji are spelled with them


def visible(text: object) -> str:
    """A text with every character spelled out that would move the cursor, set a colour, break the line or turn round
    the words, such as \\x1b or \\u202e, and stray bytes of names that are no UTF-8; letters of any script stay."""
    words = str(text)
    if words.isprintable():
        return words
    return "".join(
        letter
        if letter in JOINERS or unicodedata.category(letter) not in HIDDEN
        else letter.encode("unicode_escape").decode()
        for letter in words
    )


def plural(number: float, noun: str) -> str:
    """ "1 clip", "1.5 epochs", "0 classes": how many of what."""
    ending = "" if number == 1 else "es" if noun.endswith(("s", "x", "tch", "sh")) else "s"
    return f"{number if isinstance(number, int) else format(number, 'g')} {noun}{ending}"


def visible_lines(text: object) -> str:
    """`visible` for our messages, whose further lines begin with two spaces: these line breaks stay."""
    return "\n  ".join(map(visible, str(text).split("\n  ")))


FORMULA = "[=+@\t\r-]"
_PATH, _MARKED_PATH = re.compile(rf"(\./)*{FORMULA}"), re.compile(rf"(\./)+{FORMULA}")
_TEXT, _MARKED_TEXT = re.compile(rf"'*{FORMULA}"), re.compile(rf"'+{FORMULA}")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?", re.ASCII)


def path_cell(path: str) -> str:
    """ "=1+1.mp4" -> "./=1+1.mp4"; undone by `read_path_cell`, whatever the path."""
    return f"./{path}" if _PATH.match(path) else path


def read_path_cell(cell: str) -> str:
    return cell.removeprefix("./") if _MARKED_PATH.match(cell) else cell


def text_cell(text: str) -> str:
    """ "@home" -> "'@home"; undone by `read_text_cell`, whatever the text."""
    return f"'{text}" if _TEXT.match(text) and not _NUMBER.fullmatch(text) else text


def read_text_cell(cell: str) -> str:
    return cell.removeprefix("'") if _MARKED_TEXT.match(cell) else cell


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


def decimal(figure: float, places: int = 3) -> str:
    """A figure with so many places; "–" where it is not finite."""
    return f"{figure:.{places}f}" if math.isfinite(figure) else "–"


def percent(share: float | None, digits: int = 1) -> str:
    """0.931 -> "93.1 %", None -> "–"; as many more digits as it takes not to call 99.996 % all, or 0.004 % nothing."""
    if share is None or not math.isfinite(share):
        return "–"
    text = f"{math.floor(100 * share * 10**digits + 0.5) / 10**digits:.{digits}f}"  # a half goes up, as people expect
    if float(text) in (0, 100) and share not in (0, 1):
        return percent(share, digits + 1)
    return text + "\N{NO-BREAK SPACE}%"


def list_names(names: Sequence[str], most: int = 10) -> str:
    """ "a, b and 7 more": names in a sentence."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def is_count(value: object, *, least: int = 1) -> bool:
    """Whether a value read from JSON is a whole number that sizes can have, and no truth value."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**63


def is_number(value: object) -> bool:
    """Whether a value read from JSON is a finite number of a size that is met in settings."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12
