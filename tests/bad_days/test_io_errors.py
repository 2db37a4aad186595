"""The disk fails: no answer claims what did not happen, and the daemon goes on."""

import contextlib
import os
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

from tests.bad_days.consistency import blobs, require_agreement, rows, sha256
from tests.bad_days.tracing import traced
from tests.conftest import Daemon, StartDaemon
from tests.processes import wait_until, worker_pids

SMALL = 1000
LARGE = 300_000
FLUSHES = "fsync,fdatasync,syncfs"


def failing(daemon: Daemon, calls: str, error: str) -> AbstractContextManager[None]:
    """Let calls of the only worker fail while a block runs."""
    (worker,) = worker_pids(daemon.pid)
    return traced(worker, "-e", f"trace={calls}", "-e", f"inject={calls}:error={error}", "-o", os.devnull)


def post(daemon: Daemon, bodies: list[bytes]) -> httpx.Response:
    """Upload one body as it is, several as a form."""
    if len(bodies) == 1:
        return httpx.post(daemon.url, content=bodies[0])
    return httpx.post(daemon.url, files=[("file", (f"{i}.bin", body)) for i, body in enumerate(bodies)])


def require_refused(answer: httpx.Response, status: int) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert "Traceback" not in answer.text


@pytest.mark.parametrize("sizes", [[SMALL], [LARGE], [SMALL] * 6], ids=["small", "large", "form"])
@pytest.mark.parametrize(
    ("calls", "error", "status"),
    [
        (FLUSHES, "EIO", 500),
        ("fsync", "EIO", 500),
        ("fdatasync", "EIO", 500),
        ("pwrite64", "EIO", 500),
        ("pwrite64", "ENOSPC", 507),
        ("renameat,rename,renameat2", "EIO", 500),
        ("mkdirat,mkdir", "ENOSPC", 507),
        ("openat", "ENOSPC", 507),
        ("openat", "EMFILE", 500),
    ],
)
def test_an_upload_that_the_disk_fails_stores_nothing(
    start_daemon: StartDaemon, sizes: list[int], calls: str, error: str, status: int
) -> None:
    daemon = start_daemon("--workers", "1")
    kept = os.urandom(SMALL)
    assert post(daemon, [kept]).status_code == 200
    bodies = [os.urandom(size) for size in sizes]
    with failing(daemon, calls, error):
        answer = post(daemon, bodies)
    if calls in ("fsync", "fdatasync") and len(sizes) > 4 and answer.status_code == 200:
        # the whole file system was flushed at once, which did not fail
        assert blobs(daemon.store) == {sha256(body) for body in [kept, *bodies]}
        return
    require_refused(answer, status)
    assert wait_until(lambda: daemon.leftovers() == []), daemon.leftovers()
    require_agreement(daemon.store)
    assert blobs(daemon.store) == {sha256(kept)}
    assert httpx.get(f"{daemon.url}/{sha256(kept)}").content == kept
    assert post(daemon, bodies).status_code == 200
    require_agreement(daemon.store)
    assert httpx.get(f"{daemon.url}/{sha256(bodies[-1])}").content == bodies[-1]


@pytest.mark.parametrize("call", ["unlinkat", "fdatasync", "pwrite64"])
def test_a_delete_that_the_disk_fails_is_not_answered_as_done(start_daemon: StartDaemon, call: str) -> None:
    daemon = start_daemon("--workers", "1")
    body = os.urandom(SMALL)
    digest = sha256(body)
    assert post(daemon, [body]).status_code == 200
    with failing(daemon, call, "EIO"):
        require_refused(httpx.delete(f"{daemon.url}/{digest}"), 500)
    # once it is decided it is gone to all, and only its bytes are left to the next delete
    found = 404 if call == "unlinkat" else 200
    assert httpx.get(f"{daemon.url}/{digest}").status_code == found
    assert httpx.delete(f"{daemon.url}/{digest}").status_code == found
    assert httpx.get(f"{daemon.url}/{digest}").status_code == 404
    require_agreement(daemon.store)
    assert rows(daemon.store) == {}
    assert post(daemon, [body]).status_code == 200
    require_agreement(daemon.store)


