"""The members of a tar, read in place: where each begins and how long it is, by the headers alone.

|header|a.mp4 ....|header|a.cls|header|b.mp4 ....|      a header has 512 bytes; contents are padded to 512
        ^ offset, size

Python's own reader is not used: it can write what a tar says, wherever the tar says.
"""

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from tubelet.media.errors import MediaError
from tubelet.media.sniff import read_at

BLOCK_BYTES = 512
_MOST_NAME_BYTES = 1 << 16  # of the extra headers of one member
_FILE, _LONG_NAME, _PAX, _PAX_ALL = (b"0", b"\0", b"7"), b"L", b"x", b"g"
_NO_CONTENT = (b"1", b"2", b"3", b"4", b"5", b"6")  # links, devices, folders and pipes, whatever size they state
_PACKED = ((b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"))
PACKED_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


class Member(NamedTuple):
    """A regular file in a tar: its name, the byte it begins at, and its bytes."""

    name: str
    offset: int
    size: int


def list_members(path: str, file: BinaryIO, size: int) -> Iterator[Member]:
    """The regular files in a tar of so many bytes, in its order.

    Raises: MediaError: it is no tar, it is compressed, or it ends before it says it does.
    """
    place, name, told, has_end = 0, "", dict[str, str](), False
    while place + BLOCK_BYTES <= size:
        header = read_at(file, place, BLOCK_BYTES)
        if not header.strip(b"\0"):  # two of these are the end; some tools glue tars together behind them
            place, has_end = place + BLOCK_BYTES, True
            continue
        _check(path, header, place)
        kind = header[156:157]
        length = 0 if kind in _NO_CONTENT else _number(header[124:136])
        start = place + BLOCK_BYTES
        if start + length > size:
            raise _cut(path, f"at byte {size}, in a member that reaches to {start + length}")
        if kind == _LONG_NAME:
            name = _text(read_at(file, start, min(length, _MOST_NAME_BYTES)).rstrip(b"\0"))
        elif kind == _PAX:
            told = _read_pax(read_at(file, start, min(length, _MOST_NAME_BYTES)))
        elif kind != _PAX_ALL:
            length = int(told.get("size", length))
            if kind in _FILE and "GNU.sparse.major" not in told:
                yield Member(_clean(told.get("path") or name or _short_name(header)), start, length)
            name, told = "", {}
        place = start + -(-length // BLOCK_BYTES) * BLOCK_BYTES
    if not has_end:
        raise _cut(path, f"at byte {size}, without the empty block that ends one")


def _cut(path: str, how: str) -> MediaError:
    problem, remedy = f"the tar ends {how}", "The copy was probably cut short: fetch it again"
    return MediaError(path, "truncated", problem, remedy)


def _check(path: str, header: bytes, place: int) -> None:
    counted = sum(header[:148]) + 8 * 32 + sum(header[156:])
    if _number(header[148:156]) == counted:
        return
    way = next((name for start, name in _PACKED if header.startswith(start)), "")
    if way and place == 0:
        raise packed(path, f" ({way})")
    raise MediaError(path, "damaged", f"it is no tar from byte {place} on", "Copy the file again or leave it out")


def packed(path: str, way: str) -> MediaError:
    problem = f"the tar is compressed{way}, so nothing in it can be read in place"
    return MediaError(path, "blocked", problem, "Unpack it to a plain .tar, which is hardly larger")


def _number(field: bytes) -> int:
    """Digits to the base of 8, or, with the first bit set, to that of 256. -1 for what is neither."""
    if field[0] & 0x80:
        return int.from_bytes(field[1:])
    try:
        return int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        return -1


def _short_name(header: bytes) -> str:
    name, folder = header[:100].split(b"\0")[0], b""
    if header[257:263] == b"ustar\0":
        folder = header[345:500].split(b"\0")[0]
    return _text(folder + b"/" * bool(folder) + name)


def _read_pax(data: bytes) -> dict[str, str]:
    """Lines of "LENGTH KEY=VALUE", each with its own length before it."""
    found: dict[str, str] = {}
    while data:
        length = int(digits) if (digits := data.split(b" ")[0]).isdigit() else 0
        key, equals, value = data[len(digits) + 1 : length].rstrip(b"\n").partition(b"=")
        if not length or not equals:
            break
        found[_text(key)] = _text(value)
        data = data[length:]
    return found


def _text(name: bytes) -> str:
    return name.decode(errors="surrogateescape")


def _clean(name: str) -> str:
    """ "./walk/a.mp4" -> "walk/a.mp4"."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))
