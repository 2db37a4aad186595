"""Workers that cannot be replaced, a stop in the middle of a reload, and what a worker inherits."""

import os
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import httpx

from tests.bad_days.consistency import sha256
from tests.conftest import StartDaemon
from tests.processes import wait_until, worker_pids
from tests.test_service import certificate

# the system has no process left for as long as a file is there
_NO_PROCESS = """
import errno, os
fork = os.fork
def fork_if_there_is_room():
    if os.path.exists(os.environ["NO_PROCESS"]):
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
    return fork()
os.fork = fork_if_there_is_room
"""


def test_a_worker_that_cannot_be_started_is_tried_again_and_the_store_is_kept(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(_NO_PROCESS)
    no_process = tmp_path / "no process"
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH", ""))))
    daemon = start_daemon("--workers", "2", env={"PYTHONPATH": path, "NO_PROCESS": str(no_process)})
    digest = httpx.post(daemon.url, content=b"kept").text
    no_process.touch()
    killed, other = worker_pids(daemon.pid)
    os.kill(killed, signal.SIGKILL)
    assert wait_until(lambda: "a worker cannot be started, which is tried again: " in daemon.read_log())
    assert httpx.get(f"{daemon.url}/{digest}").content == b"kept"
    second = subprocess.run(
        [sys.executable, "-m", "filestored", "run", "--store", str(daemon.store), "--port", "0"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert second.returncode == 1
    assert "uses this store" in second.stderr
    no_process.unlink()
    assert wait_until(lambda: len(set(worker_pids(daemon.pid)) - {killed}) == 2, seconds=60)
    assert other in worker_pids(daemon.pid)
    assert daemon.stop() == 0


def test_a_stop_does_not_wait_for_the_whole_of_a_reload(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "4", "--log", "debug")
    os.kill(daemon.pid, signal.SIGHUP)
    assert wait_until(lambda: "Respawning worker-1" in daemon.read_log())
    assert daemon.stop() == 0
    assert daemon.read_log().count("Respawning worker-") < 4


def test_a_reload_before_there_is_anything_to_reload_ends_nothing() -> None:
    code = (
        "import os, signal\n"
        "from filestored.signals import heed_signals\n"
        "heed_signals()\n"
        "os.kill(os.getpid(), signal.SIGHUP)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_a_worker_has_the_log_open_once(start_daemon: StartDaemon, tmp_path: Path) -> None:
    log = tmp_path / "the.log"
    daemon = start_daemon("--workers", "1", "--log-file", str(log))
    (worker,) = worker_pids(daemon.pid)
    open_files = [os.readlink(each) for each in Path(f"/proc/{worker}/fd").iterdir() if each.is_symlink()]
    assert open_files.count(str(log)) == 1
    # the lock is the supervisor's alone
    assert not [name for name in open_files if name.endswith("daemon.pid")]


def test_requests_that_a_stop_ends_are_in_the_log_all_the_same(start_daemon: StartDaemon, tmp_path: Path) -> None:
    certificate(tmp_path, "some.example")
    daemon = start_daemon(
        "--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem"), "--workers", "1",
        "--max-upload-size", "1000",
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    clients = [context.wrap_socket(socket.create_connection(daemon.address, timeout=30)) for _ in range(20)]
    try:
        for client in clients:
            client.sendall(
                b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n" + sha256(b"").encode()
            )
        for client in clients:
            assert client.recv(100).startswith(b"HTTP/1.1 413 ")
        assert daemon.stop() == 0
    finally:
        for client in clients:
            client.close()
    assert daemon.read_log().count("POST / hash=- status=413") == len(clients)
    assert "Traceback" not in daemon.read_log()
