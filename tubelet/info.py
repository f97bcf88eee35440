"""The cost of a model, counted on shapes alone: no weights, no memory, any size in a moment."""

from rich.table import Table

from tubelet.nn.cost import Info
from tubelet.nn.create import list_models
from tubelet.nn.families import FAMILIES
from tubelet.system.console import console


def list_names() -> list[str]:
    """A name for each family and size, with the patch that its papers use: "vivit2-B/16x2"."""
    return [f"{name}/{usual_patch(name.split('-')[0])}" for name in list_models()]


def usual_patch(family: str) -> str:
    own = {"swin2": "4x2", "videoprism": "18", "timesformer": "16"}
    line = FAMILIES[family]
    return own.get(family, "16" if line.image or line.still else "16x2")


def usual_input(name: str) -> tuple[tuple[int, int, int] | None, int]:
    """Clip and channels; None is `create_model`'s own clip. AST takes 10.24 s of sound, 128 mel bins every 10 ms."""
    return ((1, 128, 1024), 1) if name.startswith("ast-") else (None, 3)


def print_info(info: Info) -> None:
    """A table of at most 80 columns."""
    t, h, w = info.clip
    classes = f"{info.num_classes} classes" if info.num_classes else "no head"
    table = Table("part", title=f"{info.name}: {t} frame{'s' if t > 1 else ''} of {h} x {w} px, {classes}", width=80)
    table.add_column("", overflow="fold")
    table.add_column("parameters", justify="right")
    table.add_column("GMACs", justify="right")
    for part in info.parts:
        table.add_row(part.name, part.what, f"{part.parameters:,}", f"{part.gmacs:.3f}")
    table.add_section()
    grid = f"{info.tokens.t} x {info.tokens.h} x {info.tokens.w} tokens"
    if info.prefix:
        grid += f", prefix of {info.prefix}"
    table.add_row("all", grid, f"{info.parameters:,}", f"{info.gmacs:.3f}")
    memory = f"training keeps {info.activation_bytes / 1e6:,.1f} MB of activations for each clip (float32)"
    console.print(table)
    console.print(memory, soft_wrap=True)
