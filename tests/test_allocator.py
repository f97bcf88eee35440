"""Memory that a process keeps: what was freed is not cleared anew; nothing is set where the user has chosen."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tubelet.system import allocator
from tubelet.system.allocator import CHOSEN_BY_USERS, keep_memory

PROGRAM = """
import ctypes, resource
from tubelet.system.allocator import keep_memory
assert keep_memory() or not hasattr(ctypes.CDLL(None), "mallopt")
def use():
    blocks = [bytearray(3 << 20) for _ in range(8)]
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(program: str) -> int:
    end = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=True)
    return int(end.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="GNU's allocator is Linux's")
def test_memory_that_was_freed_is_used_again() -> None:
    page_bytes = resource.getpagesize()
    all_anew = 20 * 8 * (3 << 20) // page_bytes
    assert faults(PROGRAM) < all_anew // 20
    assert faults(PROGRAM.replace("assert keep_memory()", "assert True")) > all_anew // 2


@pytest.mark.parametrize("name", CHOSEN_BY_USERS)
def test_what_the_user_chose_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    assert keep_memory() is False


def test_another_allocator_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: Path())
    assert keep_memory() is False
