"""The labels of mirrored and of reversed clips: from a file, or from the class names."""

import csv
import io
import json
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Words = tuple[str, ...]

COLUMNS = ("label", "mirrored", "reversed")

# Spellings that mean the same word.
_SAME = {
    "cw": "clockwise",
    "ccw": "counterclockwise",
    "acw": "counterclockwise",
    "anticlockwise": "counterclockwise",
    "leftwards": "leftward",
    "rightwards": "rightward",
    "forwards": "forward",
    "backwards": "backward",
}
_PAIRS = [("left", "right"), ("leftward", "rightward"), ("east", "west"), ("clockwise", "counterclockwise")]
_SIDES = dict(_PAIRS) | {other: one for one, other in _PAIRS}
_MORE = [("up", "down"), ("in", "out"), ("forward", "backward"), ("forward", "reversed")]
_WAYS = {*_SIDES.items(), *_MORE, *((other, one) for one, other in _MORE)}
# Beside one of these, a way does not say all that is undone by playing backwards.
_UNDONE = re.compile(
    r"(to|from|then)$|((dis)?appear|clos|enter|exit|fall|(un)?fold|leav|(un)?load|lower|open|(un)?plug|pull|push|rais|ris|"
    r"sit|stand|start|stop)"
)


@dataclass(frozen=True)
class LabelSwaps:
    """The label of each class after a change of the clip; None where the change must not be made.

    mirrored: after a horizontal flip. reversed: after playing backwards. notes: what was found, a sentence for each.
    """

    mirrored: dict[str, str] | None
    reversed: dict[str, str] | None
    notes: tuple[str, ...]


def find_swaps(classes: tuple[str, ...]) -> LabelSwaps:
    """Class names -> how their labels change. Words are told apart at non-letters and camelCase, in any case.

    A flip swaps left and right, clockwise and counterclockwise, east and west; a class without such words stays as it
    is. Playing backwards swaps these, and up and down, in and out, forward and backward or reversed, where they end a
    name; it is made only if every class has exactly one partner. Doubt switches a change off, for a wrong label is
    worse than a missing augmentation.
    """
    mirrored, flip_note = _partners(classes, _flip, change="horizontal flip")
    backwards, reverse_note = _partners(classes, _reverse, change="playing backwards")
    return LabelSwaps(mirrored, backwards, (flip_note, reverse_note))


def read_swaps(file: Path, classes: tuple[str, ...]) -> LabelSwaps:
    """The swaps in a CSV table, or a JSON list of objects, of label, mirrored, reversed.

    A class that is not in the file, or has an empty cell, keeps its label; a change whose column is not there is not
    made.

    Raises: ValueError: no such file, columns or classes that there are not, or swaps that are not mutual.
    """
    rows = _read_rows(file)
    columns = {name for row in rows for name in row}
    if "label" not in columns or not columns & {"mirrored", "reversed"} or columns - set(COLUMNS):
        got = ", ".join(sorted(columns)) or "none"
        raise ValueError(f"{file}: columns {got}; expected label and mirrored, or reversed, or both")
    swaps = {change: {label: label for label in classes} for change in COLUMNS[1:] if change in columns}
    wrong = [f"no class {name!r}" for row in rows for name in row.values() if name and name not in classes]
    labels = [row["label"] for row in rows if row.get("label")]
    wrong += [f"{label!r} is there twice" for label in sorted(set(labels)) if labels.count(label) > 1]
    wrong += ["a row without a label"] if len(labels) < len(rows) else []
    for change, partners in swaps.items():
        partners |= {row["label"]: row[change] for row in rows if row.get("label") and row.get(change)}
        wrong += [
            f"{label!r} {change} is {other!r}, and {other!r} {change} is {partners[other]!r}, expected {label!r}"
            for label, other in partners.items()
            if partners.get(other, label) != label
        ]
    if wrong:
        raise ValueError(f"{file}: {'; '.join(dict.fromkeys(wrong))}. The classes are {', '.join(classes)}")
    words = {"mirrored": "horizontal flip", "reversed": "playing backwards"}
    notes = [_note(swaps.get(change), words[change]) for change in COLUMNS[1:]]
    return LabelSwaps(swaps.get("mirrored"), swaps.get("reversed"), tuple(notes))


def _read_rows(file: Path) -> list[dict[str, str]]:
    """The rows of a table, CSV or JSON, by the names of their columns."""
    try:
        text = file.read_text(encoding="utf-8-sig")
        if file.suffix.lower() != ".json":
            lines = csv.DictReader(io.StringIO(text, newline=""), restkey="more cells than columns", strict=True)
            return [{name: str(cell or "").strip() for name, cell in row.items()} for row in lines]
        return [{name: cell.strip() for name, cell in row.items()} for row in json.loads(text)]
    except (OSError, ValueError, csv.Error, AttributeError, TypeError) as error:
        expected = "a CSV table, or a JSON list of objects of texts, of label, mirrored, reversed"
        raise ValueError(f"{file}: not readable as {expected} ({error})") from error


def _partners(
    classes: tuple[str, ...], change_words: Callable[[Words], set[Words]], *, change: str
) -> tuple[dict[str, str] | None, str]:
    """The partner of every class, and a note; no partners at all where one class has none, or has several."""
    words = {label: _words(label) for label in classes}
    known = {key: label for label, key in words.items()}
    if twice := [label for label in classes if known[words[label]] != label]:
        return None, f"{change} is off: {twice[0]!r} and {known[words[twice[0]]]!r} read as the same words"
    partners = {}
    for label in classes:
        found = sorted(known[key] for key in change_words(words[label]) if key in known)
        if not found:
            return None, f"{change} is off: {label!r} has no partner (--label-swaps can name it)"
        if len(found) > 1:
            return None, f"{change} is off: {label!r} could become {' or '.join(map(repr, found))}"
        partners[label] = found[0]
    return partners, _note(partners, change)


def _note(partners: dict[str, str] | None, change: str) -> str:
    if partners is None:
        return f"{change} is off"
    swaps = ", ".join(f"{a} <-> {b}" for a, b in sorted(partners.items()) if a < b)
    return f"{change} swaps {swaps}" if swaps else f"{change} keeps every label"


def _words(label: str) -> Words:
    """'TurnLeft', 'turn-left', 'turn_LEFT' -> ('turn', 'left'). Digits and other signs stay, so names stay apart."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", unicodedata.normalize("NFC", label))
    words = re.findall(r"[^\W\d_]+|\d+|[^\w\s.,/-]", spaced.casefold())
    joined = re.sub(r"\b(counter|anti) clock", r"\1clock", " ".join(words)).replace("clock wise", "clockwise")
    return tuple(_SAME.get(word, word) for word in joined.split())


def _flip(words: Words) -> set[Words]:
    return {tuple(_SIDES.get(word, word) for word in words)}


def _reverse(words: Words) -> set[Words]:
    """The names that `words` could bear when played backwards, as far as their last word tells."""
    if any(_UNDONE.match(word) for word in words):
        return set()
    return {(*words[:-1], other) for one, other in _WAYS if words[-1:] == (one,)}
