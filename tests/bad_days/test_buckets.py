"""Two daemons before a bucket and PostgreSQL, and one of all these is stopped, frozen or killed under load."""

import contextlib
import os
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.bad_days.consistency import sha256
from tests.bad_days.test_postgresql import Client
from tests.bad_days.test_races import run_together
from tests.conftest import Daemon, StartDaemon
from tests.postgres import Database, PostgresServer
from tests.processes import wait_until
from tests.s3 import Bucket, S3Server
from tests.twins import Twins

# servers of several programs are started, and answer slowly on a busy machine
pytestmark = pytest.mark.timeout(400)

LONGEST_ANSWER_SECONDS = 45.0
"""Longer than all timeouts of one request one after the other."""

SEEN_SECONDS = 1.05
"""By when, after the answer, every daemon goes by what one has changed."""

CLIENTS = 6
MIB = 1 << 20


@pytest.fixture
def twins(bucket: Bucket, database: Database, start_daemon: StartDaemon, tmp_path: Path) -> Twins:
    return Twins(bucket, database, start_daemon, tmp_path)


@pytest.fixture
def own_twins(own_s3: S3Server, own_postgres: PostgresServer, start_daemon: StartDaemon, tmp_path: Path) -> Twins:
    """Daemons whose bucket and database the test may stop."""
    return Twins(Bucket(own_s3), Database(own_postgres), start_daemon, tmp_path)


def is_ready(daemon: Daemon) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{daemon.url}/readyz", timeout=30).status_code == 200
    return False


def are_busy(clients: list[Client]) -> bool:
    """Tell whether each has files that could be lost by now."""
    return all(len(client.kept) > 1 for client in clients)


def under_load(daemons: list[Daemon], happen: Callable[[], object]) -> list[Client]:
    """Have clients at work through all daemons while something happens, and for a moment before and after."""
    clients = [Client(daemons[number % len(daemons)].url, number) for number in range(CLIENTS)]
    is_over = False

    def work(client: Client) -> None:
        while not is_over:
            try:
                client.act()
            except httpx.TransportError:
                # its daemon was killed: what became of this request is open
                return

    with ThreadPoolExecutor(CLIENTS) as threads:
        running = [threads.submit(work, client) for client in clients]
        try:
            assert wait_until(lambda: are_busy(clients), seconds=60)
            happen()
            time.sleep(2)
        finally:
            is_over = True
        for each in running:
            each.result(120)
    for client in clients:
        client.http.close()
        assert client.slowest < LONGEST_ANSWER_SECONDS
        assert not set(client.statuses) - {200, 503}
    return clients


def require_kept(daemons: list[Daemon], twins: Twins, clients: list[Client], *, is_killed: bool = False) -> None:
    """Check that what was acknowledged is there, or gone, whichever daemon is asked, and that all fits together.

    A daemon that ``is_killed`` may have brought what it could not record any more, and only that.
    """
    kept = set().union(*(client.kept for client in clients))
    gone = set().union(*(client.gone for client in clients))
    assert len(kept) > 5
    for daemon in daemons:
        assert wait_until(lambda each=daemon: is_ready(each), seconds=30)  # type: ignore[misc]
        with httpx.Client(base_url=daemon.url, timeout=60) as http:
            for digest in kept:
                assert sha256(http.get(f"/{digest}").content) == digest
            for digest in gone:
                assert http.get(f"/{digest}").status_code == 404
    assert kept <= set(twins.rows())
    assert not gone & set(twins.rows())
    twins.require_settled()
    unnamed = twins.blobs() - set(twins.rows())
    assert not unnamed & (kept | gone)
    assert len(unnamed) <= (CLIENTS if is_killed else 0)


