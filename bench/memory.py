"""What large transfers and many connections cost the daemon in memory.

Each measurement has a daemon of its own: one that has served before would hide growth in what it kept.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from bench import goals, http1
from bench.figures import Figure, Side, Workload
from bench.processes import Tree
from bench.samples import SMALL, put_many
from bench.servers import Site, run_daemon
from bench.transfers import MIB, Plan, transfer
from bench.wrk import LoadFailed

_SLOW_READERS = 200
_SLOW_SECONDS = 4
_SETTLE_SECONDS = 0.5
_LOOK_SECONDS = 0.05
_WARM_UP = 64


def memory_workloads(work: Path, mebibytes: int, connections: int) -> Iterator[Workload]:
    """Make the workloads: one upload and one download of so many MiB, idle connections, slow readers."""
    growth = Growth(work, mebibytes, connections)
    yield Workload(goals.MEMORY_PUT, Side(growth.of_upload))
    yield Workload(goals.MEMORY_GET, Side(growth.of_download))
    yield Workload(goals.MEMORY_IDLE, Side(growth.of_idle_connection))
    yield Workload(goals.MEMORY_SLOW, Side(growth.of_slow_readers))


class Growth:
    """Measures how far the memory of a fresh daemon's process tree rises above where it was before."""

    def __init__(self, work: Path, mebibytes: int, connections: int) -> None:
        self._work = work
        self._store = work / "memory-store"
        self._mebibytes = mebibytes
        self._connections = connections

    def of_upload(self) -> Figure:
        """Return the growth in MiB by one large upload."""
        with self._warm_daemon() as (site, _), Watch(site.tree) as watch:
            figure = self._upload(site)
        return Figure(
            watch.growth / MIB, seconds=figure.seconds, aside=f"{self._mebibytes} MiB at {figure.value:,.0f} MB/s"
        )

    def of_download(self) -> Figure:
        """Return the growth in MiB by one large download."""
        large = self._large_blob()
        with self._warm_daemon() as (site, _), Watch(site.tree) as watch:
            figure = transfer(Plan(site.port, " ".join(site.request(site.download, large))))
        return Figure(
            watch.growth / MIB, seconds=figure.seconds, aside=f"{self._mebibytes} MiB at {figure.value:,.0f} MB/s"
        )

    def of_idle_connection(self) -> Figure:
        """Return the growth in KiB by one connection that has got a small blob and stays open.

        The first quarter of the connections only warms up: what the daemon keeps once is no cost of each.
        """
        with self._warm_daemon() as (site, small), contextlib.ExitStack() as stack:
            request = http1.head(*site.request(site.download, small), {})

            def open_idle(count: int) -> int:
                for _ in range(count):
                    link = stack.enter_context(http1.connect(site.port, 10))
                    link.sendall(request)
                    http1.drain_answer(link, bytearray(SMALL))
                time.sleep(_SETTLE_SECONDS)
                return site.tree.memory()

            before = open_idle(self._connections // 4)
            counted = self._connections - self._connections // 4
            growth = open_idle(counted) - before
        return Figure(growth / 1024 / counted, requests=counted, aside=f"{self._connections} connections")

    def of_slow_readers(self) -> Figure:
        """Return the growth in MiB by readers who take a byte a second of a large blob."""
        large = self._large_blob()
        with self._warm_daemon() as (site, _), Watch(site.tree) as watch, contextlib.ExitStack() as stack:
            request = http1.head(*site.request(site.download, large), {})
            links = [stack.enter_context(http1.connect(site.port, 10)) for _ in range(_SLOW_READERS)]
            for link in links:
                link.sendall(request)
            for _ in range(_SLOW_SECONDS):
                _read_a_byte_each(links)
                time.sleep(1)
        return Figure(watch.growth / MIB, requests=_SLOW_READERS, seconds=_SLOW_SECONDS)

    def _growth_by(self, moved: Figure, watch: "Watch") -> Figure:
        aside = f"{self._mebibytes} MiB at {moved.value:,.0f} MB/s"
        return Figure(watch.growth / MIB, seconds=moved.seconds, aside=aside)

    @contextlib.contextmanager
    def _warm_daemon(self) -> Iterator[tuple[Site, str]]:
        """Run a daemon that has served a few uploads and downloads; also give the digest of a small blob."""
        with run_daemon(self._work, self._store, "relaxed") as site:
            digests = put_many(site, _WARM_UP)
            for digest in digests:
                site.get(digest)
            time.sleep(_SETTLE_SECONDS)
            yield site, digests[0]

    def _large_blob(self) -> str:
        """Return the digest of a blob of the full size; upload one where there is none."""
        if not (large := self._find_large_blob()):
            with run_daemon(self._work, self._store, "relaxed") as site:
                self._upload(site)
            large = self._find_large_blob()
        if not large:
            raise LoadFailed("the large upload cannot be found in the store")
        return large

    def _find_large_blob(self) -> str:
        size = self._mebibytes * MIB
        return next((file.name for file in self._store.glob("??/*") if file.stat().st_size == size), "")

    def _upload(self, site: Site) -> Figure:
        return transfer(Plan(site.port, site.upload, self._mebibytes * MIB, seed=os.urandom(8).hex()))


class Watch:
    """A ``with`` block that watches a process tree; ``growth`` is its highest rise in bytes since the start."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._before = tree.memory()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.growth = 0

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        over = False
        while not over:
            over = self._over.wait(_LOOK_SECONDS)
            self.growth = max(self.growth, self._tree.memory() - self._before)


def _read_a_byte_each(links: list[socket.socket]) -> None:
    for link in links:
        if not link.recv(1):
            raise LoadFailed("a slow reader was cut off")
