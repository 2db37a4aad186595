"""PostgreSQL stops, crashes, freezes and drops connections while files come and go: nothing acknowledged is lost."""

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from filestored.catalogue.catalogue import Catalogue
from tests.bad_days.consistency import blobs, sha256
from tests.bad_days.test_races import run_together
from tests.cli.test_postgresql import require_hidden
from tests.conftest import Daemon, StartDaemon
from tests.postgres import Database, PostgresServer
from tests.processes import wait_until, worker_pids

LONGEST_ANSWER_SECONDS = 20.0
CLIENTS = 6


class Client:
    """Uploads and deletes files of its own, and knows what became of each; what failed it leaves open."""

    def __init__(self, url: str, number: int) -> None:
        self.http = httpx.Client(base_url=url, timeout=60)
        self.number = number
        self.dice = random.Random(number)
        self.kept: set[str] = set()
        self.gone: set[str] = set()
        self.statuses: dict[int, int] = {}
        self.slowest = 0.0

    def act(self) -> None:
        """Upload something new, or delete something, or read it."""
        kind = self.dice.random()
        if not self.kept or kind < 0.5:
            body = f"{self.number} {self.dice.random()}".encode() * self.dice.choice([1, 10_000])
            digest = sha256(body)
            if self._ask("POST", "/", content=body, headers={"content-type": "text/plain"}) == 200:
                self.kept.add(digest)
        elif kind < 0.75:
            digest = self.dice.choice(sorted(self.kept))
            self.kept.discard(digest)
            if self._ask("DELETE", f"/{digest}") == 200:
                self.gone.add(digest)
        else:
            self._ask("GET", f"/{self.dice.choice(sorted(self.kept))}", allowed={200, 503})

    def _ask(self, method: str, path: str, allowed: set[int] | None = None, **options: object) -> int:
        began = time.monotonic()
        answer = self.http.request(method, path, **options)  # type: ignore[arg-type]
        self.slowest = max(self.slowest, time.monotonic() - began)
        self.statuses[answer.status_code] = self.statuses.get(answer.status_code, 0) + 1
        assert answer.status_code in (allowed or {200, 503}), answer.text
        if answer.status_code == 503:
            assert int(answer.headers["retry-after"]) > 0
            time.sleep(0.05)
        return answer.status_code


@pytest.fixture
def database(own_postgres: PostgresServer) -> Database:
    return Database(own_postgres)


@pytest.fixture
def daemon(database: Database, start_daemon: StartDaemon, tmp_path: Path) -> Daemon:
    return start_daemon("--workers", "2", "--catalogue", database.url, store=tmp_path / "store")


def is_ready(daemon: Daemon) -> bool:
    # nobody listens where the worker that died was the only one that had begun to
    with contextlib.suppress(httpx.ConnectError):
        return httpx.get(f"{daemon.url}/readyz", timeout=30).status_code == 200
    return False


def under_load(daemon: Daemon, happen: Callable[[], object]) -> list[Client]:
    """Have clients at work while something happens, and for a moment before and after."""
    clients = [Client(daemon.url, number) for number in range(CLIENTS)]
    is_over = False

    def work(client: Client) -> None:
        while not is_over:
            client.act()

    with ThreadPoolExecutor(CLIENTS) as threads:
        running = [threads.submit(work, client) for client in clients]
        try:
            time.sleep(1)
            happen()
            assert wait_until(lambda: httpx.get(f"{daemon.url}/readyz", timeout=30).status_code == 200, seconds=30)
            time.sleep(1)
        finally:
            is_over = True
        for each in running:
            each.result(60)
    for client in clients:
        client.http.close()
        assert client.slowest < LONGEST_ANSWER_SECONDS
    return clients


def require_kept(daemon: Daemon, database: Database, clients: list[Client]) -> None:
    """Check that what was acknowledged is there, or gone, and that nothing else went wrong."""
    kept = set().union(*(client.kept for client in clients))
    gone = set().union(*(client.gone for client in clients))
    assert len(kept) > 10
    with httpx.Client(base_url=daemon.url, timeout=60) as http:
        for digest in kept:
            assert sha256(http.get(f"/{digest}").content) == digest
        for digest in gone:
            assert http.get(f"/{digest}").status_code == 404
    rows = {digest for (digest,) in database.execute("SELECT digest FROM files")}
    assert kept <= rows <= blobs(daemon.store)
    catalogue = Catalogue(database.address, durable=True)
    assert catalogue.counts_agree()
    catalogue.close()
    require_hidden(database.server, daemon.log.read_text())


def statuses(clients: list[Client]) -> set[int]:
    return set().union(*(client.statuses for client in clients))


def test_a_server_that_starts_anew_costs_no_request(
    daemon: Daemon, database: Database, own_postgres: PostgresServer
) -> None:
    def happen() -> None:
        for number in (signal.SIGINT, signal.SIGQUIT):
            own_postgres.stop(number)
            own_postgres.start()
            time.sleep(1)

    clients = under_load(daemon, happen)
    assert statuses(clients) == {200}
    require_kept(daemon, database, clients)


