"""Between the names of a reference program and ours: a dialect says once what corresponds, a link moves it."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tubelet.nn.grid import Grid

Array = Tensor | np.ndarray[Any, Any]
Ways = Callable[..., Sequence[Tensor]]

WRAPPERS = ("optimizer/target/", "opt/target/", "params/", "param/", "module.", "model.", "_orig_mod.")


class Rows(NamedTuple):
    """Another order of the rows of packed queries, keys and values: theirs -> ours, and ours -> theirs."""

    forth: Callable[[Tensor], Tensor]
    back: Callable[[Tensor], Tensor]


AS_THEY_ARE = Rows(lambda x: x, lambda x: x)


@dataclass(frozen=True)
class Move:
    """A line of the account: tensors of theirs, what they are with us ("" if nothing), what was done, and the shape of
    ours, or of theirs where nothing is with us."""

    theirs: str
    ours: str
    how: str
    shape: str


class ForeignState:
    """Tensors by their original names, without the wrappers that trainers put around them."""

    def __init__(self, state: Mapping[str, Array]):
        self.tensors = {name: as_float32(value) for name, value in state.items()}
        wrapper = find_wrapper(self.tensors)
        self.tensors = {name.removeprefix(wrapper): value for name, value in self.tensors.items()}
        self.names: Collection[str] = self.tensors

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def root(self, prefix: str) -> str:
        """`prefix` if tensors are called so, else "": the same weights are saved with and without a head on them."""
        return prefix if any(name.startswith(prefix) for name in self.tensors) else ""

    def shape(self, name: str, axes: int | None = None) -> tuple[int, ...]:
        """Raises ValueError unless there are so many `axes`, where that is said."""
        if name not in self.tensors:
            raise ValueError(describe_missing(name, self.tensors))
        shape = tuple(self.tensors[name].shape)
        if axes is not None and len(shape) != axes:
            raise ValueError(f"the tensor {name!r} has shape {shape}, expected {axes} axes: is the dialect right?")
        return shape

    def count(self, pattern: str) -> int:
        """Number of layers: the first i for which no tensor's name begins with `pattern` filled with i."""
        i = 0
        while any(name.startswith(pattern.format(i)) for name in self.tensors):
            i += 1
        return i

    def classes(self, head: str) -> int:
        """Outputs of a linear layer; 0 where there is none."""
        return self.shape(f"{head}.bias", 1)[0] if self.root(f"{head}.") else 0


