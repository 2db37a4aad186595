"""``python -m bench.cluster_model``: a cluster of 1 to 100 daemons and up to 10⁹ files, worked out from measured costs.

A closed queueing network, solved by mean value analysis: so many clients go round, each waiting for its answer before
it asks anew. A request needs CPU time of a daemon, CPU time of PostgreSQL, flushes of its log, reads of its disk for
what its memory does not hold, and requests to the bucket. Where the time of one of these is used up stands the wall.

What is measured is in :class:`Costs`, with how; what is assumed of machines is in :class:`Machines`, of the use in
:class:`Mix`. Change them for your own by ``--set name=value``.
"""

import argparse
import math
import sys
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

DAEMONS = (1, 2, 5, 10, 20, 50, 100)
FILES = (10**6, 10**7, 10**8, 10**9)

DATABASE_CPU, DATABASE_DISK = "PostgreSQL, CPU", "PostgreSQL, disk"

TOTALS_ROWS = 16
"""Rows of ``totals``, of which each worker changes one (catalogue/postgresql.py)."""

# of those who commit: the rest of the flush that runs, and the next one
_FLUSHES = 1.5
_SECONDS_A_DAY = 86_400
_ROUNDS = 8
_MAY_BE_NOTHING = ("uploads", "deletes", "hot", "mean_mb", "hot_files")


@dataclass(frozen=True, slots=True)
class Costs:
    """What one thing costs; CPU times in milliseconds on the machine of the measurement (2 virtual cores of 2026)."""

    row_bytes: float = 205
    """Of a file's row. ``bench.cluster_costs``: 200,000 files with random digests, pg_relation_size."""
    index_bytes: float = 529
    """Of a file in all eight indexes. The same, pg_indexes_size: pages of random keys are two thirds full."""
    lookup_ms: float = 0.048
    """CPU of PostgreSQL to find the rows of a digest. ``bench.cluster_costs``: CPU time of the server's processes."""
    commit_ms: float = 0.27
    """CPU of PostgreSQL for a transaction with its locks, whatever is in it. The same: an upload alone, less a row."""
    row_ms: float = 0.13
    """CPU of PostgreSQL for each file added in a transaction. The same: 64 uploads in one."""
    get_ms: float = 0.75
    """CPU of a daemon for a small file out of the bucket. ``bench.bucket``, CPU time of its processes."""
    hot_ms: float = 0.038
    """CPU of a daemon for a small file in its memory. ``make bench``, get 4K: 26,213 a second by one worker."""
    put_ms: float = 2.25
    """CPU of a daemon for a small upload into the bucket. ``bench.bucket``."""
    sent_gb_s: float = 1.0
    """GB that a core of a daemon passes on from the bucket in a second. ``bench.bucket``: 64 MiB, CPU time."""


@dataclass(frozen=True, slots=True)
class Machines:
    """What is assumed of the machines."""

    daemon_cores: int = 4
    daemon_gb_s: float = 1.1
    """Of a daemon's network, GB/s: 10 Gbit/s, which what comes from the bucket and what goes to clients share."""
    database_cores: int = 16
    database_memory_gb: float = 128
    """Of which the tables have what is left beside 16 GB."""
    database_iops: float = 100_000
    """Random reads or writes of 8 KiB that its disk does in a second: one good NVMe drive."""
    flush_ms: float = 1.0
    """For the database to flush its log once; those who commit meanwhile share the next one."""
    bucket_ms: float = 15.0
    """Until the bucket answers a small request."""
    bucket_gets: float = 5_500
    bucket_puts: float = 3_500
    """Requests a second for each prefix of keys: what S3 promises. There are 256 prefixes, the first two digits."""
    prefixes: int = 256
    bucket_gb_s: float = 1_000
    """What the bucket sends in a second to everybody together."""
    list_ms: float = 100.0
    """Until the bucket lists 1,000 keys."""


@dataclass(frozen=True, slots=True)
class Mix:
    """What clients do: shares of requests, and how they are spread."""

    uploads: float = 0.10
    deletes: float = 0.02
    hot: float = 0.40
    """Downloads of files that the daemon has in memory. The rest are downloads of files it has not."""
    mean_mb: float = 0.25
    """Of a file that is not in memory; MB."""
    owners: int = 50
    """Among whom uploads are spread: what an owner keeps is a row, changed by one transaction at a time."""
    clients: int = 64
    """Who ask at the same time, for each daemon."""
    hot_files: int = 500
    """Files in memory of each worker, which asks the database about each once a second, if it is asked for."""


@dataclass(frozen=True, slots=True)
class Station:
    """Something that requests wait for: seconds a request needs of it, and how many it serves at once."""

    name: str
    seconds: float
    servers: float


@dataclass(frozen=True, slots=True)
class Point:
    """A cluster of one size: requests a second, mean milliseconds until the answer, and what it asks of the others."""

    daemons: int
    files: int
    rate: float
    milliseconds: float
    wall: str
    """What is used most, and how much of it, 0 to 1."""
    used: float
    commits: float
    """Transactions a second."""
    lookups: float
    database_cpu: float
    """Share of its CPU time."""
    database_disk: float
    """Share of its disk's random accesses."""
    bucket_requests: float
    connections: int


