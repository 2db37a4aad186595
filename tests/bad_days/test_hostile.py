"""Requests nobody should send, and processes that end without being asked."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.api.raw import RawConnection
from tests.bad_days.consistency import blobs, require_agreement, sha256
from tests.conftest import Daemon, StartDaemon
from tests.processes import wait_until, worker_pids

HOSTILE = [
    "a\r\nX-Injected: yes",
    "a\nb",
    "a\x00b\x1b[31m",
    'quote" and \\ and ;',
    "../../../../etc/passwd",
    "..\\..\\windows",
    "é€😀\u202egpj.exe",
    "n" * 10_000,
    "",
    ".",
    "..",
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with one worker, which has to be the same one after all."""
    running = Daemon(tmp_path_factory.mktemp("hostile") / "store", "--workers", "1").start()
    pids = worker_pids(running.pid)
    yield running
    assert worker_pids(running.pid) == pids, running.read_log()
    assert running.stop() == 0, running.read_log()


def require_alive(daemon: Daemon) -> None:
    body = os.urandom(50)
    assert httpx.post(daemon.url, content=body).text == sha256(body)


def status_of(daemon: Daemon, sent: bytes) -> int | None:
    """Send bytes; return the status of the answer, None where the connection just ends."""
    with RawConnection(daemon.address, timeout=5) as connection:
        with contextlib.suppress(ConnectionError):
            connection.send(sent)
        with contextlib.suppress(ConnectionError):
            return connection.answer()[0]
        return None


@pytest.mark.parametrize(
    "headers",
    [
        b"".join(b"X-%d: y\r\n" % number for number in range(101)),
        b"".join(b"X-%d: y\r\n" % number for number in range(5000)),
        b"X: " + b"y" * (1 << 20) + b"\r\n",
        b"X: " + b"y" * 70_000 + b"\r\n",
        b"y" * 70_000 + b": x\r\n",
    ],
    ids=["101 fields", "5000 fields", "a MiB", "70 kB", "a long name"],
)
def test_header_bombs_are_refused(served: Daemon, headers: bytes) -> None:
    assert status_of(served, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + headers + b"\r\n") in (400, 431)
    require_alive(served)


def test_a_long_address_is_refused(served: Daemon) -> None:
    status = status_of(served, b"GET /" + b"a" * (1 << 20) + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert status in (400, 404, 414, 431)
    require_alive(served)


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("field", ["name", "path", "part", "type"])
def test_names_and_types_never_get_raw_into_a_header(served: Daemon, name: str, field: str) -> None:
    body = os.urandom(20)
    digest = sha256(body)
    path = f"/{digest}"
    match field:
        case "name":
            answer = httpx.post(served.url, params={"name": name}, content=body)
        case "path":
            answer = httpx.post(served.url, content=body)
            path += "/" + "".join(f"%{byte:02X}" for byte in name.encode())
        case "part":
            # as it is: a client library would encode it
            disposition = b'form-data; name="f"; filename="' + name.encode() + b'"'
            form = b"--b\r\nContent-Disposition: " + disposition + b"\r\n\r\n" + body + b"\r\n--b--\r\n"
            answer = httpx.post(served.url, content=form, headers={"Content-Type": "multipart/form-data; boundary=b"})
        case _:
            part = b"--b\r\nContent-Disposition: form-data; filename=f\r\nContent-Type: text/" + name.encode()
            form = part + b"\r\n\r\n" + body + b"\r\n--b--\r\n"
            answer = httpx.post(served.url, content=form, headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert answer.status_code in (200, 400, 413, 414, 431), answer.text
    if answer.status_code == 200 and len(path) < 60_000:
        with RawConnection(served.address) as connection:
            status, headers, _ = connection.request("GET", path)
        assert status in (200, 404)
        assert "x-injected" not in headers
        told = "".join(headers.values())
        assert all(" " <= character <= "~" for character in told)
        assert "../" not in told
        assert len(told) < 40_000
    require_alive(served)


def form(*parts: bytes, closing: bytes = b"--b--\r\n") -> bytes:
    return b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + closing


FILE = b'Content-Disposition: form-data; name="f"; filename="f"\r\n\r\nx'


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data; boundary=b", form(*[FILE] * 1001)),
        ("multipart/form-data; boundary=b", b"--b\r\n" + b"X: y\r\n" * 200_000),
        ("multipart/form-data; boundary=b", b"--b\r\nX: " + b"y" * (1 << 20)),
        ("multipart/form-data; boundary=b", b"--b\r\n" + b"y" * (1 << 20)),
        ("multipart/form-data; boundary=b", form(FILE, closing=b"")),
        ("multipart/form-data; boundary=b", form(FILE, closing=b"--b")),
        ("multipart/form-data; boundary=b", b"x" * (1 << 20)),
        ("multipart/form-data; boundary=b", b""),
        ("multipart/form-data; boundary=other", form(FILE)),
        ("multipart/form-data; boundary=" + "b" * 71, form(FILE)),
        ("multipart/form-data; boundary=", form(FILE)),
        ("multipart/form-data", form(FILE)),
    ],
    ids=[
        "1001 parts", "endless part headers", "long part header", "long header name", "not closed", "half closed",
        "no delimiter", "empty", "wrong boundary", "long boundary", "empty boundary", "no boundary",
    ],
)  # fmt: skip
def test_broken_forms_are_refused_and_store_nothing(served: Daemon, content_type: str, body: bytes) -> None:
    before = blobs(served.store)
    answer = httpx.post(served.url, content=body, headers={"Content-Type": content_type})
    assert answer.status_code in (400, 413, 431), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert blobs(served.store) == before
    assert wait_until(lambda: served.leftovers() == [])


