"""The daemon is killed at every call to the system that changes the disk, one after the other."""

import contextlib
import os
import re
from collections import Counter
from collections.abc import Callable

import httpx
import pytest

from tests.bad_days.consistency import require_whole, rows, sha256
from tests.bad_days.tracing import traced
from tests.conftest import Daemon, StartDaemon
from tests.processes import worker_pids

# all by which an upload or a delete changes the disk; `write` is left out: the event loop wakes itself with it
_CALLS = (
    "writev,pwrite64,pwritev,fdatasync,fsync,syncfs,sync_file_range,rename,renameat,renameat2,link,linkat,"
    "unlink,unlinkat,mkdir,mkdirat,ftruncate,fallocate"
)

SMALL = 1000
LARGE = 200_000


def calls_of(daemon: Daemon, act: Callable[[], bool]) -> list[tuple[str, int]]:
    """Return the calls that something makes the daemon do: each name with 1, 2, … as often as one thread makes it."""
    (worker,) = worker_pids(daemon.pid)
    record = daemon.store.with_suffix(".calls")
    with traced(worker, "-e", f"trace={_CALLS}", "-o", str(record)):
        assert act()
    calls = Counter(tuple(re.findall(r"\w+", line)[:2]) for line in record.read_text().splitlines() if "(" in line)
    most: dict[str, int] = {}
    for (_, name), count in calls.items():
        most[name] = max(most.get(name, 0), count)
    return [(name, number) for name, count in most.items() for number in range(1, count + 1)]


def killed_at(daemon: Daemon, call: str, number: int) -> contextlib.AbstractContextManager[None]:
    """Kill the worker as soon as one of its threads begins its ``number``-th call of a name."""
    (worker,) = worker_pids(daemon.pid)
    return traced(worker, "-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={number}", "-o", "/dev/null")


def answered(ask: Callable[[], httpx.Response]) -> bool:
    """Send a request; tell whether it was answered, which then has to be with success."""
    try:
        answer = ask()
    except httpx.TransportError:
        return False
    assert answer.status_code == 200, answer.text
    return True


def get(daemon: Daemon, digest: str) -> bytes | None:
    """Return a file; None where there is none."""
    answer = httpx.get(f"{daemon.url}/{digest}")
    assert answer.status_code in (200, 404), answer.text
    return answer.content if answer.status_code == 200 else None


def post(daemon: Daemon, bodies: list[bytes]) -> Callable[[], httpx.Response]:
    """Return what uploads one body as it is, several as a form."""
    if len(bodies) == 1:
        return lambda: httpx.post(daemon.url, content=bodies[0])
    return lambda: httpx.post(daemon.url, files=[("file", (f"{i}.bin", body)) for i, body in enumerate(bodies)])


def delete(daemon: Daemon, body: bytes) -> Callable[[], httpx.Response]:
    """Return what deletes a body."""
    return lambda: httpx.delete(daemon.url, params={"file_hash": sha256(body)})


def require_recovered(daemon: Daemon, acknowledged: list[bytes]) -> None:
    """Check what holds after every crash, once the daemon runs again."""
    assert daemon.leftovers() == []
    require_whole(daemon.store)
    for body in acknowledged:
        assert get(daemon, sha256(body)) == body


@pytest.mark.parametrize("sizes", [[SMALL], [LARGE], [SMALL, LARGE]], ids=["in_memory", "staged", "form"])
def test_an_upload_killed_at_any_call_is_whole_or_not_there(start_daemon: StartDaemon, sizes: list[int]) -> None:
    daemon = start_daemon("--workers", "1")
    acknowledged = [os.urandom(size) for size in sizes]
    calls = calls_of(daemon, lambda: answered(post(daemon, acknowledged)))
    assert len(calls) > 8
    killed = 0
    for call, number in calls:
        bodies = [os.urandom(size) for size in sizes]
        with killed_at(daemon, call, number):
            was_answered = answered(post(daemon, bodies))
        killed += not was_answered
        daemon.kill()
        daemon.start()
        require_recovered(daemon, acknowledged)
        found = [get(daemon, sha256(body)) for body in bodies]
        assert all(got in (None, body) for body, got in zip(bodies, found, strict=True))
        assert len({sha256(body) in rows(daemon.store) for body in bodies}) == 1, "a form is recorded in part"
        assert found == bodies or not was_answered
        assert answered(post(daemon, bodies)), f"no upload works after a crash at {call} {number}"
        acknowledged = bodies
    assert killed > 8
    require_recovered(daemon, acknowledged)


def test_a_delete_killed_at_any_call_is_done_or_not(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--workers", "1")
    kept, body = os.urandom(SMALL), os.urandom(SMALL)
    assert answered(post(daemon, [kept]))
    assert answered(post(daemon, [body]))
    calls = calls_of(daemon, lambda: answered(delete(daemon, body)))
    assert len(calls) > 8
    killed = 0
    for call, number in calls:
        assert answered(post(daemon, [body]))
        with killed_at(daemon, call, number):
            was_answered = answered(delete(daemon, body))
        killed += not was_answered
        daemon.kill()
        daemon.start()
        require_recovered(daemon, [kept])
        found = get(daemon, sha256(body))
        assert found is None or (found == body and not was_answered)
        assert (found is None) == (sha256(body) not in rows(daemon.store)), f"half deleted at {call} {number}"
        assert found is None or answered(delete(daemon, body))
        assert get(daemon, sha256(body)) is None
    assert killed > 8
