"""A folder of rendered clips, which appears when all are rendered."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to write to, which takes the name `folder` when all is done; else it is deleted.

    Raises ValueError if `folder` already holds something: no file is ever replaced.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is not an empty folder. Name a new folder for the clips, or empty this one.")
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a try that was killed
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
