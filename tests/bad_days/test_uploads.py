"""Resumable uploads on bad days: killed at every call, on a failing and on a full disk, and fought over."""

import os
import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import httpx
import pytest

from tests.api.tus_client import Tus, digest, encoded, some
from tests.bad_days.consistency import require_agreement, require_whole
from tests.bad_days.test_crash_sweep import calls_of, killed_at
from tests.bad_days.test_full_disk import MakeDisk, make_disk
from tests.bad_days.test_races import run_together
from tests.bad_days.tracing import traced
from tests.conftest import Daemon, StartDaemon
from tests.processes import wait_until, worker_pids

Act = Callable[[Tus], httpx.Response]

__all__ = ["make_disk"]

pytestmark = pytest.mark.timeout(300)

HALF = 100_000
FIGHT_SECONDS = 4


def patch(path: str, offset: int, body: bytes) -> Act:
    """Return what goes on with an upload."""
    return lambda tus: tus.patch(path, offset, body)


def once(daemon: Daemon, act: Act) -> bool:
    """Send requests over a connection of their own; tell whether they were answered, which has to be with success."""
    try:
        with httpx.Client(base_url=daemon.url, timeout=30) as client:
            answer = act(Tus(client))
    except httpx.TransportError:
        return False
    assert answer.is_success, answer.text
    return True


def under_way(daemon: Daemon) -> list[str]:
    return sorted(path.name for path in (daemon.store / ".filestored" / "uploads").iterdir())


def calls_to_kill_at(daemon: Daemon, act: Act) -> list[tuple[str, int]]:
    """Return the calls that something makes the daemon do, of those that write pages of the catalogue each third."""
    calls = calls_of(daemon, lambda: once(daemon, act))
    return [(call, number) for call, number in calls if call != "pwrite64" or number % 3 == 1]


def bring_back(daemon: Daemon) -> None:
    """End what is left of the daemon, start it anew, and check what holds after every crash."""
    daemon.kill()
    daemon.start()
    assert daemon.leftovers() == []
    require_whole(daemon.store)


def finish(tus: Tus, path: str, body: bytes, *, acknowledged: int, known: int) -> None:
    """Go on with an upload from where it is, and check that nothing acknowledged is lost on the way."""
    head = tus.head(path)
    assert head.status_code == 200
    offset = int(head.headers["upload-offset"])
    assert acknowledged <= offset <= known
    assert ("filestored-hash" in head.headers) == (offset == len(body)), "an offset at the end says that it is stored"
    answer = tus.patch(path, offset, body[offset:])
    assert answer.headers["filestored-hash"] == digest(body)
    assert tus.client.get("/" + digest(body)).content == body


@pytest.mark.parametrize("is_last", [False, True], ids=["first_half", "second_half"])
def test_a_patch_killed_at_any_call_loses_nothing_acknowledged(start_daemon: StartDaemon, is_last: bool) -> None:
    daemon = start_daemon("--workers", "1")
    start, stop = (HALF, 2 * HALF) if is_last else (0, HALF)

    def begin(body: bytes) -> str:
        with httpx.Client(base_url=daemon.url) as client:
            return Tus(client).begin(len(body), body[:start] or None)

    body = some(2 * HALF)
    path = begin(body)
    calls = calls_to_kill_at(daemon, patch(path, start, body[start:stop]))
    assert len(calls) > 4
    killed = 0
    for call, number in calls:
        body = some(2 * HALF)
        path = begin(body)
        with killed_at(daemon, call, number):
            was_answered = once(daemon, patch(path, start, body[start:stop]))
        killed += not was_answered
        bring_back(daemon)
        with httpx.Client(base_url=daemon.url) as client:
            finish(Tus(client), path, body, acknowledged=stop if was_answered else start, known=stop)
    assert killed > 4
    require_whole(daemon.store)


