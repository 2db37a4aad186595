"""The proxies of deploy/cluster before two real daemons, which share a bucket and a database."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Protocol

import httpx
import pytest

from tests.conftest import Daemon, StartDaemon
from tests.deploy.proxies import DEPLOY, addressed, caddy, nginx
from tests.postgres import Database
from tests.processes import wait_until
from tests.s3 import Bucket, free_ports

pytestmark = pytest.mark.timeout(300)

BODY = os.urandom(9_000_000)

NAMES = ("one:9000", "two:9000")
NUMBERS = ("10.89.7.11:9000", "10.89.7.12:9000")
"""What the daemons are called in compose.yaml, and their addresses there."""


class RunProxy(Protocol):
    """Runs a proxy before the daemons of two addresses."""

    def __call__(self, folder: Path, *daemons: str) -> AbstractContextManager[str]:
        """Give the address of the proxy."""


def run_nginx(folder: Path, *daemons: str) -> AbstractContextManager[str]:
    return nginx(folder, addressed((DEPLOY / "cluster" / "nginx.conf").read_text(), NUMBERS, *daemons))


def run_caddy(folder: Path, *daemons: str) -> AbstractContextManager[str]:
    return caddy(folder, addressed((DEPLOY / "cluster" / "Caddyfile").read_text(), NAMES, *daemons))


BOTH = pytest.mark.parametrize("run_proxy", [run_nginx, run_caddy])


class Cluster:
    """Two daemons with a bucket and a database in common, at addresses that they keep."""

    def __init__(self, start_daemon: StartDaemon, bucket: Bucket, database: Database, folder: Path) -> None:
        self._start_daemon = start_daemon
        self._bucket = bucket
        self._database = database
        self._folder = folder
        self._ports = free_ports(2)
        self.daemons = [self.start(number) for number in (0, 1)]
        self.urls = [daemon.url for daemon in self.daemons]

    def start(self, number: int) -> Daemon:
        spool = self._folder / f"spool{number}"
        return self._start_daemon(
            "--store", self._bucket.url, "--spool", str(spool), "--catalogue", self._database.url, "--workers", "1",
            "--port", str(self._ports[number]), "--anonymous", "full", "--trusted-proxy", "127.0.0.1",
            "--stop-delay", "6s", store=spool, env=self._bucket.env,
        )  # fmt: skip


@pytest.fixture
def cluster(start_daemon: StartDaemon, bucket: Bucket, database: Database, tmp_path: Path) -> Cluster:
    return Cluster(start_daemon, bucket, database, tmp_path)


@BOTH
def test_the_proxy_shares_requests_out_and_says_who_asks(cluster: Cluster, run_proxy: RunProxy, tmp_path: Path) -> None:
    with run_proxy(tmp_path / "proxy", *cluster.urls) as url, httpx.Client(base_url=url, timeout=60) as client:
        digest = client.post("/", content=iter([BODY[:5_000_000], BODY[5_000_000:]]), params={"name": "big"}).text
        spoofed = {"X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9", "X-Forwarded-Host": "evil.example"}
        for _ in range(8):
            assert client.get(f"/{digest}", headers=spoofed).content == BODY
        part = client.get(f"/{digest}", headers={"Range": "bytes=4999990-5000010"})
        assert (part.status_code, part.content) == (206, BODY[4999990:5000011])
        linked = client.post(f"/v1/files/{digest}/link", json={"expires_in": "1h"}, headers=spoofed).json()["url"]
        assert linked.startswith(url)
        assert client.get(linked).content == BODY
        assert client.delete(f"/{digest}").status_code == 200
    logs = [daemon.read_log() for daemon in cluster.daemons]
    assert all(digest in log for log in logs), logs
    assert not any("203.0.113.9" in log for log in logs)


class Traffic:
    """Requests that never end, each of which must succeed."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.done = 0
        self.failures: list[str] = []
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(3)

    def __enter__(self) -> "Traffic":
        self._tasks = [self._pool.submit(self._run, number) for number in range(3)]
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for task in self._tasks:
            task.result(60)
        self._pool.shutdown()

    def _run(self, number: int) -> None:
        with httpx.Client(base_url=self.url, timeout=60) as client:
            while not self._stopping.is_set():
                body = f"{number} {self.done} {time.monotonic()}".encode()
                self._try(client, "POST", "/", body)
                self._try(client, "GET", "/v1/stats")
                self.done += 1

    def _try(self, client: httpx.Client, method: str, path: str, body: bytes | None = None) -> None:
        try:
            answer = client.request(method, path, content=body)
        except httpx.HTTPError as error:
            self.failures.append(f"{method} {path}: {error!r}")
        else:
            if answer.status_code >= 400:
                self.failures.append(f"{method} {path}: {answer.status_code} {answer.text[:200]}")

    def goes_on(self, count: int) -> bool:
        """Wait until so many more requests are answered; tell whether they were."""
        wanted = self.done + count
        return wait_until(lambda: self.done >= wanted or bool(self.failures), seconds=60)


@BOTH
def test_one_after_the_other_starts_anew_without_a_failed_request(
    cluster: Cluster, run_proxy: RunProxy, tmp_path: Path
) -> None:
    with run_proxy(tmp_path / "proxy", *cluster.urls) as url, Traffic(url) as traffic:
        assert traffic.goes_on(5)
        for number in (0, 1):
            assert cluster.daemons[number].stop() == 0
            assert traffic.goes_on(5)
            cluster.daemons[number] = cluster.start(number)
            assert wait_until(partial(is_asked, url, cluster.daemons[number]), seconds=60)
        assert traffic.goes_on(5)
    assert traffic.failures == []


def is_asked(url: str, daemon: Daemon) -> bool:
    """Tell whether a daemon that has just started is given requests by the proxy again."""
    httpx.get(f"{url}/v1/stats", timeout=60)
    return "/v1/stats" in daemon.read_log().rpartition("serves ")[2]


@pytest.fixture
def dead_url() -> str:
    """An address at which nobody listens."""
    (port,) = free_ports(1)
    return f"http://127.0.0.1:{port}"


@BOTH
def test_a_daemon_that_is_away_costs_no_request(
    cluster: Cluster, run_proxy: RunProxy, dead_url: str, tmp_path: Path
) -> None:
    running = run_proxy(tmp_path / "proxy", dead_url, cluster.urls[1])
    with running as url, httpx.Client(base_url=url, timeout=60) as client:
        for number in range(20):
            assert client.post("/", content=b"%d" % number).status_code == 200
