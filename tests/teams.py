"""Teams of processes, started as torchrun starts them."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE), "PYTHONWARNINGS": "error", **more}


def together(arguments: Sequence[str], *, processes: int = 2, **more: str) -> list[subprocess.CompletedProcess[str]]:
    """Starts Python that many times with the environment that torchrun gives, and waits for all."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, **more}
    running = [
        subprocess.Popen(
            [sys.executable, *arguments],
            env=environment(**shared, RANK=str(rank), LOCAL_RANK=str(rank)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    try:
        with ThreadPoolExecutor(processes) as readers:
            ends = list(readers.map(lambda process: process.communicate(timeout=200), running))
    finally:
        for process in running:
            process.kill()
            process.communicate()
    return [subprocess.CompletedProcess(arguments, process.returncode, *end) for process, end in zip(running, ends)]
