"""The account of a conversion: what became of each tensor, in a table that a person reads."""

import re
from collections.abc import Sequence
from dataclasses import replace

from rich.table import Table

from tubelet.system.console import console
from tubelet.weights.dialects.rename import Move

NUMBER = re.compile(r"(?<![^./])\d+(?=[./])|(?<=encoderblock_)\d+")  # of a layer, within a name

Row = tuple[str, str, str, str]  # theirs, ours, shape, what was done


def show_account(title: str, moves: Sequence[Move], dropped: Sequence[str]) -> None:
    """Prints the moves, and what else was in the file."""
    table = Table(box=None, padding=(0, 2, 0, 0), title=title, title_justify="left", title_style="bold")
    table.expand = console.is_terminal
    for name, ratio in (("theirs", 8), ("ours", 7), ("shape", 3), ("", 5)):
        table.add_column(name, overflow="fold", ratio=ratio)
    others = [(name, "", "", "left: a trainer's, no parameters") for name in dropped]
    for row in [*account_rows(moves), *others]:
        table.add_row(*row, style="yellow" if row[-1].startswith("left") else None)
    console.print(table)


def account_rows(moves: Sequence[Move]) -> list[Row]:
    """A row for all tensors that differ in the number of a layer alone, and for all that were left for one reason: the
    first of them, and how many they are."""
    moves = [part for move in moves for part in split_layers(move)]
    groups: dict[tuple[str, str, str], list[Move]] = {}
    for move in moves:
        kind = NUMBER.sub("*", move.theirs) if move.ours else re.split("[./_]", move.theirs)[0]
        groups.setdefault((kind, move.how, move.shape if move.ours else ""), []).append(move)
    return [
        (first.theirs, first.ours, first.shape, how if len(group) == 1 else f"{how}, {len(group)} times")
        for (_, how, _), group in groups.items()
        for first in group[:1]
    ]


def split_layers(move: Move) -> list[Move]:
    """A move for each layer, where one tensor holds a layer's of all layers."""
    ours, shapes = move.ours.split(" + "), move.shape.split(" + ")
    kinds = dict.fromkeys(NUMBER.sub("*", name) for name in ours)
    layers = range(0, len(ours), len(kinds))
    parts = [slice(start, start + len(kinds)) for start in layers] if move.ours else [slice(None)]
    return [replace(move, ours=" + ".join(ours[part]), shape=" + ".join(shapes[part])) for part in parts]
