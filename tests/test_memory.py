"""What a worker keeps of requests that are over: nothing that grows with their bodies."""

import os
import socket
import time
from pathlib import Path

import pytest

from tests.conftest import Daemon, StartDaemon

CUT = 600_000


def private_bytes(pid: int) -> int:
    """Return how much memory a process has to itself."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("Private_", "Pss_Anon")))


def worker_of(daemon: Daemon) -> int:
    """Return the process of a daemon that serves."""
    pids = [
        int(pid)
        for task in Path(f"/proc/{daemon.pid}/task").iterdir()
        for pid in (task / "children").read_text().split()
    ]
    return max(pids, key=private_bytes)


def cut_one(daemon: Daemon, path: str, size: int) -> None:
    """Send part of a body, and hang up."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: a/b\r\nContent-Length: {2 * size}\r\n\r\n"
    with socket.create_connection(daemon.address) as connection:
        connection.sendall(head.encode() + os.urandom(1000) * (size // 1000))
        # it is read
        time.sleep(0.004)


@pytest.mark.parametrize("path", ["/", "/v1/files"])
def test_bodies_that_were_cut_are_let_go_of(start_daemon: StartDaemon, path: str) -> None:
    daemon = start_daemon("--workers", "1")
    for _ in range(50):
        cut_one(daemon, path, CUT)
    worker = worker_of(daemon)
    before = private_bytes(worker)
    for _ in range(300):
        cut_one(daemon, path, CUT)
    time.sleep(1)
    # kept, they would be 170 MiB
    assert private_bytes(worker) - before < 60 << 20
