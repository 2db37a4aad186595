"""The disk is full: nothing half stored, everything acknowledged whole, and deleting makes room again."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.api.raw import RawConnection
from tests.bad_days.consistency import require_agreement, sha256
from tests.conftest import EVERYTHING, Daemon, StartDaemon
from tests.processes import wait_until
from tests.tokens import bearer, make_token

MakeDisk = Callable[[str], Path]


@pytest.fixture
def make_disk(tmp_path: Path) -> Iterator[MakeDisk]:
    """Mount small file systems in memory; leave the test out where that is not allowed."""
    mounted: list[Path] = []

    def make(options: str) -> Path:
        path = tmp_path / f"disk{len(mounted)}"
        path.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "filestored-test", str(path)], capture_output=True, text=True
        )
        if done.returncode:
            assert not EVERYTHING or os.geteuid(), done.stderr
            pytest.skip(f"no file system can be mounted: {done.stderr.strip()}")
        mounted.append(path)
        return path / "store"

    yield make
    for path in mounted:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(daemon: Daemon, size: int, most: int = 5000) -> list[bytes]:
    """Upload until there is no room; return what was acknowledged."""
    acknowledged: list[bytes] = []
    with httpx.Client(base_url=daemon.url) as client:
        for _ in range(most):
            body = os.urandom(size)
            answer = client.post("/", content=body)
            if answer.status_code != 200:
                assert answer.status_code == 507, answer.text
                assert answer.headers["content-type"] == "application/problem+json"
                assert client.get(f"/{sha256(body)}").status_code == 404
                return acknowledged
            acknowledged.append(body)
    raise AssertionError(f"{most} files of {size} bytes do not fill the disk")


def require_all(daemon: Daemon, bodies: list[bytes]) -> None:
    assert daemon.leftovers() == []
    require_agreement(daemon.store)
    with httpx.Client(base_url=daemon.url) as client:
        for body in bodies:
            assert client.get(f"/{sha256(body)}").content == body


def delete_all(daemon: Daemon, bodies: list[bytes]) -> None:
    """Delete one after the other: the first where nothing at all is free."""
    with httpx.Client(base_url=daemon.url) as client:
        for body in bodies:
            answer = client.delete("/", params={"file_hash": sha256(body)})
            assert answer.status_code == 200, answer.text
            assert not daemon.blob(sha256(body)).exists()
            assert client.get(f"/{sha256(body)}").status_code == 404


def is_taken(daemon: Daemon, body: bytes) -> bool:
    return httpx.post(daemon.url, content=body).status_code == 200


def use_up(path: Path) -> None:
    """Take what is left of a disk, to the last byte, as another program may."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass


@pytest.mark.parametrize("is_restarted", [False, True], ids=["running", "restarted"])
@pytest.mark.parametrize("size", [3000, 300_000], ids=["small", "large"])
def test_a_full_disk_keeps_what_is_acknowledged_and_lets_everything_be_deleted(
    start_daemon: StartDaemon, make_disk: MakeDisk, size: int, is_restarted: bool
) -> None:
    store = make_disk("size=8m")
    flags = ("--min-free-space", "0", "--workers", "2")
    daemon = start_daemon(*flags, store=store)
    acknowledged = fill(daemon, size)
    assert acknowledged
    require_all(daemon, acknowledged)
    use_up(store.parent / "other")
    require_all(daemon, acknowledged)
    if is_restarted:
        assert daemon.stop() == 0
        # the catalogue's log went with the daemon
        use_up(store.parent / "another")
        daemon = start_daemon(*flags, store=store)
        require_all(daemon, acknowledged)
    delete_all(daemon, acknowledged)
    require_all(daemon, [])
    (store.parent / "other").unlink()
    again = acknowledged[:5]
    for body in again:
        # a blob that was read lately gives its space back within a second
        assert wait_until(partial(is_taken, daemon, body), seconds=3)
    require_all(daemon, again)