def stations(
    daemons: int, files: int, confirmed: float, costs: Costs, machines: Machines, mix: Mix
) -> tuple[list[Station], float]:
    """Return what a request needs on the average, and the seconds in which it only waits (bucket, network).

    ``confirmed`` is the part of the downloads from memory that ask the database whether the file is there still.
    """
    cold = 1 - mix.uploads - mix.deletes - mix.hot
    batch = files_in_commit(mix, machines)
    added = mix.uploads * (costs.row_ms + costs.commit_ms / batch)
    removed = mix.deletes * (costs.row_ms + 3 * costs.commit_ms / batch)
    database = (added + removed + (cold + mix.hot * confirmed) * costs.lookup_ms) / 1000
    missed = miss(files, costs, machines)
    # a look-up reads a page of the index and one of the table; a change reads and writes some six
    pages = missed * (cold * 2 + (mix.uploads + mix.deletes) * 2 * 6)
    gigabytes = cold * mix.mean_mb / 1000
    daemon = (
        mix.hot * costs.hot_ms + cold * costs.get_ms + mix.uploads * costs.put_ms + mix.deletes * costs.get_ms
    ) / 1000 + gigabytes / costs.sent_gb_s
    gets, puts = cold + mix.uploads * 2, mix.uploads + mix.deletes
    commits, held = commits_of(mix, machines), _FLUSHES * machines.flush_ms / 1000
    waiting = (cold + mix.uploads * 3 + mix.deletes) * machines.bucket_ms / 1000
    listed = [
        Station("daemons, CPU", daemon, daemons * machines.daemon_cores),
        Station("daemons, network", 2 * gigabytes / machines.daemon_gb_s, daemons),
        Station(DATABASE_CPU, database, machines.database_cores),
        Station(DATABASE_DISK, pages / machines.database_iops, 1),
        # a flush is shared by all who commit meanwhile; but rows that many change are locked until it ends
        Station("PostgreSQL, rows of totals", commits * held, TOTALS_ROWS),
        Station("PostgreSQL, rows of owners", commits * held, mix.owners),
        Station("bucket, requests", gets / machines.bucket_gets + puts / machines.bucket_puts, machines.prefixes),
        Station("bucket, bandwidth", gigabytes / machines.bucket_gb_s, 1),
    ]
    return listed, waiting + (mix.uploads + 3 * mix.deletes) * held


def commits_of(mix: Mix, machines: Machines) -> float:
    """Return transactions for each request: an upload is one, a delete three, shared by those that wait together."""
    return (mix.uploads + 3 * mix.deletes) / files_in_commit(mix, machines)


def files_in_commit(mix: Mix, machines: Machines) -> float:
    """Return how many changes a worker's committer finds waiting when it begins a transaction, at least one.

    Those that came while the one before was flushed: a worker's share of the clients who upload, seldom many.
    """
    waiting = mix.clients / machines.daemon_cores * (mix.uploads + mix.deletes)
    return max(1.0, waiting / 2)


def miss(files: int, costs: Costs, machines: Machines) -> float:
    """Return which part of the pages of the tables is not in the database's memory.

    Digests are random, and so are the pages that are asked for.
    """
    size = files * (costs.row_bytes + costs.index_bytes)
    memory = max(0.0, machines.database_memory_gb - 16) * 1e9
    return max(0.0, 1 - memory / size)


def solve(listed: list[Station], waiting: float, clients: int) -> tuple[float, float]:
    """Return requests a second and seconds until the answer, by mean value analysis.

    A station with m servers is one of 1/m of the time, and a wait of the rest (Seidmann's approximation).
    """
    demands = [station.seconds / station.servers for station in listed]
    delay = waiting + sum(station.seconds * (1 - 1 / station.servers) for station in listed if station.servers > 1)
    queues = [0.0] * len(demands)
    rate, seconds = 0.0, delay
    for count in range(1, clients + 1):
        stays = [demand * (1 + queue) for demand, queue in zip(demands, queues, strict=True)]
        seconds = delay + sum(stays)
        rate = count / seconds
        queues = [rate * stay for stay in stays]
    return rate, seconds


@lru_cache(1024)
def simulate(daemons: int, files: int, costs: Costs, machines: Machines, mix: Mix) -> Point:
    """Work out a cluster."""
    workers = daemons * machines.daemon_cores
    clients = daemons * mix.clients
    spare = 1 - idle_lookups(daemons, machines) * costs.lookup_ms / 1000 / machines.database_cores
    confirmed, rate, seconds, listed = 1.0, 0.0, 0.0, list[Station]()
    for _ in range(_ROUNDS):
        listed, waiting = stations(daemons, files, confirmed, costs, machines, mix)
        # what goes on without any request takes its part of the database beforehand
        listed = [replace(each, seconds=each.seconds / spare) if each.name == DATABASE_CPU else each for each in listed]
        rate, seconds = solve(listed, waiting, clients)
        # half of the way, so that it settles
        confirmed = (confirmed + confirmations(rate * mix.hot / workers, mix)) / 2
    shares = {station.name: min(1.0, rate * station.seconds / station.servers) for station in listed}
    wall = max(shares, key=lambda name: shares[name])
    cold = 1 - mix.uploads - mix.deletes - mix.hot
    return Point(
        daemons, files, rate, seconds * 1000, wall, shares[wall],
        commits=rate * commits_of(mix, machines),
        lookups=rate * (cold + mix.hot * confirmed) + idle_lookups(daemons, machines),
        database_cpu=shares[DATABASE_CPU],
        database_disk=shares[DATABASE_DISK],
        bucket_requests=rate * (cold + 3 * mix.uploads + mix.deletes),
        connections=workers * 5,
    )  # fmt: skip


