"""A real daemon for every test that speaks HTTP."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from filestored.catalogue.address import Address
from tests import s3 as s3_servers
from tests.postgres import Database, PostgresServer, running
from tests.s3 import Bucket, S3Server

EVERYTHING = bool(os.environ.get("TEST_EVERYTHING"))


def pytest_configure() -> None:
    """Let signals through to commands under test: a job in the background has some ignored, and all below it."""
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


def pytest_unconfigure() -> None:
    """Let the threads of obstore end before the interpreter does, which they would abort now and then."""
    if "obstore" in sys.modules:
        time.sleep(0.5)


def require_program(name: str) -> str:
    """Return the path of a program a test needs; leave the test out where it is missing, except in CI."""
    path = shutil.which(name)
    if path is None:
        assert not EVERYTHING, f"{name} is not installed"
        pytest.skip(f"{name} is not installed")
    return path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a bucket, so that all of it can be run on another engine, and what needs root.

    That is left out for everybody else; ``make test-root`` runs it, which .ci/run does where it is not root itself.
    """
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if "s3" in fixtures:
            item.add_marker("bucket")
        if "make_disk" in fixtures:
            item.add_marker("root")
        if item.get_closest_marker("root") and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="only root can change owners and mount disks: make test-root"))


class Daemon:
    """A daemon in the foreground, in a process of its own."""

    def __init__(
        self, store: Path, *flags: str, wrapper: tuple[str, ...] = (), env: dict[str, str] | None = None
    ) -> None:
        self.store = store
        self.flags = flags
        self._wrapper = wrapper
        self._env = {key: value for key, value in os.environ.items() if not key.startswith("FILESTORED_")} | (env or {})
        self._process: subprocess.Popen[bytes] | None = None
        self.log = store.parent / f"{store.name}.log"
        self.url = ""

    def start(self, timeout: float = 60) -> "Daemon":
        """Start it and wait until it answers."""
        command = [sys.executable, "-m", "filestored", "run", "--host", "127.0.0.1", "--port", "0"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._wrapper, *command, "--store", str(self.store), *self.flags],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._env, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            assert self._process.poll() is None, f"the daemon ended:\n{self.read_log()}"
            if self._is_ready():
                return self
            time.sleep(0.02)
        raise AssertionError(f"the daemon does not answer:\n{self.read_log()}")

    def _is_ready(self) -> bool:
        try:
            pid, self.url = (self.store / ".filestored" / "daemon.pid").read_text().split()
        except (OSError, ValueError):
            return False
        if not self._wrapper and int(pid) != self.pid:
            return False
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/readyz", verify=False).status_code == 200
        return False

    @property
    def pid(self) -> int:
        """Process id of the supervisor, or of what wraps it."""
        assert self._process is not None
        return self._process.pid

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        url = httpx.URL(self.url)
        return url.host, url.port or 0

    def complaints(self) -> list[str]:
        """Return the last things that it has warned of."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return [line[:500] for line in lines if " ERROR " in line or " WARNING " in line][-20:]

    def read_log(self) -> str:
        """Return what it has written so far."""
        return self.log.read_text(errors="replace")[-8000:]

    def stop(self) -> int:
        """Stop it in order; return its exit status."""
        assert self._process is not None
        self._process.terminate()
        try:
            return self._process.wait(40)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def wait(self, timeout: float = 60) -> int:
        """Wait until it has ended by itself; return its exit status."""
        assert self._process is not None
        return self._process.wait(timeout)

    def kill(self) -> None:
        """End it at once, as a power cut would, all its processes."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, 9)
            self._process.wait(10)

    def blob(self, digest: str) -> Path:
        """Return where the blob lies. Leaves the test out where that is no place on the disk."""
        if "--spool" in self.flags:
            pytest.skip("its blobs lie in a bucket")
        return self.store / digest[:2] / digest

    def leftovers(self) -> list[str]:
        """Return the names in the staging folder."""
        return sorted(path.name for path in (self.store / ".filestored" / "tmp").iterdir())


StartDaemon = Callable[..., Daemon]


@pytest.fixture
def start_daemon(tmp_path: Path) -> Iterator[StartDaemon]:
    """Start daemons, each in a store of its own unless told which; they end with the test."""
    daemons: list[Daemon] = []

    def start(
        *flags: str, store: Path | None = None, wrapper: tuple[str, ...] = (), env: dict[str, str] | None = None
    ) -> Daemon:
        daemon = Daemon(store or tmp_path / f"store{len(daemons)}", *flags, wrapper=wrapper, env=env)
        daemons.append(daemon)
        return daemon.start()

    yield start
    for daemon in daemons:
        daemon.kill()
        # shown where the test has failed
        print(f"{daemon.store.name} has logged:", *daemon.complaints(), sep="\n")


@pytest.fixture(scope="session")
def daemon(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon with two workers for all tests of a session that leave its settings alone.

    Its catalogue is in PostgreSQL where ``TEST_CATALOGUE=postgresql`` says so, its blobs are in a bucket with
    ``TEST_STORE=bucket``; what looks at them on the disk is left out then.
    """
    store, flags, env = tmp_path_factory.mktemp("shared") / "store", ["--workers", "2"], {}
    if os.environ.get("TEST_CATALOGUE") == "postgresql":
        flags += ["--catalogue", Database(request.getfixturevalue("postgres")).url]
    if os.environ.get("TEST_STORE") == "bucket":
        made = Bucket(request.getfixturevalue("s3"))
        flags, env = [*flags, "--store", made.url, "--spool", str(store)], made.env
    shared = Daemon(store, *flags, env=env).start(timeout=60)
    yield shared
    assert shared.stop() == 0, shared.read_log()


@pytest.fixture
def client(daemon: Daemon) -> Iterator[httpx.Client]:
    """A client of the session's daemon."""
    with httpx.Client(base_url=daemon.url, timeout=30) as client:
        yield client


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One PostgreSQL server for all tests of a session that only need a database."""
    with running() as server:
        yield server


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[Database]:
    """A database of the session's PostgreSQL server."""
    made = Database(postgres)
    yield made
    made.drop()


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server for one test that stops it."""
    with running() as server:
        yield server


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """One S3 server for all tests of a session that only need a bucket: Swift, or Ceph with ``TEST_S3=ceph``."""
    with s3_servers.running() as server:
        yield server


@pytest.fixture
def bucket(s3: S3Server) -> Bucket:
    """A bucket of the session's S3 server."""
    return Bucket(s3)


@pytest.fixture
def own_s3(s3: S3Server) -> Iterator[S3Server]:
    """An S3 server for one test that kills or freezes it."""
    with s3_servers.running_apart(s3) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Address:
    """Where a catalogue may be, with nothing there yet: a file, and a database."""
    if request.param == "sqlite":
        return tmp_path / "catalogue.sqlite3"
    database: Database = request.getfixturevalue("database")
    return database.address
