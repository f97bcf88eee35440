"""A dataclass as a command line: its fields are the options, their types what is taken, their docstrings the help."""

import ast
import difflib
import inspect
import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from textwrap import dedent, fill, wrap
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")
POSITIONAL = object()
Positional = Annotated[T, POSITIONAL]  # a field that is told by its place, not by its name

WIDTH, HELP_COLUMN = 80, 25
SHOWN: dict[Any, str] = {int: "NUMBER", float: "NUMBER", str: "TEXT", Path: "PATH"}
EXPECTED: dict[Any, str] = {int: "a whole number", float: "a number"}


@dataclass(frozen=True)
class Option:
    """One field of a command.

    kind: what a value becomes. choices: the values there are; () for any. count: how many values; None: one or more.
    value: what stands for its values in the help, such as HEIGHT WIDTH.
    """

    field: str
    kind: Callable[[str], Any]
    choices: tuple[str, ...]
    count: int | None
    value: str
    positional: bool
    default: Any

    @property
    def flag(self) -> str:
        return "--" + self.field.replace("_", "-")

    @property
    def is_switch(self) -> bool:
        return self.kind is bool

    @property
    def written(self) -> str:
        """How it is typed, as the help shows it."""
        if self.positional:
            return self.value if self.default is MISSING else f"[{self.value}]"
        if self.is_switch:
            return f"{self.flag}, --no{self.flag[1:]}" if self.default else self.flag
        return f"{self.flag} {self.value}"

    def read(self, texts: Sequence[str]) -> Any:
        """Raises ValueError for values that are too few, or not of its kind."""
        if len(texts) != (self.count or max(1, len(texts))):
            got = " ".join((self.flag, *texts))
            raise ValueError(f"{got}: expected {self.written}")
        values = tuple(map(self.read_one, texts))
        return values[0] if self.count == 1 else values

    def read_one(self, text: str) -> Any:
        where = self.value if self.positional else self.flag
        if self.choices and text not in self.choices:
            raise ValueError(f"{where} {text}: expected {' or '.join(', '.join(self.choices).rsplit(', ', 1))}")
        try:
            return self.kind(text)
        except ValueError as error:
            raise ValueError(f"{where} {text}: expected {EXPECTED[self.kind]}") from error


def read_command(command: type[T], arguments: Sequence[str], *, name: str) -> T:
    """What was typed after the name of a command, as its dataclass.

    An option is --a-b or --a_b, with its values after it or one after "="; a switch has --no-a-b, too. What follows --
    is no option. Of an option given twice, the last counts.

    Raises ValueError for options that there are not, values that cannot be, and what is missing.
    """
    options = options_of(command)
    flags = {option.flag: option for option in options if not option.positional}
    switched_off = {f"--no-{flag[2:]}": option for flag, option in flags.items() if option.is_switch}
    given: dict[str, Any] = {}
    loose: list[str] = []
    left = deque(arguments)
    while left:
        word = left.popleft()
        if word == "--":
            loose += left
            break
        if not is_flag(word):
            loose.append(word)
            continue
        flag, equals, value = word.partition("=")
        flag = flag.replace("_", "-")
        option = flags.get(flag) or switched_off.get(flag)
        if option is None:
            raise ValueError(f"no option {word.split('=')[0]} of `{name}`: {hint(flag, [*flags, *switched_off], name)}")
        if option.is_switch:
            if equals:
                raise ValueError(f"{word}: {flag} takes no value")
            given[option.field] = flag in flags
            continue
        texts = [value] if equals else []
        while left and not equals and not is_flag(left[0]) and len(texts) != option.count:
            texts.append(left.popleft())
        given[option.field] = option.read(texts)
    places = [option for option in options if option.positional]
    for option in places:
        taken, loose = (loose, []) if option.count is None else (loose[: option.count], loose[option.count :])
        if taken:
            given[option.field] = option.read(taken)
    usage = " ".join([name, *(option.written for option in places)])
    if loose:
        raise ValueError(f"{loose[0]!r} is one too many: expected `{usage}`")
    for option in options:
        if option.default is MISSING and option.field not in given:
            what = option.value if option.positional else option.flag
            raise ValueError(f"{what} is missing: expected `{usage}`; `{name} --help` says what it is")
    return command(**given)


