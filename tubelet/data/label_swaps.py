"""What a clip's label becomes when the clip is mirrored or played backwards, read off the class names."""

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

Words = tuple[str, ...]

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
_SIDES = "left right, leftward rightward, east west, clockwise counterclockwise"
_DIRECTIONS = "up down, in out, forward backward, forward reverse, forward reversed, upward downward, inward outward"
_DEEDS = (
    "open close, opens closes, opened closed, opening closing, enter exit, enters exits, entering exiting, "
    "enter leave, enters leaves, entering leaving, push pull, pushes pulls, pushing pulling, rise fall, rises falls, "
    "rising falling, raise lower, raises lowers, raising lowering, load unload, loads unloads, loading unloading, "
    "plug unplug, plugs unplugs, plugging unplugging, fold unfold, folds unfolds, folding unfolding, sit stand, "
    "sits stands, sitting standing, appear disappear, appears disappears, appearing disappearing, start stop, "
    "starts stops, starting stopping"
)


@dataclass(frozen=True)
class Mirrors:
    """The label of each class after a change of the clip; None where the change must not be made.

    flip: after a horizontal flip. reverse: after playing backwards. notes: what was found, a sentence for each.
    """

    flip: dict[str, str] | None
    reverse: dict[str, str] | None
    notes: tuple[str, ...]


def find_mirrors(classes: tuple[str, ...]) -> Mirrors:
    """Class names -> how their labels change. Words are told apart at non-letters and camelCase, in any case.

    A flip swaps left/right, clockwise/counterclockwise, east/west and the like; a class without such words stays as it
    is. Played backwards, opening becomes closing, and a class without such a word becomes nothing we have a name for:
    `reverse` is a dict only if every class has exactly one partner. Doubt switches a change off, for a wrong label is
    worse than a missing augmentation.
    """
    flip, flip_notes = _partners(classes, _flipped, change="horizontal flip")
    reverse, reverse_notes = _partners(classes, _reversed, change="playing backwards")
    return Mirrors(flip, reverse, (*flip_notes, *reverse_notes))


def as_indices(partners: dict[str, str] | None, classes: tuple[str, ...]) -> tuple[int, ...] | None:
    """{label: label} -> for each class number, its partner's number; None stays None."""
    return None if partners is None else tuple(classes.index(partners[label]) for label in classes)


def _partners(
    classes: tuple[str, ...], change_words: Callable[[Words], set[Words]], *, change: str
) -> tuple[dict[str, str] | None, list[str]]:
    """The partner of every class, and the notes; no partners at all where one class has none, or has several."""
    words = {label: _words(label) for label in classes}
    known = {key: label for label, key in words.items()}
    twice = [label for label in classes if known[words[label]] != label]
    if twice:
        return None, [f"{change} is off: {twice[0]!r} and {known[words[twice[0]]]!r} read as the same words"]
    partners = {}
    for label in classes:
        found = sorted(known[key] for key in change_words(words[label]) if key in known)
        if not found:
            return None, [f"{change} is off: {label!r} has no partner"]
        if len(found) > 1:
            return None, [f"{change} is off: {label!r} could become {' or '.join(map(repr, found))}"]
        partners[label] = found[0]
    swaps = ", ".join(f"{a} <-> {b}" for a, b in sorted(partners.items()) if a < b)
    return partners, [f"{change} swaps {swaps}" if swaps else f"{change} keeps every label"]


def _words(label: str) -> Words:
    """'TurnLeft', 'turn-left', 'turn_LEFT' -> ('turn', 'left'). Digits and other signs stay, so names stay apart."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", unicodedata.normalize("NFC", label))
    words = re.findall(r"[^\W\d_]+|\d+|[^\w\s.,/-]", spaced.casefold())
    joined = re.sub(r"\b(counter|anti) clock", r"\1clock", " ".join(words)).replace("clock wise", "clockwise")
    return tuple(_SAME.get(word, word) for word in joined.split())


def _table(*pairs: str) -> dict[str, list[str]]:
    """'a b, a c' -> {'a': ['b', 'c'], 'b': ['a'], 'c': ['a']}."""
    table: dict[str, list[str]] = {}
    for pair in ", ".join(pairs).split(", "):
        one, other = pair.split()
        table.setdefault(one, []).append(other)
        table.setdefault(other, []).append(one)
    return table


_FLIP = _table(_SIDES)
_MOVE = _table(_SIDES, _DIRECTIONS)
_DEED = _table(_DEEDS)


def _flipped(words: Words) -> set[Words]:
    return {tuple(_FLIP.get(word, [word])[0] for word in words)}


def _reversed(words: Words) -> set[Words]:
    """Every name that `words` could bear when played backwards."""
    if "then" in words:
        parts = reversed(list(_split(words, "then")))
        return {_join(chosen, "then") for chosen in product(*(_undone(part) or {part} for part in parts))}
    return (_undone(words) | _turned_way(words) | _marked(words)) - {words}


def _undone(words: Words) -> set[Words]:
    """Words with every deed undone and any of the directions turned.

    The deed must turn, for its opposite is what is seen; a direction may (sit down, stand up) or may not (raise, lower
    the left hand). Several of these names in one data set leave a doubt, which `_partners` reports.
    """
    choices = []
    for place, word in enumerate(words):
        if word in _DEED:
            choices.append(_DEED[word])
        elif word in _MOVE and not _names_a_side(words, place):
            choices.append([word, *_MOVE[word]])
        else:
            choices.append([word])
    return set(product(*choices)) - {words}


def _names_a_side(words: Words, place: int) -> bool:
    """Left and right before another word, as in 'wave left hand', say which one and not where to."""
    after = words[place + 1] if place + 1 < len(words) else "to"
    return words[place] in ("left", "right") and after.isalpha() and after not in ("to", "and", *_MOVE, *_DEED)


def _turned_way(words: Words) -> set[Words]:
    """'red to green' -> 'green to red'; 'walk from a to b' -> 'walk from b to a'; 'run to goal' <-> 'run from goal'."""
    if "to" in words and "from" in words:
        start, to = words.index("from") + 1, words.index("to")
        if start > to or words.count("from") > 1 or words.count("to") > 1:
            return set()
        return {(*words[:start], *words[to + 1 :], "to", *words[start:to])}
    ways = {tuple({"to": "from", "from": "to"}.get(word, word) for word in words)}
    if words.count("to") == 1:
        start_words, end_words = _split(words, "to")
        ways.add((*end_words, "to", *start_words))
    return ways


def _marked(words: Words) -> set[Words]:
    """'wave' <-> 'wave reversed'."""
    return {words[:-1]} if words[-1:] == ("reversed",) else {(*words, "reversed")}


def _split(words: Words, at: str) -> Iterator[Words]:
    start = 0
    for place, word in enumerate((*words, at)):
        if word == at:
            yield words[start:place]
            start = place + 1


def _join(parts: tuple[Words, ...], between: str) -> Words:
    joined = parts[0]
    for part in parts[1:]:
        joined = (*joined, between, *part)
    return joined
