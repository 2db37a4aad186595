"""Many clients upload, read and delete the same few files at once, through two workers."""

import contextlib
import os
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.bad_days.consistency import blobs, require_agreement, sha256
from tests.conftest import Daemon, StartDaemon
from tests.processes import wait_until

SECONDS = 4
BODIES = [os.urandom(size) for size in (10, 5000, 200_000, 200_001)]


def run_together(count: int, work: Callable[[int], None]) -> None:
    """Run work in threads at once; raise what any of them raised."""
    start = threading.Barrier(count)

    def begin(number: int) -> None:
        start.wait(10)
        work(number)

    with ThreadPoolExecutor(count) as threads:
        list(threads.map(begin, range(count)))


def act(client: httpx.Client, dice: random.Random) -> str:
    """Do one thing to one of the files, and check its answer; return what was done."""
    body = dice.choice(BODIES)
    digest = sha256(body)
    match dice.choice(["post", "form", "put", "get", "get", "head", "delete"]):
        case "post":
            answer = client.post("/", content=body)
            assert (answer.status_code, answer.text) == (200, digest)
        case "form":
            files = [("file", (None, each, "a/b")) for each in (body, BODIES[0])]
            answer = client.post("/", files=files)
            assert (answer.status_code, answer.text.split()) == (200, [digest, sha256(BODIES[0])])
        case "put":
            answer = client.put(f"/{digest}", content=body)
            assert answer.status_code in (200, 201)
        case "get":
            answer = client.get(f"/{digest}")
            assert answer.status_code == 404 or (answer.status_code == 200 and answer.content == body)
        case "head":
            answer = client.head(f"/{digest}")
            assert answer.status_code == 404 or answer.headers["content-length"] == str(len(body))
        case "delete":
            answer = client.delete("/", params={"file_hash": digest})
            assert answer.status_code in (200, 404)
    return f"{answer.request.method} {answer.status_code}"


def require_settled(daemon: Daemon) -> None:
    """Check the end state: whole or gone, on the disk, in the catalogue and in what every worker answers."""
    assert wait_until(lambda: daemon.leftovers() == []), daemon.leftovers()
    require_agreement(daemon.store)
    for body in BODIES:
        expected = (200, body) if sha256(body) in blobs(daemon.store) else (404, None)
        for _ in range(8):
            answer = httpx.get(f"{daemon.url}/{sha256(body)}")
            assert (answer.status_code, answer.content if answer.status_code == 200 else None) == expected


@pytest.mark.parametrize("durability", ["full", "relaxed"])
def test_whatever_is_read_is_whole_or_not_there(start_daemon: StartDaemon, durability: str) -> None:
    daemon = start_daemon("--workers", "2", "--durability", durability)
    end = time.monotonic() + SECONDS
    done: set[str] = set()

    def work(number: int) -> None:
        dice = random.Random(number)
        with httpx.Client(base_url=daemon.url, timeout=30) as client:
            while time.monotonic() < end:
                done.add(act(client, dice))

    run_together(8, work)
    assert {"POST 200", "PUT 200", "PUT 201", "GET 200", "GET 404", "DELETE 200", "DELETE 404"} <= done
    require_settled(daemon)


def test_one_client_sees_its_own_uploads_and_deletes_at_once_whichever_worker_answers(
    start_daemon: StartDaemon,
) -> None:
    daemon = start_daemon("--workers", "2")

    def work(number: int) -> None:
        body = os.urandom(1000 if number % 2 else 100_000)
        digest = sha256(body)
        for _ in range(5):
            # a connection of its own each, so that both workers are asked
            assert httpx.post(daemon.url, content=body).text == digest
            for _ in range(3):
                assert httpx.get(f"{daemon.url}/{digest}").content == body
            assert httpx.delete(f"{daemon.url}/{digest}").status_code == 200
            for _ in range(3):
                assert httpx.get(f"{daemon.url}/{digest}").status_code == 404

    run_together(4, work)
    require_settled(daemon)
    assert blobs(daemon.store) == set()


@pytest.mark.parametrize("size", [1000, 300_000])
def test_the_same_bytes_uploaded_by_sixteen_at_once_are_stored_once(start_daemon: StartDaemon, size: int) -> None:
    daemon = start_daemon("--workers", "2")
    body = os.urandom(size)
    digest = sha256(body)

    def work(number: int) -> None:
        with httpx.Client(base_url=daemon.url, timeout=30) as client:
            for turn in range(6):
                assert client.post("/", content=body).text == digest
                if number % 4 == 0 and turn % 2 == 0:
                    assert client.delete(f"/{digest}").status_code in (200, 404)

    run_together(16, work)
    require_settled(daemon)
    assert httpx.post(daemon.url, content=body).text == digest
    assert blobs(daemon.store) == {digest}
    require_settled(daemon)


def test_of_deletes_at_once_one_finds_the_file(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "3")
    with contextlib.ExitStack() as opened:
        clients = [opened.enter_context(httpx.Client(base_url=daemon.url, timeout=60)) for _ in range(4)]
        for number in range(40):
            digest = clients[0].post("/", content=b"deleted by several %d" % number).text
            with ThreadPoolExecutor(len(clients)) as threads:
                asked = [threads.submit(client.delete, f"/{digest}") for client in clients]
            assert sorted(each.result().status_code for each in asked) == [200, 404, 404, 404]