def test_uploads_and_deletes_of_the_same_files_race_through_two_daemons(twins: Twins) -> None:
    daemons = [twins.start("one", workers=2), twins.start("two")]
    bodies = [os.urandom(size) for size in (10, 70_000, 9 * MIB)]
    end, latest = time.monotonic() + 12, time.monotonic() + 90
    wanted = {"POST 200", "GET 200", "DELETE 200", "DELETE 404"}
    done: set[str] = set()

    def work(number: int) -> None:
        dice = random.Random(number)
        with httpx.Client(base_url=daemons[number % 2].url, timeout=60) as http:
            while time.monotonic() < (end if wanted <= done else latest):
                body = dice.choices(bodies, (6, 3, 1))[0]
                digest = sha256(body)
                if dice.random() < 0.5:
                    answer = http.post("/", content=body, headers={"content-type": "a/b"})
                    assert answer.status_code == 503 or (answer.status_code, answer.text) == (200, digest)
                elif dice.random() < 0.6:
                    answer = http.delete(f"/{digest}")
                    assert answer.status_code in (200, 404, 503)
                else:
                    answer = http.get(f"/{digest}")
                    assert answer.status_code == 404 or answer.content == body
                done.add(f"{answer.request.method} {answer.status_code}")

    run_together(CLIENTS, work)
    assert wanted <= done, done
    # until then a daemon may answer with what another has deleted
    time.sleep(SEEN_SECONDS)
    twins.require_agreement()
    for body in bodies:
        is_there = sha256(body) in twins.rows()
        for daemon in daemons:
            answer = httpx.get(f"{daemon.url}/{sha256(body)}", timeout=30)
            assert answer.status_code == (200 if is_there else 404)
            assert not is_there or answer.content == body
        assert all(daemon.leftovers() == [] for daemon in daemons)


def test_a_daemon_that_is_killed_under_load_costs_nothing_that_was_acknowledged(twins: Twins) -> None:
    daemons = [twins.start("one", workers=2), twins.start("two")]

    def happen() -> None:
        daemons[0].kill()
        time.sleep(2)

    clients = under_load(daemons, happen)
    require_kept([daemons[1]], twins, clients, is_killed=True)
    again = twins.start("one")
    require_kept([again, daemons[1]], twins, clients, is_killed=True)
    assert again.leftovers() == []


@pytest.mark.parametrize("seconds", [5, 12])
def test_a_database_that_is_away_for_a_while_loses_nothing(
    own_twins: Twins, own_postgres: PostgresServer, seconds: int
) -> None:
    daemons = [own_twins.start("one"), own_twins.start("two")]

    def happen() -> None:
        own_postgres.stop()
        time.sleep(seconds)
        own_postgres.start()

    clients = under_load(daemons, happen)
    require_kept(daemons, own_twins, clients)


@pytest.mark.parametrize("how", ["frozen", "killed"])
def test_an_object_store_that_is_away_for_a_while_loses_nothing(own_twins: Twins, own_s3: S3Server, how: str) -> None:
    daemons = [own_twins.start("one"), own_twins.start("two")]

    def happen() -> None:
        if how == "frozen":
            with own_s3.frozen():
                time.sleep(5)
        else:
            own_s3.kill()
            time.sleep(5)
            own_s3.start()

    clients = under_load(daemons, happen)
    require_kept(daemons, own_twins, clients)


def require_refused(daemon: Daemon, digest: str, fault: str) -> None:
    """Check that everything is refused in time, and by 503 with the moment to come back."""
    asked: list[tuple[str, str, bytes | None]] = [
        ("POST", "/", b"new"), ("POST", "/", os.urandom(9 * MIB)), ("GET", f"/{digest}", None),
        ("HEAD", f"/{digest}", None), ("GET", f"/{'0' * 64}", None), ("DELETE", f"/{digest}", None),
    ]  # fmt: skip
    for method, path, body in asked:
        began = time.monotonic()
        answer = httpx.request(method, daemon.url + path, content=body, timeout=90)
        assert time.monotonic() - began < LONGEST_ANSWER_SECONDS, method
        assert answer.status_code == 503, (method, answer.status_code)
        assert int(answer.headers["retry-after"]) > 0
    answer = httpx.get(f"{daemon.url}/readyz", timeout=30)
    assert (answer.status_code, answer.json()["fault"]) == (503, fault)
    assert httpx.get(f"{daemon.url}/healthz", timeout=30).status_code == 200


