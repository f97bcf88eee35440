"""Every command, end to end, under an audit hook: nothing is unpickled, nothing connected to, no program started but
Python itself, to look at files in a process of its own, which does nothing of this either."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from small_sets import TINY_FLAGS, write_videos

from tubelet.cli import COMMANDS
from tubelet.nn import create_model
from tubelet.system.child import START
from tubelet.weights.store import save

# The interpreter's own names, see docs.python.org/3/library/audit_events.html. The importer itself unmarshals .pyc
# files: that alone is let pass, by the function that asks for it.
FORBIDDEN = (
    *("pickle.find_class", "marshal.load", "marshal.loads"),
    *("socket.__new__", "socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"),
    *("urllib.Request", "http.client.connect", "ftplib.connect", "smtplib.connect"),
    *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "pty.spawn"),
)
WATCHED = """
import json, os, signal, sys, threading, time, traceback
from pathlib import Path

forbidden, lines, stop_when, child = map(json.loads, sys.argv[1:])
seen = []

def hook(event, arguments):
    if event == "subprocess.Popen" and arguments[1][:4] == child:
        return
    if event in forbidden:
        caller = sys._getframe(1).f_code
        if not (event == "marshal.loads" and caller.co_filename == "<frozen importlib._bootstrap_external>"):
            seen.append(event + "".join(traceback.format_stack(limit=8)[:-1]))

def stop_training():
    while not (Path(stop_when).is_file() and Path(stop_when).stat().st_size):
        time.sleep(0.005)
    os.kill(os.getpid(), signal.SIGINT)

sys.addaudithook(hook)
codes = []
threading.Thread(target=stop_training, daemon=True).start()
for line in lines:
    if isinstance(line, str):
        exec(line)
        continue
    from tubelet.cli import main
    sys.argv = ["tubelet", *line]
    try:
        main()
    except SystemExit as end:
        codes.append(end.code)
