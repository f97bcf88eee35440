"""Files of annotations, parsed once: JSON, XML or text, told apart by how they begin."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from tubelet.data.walk import is_hidden

SUFFIXES = (".json", ".boris", ".eaf", ".xml", ".csv", ".tsv", ".txt")


@dataclass(frozen=True)
class Document:
    """A file of annotations. content: values of JSON, the root of XML, or text. name: its path, for messages."""

    path: Path
    name: str
    content: Any

    @property
    def root(self) -> Element:
        return self._as(Element, "XML")

    @property
    def text(self) -> str:
        return self._as(str, "text")

    @property
    def record(self) -> dict[str, Any]:
        return self._as(dict, "a record in JSON")

    def _as(self, kind: type, noun: str) -> Any:
        if not isinstance(self.content, kind):
            raise ValueError(f"{self.name}: not {noun}, as the format given with --from is; correct it or leave it out")
        return self.content


def find_documents(source: Path) -> list[Path]:
    """The file itself, or all files of a folder, at any depth, that are not hidden and have one of SUFFIXES.

    Raises: ValueError where there are none.
    """
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise ValueError(f"{source}: does not exist; name a file of annotations, or a folder of them")
    files = [path for path in sorted(source.rglob("*")) if path.is_file() and path.suffix.lower() in SUFFIXES]
    files = [path for path in files if not any(map(is_hidden, path.relative_to(source).parts))]
    if not files:
        raise ValueError(f"{source}: no files of annotations in it, which end with {', '.join(SUFFIXES)}")
    return files


def read_document(path: Path, name: str) -> Document:
    """The parsed content of a file.

    Raises: ValueError for what cannot be opened or parsed, and for XML that declares entities.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot be opened ({error.strerror or type(error).__name__})") from error
    start = data.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    try:
        if start == b"<":
            return Document(path, name, parse_xml(data))
        text = data.decode("utf-8-sig")
        return Document(path, name, json.loads(text) if start in (b"{", b"[") else text)
    except UnicodeDecodeError as error:
        raise ValueError(f"no text in UTF-8 (byte {error.start}); save it as UTF-8") from error
    except (json.JSONDecodeError, expat.ExpatError, RecursionError) as error:
        raise ValueError(f"cannot be parsed ({error}); export it again") from error


def parse_xml(data: bytes) -> Element:
    """The root of an XML file. Raises: ValueError for declared entities: a few lines of them unfold to gigabytes."""
    builder, parser = TreeBuilder(), expat.ParserCreate()

    def refuse(name: str, *_: object) -> None:
        raise ValueError(f"declares an XML entity, {name!r}, which no format here needs; it is not read")

    parser.buffer_text = True
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler = builder.start, builder.end
    parser.CharacterDataHandler = builder.data
    parser.Parse(data, True)
    return builder.close()