def test_an_object_store_that_is_away_for_good_is_told_in_time(own_twins: Twins, own_s3: S3Server) -> None:
    daemon = own_twins.start("one")
    body = os.urandom(200_000)
    assert httpx.post(daemon.url, content=body, timeout=60).text == sha256(body)
    own_s3.kill()
    require_refused(daemon, sha256(body), "store")
    # that the file is deleted stands, though its bytes could not be removed
    own_s3.start()
    assert wait_until(lambda: is_ready(daemon), seconds=30)
    assert httpx.get(f"{daemon.url}/{sha256(body)}", timeout=30).status_code == 404
    own_twins.require_agreement()
    assert own_twins.blobs() == set()
    assert daemon.stop() == 0


def test_an_object_store_that_is_frozen_for_good_is_told_in_time(own_twins: Twins, own_s3: S3Server) -> None:
    daemon = own_twins.start("one")
    body = os.urandom(200_000)
    assert httpx.post(daemon.url, content=body, timeout=60).text == sha256(body)
    with own_s3.frozen():
        require_refused(daemon, sha256(body), "store")
    assert wait_until(lambda: is_ready(daemon), seconds=30)
    assert httpx.get(f"{daemon.url}/{sha256(body)}", timeout=30).status_code == 404
    own_twins.require_agreement()


def test_a_database_that_is_away_for_good_is_told_in_time(own_twins: Twins, own_postgres: PostgresServer) -> None:
    daemon = own_twins.start("one")
    body = os.urandom(200_000)
    assert httpx.post(daemon.url, content=body, timeout=60).text == sha256(body)
    own_postgres.stop()
    require_refused(daemon, sha256(body), "catalogue")
    own_postgres.start()
    assert wait_until(lambda: is_ready(daemon), seconds=30)
    assert httpx.get(f"{daemon.url}/{sha256(body)}", timeout=30).content == body
    # what was brought and could not be recorded is taken back
    assert wait_until(lambda: httpx.get(f"{daemon.url}/{sha256(b'new')}", timeout=30).status_code == 404)
    assert httpx.post(daemon.url, content=b"another", timeout=60).status_code == 200
    own_twins.require_agreement()


@pytest.mark.parametrize("how", ["frozen", "killed"])
def test_an_object_store_that_breaks_off_in_the_middle_of_an_upload(
    own_twins: Twins, own_s3: S3Server, how: str
) -> None:
    daemon = own_twins.start("one")
    body = os.urandom(96 * MIB)
    answers: list[httpx.Response] = []
    spool = daemon.store / ".filestored" / "tmp"

    def is_on_its_way() -> bool:
        return any(path.stat().st_size == len(body) for path in spool.iterdir())

    uploading = threading.Thread(target=lambda: answers.append(httpx.post(daemon.url, content=body, timeout=120)))
    uploading.start()
    assert wait_until(is_on_its_way, seconds=60)
    if how == "frozen":
        with own_s3.frozen():
            time.sleep(5)
    else:
        own_s3.kill()
        time.sleep(5)
        own_s3.start()
    uploading.join(120)
    (answer,) = answers
    assert answer.status_code in (200, 503)
    if answer.status_code == 503:
        assert int(answer.headers["retry-after"]) > 0
        assert httpx.get(f"{daemon.url}/{sha256(body)}", timeout=30).status_code in (404, 503)
    assert wait_until(lambda: is_ready(daemon), seconds=30)
    assert wait_until(lambda: httpx.post(daemon.url, content=body, timeout=120).status_code == 200, seconds=120)
    assert sha256(httpx.get(f"{daemon.url}/{sha256(body)}", timeout=120).content) == sha256(body)
    assert wait_until(lambda: daemon.leftovers() == [])
    own_twins.require_agreement()
