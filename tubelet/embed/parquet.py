"""The rows and vectors of a folder as a table of Apache Parquet, which data tools read."""

from pathlib import Path
from typing import Any

from tubelet.embed.folder import Vectors
from tubelet.system.extras import import_extra
from tubelet.system.files import write_aside

COLUMNS = ("path", "start_seconds", "end_seconds", "seconds", "mark", "code", "message")


def import_parquet() -> Any:
    """pyarrow.parquet. Raises ValueError where it is not installed."""
    return import_extra("pyarrow.parquet", extra="parquet")


def make_columns(found: Vectors) -> dict[str, list[Any]]:
    """A list for each column, with a value for each row; `vector` is float32 (D,), or None where there is none.

    A byte of a path that is no UTF-8 is spelled out, \\udc80: Parquet's texts are UTF-8.
    """
    columns: dict[str, list[Any]] = {name: [getattr(row, name) for row in found.rows] for name in COLUMNS}
    columns["path"] = [path.encode(errors="backslashreplace").decode() for path in columns["path"]]
    columns["message"] = [text.encode(errors="backslashreplace").decode() for text in columns["message"]]
    columns["vector"] = [None if number is None else found.vectors[number] for _, number in found.numbered()]
    return columns


def write_parquet(file: Path, found: Vectors) -> None:
    """Writes the columns of `make_columns`, whole or not at all. Raises ValueError where pyarrow is not installed."""
    parquet, arrow = import_parquet(), import_extra("pyarrow", extra="parquet")
    columns = make_columns(found)
    kinds = {name: arrow.float64() if name.endswith("seconds") else arrow.string() for name in COLUMNS}
    kinds["vector"] = arrow.list_(arrow.float32())
    table = arrow.table({name: arrow.array(columns[name], kind) for name, kind in kinds.items()})
    with write_aside(file) as temporary:
        parquet.write_table(table, temporary)
