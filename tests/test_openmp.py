"""Threads that wait: the setting reaches the runtime before torch loads it, and a user's own stays."""

import os
import re
import subprocess
import sys

import pytest

from tubelet.system.openmp import CHOSEN_BY_USERS, SPIN_COUNT, wait_briefly

PLAIN = {name: value for name, value in os.environ.items() if name not in CHOSEN_BY_USERS}


def test_a_command_sets_it_before_torch_is_loaded() -> None:
    command, shows = [sys.executable, "-m", "tubelet", "info", "vit-P/16"], {"OMP_DISPLAY_ENV": "VERBOSE"}
    end = subprocess.run(command, env=PLAIN | shows, capture_output=True, text=True, check=True)
    told = re.search(r"GOMP_SPINCOUNT = '(\d+)'", end.stderr)
    assert told is None or told[1] == SPIN_COUNT  # None: of another runtime than GNU's


@pytest.mark.parametrize("name", CHOSEN_BY_USERS)
def test_one_choice_of_the_user_leaves_all_to_him(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for other in CHOSEN_BY_USERS:
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "1")
    wait_briefly()
    assert {other for other in CHOSEN_BY_USERS if other in os.environ} == {name}


def test_both_runtimes_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CHOSEN_BY_USERS:
        monkeypatch.delenv(name, raising=False)
    wait_briefly()
    assert os.environ["GOMP_SPINCOUNT"] == SPIN_COUNT
    assert "KMP_BLOCKTIME" in os.environ
    for name in CHOSEN_BY_USERS:
        os.environ.pop(name, None)
