"""A range of bytes of a file elsewhere, asked for with patience. This and nothing else touches a network.

`http` and `https` are read by Python itself, which shows what the server says about each range; all other schemes by
the drivers of fsspec.
"""

import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from time import sleep
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from tubelet.media.errors import MediaError
from tubelet.system.extras import import_extra
from tubelet.system.text import plural

TIMEOUT_SECONDS = 30.0
WAITS_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0)  # between tries
_PIECE_BYTES = 1 << 18
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})  # a server says so that may answer in a moment
_UNSAID_BYTES = 1 << 28  # the most that is read of a file whose server does not say how large it is


_silent: set[tuple[str, str]] = set()  # hosts that did not answer in the end: not waited for again until they do


class Version(NamedTuple):
    """The state of a file elsewhere. size: in bytes. stamp: changes with the content, as far as the server tells."""

    size: int
    stamp: str


Piece = tuple[Version, int, bytes]  # what the file is, where the bytes stand in it, the bytes
Read = Callable[[str, int, int, Version | None], Iterator[Piece]]


class _Broken(Exception):
    """No answer, or not all of it: another try may have more."""


def fetch(address: str, first: int, end: int, known: Version | None) -> Iterator[Piece]:
    """The bytes [first, end) in pieces, in order; a broken connection is taken up where it broke. A server that knows
    no ranges sends all of the file, from its first byte on.

    known: what the file was before.

    Raises:
        MediaError: missing, refused, no-answer, empty, or changed.
        ValueError: the driver for such addresses is not installed.
    """
    scheme, host = urlsplit(address)[:2]
    read: Read = _read_http if scheme.lower() in ("http", "https") else _read_fsspec
    waits = () if (scheme, host) in _silent else WAITS_SECONDS
    for wait_seconds in (*waits, None):
        try:
            for version, place, data in read(address, first, end, known):
                if known not in (None, version):
                    raise changed(address)
                known = version
                yield version, place, data
                first = place + len(data)
            _silent.discard((scheme, host))
            return
        except _Broken as trouble:
            if wait_seconds is None:
                _silent.add((scheme, host))
                problem = f"the server does not answer ({trouble}), asked {plural(len(waits) + 1, 'time')}"
                raise MediaError(address, "no-answer", problem, "Try again later") from trouble
            sleep(wait_seconds)


def changed(address: str) -> MediaError:
    return MediaError(address, "changed", "it changed on the server while it was read", "Run the command again")


def _missing(address: str, why: object) -> MediaError:
    return MediaError(address, "missing", f"it is not there ({why})", "Check the address")


def _empty(address: str) -> MediaError:
    return MediaError(address, "empty", "the file is empty", "Copy or download it again")


def _refused(address: str, why: object) -> MediaError:
    return MediaError(address, "refused", f"the server does not let you read it ({why})", "Sign in, or ask for access")


# No file:, no ftp:, wherever a server may lead.
_opener = urllib.request.OpenerDirector()
for _handler in (
    *(urllib.request.ProxyHandler, urllib.request.HTTPHandler, urllib.request.HTTPSHandler),
    *(urllib.request.HTTPDefaultErrorHandler, urllib.request.HTTPRedirectHandler, urllib.request.HTTPErrorProcessor),
):
    _opener.add_handler(_handler())


def _read_http(address: str, first: int, end: int, known: Version | None) -> Iterator[Piece]:
    headers = {
        "Range": f"bytes={first}-{end - 1}",
        "Accept-Encoding": "identity",  # else the bytes might be those of an archive of it
        "User-Agent": "tubelet",
    }
    url = quote(address, safe="%/:=&?~#+!$,;'@()*[]")  # spaces and letters of all scripts
    try:
        with _opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_SECONDS) as answer:
            data = b""
            if answer.status == 206:
                place, size = _content_range(address, answer.headers.get("Content-Range", ""), first)
                stop = min(end, size)
            else:  # all of it, whatever was asked for
                length = answer.headers.get("Content-Length")
                data = b"" if length else answer.read(_UNSAID_BYTES)
                place, size = 0, int(length or len(data))
                stop = size
            if size == 0:
                raise _empty(address)
            version = Version(size, answer.headers.get("ETag") or answer.headers.get("Last-Modified") or "")
            while data or place < stop:
                data = data or answer.read(min(_PIECE_BYTES, stop - place))
                if not data:
                    raise _Broken(f"{stop - place} bytes are missing")
                yield version, place, data
                place, data = place + len(data), b""
    except urllib.error.HTTPError as error:
        error.close()
        why = f"{error.code} {error.reason}"
        if error.code in _PASSING:
            raise _Broken(why) from error
        if error.code == 416 and first == 0:  # there is no first byte
            raise _empty(address) from error
        if error.code == 416:
            raise changed(address) from error
        raise (_refused if error.code in (401, 403, 407) else _missing)(address, why) from error
    except MediaError:
        raise
    except (OSError, http.client.HTTPException) as error:  # URLError and timeouts too
        if isinstance(error, http.client.InvalidURL):
            raise _missing(address, error) from error
        raise _Broken(str(getattr(error, "reason", error)) or type(error).__name__) from error
    except ValueError as error:  # no host, or a port that is no number
        raise _missing(address, error) from error


def _content_range(address: str, text: str, first: int) -> tuple[int, int]:
    """Where the bytes of an answer begin, and the size of the file."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", text.strip())
    if not found or int(found[1]) != first:
        problem = f"the server was asked for bytes from {first} on and sent {text!r}"
        raise MediaError(address, "no-answer", problem, "Download the file first")
    return first, int(found[2])


def open_filesystem(address: str) -> tuple[Any, str]:
    """fsspec's driver for an address, and the name it has for it. Raises ValueError where it is not installed."""
    scheme = urlsplit(address).scheme.lower()
    needs = {"s3": "s3fs", "gs": "gcsfs", "hf": "huggingface_hub"}.get(scheme)
    if needs:
        import_extra(needs, extra="cloud")
    filesystem, name = import_extra("fsspec.core", extra="cloud").url_to_fs(address)
    return filesystem, name


def _read_fsspec(address: str, first: int, end: int, known: Version | None) -> Iterator[Piece]:
    filesystem, name = open_filesystem(address)
    try:
        version = known or _look(address, filesystem, name)
        data = filesystem.cat_file(name, start=first, end=min(end, version.size))
        # the driver does not tell what a range is of: what the file is after as before, it was meanwhile
        if _look(address, filesystem, name) != version:
            raise changed(address)
    except (MediaError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise _missing(address, error) from error
    except PermissionError as error:
        raise _refused(address, error) from error
    except Exception as error:  # each driver has its own
        if "credential" in f"{type(error).__name__} {error}".lower():
            raise _refused(address, error) from error
        raise _Broken(f"{type(error).__name__}: {error}") from error
    if len(data) != min(end, version.size) - first:
        raise _Broken(f"{min(end, version.size) - first - len(data)} bytes are missing")
    yield version, first, data


def _look(address: str, filesystem: Any, name: str) -> Version:
    filesystem.invalidate_cache()
    about = filesystem.info(name)
    if about.get("type") == "directory" or about.get("size") is None:
        raise MediaError(address, "not-a-file", "it is a folder, not a file", "Name the files in it, in a table")
    if about["size"] == 0:
        raise _empty(address)
    return Version(int(about["size"]), str(filesystem.ukey(name)))
