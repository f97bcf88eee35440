"""Names from outside in tables that people open in a spreadsheet, which computes what begins like a formula.

Such a cell gets a sign before it, and only such a cell, so that reading it back is exact: a path "./", with which it
names the same file to any program; another text "'", as spreadsheets themselves mark text. Numbers stay numbers, also
as names of classes, such as -1.
"""

import re

FORMULA = "[=+@\t\r-]"
_PATH, _MARKED_PATH = re.compile(rf"(\./)*{FORMULA}"), re.compile(rf"(\./)+{FORMULA}")
_TEXT, _MARKED_TEXT = re.compile(rf"'*{FORMULA}"), re.compile(rf"'+{FORMULA}")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?", re.ASCII)


def path_cell(path: str) -> str:
    """ "=1+1.mp4" -> "./=1+1.mp4"; undone by `path_of`, whatever the path."""
    return f"./{path}" if _PATH.match(path) else path


def path_of(cell: str) -> str:
    return cell.removeprefix("./") if _MARKED_PATH.match(cell) else cell


def text_cell(text: str) -> str:
    """ "@home" -> "'@home"; undone by `text_of`, whatever the text."""
    return f"'{text}" if _TEXT.match(text) and not _NUMBER.fullmatch(text) else text


def text_of(cell: str) -> str:
    return cell.removeprefix("'") if _MARKED_TEXT.match(cell) else cell
