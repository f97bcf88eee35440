"""The terminal: one console, one kind of progress bar, plain lines where there is no terminal."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, ConsoleDimensions, ConsoleOptions, RenderableType
from rich.progress import BarColumn, Progress, TextColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from tubelet.system.text import visible, visible_lines

WIDEST = 100_000  # columns of what goes to a file or through a pipe


class SafeConsole(Console):
    """A console that shows what is visible only, whatever is printed: no name in a table can be forgotten. Lines are
    broken for a terminal alone."""

    def render_str(self, text: str, *arguments: Any, **settings: Any) -> Text:
        """A text, such as a name in a cell of a table, is one line; only a `Text` of ours may have several."""
        return super().render_str(visible(text), *arguments, **settings)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            if segment.control is None and not segment.text.isprintable():
                segment = Segment("\n".join(map(visible, segment.text.split("\n"))), segment.style)
            yield segment

    @property
    def size(self) -> ConsoleDimensions:
        """The terminal's size; where there is none, so wide that no name is broken, unless COLUMNS says otherwise."""
        found = super().size
        return found if self.is_terminal or self._width else ConsoleDimensions(WIDEST, found.height)

    @size.setter
    def size(self, size: tuple[int, int]) -> None:
        self._width, self._height = size

    def on_broken_pipe(self) -> None:
        raise  # rich would end the program here


# Names of files and classes are shown as they are, also those with [brackets] or :colons:.
console = SafeConsole(highlight=False, markup=False, emoji=False)


@contextmanager
def only_json_on_stdout() -> Iterator[None]:
    """Sends all that is for people to stderr while inside."""
    before, console.stderr = console.stderr, True
    try:
        yield
    finally:
        console.stderr = before


class Bar:
    """A progress bar with a few words at its end; without a terminal, a line now and then."""

    def __init__(self, title: str, total: int | None, progress: Progress | None, *, every_seconds: float = 20.0):
        self.title, self.total, self.progress, self.every_seconds = title, total, progress, every_seconds
        self.done, self.begun, self.said = 0, time.monotonic(), time.monotonic()
        self.task = progress.add_task(title, total=total, words="") if progress else None

    def advance(self, words: str = "", *, by: int = 1) -> None:
        self.done += by
        if self.progress and self.task is not None:
            self.progress.update(self.task, completed=self.done, words=words)
        elif time.monotonic() - self.said > self.every_seconds:
            self.said = time.monotonic()
            total = "" if self.total is None else f"/{self.total}"
            console.print(f"{self.title} {self.done}{total}  {words}", soft_wrap=True)

    @property
    def left(self) -> str:
        """Time left, as m:ss, at the speed of the last steps."""
        if not self.done or self.total is None:
            return "-:--"
        seconds = (time.monotonic() - self.begun) / self.done * (self.total - self.done)
        return clock(seconds)


@contextmanager
def bar(title: str, total: int | None, *, show: bool = True) -> Iterator[Bar]:
    """A live bar of `total` steps (None: nobody knows) in a terminal; lines elsewhere; nothing where show is False."""
    if not show:
        yield Bar(title, total, None, every_seconds=float("inf"))
    elif not console.is_terminal:
        yield Bar(title, total, None)
    else:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=None, complete_style="cyan", finished_style="green"),
            TextColumn("{task.fields[words]}"),
        )
        with Progress(*columns, console=console, expand=True) as progress:
            yield Bar(title, total, progress)


def clock(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def size(count: float) -> str:
    """Bytes in words: 1.5 GB."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def say(name: str, text: object) -> None:
    """A line: what it is about, and what is to be said."""
    console.print(Text.assemble((name, "cyan"), f"  {visible_lines(text)}"), soft_wrap=True)


def facts(title: str, rows: list[tuple[str, str]]) -> None:
    """A small table of names and values."""
    table = Table(
        title=title, title_justify="left", title_style="bold", show_header=False, box=None, padding=(0, 2, 0, 0)
    )
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, Text(visible_lines(value)))
    console.print(table)