print(json.dumps({"codes": codes, "seen": seen}), file=sys.stderr)
"""
PICKLE = b"cos\nsystem\n(S'touch hacked'\ntR."  # os.system("touch hacked")


def watched(lines: list[str | list[str]], folder: Path, *, stop_when: str = "") -> dict[str, Any]:
    """Exit codes of commands, one after the other in a process of its own, and what they did that is forbidden."""
    given = [json.dumps(value) for value in (FORBIDDEN, lines, stop_when, [sys.executable, "-P", "-c", START])]
    typed = [sys.executable, "-W", "error", "-c", WATCHED, *given]
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    end = subprocess.run(typed, cwd=folder, env=alone, capture_output=True, text=True, timeout=200)
    assert end.returncode == 0, end.stderr
    return json.loads(end.stderr.splitlines()[-1])


def test_the_hook_sees_what_is_forbidden(tmp_path: Path) -> None:
    found = watched(
        [
            f"import pickle; pickle.loads({PICKLE!r})",
            "import marshal; marshal.loads(marshal.dumps(1))",
            "import socket; socket.socket().close()",
            "import subprocess; subprocess.run(['true'])",
        ],
        tmp_path,
    )
    for event in ("pickle.find_class", "os.system", "marshal.loads", "socket.__new__", "subprocess.Popen"):
        assert any(seen.startswith(event) for seen in found["seen"]), event
    assert (tmp_path / "hacked").exists()


def test_no_command_unpickles_connects_or_starts_a_program(tmp_path: Path) -> None:
    write_videos(tmp_path / "data", 3)
    save(create_model("vit-P/16", clip=(1, 32, 32), num_classes=2), tmp_path / "image")
    segments = {"annotations": [{"label": "dark", "segment": [0, 1]}]}
    (tmp_path / "labels.json").write_text(json.dumps({"database": {"0": segments}}))
    (tmp_path / "evil.pt").write_bytes(PICKLE)
    (tmp_path / "evil.safetensors").write_bytes(PICKLE)
    cpu = ["--device", "cpu", "--dtype", "float32"]
    train = ["train", "data", "--out", "run", *TINY_FLAGS, "--epochs", "100"]
    variant = "model=vivit1-P/16x4 frames=4 size=32,32 batch=4 dtype=float32"
    compare = ["compare", "data", "--variants", variant, f"{variant} lr=1e-4", "--folds", "2", "--budget", "8s"]
    lines: list[tuple[int, list[str]]] = [
        (0, ["--help"]),
        (0, ["info", "vivit2-P/16x2"]),
        (0, ["weights", "video"]),
        (0, ["check", "data"]),
        (130, train),
        (0, train),  # goes on from a checkpoint
        (0, ["eval", "run", "data", "--csv", "answers.csv", *cpu]),
        (0, ["predict", "run", "data/dark/0.mp4", *cpu]),
        (0, ["stream", "run", "data/dark/0.mp4", "--out", "timeline", *cpu]),
        (0, [*compare, "--out", "compared", "--device", "cpu", "--workers", "1"]),
        (0, ["pretrain", "--out", "start", "--model", "vivit1-P/12x8", "--steps", "1", "--device", "cpu"]),
        (0, ["pretrain", "data", "--out", "more", "--model", "vivit1-P/16x4", "--steps", "1", "--device", "cpu"]),
        (0, ["explain", "run", "data/dark/0.mp4", "--device", "cpu"]),
        (0, ["check", "data", "--shard", "1/1", "--parts", "parts"]),
        (0, ["merge", "parts"]),
        (0, ["embed", "run", "data", "--out", "embedded", "--device", "cpu"]),
        (0, ["search", "embedded", "data/dark/0.mp4", "--out", "found.html", "--device", "cpu"]),
        (0, ["search", "embedded", "--duplicates"]),
        (0, ["suggest", "embedded", "--labels", "next.csv", "--count", "2", "--out", "next.html"]),
        (0, ["prepare", "data", "small", "--short-side", "16"]),
        (0, ["bench", "vivit2-P/16x2", "--clip", "4", "32", "32", "--minutes", "0.001", *cpu]),
        (0, ["convert", "image", "for-timm", "--to", "timm"]),
        (0, ["convert", "for-timm", "ours", "--heads", "3", "--clip", "1", "32", "32"]),
        (0, ["convert-labels", "labels.json", "labels.csv"]),
        (0, ["convert-labels", "answers.csv", "tasks.json", "--to", "label-studio", "--videos", "data"]),
        (0, ["convert-labels", "timeline/segments.csv", "found", "--to", "fiftyone", "--videos", "data/dark/0.mp4"]),
        (0, ["convert-labels", "tasks.json", "back.csv", "--videos", "data"]),
        (2, ["convert", "evil.pt", "hacked-by"]),
        (2, ["predict", "evil.safetensors", "data/dark/0.mp4"]),
        (2, ["train", "data", "--out", "other", *TINY_FLAGS, "--init", "evil.pt"]),
    ]
    hurry = "import tubelet.compare.comparison as compared; compared.LEAST_SECONDS, compared.COST_SECONDS = 0.1, 0"
    few = "import tubelet.pretrain.crates as made; made.WORLDS = made.SURFACES = 2"
    clip = str(tmp_path / "data" / "dark" / "0.mp4")
    children = [
        f"import io; sys.stdin = io.StringIO({lines!r}); from {module} import work; work()"
        for module, lines in (
            ("tubelet.media.workers", json.dumps([clip, False])),
            # it asks this process for what is elsewhere, and is told here that there is nothing
            ("tubelet.media.workers", '["https://host/a.mp4", true]\n["", ["", "missing", "it is gone", "Look"]]'),
            ("tubelet.compare.cost", json.dumps([str(tmp_path / "run"), clip, None, None, "cpu"])),
        )
    ]
    found = watched([hurry, few, *(line for _, line in lines), *children], tmp_path, stop_when="run/metrics.jsonl")
    assert found["seen"] == []
    assert found["codes"] == [code for code, _ in lines]
    assert not (tmp_path / "hacked").exists()
    # demo is train on clips that it renders; export takes half a minute: it was watched once, and did nothing of this
    assert {line[0] for _, line in lines} | {"demo", "export"} == {"--help", *COMMANDS}
