"""What daemons know of each other, and what only one of them does: in both databases, by the database's clock."""

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from filestored.catalogue.address import Address
from filestored.catalogue.catalogue import Catalogue
from filestored.catalogue.records import UploadRecord, now_milliseconds
from filestored.cluster import lease as leases
from filestored.cluster.daemons import Daemons, Membership
from filestored.cluster.lease import Lease
from filestored.errors import CatalogueError
from filestored.shared import Shared
from tests.postgres import Database
from tests.processes import wait_until

LONG = 3_600_000


@pytest.fixture
def catalogue(address: Address) -> Iterator[Catalogue]:
    Catalogue.prepare(address)
    opened = Catalogue(address, durable=False)
    yield opened
    opened.close()


def is_held(lease: Lease) -> bool:
    """Ask, and have the type checker know that the answer changes."""
    return lease.is_held


def change(address: Address, statement: str, request: pytest.FixtureRequest) -> None:
    """Change the database as another program would."""
    if isinstance(address, Path):
        with contextlib.closing(sqlite3.connect(address)) as connection, connection:
            connection.execute(statement)
    else:
        database: Database = request.getfixturevalue("database")
        database.execute(statement)


def test_the_clock_is_that_of_the_world(catalogue: Catalogue) -> None:
    before = now_milliseconds()
    assert before - 1000 <= catalogue.clock() <= now_milliseconds() + 1000


def test_of_many_that_need_the_clock_at_once_one_asks(address: Address, tmp_path: Path) -> None:
    class Counting(Catalogue):
        asked = 0

        def clock(self) -> int:
            Counting.asked += 1
            return super().clock()

    async def ask(catalogue: Catalogue, shared: Shared) -> list[int]:
        daemons = Daemons(catalogue, shared, "a", Membership("http://one", "1"))
        return await asyncio.gather(*(daemons.clock() for _ in range(20)))

    Catalogue.prepare(address)
    with contextlib.closing(Counting(address, durable=False)) as catalogue:
        with contextlib.closing(Shared(tmp_path / "shared")) as shared:
            assert max(asyncio.run(ask(catalogue, shared))) > 0
    assert Counting.asked == 1


def test_a_daemon_is_known_until_it_takes_leave(catalogue: Catalogue) -> None:
    assert catalogue.renew_daemon("a", "http://one", "1", LONG)
    assert catalogue.renew_daemon("b", "http://other", "2", LONG)
    assert catalogue.renew_daemon("a", "http://moved", "1", LONG)
    known = {daemon.id: daemon for daemon in catalogue.daemons()}
    assert {name: daemon.url for name, daemon in known.items()} == {"a": "http://moved", "b": "http://other"}
    assert all(0 <= daemon.silent < 60_000 for daemon in known.values())
    catalogue.remove_daemon("a", "2")
    assert len(catalogue.daemons()) == 2
    catalogue.remove_daemon("a", "1")
    catalogue.remove_daemon("a", "1")
    assert [daemon.id for daemon in catalogue.daemons()] == ["b"]


def test_silence_is_counted_and_the_long_silent_are_forgotten(catalogue: Catalogue) -> None:
    catalogue.renew_daemon("old", "http://old", "1", LONG)
    assert wait_until(lambda: catalogue.daemons()[0].silent > 50)
    catalogue.forget_daemons(LONG)
    assert len(catalogue.daemons()) == 1
    catalogue.forget_daemons(40)
    assert catalogue.daemons() == []


def test_one_has_a_lease_until_it_is_over_or_given_back(catalogue: Catalogue) -> None:
    assert catalogue.take_lease("upkeep", "a", LONG)
    assert not catalogue.take_lease("upkeep", "b", LONG)
    assert catalogue.take_lease("other", "b", LONG)
    assert (catalogue.lease_holder("upkeep"), catalogue.lease_holder("third")) == ("a", None)
    # renewing may shorten it, too
    assert catalogue.take_lease("upkeep", "a", 30)
    assert wait_until(lambda: catalogue.lease_holder("upkeep") is None)
    assert catalogue.take_lease("upkeep", "b", LONG)
    assert not catalogue.take_lease("upkeep", "a", LONG)
    catalogue.give_lease("upkeep", "a")
    assert not catalogue.take_lease("upkeep", "a", LONG)
    catalogue.give_lease("upkeep", "b")
    assert catalogue.take_lease("upkeep", "a", LONG)


def test_of_many_that_take_a_lease_at_once_one_has_it(catalogue: Catalogue) -> None:
    begin = threading.Barrier(8)

    def take(number: int) -> bool:
        begin.wait()
        return catalogue.take_lease("upkeep", str(number), LONG)

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(take, range(8))) == 1


def test_each_daemon_ends_its_own_uploads_and_one_those_of_the_lost(catalogue: Catalogue) -> None:
    now = now_milliseconds()
    upload = UploadRecord("", "owner", "", None, 10, 5, None, None, now - 10, now - 5)
    owners = {"1" * 32: "here", "2" * 32: "there", "3" * 32: "gone", "4" * 32: None, "5" * 32: "here"}
    with catalogue.transaction() as transaction:
        for name, daemon in owners.items():
            expires_at = now + LONG if name.startswith("5") else now - 5
            transaction.add_upload(replace(upload, id=name, daemon=daemon, expires_at=expires_at))
    catalogue.renew_daemon("here", "http://here", "1", LONG)
    catalogue.renew_daemon("there", "http://there", "2", LONG)
    assert {each.id[0] for each in catalogue.ended_uploads_of("here", now, 100)} == {"1", "4"}
    assert {each.id[0] for each in catalogue.lost_uploads(LONG, now, 100)} == {"3"}
    assert wait_until(lambda: {each.id[0] for each in catalogue.lost_uploads(40, now, 100)} == {"1", "2", "3"})


def test_a_holder_that_was_paused_for_too_long_knows_that_it_has_it_no_more(
    catalogue: Catalogue, address: Address, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease, other = (Lease(catalogue, "upkeep", name, seconds=LONG / 1000) for name in "ab")
    assert not is_held(lease)
    assert asyncio.run(lease.renew())
    assert is_held(lease)
    assert not asyncio.run(other.renew())
    assert not is_held(other)
    # as after a pause of the process, or of the machine: it did nothing, and the clock went on
    paused = leases.uptime() + LONG / 1000
    with monkeypatch.context() as patch:
        patch.setattr(leases, "uptime", lambda: paused)
        assert not is_held(lease)
        # the database's clock, too
        change(address, f"UPDATE leases SET until = until - {LONG}", request)
        assert asyncio.run(other.renew())
        assert not is_held(lease)
        assert not asyncio.run(lease.renew())


def test_a_lease_ends_for_its_holder_before_another_can_have_it(catalogue: Catalogue) -> None:
    lease, other = (Lease(catalogue, "upkeep", name, seconds=1) for name in "ab")
    assert asyncio.run(lease.renew())
    deadline = time.monotonic() + 30
    while not asyncio.run(other.renew()):
        assert time.monotonic() < deadline
    assert not is_held(lease)


def test_a_lease_that_cannot_be_renewed_ends_in_its_time(
    catalogue: Catalogue, address: Address, request: pytest.FixtureRequest
) -> None:
    lease = Lease(catalogue, "upkeep", "a", seconds=0.5)
    assert asyncio.run(lease.renew())
    change(address, "DROP TABLE leases", request)
    with pytest.raises(CatalogueError):
        asyncio.run(lease.renew())
    assert wait_until(lambda: not is_held(lease))
