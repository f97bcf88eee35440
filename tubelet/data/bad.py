"""A file of a data set that cannot be used, and why."""

from dataclasses import dataclass

from tubelet.data.items import Item
from tubelet.media.reader import MediaError


@dataclass(frozen=True)
class BadFile:
    """A file of a data set that cannot be used: its path as in `Item`, why (a code and a sentence), and its split."""

    path: str
    code: str
    message: str
    split: str


def bad_file(item: Item, error: MediaError) -> BadFile:
    """An item that could not be read; of a part of a file it has the name of the part."""
    return BadFile(item.name, error.code, f"{error.problem}. {error.remedy}.", item.split)
