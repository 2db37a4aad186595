"""``python -m bench.scale``: what must not grow with the store, measured on a small store and a large one in turn."""

import argparse
import hashlib
import http.client
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from bench.servers import ROOT, Site, run_daemon
from filestored.blobs.layout import StoreFolder
from filestored.catalogue.catalogue import Catalogue
from filestored.catalogue.records import FileRecord
from filestored.digest import Algorithm, Digest

SMALL_STORE = 1_000
LARGE_STORE = 1_000_000
PAGE = 100
LISTING_GOAL = 1.5
START_GOAL = 1.0

_OWNER = "anonymous"
_BATCH = 10_000
_ROUNDS = 200
_STARTS = 7
_SORTS = ("-created_at", "created_at", "name", "-name", "size", "-size")
_FILTERS = ("name=report-000", "type=image/", "name=*7.pdf")


def fill(store: Path, count: int) -> None:
    """Make a store of ``count`` blobs of some bytes each, and a catalogue that names them all."""
    folder = StoreFolder.adopt(store, Algorithm.SHA256)
    Catalogue.prepare(folder.catalogue_file)
    catalogue = Catalogue(folder.catalogue_file, durable=False)
    for shard in range(256):
        (store / f"{shard:02x}").mkdir(exist_ok=True)
    dice = random.Random(count)
    for start in range(0, count, _BATCH):
        with catalogue.transaction() as transaction:
            for number in range(start, min(start + _BATCH, count)):
                transaction.insert(_make_file(store, number, dice), is_first=True)
    catalogue.close()


def _make_file(store: Path, number: int, dice: random.Random) -> FileRecord:
    body = b"%d" % number
    digest = Digest(hashlib.sha256(body).hexdigest())
    descriptor = os.open(store / digest[:2] / digest, os.O_WRONLY | os.O_CREAT, 0o444)
    os.write(descriptor, body)
    os.close(descriptor)
    kind, extension = dice.choice([("image/png", "png"), ("application/pdf", "pdf"), ("text/plain", "txt")])
    name = f"{dice.choice(['report', 'photo', 'notes'])}-{dice.randrange(10**9):09d}.{extension}"
    return FileRecord(digest, _OWNER, name, kind, len(body), 1_700_000_000_000 + number, None)


class Pages:
    """Listing pages of one daemon: the first one, and one somewhere in the middle, of every order."""

    def __init__(self, site: Site) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=60)
        self._cursors: dict[str, str] = {}

    def take(self, query: str) -> float:
        """Get the page after the one got last by this query; return the seconds it took."""
        cursor = self._cursors.pop(query, "")
        path = f"/v1/files?limit={PAGE}&{query}" + (f"&cursor={quote(cursor)}" if cursor else "")
        began = time.perf_counter()
        self._connection.request("GET", path)
        answer = self._connection.getresponse()
        body = answer.read()
        seconds = time.perf_counter() - began
        if answer.status != 200:
            raise SystemExit(f"bench.scale: {path}: {answer.status} {body[:200]!r}")
        self._cursors[query] = json.loads(body)["next_cursor"] or ""
        return seconds


def compare_pages(small: Site, large: Site) -> bool:
    """Measure pages on both in turn; print the medians and tell whether the goal is met."""
    sides = [Pages(small), Pages(large)]
    is_met = True
    for query in [f"sort={sort}" for sort in _SORTS] + list(_FILTERS):
        times: list[list[float]] = [[], []]
        for _ in range(_ROUNDS):
            for side, taken in zip(sides, times, strict=True):
                taken.append(side.take(query))
        first, second = (statistics.median(taken) * 1000 for taken in times)
        is_bounded = query.startswith("sort")
        verdict = _verdict(second / first, LISTING_GOAL) if is_bounded else "(pages of a filter may be short)"
        is_met = is_met and (not is_bounded or second / first <= LISTING_GOAL)
        print(
            f"page of {PAGE}, {query:<18} {first:7.2f} ms {second:7.2f} ms  x{second / first:.2f}  {verdict}",
            flush=True,
        )
    return is_met


def compare_starts(empty: Path, large: Path) -> bool:
    """Start and stop daemons on both stores in turn; print the medians and tell whether the goal is met."""
    times: dict[Path, list[float]] = {empty: [], large: []}
    for _ in range(_STARTS):
        for store, taken in times.items():
            began = time.perf_counter()
            _command("start", "--port", "0", "--store", str(store))
            taken.append(time.perf_counter() - began)
            _command("stop", "--store", str(store))
    first, second = (statistics.median(taken) * 1000 for taken in times.values())
    # what differs by less than one start differs from another is no difference
    noise = (max(times[empty]) - min(times[empty])) * 1000
    is_met = second <= first * START_GOAL + noise
    print(f"start {first:31.0f} ms {second:7.0f} ms  x{second / first:.2f}  {'reached' if is_met else 'MISSED'}")
    return is_met


def _command(*arguments: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    subprocess.run(
        [sys.executable, "-m", "filestored", *arguments], check=True, stdout=subprocess.DEVNULL, env=environment,
        timeout=120,
    )  # fmt: skip


def _verdict(ratio: float, goal: float) -> str:
    return "reached" if ratio <= goal else "MISSED"


@contextmanager
def _work_folder(parent: Path) -> Iterator[Path]:
    parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="scale-", dir=parent))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def main() -> int:
    """Measure and print; return 0, or 1 where a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--files", type=int, default=LARGE_STORE, help="files in the large store (1000000)")
    parser.add_argument("--dir", type=Path, default=ROOT / ".cache" / "bench", help="where the stores lie meanwhile")
    arguments = parser.parse_args()
    with _work_folder(arguments.dir.resolve()) as work:
        small, large, empty = work / "small", work / "large", work / "empty"
        for store, count in ((small, SMALL_STORE), (large, arguments.files), (empty, 0)):
            began = time.perf_counter()
            fill(store, count)
            print(f"{count} files: made in {time.perf_counter() - began:.0f} s", flush=True)
        with run_daemon(work, small, "relaxed") as first, run_daemon(work, large, "relaxed") as second:
            is_met = compare_pages(first, second)
        is_met = compare_starts(empty, large) and is_met
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