@pytest.mark.parametrize("first", [1, 3, 7, 9, 11])
def test_a_delete_that_fails_half_way_is_done_or_not_as_it_was_answered(start_daemon: StartDaemon, first: int) -> None:
    daemon = start_daemon("--workers", "1")
    body = os.urandom(SMALL)
    digest = sha256(body)
    assert post(daemon, [body]).status_code == 200
    with failing(daemon, "pwrite64", f"EIO:when={first}+"):
        answer = httpx.delete(f"{daemon.url}/{digest}")
    assert answer.status_code in (200, 500)
    expected = 404 if answer.status_code == 200 else 200
    assert httpx.get(f"{daemon.url}/{digest}").status_code == expected
    daemon.kill()
    daemon.start()
    assert httpx.get(f"{daemon.url}/{digest}").status_code == expected
    require_agreement(daemon.store)


def test_a_read_that_the_disk_fails_is_not_a_404(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "1")
    body = os.urandom(SMALL)
    digest = sha256(body)
    assert post(daemon, [body]).status_code == 200
    with failing(daemon, "openat", "EIO"):
        require_refused(httpx.get(f"{daemon.url}/{digest}"), 500)
    assert httpx.get(f"{daemon.url}/{digest}").content == body


def test_a_blob_that_cannot_be_removed_holds_up_no_other_and_no_start(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "1")
    digests = sorted(httpx.post(daemon.url, content=os.urandom(SMALL)).text for _ in range(4))
    stuck = digests[0]
    with sqlite3.connect(daemon.store / ".filestored" / "catalogue.sqlite3") as catalogue:
        catalogue.execute("INSERT INTO removals (digest) VALUES (?)", [stuck])
        catalogue.execute("DELETE FROM files WHERE digest = ?", [stuck])
    catalogue.close()
    blob = daemon.blob(stuck)
    body = blob.read_bytes()
    shard = blob.parent
    with unwritable(shard):
        other = next(digest for digest in digests[1:] if digest[:2] != stuck[:2])
        assert httpx.delete(f"{daemon.url}/{other}").status_code == 200
        assert httpx.get(f"{daemon.url}/{other}").status_code == 404
        assert daemon.stop() == 0
        daemon.start()
    assert blob.read_bytes() == body
    last = next(digest for digest in digests[1:] if digest not in (other, stuck))
    assert httpx.delete(f"{daemon.url}/{last}").status_code == 200
    assert not blob.exists()
    require_agreement(daemon.store)


@contextlib.contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    """Keep everybody, root too, from removing names in a folder."""
    if os.geteuid() == 0:
        if subprocess.run(["chattr", "+i", str(folder)], capture_output=True).returncode:
            pytest.skip("this file system knows no immutable folders")
        try:
            yield
        finally:
            subprocess.run(["chattr", "-i", str(folder)], check=True)
    else:
        folder.chmod(0o555)
        try:
            yield
        finally:
            folder.chmod(0o755)


def test_a_locked_catalogue_is_answered_503_to_all_at_once(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "1")
    catalogue = sqlite3.connect(daemon.store / ".filestored" / "catalogue.sqlite3", isolation_level=None)
    catalogue.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    with ThreadPoolExecutor(6) as clients:
        answers = list(clients.map(lambda _: httpx.post(daemon.url, content=os.urandom(SMALL), timeout=60), range(6)))
    assert time.monotonic() - began < 25
    assert {answer.status_code for answer in answers} == {503}
    assert all("retry-after" in answer.headers for answer in answers)
    catalogue.execute("ROLLBACK")
    catalogue.close()
    assert httpx.post(daemon.url, content=b"now").status_code == 200
    assert daemon.leftovers() == []