def test_a_beginning_killed_at_any_call_leaves_nothing_that_is_in_the_way(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "1")
    body = some(1000)
    calls = calls_to_kill_at(daemon, lambda tus: tus.create(2000, body))
    killed = 0
    for call, number in calls:
        with killed_at(daemon, call, number):
            killed += not once(daemon, lambda tus: tus.create(2000, body))
        bring_back(daemon)
    assert killed > 4
    with httpx.Client(base_url=daemon.url) as client:
        assert Tus(client).create(1000, body).headers["filestored-hash"] == digest(body)


def test_parts_joined_and_killed_at_any_call_are_there_or_the_whole_is(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "1")
    bodies = [some(HALF), some(HALF)]

    def begin() -> list[str]:
        with httpx.Client(base_url=daemon.url) as client:
            return [Tus(client).begin(HALF, body, Upload_Concat="partial") for body in bodies]

    def join(paths: list[str]) -> Act:
        return lambda tus: tus.ask("POST", "/v1/uploads", Upload_Concat="final;" + " ".join(paths))

    paths = begin()
    calls = calls_to_kill_at(daemon, join(paths))
    killed = 0
    for call, number in calls:
        bodies = [some(HALF), some(HALF)]
        paths = begin()
        with killed_at(daemon, call, number):
            killed += not once(daemon, join(paths))
        bring_back(daemon)
        with httpx.Client(base_url=daemon.url) as client:
            assert join(paths)(Tus(client)).headers["filestored-hash"] == digest(b"".join(bodies))
    assert killed > 4


def failing(daemon: Daemon, calls: str, error: str) -> AbstractContextManager[None]:
    """Let calls of the only worker fail while a block runs."""
    (worker,) = worker_pids(daemon.pid)
    return traced(worker, "-e", f"trace={calls}", "-e", f"inject={calls}:error={error}", "-o", os.devnull)


WRITING = [
    ("fdatasync", "EIO", 500), ("fsync,fdatasync,syncfs", "EIO", 500), ("fdatasync", "ENOSPC", 507),
    ("pwrite64", "EIO", 500), ("openat", "EMFILE", 500),
]  # fmt: skip
PUBLISHING = [
    ("renameat,rename,renameat2", "EIO", 500), ("linkat", "EIO", 500), ("linkat", "ENOSPC", 507),
]  # fmt: skip


@pytest.mark.parametrize(
    ("calls", "error", "status", "is_last"),
    [*((*each, False) for each in WRITING), *((*each, True) for each in [*WRITING, *PUBLISHING])],
)
def test_a_patch_that_the_disk_fails_is_not_acknowledged(
    start_daemon: StartDaemon, calls: str, error: str, status: int, is_last: bool
) -> None:
    daemon = start_daemon("--workers", "1")
    body = some(2 * HALF)
    start, stop = (HALF, 2 * HALF) if is_last else (0, HALF)
    with httpx.Client(base_url=daemon.url, timeout=30) as client:
        tus = Tus(client)
        path = tus.begin(len(body), body[:start] or None)
        # another connection is open by now, so that what fails is the request itself
        tus.offset(path)
        with failing(daemon, calls, error):
            answer = tus.patch(path, start, body[start:stop])
        assert answer.status_code in (status, 500), answer.text
        assert "Traceback" not in answer.text
        finish(tus, path, body, acknowledged=start, known=stop)
    require_agreement(daemon.store)


def test_a_full_disk_keeps_what_it_took_and_the_upload_goes_on_when_there_is_room(
    start_daemon: StartDaemon, make_disk: MakeDisk
) -> None:
    daemon = start_daemon("--min-free-space", "0", "--workers", "1", store=make_disk("size=16m"))
    with httpx.Client(base_url=daemon.url, timeout=30) as client:
        tus = Tus(client)
        body, other = some(10 << 20), some(6 << 20)
        # while there still is room for it
        path = tus.begin(len(body), Upload_Metadata=encoded(filename="large"))
        assert client.post("/", content=other).status_code == 200
        answer = tus.patch(path, 0, body)
        assert answer.status_code == 507
        offset = tus.offset(path)
        if offset == 0:
            # refused before a byte was taken: its length said that it does not fit
            assert "free" in answer.json()["detail"]
            assert tus.patch(path, 0, body[: 1 << 20]).status_code == 204
            offset = 1 << 20
        assert client.delete("/" + digest(other)).status_code == 200
        assert wait_until(lambda: tus.patch(path, tus.offset(path)).status_code == 204)
        assert tus.offset(path) == offset
        finish(tus, path, body, acknowledged=offset, known=len(body))


