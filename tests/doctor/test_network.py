"""Port, proxies, and who reaches what; the daemon that runs."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import StartDaemon
from tests.doctor.examining import doctor, look, look_at
from tests.processes import worker_pids


def test_a_port_that_another_program_has(stopped: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = look_at("port", stopped, "--host", "127.0.0.1", "--port", str(port))
    assert told.of("port", "fault")["found"] == f"port {port} on 127.0.0.1 is in use by another program"


@pytest.mark.parametrize(
    ("networks", "state"),
    [
        ("0.0.0.0/0", "fault"), ("::/0", "fault"), ("10.0.0.0/7", "fault"), ("8.8.8.8", "warning"),
        ("127.0.0.1", "good"), ("10.1.0.0/16,fd00::/48", "good"),
    ],
)  # fmt: skip
def test_proxies_that_are_believed(folder: Path, networks: str, state: str) -> None:
    look_at("proxies", folder, "--trusted-proxy", networks, "--port", "0").of("proxies", state)


def test_who_reaches_what(stopped: Path) -> None:
    """The daemon of this store listened on this machine alone, which is what counts where nothing else is said."""
    outside = ("--host", "0.0.0.0", "--port", "0")
    look_at("access", stopped, *outside).of("access", "good")
    assert (
        "--anonymous full"
        in look_at("access", stopped, "--anonymous", "full", *outside).of("access", "warning")["found"]
    )
    look_at("access", stopped, "--anonymous", "full", "--port", "0").of("access", "good")
    made = [sys.executable, "-m", "filestored", "token", "create", "me", "--permissions", "read"]
    subprocess.run([*made, "--store", str(stopped)], check=True, capture_output=True, timeout=60)
    assert "in the clear" in look_at("access", stopped, *outside).of("access", "warning")["found"]
    look_at("access", stopped, "--trusted-proxy", "10.0.0.1", *outside).of("access", "good")
    look_at("access", stopped).of("access", "good")


def test_a_daemon_that_answers_nobody(start_daemon: StartDaemon, folder: Path) -> None:
    daemon = start_daemon("--workers", "1", store=folder / "store")
    (worker,) = worker_pids(daemon.pid)
    os.kill(worker, signal.SIGSTOP)
    try:
        told = doctor(daemon.store)
    finally:
        os.kill(worker, signal.SIGCONT)
    assert f"process {daemon.pid} does not answer" in told.of("daemon", "fault")["found"]
    assert told.status == 1


def test_another_port_than_that_of_the_daemon_that_runs(start_daemon: StartDaemon, folder: Path) -> None:
    daemon = start_daemon("--workers", "1", store=folder / "store")
    store = str(daemon.store)
    assert look("port", {"store": store, "port": "0"}, {}).of("port", "good")["found"].endswith(daemon.url)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        told = look("port", {"store": store, "host": "127.0.0.1", "port": port}, {})
    assert "in use by another program" in told.of("port", "fault")["found"]


BUCKET = {"store": "s3://files/here", "redirect_downloads": "yes"}


@pytest.mark.parametrize(
    ("settings", "state", "found"),
    [
        ({"redirect_downloads": "yes"}, "fault", "--redirect-downloads needs a bucket"),
        ({"accel_redirect": "/stored"}, "fault", "--accel-redirect needs --trusted-proxy"),
        ({"store": "s3://files/here", "accel_redirect": "/stored"}, "fault", "needs a store that is a folder"),
        ({"accel_redirect": "/stored", "trusted_proxy": "10.0.0.7"}, "warning", "nginx at 10.0.0.7/32"),
        ({"accel_redirect": "/stored", "trusted_proxy": "127.0.0.1"}, "good", "as /stored/"),
        ({**BUCKET, "bucket_endpoint": "http://127.0.0.1:9"}, "warning", "which is their own machine to them"),
        ({**BUCKET, "bucket_endpoint": "http://127.0.0.1:9", "host": "127.0.0.1"}, "good", "http://127.0.0.1:9"),
        ({**BUCKET, "bucket_endpoint": "https://s3.example"}, "good", "https://s3.example, which clients must reach"),
        (BUCKET, "good", "the provider of the bucket"),
    ],
)
def test_downloads_that_another_program_sends(tmp_path: Path, settings: dict[str, str], state: str, found: str) -> None:
    given = {"store": str(tmp_path), "spool": str(tmp_path / "spool"), **settings}
    look("proxies", given, {"AWS_ENDPOINT_URL": "", "AWS_ENDPOINT_URL_S3": ""}).says("proxies", state, found)


def test_a_lock_that_another_program_has(stopped: Path) -> None:
    with (stopped / ".filestored" / "daemon.pid").open("r+") as file:
        file.truncate()
        fcntl.flock(file, fcntl.LOCK_EX)
        told = look_at("daemon", stopped)
    assert "locked by a process that is not filestored" in told.of("daemon", "fault")["found"]
