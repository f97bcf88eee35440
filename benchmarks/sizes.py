"""Any size: at which clip sizes does a model run, and is its answer right? Ours and, with --peers, other libraries.

    python -m venv ../peers
    ../peers/bin/pip install -c constraints.txt torch transformers timm vit-pytorch
    python benchmarks/sizes.py --peers ../peers/bin/python > table.md

Tiny models with random weights are made for one clip size, the native one, then given clips of others. An answer is
right if a fresh model, made for that other size, gives it too: same weights, position tables resampled here by hand,
prefix rows untouched. Ours must agree with bicubic, antialiased, in space and linear in time; the others with any pair
of RULES, so that only real misalignment counts as wrong. sizes_peers.py is their half. sizes.md
beside this file has the outcome.
"""

import argparse
import json
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from itertools import product, tee
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Size = tuple[int, ...]  # (T, H, W)
Forward = Callable[[nn.Module, Tensor], Tensor]

# Patches are 8 px, tubelets 2 frames. Clips for models made for the first, and for those made for the second, a square.
SIZES: dict[str, tuple[Size, Size, str]] = {
    "a": ((8, 32, 72), (8, 48, 48), "native: 36 patches"),
    "b": ((8, 48, 48), (8, 32, 72), "36 patches, another shape"),
    "c": ((8, 72, 32), (8, 72, 32), "36 patches, upright"),
    "d": ((8, 24, 96), (8, 24, 96), "36 patches, wider"),
    "e": ((8, 8, 288), (8, 8, 288), "36 patches in one row"),
    "f": ((8, 288, 8), (8, 288, 8), "36 patches in one column"),
    "g": ((16, 16, 72), (16, 24, 48), "twice as long, half as high: as many tubelets"),
    "h": ((2, 32, 72), (2, 48, 48), "one tubelet long"),
    "i": ((4, 32, 72), (4, 48, 48), "half as long"),
    "j": ((12, 32, 72), (12, 48, 48), "longer by half"),
    "k": ((8, 16, 40), (8, 24, 32), "smaller"),
    "l": ((8, 32, 144), (8, 48, 96), "twice as wide"),
    "m": ((8, 40, 72), (8, 56, 48), "one patch higher"),
    "n": ((8, 64, 144), (8, 96, 96), "four times the area"),
    "o": ((6, 40, 56), (6, 40, 56), "other on all three axes"),
    "p": ((2, 8, 8), (2, 8, 8), "a single patch"),
    "q": ((8, 36, 72), (8, 52, 48), "height not divisible"),
    "r": ((7, 32, 72), (7, 48, 48), "frames not divisible"),
}
VIDEO_ONLY = "ghijr"
WIDE, SQUARE = SIZES["a"][:2]
VERDICTS = {  # best first
    "·": "no such size: images have no frames",
    "✓": "right",
    "~": "right, but pixels that fill no patch are left out without a word",
    "e": "error that names the size at fault",
    "!": "error from within, which does not",
    "✗": "wrong without a word",
}
RULES = ("bicubic antialias", "linear", "bicubic", "linear antialias", "nearest", "corners", "crop")
OURS = ("bicubic antialias", "linear")  # in space, in time
TOLERANCE = 1e-4  # of the largest logit