def test_random_bytes_as_requests_do_no_harm(served: Daemon) -> None:
    dice = random.Random(1)
    begun_upload = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
    starts = [b"", b"GET / HTTP/1.1\r\n", begun_upload, b"\x16\x03\x01"]
    for _ in range(60):
        sent = dice.choice(starts) + dice.randbytes(dice.randrange(1, 3000)) + b"\r\n\r\n"
        with RawConnection(served.address) as connection:
            with contextlib.suppress(ConnectionError):
                connection.send(sent)
                connection.socket.settimeout(0.05)
                with contextlib.suppress(TimeoutError):
                    connection.socket.recv(1000)
    require_alive(served)
    require_agreement(served.store)


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 5x\r\n",
        b"Content-Length: 99999999999999999999999\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        b"Transfer-Encoding: gzip\r\n",
    ],
)
def test_ambiguous_framing_never_becomes_two_requests(served: Daemon, framing: bytes) -> None:
    smuggled = b"0\r\n\r\nDELETE /?file_hash=" + b"0" * 64 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"
    status = status_of(served, b"POST / HTTP/1.1\r\nHost: localhost\r\n" + framing + b"\r\n" + smuggled)
    assert status is None or 400 <= status < 600
    require_alive(served)


def run(store_of: Daemon) -> subprocess.CompletedProcess[str]:
    """Try to start a second daemon on a store."""
    command = [sys.executable, "-m", "filestored", "run", "--host", "127.0.0.1", "--port", "0"]
    return subprocess.run(
        [*command, "--store", str(store_of.store)], capture_output=True, text=True, timeout=20, check=False
    )


def test_a_second_daemon_on_one_store_is_told_so(served: Daemon) -> None:
    second = run(served)
    assert (second.returncode, len(second.stderr.splitlines())) == (1, 1), second.stderr
    require_alive(served)


def test_a_killed_worker_is_replaced_and_what_it_stored_is_there(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "2")
    body = os.urandom(100_000)
    assert httpx.post(daemon.url, content=body).status_code == 200
    killed = worker_pids(daemon.pid)
    for pid in killed:
        os.kill(pid, signal.SIGKILL)

    def is_served() -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{daemon.url}/{sha256(body)}").content == body
        return False

    assert wait_until(lambda: len(set(worker_pids(daemon.pid)) - set(killed)) == 2)
    assert wait_until(is_served)
    assert wait_until(lambda: all(httpx.get(f"{daemon.url}/readyz").status_code == 200 for _ in range(10)))
    require_alive(daemon)


def test_a_killed_supervisor_takes_its_workers_along_and_gives_the_store_up(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "2")
    body = os.urandom(1000)
    assert httpx.post(daemon.url, content=body).status_code == 200
    workers = worker_pids(daemon.pid)
    os.kill(daemon.pid, signal.SIGKILL)
    began = time.monotonic()
    again = start_daemon("--workers", "1", store=daemon.store)
    assert time.monotonic() - began < 10
    assert httpx.get(f"{again.url}/{sha256(body)}").content == body
    assert wait_until(lambda: not any(is_running(pid) for pid in workers))


def is_running(pid: int) -> bool:
    """Tell whether a process exists and is not just waiting to be buried."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_files_of_one_form_take_neither_descriptors_nor_memory(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "1")
    (worker,) = worker_pids(daemon.pid)

    def descriptors() -> int:
        return len(os.listdir(f"/proc/{worker}/fd"))

    def memory() -> int:
        status = Path(f"/proc/{worker}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024

    descriptors_before, memory_before = descriptors(), memory()
    with RawConnection(daemon.address) as raw:
        raw.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n")
        raw.send(b"Content-Type: multipart/form-data; boundary=b\r\n\r\n")
        for number in range(600):
            size = 70_000 if number % 2 else 60_000
            part = b'--b\r\nContent-Disposition: form-data; name="f"; filename="x"\r\n\r\n' + os.urandom(size) + b"\r\n"
            raw.send(b"%x\r\n%s\r\n" % (len(part), part))
        assert wait_until(lambda: len(daemon.leftovers()) > 550)
        assert descriptors() < descriptors_before + 20
        assert memory() < memory_before + (16 << 20)
    assert wait_until(lambda: daemon.leftovers() == [])
