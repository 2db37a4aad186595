"""The daemon's life: starting, stopping, what a signal or a crash leaves behind."""

import contextlib
import json
import os
import re
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from filestored.blobs.layout import StoreFolder
from filestored.catalogue.catalogue import Catalogue
from filestored.daemon import LastStart, StoreLock, find_holder, running_pid
from filestored.digest import Algorithm
from filestored.errors import StartError
from filestored.settings import load
from filestored.supervision import Respawned
from tests.conftest import Daemon, StartDaemon, require_program
from tests.processes import wait_until, worker_pids

CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("FILESTORED_")}

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    """Run a command on a store; whatever it leaves running is stopped."""
    store = tmp_path / "store"

    def call(name: str, *arguments: str, env: dict[str, str] | None = None) -> tuple[int, str, str]:
        ended = subprocess.run(
            [sys.executable, "-m", "filestored", name, "--store", str(store), *arguments],
            capture_output=True, text=True, timeout=90, env={**CLEAN, **(env or {})}, cwd=tmp_path,
        )  # fmt: skip
        return ended.returncode, ended.stdout, ended.stderr

    yield call
    pid = running_pid(store)
    if pid is not None:
        os.kill(pid, signal.SIGKILL)


def _is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def _settings_noted(tmp_path: Path) -> dict[str, dict[str, str]]:
    noted: dict[str, dict[str, str]] = json.loads((tmp_path / "store/.filestored/last-start.json").read_text())
    return noted


# in the background


def test_start_returns_when_the_daemon_answers_and_stop_when_it_has_ended(command: Command, tmp_path: Path) -> None:
    status, output, errors = command("start", "--port", "0")
    assert (status, errors) == (0, "")
    match = re.fullmatch(r"started: process (\d+), http://0\.0\.0\.0:(\d+)\n", output)
    assert match
    pid, port = int(match[1]), int(match[2])
    assert httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
    assert command("status") == (0, f"running: process {pid}, http://0.0.0.0:{port}\n", "")
    assert command("get_pid") == (0, f"{pid}\n", "")
    assert running_pid(tmp_path / "store") == pid
    assert command("stop") == (0, f"stopped: process {pid}\n", "")
    assert not _is_alive(pid)
    assert command("status") == (1, f"not running on {tmp_path / 'store'}\n", "")
    for name in ("get_pid", "stop"):
        assert command(name) == (1, "", f"filestored: not running on {tmp_path / 'store'}\n")
    log = (tmp_path / "store/.filestored/log/filestored.log").read_text()
    assert "programs on this machine may do everything" in log
    assert log.count(" serves ") == 1


def test_start_says_that_one_runs_already(command: Command) -> None:
    assert command("start", "--port", "0")[0] == 0
    status, output, errors = command("start", "--port", "0")
    assert (status, output) == (1, "")
    assert re.fullmatch(r"filestored: already running: process \d+, http\S+\n", errors)


