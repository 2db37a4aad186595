"""Daemons over one bucket and one database, each with a spool of its own."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from filestored.access import Permission, new_token
from filestored.catalogue.catalogue import Catalogue
from filestored.catalogue.records import now_milliseconds
from filestored.catalogue.transaction import Transaction
from tests.conftest import Daemon
from tests.postgres import Database, PostgresServer
from tests.processes import wait_until
from tests.s3 import Bucket, S3Server


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests here more time: each needs two servers and two daemons, most of them their own."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(300))


class Cluster:
    """The daemons of a test."""

    def __init__(self, folder: Path, bucket: Bucket, database: Database) -> None:
        self.bucket = bucket
        self.database = database
        self.daemons: list[Daemon] = []
        self._folder = folder

    def make(self, *flags: str) -> Daemon:
        """Make one more daemon, which is not started yet."""
        spool = self._folder / f"spool{len(self.daemons)}"
        daemon = Daemon(
            spool,
            "--store", self.bucket.url, "--spool", str(spool), "--catalogue", self.database.url, "--workers", "1",
            *flags, env=self.bucket.env,
        )  # fmt: skip
        self.daemons.append(daemon)
        return daemon

    def start(self, *flags: str) -> Daemon:
        """Start one more daemon, and wait until the others can know of it."""
        return self.start_all(self.make(*flags))[0]

    def start_all(self, *daemons: Daemon) -> tuple[Daemon, ...]:
        """Start daemons, all at once, and wait until they can know of each other."""
        with ThreadPoolExecutor(len(daemons)) as threads:
            list(threads.map(lambda daemon: daemon.start(60), daemons))
        for daemon in daemons:
            assert wait_until(partial(self._is_known, daemon), seconds=60), daemon.read_log()
        return daemons

    def _is_known(self, daemon: Daemon) -> bool:
        return self.id_of(daemon) in self.known()

    def id_of(self, daemon: Daemon) -> str:
        """Return what the others call a daemon."""
        return (daemon.store / ".filestored" / "store-id").read_text().strip()

    def known(self) -> dict[str, str]:
        """Return the addresses of the daemons that have registered, by id."""
        return dict(self.database.server.execute(self.database.name, "SELECT id, url FROM daemons"))

    def token(self, name: str, permissions: str) -> str:
        """Make a token, as a machine would on which no daemon runs."""
        text, record = new_token(name, Permission.parse(permissions), now_milliseconds())
        with self._changing() as transaction:
            assert transaction.add_token(record)
        return text

    def revoke(self, name: str) -> None:
        """Revoke a token, likewise."""
        with self._changing() as transaction:
            assert transaction.remove_token(name)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[Transaction]:
        with contextlib.closing(Catalogue(self.database.address, durable=False)) as catalogue:
            with catalogue.transaction() as transaction:
                yield transaction


@pytest.fixture
def cluster(tmp_path: Path, bucket: Bucket, database: Database) -> Iterator[Cluster]:
    """A cluster without daemons; those that a test starts end with it."""
    made = Cluster(tmp_path, bucket, database)
    yield made
    for daemon in made.daemons:
        daemon.kill()


@pytest.fixture(scope="session")
def pair(
    tmp_path_factory: pytest.TempPathFactory, s3: S3Server, postgres: PostgresServer
) -> Iterator[tuple[Daemon, Daemon]]:
    """Two daemons for all tests of a session that leave them as they are."""
    made = Cluster(tmp_path_factory.mktemp("pair"), Bucket(s3), Database(postgres))
    one, other = made.start_all(made.make(), made.make())
    yield one, other
    assert (one.stop(), other.stop()) == (0, 0)


@pytest.fixture
def two(cluster: Cluster) -> tuple[Daemon, Daemon]:
    """Two daemons."""
    one, other = cluster.start_all(cluster.make(), cluster.make())
    return one, other
