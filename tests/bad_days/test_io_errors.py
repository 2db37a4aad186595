"""The disk fails: no answer claims what did not happen, and the daemon goes on."""

import os
from contextlib import AbstractContextManager

import httpx
import pytest

from tests.bad_days.consistency import blobs, require_agreement, rows, sha256, wait_until, worker_pids
from tests.bad_days.tracing import traced
from tests.conftest import Daemon, StartDaemon

SMALL = 1000
LARGE = 300_000
FLUSHES = "fsync,fdatasync,syncfs"


def failing(daemon: Daemon, calls: str, error: str) -> AbstractContextManager[None]:
    """Let calls of the only worker fail while a block runs."""
    (worker,) = worker_pids(daemon)
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
        pytest.skip("the whole file system was flushed at once")
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
    assert httpx.get(f"{daemon.url}/{digest}").content == body
    assert httpx.delete(f"{daemon.url}/{digest}").status_code == 200
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