def test_connections_that_are_dropped_at_any_moment_cost_no_request(daemon: Daemon, database: Database) -> None:
    def happen() -> None:
        end = time.monotonic() + 4
        while time.monotonic() < end:
            database.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
                "AND pid <> pg_backend_pid()"
            )
            time.sleep(0.3)

    clients = under_load(daemon, happen)
    assert statuses(clients) == {200}
    require_kept(daemon, database, clients)


def test_a_server_that_is_away_for_long_is_told_in_time_and_found_again(
    daemon: Daemon, database: Database, own_postgres: PostgresServer
) -> None:
    def happen() -> None:
        own_postgres.stop()
        assert wait_until(lambda: httpx.get(f"{daemon.url}/readyz", timeout=30).status_code == 503)
        assert httpx.get(f"{daemon.url}/readyz", timeout=30).json()["fault"] == "catalogue"
        assert httpx.get(f"{daemon.url}/healthz").status_code == 200
        time.sleep(5)
        own_postgres.start()

    clients = under_load(daemon, happen)
    assert statuses(clients) == {200, 503}
    require_kept(daemon, database, clients)


def test_a_server_that_freezes_for_a_while_only_makes_requests_slower(
    daemon: Daemon, database: Database, own_postgres: PostgresServer
) -> None:
    def happen() -> None:
        with own_postgres.frozen():
            began = time.monotonic()
            assert httpx.get(f"{daemon.url}/readyz", timeout=30).status_code == 503
            assert time.monotonic() - began < 5
            time.sleep(max(0.0, began + 5 - time.monotonic()))

    clients = under_load(daemon, happen)
    require_kept(daemon, database, clients)


def test_a_daemon_that_is_killed_leaves_what_was_acknowledged_and_its_locks_to_the_next(
    daemon: Daemon, database: Database, start_daemon: StartDaemon
) -> None:
    clients = [Client(daemon.url, number) for number in range(CLIENTS)]

    def work(number: int) -> None:
        with contextlib.suppress(httpx.HTTPError), clients[number].http:
            while True:
                clients[number].act()

    with ThreadPoolExecutor(CLIENTS) as threads:
        running = [threads.submit(work, number) for number in range(CLIENTS)]
        time.sleep(2)
        daemon.kill()
        for each in running:
            each.result(60)
    again = start_daemon("--workers", "1", store=daemon.store, env={"FILESTORED_CATALOGUE": database.url})
    require_kept(again, database, clients)
    assert database.execute("SELECT * FROM removals") == []
    assert again.leftovers() == []


def test_a_worker_that_starts_while_the_server_is_away_waits_for_it(
    daemon: Daemon, own_postgres: PostgresServer
) -> None:
    old = worker_pids(daemon.pid)
    own_postgres.stop()
    os.kill(old[0], signal.SIGKILL)
    assert wait_until(lambda: len(set(worker_pids(daemon.pid)) - set(old)) == 1)
    time.sleep(8)
    assert "this worker waits for the catalogue" in daemon.read_log()
    own_postgres.start()
    assert wait_until(lambda: is_ready(daemon))
    for _ in range(20):
        assert httpx.get(f"{daemon.url}/v1/stats", timeout=30).status_code == 200
    assert daemon.stop() == 0


def test_a_daemon_stops_in_order_while_the_server_is_away(daemon: Daemon, own_postgres: PostgresServer) -> None:
    own_postgres.stop()
    old = worker_pids(daemon.pid)
    os.kill(old[0], signal.SIGKILL)
    assert wait_until(lambda: len(set(worker_pids(daemon.pid)) - set(old)) == 1)
    time.sleep(7)
    began = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - began < 15


def test_owners_race_for_the_same_bytes_through_two_workers_and_none_loses_what_it_keeps(
    daemon: Daemon, database: Database
) -> None:
    """All upload and delete the same few files for all, and look whether blob and row go together."""
    bodies = [b"one", b"two" * 3000, b"three" * 40_000]
    end = time.monotonic() + 5

    def work(number: int) -> None:
        dice = random.Random(number)
        with httpx.Client(base_url=daemon.url, timeout=60) as http:
            while time.monotonic() < end:
                body = dice.choice(bodies)
                if dice.random() < 0.6:
                    assert http.post("/", content=body, headers={"content-type": "a/b"}).text == sha256(body)
                else:
                    assert http.delete(f"/{sha256(body)}").status_code in (200, 404)
                answer = http.get(f"/{sha256(body)}")
                assert answer.status_code == 404 or answer.content == body

    run_together(CLIENTS, work)
    assert wait_until(lambda: daemon.leftovers() == [])
    rows = {digest for (digest,) in database.execute("SELECT digest FROM files")}
    assert blobs(daemon.store) == rows
    assert database.execute("SELECT * FROM removals") == []
    catalogue = Catalogue(database.address, durable=True)
    assert catalogue.counts_agree()
    catalogue.close()
