"""An HTTP server on this machine that counts what it sends, and fails as told."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class FileServer:
    """files: content by path, such as "/a.mp4". stamps: their ETags. statuses: what is answered in the place of a file.
    breaks: how many answers are cut off in the middle. silent: how many requests are not answered. hangs: it answers
    once it is let go. ranges, tells_length: whether it does.

    asked: (path, first byte, bytes sent) of each request.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    stamps: dict[str, str] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    breaks: int = 0
    silent: int = 0
    ranges: bool = True
    tells_length: bool = True
    asked: list[tuple[str, int, int]] = field(default_factory=list)
    url: str = ""
    hangs: bool = False
    let_go: threading.Event = field(default_factory=threading.Event)

    def sent(self, path: str) -> int:
        return sum(count for name, _, count in self.asked if name == path)

    def requests(self, path: str) -> int:
        return sum(name == path for name, _, _ in self.asked)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = handler.path.split("?")[0]
        if self.hangs:
            self.let_go.wait(20)
        if self.silent:
            self.silent -= 1
            handler.close_connection = True
            return
        status = self.statuses.get(path, 200 if path in self.files else 404)
        if status != 200:
            self.asked.append((path, 0, 0))
            handler.send_error(status)
            return
        data = self.files[path]
        first, end = 0, len(data)
        asked = handler.headers.get("Range", "")
        if self.ranges and asked:
            first, last = (int(number) for number in asked.removeprefix("bytes=").split("-"))
            end = min(last + 1, len(data))
            if first >= len(data):
                handler.send_error(416)
                return
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {first}-{end - 1}/{len(data)}")
        else:
            handler.send_response(200)
        if self.tells_length:
            handler.send_header("Content-Length", str(end - first))
        handler.send_header("ETag", self.stamps.get(path, f'"{len(data)}"'))
        handler.end_headers()
        if self.breaks and end - first > 1:
            self.breaks -= 1
            end = first + (end - first) // 2
        self.asked.append((path, first, end - first))
        with suppress(OSError):  # nobody waits any more
            handler.wfile.write(data[first:end])


@contextmanager
def serve(**settings: Any) -> Iterator[FileServer]:
    server = FileServer(**settings)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.answer(self)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        server.url = f"http://127.0.0.1:{listening.server_port}"
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            listening.shutdown()
            thread.join()
