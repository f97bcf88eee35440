"""Tar shards in WebDataset's layout: a sample is the members of a tar that share a key, a clip and what is known of it.

shards/train-000000.tar     walk/a.mp4  walk/a.cls      the key walk/a: a clip, and its class in words or as a number
                            b.mp4       b.json          the key b: {"label": "run"}
shards/classes.txt          jump                        the names of 0, 1 ...; or classes.json, a list or {name: number}
                            run

A clip is named as if the tar were a folder, shards/train-000000.tar/walk/a.mp4, and read where it is.
"""

import json
import os
import posixpath
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tubelet.data.problems import Problem
from tubelet.data.table import SPLITS, Found, Item
from tubelet.data.walk import is_hidden, list_clips
from tubelet.media.address import TAR, join, name_from, suffix
from tubelet.media.bytes import members, open_bytes
from tubelet.media.errors import MediaError
from tubelet.media.sniff import read_at
from tubelet.media.tar import PACKED_SUFFIXES, Member
from tubelet.tasks import Task

MOST_LABEL_BYTES = 1 << 20  # of a .json that says what a clip is
LABELS_IN = ("cls", "json", "txt")  # the first of these that a sample has says its label
_NAMES = ("classes.txt", "classes.json")


def find_tars(root: Path) -> list[str]:
    """The tars in a folder, and in folders in it, those that are compressed too: paths relative to it, sorted."""
    found = []
    for here, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not is_hidden(name)]
        names = [name for name in files if name.lower().endswith((TAR, *PACKED_SUFFIXES)) and not is_hidden(name)]
        found += [name_from(root, os.path.join(here, name)) for name in names]
    return sorted(found)


def read_tar(root: Path, tar: str, labels: Sequence[str], names: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Path, label and group of each clip in a tar. names: of the classes that are numbers.

    Raises: MediaError where it cannot be read.
    """
    whole = join(root, tar)
    clips, there = list_clips(whole), members(whole)
    with open_bytes(whole) as file:
        for name in clips:
            label, group = _read_label(file, name, there, labels, names)
            yield f"{name_from(root, tar)}/{name}", unicodedata.normalize("NFC", label), group


def _read_label(
    file: Any, name: str, there: dict[str, Member], labels: Sequence[str], names: Sequence[str]
) -> tuple[str, str]:
    folder, base = posixpath.split(name)
    key = posixpath.join(folder, base.split(".")[0])  # as WebDataset has it: up to the first dot
    for kind in LABELS_IN:
        found = there.get(f"{key}.{kind}")
        if found is None:
            continue
        text = read_at(file, found.offset, min(found.size, MOST_LABEL_BYTES)).decode("utf-8-sig", errors="replace")
        if kind != "json":
            label = text.strip()
            return (names[int(label)] if label.isdecimal() and int(label) < len(names) else label), ""
        try:
            about = json.loads(text)
        except ValueError:
            continue
        if isinstance(about, dict) and any(label in about for label in labels):
            cells = (_cell(about.get(label), names) for label in labels)
            return ";".join(cells), str(about.get("group") or "")
    return "", ""


def _cell(value: Any, names: Sequence[str]) -> str:
    if isinstance(value, list):
        return ";".join(_cell(one, names) for one in value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names):
        return names[value]
    return "" if value is None else str(value).strip()


def split_of(tar: str) -> str:
    """The split that a tar says by its name, or by that of its folder: train-0000.tar, val/0000.tar; "" for neither."""
    *folders, name = tar.lower().split("/")
    word = re.match(r"[a-z]+(?=[-_.\d])", name)
    for known in ([word[0]] if word else []) + folders[::-1]:
        if SPLITS.get(known):
            return SPLITS[known]
    return ""


def read_shards(root: Path, tars: Iterable[Item], task: type[Task], labels: Sequence[str]) -> Found:
    """The clips in tars as items, each with the label and the group that stand beside it, and the split of its tar.

    tars: items without labels; a group of theirs goes before those of clips.
    """
    found = Found()
    try:
        names = read_names(root)
    except (OSError, ValueError) as error:
        found.problems.append(Problem("class-name", str(root), f"{error}"))
        return found
    for tar in tars:
        split = tar.split or split_of(tar.path)
        try:
            for path, label, group in read_tar(root, tar.path, labels, names):
                if label and (fault := task.find_fault(label, labels)):
                    found.problems.append(Problem("label", path, fault))
                    continue
                found.names |= {*task.classes_in(label)} - {""}
                found.items.append(Item(path, label, split=split, group=tar.group or group))
        except MediaError as error:
            found.problems.append(Problem("unreadable", tar.path, error.message))
    return found


def open_tars(table: Found, root: Path, task: type[Task], labels: Sequence[str]) -> Found:
    """What a table holds, with the clips in its tars in the place of these."""
    tars = [item for item in table.items if suffix(item.path) == TAR]
    if not tars:
        return table
    inside, beside = read_shards(root, tars, task, labels), [item for item in table.items if item not in tars]
    return replace(
        table,
        items=[*beside, *inside.items],
        names=table.names | inside.names,
        problems=[*table.problems, *inside.problems],
    )


def read_names(root: Path) -> list[str]:
    """The names of the classes that are numbers in .cls; none where no file tells them.

    Raises: ValueError where such a file is no list of names.
    """
    for name in _NAMES:
        file = root / name
        if file.is_file():
            text = file.read_text(encoding="utf-8-sig")
            found: Any = json.loads(text) if name.endswith("json") else [line.strip() for line in text.splitlines()]
            if isinstance(found, dict) and {*found.values()} == {*range(len(found))}:
                found = sorted(found, key=found.__getitem__)
            if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
                raise ValueError(f"{file}: expected a list of names, or an object of names and their numbers from 0 on")
            return found
    return []
