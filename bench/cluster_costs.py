"""``python -m bench.cluster_costs``: what a file, an upload and a look-up cost PostgreSQL, which the model starts from.

It runs a server of its own, the one the tests use, without flushes: what is counted is the CPU time of the server's
processes, which other programs on the machine change little, and the size of tables. Takes a minute or two.
"""

import argparse
import contextlib
import json
import os
import random
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from filestored.catalogue.catalogue import Catalogue
from filestored.catalogue.records import FileRecord
from filestored.digest import Digest

if TYPE_CHECKING:
    from tests.postgres import Database

FILES = 300_000
_BATCH = 500
_TRANSACTIONS = 400
_LOOKUPS = 4000
_OWNERS = 50


def main() -> int:
    """Measure, and print a JSON object."""
    parser = argparse.ArgumentParser(prog="python -m bench.cluster_costs", description=__doc__)
    parser.add_argument("--files", type=int, default=FILES, help=f"files in the tables ({FILES})")
    arguments = parser.parse_args()
    # here: they are no part of what the other benches need
    from tests.postgres import Database, running

    with running() as server:
        database = Database(server)
        Catalogue.prepare(database.address)
        catalogue = Catalogue(database.address, durable=False)
        try:
            digests = fill(catalogue, arguments.files)
            database.execute("VACUUM ANALYZE")
            print(
                json.dumps({"files": arguments.files, **sizes(database, arguments.files), **times(catalogue, digests)})
            )
        finally:
            catalogue.close()
    return 0


def fill(catalogue: Catalogue, count: int) -> list[Digest]:
    """Add files with random digests, as uploads come; return some of them."""
    digests: list[Digest] = []
    for start in range(0, count, _BATCH):
        records = [_file() for _ in range(min(_BATCH, count - start))]
        with catalogue.transaction([record.digest for record in records]) as transaction:
            for record in records:
                transaction.insert(record, is_first=True)
        digests += [record.digest for record in records[:8]]
    return digests


def _file() -> FileRecord:
    name = f"{random.choice(['report', 'photo', 'notes', 'backup'])}-{secrets.token_hex(6)}.pdf"
    moment = 1_700_000_000_000 + random.randrange(10**11)
    owner = f"service-{random.randrange(_OWNERS)}"
    return FileRecord(
        Digest(secrets.token_hex(32)), owner, name, "application/pdf", random.randrange(10**9), moment, None
    )


def sizes(database: "Database", files: int) -> dict[str, float]:
    """Return the bytes of table and indexes that a file takes."""
    ((table,),) = database.execute("SELECT pg_relation_size('files')")
    ((indexes,),) = database.execute("SELECT pg_indexes_size('files')")
    return {"row_bytes": round(table / files, 1), "index_bytes": round(indexes / files, 1)}


def times(catalogue: Catalogue, digests: list[Digest]) -> dict[str, float]:
    """Return CPU milliseconds of the server: an upload alone, one of 64 in a transaction, a look-up."""
    alone = _cost(lambda: _upload(catalogue, 1), _TRANSACTIONS)
    many = _cost(lambda: _upload(catalogue, 64), _TRANSACTIONS // 16) / 64
    lookup = _cost(lambda: catalogue.find(random.choice(digests)), _LOOKUPS)
    with ThreadPoolExecutor(4) as pool:
        began = time.perf_counter()
        list(pool.map(lambda _: catalogue.find(random.choice(digests)), range(_LOOKUPS)))
        rate = _LOOKUPS / (time.perf_counter() - began)
    return {
        "upload_alone_ms": round(alone * 1000, 3), "upload_of_64_ms": round(many * 1000, 3),
        "lookup_ms": round(lookup * 1000, 4), "lookups_a_second_seen": round(rate),
    }  # fmt: skip


def _upload(catalogue: Catalogue, count: int) -> None:
    records = [_file() for _ in range(count)]
    with catalogue.transaction([record.digest for record in records]) as transaction:
        for record in records:
            transaction.find(record.digest)
            transaction.insert(record, is_first=True)


def _cost(act: Callable[[], object], count: int) -> float:
    """Return the CPU seconds that the server's processes take for each of many acts."""
    with _server_seconds() as spent:
        for _ in range(count):
            act()
    return spent[0] / count


@contextlib.contextmanager
def _server_seconds() -> Iterator[list[float]]:
    """Give a list that holds, at the end, the CPU seconds spent meanwhile by the processes below this one."""
    before = _postgres_seconds()
    spent = [0.0]
    yield spent
    spent[0] = _postgres_seconds() - before


def _postgres_seconds() -> float:
    return sum(_seconds(pid) for pid in _descendants(os.getpid()))


def _descendants(pid: int) -> list[int]:
    """Return the processes below one; that of the server is a child of this one, its workers are below that."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            for child in (task / "children").read_text().split():
                found += [int(child), *_descendants(int(child))]
    return found


def _seconds(pid: int) -> float:
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


if __name__ == "__main__":
    sys.exit(main())