def asks_for_help(arguments: Sequence[str]) -> bool:
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "-h" in options or "--help" in options


def is_flag(word: str) -> bool:
    """Whether it is an option; "-" and negative numbers are none."""
    return len(word) > 1 and word[0] == "-" and not re.fullmatch(r"-(\d|\.\d|inf|nan).*", word, re.DOTALL)


def hint(flag: str, flags: Sequence[str], name: str) -> str:
    if not flag.startswith("--"):
        return f"options begin with --, and a file of that name is ./{flag}, or comes after --"
    names = [one.removeprefix("--") for one in flags]
    initials = "".join(word[0] for word in flag.split("-") if word)  # as in --lr
    near = [initials] if initials in names else difflib.get_close_matches(flag.removeprefix("--"), names, n=1)
    return f"did you mean --{near[0]}?" if near else f"`{name} --help` lists them"


def options_of(command: type) -> list[Option]:
    hints = get_type_hints(command, include_extras=True)
    return [option_of(one.name, hints[one.name], one.default) for one in fields(command)]


def option_of(field: str, hint: Any, default: Any) -> Option:
    marks: list[Any] = []
    while get_origin(hint) is Annotated or NoneType in get_args(hint):
        if get_origin(hint) is Annotated:
            hint, *more = get_args(hint)
            marks += more
        else:
            (hint,) = (one for one in get_args(hint) if one is not NoneType)
    kinds = get_args(hint) if get_origin(hint) is tuple else (hint,)
    count = None if kinds[-1] is ... else len(kinds)
    choices = get_args(kinds[0]) if get_origin(kinds[0]) is Literal else ()
    kind = str if choices else kinds[0]
    positional = POSITIONAL in marks
    values = [mark for mark in marks if isinstance(mark, str)]
    if positional:
        values.append(field.upper() + " ..." * (count is None))
    elif kind is not bool:
        one = "|".join(choices) or SHOWN[kind]
        values.append(f"{one} ..." if count is None else " ".join([one] * count))
    return Option(field, kind, choices, count, " ".join(values[:1]), positional, default)


# ---- help


def help_of(command: type, *, name: str) -> str:
    """At most 80 columns."""
    options = options_of(command)
    docs = docs_of(command)
    places = [option for option in options if option.positional]
    paragraphs = [fill(" ".join(text.split()), WIDTH) for text in inspect.cleandoc(command.__doc__ or "").split("\n\n")]
    rows = [row(option.written, described(option, docs)) for option in options]
    return "\n".join(
        [
            f"usage: {' '.join([name, *(option.written for option in places)])} [OPTIONS]",
            "",
            "\n\n".join(paragraphs),
            "",
            *(text for option, text in zip(options, rows) if option.positional),
            *([""] if places else []),
            row("--help", "Show this."),
            *(text for option, text in zip(options, rows) if not option.positional),
        ]
    )


def described(option: Option, docs: dict[str, str]) -> str:
    default = option.default
    if default in (MISSING, None) or default is False:
        return docs[option.field]
    shown = "on" if default is True else f"{default:g}" if isinstance(default, float) else default
    return f"{docs[option.field]} (default: {shown})"


def row(written: str, text: str) -> str:
    lines = wrap(text, WIDTH - HELP_COLUMN, break_on_hyphens=False)
    begin = f"  {written:<{HELP_COLUMN - 2}}"
    if len(begin) > HELP_COLUMN or not begin.endswith(" "):
        lines.insert(0, "")
    indent = " " * HELP_COLUMN
    return "\n".join([f"{begin}{lines[0]}".rstrip(), *(indent + line for line in lines[1:])])


def docs_of(command: type) -> dict[str, str]:
    """The docstring below each field, in one line. Python does not keep them, so they are read from the source."""
    found = {}
    for cls in reversed(command.__mro__):
        if is_dataclass(cls):
            (tree,) = ast.parse(dedent(inspect.getsource(cls))).body
            for field, text in pairwise(getattr(tree, "body", [])):
                match field, text:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                        found[name] = " ".join(words.split())
    return found