def test_a_disk_that_fills_meanwhile_keeps_what_it_took(start_daemon: StartDaemon, make_disk: MakeDisk) -> None:
    daemon = start_daemon("--min-free-space", "0", "--workers", "1", store=make_disk("size=12m"))
    body = some(16 << 20)

    def in_chunks() -> object:
        for start in range(0, len(body), 1 << 16):
            yield body[start : start + (1 << 16)]

    with httpx.Client(base_url=daemon.url, timeout=30) as client:
        tus = Tus(client)
        path = tus.begin(None)
        answer = tus.patch(path, 0, in_chunks())  # type: ignore[arg-type]
        assert answer.status_code == 507, answer.text
        offset = tus.offset(path)
        assert offset > 1 << 20
        assert str(offset) in answer.json()["detail"]
        taken = (daemon.store / ".filestored" / "uploads" / path.rpartition("/")[2]).read_bytes()
        assert taken[:offset] == body[:offset]
        assert tus.ask("DELETE", path).status_code == 204
        assert client.post("/", content=some(5 << 20)).status_code == 200
    assert under_way(daemon) == []


def test_the_last_bytes_need_no_room_for_the_first(start_daemon: StartDaemon, make_disk: MakeDisk) -> None:
    daemon = start_daemon("--min-free-space", "4MiB", "--workers", "1", store=make_disk("size=64m"))
    with httpx.Client(base_url=daemon.url, timeout=60) as client:
        tus = Tus(client)
        body = some(40 << 20)
        path = tus.begin(None)
        assert tus.patch(path, 0, body[:-3]).status_code == 204
        answer = tus.patch(path, len(body) - 3, body[-3:], Upload_Length=len(body))
        assert answer.headers["filestored-hash"] == digest(body)


def test_whoever_fights_over_an_upload_it_becomes_its_file_or_nothing(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "2")
    end = time.monotonic() + FIGHT_SECONDS
    size = 300_000
    bodies = [some(size) for _ in range(3)]
    with httpx.Client(base_url=daemon.url) as client:
        paths = [Tus(client).begin(size, Upload_Metadata=encoded(hash=digest(body))) for body in bodies]
    finished: set[str] = set()

    def work(number: int) -> None:
        dice = random.Random(number)
        with httpx.Client(base_url=daemon.url, timeout=30) as client:
            tus = Tus(client)
            while time.monotonic() < end:
                which = dice.randrange(len(bodies))
                path, body = paths[which], bodies[which]
                head = tus.head(path)
                if head.status_code == 404:
                    paths[which] = tus.begin(size, Upload_Metadata=encoded(hash=digest(body)))
                    continue
                offset = int(head.headers["upload-offset"])
                answer = tus.patch(path, offset, body[offset : offset + dice.choice([1, 5000, 70_000, size])])
                assert answer.status_code in (204, 404, 409, 413, 423), answer.text
                if "filestored-hash" in answer.headers:
                    assert answer.headers["filestored-hash"] == digest(body)
                    finished.add(digest(body))
                if dice.random() < 0.05:
                    assert tus.ask("DELETE", path).status_code in (204, 404, 423)

    run_together(6, work)
    assert finished
    require_agreement(daemon.store)
    with httpx.Client(base_url=daemon.url, timeout=30) as client:
        for path, body in zip(paths, bodies, strict=True):
            tus = Tus(client)
            if tus.head(path).status_code == 200:
                finish(tus, path, body, acknowledged=0, known=size)
    assert daemon.leftovers() == []