@dataclass(frozen=True, kw_only=True)
class System:
    """One row of the table."""

    name: str
    build: Callable[[Size], nn.Module]  # fresh, made for clips of (T, H, W)
    forward: Forward  # at the size that a model is made for, (B, C, T, H, W) -> logits
    ways: tuple[Forward, ...]  # of using it at another size; the worst counts
    native: Size
    patch: Size
    stride: Size | None = None  # if patches overlap: then less than a stride may stay uncovered by definition
    tables: dict[str, tuple[int, str]] = field(default_factory=dict)  # attribute -> prefix rows, axes, such as "hw"
    place: Callable[[nn.Module, Size], None] = lambda model, size: None  # positions by hand that are no table
    rules: tuple[tuple[str, str], ...] = tuple(product(RULES, RULES))
    channels: int = 3

    def grid(self, size: Size, axes: str = "thw") -> Size:
        sizes = zip("thw", size, self.patch, self.stride or self.patch, strict=True)
        return tuple((n - p) // s + 1 if axis in axes else 1 for axis, n, p, s in sizes)


# The right answer


def matrix(rule: str, old: int, new: int) -> Tensor | None:
    """(new, old) weights that resample an axis; None where the rule does not apply."""
    steps = torch.arange(new).double()
    if rule == "crop":
        return torch.eye(old).double()[:new] if new <= old else None
    if rule == "nearest":
        return F.one_hot((steps * old / new).long(), old).double()
    centres = steps * (old - 1) / max(new - 1, 1) if rule == "corners" else (steps + 0.5) * old / new - 0.5
    antialias = rule.endswith("antialias")
    border = 0 if antialias else old + 2  # what lies beyond an edge is left out, or a copy of the edge
    taps = torch.arange(-border, old + border)
    x = ((taps - centres[:, None]) / (max(old / new, 1) if antialias else 1)).abs()
    weights = cubic(x, -0.5 if antialias else -0.75) if rule.startswith("bicubic") else (1 - x).clamp(min=0)
    weights = torch.zeros(new, old).double().index_add_(1, taps.clamp(0, old - 1), weights)
    return weights / weights.sum(1, keepdim=True)


def cubic(x: Tensor, a: float) -> Tensor:
    near, far = (a + 2) * x**3 - (a + 3) * x**2 + 1, a * (x**3 - 5 * x**2 + 8 * x - 4)
    return torch.where(x <= 1, near, torch.where(x < 2, far, 0.0))


def resampled(rows: Tensor, prefix: int, old: Size, new: Size, rule: tuple[str, str]) -> Tensor | None:
    """Table (prefix + old tokens, D) -> (prefix + new tokens, D); `rule` in space, in time."""
    table = rows[prefix:].double().reshape(*old, -1)
    for axis, name in enumerate((rule[1], rule[0], rule[0])):
        weights = matrix(name, old[axis], new[axis])
        if weights is None:
            return None
        table = torch.tensordot(weights, table, ([1], [axis])).movedim(0, axis)
    return torch.cat([rows[:prefix], table.flatten(0, 2).to(rows)])


def set_tables(system: System, model: nn.Module, fresh: nn.Module, size: Size, rule: tuple[str, str]) -> bool:
    """Gives `fresh`, made for `size`, the tables of `model`, resampled; False where the rule does not apply."""
    for path, (prefix, axes) in system.tables.items():
        holder, _, name = path.rpartition(".")
        own, source, made_for = getattr(fresh.get_submodule(holder), name), model, system.native
        if not isinstance(own, nn.Parameter):  # a formula: where the clip is longer, it may go on
            made_for = (max(size[0], made_for[0]) if rule[1] == "crop" else made_for[0], *made_for[1:])
            source = system.build(made_for)
        rows = getattr(source.get_submodule(holder), name).detach().flatten(0, -2)
        table = resampled(rows, prefix, system.grid(made_for, axes), system.grid(size, axes), rule)
        if table is None:
            return False
        table = table.reshape(own.shape)
        setattr(fresh.get_submodule(holder), name, nn.Parameter(table) if isinstance(own, nn.Parameter) else table)
    return True


def right_answers(system: System, model: nn.Module, clip: Tensor) -> Iterator[tuple[str, Tensor]]:
    """(verdict, logits): what fills no patch may be filled up with zeros, or be left out, which is told apart."""
    size, patch = clip.shape[2:], (1, 1, 1) if system.stride else system.patch
    rest = [n % p for n, p in zip(size, patch, strict=True)]
    t, h, w = (p - r if r else 0 for r, p in zip(rest, patch, strict=True))
    clips = {"✓": F.pad(clip, (0, w, 0, h, 0, t))}
    if any(rest):
        clips["~"] = clip[:, :, : size[0] - rest[0], : size[1] - rest[1], : size[2] - rest[2]]
    state = model.state_dict()
    for verdict, whole in clips.items():
        shape = tuple(whole.shape[2:])
        fresh = system.build(shape).eval()
        changed = {name for name, tensor in fresh.state_dict().items() if tensor.shape != state[name].shape}
        assert changed <= set(system.tables), changed
        fresh.load_state_dict({name: state[name] for name in state if name not in changed}, strict=False)
        system.place(fresh, shape)
        for rule in system.rules if system.tables else system.rules[:1]:
            if set_tables(system, model, fresh, shape, rule):
                yield verdict, system.forward(fresh, whole)


def judge(system: System, run: Callable[[], Tensor], clip: Tensor, rights: Iterator, seen: dict[str, list]) -> str:
    """A key of VERDICTS; `seen` gathers the errors, and how far right and wrong answers are from the nearest right."""
    size = tuple(clip.shape[2:])
    try:
        got = run()
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        seen["errors"].append(f"{size}: {text}")
        named = any(re.search(rf"\b{n}\b", text) for n, native in zip(size, system.native) if n != native)
        return "e" if named and type(error) is not RuntimeError else "!"
    far = []
    for verdict, want in rights:
        far.append(float((got - want).abs().max() / want.abs().max()))
        if far[-1] < TOLERANCE:
            seen["right"].append(far[-1])
            return verdict
    seen["wrong"].append(min(far))
    return "✗"


@torch.no_grad()
def row(system: System) -> dict[str, Any]:
    """The verdicts on a system at all sizes, as JSON."""
    torch.manual_seed(0)
    model = system.build(system.native).eval()
    for parameter in model.parameters():
        parameter.add_(0.2 * torch.randn(parameter.shape))
    square, still = system.native[1:] == SQUARE[1:], system.native[0] == 1
    cells = ""
    seen: dict[str, list] = {"errors": [], "right": [], "wrong": []}
    for key, sizes in SIZES.items():
        if still and key in VIDEO_ONLY:
            cells += "·"
            continue
        t, h, w = sizes[1] if square else sizes[0]
        clip = torch.randn(2, system.channels, 1 if still else t, h, w)
        verdicts, rights = [], right_answers(system, model, clip)
        for way in system.ways:
            rights, again = tee(rights)
            verdicts.append(judge(system, partial(way, model, clip), clip, again, seen))
        cells += max(verdicts, key=list(VERDICTS).index)
    return {"name": system.name, "square": square, "cells": cells, **seen}


# Ours


def our_system(family: str, *, still: bool) -> System:
    import tubelet

    smallest = next(name for name in tubelet.list_models() if name.startswith(f"{family}-"))
    name, patch = (f"{smallest}/8", (1, 8, 8)) if still else (f"{smallest}/8x2", (2, 8, 8))
    native = (1, *WIDE[1:]) if still else WIDE

    def build(size: Size) -> nn.Module:
        if family != "swin2":
            return tubelet.create_model(name, clip=size, num_classes=5)
        # all time steps (2 where there is 1, or the model would be one for images), a half and a third of the grid
        t, h, w = size[0] // 2, size[1] // 8, size[2] // 8
        window = (max(2, t), max(1, round(h * 2 / 4)), max(1, round(w * 3 / 9)))
        config = tubelet.model_config(name, clip=size, num_classes=5).with_stage(0, window=window)
        return tubelet.SpaceTimeTransformer(config)

    def declared(model: Any, clip: Tensor) -> Tensor:
        model = deepcopy(model)
        model.set_input_size(clip.shape[2:])
        return model(clip)

    def saved(model: Any, clip: Tensor, *, size: Size | None) -> Tensor:
        model = deepcopy(model)
        model.set_input_size(size or clip.shape[2:])
        with tempfile.TemporaryDirectory() as folder:
            return tubelet.load(tubelet.save(model, folder))(clip)

    tables = {
        path: (0, "".join(axis for axis, n in zip("thw", table.shape) if n > 1))
        for path, table in tubelet.create_model(name, clip=native).named_parameters()
        if ".position.tables." in path
    }
    return System(
        name=f"tubelet {family}",
        build=build,
        forward=nn.Module.__call__,
        ways=(nn.Module.__call__, declared, partial(saved, size=native), partial(saved, size=None)),
        native=native,
        patch=patch,
        stride=(1, 5, 5) if family == "ast" else None,
        tables=tables,
        rules=(OURS,),
    )


# The table


def results(rows: list[dict[str, Any]]) -> list[str]:
    counted = [verdict for verdict in VERDICTS if verdict != "·"]
    lines = [f"| | {' | '.join(SIZES)} | {' | '.join(counted)} |", "|---|" + "---|" * (len(SIZES) + len(counted))]
    for row in rows:
        cells = [*row["cells"], *(str(row["cells"].count(verdict)) for verdict in counted)]
        lines.append(f"| {row['name']}{' (square)' if row['square'] else ''} | {' | '.join(cells)} |")
    return lines


def legend() -> list[str]:
    lines = ["| | clip (T, H, W) | if made for a square | |", "|---|---|---|---|"]
    for key, (wide, square, meaning) in SIZES.items():
        lines.append("| " + " | ".join([key, " x ".join(map(str, wide)), " x ".join(map(str, square)), meaning]) + " |")
    return [*lines, "", *(f"- {verdict} {meaning}" for verdict, meaning in VERDICTS.items())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", metavar="PYTHON", help="interpreter of the environment with the other libraries")
    parser.add_argument("--errors", action="store_true", help="print every error below the table")
    arguments = parser.parse_args()
    import tubelet  # not above: sizes_peers.py runs where tubelet is not
    from tubelet.nn import FAMILIES, IMAGE_FAMILIES

    torch.set_num_threads(1)
    others: dict[str, Any] = {"rows": [], "versions": {"torch": torch.__version__}}
    if arguments.peers:
        command = [arguments.peers, str(Path(__file__).with_name("sizes_peers.py"))]
        others = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    ours = [row(our_system(family, still=family in IMAGE_FAMILIES)) for family in FAMILIES]
    rows = ours + others["rows"]
    print(*results(rows), "", *legend(), "", sep="\n")
    right, wrong = ([far for row in rows for far in row[kind]] for kind in ("right", "wrong"))
    print(f"Of the largest logit, right answers are off by {max(right):.0e} at most", end="")
    print(f", wrong ones by {min(wrong):.0e} at least." if wrong else ".")
    versions = {"tubelet": tubelet.__version__, **others["versions"]}
    print("With", ", ".join(f"{name} {number}" for name, number in versions.items()) + ".")
    if arguments.errors:
        print("", *(f"- {row['name']}, {error}" for row in rows for error in dict.fromkeys(row["errors"])), sep="\n")


if __name__ == "__main__":
    main()
