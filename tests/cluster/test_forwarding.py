"""Resumable uploads through any daemon of a cluster, wherever their bytes lie."""

import asyncio
import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from filestored.cluster.connection import PeerAway, PeerConnection
from filestored.errors import BadRequest
from tests.api.tus_client import Tus, digest, encoded, some
from tests.cluster.conftest import Cluster
from tests.conftest import Daemon, StartDaemon
from tests.copying.copies import copy
from tests.processes import wait_until
from tests.tokens import bearer

MIB = 1 << 20


@contextlib.contextmanager
def client_of(daemon: Daemon, **options: object) -> Iterator[Tus]:
    with httpx.Client(base_url=daemon.url, timeout=60, **options) as client:  # type: ignore[arg-type]
        yield Tus(client)


def uploads_at(daemon: Daemon) -> list[str]:
    """Return the uploads whose bytes lie at a daemon."""
    return sorted(path.name for path in (daemon.store / ".filestored" / "uploads").iterdir())


def test_an_upload_goes_on_through_another_daemon_and_is_finished_there(pair: tuple[Daemon, Daemon]) -> None:
    one, other = pair
    body = some(3 * MIB)
    with client_of(one) as here, client_of(other) as there:
        path = here.begin(len(body), body[:MIB], Upload_Metadata=encoded(filename="a.bin"))
        assert there.offset(path) == MIB
        answer = there.patch(path, MIB, body[MIB : 2 * MIB])
        assert (answer.status_code, answer.headers["upload-offset"]) == (204, str(2 * MIB))
        assert path.rpartition("/")[2] in uploads_at(one)
        assert path.rpartition("/")[2] not in uploads_at(other)
        answer = there.patch(path, 2 * MIB, body[2 * MIB :])
        assert answer.headers["filestored-hash"] == digest(body)
        for tus in (here, there):
            assert tus.head(path).headers["filestored-hash"] == digest(body)
            assert tus.client.get(f"/{digest(body)}").content == body
            assert tus.client.get(f"/v1/files/{digest(body)}").json()["name"] == "a.bin"


def test_a_copied_key_keeps_daemons_together_that_were_started_before_and_after_it(
    cluster: Cluster, start_daemon: StartDaemon
) -> None:
    before = cluster.start()
    source = start_daemon("--anonymous", "full", "--workers", "1")
    assert httpx.post(source.url, content=b"source", timeout=60).status_code == 200
    copied, _ = copy(source.store, cluster.bucket.url, "--to-spool", str(before.store), env=cluster.bucket.env)
    assert copied["has_key"]
    after = cluster.start()
    for first, second in ((before, after), (after, before)):
        body = some(2 * MIB)
        with client_of(first) as here, client_of(second) as there:
            path = here.begin(len(body), body[:MIB])
            answer = there.patch(path, MIB, body[MIB:])
            assert answer.headers["filestored-hash"] == digest(body), answer.text


def test_answers_are_the_same_through_either(pair: tuple[Daemon, Daemon]) -> None:
    one, other = pair
    body = some(1000)
    with client_of(one) as here, client_of(other) as there:
        path = here.begin(1000, body[:300], Upload_Metadata=encoded(filename="x"))
        for method, headers in (
            ("HEAD", {}),
            ("PATCH", {"Upload_Offset": 1, "Content_Type": "application/offset+octet-stream"}),
            ("POST", {"X_HTTP_Method_Override": "HEAD"}),
            ("POST", {}),
            ("PATCH", {"Upload_Offset": 300}),
        ):
            answers = [tus.ask(method, path, **headers) for tus in (here, there)]
            shown = [
                {name: value for name, value in answer.headers.items() if name not in ("date", "upload-expires")}
                for answer in answers
            ]
            assert shown[0] == shown[1]
            assert answers[0].status_code == answers[1].status_code
            assert answers[0].content == answers[1].content
        assert there.ask("DELETE", path).status_code == 204
        assert here.head(path).status_code == 404
        assert path.rpartition("/")[2] not in uploads_at(one)


def test_a_body_without_a_length_and_a_checksum_are_passed_on(pair: tuple[Daemon, Daemon]) -> None:
    one, other = pair
    body = some(2 * MIB)
    with client_of(one) as here, client_of(other) as there:
        path = here.begin(len(body))
        wrong = there.patch(path, 0, body[:10], Upload_Checksum="sha1 " + "A" * 27 + "=")
        assert wrong.status_code == 460
        pieces = (body[start : start + 100_000] for start in range(0, len(body), 100_000))
        headers = {
            "Tus-Resumable": "1.0.0", "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream",
        }  # fmt: skip
        answer = there.client.patch(path, content=pieces, headers=headers)
        assert answer.headers["filestored-hash"] == digest(body), answer.text