def confirmations(rate: float, mix: Mix) -> float:
    """Return which part of so many downloads a second from a worker's memory are the first of a file in its second."""
    if not mix.hot_files:
        return 0.0
    each = rate / mix.hot_files
    return (1 - math.exp(-each)) / each if each > 0 else 1.0


def idle_lookups(daemons: int, machines: Machines) -> float:
    """Return queries a second that come from time alone: tokens, that daemons are alive, upkeep."""
    return daemons * (machines.daemon_cores * 1.25 + 1.0)


@dataclass(frozen=True, slots=True)
class Care:
    """What so many files take: GB of the database, hours of what goes through all of them."""

    files: int
    table_gb: float
    index_gb: float
    in_memory: float
    """Share of the tables that the database's memory holds."""
    reindex_hours: float
    dump_hours: float
    migration_hours: float
    scrub_days: float
    """At 200 MB/s, of files of the mean size."""


def care(files: int, costs: Costs, machines: Machines, mix: Mix) -> Care:
    """Work out what a store of so many files takes."""
    listing = files / 1000 * machines.list_ms / 1000
    rows = files * (costs.row_ms + costs.commit_ms / 256) / 1000
    table, index = files * costs.row_bytes / 1e9, files * costs.index_bytes / 1e9
    return Care(
        files, table, index, 1 - miss(files, costs, machines),
        reindex_hours=(listing + rows) / 3600,
        dump_hours=table / 0.1 / 3600,
        migration_hours=files / 1e6 * 16 / 3600,
        scrub_days=files * mix.mean_mb / 200 / _SECONDS_A_DAY,
    )  # fmt: skip


def table(costs: Costs, machines: Machines, mix: Mix) -> list[str]:
    """Return the lines that are printed."""
    lines = [f"{'files':>7} {'daemons':>8} {'req/s':>9} {'ms':>6} {'commits/s':>10} {'look-ups/s':>11} {'DB CPU':>7} "
             f"{'DB disk':>8} {'bucket req/s':>13} {'connections':>12}  wall"]  # fmt: skip
    for files in FILES:
        for daemons in DAEMONS:
            point = simulate(daemons, files, costs, machines, mix)
            lines.append(
                f"{files:>7.0e} {daemons:>8} {point.rate:>9,.0f} {point.milliseconds:>6.1f} {point.commits:>10,.0f} "
                f"{point.lookups:>11,.0f} {point.database_cpu:>7.0%} {point.database_disk:>8.0%} "
                f"{point.bucket_requests:>13,.0f} {point.connections:>12}  {point.wall} {point.used:.0%}"
            )
    lines += ["", f"{'files':>7} {'table GB':>9} {'index GB':>9} {'in memory':>10} {'reindex h':>10} {'pg_dump h':>10} "
              f"{'migration h':>12} {'scrub days':>11}"]  # fmt: skip
    for files in FILES:
        told = care(files, costs, machines, mix)
        lines.append(
            f"{files:>7.0e} {told.table_gb:>9,.1f} {told.index_gb:>9,.1f} {told.in_memory:>10.0%} "
            f"{told.reindex_hours:>10,.1f} {told.dump_hours:>10,.1f} {told.migration_hours:>12,.1f} "
            f"{told.scrub_days:>11,.1f}"
        )
    return lines


def changed(said: list[str]) -> tuple[Costs, Machines, Mix]:
    """Return the numbers with those changed that are written as NAME=VALUE. Raises ValueError."""
    parts: list[Any] = [Costs(), Machines(), Mix()]
    for each in said:
        name, _, value = each.partition("=")
        number = float(value)
        if number < 0 or (number == 0 and name not in _MAY_BE_NOTHING):
            raise ValueError(f"{name} must be more than 0")
        at = next((at for at, part in enumerate(parts) if name in {field.name for field in fields(part)}), None)
        if at is None:
            raise ValueError(f"there is no {name}")
        kind = type(getattr(parts[at], name))
        parts[at] = replace(parts[at], **{name: kind(number)})
    return parts[0], parts[1], parts[2]


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.cluster_model", description=__doc__)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="another cost or assumption")
    arguments = parser.parse_args()
    try:
        costs, machines, mix = changed(arguments.set)
    except ValueError as error:
        parser.error(str(error))
    for part in (costs, machines, mix):
        print(", ".join(f"{field.name}={getattr(part, field.name):g}" for field in fields(part)))
    print("\n" + "\n".join(table(costs, machines, mix)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
