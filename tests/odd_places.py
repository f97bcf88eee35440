"""Names that a program may trip over, and places that are no files or not there."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

from small_files import small_file

NAMES = (
    *(" .mp4", "a b.mp4", "a\nb.mp4", "a\tb.mp4", "a\x1b[31m.mp4", "'a'.mp4", '"a".mp4', "a\\b.mp4", "a .mp4 "),
    *("日本.mp4", "🎬.mp4", "Ze\u0301ro.mp4", "\u202egpj.mp4", "a\udcff\udcfe.mp4", f"{'a' * 246}.mp4"),
    *("%03d.mp4", "%s%n.mp4", "*[a-z]?.mp4", "{a,b}.mp4", "-i.mp4", "--help", ".hidden.mp4", "~.mp4", "$HOME.mp4"),
    *("a:b.mp4", "http:x.mp4", "file:x.mp4", "concat:a.mp4|b.mp4", "subfile,,start,0,end,9,,:a.mp4", "pipe:0"),
    *("data:x.mp4", "crypto:a.mp4", "[red]a[b].mp4", "<b>.mp4", "=1+1.mp4", "a#b?c=d&e.mp4", "CON.mp4"),
)


def listen(path: Path) -> None:
    """A Unix socket; its name may be no longer than a hundred letters, from where we stand."""
    here = os.getcwd()
    os.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path.name)
    os.chdir(here)


def link_to(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def good_link(path: Path) -> None:
    (path.parent / "real.mp4").write_bytes(small_file("front.mp4"))
    path.symlink_to("real.mp4")


def below_a_file(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_bytes(small_file("front.mp4"))


def forbidden(path: Path) -> None:
    path.write_bytes(small_file("front.mp4"))
    path.chmod(0)


PLACES: dict[str, tuple[Callable[[Path], object], str]] = {
    "folder.mp4": (Path.mkdir, "not-a-file"),
    "pipe.mp4": (os.mkfifo, "not-a-file"),
    "socket.mp4": (listen, "not-a-file"),
    "null.mp4": (link_to("/dev/null"), "not-a-file"),
    "zero.mp4": (link_to("/dev/zero"), "not-a-file"),
    "to-folder.mp4": (link_to("."), "not-a-file"),
    "dangling.mp4": (link_to("nothing"), "missing"),
    "loop.mp4": (link_to("loop.mp4"), "missing"),
    "missing.mp4": (lambda path: None, "missing"),
    "below.mp4": (below_a_file, "missing"),
    f"{'b' * 300}.mp4": (lambda path: None, "missing"),
    "linked.mp4": (good_link, "ok"),
}
if os.path.exists("/proc/self/cmdline"):  # a file that has no size until it is read
    PLACES["process.mp4"] = (link_to("/proc/self/cmdline"), "empty")
if os.geteuid() != 0:  # permissions do not stop a superuser
    PLACES["forbidden.mp4"] = (forbidden, "unreadable")
