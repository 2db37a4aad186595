"""Daemons are restarted one after the other under load, behind a balancer that asks ``/readyz``: no request fails."""

import random
import threading
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.api.tus_client import digest
from tests.cluster.balancer import Balancer
from tests.cluster.conftest import Cluster
from tests.cluster.nginx import Nginx
from tests.conftest import Daemon
from tests.processes import wait_until
from tests.s3 import free_ports

CLIENTS = 4
LEAST = 30


@dataclass
class Client:
    """Uploads, fetches and deletes files of its own on and on, and takes note of all that goes wrong."""

    url: str
    number: int
    is_over: threading.Event
    keeps_connections: bool
    done: int = 0
    failures: list[str] = field(default_factory=list)

    def run(self) -> None:
        dice = random.Random(self.number)
        # nginx closes those that rest whenever it is told of something new
        limits = httpx.Limits(max_keepalive_connections=None if self.keeps_connections else 0)
        with httpx.Client(base_url=self.url, timeout=60, limits=limits) as client:
            while not self.is_over.is_set():
                body = f"{self.number} {dice.random()}".encode() * dice.choice([1, 20, 20_000])
                self._ask(client, "POST", "/", 200, body)
                for _ in range(dice.randint(1, 3)):
                    answer = self._ask(client, "GET", f"/{digest(body)}", 200)
                    if answer is not None and answer.content != body:
                        self.failures.append("wrong bytes")
                if dice.random() < 0.7:
                    self._ask(client, "DELETE", f"/{digest(body)}", 200)

    def _ask(
        self, client: httpx.Client, method: str, path: str, wanted: int, body: bytes | None = None
    ) -> httpx.Response | None:
        self.done += 1
        try:
            answer = client.request(method, path, content=body, headers={"content-type": "text/plain"})
        except httpx.HTTPError as error:
            self.failures.append(f"{method}: {type(error).__name__} {error}")
            return None
        if answer.status_code != wanted:
            self.failures.append(f"{method}: {answer.status_code} {answer.text[:200]}")
        return answer


def restart(daemon: Daemon, balancer: Balancer | Nginx) -> None:
    """Restart a daemon as an operator would: the next one is for when this one is in use again."""
    assert daemon.stop() == 0, daemon.read_log()
    assert not balancer.is_ready(daemon.address)
    daemon.start(60)
    assert wait_until(lambda: balancer.is_ready(daemon.address), seconds=60)


def wait_for_requests(clients: list[Client]) -> None:
    """Wait until some more have been answered."""
    before = sum(client.done for client in clients)
    assert wait_until(lambda: sum(client.done for client in clients) >= before + LEAST, seconds=60)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["balancer", "nginx"])
def test_no_request_fails_while_all_daemons_are_restarted(kind: str, cluster: Cluster, tmp_path: Path) -> None:
    is_plain = kind == "balancer"
    # nginx is no proxy whose word is taken: who has no token may do everything, from wherever it comes
    flags = ("--stop-delay", "5s", "--anonymous", "full")
    daemons = cluster.start_all(*(cluster.make(*flags, "--port", str(port)) for port in free_ports(2)))
    addresses = [daemon.address for daemon in daemons]
    is_over = threading.Event()
    with Balancer(addresses) if is_plain else Nginx(tmp_path / "nginx", addresses) as balancer:
        clients = [Client(balancer.url, number, is_over, is_plain) for number in range(CLIENTS)]
        threads = [threading.Thread(target=client.run) for client in clients]
        for thread in threads:
            thread.start()
        try:
            for daemon in daemons:
                wait_for_requests(clients)
                restart(daemon, balancer)
            wait_for_requests(clients)
        finally:
            is_over.set()
            for thread in threads:
                thread.join()
    failures = [failure for client in clients for failure in client.failures]
    assert not failures, (len(failures), sum(client.done for client in clients), failures[:5])
    # both have done their part
    assert all("POST /" in daemon.read_log() for daemon in daemons)