def test_start_fails_with_the_reason_and_leaves_nothing_running(command: Command, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, output, errors = command("start", "--port", str(port))
    assert (status, output) == (1, "")
    assert errors == f"filestored: port {port} on 0.0.0.0 is in use by another program\n"
    assert running_pid(tmp_path / "store") is None


def test_a_start_that_is_interrupted_leaves_nothing_running(tmp_path: Path) -> None:
    catalogue = StoreFolder.adopt(tmp_path / "store", Algorithm.SHA256).catalogue_file
    Catalogue.prepare(catalogue)
    # keeps the daemon from getting ready before it is interrupted
    holder = sqlite3.connect(catalogue, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    child = subprocess.Popen(
        [sys.executable, "-m", "filestored", "start", "--port", "0", "--store", str(tmp_path / "store")],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=CLEAN,
    )  # fmt: skip
    assert wait_until(lambda: running_pid(tmp_path / "store") is not None)
    child.send_signal(signal.SIGINT)
    holder.close()
    assert child.communicate(timeout=60)[1] == "filestored: interrupted\n"
    assert child.returncode == 130
    assert running_pid(tmp_path / "store") is None


def test_restart_keeps_the_settings_of_the_last_start(command: Command, tmp_path: Path) -> None:
    (tmp_path / "f.toml").write_text('log = "debug"\n')
    env = {"FILESTORED_MAX_UPLOADS": "3", "FILESTORED_TOKEN": "secret"}
    assert command("start", "--port", "0", "--config", "f.toml", "--workers", "1", env=env)[0] == 0
    noted = _settings_noted(tmp_path)
    assert noted["variables"] == {"FILESTORED_MAX_UPLOADS": "3"}
    assert noted["flags"] == {
        "port": "0", "store": str(tmp_path / "store"), "workers": "1", "config": str(tmp_path / "f.toml"),
    }  # fmt: skip
    assert (tmp_path / "store/.filestored/last-start.json").stat().st_mode & 0o777 == 0o600
    first = running_pid(tmp_path / "store")
    # what the environment says by now counts for nothing, what the command line says does
    status, output, _ = command("restart", "--max-upload-size", "1KiB", env={"FILESTORED_WORKERS": "2"})
    assert status == 0
    assert output.startswith(f"stopped: process {first}\nstarted: process ")
    assert _settings_noted(tmp_path)["flags"] == {**noted["flags"], "max_upload_size": "1KiB"}
    assert _settings_noted(tmp_path)["variables"] == noted["variables"]
    pid = running_pid(tmp_path / "store")
    assert pid not in (None, first)
    assert len(worker_pids(pid or 0)) == 1
    address = output.split()[-1].replace("0.0.0.0", "127.0.0.1")
    assert httpx.post(address, content=b"x" * 1025).status_code == 413


def test_a_restart_with_a_mistake_stops_nothing(command: Command, tmp_path: Path) -> None:
    assert command("start", "--port", "0")[0] == 0
    pid = running_pid(tmp_path / "store")
    status, _, errors = command("restart", "--port", "x")
    assert (status, errors.count("\n")) == (2, 1)
    assert running_pid(tmp_path / "store") == pid


def test_restart_starts_what_does_not_run(command: Command) -> None:
    status, output, _ = command("restart", "--port", "0")
    assert status == 0
    assert output.startswith("started: process ")


def test_what_the_last_start_was_told_reads_back(tmp_path: Path) -> None:
    (tmp_path / "store" / ".filestored").mkdir(parents=True)
    assert LastStart.recall(tmp_path / "store") is None
    loaded = load({"store": str(tmp_path / "store"), "body_timeout": "90s"}, {"FILESTORED_BUFFER": "8192"})
    start = LastStart.of(loaded)
    start.remember(tmp_path / "store")
    recalled = LastStart.recall(tmp_path / "store")
    assert recalled == start
    assert load(recalled.flags, recalled.variables).settings == loaded.settings


# the lock


def test_a_store_has_one_daemon_and_a_stale_file_means_nothing(tmp_path: Path) -> None:
    path = tmp_path / "daemon.pid"
    path.write_text("1\nhttp://stale\n")
    assert find_holder(path) is None
    with StoreLock.take(path) as lock:
        assert find_holder(path) == (os.getpid(), "")
        lock.publish("http://x:1")
        assert find_holder(path) == (os.getpid(), "http://x:1")
        with pytest.raises(StartError, match=rf"another filestored \(process {os.getpid()}\) uses this store"):
            StoreLock.take(path)
    assert find_holder(path) is None


def test_a_second_daemon_on_a_store_is_told_so(start_daemon: StartDaemon, tmp_path: Path, command: Command) -> None:
    daemon = start_daemon(store=tmp_path / "store")
    status, _, errors = command("run", "--port", "0")
    assert status == 1
    assert errors == f"filestored: another filestored (process {daemon.pid}) uses this store\n"


def test_stop_leaves_a_process_alone_that_is_not_the_daemon(command: Command, tmp_path: Path) -> None:
    bystander = subprocess.Popen(["sleep", "60"])
    (tmp_path / "store" / ".filestored").mkdir(parents=True)
    path = tmp_path / "store" / ".filestored" / "daemon.pid"
    with StoreLock.take(path):
        # as in a container, where the daemon knows itself by a number that is another process here
        path.write_text(f"{bystander.pid}\n")
        status, _, errors = command("stop")
    assert status == 1
    assert "not the daemon" in errors
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


# in the foreground


def test_sigterm_lets_a_running_upload_finish(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: 10\r\n\r\n"
    with socket.create_connection(daemon.address) as connection:
        connection.sendall(head + b"01234")
        # the second request proves that the worker has read the first's beginning
        assert httpx.get(f"{daemon.url}/healthz").status_code == 200
        time.sleep(0.3)
        os.kill(daemon.pid, signal.SIGTERM)
        time.sleep(0.5)
        connection.sendall(b"56789")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
    assert daemon.stop() == 0


def test_ctrl_c_in_a_terminal_is_an_ordered_end(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "2")
    os.killpg(daemon.pid, signal.SIGINT)
    assert daemon.stop() == 0
    assert "Unexpected" not in daemon.read_log()
    assert "Traceback" not in daemon.read_log()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("seconds", [0.2, 0.3, 0.4, 0.5, 0.6])
def test_a_signal_while_starting_is_an_ordered_end(tmp_path: Path, number: int, seconds: float) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "filestored", "run", "--port", "0", "--host", "127.0.0.1", "--store", "store"],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=CLEAN, start_new_session=True,
    )  # fmt: skip
    assert wait_until(lambda: b"filestored" in Path(f"/proc/{child.pid}/cmdline").read_bytes())
    assert wait_until(lambda: _catches(child.pid, number))
    time.sleep(seconds)
    os.killpg(child.pid, number)
    said = child.communicate(timeout=25)[1]
    assert child.returncode == 0, said
    assert "Traceback" not in said


def _catches(pid: int, number: int) -> bool:
    """Tell whether a process has a handler of its own for a signal; Python begins with one for SIGINT."""
    text = Path(f"/proc/{pid}/status").read_text()
    caught = int(text.split("SigCgt:")[1].split()[0], 16)
    return bool(caught >> (number - 1) & 1) and bool(caught >> (signal.SIGTERM - 1) & 1)


def test_workers_end_with_a_supervisor_that_is_killed(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "2")
    workers = worker_pids(daemon.pid)
    assert len(workers) == 2
    os.kill(daemon.pid, signal.SIGKILL)
    assert wait_until(lambda: not any(map(_is_alive, workers)), seconds=5)
    assert start_daemon(store=daemon.store).stop() == 0


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_workers_that_always_die_are_not_started_for_ever(workers: int) -> None:
    """As Granian asks: before each start whether the one that died was started in the last 5.5 s; then it forgets."""
    respawned = Respawned(workers)
    now = 1000.0
    for death in range(100):
        now += 0.5
        worker = death % workers
        if now - respawned.get(worker, 0) <= 5.5:
            break
        respawned.clear()
        respawned[worker] = now
    assert death == 5 + workers
    # the same number of deaths over a longer time is no reason to end
    patient = Respawned(workers)
    for death in range(100):
        assert patient.get(death % workers, 0) == 0
        patient.clear()
        patient[death % workers] = 10.0 * death


def test_workers_that_die_twice_within_seconds_are_replaced_and_end_nothing(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "1")
    digest = httpx.post(daemon.url, content=b"kept").text
    for _ in range(3):
        (worker,) = worker_pids(daemon.pid)
        os.kill(worker, signal.SIGKILL)
        assert wait_until(lambda gone=worker: worker_pids(daemon.pid) not in ([], [gone]) and _is_ready(daemon))  # type: ignore[misc]
        assert httpx.get(f"{daemon.url}/{digest}").content == b"kept"
    assert daemon.stop() == 0


def test_a_worker_that_dies_is_replaced(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "1")
    (worker,) = worker_pids(daemon.pid)
    os.kill(worker, signal.SIGKILL)
    assert wait_until(lambda: worker_pids(daemon.pid) not in ([], [worker]) and _is_ready(daemon))
    assert daemon.stop() == 0


def test_two_workers_at_rest_take_less_than_120_mb(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "2")
    processes = [daemon.pid, *worker_pids(daemon.pid)]
    assert len(processes) == 3
    assert sum(map(_memory_of, processes)) < 120_000_000


def _memory_of(pid: int) -> int:
    """Return the bytes of memory of a process, its share of what it has in common with others."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return 1024 * int(next(line.split()[1] for line in text.splitlines() if line.startswith("Pss:")))


def _is_ready(daemon: Daemon) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{daemon.url}/readyz").status_code == 200
    return False


def test_a_worker_that_cannot_start_ends_the_daemon_with_one_line(command: Command, tmp_path: Path) -> None:
    # breaks what only workers do
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "def fail(*arguments, **named):\n"
        "    raise OSError('the disk is on fire')\n"
        "def break_it():\n"
        "    if 'filestored.filestore' in sys.modules:\n"
        "        sys.modules['filestored.filestore'].Filestore = fail\n"
        "os.register_at_fork(after_in_child=break_it)\n"
    )
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH", ""))))
    for name in ("run", "start"):
        status, output, errors = command(name, "--port", "0", "--log", "error", env={"PYTHONPATH": path})
        assert (status, output) == (1, "")
        assert errors == "filestored: a worker cannot start: the disk is on fire\n"


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--host", "192.0.2.1"], "192.0.2.1 is not an address of this machine"),
        (["--host", "no such host"], "the host no such host is not known here"),
        (["--log-file", "/no/such/folder/x.log"], "the log file /no/such/folder/x.log cannot be written"),
        (["--tls-cert", __file__, "--tls-key", __file__], "and its key cannot be used"),
    ],
)
def test_what_keeps_it_from_starting_is_one_line(command: Command, flags: list[str], reason: str) -> None:
    status, output, errors = command("run", "--port", "0", "--log", "error", *flags)
    assert (status, output) == (1, "")
    assert re.fullmatch(r"filestored: [^\n]+\n", errors)
    assert reason in errors


def test_a_port_of_a_program_that_would_share_it_is_in_use(command: Command) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, _, errors = command("run", "--host", "127.0.0.1", "--port", str(port))
    assert status == 1
    assert errors == f"filestored: port {port} on 127.0.0.1 is in use by another program\n"


@pytest.mark.parametrize("host", ["localhost", "::1"])
def test_it_listens_on_a_name_and_on_ipv6(start_daemon: StartDaemon, host: str) -> None:
    if host == "::1" and not Path("/proc/net/if_inet6").exists():
        pytest.skip("no IPv6 here")
    daemon = start_daemon("--host", host)
    assert f"//{host}:" in daemon.url or f"//[{host}]:" in daemon.url
    assert daemon.stop() == 0


def test_with_a_certificate_it_speaks_tls_from_1_2_on(command: Command, tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [require_program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert,
         "-days", "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    flags = ("--tls-cert", str(cert), "--tls-key", str(key), "--host", "127.0.0.1", "--port", "0")
    status, output, errors = command("start", *flags)
    assert (status, errors) == (0, "")
    address = output.split()[-1].replace("127.0.0.1", "localhost")
    assert address.startswith("https://")
    trusting = ssl.create_default_context(cafile=str(cert))
    trusting.maximum_version = ssl.TLSVersion.TLSv1_2
    with urllib.request.urlopen(f"{address}/readyz", context=trusting) as answer:
        assert answer.status == 200
    assert command("stop")[0] == 0


def test_requests_are_logged_to_the_last_one_before_the_end(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "2")
    for number in range(50):
        httpx.get(f"{daemon.url}/none-{number}")
    assert daemon.stop() == 0
    log = daemon.log.read_text()
    assert [log.count(f" GET /none-{number} ") for number in range(50)] == [1] * 50


def test_as_process_1_it_stops_on_sigterm(start_daemon: StartDaemon) -> None:
    unshare = [require_program("unshare"), "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("this system allows no namespaces")
    daemon = start_daemon(wrapper=tuple(unshare))
    # the daemon itself is the child of process 1, which only stands by
    assert (daemon.store / ".filestored" / "daemon.pid").read_text().startswith("2\n")
    (first,) = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()
    os.kill(int(first), signal.SIGTERM)
    assert wait_until(lambda: not _is_alive(int(first)), seconds=15)
    assert "stopped" in daemon.read_log()
