"""The layout of what is counted, and that nothing is lost or counted twice in it."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest

from filestored import recovery
from filestored.access import Permission, Principal
from filestored.blobs.layout import StoreFolder
from filestored.catalogue.records import Wish, now_milliseconds
from filestored.digest import Algorithm
from filestored.filestore import Filestore
from filestored.metrics import (
    BUCKETS,
    EXPIRED_FILES,
    FAILED_FLUSHES,
    RECEIVED_BYTES,
    SENT_BYTES,
    STATUSES,
    RequestCounts,
    RouteCounts,
    Tally,
)
from filestored.shared import COUNTERS, Shared

ROUTES = [("/", "GET"), ("/", "POST"), ("/{hash}", "GET")]


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Shared]:
    shared = Shared(tmp_path / "shared")
    yield shared
    shared.close()


@pytest.fixture
def counts(shared: Shared) -> RequestCounts:
    return RequestCounts(shared.counters, ROUTES)


def read(counts: RequestCounts, shared: Shared) -> dict[tuple[str, str], RouteCounts]:
    return {(route.path, route.method): route for route in counts.read(shared.sum_counters())}


def test_each_route_and_status_has_a_number_of_its_own(shared: Shared, counts: RequestCounts) -> None:
    lines = [*ROUTES, ("/", "other"), ("/{hash}", "other"), ("other", "other")]
    expected = {}
    for number, (path, method) in enumerate(lines):
        expected[path, method] = {str(status): number + place + 1 for place, status in enumerate(STATUSES)}
        for status, times in expected[path, method].items():
            for _ in range(times):
                counts.count(counts.line(path, method), int(status), 0.0, 0)
    found = read(counts, shared)
    assert {line: route.requests for line, route in found.items()} == expected
    assert all(sum(route.durations) == sum(route.requests.values()) for route in found.values())
    assert shared.sum_counters()[: FAILED_FLUSHES + 1] == [0, 0, 0]


def test_what_is_not_in_the_table_is_counted_as_other(shared: Shared, counts: RequestCounts) -> None:
    for path, method, status in (("/", "PUT", 405), ("", "GET", 404), ("", "BREW", 0), ("/{hash}", "GET", 299)):
        counts.count(counts.line(path, method), status, 0.0, 0)
    assert {line: route.requests for line, route in read(counts, shared).items()} == {
        ("/", "other"): {"405": 1},
        ("other", "other"): {"404": 1, "other": 1},
        ("/{hash}", "GET"): {"other": 1},
    }


@pytest.mark.parametrize("place", range(len(BUCKETS)))
def test_a_bucket_ends_with_its_bound(shared: Shared, counts: RequestCounts, place: int) -> None:
    line = counts.line("/", "GET")
    counts.count(line, 200, BUCKETS[place], 0)
    counts.count(line, 200, BUCKETS[place] * 1.0001, 0)
    durations = read(counts, shared)["/", "GET"].durations
    assert [number for number, times in enumerate(durations) if times] == [place, place + 1]


def test_durations_and_bytes_add_up(shared: Shared, counts: RequestCounts) -> None:
    line = counts.line("/", "POST")
    for seconds, sent in ((0.0001, 5), (0.25, 0), (3600.0, 1 << 40)):
        counts.count(line, 200, seconds, sent)
        counts.count_received(sent + 1)
    assert read(counts, shared)["/", "POST"].seconds == pytest.approx(3600.2501)
    totals = shared.sum_counters()
    assert (totals[SENT_BYTES], totals[RECEIVED_BYTES]) == (5 + (1 << 40), 8 + (1 << 40))


def test_a_table_of_routes_that_does_not_fit_is_refused(shared: Shared) -> None:
    # one for each status and duration, those beyond them, and the sum of the durations
    width = len(STATUSES) + 1 + len(BUCKETS) + 1 + 1
    # each path also has a place for its other methods
    fitting = [(f"/{number}", "GET") for number in range(COUNTERS // width // 2 - 1)]
    RequestCounts(shared.counters, fitting)
    with pytest.raises(ValueError, match=r"raise shared\.COUNTERS"):
        RequestCounts(shared.counters, [*fitting, ("/one", "GET"), ("/two", "GET")])


def test_the_counts_of_all_workers_are_added_up(tmp_path: Path) -> None:
    one, two = Shared(tmp_path / "shared"), Shared(tmp_path / "shared")
    for shared, times in ((one, 3), (two, 4)):
        for _ in range(times):
            counts = RequestCounts(shared.counters, ROUTES)
            counts.count(counts.line("/", "GET"), 200, 0.1, 10)
    for shared in (one, two):
        assert read(counts, shared)["/", "GET"].requests == {"200": 7}
        assert shared.sum_counters()[SENT_BYTES] == 70
    one.close()
    two.close()


def test_a_worker_that_died_leaves_its_counts_to_its_successor(tmp_path: Path) -> None:
    code = "import os, sys; from pathlib import Path; from filestored.shared import Shared; "
    code += "shared = Shared(Path(sys.argv[1])); shared.counters[0] += 5; os.kill(os.getpid(), 9)"
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path / "shared")], check=False)
    assert ended.returncode == -signal.SIGKILL
    successor = Shared(tmp_path / "shared")
    successor.counters[0] += 1
    assert successor.sum_counters()[0] == 6
    successor.forget_counts()
    assert not any(successor.sum_counters())
    successor.close()


class Interrupted(list[int]):
    """A number between whose reading and writing other threads come in, as they may."""

    def __getitem__(self, place: Any) -> Any:
        value = super().__getitem__(place)
        time.sleep(0.0001)
        return value


def test_a_tally_loses_nothing_between_threads() -> None:
    counters = Interrupted([0, 0])
    tally = Tally(cast("memoryview[int]", counters), 1)
    with ThreadPoolExecutor(4) as threads:
        for _ in range(200):
            threads.submit(tally.count)
    assert list(counters) == [0, 200]


def test_expired_files_are_counted(tmp_path: Path) -> None:
    folder = StoreFolder.adopt(tmp_path / "store", Algorithm.SHA256)
    recovery.prepare(folder, None, durable=True)
    store = Filestore(folder, None, durable=False)

    async def story() -> None:
        anna = Principal("anna", Permission.WRITE)
        for life in (-1000, -1000, 1_000_000):
            with store.hold(os.urandom(10)) as staged:
                await store.add(anna, [(staged, Wish(expires_at=now_milliseconds() + life))])
        assert [await store.end_expired(), await store.end_expired()] == [2, 0]
        assert store.shared.sum_counters()[EXPIRED_FILES] == 2

    asyncio.run(asyncio.wait_for(story(), 30))
    store.close()
