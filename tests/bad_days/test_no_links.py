"""A file system that has no links, or no more of them: an upload that is whole is copied, all else is as ever."""

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

from tests.api.tus_client import Tus, digest, some
from tests.bad_days.consistency import blobs, require_agreement, require_whole
from tests.bad_days.tracing import traced
from tests.conftest import Daemon, StartDaemon
from tests.processes import wait_until, worker_pids

pytestmark = pytest.mark.timeout(180)

SIZE = 3_000_000
THIRD = SIZE // 3


def without_links(daemon: Daemon, *more: str, error: str = "EPERM") -> AbstractContextManager[None]:
    """Let the only worker find no links while a block runs; ``more`` is what else is done to its calls."""
    (worker,) = worker_pids(daemon.pid)
    injected = [f"inject=link,linkat:error={error}", *more]
    return traced(worker, *(part for each in injected for part in ("-e", each)), "-o", "/dev/null")


@contextlib.contextmanager
def speaking(daemon: Daemon) -> Iterator[Tus]:
    """Speak to a daemon while a block runs."""
    with httpx.Client(base_url=daemon.url, timeout=60) as client:
        yield Tus(client)


def begun(daemon: Daemon, body: bytes) -> str:
    """Begin an upload, of which a third is there."""
    with speaking(daemon) as tus:
        path = tus.begin(len(body))
        assert tus.patch(path, 0, body[:THIRD]).status_code == 204
    return path


def finish(daemon: Daemon, path: str, body: bytes) -> int:
    """Go on with an upload to its end; return from where."""
    with speaking(daemon) as tus:
        offset = tus.offset(path)
        assert tus.patch(path, offset, body[offset:]).headers["filestored-hash"] == digest(body)
        assert tus.client.get(f"/{digest(body)}").content == body
    return offset


def under_way(daemon: Daemon) -> list[Path]:
    return list((daemon.store / ".filestored" / "uploads").iterdir())


@pytest.mark.parametrize("error", ["EPERM", "EMLINK", "EOPNOTSUPP"])
def test_an_upload_is_finished_by_a_copy(start_daemon: StartDaemon, error: str) -> None:
    daemon = start_daemon("--workers", "1")
    body = some(SIZE)
    path = begun(daemon, body)
    (unfinished,) = under_way(daemon)
    number = unfinished.stat().st_ino
    with without_links(daemon, error=error):
        finish(daemon, path, body)
    status = daemon.blob(digest(body)).stat()
    assert status.st_ino != number, "it was linked after all"
    assert (status.st_nlink, status.st_mode & 0o777) == (1, 0o444)
    assert (daemon.leftovers(), under_way(daemon)) == ([], [])
    require_agreement(daemon.store)


@pytest.mark.parametrize(("error", "status"), [("EIO", 500), ("ENOSPC", 507)])
def test_a_link_that_fails_for_another_reason_is_told_and_loses_nothing(
    start_daemon: StartDaemon, error: str, status: int
) -> None:
    daemon = start_daemon("--workers", "1")
    body = some(SIZE)
    path = begun(daemon, body)
    with without_links(daemon, error=error), speaking(daemon) as tus:
        assert tus.patch(path, THIRD, body[THIRD:]).status_code == status
    assert (blobs(daemon.store), daemon.leftovers()) == (set(), [])
    assert THIRD <= finish(daemon, path, body) < SIZE
    require_agreement(daemon.store)


@pytest.mark.parametrize(
    ("calls", "number"),
    [("fdatasync", 2), ("rename,renameat,renameat2", 1), ("fsync", 1), ("unlink,unlinkat", 1), ("pwrite64", 3)],
)
def test_a_crash_while_it_is_copied_loses_nothing(start_daemon: StartDaemon, calls: str, number: int) -> None:
    daemon = start_daemon("--workers", "1")
    body = some(SIZE)
    path = begun(daemon, body)
    workers = worker_pids(daemon.pid)
    with (
        without_links(daemon, f"inject={calls}:signal=SIGKILL:when={number}"),
        pytest.raises(httpx.TransportError),
        speaking(daemon) as tus,
    ):
        tus.patch(path, THIRD, body[THIRD:])
    assert wait_until(lambda: worker_pids(daemon.pid) != workers)
    daemon.kill()
    daemon.start()
    assert daemon.leftovers() == []
    require_whole(daemon.store)
    assert finish(daemon, path, body) >= THIRD
    assert under_way(daemon) == []
    require_agreement(daemon.store)
