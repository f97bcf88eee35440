"""What starts a training on several machines, with two "nodes" on this one: a worker is killed, torchrun starts all of
them again, and they go on from the last checkpoint to the weights of a training that nothing disturbed."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from small_sets import TINY_FLAGS, write_videos
from teams import environment, together

from tubelet.cli import parse
from tubelet.commands import Train

DEPLOY = Path(__file__).parent.parent / "deploy"
pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found in /proc")

STEPS = 24
FLAGS = (*TINY_FLAGS, "--epochs", "12", "--save-minutes", "0")


@dataclass(frozen=True)
class Start:
    """A bash script, and the environment that its system gives it on the node of a number."""

    script: str
    given: dict[str, str]
    ours: dict[str, str]  # as the file sets them


def read_yaml(name: str) -> list[dict]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def read_job() -> dict:
    return read_yaml("k8s-job.yaml")[1]["spec"]["template"]["spec"]["containers"][0]


def find_start(name: str) -> Start:
    if name == "slurm.sbatch":
        given = {"SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "1", "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[1-2]"}
        return Start((DEPLOY / name).read_text(), given, {})
    if name == "sky.yaml":
        (task,) = read_yaml(name)
        given = {"SKYPILOT_NODE_IPS": "127.0.0.1\n127.0.0.1", "SKYPILOT_NUM_NODES": "2", "SKYPILOT_TASK_ID": "7"}
        return Start(task["run"], given | {"SKYPILOT_NUM_GPUS_PER_NODE": "1"}, task["envs"])
    job = read_job()
    return Start(
        job["args"][0], {"HEAD": "127.0.0.1", "PROCESSES": "1"}, {one["name"]: one["value"] for one in job["env"]}
    )


SOAK = os.environ.get("TUBELET_SOAK", "") == "1"
STARTS = ("slurm.sbatch", "sky.yaml", "k8s-job.yaml")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_videos(tmp_path_factory.mktemp("data") / "clips")


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    ends = together(["-m", "tubelet", "train", str(data), "--out", str(out), *FLAGS])
    assert [end.returncode for end in ends] == [0, 0], ends[0].stderr
    return out


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """What a node has: torchrun, and, of Slurm's own programs, the two that the script calls."""
    folder = tmp_path / "tools"
    folder.mkdir()
    texts = {
        "torchrun": f'exec {sys.executable} -m torch.distributed.run "$@"',
        "srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@"',
        "scontrol": "echo 127.0.0.1; echo 127.0.0.1",
    }
    for name, text in texts.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)
    return folder


def find_worker(rank: str, out: Path) -> int:
    """The process of a rank that trains in a run directory."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            typed, given = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes().split(b"\0")
            if str(out).encode() in typed and f"RANK={rank}".encode() in given:
                return int(folder.name)
    raise AssertionError(f"no process of rank {rank}")


@pytest.fixture
def nodes() -> Iterator[list[subprocess.Popen[str]]]:
    running: list[subprocess.Popen[str]] = []
    yield running
    for node in running:
        if node.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(node.pid, signal.SIGKILL)
        node.communicate()


@pytest.mark.parametrize(("name", "killed"), list(zip(STARTS, ("0", "1", "0")))[: None if SOAK else 1])
def test_a_worker_that_is_killed_costs_nothing_but_time(
    name: str, killed: str, data: Path, undisturbed: Path, tools: Path, tmp_path: Path, nodes: list
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    start, out = find_start(name), tmp_path / "run"
    ours = {"CLIPS": str(data), "OUT": str(out), "FLAGS": " ".join(FLAGS), "PORT": port}
    ours |= {"PATH": f"{tools}:{os.environ['PATH']}", "PYTHONWARNINGS": "ignore"}
    env = environment() | start.ours | start.given | ours
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    nodes += [subprocess.Popen(["bash", "-c", start.script], env=env, start_new_session=True, **pipes) for _ in "12"]
    while not list(out.glob("checkpoints/step-0000000[3-9]")):
        ended = [node for node in nodes if node.poll() is not None]
        assert not ended, ended[0].communicate()[0]
        time.sleep(0.01)
    os.kill(find_worker(killed, out), signal.SIGKILL)
    said = [node.communicate(timeout=200)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], "\n".join(said)
    (step,) = re.findall(r"going on.*?from step (\d+) of", "".join(said))
    assert 3 <= int(step) < STEPS
    one, other = (load_file(run / "model.safetensors") for run in (out, undisturbed))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert (out / "predictions.csv").read_text() == (undisturbed / "predictions.csv").read_text()


@pytest.mark.parametrize("name", STARTS)
def test_the_scripts_are_bash_and_their_flags_are_ours(name: str) -> None:
    start = find_start(name)
    subprocess.run(["bash", "-n", "-c", start.script], check=True)
    flags = start.ours.get("FLAGS") or re.search(r'"\$\{FLAGS:=(.*?)\}"', start.script)[1]  # type: ignore[index]  # there
    command = parse(["train", "clips", "--out", "run", *flags.split()])
    assert isinstance(command, Train)
    assert command.epochs  # by passes, not by minutes: how long several machines are waited for is not known


def test_the_job_of_kubernetes_finds_its_head() -> None:
    service, job = read_yaml("k8s-job.yaml")
    pod, given = job["spec"]["template"]["spec"], {one["name"]: one["value"] for one in read_job()["env"]}
    assert service["spec"]["clusterIP"] == "None"
    assert given["HEAD"] == f"{job['metadata']['name']}-0.{pod['subdomain']}"
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == int(given["NODES"])
    assert read_job()["resources"]["limits"]["nvidia.com/gpu"] == int(given["PROCESSES"])
    mounted = {one["name"] for one in read_job()["volumeMounts"]}
    assert mounted == {one["name"] for one in pod["volumes"]}


def test_the_task_of_skypilot_has_the_fields_that_it_takes() -> None:
    (task,) = read_yaml("sky.yaml")
    assert set(task) == {"name", "num_nodes", "resources", "envs", "file_mounts", "setup", "run"}
    assert all(isinstance(value, str) for value in task["envs"].values())
    (mount,) = task["file_mounts"]
    assert task["envs"]["OUT"].startswith(f"{mount}/")