def test_what_came_before_a_client_went_away_is_kept(pair: tuple[Daemon, Daemon]) -> None:
    one, other = pair
    body = some(4 * MIB)
    with client_of(one) as here, client_of(other) as there:
        path = here.begin(len(body))
        with socket.create_connection(other.address) as connection:
            head = (
                f"PATCH {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\n"
                f"Content-Type: application/offset+octet-stream\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            connection.sendall(head.encode() + body[: 3 * MIB])
            file = one.store / ".filestored" / "uploads" / path.rpartition("/")[2]
            assert wait_until(file.exists)
        assert wait_until(lambda: here.offset(path) == 3 * MIB), here.offset(path)
        assert there.patch(path, 3 * MIB, body[3 * MIB :]).headers["filestored-hash"] == digest(body)


def test_a_second_writer_is_refused_while_the_first_one_sends(pair: tuple[Daemon, Daemon]) -> None:
    one, other = pair
    body = some(MIB)
    with client_of(one) as here, client_of(other) as there:
        path = here.begin(len(body))
        goes_on = threading.Event()

        def slowly() -> Iterator[bytes]:
            for start in range(0, len(body) // 2, 4096):
                yield body[start : start + 4096]
                goes_on.wait(0.02)

        headers = {
            "Tus-Resumable": "1.0.0", "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream",
        }  # fmt: skip

        def send() -> None:
            httpx.patch(f"{other.url}{path}", content=slowly(), headers=headers, timeout=60)

        first = threading.Thread(target=send)
        first.start()
        file = one.store / ".filestored" / "uploads" / path.rpartition("/")[2]
        assert wait_until(file.exists)
        # a whole body that has not been read when the answer comes
        refused = there.patch(path, 0, body)
        assert refused.status_code == 423
        goes_on.set()
        first.join()
        assert there.offset(path) == len(body) // 2


def test_a_daemon_that_is_away_is_answered_for_as_far_as_can_be(two: tuple[Daemon, Daemon], cluster: Cluster) -> None:
    one, other = two
    body = some(1000)
    with client_of(one) as here, client_of(other) as there:
        path = here.begin(1000, body[:400])
        own = cluster.id_of(one)
        assert one.stop() == 0
        # it has taken leave
        assert own not in cluster.known()
        assert there.offset(path) == 400
        answer = there.patch(path, 400, body[400:])
        assert (answer.status_code, int(answer.headers["retry-after"]) > 0) == (503, True)
        assert there.ask("DELETE", path).status_code == 503
        assert there.offset(path) == 400
        one.start(60)
        assert wait_until(lambda: there.patch(path, 400, body[400:]).status_code == 204)
        assert there.head(path).headers["filestored-hash"] == digest(body)


def test_a_daemon_that_was_killed_is_not_waited_for(two: tuple[Daemon, Daemon], cluster: Cluster) -> None:
    one, other = two
    with client_of(one) as here, client_of(other) as there:
        path = here.begin(1000, some(400))
        one.kill()
        assert cluster.id_of(one) in cluster.known()
        assert there.offset(path) == 400
        assert there.patch(path, 400, some(600)).status_code == 503


def test_a_daemon_that_is_frozen_is_not_waited_for_for_ever(two: tuple[Daemon, Daemon]) -> None:
    one, other = two
    with client_of(one) as here, client_of(other) as there:
        path = here.begin(1000, some(400))
        os.killpg(one.pid, signal.SIGSTOP)
        try:
            # the system accepts the connection, and nobody answers
            assert there.patch(path, 400, some(600)).status_code == 503
            began = time.monotonic()
            assert there.offset(path) == 400
            assert time.monotonic() - began < 50
        finally:
            os.killpg(one.pid, signal.SIGCONT)


def test_a_body_where_the_method_has_none_is_not_passed_on(pair: tuple[Daemon, Daemon]) -> None:
    one, other = pair
    for length in ("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "Content-Length: 5\r\n\r\nhello"):
        with client_of(one) as here:
            path = here.begin(1000, some(400))
            with socket.create_connection(other.address, timeout=60) as connection:
                head = f"DELETE {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nTus-Resumable: 1.0.0\r\n"
                connection.sendall((head + length).encode())
                assert connection.makefile("rb").readline().startswith(b"HTTP/1.1 204")
            assert here.head(path).status_code == 404


def test_a_daemon_stops_though_another_accepts_and_never_answers(cluster: Cluster) -> None:
    one = cluster.start()
    with client_of(one) as here, socket.create_server(("127.0.0.1", 0)) as silent:
        path = here.begin(1000, some(400))
        url = "http://{}:{}".format(*silent.getsockname())
        run = cluster.database.execute
        run("INSERT INTO daemons (id, url, seen_at) SELECT 'silent', %s, seen_at + 3600000 FROM daemons", url)
        run("UPDATE uploads SET daemon = 'silent'")
        with ThreadPoolExecutor(1) as thread:
            answer = thread.submit(here.patch, path, 400, some(600))
            silent.settimeout(60)
            connection, _ = silent.accept()
            with connection:
                assert connection.recv(65536).startswith(b"PATCH ")
                stopped = one.stop()
                assert answer.result().status_code == 503
        assert stopped == 0


def test_what_another_has_registered_may_be_no_address() -> None:
    for url in ("http://host:99999", "http://[::::]:1", "http://...:80", "http://127.0.0.1:x"):
        with pytest.raises(PeerAway):
            asyncio.run(PeerConnection.open(url, None))


def test_what_cannot_stand_in_a_head_is_refused_before_anything_is_sent() -> None:
    async def ask(url: str) -> None:
        connection = await PeerConnection.open(url, None)
        try:
            with pytest.raises(BadRequest):
                await connection.begin("GET", "/a b", [])
        finally:
            connection.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        asyncio.run(ask("http://{}:{}".format(*server.getsockname())))
        connection, _ = server.accept()
        with connection:
            assert connection.recv(100) == b""


def test_who_asks_is_judged_the_same_wherever_the_upload_lies(two: tuple[Daemon, Daemon], cluster: Cluster) -> None:
    one, other = two
    # without a token, from this machine
    with client_of(one) as here, client_of(other) as there:
        path = here.begin(1000, some(400))
        through_proxy = {"X-Forwarded-For": "192.0.2.7"}
        refused = there.client.head(path, headers={"Tus-Resumable": "1.0.0", **through_proxy})
        assert refused.status_code == 403
    writer, stranger = cluster.token("writer", "write"), cluster.token("stranger", "write")
    with client_of(one, headers=bearer(writer)) as here, client_of(other, headers=bearer(writer)) as there:
        path = here.begin(1000, some(400))
        assert there.offset(path) == 400
        # whatever a client calls the server
        named = {"Tus-Resumable": "1.0.0", "Host": "x" * 5000}
        assert there.client.head(path, headers=named).status_code == 200
    with client_of(other, headers=bearer(stranger)) as there:
        assert there.head(path).status_code == 404
    with client_of(other) as there:
        assert there.head(path).status_code == 401


@pytest.mark.parametrize("value", ["", "x", "e30.", "e30.AAAA", "." * 5000])
def test_nobody_but_a_daemon_can_claim_to_be_one(value: str, pair: tuple[Daemon, Daemon]) -> None:
    one, _ = pair
    with client_of(one) as here:
        path = here.begin(1000, some(400))
        part = here.begin(5, some(5), Upload_Concat="partial")
        claimed = {"Filestored-Peer": value, "Tus-Resumable": "1.0.0"}
        for method, target in (("HEAD", path), ("DELETE", path), ("GET", f"/v1/peers/parts/{part.rpartition('/')[2]}")):
            assert here.client.request(method, target, headers=claimed).status_code == 403
        # the routes of the daemons are not there for others
        assert here.client.get(f"/v1/peers/parts/{part.rpartition('/')[2]}").status_code == 404
        assert here.offset(path) == 400


def test_parts_that_lie_on_several_machines_are_joined(pair: tuple[Daemon, Daemon]) -> None:
    one, other = pair
    body = some(3 * MIB)
    with client_of(one) as here, client_of(other) as there:
        parts = [
            here.begin(MIB, body[:MIB], Upload_Concat="partial"),
            there.begin(MIB, body[MIB : 2 * MIB], Upload_Concat="partial"),
            here.begin(MIB, body[2 * MIB :], Upload_Concat="partial"),
        ]
        named = "final;" + " ".join(parts)
        answer = there.ask("POST", "/v1/uploads", Upload_Concat=named, Upload_Metadata=encoded(filename="joined"))
        assert answer.status_code == 201, answer.text
        assert answer.headers["filestored-hash"] == digest(body)
        # once more, through the other: the answer may have been lost
        again = here.ask("POST", "/v1/uploads", Upload_Concat=named, Upload_Metadata=encoded(filename="joined"))
        assert again.headers["location"] == answer.headers["location"]
        assert here.client.get(f"/{digest(body)}").content == body
        # the bytes of the parts go by themselves
        gone = {part.rpartition("/")[2] for part in parts}
        assert wait_until(lambda: gone.isdisjoint(uploads_at(one) + uploads_at(other)), seconds=90)


def test_parts_on_a_machine_that_is_away_are_not_joined_yet(two: tuple[Daemon, Daemon]) -> None:
    one, other = two
    body = some(2000)
    with client_of(one) as here, client_of(other) as there:
        parts = [
            here.begin(1000, body[:1000], Upload_Concat="partial"),
            there.begin(1000, body[1000:], Upload_Concat="partial"),
        ]
        named = "final;" + " ".join(parts)
        one.kill()
        assert there.ask("POST", "/v1/uploads", Upload_Concat=named).status_code == 503
        one.start(60)
        answers: list[int] = []
        assert wait_until(
            lambda: (
                answers.append(there.ask("POST", "/v1/uploads", Upload_Concat=named).status_code)  # type: ignore[func-returns-value]
                or answers[-1] == 201
            ),
            seconds=60,
        ), answers
        assert set(answers) <= {503, 201}
        assert there.client.get(f"/{digest(body)}").content == body
