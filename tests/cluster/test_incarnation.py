"""A spool that was copied has the id of its original: two daemons must not go by one."""

import asyncio
import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from filestored.catalogue.address import Address
from filestored.catalogue.catalogue import Catalogue
from filestored.cluster import incarnation as incarnations
from filestored.cluster.daemons import BEAT_SECONDS, Daemons, Membership
from filestored.cluster.incarnation import join, new_incarnation
from filestored.errors import StartError
from filestored.shared import Shared
from tests.api.tus_client import Tus, digest, some
from tests.cluster.conftest import Cluster
from tests.processes import wait_until

LONG = 3_600_000


@pytest.fixture
def catalogue(address: Address) -> Iterator[Catalogue]:
    Catalogue.prepare(address)
    opened = Catalogue(address, durable=False)
    yield opened
    opened.close()


def ignore() -> None:
    """Take no heed of signals."""


def test_the_same_lock_file_has_one_place_and_a_copy_another(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("1\n")
    shutil.copy2(tmp_path / "lock", tmp_path / "copy")
    one, again, copy = (new_incarnation(tmp_path / name) for name in ("lock", "lock", "copy"))
    assert len({one, again, copy}) == 3
    assert one[:16] == again[:16] != copy[:16]
    assert {len(each) for each in (one, again, copy)} == {32}


def test_another_incarnation_is_refused_until_the_first_is_silent(catalogue: Catalogue) -> None:
    assert catalogue.renew_daemon("a", "http://one", "1" * 32, LONG)
    assert not catalogue.renew_daemon("a", "http://copy", "2" * 32, LONG)
    assert [(each.url, each.incarnation) for each in catalogue.daemons()] == [("http://one", "1" * 32)]
    assert wait_until(lambda: catalogue.renew_daemon("a", "http://copy", "2" * 32, 40))
    assert not catalogue.renew_daemon("a", "http://one", "1" * 32, LONG)


def test_who_was_killed_on_this_lock_file_is_not_waited_for(catalogue: Catalogue, tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    killed, next_one = new_incarnation(tmp_path / "lock"), new_incarnation(tmp_path / "lock")
    looks = []
    join(catalogue, "a", "http://one", killed, ignore)
    join(catalogue, "a", "http://again", next_one, lambda: looks.append(1))
    assert looks == []
    assert [each.incarnation for each in catalogue.daemons()] == [next_one]


def test_who_was_killed_elsewhere_is_waited_for(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incarnations, "AWAY_SECONDS", 1.0)
    join(catalogue, "a", "http://one", "1" * 32, ignore)
    looks = []
    join(catalogue, "a", "http://moved", "2" * 32, lambda: looks.append(1))
    assert looks
    assert [each.incarnation for each in catalogue.daemons()] == ["2" * 32]


def test_a_row_of_an_earlier_version_is_one_of_another(catalogue: Catalogue) -> None:
    catalogue.renew_daemon("a", "http://one", "", LONG)
    with pytest.raises(StartError, match="another daemon with this spool's id is running at http://one: a copied"):
        join(catalogue, "a", "http://copy", "2" * 32, lambda: _beat(catalogue))


def _beat(catalogue: Catalogue) -> None:
    catalogue.renew_daemon("a", "http://one", "", LONG)


def test_a_daemon_that_is_running_is_told_of_its_copy_and_leaves_that_in_peace(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    shared = Shared(tmp_path / "shared")
    catalogue.renew_daemon("a", "http://copy", "2" * 32, LONG)

    async def live() -> None:
        daemons = Daemons(catalogue, shared, "a", Membership("http://one", "1" * 32))
        daemons.start()
        assert await daemons.is_contested()
        await asyncio.sleep(BEAT_SECONDS / 10)
        assert not daemons.lease.is_held
        await daemons.stop()

    asyncio.run(live())
    assert [each.incarnation for each in catalogue.daemons()] == ["2" * 32]
    shared.close()


def test_the_daemon_of_a_copied_spool_does_not_start_and_destroys_nothing(cluster: Cluster) -> None:
    one = cluster.start()
    body = some(2000)
    with httpx.Client(base_url=one.url, timeout=60) as client:
        path = Tus(client).begin(len(body), body[:1000])
    copy = cluster.make()
    shutil.copytree(one.store, copy.store)
    with pytest.raises(AssertionError, match="is running at"):
        copy.start(60)
    assert copy.wait() == 1
    (line,) = [line for line in copy.read_log().splitlines() if "is running at" in line and "filestored:" in line]
    assert one.url in line
    assert "Traceback" not in copy.read_log()
    with httpx.Client(base_url=one.url, timeout=60) as client:
        assert Tus(client).patch(path, 1000, body[1000:]).headers["filestored-hash"] == digest(body)
    # a restart after a crash is as fast as ever, and then the original is there again
    one.kill()
    began = time.monotonic()
    one.start(60)
    assert "is running at" not in one.read_log()
    assert time.monotonic() - began < 60


def test_what_is_not_there_is_not_lost_while_another_has_the_id(cluster: Cluster) -> None:
    one = cluster.start()
    body = some(2000)
    with httpx.Client(base_url=one.url, timeout=60) as client:
        tus = Tus(client)
        path = tus.begin(len(body), body[:1000])
        file = one.store / ".filestored" / "uploads" / path.rpartition("/")[2]
        away = file.with_name("away")
        with contextlib.closing(Catalogue(cluster.database.address, durable=False)) as catalogue:
            own = cluster.id_of(one)
            mine = next(each.incarnation for each in catalogue.daemons() if each.id == own)
            catalogue.remove_daemon(own, mine)
            # where the first one beats in between it has to be tried again
            assert wait_until(lambda: catalogue.renew_daemon(own, "http://copy", "2" * 32, 0))
            file.rename(away)
            assert tus.patch(path, 1000, body[1000:]).status_code == 503
            assert wait_until(lambda: "another daemon has this one's id" in one.read_log())
            away.rename(file)
            catalogue.remove_daemon(own, "2" * 32)
        assert wait_until(lambda: tus.patch(path, 1000, body[1000:]).headers.get("filestored-hash") == digest(body))
