"""Expired files end by themselves, in one worker, whatever happens to it."""

import os
import re
import signal
from pathlib import Path

import httpx

from tests.bad_days.consistency import blobs, removals, rows, sha256
from tests.bad_days.tracing import traced
from tests.care import execute
from tests.conftest import Daemon, StartDaemon
from tests.processes import wait_until, worker_pids


def post(daemon: Daemon, body: bytes, **parameters: str) -> str:
    answer = httpx.post(daemon.url, content=body, params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.text


def leader(store: Path) -> int | None:
    """Return the process that does what only one should: the one with the lock on that byte of the mapped file."""
    inode = (store / ".filestored" / "shared").stat().st_ino
    locks = re.findall(r"POSIX +ADVISORY +WRITE (\d+) \w+:\w+:(\d+) 64 64$", Path("/proc/locks").read_text(), re.M)
    return next((int(pid) for pid, number in locks if int(number) == inode), None)


def test_an_expired_file_leaves_the_disk_within_seconds_without_any_request(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "2")
    kept = post(daemon, b"kept")
    for body in (os.urandom(1000), os.urandom(300_000)):
        post(daemon, body, expires_in="1")
    assert len(blobs(daemon.store)) == 3
    assert wait_until(lambda: blobs(daemon.store) == {kept}, seconds=15)
    assert wait_until(lambda: (rows(daemon.store), removals(daemon.store)) == ({kept: 4}, []))
    assert wait_until(lambda: bool(re.search(r" INFO  expired files that were ended: [12]\n", daemon.read_log())))


def test_all_that_has_expired_ends_at_once_and_is_one_line_of_the_log(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "2")
    files = [("file", (f"{number}", b"%d" % number)) for number in range(600)]
    assert httpx.post(daemon.url, files=files, timeout=60).status_code == 200
    kept = post(daemon, b"kept")
    execute(daemon.store, "UPDATE files SET expires_at = 1 WHERE digest <> ?", kept)
    assert wait_until(lambda: blobs(daemon.store) == {kept})
    assert wait_until(lambda: "expired files that were ended: 600\n" in daemon.read_log())


def test_a_file_that_another_owner_keeps_stays(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    digest = post(daemon, b"shared")
    ended = post(daemon, b"ended")
    execute(
        daemon.store,
        "INSERT INTO files (digest, owner, folded_name, media_type, size, created_at, expires_at) "
        "VALUES (?, 'anna', '', 'text/plain', 6, 1, 2)",
        digest,
    )
    execute(daemon.store, "UPDATE files SET expires_at = 1 WHERE digest = ?", ended)
    assert wait_until(lambda: blobs(daemon.store) == {digest})
    assert execute(daemon.store, "SELECT owner FROM files") == [("anonymous",)]
    assert httpx.get(f"{daemon.url}/{digest}").content == b"shared"


def test_another_worker_takes_over_when_the_leading_one_is_killed(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "2")
    assert wait_until(lambda: leader(daemon.store) in worker_pids(daemon.pid))
    first = leader(daemon.store)
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert wait_until(lambda: leader(daemon.store) not in (None, first))
    digest = post(daemon, b"short", expires_in="1")
    assert wait_until(lambda: digest not in blobs(daemon.store), seconds=15)


def test_a_failing_catalogue_is_told_of_once_and_survived(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "1")
    (worker,) = worker_pids(daemon.pid)
    digest = post(daemon, b"short", expires_in="1")
    said = "what has expired cannot be ended, which is tried again: "
    with traced(worker, "-e", "trace=pwrite64", "-e", "inject=pwrite64:error=EIO", "-o", os.devnull):
        assert wait_until(lambda: daemon.read_log().count("the store failed") >= 2)
    assert wait_until(lambda: digest not in blobs(daemon.store))
    assert daemon.log.read_text().count(said) == 1
    assert sha256(b"other") == post(daemon, b"other")


def test_a_daemon_stops_in_order_while_files_end(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "2")
    for number in range(20):
        post(daemon, b"%d" % number, expires_in="1")
    assert wait_until(lambda: len(blobs(daemon.store)) < 20)
    assert daemon.stop() == 0, daemon.read_log()
    assert "Traceback" not in daemon.read_log()
