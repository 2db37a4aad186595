"""Daemons that share a catalogue: silent, frozen, copied, under one address, or not heard of."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.conftest import Cluster
from tests.conftest import Daemon
from tests.doctor.examining import Told, look
from tests.postgres import Database, PostgresServer
from tests.proxy import Proxy, proxy_before
from tests.s3 import Bucket, S3Server

pytestmark = pytest.mark.timeout(300)


class Pair:
    """Two daemons. The others reach the second by a proxy."""

    def __init__(self, cluster: Cluster, proxy: Proxy) -> None:
        self.cluster = cluster
        self.proxy = proxy
        self.one, self.other = cluster.make(), cluster.make("--peer-url", proxy.url)
        cluster.start_all(self.one, self.other)
        proxy.aim(self.other.address)

    def look(self, daemon: Daemon | None = None, **settings: str) -> Told:
        """Have the cluster looked at from where one of them runs."""
        own = {
            "store": self.cluster.bucket.url, "spool": str((daemon or self.one).store), "port": "0",
            "catalogue": self.cluster.database.url,
        }  # fmt: skip
        return look("cluster", own | settings, self.cluster.bucket.env)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, s3: S3Server, postgres: PostgresServer) -> Iterator[Pair]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), Bucket(s3), Database(postgres))
    # nobody is reached by it until it is aimed
    with proxy_before(("127.0.0.1", 9)) as proxy:
        try:
            yield Pair(cluster, proxy)
        finally:
            for daemon in cluster.daemons:
                daemon.kill()
    cluster.database.drop()


def test_two_daemons_that_reach_each_other(pair: Pair) -> None:
    told = pair.look()
    found = told.says("cluster", "good", "2 daemons, and each can be reached")["found"]
    assert pair.one.url in found
    assert pair.proxy.url in found
    assert told.faults() == set()
    assert "--stop-delay is 0" in told.of("cluster", "warning")["found"]
    assert "warning" not in {each["state"] for each in pair.look(stop_delay="15s").findings}


def test_a_daemon_that_is_frozen_and_one_that_is_not_let_through(pair: Pair) -> None:
    pair.proxy.freeze()
    try:
        told = pair.look()
    finally:
        pair.proxy.thaw()
    assert "its log" in told.says("cluster", "fault", f"{pair.proxy.url} cannot be reached from here")["mend"]
    pair.proxy.vanish()
    try:
        told = pair.look()
    finally:
        pair.proxy.come_back()
    assert "--peer-url" in told.says("cluster", "fault", f"{pair.proxy.url} cannot be reached from here")["mend"]
    pair.look().says("cluster", "good", "2 daemons, and each can be reached")


def test_a_spool_that_is_a_copy(pair: Pair, tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(pair.one.store, copied)
    told = pair.look(spool=str(copied))
    assert "store-id" in told.says("cluster", "fault", f"another daemon has the id of {copied}")["mend"]
    # as the daemon of the copy would be told
    assert pair.look(pair.other).faults() == set()


def test_daemons_that_were_heard_of_last_some_time_ago(pair: Pair) -> None:
    added = (
        "INSERT INTO daemons (id, url, seen_at, incarnation) VALUES (%s, %s, extract(epoch FROM now()) * 1000 - %s, '')"
    )
    for number, seconds in enumerate((30, 7300)):
        pair.cluster.database.execute(added, f"gone{number}", f"http://192.0.2.{number + 1}:9000", seconds * 1000)
    told = pair.look()
    told.says("cluster", "warning", "http://192.0.2.1:9000 has not been heard of for 3")
    told.says("cluster", "warning", "http://192.0.2.2:9000 has not been heard of for 2 h: others end")
    assert told.faults() == set()
    pair.cluster.database.execute("DELETE FROM daemons WHERE id LIKE 'gone%%'")


def test_addresses_that_several_have_or_no_other_machine_reaches(pair: Pair) -> None:
    added = "INSERT INTO daemons (id, url, seen_at, incarnation) VALUES (%s, %s, extract(epoch FROM now()) * 1000, '')"
    pair.cluster.database.execute(added, "like one", pair.one.url)
    told = pair.look()
    assert (
        "--peer-url"
        in told.says("cluster", "fault", f"several daemons say that they are reached at {pair.one.url}")["mend"]
    )
    # an address that no machine has (RFC 5737)
    pair.cluster.database.execute("UPDATE daemons SET url = 'http://192.0.2.1:9000' WHERE id = 'like one'")
    told = pair.look()
    told.says("cluster", "fault", "no other machine reaches a daemon at http://127.0.0.1")
    told.says("cluster", "fault", "http://192.0.2.1:9000 cannot be reached")
    pair.cluster.database.execute("DELETE FROM daemons WHERE id = 'like one'")


def test_a_daemon_that_the_others_have_not_heard_of(pair: Pair, database: Database) -> None:
    told = pair.look(catalogue=database.url)
    assert "another --catalogue" in told.says("cluster", "fault", "the other daemons have not heard of it")["mend"]


def test_a_catalogue_in_a_file_has_one_daemon(tmp_path: Path) -> None:
    told = look("cluster", {"store": str(tmp_path)}, {})
    told.says("cluster", "skipped", "is the only one")
