"""A dataclass as a command line: its fields are the options, their types what is taken, their docstrings the help."""

import ast
import difflib
import inspect
import re
from argparse import (
    SUPPRESS,
    ArgumentError,
    ArgumentParser,
    ArgumentTypeError,
    BooleanOptionalAction,
    RawDescriptionHelpFormatter,
)
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import partial
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from types import NoneType
from typing import Annotated, Any, Literal, NoReturn, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")
POSITIONAL = object()
Positional = Annotated[T, POSITIONAL]  # a field that is told by its place, not by its name
SHOWN: dict[Any, str] = {int: "NUMBER", float: "NUMBER", str: "TEXT", Path: "PATH"}


@dataclass(frozen=True)
class NamesOf:
    """The values of an option: the names in a table, `table` of `module`, which is opened once the option is typed."""

    module: str
    table: str

    def __call__(self, typed: str) -> str:
        names = getattr(import_module(self.module), self.table)
        if typed not in names:
            raise ArgumentTypeError(f"no {typed!r}: expected one of {', '.join(names)}")
        return typed


class Parser(ArgumentParser):
    """Raises ArgumentError where argparse ends the process. What is not typed is left to the dataclass."""

    def __init__(self, **settings: Any) -> None:
        layout = partial(RawDescriptionHelpFormatter, max_help_position=25, width=80)
        settings |= {"add_help": False, "allow_abbrev": False, "exit_on_error": False, "argument_default": SUPPRESS}
        super().__init__(formatter_class=layout, **settings)

    def error(self, message: str) -> NoReturn:
        raise ArgumentError(None, message)


def read_command(command: type[T], arguments: Sequence[str], *, name: str) -> T:
    """Reads the arguments of a command into its dataclass; --help is answered, and ends the process.

    An option is --a-b or --a_b, its values after it or after "="; a switch has --no-a-b, too; after -- there are none.

    Raises ValueError for options that there are not, values that cannot be, and what is missing.
    """
    options, places = Parser(), Parser(usage=name)
    written = add_fields(command, options, places)
    end = arguments.index("--") if "--" in arguments else len(arguments)
    typed = [re.sub("^--[^=]+", lambda flag: flag[0].replace("_", "-"), word) for word in arguments[:end]]
    if "-h" in typed or "--help" in typed:
        about = inspect.cleandoc(command.__doc__ or "")
        Parser(usage=f"{places.usage} [OPTIONS]", description=about, parents=[places, options]).print_help()
        options.exit()
    try:
        given, loose = options.parse_known_args(typed)
        if unknown := [word for word in loose if word.startswith("-") and word != "-"]:
            wrong = arguments[typed.index(unknown[0])].split("=")[0]
            raise ValueError(f"no option {wrong} of `{name}`: {hint(unknown[0].split('=')[0], list(written), name)}")
        places.parse_args([*loose, *arguments[end:]], given)
    except ArgumentError as error:
        if error.argument_name:
            raise ValueError(f"{written[error.argument_name.split('/')[0]]}: {error.message}") from error
        raise ValueError(f"{error.message}: expected `{places.usage}`; `{name} --help` says what it is") from error
    return command(**{field: tuple(one) if isinstance(one, list) else one for field, one in vars(given).items()})


def hint(flag: str, flags: Sequence[str], name: str) -> str:
    if not flag.startswith("--"):
        return f"options begin with --, and a file of that name is ./{flag}, or comes after --"
    initials = "--" + "".join(word[0] for word in flag.split("-") if word)  # as in --lr
    near = [initials] if initials in flags else difflib.get_close_matches(flag, flags, n=1, cutoff=0.7)
    return f"did you mean {near[0]}?" if near else f"`{name} --help` lists them"


def add_fields(command: type, options: Parser, places: Parser) -> dict[str, str]:
    """Each field of a command becomes an option or a place; returns how options are typed, by their names."""
    options.add_argument("--help", action="help", help="Show this.")
    docs, hints = read_docs(command), get_type_hints(command, include_extras=True)
    written: dict[str, str] = {}
    for field in fields(command):
        settings, marks = argparse_settings(hints[field.name])
        default, text = field.default, docs[field.name]
        flag = f"--{field.name.rstrip('_')}".replace("_", "-")  # from_ is --from, a word that Python keeps for itself
        if default not in (MISSING, None, ()) and default is not False:
            shown = " ".join(default) if isinstance(default, tuple) else default
            text += f" (default: {'on' if default is True else shown})"
        settings["help"] = text.replace("%", "%%")
        if POSITIONAL in marks:
            settings["metavar"] = shown = field.name.upper() + " ..." * (settings["nargs"] == "+")
            if default is not MISSING:
                settings["nargs"], shown = "*" if settings["nargs"] == "+" else "?", f"[{shown}]"
            places.add_argument(field.name, **settings)
            places.usage = f"{places.usage} {shown}"
        elif settings["type"] is bool:
            action, off = BooleanOptionalAction if default else "store_true", f"--no{flag[1:]}"
            options.add_argument(flag, action=action, help=settings["help"])
            if not default:
                options.add_argument(off, action="store_false", dest=field.name, help=SUPPRESS)
            written |= {flag: flag, off: off}
        else:
            options.add_argument(flag, dest=field.name, **settings)
            written[flag] = f"{flag} {' '.join(marks) or settings['metavar']}"
    return written


def argparse_settings(hint: Any) -> tuple[dict[str, Any], list[Any]]:
    """The arguments of `add_argument` for a type, and the annotations of the type."""
    if NoneType in get_args(hint):
        (hint,) = (one for one in get_args(hint) if one is not NoneType)
    hint, *marks = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    kind, *more = get_args(hint) if get_origin(hint) is tuple else (hint,)
    nargs = "+" if ... in more else 1 + len(more) if more else None
    choices = get_args(kind) if get_origin(kind) is Literal else None
    metavar = tuple(marks[0].split()) if isinstance(nargs, int) else "|".join(choices or ()) or SHOWN.get(kind)
    if marks and isinstance(marks[0], NamesOf):
        kind, metavar = marks.pop(), "NAME"
    return {"type": str if choices else kind, "nargs": nargs, "choices": choices, "metavar": metavar}, marks


def read_docs(command: type) -> dict[str, str]:
    """The docstring below each field, in one line. Python does not keep them, so they are read from the source."""
    found = {}
    for cls in filter(is_dataclass, reversed(command.__mro__)):
        for field, text in pairwise(ast.walk(ast.parse(dedent(inspect.getsource(cls))))):  # a class's body is in a row
            match field, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                    found[name] = " ".join(words.split())
    return found
