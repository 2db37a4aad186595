"""What the daemon tells systemd, received as systemd does: datagrams to a socket named in the environment."""

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from filestored.service import Service
from tests.conftest import Daemon, StartDaemon, require_program
from tests.processes import wait_until, worker_pids


class Manager:
    """The end of systemd: reads what a unit says."""

    def __init__(self, folder: Path) -> None:
        self.address = str(folder / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self._socket.settimeout(0.05)

    def env(self, watchdog: float = 0) -> dict[str, str]:
        """Return the variables of a unit, with a watchdog of so many seconds."""
        return {"NOTIFY_SOCKET": self.address} | ({"WATCHDOG_USEC": str(int(watchdog * 1e6))} if watchdog else {})

    def hear(self, wanted: str, seconds: float = 60) -> list[str]:
        """Return all lines that come until ``wanted`` has."""
        lines: list[str] = []
        deadline = time.monotonic() + seconds
        while wanted not in lines:
            assert time.monotonic() < deadline, lines
            lines += self.read()
        return lines

    def read(self) -> list[str]:
        """Return the lines of the next message, none where there is none."""
        try:
            return self._socket.recv(4096).decode().split("\n")
        except TimeoutError:
            return []

    def skip(self) -> None:
        """Forget what has come."""
        while self.read():
            pass

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with contextlib.closing(Manager(tmp_path)) as listening:
        yield listening


def test_it_is_ready_when_a_worker_answers_and_says_that_it_stops(manager: Manager, tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "store", "--workers", "2", env=manager.env())
    try:
        daemon.start()
        lines = manager.hear("READY=1")
        assert f"MAINPID={daemon.pid}" in lines
        assert f"STATUS=serves {daemon.url}" in lines
        # the store comes first, and nothing is ready before it
        assert lines.index("STATUS=makes the store ready") < lines.index("STATUS=waits for its workers")
        assert lines.index("STATUS=waits for its workers") < lines.index("READY=1")
        assert daemon.stop() == 0
        assert manager.hear("STOPPING=1")[:1] == ["STOPPING=1"]
    finally:
        daemon.kill()


def test_it_asks_for_the_time_that_it_goes_on_serving(manager: Manager, start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "1", "--stop-delay", "3s", env=manager.env())
    manager.hear("READY=1")
    os.kill(daemon.pid, signal.SIGTERM)
    told = manager.hear("STATUS=told to stop: serves for 3 seconds more")
    assert "EXTEND_TIMEOUT_USEC=63000000" in told
    assert "STOPPING=1" not in told
    # a reload makes no sense any more, and changes nothing
    os.kill(daemon.pid, signal.SIGHUP)
    assert daemon.wait() == 0
    assert "RELOADING=1" not in manager.hear("STOPPING=1")
    assert "nothing is reloaded: the daemon is about to stop" in daemon.read_log()


def test_it_is_not_ready_before_its_workers_are(manager: Manager, tmp_path: Path) -> None:
    """Both are held up where they start: the port is bound by then, and nobody would be answered."""
    process = subprocess.Popen(
        [sys.executable, "-m", "filestored", "run", "--host", "127.0.0.1", "--port", "0", "--workers", "2",
         "--store", str(tmp_path / "store")],
        env={**os.environ, **manager.env()}, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert wait_until(lambda: len(worker_pids(process.pid)) == 2, seconds=60)
        workers = worker_pids(process.pid)
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        manager.hear("STATUS=waits for its workers")
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            assert "READY=1" not in manager.read()
        # one of them is enough
        os.kill(workers[0], signal.SIGCONT)
        manager.hear("READY=1")
        os.kill(workers[1], signal.SIGCONT)
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()


def test_it_shows_that_it_lives_as_long_as_it_answers(start_daemon: StartDaemon, manager: Manager) -> None:
    daemon = start_daemon("--workers", "1", env=manager.env(watchdog=1))
    manager.hear("READY=1")
    manager.hear("WATCHDOG=1")
    (worker,) = worker_pids(daemon.pid)
    os.kill(worker, signal.SIGSTOP)
    # what was asked before may be answered still
    time.sleep(0.5)
    manager.skip()
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        assert "WATCHDOG=1" not in manager.read()
    os.kill(worker, signal.SIGCONT)
    manager.hear("WATCHDOG=1")


def test_processes_below_have_no_part_in_it(manager: Manager) -> None:
    env = {"HOME": "/", "WATCHDOG_PID": str(os.getpid()), **manager.env(watchdog=60)}
    Service.of(env)
    assert env == {"HOME": "/"}


def test_it_is_never_ready_where_it_cannot_start(manager: Manager, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = subprocess.run(
            [sys.executable, "-m", "filestored", "run", "--host", "127.0.0.1", "--port", str(taken.getsockname()[1]),
             "--store", str(tmp_path / "store")],
            env={**os.environ, **manager.env()}, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    assert ended.returncode == 1
    assert "is in use by another program" in ended.stderr
    said: list[str] = []
    while lines := manager.read():
        said += lines
    assert said == ["STATUS=makes the store ready"]


def certificate(folder: Path, name: str) -> None:
    """Put a certificate for ``name`` and its key in place of those in a folder."""
    subprocess.run(
        [require_program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         f"/CN={name}", "-keyout", str(folder / "new-key.pem"), "-out", str(folder / "new-cert.pem")],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    for each in ("key", "cert"):
        (folder / f"new-{each}.pem").replace(folder / f"{each}.pem")


def certificate_of(daemon: Daemon) -> bytes:
    """Return the certificate that a daemon shows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(daemon.address, timeout=20) as plain, context.wrap_socket(plain) as connection:
        return connection.getpeercert(binary_form=True) or b""


def start_with_certificate(start_daemon: StartDaemon, manager: Manager, folder: Path) -> Daemon:
    """Start a daemon with a new certificate of a folder, and wait until it is ready."""
    certificate(folder, "first.example")
    flags = ("--tls-cert", str(folder / "cert.pem"), "--tls-key", str(folder / "key.pem"), "--workers", "1")
    daemon = start_daemon(*flags, env=manager.env())
    manager.hear("READY=1")
    return daemon


def test_a_reload_reads_the_certificate_anew_and_ends_no_request(
    start_daemon: StartDaemon, manager: Manager, tmp_path: Path
) -> None:
    daemon = start_with_certificate(start_daemon, manager, tmp_path)
    before, (worker,) = certificate_of(daemon), worker_pids(daemon.pid)
    certificate(tmp_path, "second.example")

    def slow() -> Iterator[bytes]:
        yield b"begun before, "
        os.kill(daemon.pid, signal.SIGHUP)
        lines = manager.hear("RELOADING=1")
        assert any(line.startswith("MONOTONIC_USEC=") for line in lines + manager.read())
        assert wait_until(lambda: len(worker_pids(daemon.pid)) == 2, seconds=60)
        yield b"ended after"

    stored = httpx.post(daemon.url, content=slow(), verify=False, timeout=60)
    assert stored.status_code == 200
    manager.hear("READY=1")
    assert worker not in worker_pids(daemon.pid)
    assert certificate_of(daemon) != before
    assert httpx.get(f"{daemon.url}/{stored.text}", verify=False).text == "begun before, ended after"
    assert daemon.stop() == 0


def test_a_reload_that_could_not_end_well_is_not_begun(
    start_daemon: StartDaemon, manager: Manager, tmp_path: Path
) -> None:
    daemon = start_with_certificate(start_daemon, manager, tmp_path)
    before, workers = certificate_of(daemon), worker_pids(daemon.pid)
    (tmp_path / "cert.pem").write_text("no certificate")
    os.kill(daemon.pid, signal.SIGHUP)
    assert wait_until(lambda: "nothing is reloaded: the certificate" in daemon.read_log())
    assert certificate_of(daemon) == before
    assert worker_pids(daemon.pid) == workers
    assert not [line for line in manager.read() if line.startswith("RELOADING")]
    # and it still listens to signals
    assert daemon.stop() == 0


def test_an_abstract_socket_is_spoken_to_as_well() -> None:
    name = f"filestored-test-{os.getpid()}"
    env = {"NOTIFY_SOCKET": f"@{name}", "OTHER": "stays"}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}")
        manager.settimeout(10)
        Service.of(env).tell("is well")
        assert manager.recv(100) == b"STATUS=is well"
    assert env == {"OTHER": "stays"}


def test_nobody_who_listens_is_no_trouble(tmp_path: Path) -> None:
    for address in ("", str(tmp_path / "nothing"), "relative"):
        service = Service.of({"NOTIFY_SOCKET": address})
        service.tell("goes on")
        service.stopping()


def test_a_manager_that_reads_nothing_holds_nothing_up(manager: Manager) -> None:
    service = Service.of({"NOTIFY_SOCKET": manager.address})
    for _ in range(2000):
        service.tell("is busy")
    assert manager.read() == ["STATUS=is busy"]


def test_a_watchdog_that_is_meant_for_another_process_is_left_to_it(manager: Manager) -> None:
    env = {**manager.env(watchdog=0.1), "WATCHDOG_PID": str(os.getpid() + 1)}
    with socket.create_server(("127.0.0.1", 0)) as silent:
        service = Service.of(env)
        with service.attending(f"http://127.0.0.1:{silent.getsockname()[1]}"):
            manager.hear("STATUS=waits for its workers")
    assert "WATCHDOG_PID" not in env