def test_on_a_full_disk_a_token_is_revoked_and_a_scrub_tells_what_it_finds(
    start_daemon: StartDaemon, make_disk: MakeDisk
) -> None:
    store = make_disk("size=8m")
    token = make_token(store, "thief", "read,write")
    daemon = start_daemon("--min-free-space", "0", "--workers", "2", "--anonymous", "full", store=store)
    acknowledged = fill(daemon, 300_000)
    use_up(store.parent / "other")
    assert httpx.get(f"{daemon.url}/v1/stats", headers=bearer(token)).status_code == 200

    def call(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "filestored", *arguments, "--store", str(store)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
        return ended.returncode, ended.stdout + ended.stderr

    assert call("token", "revoke", "thief")[0] == 0
    assert httpx.get(f"{daemon.url}/v1/stats", headers=bearer(token)).status_code == 401
    use_up(store.parent / "more")
    status, said = call("scrub", "--rate", "none")
    assert status == 0, said
    assert f"verified: {len(acknowledged)} blobs" in said
    assert "Traceback" not in said


def test_a_large_upload_that_does_not_fit_stores_nothing(start_daemon: StartDaemon, make_disk: MakeDisk) -> None:
    daemon = start_daemon("--min-free-space", "0", "--workers", "1", store=make_disk("size=8m"))
    body = os.urandom(9 << 20)

    def in_chunks() -> Iterator[bytes]:
        for start in range(0, len(body), 1 << 16):
            yield body[start : start + (1 << 16)]

    for answer in (
        httpx.post(daemon.url, content=in_chunks()),
        httpx.post(daemon.url, files={"file": ("a", body)}),
        httpx.post(daemon.url, files=[("a", ("a", b"small")), ("b", ("b", body))]),
    ):
        assert answer.status_code == 507, answer.text
    require_all(daemon, [])
    assert httpx.post(daemon.url, content=b"fits").status_code == 200
    require_all(daemon, [b"fits"])


def test_too_little_free_space_is_said_before_the_body_is_read(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--min-free-space", "1000TiB", "--workers", "1")
    for head in ("Content-Length: 8000000", "Transfer-Encoding: chunked"):
        with RawConnection(daemon.address) as connection:
            status, headers, _ = connection.request("POST", "/", head)
            assert (status, headers["content-type"]) == (507, "application/problem+json")
    assert httpx.get(f"{daemon.url}/readyz").status_code == 200
    require_all(daemon, [])


def test_a_disk_without_inodes_refuses_uploads_and_lets_everything_be_deleted(
    start_daemon: StartDaemon, make_disk: MakeDisk
) -> None:
    store = make_disk("size=64m,nr_inodes=80")
    daemon = start_daemon("--min-free-space", "0", "--workers", "1", store=store)
    acknowledged = fill(daemon, 1000)
    assert acknowledged
    require_all(daemon, acknowledged)
    assert daemon.stop() == 0
    daemon = start_daemon("--min-free-space", "0", "--workers", "1", store=store)
    delete_all(daemon, acknowledged)
    require_all(daemon, [])
    assert httpx.post(daemon.url, content=acknowledged[0]).status_code == 200
    require_all(daemon, acknowledged[:1])


def test_what_is_stored_already_can_be_uploaded_again_to_a_full_disk_or_is_refused_whole(
    start_daemon: StartDaemon, make_disk: MakeDisk
) -> None:
    store = make_disk("size=8m")
    daemon = start_daemon("--min-free-space", "0", "--workers", "1", store=store)
    acknowledged = fill(daemon, 300_000)
    use_up(store.parent / "other")
    for body in acknowledged:
        assert httpx.post(daemon.url, content=body).status_code in (200, 507)
    require_all(daemon, acknowledged)


@pytest.mark.parametrize("size", [100_000, 5 << 20])
@pytest.mark.parametrize("is_announced", [True, False], ids=["announced", "chunked"])
def test_uploads_leave_free_what_is_to_stay_free(
    start_daemon: StartDaemon, make_disk: MakeDisk, size: int, is_announced: bool
) -> None:
    store = make_disk("size=40m")
    daemon = start_daemon("--min-free-space", "16MiB", "--workers", "2", store=store)
    with httpx.Client(base_url=daemon.url, timeout=60) as client:
        for _ in range(400):
            body = os.urandom(size)
            answer = client.post("/", content=body if is_announced else iter([body[:1000], body[1000:]]))
            if answer.status_code != 200:
                break
    assert answer.status_code == 507
    space = os.statvfs(store)
    # the catalogue's log and what has no length beforehand take a little more
    assert (16 << 20) - (4 << 20) < space.f_bavail * space.f_frsize < (16 << 20) + size + (1 << 20)
