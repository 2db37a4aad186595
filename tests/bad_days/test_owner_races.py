"""Several owners upload and delete the same few files at once: nobody loses what it still keeps."""

import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.bad_days.consistency import blobs, removals, rows, sha256
from tests.bad_days.test_races import run_together
from tests.conftest import StartDaemon
from tests.processes import wait_until
from tests.tokens import bearer, make_token

SECONDS = 5
BODIES = [b"one", b"two" * 3000, b"three" * 40_000]


class Keeper:
    """An owner that knows what it must have: alone, nobody else can take it."""

    def __init__(self, client: httpx.Client, seed: int) -> None:
        self.client = client
        self.dice = random.Random(seed)
        self.keeps: set[str] = set()
        self.done: set[str] = set()

    def act(self) -> None:
        body = self.dice.choice(BODIES)
        digest = sha256(body)
        match self.dice.choice(["upload", "upload", "delete", "read", "describe"]):
            case "upload":
                answer = self.client.post("/v1/files", content=body)
                assert answer.status_code == (200 if digest in self.keeps else 201)
                self.keeps.add(digest)
            case "delete":
                answer = self.client.delete(f"/{digest}")
                assert answer.status_code == (200 if digest in self.keeps else 404)
                self.keeps.discard(digest)
            case "read":
                answer = self.client.get(f"/{digest}")
                assert answer.status_code == 200 or digest not in self.keeps
                assert answer.status_code == 404 or answer.content == body
            case "describe":
                answer = self.client.get(f"/v1/files/{digest}")
                assert answer.status_code == (200 if digest in self.keeps else 404)
        self.done.add(f"{answer.request.method} {answer.status_code}")


@pytest.mark.parametrize("durability", ["full", "relaxed"])
def test_no_owner_loses_what_it_keeps_and_the_blob_goes_with_the_last(
    start_daemon: StartDaemon, tmp_path: Path, durability: str
) -> None:
    store = tmp_path / "store"
    tokens = [make_token(store, f"owner{number}", "read,write,delete") for number in range(6)]
    daemon = start_daemon("--workers", "2", "--durability", durability, store=store)
    end = time.monotonic() + SECONDS
    keepers: list[Keeper] = []

    def work(number: int) -> None:
        with httpx.Client(base_url=daemon.url, headers=bearer(tokens[number]), timeout=30) as client:
            keeper = Keeper(client, number)
            keepers.append(keeper)
            while time.monotonic() < end:
                keeper.act()

    run_together(len(tokens), work)
    done = set().union(*(keeper.done for keeper in keepers))
    assert {"POST 200", "POST 201", "GET 200", "GET 404", "DELETE 200", "DELETE 404"} <= done
    kept = set().union(*(keeper.keeps for keeper in keepers))
    assert wait_until(lambda: daemon.leftovers() == [])
    assert blobs(store) == set(rows(store)) == kept
    assert removals(store) == []


def test_a_daemon_killed_among_owners_at_work_leaves_each_what_was_acknowledged(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    tokens = [make_token(store, f"owner{number}", "read,write,delete") for number in range(4)]
    daemon = start_daemon("--workers", "2", store=store)

    def work(number: int) -> tuple[set[str], str]:
        """Return what must be there, and the file whose fate the crash left open."""
        keeper: Keeper
        with httpx.Client(base_url=daemon.url, headers=bearer(tokens[number]), timeout=10) as client:
            keeper = Keeper(client, number)
            while True:
                body = keeper.dice.choice(BODIES)
                digest = sha256(body)
                try:
                    if keeper.dice.random() < 0.6:
                        client.post("/", content=body).raise_for_status()
                        keeper.keeps.add(digest)
                    else:
                        client.delete(f"/{digest}")
                        keeper.keeps.discard(digest)
                except httpx.HTTPError:
                    return keeper.keeps, digest

    with ThreadPoolExecutor(len(tokens)) as threads:
        states = [threads.submit(work, number) for number in range(len(tokens))]
        time.sleep(1.5)
        daemon.kill()
        outcomes = [state.result(30) for state in states]
    again = start_daemon("--workers", "1", store=store)
    for token, (kept, open_digest) in zip(tokens, outcomes, strict=True):
        for body in BODIES:
            digest = sha256(body)
            if digest == open_digest:
                continue
            shown = httpx.get(f"{again.url}/v1/files/{digest}", headers=bearer(token))
            assert shown.status_code == (200 if digest in kept else 404)
            if digest in kept:
                assert httpx.get(f"{again.url}/{digest}", headers=bearer(token)).content == body
    assert set(rows(store)) <= blobs(store)
    assert removals(store) == []
