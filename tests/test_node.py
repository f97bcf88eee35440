"""What the processes of one machine share: the looks at files, and the clips that are kept."""

import json
import shutil
import signal
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_sets import tiny_config, write_sounds, write_videos
from teams import HERE, together

from tubelet.data import kept
from tubelet.data.kept import KeptOnce, make_file, open_same, round_up
from tubelet.runs.run import Run
from tubelet.system.spread import alone, choose_owner
from tubelet.system.team import Team
from tubelet.train.plan import Processes, count_workers, make_plan
from tubelet.train.show import plan_rows

CPU = torch.device("cpu")
ALONE = Team(0, 1, CPU)
SCRIPT = str(HERE / "node_script.py")
# Runs in every process of a team, and in those that they start: files that Python opens are noted.
NOTE_OPENS = """
import os, sys

def note(event, arguments):
    if event == "open" and str(arguments[0]).startswith(os.environ["CLIPS"]):
        name = f"{os.environ['OPENED']}/{os.environ['RANK']}-{os.getpid()}"
        file = os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, f"{arguments[0]}\\n".encode())
        os.close(file)

sys.addaudithook(note)
"""


def came(out: Path, what: str) -> list[Any]:
    return [json.loads((out / f"{what}.{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize(("kind", "memory_files"), [("videos", True), ("sounds", False)])
def test_each_file_is_opened_by_one_process_and_nothing_is_left_of_the_killed(
    kind: str, memory_files: bool, tmp_path: Path
) -> None:
    clips, site, opened, temporary, memory = (tmp_path / name for name in (kind, "site", "opened", "temp", "memory"))
    {"videos": write_videos, "sounds": write_sounds}[kind](clips, 8)
    first = next(clips.rglob("1.*"))
    shutil.copy(first, first.with_stem("copy"))  # so that contents are compared
    for folder in (site, opened, temporary, memory):
        folder.mkdir()
    (site / "sitecustomize.py").write_text(NOTE_OPENS)
    noting = {"PYTHONPATH": f"{site}:{HERE}", "OPENED": str(opened), "CLIPS": str(clips)}
    noting |= {"TMPDIR": str(temporary), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "torch")}
    noting |= {} if memory_files else {"NO_MEMORY_FILES": str(memory)}
    ends = together([SCRIPT, "train", str(tmp_path), str(clips)], **noting)
    assert [(end.returncode, end.stderr) for end in ends] == [(-signal.SIGKILL, "")] * 2
    files = {str(file) for file in clips.rglob("*.*")}
    of_training = len(files) - 2 * round(0.2 * len(files) / 2)
    assert came(tmp_path, "train") == [["KeptOnce", of_training]] * 2
    assert [*temporary.iterdir(), *memory.iterdir()] == []
    before = defaultdict[str, set[str]](set)
    for log in opened.iterdir():
        lines, _, rest = log.read_text().partition("step\n")
        for line in lines.splitlines():
            before[line].add(log.name[0])
        assert {*rest.splitlines()} <= {"step"}  # what any has decoded is opened by none
    assert {file: len(by) for file, by in before.items()} == dict.fromkeys(files, 1)
    assert {*map(min, before.values())} == {"0", "1"}


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("team")
    ends = together([SCRIPT, "share", str(out)])
    assert [(end.returncode, end.stderr) for end in ends] == [(0, ""), (0, "")]
    return out


def test_a_look_is_shared_out_and_what_is_found_keeps_its_order(team: Path) -> None:
    first, second = came(team, "share")
    assert first[0] == second[0]
    *looks, nothing = first[0]
    assert nothing == []
    for look in looks:
        assert look == [[2 * number, str(choose_owner(f"{number % 7}", 2))] for number in range(50)]
    elsewhere = "Elsewhere: process {} of 2 cannot go on: see what it says"
    assert first[1:] == ["ValueError: wrong in 0", elsewhere.format(1), "ValueError: wrong in work", [*range(20)]]
    assert second[1:] == [elsewhere.format(0), "ValueError: wrong in 1", elsewhere.format(0), [*range(20)]]


def test_frames_are_kept_once_and_known_to_all(team: Path) -> None:
    known = [number for number in range(40) if number % 4 != 3]
    assert came(team, "keep") == [{"copies": 1, "found": known, "same": True, "once": "KeptOnce"}] * 2


Frames = st.tuples(st.integers(0, 19), st.booleans(), st.tuples(*[st.integers(1, 40)] * 4))


@given(st.lists(Frames, max_size=12), st.booleans())
def test_kept_frames_are_what_was_kept_last(given_frames: list[Any], memory_files: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if not memory_files:
            patch.delattr(kept.os, "memfd_create")
        files = [make_file(round_up(20 * kept.ROW * 8), 0) for _ in range(2)]
    processes = [KeptOnce([kept.os.dup(file) for file in files], mine, 20) for mine in range(2)]
    kept.close_all(files)
    known: dict[int, torch.Tensor] = {}
    for number, is_sound, shape in given_frames:
        if number not in known:
            frames = torch.rand(shape) if is_sound else torch.randint(256, shape, dtype=torch.uint8)
            processes[number % 2][number] = known[number] = frames
    for one in processes:
        assert [number in one for number in range(20)] == [number in known for number in range(20)]
        for number, frames in known.items():
            assert one[number].dtype == frames.dtype
            assert torch.equal(one[number], frames)


def test_another_file_at_the_same_place_is_not_taken(tmp_path: Path) -> None:
    file = make_file(4096, 0)
    place = kept.find_place(file)
    found = open_same(place)
    assert found is not None
    kept.close_all([file, found])
    other = make_file(4096, 0)  # as processes see it that do not see each other's
    assert kept.find_place(other)[0] == place[0]
    assert open_same(place) is None
    kept.close_all([other])
    assert open_same(place) is None


def test_a_process_alone_keeps_frames_in_ordinary_memory() -> None:
    assert kept.keep_once(ALONE, 10, 0) == {}
    assert kept.count_copies(ALONE) == 1
    assert [*alone(lambda numbers: (2 * number for number in numbers), [1, 2, 3])] == [2, 4, 6]


def test_threads_are_shared_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tubelet.train.plan.processors", lambda: 12)
    config = tiny_config(tmp_path, tmp_path, workers=None)
    assert [count_workers(config, processes) for processes in (1, 2, 4, 24)] == [8, 6, 3, 1]
    assert count_workers(tiny_config(tmp_path, tmp_path, workers=5), 4) == 5


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_videos(tmp_path_factory.mktemp("videos") / "clips", 3)


def memory_row(videos: Path, processes: Processes, **settings: Any) -> str:
    plan = make_plan(tiny_config(videos, videos, batch=16, **settings), CPU, processes=processes)
    return dict(plan_rows(plan, Run(videos)))["memory"]


def test_the_plan_counts_processes_and_keeps_clips_once(videos: Path) -> None:
    one, row = memory_row(videos, Processes()), memory_row(videos, Processes(team=4, node=2, copies=1))
    kept_bytes = one.partition("(")[2]
    assert row.endswith(f"once on a machine ({kept_bytes}")
    assert "each of 4 processes" in row
    apart = memory_row(videos, Processes(team=4, node=2, copies=2))
    assert apart.endswith(f"of each of 2 processes ({kept_bytes}")
    assert memory_row(videos, Processes(team=4, node=2, copies=1), shard="fsdp2") != row


def test_what_a_machine_can_keep_is_asked_once_for_all_its_processes(
    videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for copies, keep in ((1, True), (2, True), (3, False)):
        monkeypatch.setattr("tubelet.train.plan.free_memory", lambda: 2.5 / 0.4 * 1000)
        monkeypatch.setattr("tubelet.train.plan.kept_bytes", lambda *_: 1000)
        plan = make_plan(tiny_config(videos, videos), CPU, processes=Processes(team=6, node=3, copies=copies))
        assert plan.keep == keep
