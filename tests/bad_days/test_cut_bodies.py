"""Clients that go away, stall, read nothing or send too much."""

import contextlib
import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.api.raw import RawConnection
from tests.bad_days.consistency import blobs, sha256
from tests.conftest import Daemon, StartDaemon
from tests.processes import wait_until, worker_pids

BOUNDARY = "frontier"
SIZES = pytest.mark.parametrize("size", [3000, 1_500_000], ids=["small", "large"])


def framed(kind: str, body: bytes) -> tuple[list[str], bytes]:
    """Return the headers and bytes of an upload."""
    if kind == "length":
        return [f"Content-Length: {len(body)}"], body
    if kind == "chunked":
        chunks = b"".join(
            b"%x\r\n%s\r\n" % (len(body[start : start + 60000]), body[start : start + 60000])
            for start in range(0, len(body), 60000)
        )
        return ["Transfer-Encoding: chunked"], chunks + b"0\r\n\r\n"
    form = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n'.encode()
        + body
        + f"\r\n--{BOUNDARY}--\r\n".encode()
    )
    content_type = f"Content-Type: multipart/form-data; boundary={BOUNDARY}"
    if kind == "form":
        return [content_type, f"Content-Length: {len(form)}"], form
    headers, sent = framed("chunked", form)
    return [content_type, *headers], sent


