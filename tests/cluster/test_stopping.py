"""A daemon that is told to stop says so first, for as long as ``--stop-delay`` says, and goes on serving meanwhile."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx

from tests.api.tus_client import Tus, digest, some
from tests.conftest import Daemon, StartDaemon
from tests.processes import wait_until


def leave(daemon: Daemon) -> None:
    """Tell a daemon to stop, and wait until it says that it does."""
    os.kill(daemon.pid, signal.SIGTERM)
    assert wait_until(lambda: httpx.get(f"{daemon.url}/readyz").status_code == 503)


def test_everything_is_served_while_it_says_that_it_stops(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "2", "--stop-delay", "10m")
    body = some(1000)
    with httpx.Client(base_url=daemon.url) as client:
        assert client.post("/", content=body, headers={"content-type": "text/plain"}).status_code == 200
        assert client.get("/readyz").json() == {"status": "ok"}
        assert "connection" not in client.get(f"/{digest(body)}").headers
        leave(daemon)
        assert client.get("/readyz").json()["fault"] == "stopping"
        assert client.get("/healthz").status_code == 200
        other = some(1000)
        answer = client.post("/", content=other, headers={"content-type": "text/plain"})
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        # those that are in memory, too, if a moment later
        assert wait_until(lambda: client.get(f"/{digest(body)}").headers.get("connection") == "close")
        assert client.delete(f"/{digest(other)}").status_code == 200
        tus = Tus(client)
        path = tus.begin(10, b"12345")
        assert tus.patch(path, 5, b"67890").status_code == 204
    # the second time it does not wait
    assert daemon.stop() == 0


def test_a_connection_ends_with_the_answer(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "1", "--stop-delay", "10m")
    leave(daemon)
    with socket.create_connection(daemon.address, timeout=30) as connection:
        connection.sendall(b"GET /v1/stats HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        answer = b""
        # until the other side closes it
        while piece := connection.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert daemon.stop() == 0


def test_it_stops_by_itself_when_the_delay_is_over(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "1", "--stop-delay", "8s")
    told = time.monotonic()
    leave(daemon)
    assert daemon.wait() == 0
    assert time.monotonic() - told >= 8
    assert "Traceback" not in daemon.read_log()


def test_without_a_delay_it_stops_at_once(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "1")
    assert daemon.stop() == 0
    assert "once more" not in daemon.read_log()


def test_stop_and_restart_wait_for_as_long_as_it_takes(tmp_path: Path) -> None:
    store = tmp_path / "store"
    flags = ["--store", str(store)]
    port = ["--host", "127.0.0.1", "--port", "0", "--workers", "1"]

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "filestored", *words], capture_output=True, text=True, timeout=100, check=True
        )

    call("start", *flags, *port, "--stop-delay", "3s")
    try:
        began = time.monotonic()
        call("restart", *flags)
        assert time.monotonic() - began >= 3
    finally:
        began = time.monotonic()
        call("stop", *flags)
    # the settings of the first start are those of the second
    assert time.monotonic() - began >= 3


def test_it_can_be_started_again_after_it_left(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "1", "--stop-delay", "1s")
    assert daemon.stop() == 0
    daemon.start()
    assert httpx.get(f"{daemon.url}/readyz").status_code == 200
