"""The account of a conversion: what became of each tensor, in a table that a person reads."""

import re
from collections.abc import Sequence

from rich.table import Table

from tubelet.system.console import console
from tubelet.weights.dialects.rename import Move

NUMBER = re.compile(r"(?<![^./])\d+(?=[./])|(?<=encoderblock_)\d+")  # of a layer, within a name
SEPARATOR = re.compile(r"([./_])")
PART = re.compile(r"[./](weight|bias|kernel|scale)$")

Names = tuple[str, ...]
Row = tuple[str, str, str]  # theirs, ours, what was done


def show_account(title: str, moves: Sequence[Move], dropped: Sequence[str]) -> None:
    """Prints the moves, and what else was in the file."""
    table = Table(box=None, padding=(0, 2, 0, 0), title=title, title_justify="left", title_style="bold")
    table.expand = console.is_terminal
    table.add_column("theirs", overflow="fold", ratio=8)
    table.add_column("ours", overflow="fold", ratio=7)
    table.add_column("", overflow="fold", ratio=6)
    others = [(name, "", "left: a trainer's, no parameters") for name in dropped]
    for row in [*rows_of(moves), *others]:
        table.add_row(*row, style="yellow" if row[-1].startswith("left") else None)
    console.print(table)


def rows_of(moves: Sequence[Move]) -> list[Row]:
    """A row for all tensors that differ in nothing but the number of a layer; those of a block stand below it."""
    groups: dict[tuple[Names, str], dict[Names, Names]] = {}
    for move in moves:
        if move.ours:
            theirs = layers_in(move.theirs)
            alike = tuple(NUMBER.sub("*", name) for name in theirs)
            groups.setdefault((alike, move.how), {})[theirs] = layers_in(move.ours)
    rows: list[Row] = []
    block = None
    for (_, how), group in groups.items():
        theirs, ours, times = merged(list(group)), merged(list(group.values())), len(group)
        if not (stem(theirs) and stem(ours)):
            rows.append((braced(theirs), braced(ours), how if times == 1 else f"{how} ({times} times)"))
            continue
        if block != (block := (stem(theirs), stem(ours), times)):
            rows.append((block[0], block[1], f"{times} times"))
        rows.append(("  " + braced(parts_of(theirs)), "  " + braced(parts_of(ours)), how))
    return rows + left_rows([move for move in moves if not move.ours])


def left_rows(moves: Sequence[Move]) -> list[Row]:
    """A row for all that was left for one reason."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for move in moves:
        reasons.setdefault((SEPARATOR.split(move.theirs)[0], move.how), []).append(move.theirs)
    return [
        (names[0] if len(names) == 1 else f"{first}...: {len(names)} tensors", "", how)
        for (first, how), names in reasons.items()
    ]


def layers_in(names: str) -> Names:
    """ "a.b.weight + a.c.weight" -> "a.b", "a.c"."""
    return tuple(dict.fromkeys(PART.sub("", name) for name in names.split(" + ")))


def merged(lists: Sequence[Names]) -> Names:
    """One list for many: "a.0.b", "a.1.b" -> "a.*.b"."""
    columns = zip(*([SEPARATOR.split(name) for name in names] for names in lists), strict=True)
    return tuple("".join(part[0] if len(set(part)) == 1 else "*" for part in zip(*column)) for column in columns)


def stem(names: Names) -> str:
    """What a block is called, "" where there is none: "a.*.b" -> "a.*"."""
    return names[0][: names[0].rindex("*") + 1] if "*" in names[0] else ""


def parts_of(names: Names) -> Names:
    """The names within their block: "a.*.b" -> "b"."""
    return tuple(name.removeprefix(stem(names))[1:] for name in names)


def braced(names: Names) -> str:
    """ "a.q_proj", "a.k_proj" -> "a.{q,k}_proj"."""
    if len(names) == 1:
        return names[0]
    start = re.sub(r"[^./_]*$", "", common(names))
    inner = [name.removeprefix(start) for name in names]
    end = re.sub(r"^[^./_]*", "", common([name[::-1] for name in inner])[::-1])
    return start + "{" + ",".join(name.removesuffix(end) for name in inner) + "}" + end


def common(names: Sequence[str]) -> str:
    """What all names begin with."""
    shortest = min(names, key=len)
    return next((shortest[:i] for i in range(len(shortest)) if len({name[i] for name in names}) > 1), shortest)
