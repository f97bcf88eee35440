"""Decoded clips in memory, once for all processes of a node: what one has decoded, the others map.

    a file without a name, of each process          rows          frames, one item after the other
    of the node; all have all of them mapped   | kind offset C T H W | ... | frames | frames | ...

A file without a name is gone with the last process that holds it open, however that ends.
"""

import math
import mmap
import os
import shutil
import tempfile
import weakref
from pathlib import Path
from threading import Lock
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from tubelet.system.team import Team

ROW = 6  # numbers: bytes of a value, 0 as long as there is nothing, offset, and the four sides of the frames
DTYPES = {1: torch.uint8, 4: torch.float32}
SHARED_MEMORY = Path("/dev/shm")

Place = tuple[str, int, int]  # of a file that is open in a process: its path for others, its device and inode


class Kept(Protocol):
    """Frames (C, T, H, W) by number; a dictionary is one."""

    def __contains__(self, number: int, /) -> bool: ...

    def __getitem__(self, number: int, /) -> Tensor: ...

    def __setitem__(self, number: int, frames: Tensor, /) -> None: ...


class KeptOnce:
    """Frames (C, T, H, W) by number, of all processes of a node.

    files: of each process of the node, open, to be closed by this; each begins with rows for all numbers. mine: the
    number of this process's file, the only one that it writes to. Threads and processes need not wait for each other.
    """

    def __init__(self, files: list[int], mine: int, numbers: int) -> None:
        self.files, self.mine = files, mine
        self.maps = [mmap.mmap(file, 0) for file in files]
        self.rows = [np.frombuffer(one, np.int64, numbers * ROW).reshape(numbers, ROW) for one in self.maps]
        self.end, self.lock = len(self.maps[mine]), Lock()
        weakref.finalize(self, close_all, files)

    def __contains__(self, number: int) -> bool:
        return any(rows[number, 0] for rows in self.rows)

    def __getitem__(self, number: int) -> Tensor:
        for file, rows in enumerate(self.rows):
            if rows[number, 0]:
                return self.view(file, *rows[number].tolist())
        raise KeyError(number)

    def __setitem__(self, number: int, frames: Tensor) -> None:
        """Raises OSError where there is no room."""
        with self.lock:
            offset, self.end = self.end, self.end + round_up(frames.nbytes)
            os.posix_fallocate(self.files[self.mine], offset, self.end - offset)  # a map of what is not there kills
        self.view(self.mine, frames.itemsize, offset, *frames.shape).copy_(frames)
        row = self.rows[self.mine][number]
        row[1:] = offset, *frames.shape
        with self.lock:  # other processes must not see this before that
            row[0] = frames.itemsize

    def view(self, file: int, itemsize: int, offset: int, *shape: int) -> Tensor:
        """Frames in a file, not copied."""
        count = math.prod(shape)
        known = self.maps[file]
        if len(known) < offset + count * itemsize:  # it has grown
            known = self.maps[file] = mmap.mmap(self.files[file], 0)
        return torch.frombuffer(known, dtype=DTYPES[itemsize], count=count, offset=offset).view(shape)


def keep_once(team: Team, numbers: int, most_bytes: int) -> Kept:
    """Where frames of these numbers are kept, once for the node, or by each process, where `count_copies` says so.

    Every process must call this. most_bytes: about as much as all frames take. Raises: as `Team.run_together`.
    """
    files = open_files(team, numbers, most_bytes) if team.local_size > 1 else []
    return KeptOnce(files, team.local_rank, numbers) if files else {}


def count_copies(team: Team) -> int:
    """How often a node holds what all its processes keep: once, or where they cannot map each other's files, as often
    as there are processes. Every process must call this. Raises: as `Team.run_together`."""
    files = open_files(team, 1, 0) if team.local_size > 1 else []
    close_all(files)
    return 1 if files else team.local_size


def open_files(team: Team, numbers: int, most_bytes: int) -> list[int]:
    """A file without a name of each process of the node, open here; [] in all of them where one cannot open another's.

    Raises: as `Team.run_together`.
    """
    first = team.rank - team.local_rank
    mine = team.run_together(lambda: make_file(round_up(8 * ROW * numbers), most_bytes))
    files: list[int] = []
    for place in team.gather(find_place(mine))[first : first + team.local_size]:
        if (file := open_same(place)) is not None:
            files.append(file)
    complete = team.gather(len(files) == team.local_size)[first : first + team.local_size]
    os.close(mine)
    if not all(complete):
        close_all(files)
        return []
    return files


def make_file(size: int, most_bytes: int) -> int:
    """An open file without a name, of zeros, in memory, or, where neither Python nor the system have that, on the disk.

    Raises: OSError.
    """
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("tubelet")
    else:
        in_memory = SHARED_MEMORY.is_dir() and shutil.disk_usage(SHARED_MEMORY).free > most_bytes + size
        with tempfile.TemporaryFile(dir=SHARED_MEMORY if in_memory else None) as named_nowhere:
            file = os.dup(named_nowhere.fileno())
    os.truncate(file, size)
    return file


def find_place(file: int) -> Place:
    status = os.fstat(file)
    return f"/proc/{os.getpid()}/fd/{file}", status.st_dev, status.st_ino


def open_same(place: Place) -> int | None:
    """The file at a place, open in this process too; None where there is none, or, as seen from here, another."""
    path, *same = place
    try:
        file = os.open(path, os.O_RDWR)
    except OSError:
        return None
    status = os.fstat(file)
    if [status.st_dev, status.st_ino] == same:
        return file
    os.close(file)
    return None


def close_all(files: list[int]) -> None:
    for file in files:
        os.close(file)


def round_up(size: int) -> int:
    """Bytes of whole pages."""
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
