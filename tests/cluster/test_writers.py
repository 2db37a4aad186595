"""Writers that fall silent, are taken over from, or meet a stop, when their bytes go through another daemon."""

import contextlib
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.api.tus_client import Tus, digest, some
from tests.cluster.conftest import Cluster
from tests.conftest import Daemon
from tests.processes import wait_until, worker_pids

MIB = 1 << 20


@contextlib.contextmanager
def client_of(daemon: Daemon) -> Iterator[Tus]:
    with httpx.Client(base_url=daemon.url, timeout=60) as client:
        yield Tus(client)


@contextlib.contextmanager
def silent_writer(daemon: Daemon, path: str, begun: bytes, length: int) -> Iterator[socket.socket]:
    """Send the beginning of a body, and then nothing."""
    with socket.create_connection(daemon.address, timeout=60) as connection:
        head = (
            f"PATCH {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\n"
            f"Content-Type: application/offset+octet-stream\r\nContent-Length: {length}\r\n\r\n"
        )
        connection.sendall(head.encode() + begun)
        yield connection


def wait_for_writer(daemon: Daemon, path: str) -> None:
    """Wait until somebody writes to an upload at the daemon that has it."""
    file = daemon.store / ".filestored" / "uploads" / path.rpartition("/")[2]
    assert wait_until(file.exists)


def answer_to(connection: socket.socket) -> str:
    """Return what comes until the end of the connection."""
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            answer += piece
    return answer.decode()


@pytest.mark.parametrize("taker", ["through the same", "at the daemon itself"])
def test_who_is_silent_gives_way_to_who_goes_on(taker: str, pair: tuple[Daemon, Daemon]) -> None:
    one, other = pair
    body = some(MIB)
    with client_of(one) as here, client_of(other) as there:
        path = here.begin(len(body))
        with silent_writer(other, path, body[:1000], len(body)) as connection:
            wait_for_writer(one, path)
            tus = there if taker == "through the same" else here
            statuses: list[int] = []

            def goes_on() -> bool:
                answer = tus.patch(path, tus.offset(path), b"x")
                statuses.append(answer.status_code)
                return answer.status_code == 204

            assert wait_until(goes_on, seconds=60), statuses
            assert set(statuses) <= {423, 409, 204}
            assert answer_to(connection).startswith("HTTP/1.1 408 ")
        assert tus.offset(path) == 1001


def test_who_stalls_is_told_in_time_how_much_is_there(cluster: Cluster) -> None:
    one, other = cluster.start("--body-timeout", "2s"), cluster.start("--body-timeout", "2s")
    with client_of(one) as here:
        path = here.begin(MIB)
        with silent_writer(other, path, some(1000), MIB) as connection:
            answer = answer_to(connection)
        assert answer.startswith("HTTP/1.1 408 ")
        # the daemon that has the bytes has judged it
        assert "1000 bytes of the upload are there" in answer
        assert here.offset(path) == 1000


def test_a_stop_of_the_daemon_that_has_the_upload_ends_a_writer_and_keeps_what_came(two: tuple[Daemon, Daemon]) -> None:
    one, other = two
    with client_of(one) as here, client_of(other) as there:
        path = here.begin(MIB)
        with silent_writer(other, path, some(1000), MIB) as connection:
            wait_for_writer(one, path)
            assert one.stop() == 0
            answer = answer_to(connection)
        assert answer.startswith("HTTP/1.1 503 ")
        assert re.search(r"(?i)\r\nretry-after: [1-9]", answer)
        assert there.offset(path) == 1000


def test_a_stop_of_the_daemon_in_between_ends_a_writer_and_keeps_what_came(two: tuple[Daemon, Daemon]) -> None:
    one, other = two
    with client_of(one) as here:
        path = here.begin(MIB)
        with silent_writer(other, path, some(1000), MIB) as connection:
            wait_for_writer(one, path)
            began = time.monotonic()
            assert other.stop() == 0
            # it does not wait for who sends nothing, but at the very worst for as long as any request may take
            assert time.monotonic() - began < 45
            assert answer_to(connection).startswith("HTTP/1.1 503 ")
        assert wait_until(lambda: here.offset(path) == 1000)


def test_an_address_that_is_another_daemons_is_found_out(cluster: Cluster) -> None:
    one = cluster.start()
    other = cluster.start("--peer-url", one.url)
    assert set(cluster.known().values()) == {one.url}
    with client_of(one) as here, client_of(other) as there:
        path = there.begin(1000, some(400))
        assert here.offset(path) == 400
        assert here.patch(path, 400, some(600)).status_code == 503
        assert "--peer-url" in one.read_log()
        body = some(1000)
        assert there.offset(here.begin(1000, body[:400])) == 400


def test_an_upload_of_many_megabytes_takes_no_more_memory(pair: tuple[Daemon, Daemon]) -> None:
    one, other = pair
    size = 200 * MIB
    piece = some(MIB)
    with client_of(one) as here, client_of(other) as there:
        path = here.begin(size)
        before = memory_of(other)
        headers = {
            "Tus-Resumable": "1.0.0", "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream",
            "Content-Length": str(size),
        }  # fmt: skip
        answer = there.client.patch(path, content=(piece for _ in range(size // MIB)), headers=headers, timeout=120)
        assert answer.headers["filestored-hash"] == digest(piece * (size // MIB))
        assert memory_of(other) - before < 60 * MIB


def memory_of(daemon: Daemon) -> int:
    """Return the most memory that the worker of a daemon has had so far, in bytes."""
    (pid,) = worker_pids(daemon.pid)
    text = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith("VmHWM"))) * 1024