class Link:
    """Moves tensors between `theirs` and `ours`: from theirs while reading, from ours while writing.

    Each tensor is taken once; `finish` refuses what is left over. `moves` is the account, `names` is what the weights
    that are read call their tensors (none while writing).
    """

    def __init__(self, source: Mapping[str, Tensor], *, reading: bool):
        self.source, self.result = dict(source), dict[str, Tensor]()
        self.reading = reading
        self.names: Collection[str] = tuple(source) if reading else ()
        self.moves: list[Move] = []

    def has(self, theirs: str) -> bool:
        """Whether the weights that are read have this tensor; never so while writing."""
        return theirs in self.names

    def root(self, prefix: str) -> str:
        """`prefix`, or "" where weights are read that call no tensor so."""
        return prefix if not self.names or any(name.startswith(prefix) for name in self.names) else ""

    def take(self, name: str) -> Tensor:
        if name not in self.source:
            raise ValueError(describe_missing(name, self.names or self.source))
        if not self.source[name].is_floating_point():
            raise ValueError(
                f"the tensor {name!r} is of {self.source[name].dtype}: quantised weights mean nothing without their "
                f"scales, take those in float32 or bfloat16"
            )
        return self.source.pop(name)

    def tie(self, theirs: Sequence[str], ours: Sequence[str], forth: Ways, back: Ways, how: str = "taken") -> None:
        """Tensors that correspond as groups: ours = forth(*theirs), theirs = back(*ours).

        Raises:
            ValueError: a tensor is missing, or of a shape that the way back would not give it.
        """
        taken, given = (theirs, ours) if self.reading else (ours, theirs)
        tensors = {name: self.take(name) for name in taken}
        values = move_tensors(tensors, forth, back) if self.reading else move_tensors(tensors, back, forth)
        self.result.update({name: value.contiguous() for name, value in zip(given, values, strict=True)})
        shape = " + ".join(sizes(tensor) for tensor in (values if self.reading else tensors.values()))
        self.moves.append(Move(" + ".join(theirs), " + ".join(ours), how, shape))

    def same(self, theirs: str, ours: str) -> None:
        """One tensor as it is."""
        self.tie([theirs], [ours], lambda x: [x], lambda x: [x])

    def linear(self, theirs: str, ours: str) -> None:
        """Weight and bias of a linear layer or a norm."""
        for part in ("weight", "bias"):
            self.same(f"{theirs}.{part}", f"{ours}.{part}")

    def kernel(self, theirs: str, ours: str, *, flat: bool) -> None:
        """Weight and bias of a tokeniser; `flat`: theirs has no axis of time, ours one of length 1."""
        weight = f"{theirs}.weight", f"{ours}.weight"
        if flat:
            self.tie(weight[:1], weight[1:], lambda x: [x[:, :, None]], lambda x: [x[:, :, 0]])
        else:
            self.same(*weight)
        self.same(f"{theirs}.bias", f"{ours}.bias")

    def packed(
        self, theirs: Sequence[str], ours: str, rows: Rows = AS_THEY_ARE, biases: Sequence[str] | None = None
    ) -> None:
        """Query, key and value as layers of their own with them, or one and two, or packed in one, as with us; `rows`
        in another order. `biases`: see `biases` of this class, where they do not lie beside the weights."""
        shares = [(3,), (1, 2), (1, 1, 1)][len(theirs) - 1]
        if biases is not None:
            self.biases(biases, f"{ours}.bias", rows)
        for part in ("weight", "bias") if biases is None else ("weight",):
            self.tie(
                [part_name(layer, part) for layer in theirs],
                [f"{ours}.{part}"],
                lambda *x: [rows.forth(torch.cat(x))],
                lambda x: rows.back(x).split([len(x) // 3 * share for share in shares]),
            )

    def biases(self, theirs: Sequence[str], ours: str, rows: Rows) -> None:
        """Biases of query, key and value, "" where they have none: one of zeros with us, and with none at all none."""
        there = [i for i, name in enumerate(theirs) if name]

        def forth(*x: Tensor) -> list[Tensor]:
            found = dict(zip(there, x, strict=True))
            return [rows.forth(torch.cat([found.get(i, torch.zeros_like(x[0])) for i in range(3)]))]

        def back(packed: Tensor) -> list[Tensor]:
            return [rows.back(packed).chunk(3)[i] for i in there]

        if there:
            how = "taken" if len(there) == 3 else "taken, zeros where there is none"
            self.tie([theirs[i] for i in there], [ours], forth, back, how)

    def position(self, theirs: str, ours: str, grid: Grid) -> None:
        """A flat table (1, N, D) without prefix rows, ours (t, h, w, D)."""
        self.tie([theirs], [ours], lambda x: split_rows(x, grid, prefix=0)[1:], lambda x: [x.flatten(0, 2)[None]])

    def positions(self, tokens: Sequence[tuple[str, int]], theirs: str, prefix: str, table: str, grid: Grid) -> None:
        """Prefix tokens, by name and number, and a flat table with a row for each of them, folded into them with us."""
        sizes = [size for _, size in tokens]

        def forth(*x: Tensor) -> list[Tensor]:
            rows, cells = split_rows(x[-1], grid, prefix=sum(sizes))
            return [torch.cat(x[:-1], 1) + rows, cells]

        def back(prefix: Tensor, cells: Tensor) -> list[Tensor]:
            flat = torch.cat([torch.zeros_like(prefix), cells.flatten(0, 2)[None]], 1)
            return [*prefix.split(sizes, 1), flat]

        names = [name for name, _ in tokens]
        self.tie([*names, theirs], [prefix, table], forth, back, "taken, rows of prefix tokens folded into them")

    def joined(self, theirs: Sequence[tuple[str, int]], ours: str) -> None:
        """Tokens, by name and number, that are one row of tokens with us."""
        sizes = [size for _, size in theirs]
        self.tie([name for name, _ in theirs], [ours], lambda *x: [torch.cat(x, 1)], lambda x: x.split(sizes, 1))

    def leave(self, beginning: str, why: str) -> None:
        """Tensors of theirs that have no place with us, for a reason."""
        for name in [name for name in self.source if self.reading and name.startswith(beginning)]:
            self.moves.append(Move(name, "", f"left: {why}", sizes(self.source.pop(name))))

    def omit(self, beginning: str, why: str) -> None:
        """Tensors of ours that have no place with them, for a reason."""
        for name in [name for name in self.source if not self.reading and name.startswith(beginning)]:
            self.moves.append(Move("", name, f"left: {why}", sizes(self.source.pop(name))))

    def finish(self, what: str) -> dict[str, Tensor]:
        """Raises ValueError that lists the tensors which nothing took."""
        if self.source:
            names = "\n".join(f"  {name} {tuple(value.shape)}" for name, value in sorted(self.source.items())[:20])
            place = f"our {what} model, nothing was loaded" if self.reading else f"{what} weights, nothing was written"
            raise ValueError(f"{len(self.source)} tensors have no place in {place}:\n{names}")
        return self.result


def order_heads(heads: int, order: Sequence[int]) -> Rows:
    """Rows of queries and keys of which channel `order[i]` of each head is channel i with us, which no attention sees;
    values stay."""
    back = sorted(range(len(order)), key=order.__getitem__)

    def reorder(packed: Tensor, order: Sequence[int]) -> Tensor:
        parts = packed.unflatten(0, (3, heads, -1))
        return torch.cat([parts[:2, :, order], parts[2:]]).flatten(0, 2)

    return Rows(lambda x: reorder(x, order), lambda x: reorder(x, back))


def part_name(layer: str, part: str) -> str:
    """The name of a weight or bias; those of torch's own packed attention are in_proj_weight and in_proj_bias."""
    return f"{layer}{'_' if layer.endswith('in_proj') else '.'}{part}"


def sizes(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape))


def as_float32(value: Array) -> Tensor:
    """Numbers with a fraction in float32, float64 rounded to it; integers as they are, for no weight is one."""
    if isinstance(value, Tensor):
        return value.float() if value.is_floating_point() else value
    return torch.from_numpy(np.array(value, None if value.dtype.kind in "biu" else np.float32))


def find_wrapper(names: Collection[str]) -> str:
    """The prefix that trainers have put before every name."""
    wrapper = ""
    while longer := [w for w in WRAPPERS if names and all(name.startswith(wrapper + w) for name in names)]:
        wrapper += longer[0]
    return wrapper


def move_tensors(tensors: Mapping[str, Tensor], way: Ways, back: Ways) -> Sequence[Tensor]:
    """Raises ValueError where the way back does not give the same shapes: nothing is broadcast, cut or regrouped."""
    shapes = [tensor.shape for tensor in tensors.values()]
    try:
        values = way(*tensors.values())
        whole = [tensor.shape for tensor in back(*values)] == shapes
    except (RuntimeError, IndexError):
        whole = False
    if not whole:
        found = "\n".join(f"  {name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
        raise ValueError(f"tensors of shapes that do not go together, nothing was loaded:\n{found}")
    return values


def describe_missing(name: str, names: Collection[str]) -> str:
    some = ", ".join(sorted(names)[:6])
    return f"the weights have no tensor {name!r} (they begin with {some}): is the dialect right?"


def split_rows(flat: Tensor, grid: Grid, *, prefix: int) -> tuple[Tensor, Tensor]:
    """(1, P + N, D) -> the P prefix rows (1, P, D) and the table (t, h, w, D)."""
    if flat.shape[1] != prefix + grid.size:
        raise ValueError(
            f"the position table has {flat.shape[1]} rows, expected {prefix} for prefix tokens and {grid.size} for "
            f"the grid {tuple(grid)}: is clip=(T, H, W) the size the weights were made for?"
        )
    return flat[:, :prefix], flat[0, prefix:].reshape(*grid, -1)