def head(*headers: str) -> bytes:
    return "\r\n".join(["POST / HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()


def reset(connection: RawConnection) -> None:
    """Close a connection by RST."""
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.socket.close()


@contextlib.contextmanager
def nothing_stored(daemon: Daemon) -> Iterator[None]:
    """Check that a block adds nothing to the store, and leaves a daemon that works."""
    before = blobs(daemon.store)
    yield
    assert wait_until(lambda: daemon.leftovers() == []), daemon.leftovers()
    probe = os.urandom(100)
    assert httpx.post(daemon.url, content=probe).status_code == 200
    assert blobs(daemon.store) - {sha256(probe)} == before


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with one worker, whose store nobody else writes to, and with short timeouts."""
    running = Daemon(
        tmp_path_factory.mktemp("cut") / "store", "--workers", "1",
        "--body-timeout", "1s", "--header-timeout", "1s", "--send-timeout", "1s", "--max-upload-size", "8MB",
    ).start()  # fmt: skip
    yield running
    assert running.stop() == 0, running.read_log()


@pytest.mark.parametrize("kind", ["length", "chunked", "form", "chunked form"])
@pytest.mark.parametrize("end", ["fin", "rst", "half-close"])
@SIZES
def test_a_body_cut_short_stores_nothing(served: Daemon, kind: str, end: str, size: int) -> None:
    headers, body = framed(kind, os.urandom(size))
    # at the last byte, within the last delimiter or chunk, in the middle, before the first
    for missing in (1, 3, 12, size // 2, len(body)):
        with nothing_stored(served), RawConnection(served.address) as connection:
            connection.send(head(*headers) + body[:-missing])
            if end == "half-close":
                connection.socket.shutdown(socket.SHUT_WR)
                with contextlib.suppress(ConnectionError):
                    status, _, _ = connection.answer()
                    assert 400 <= status < 500
            elif end == "rst":
                reset(connection)


@pytest.mark.parametrize("kind", ["length", "chunked", "form", "chunked form"])
@SIZES
def test_a_stalled_body_is_answered_408(served: Daemon, kind: str, size: int) -> None:
    headers, body = framed(kind, os.urandom(size))
    with nothing_stored(served), RawConnection(served.address) as connection:
        connection.send(head(*headers) + body[: -size // 2])
        began = time.monotonic()
        status, answered, _ = connection.answer()
        assert (status, answered["content-type"]) == (408, "application/problem+json")
        assert 0.5 < time.monotonic() - began < 5


def test_a_body_that_drips_is_not_stalled(served: Daemon) -> None:
    body = os.urandom(6)
    with RawConnection(served.address) as connection:
        connection.send(head(f"Content-Length: {len(body)}", "Content-Type: a/b"))
        for byte in body:
            time.sleep(0.4)
            connection.send(bytes([byte]))
        status, _, answer = connection.answer()
    assert (status, answer.decode()) == (200, sha256(body))


@pytest.mark.parametrize("begun", [b"", b"PRI * HT", b"GET / HT", b"POST / HTTP/1.1\r\nHost: localhost\r\nX: "])
def test_stalled_headers_are_closed(served: Daemon, begun: bytes) -> None:
    with RawConnection(served.address) as connection:
        connection.send(begun)
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while connection.socket.recv(1000):
                pass
        assert time.monotonic() - began < 5


def sockets_of(pid: int) -> int:
    """Return how many sockets a process has open."""
    count = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            count += os.readlink(entry).startswith("socket:")
    return count


def idle_sockets_of(pid: int) -> int:
    """Return how many sockets stay open once the connections just closed are gone."""
    counts = []
    for _ in range(10):
        counts.append(sockets_of(pid))
        time.sleep(0.03)
    return min(counts)


@pytest.mark.parametrize("ranges", [[], ["Range: bytes=0-6999999"], ["Range: bytes=0-3000000,3000001-7000000"]])
def test_a_reader_that_reads_nothing_is_let_go(served: Daemon, ranges: list[str]) -> None:
    body = os.urandom(8_000_000)
    digest = httpx.post(served.url, content=body).text
    (worker,) = worker_pids(served.pid)
    idle = idle_sockets_of(worker)
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            connection = stack.enter_context(RawConnection(served.address))
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            request = [f"GET /{digest} HTTP/1.1", "Host: localhost", *ranges, "", ""]
            connection.send("\r\n".join(request).encode())
            assert connection.socket.recv(100)
        assert sockets_of(worker) >= idle + 5
        assert wait_until(lambda: sockets_of(worker) <= idle, seconds=15), "the server holds on to readers"
    assert httpx.get(f"{served.url}/{digest}").content == body


def test_a_reader_that_goes_away_is_let_go(served: Daemon) -> None:
    digest = httpx.post(served.url, content=os.urandom(7_900_000)).text
    (worker,) = worker_pids(served.pid)
    idle = idle_sockets_of(worker)
    for _ in range(5):
        with RawConnection(served.address) as connection:
            connection.send(f"GET /{digest} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            connection.socket.recv(1000)
            reset(connection)
    assert wait_until(lambda: sockets_of(worker) <= idle)


@pytest.mark.parametrize("kind", ["length", "chunked", "form", "chunked form"])
def test_a_client_that_sends_all_before_it_reads_learns_of_413(served: Daemon, kind: str) -> None:
    headers, body = framed(kind, os.urandom(9_500_000))
    with nothing_stored(served), RawConnection(served.address) as connection:
        connection.send(head(*headers) + body)
        status, answered, _ = connection.answer()
        assert (status, answered["content-type"]) == (413, "application/problem+json")


def refused_early(daemon: Daemon, request: str, *headers: str) -> int:
    """Ask for leave to send a body that is to be refused; return the status, which must be the first answer."""
    with RawConnection(daemon.address) as connection:
        lines = [f"{request} HTTP/1.1", "Host: localhost", "Expect: 100-continue", *headers, "", ""]
        connection.send("\r\n".join(lines).encode())
        first = connection.socket.recv(65536)
        return int(first.split()[1])


def test_an_early_refusal_asks_for_no_body(served: Daemon, start_daemon: StartDaemon) -> None:
    assert refused_early(served, "POST /", "Content-Length: 9000000") == 413
    assert refused_early(served, "PUT /" + "0" * 32, "Content-Length: 9000") == 422
    full = start_daemon("--min-free-space", "1000TiB", "--workers", "1")
    assert refused_early(full, "POST /", "Content-Length: 9000") == 507
    assert refused_early(full, "POST /", "Transfer-Encoding: chunked") == 507


def test_a_client_that_asks_for_leave_gets_it(served: Daemon) -> None:
    body = os.urandom(100)
    with RawConnection(served.address) as connection:
        connection.send(head("Expect: 100-continue", "Content-Length: 100"))
        assert connection.socket.recv(65536).startswith(b"HTTP/1.1 100 ")
        connection.send(body)
        status, _, answer = connection.answer()
    assert (status, answer.decode()) == (200, sha256(body))


@pytest.mark.parametrize("flag", ["--max-uploads", "--max-uploads-per-client"])
def test_one_upload_too_many_is_told_to_wait(start_daemon: StartDaemon, flag: str) -> None:
    daemon = start_daemon(flag, "1", "--workers", "2")

    def post() -> httpx.Response:
        return httpx.post(daemon.url, content=b"x" * 1000)

    with RawConnection(daemon.address) as stalled:
        stalled.send(head("Content-Length: 200000") + b"half")
        assert wait_until(lambda: post().status_code == 503)
        # a connection of its own each: both workers are asked
        for answer in (post() for _ in range(10)):
            assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
            assert int(answer.headers["retry-after"]) > 0
    assert wait_until(lambda: post().status_code == 200)
