"""What must hold of a store after every bad day."""

import hashlib
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from tests.conftest import Daemon

_WAIT_SECONDS = 10


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def wait_until(holds: Callable[[], bool], *, seconds: float = _WAIT_SECONDS) -> bool:
    """Wait for something that takes a moment; tell whether it came to hold."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def worker_pids(daemon: Daemon) -> list[int]:
    """Return the processes that answer requests, oldest first."""
    children = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def blobs(store: Path) -> set[str]:
    """Return the names of all blobs on the disk."""
    return {path.name for path in store.glob("[0-9a-f][0-9a-f]/*")}


def rows(store: Path) -> dict[str, int]:
    """Return the size of each digest that the catalogue names."""
    with closing(sqlite3.connect(store / ".filestored" / "catalogue.sqlite3", timeout=20)) as catalogue:
        return dict(catalogue.execute("SELECT digest, size FROM files").fetchall())


def removals(store: Path) -> list[str]:
    """Return the blobs whose removal is decided but not carried out."""
    with closing(sqlite3.connect(store / ".filestored" / "catalogue.sqlite3", timeout=20)) as catalogue:
        return [digest for (digest,) in catalogue.execute("SELECT digest FROM removals")]


def require_whole(store: Path) -> None:
    """Check that every blob is what its name says, every row has its blob, and no removal is left undone."""
    for digest in blobs(store):
        assert sha256((store / digest[:2] / digest).read_bytes()) == digest
    for digest, size in rows(store).items():
        blob = store / digest[:2] / digest
        assert blob.is_file(), f"{digest} has a row but no blob"
        assert blob.stat().st_size == size
    assert removals(store) == []


def require_agreement(store: Path) -> None:
    """Check besides that no blob is there that no row names."""
    require_whole(store)
    assert blobs(store) == set(rows(store))
