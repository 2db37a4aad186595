"""/readyz while the store's folder, or its catalogue, is not what it was."""

import contextlib
import os
from pathlib import Path

import httpx
import pytest

from tests.conftest import Daemon, StartDaemon
from tests.processes import wait_until, worker_pids


def start_both(start_daemon: StartDaemon) -> Daemon:
    """Start a daemon and wait until both workers have opened what a test takes away: the first one makes it ready."""
    daemon = start_daemon("--workers", "2")
    own = daemon.store / ".filestored"

    def are_open() -> bool:
        assert httpx.get(f"{daemon.url}/readyz", timeout=30).status_code == 200
        workers = worker_pids(daemon.pid)
        opened = [opened_by(pid) for pid in workers]
        return len(workers) == 2 and all({own / "tmp", own / "catalogue.sqlite3"} <= each for each in opened)

    assert wait_until(are_open, seconds=60)
    return daemon


def opened_by(pid: int) -> set[Path]:
    """Return what a process has open."""
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        # it may be closed meanwhile
        with contextlib.suppress(FileNotFoundError):
            found.add(descriptor.readlink())
    return found


def require_fault(daemon: Daemon, fault: str) -> None:
    """Check what every worker says; each request comes by a connection of its own."""
    for _ in range(6):
        answer = httpx.get(f"{daemon.url}/readyz", timeout=30)
        assert answer.status_code == 503, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        said = answer.json()
        assert (said["fault"], said["status"], fault in said["detail"]) == (fault, 503, True)
        assert httpx.get(f"{daemon.url}/healthz", timeout=30).status_code == 200


@pytest.mark.parametrize("what", ["", ".filestored/tmp"])
def test_a_folder_that_was_taken_away_is_told_until_it_is_back(start_daemon: StartDaemon, what: str) -> None:
    daemon = start_both(start_daemon)
    assert httpx.get(f"{daemon.url}/readyz", timeout=30).json() == {"status": "ok"}
    folder = daemon.store / what
    away = daemon.store.parent / "away"
    folder.rename(away)
    require_fault(daemon, "store")
    folder.mkdir()
    # what lies there now is another
    require_fault(daemon, "store")
    folder.rmdir()
    away.rename(folder)
    assert all(httpx.get(f"{daemon.url}/readyz", timeout=30).status_code == 200 for _ in range(6))


def test_what_a_removed_catalogue_would_lose_is_not_acknowledged(start_daemon: StartDaemon) -> None:
    daemon = start_both(start_daemon)
    catalogue = daemon.store / ".filestored" / "catalogue.sqlite3"
    kept = httpx.post(daemon.url, content=b"kept").text
    moved = [path.rename(path.with_name(f"away-{path.name}")) for path in catalogue.parent.glob("catalogue.sqlite3*")]
    require_fault(daemon, "catalogue")
    assert {httpx.post(daemon.url, content=os.urandom(20)).status_code for _ in range(8)} <= {500, 503}
    assert not catalogue.exists()
    for path in moved:
        path.rename(Path(path.parent, path.name.removeprefix("away-")))
    assert all(httpx.get(f"{daemon.url}/readyz", timeout=30).status_code == 200 for _ in range(6))
    assert httpx.get(f"{daemon.url}/{kept}").content == b"kept"
    assert httpx.post(daemon.url, content=b"more").status_code == 200
